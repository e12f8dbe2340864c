package resource_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/resource"
)

// cpu returns the CPU time of the process, the collector's included.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkVerify measures the whole check of a request against the least that
// it can be: two raw verifications of ES256. These are done in between, block
// by block, as figures of different moments do not compare on a shared machine;
// x-raw is the ratio.
//
//	cold    the token is seen for the first time
//	kept    the token was verified before
func BenchmarkVerify(b *testing.B) {
	message := make([]byte, 600)
	b.Run("raw/ES256", func(b *testing.B) {
		verify := rawES256(b, message)
		measure(b, func() {}, func(int) { verify() })
	})
	b.Run("raw/Ed25519", func(b *testing.B) {
		verify := rawEd25519(b, message)
		measure(b, func() {}, func(int) { verify() })
	})
	for _, alg := range []string{credential.ES256, credential.Ed25519} {
		for _, mode := range []string{"cold", "kept"} {
			b.Run(fmt.Sprintf("check/%s/%s", alg, mode), func(b *testing.B) { benchmarkCheck(b, alg, mode == "kept") })
		}
	}
}

func benchmarkCheck(b *testing.B, alg string, kept bool) {
	s := newSystem(b, credential.ES256, alg)
	tokens := 1
	if !kept {
		tokens = b.N
	}
	signed := make([]string, tokens)
	for i := range signed {
		signed[i] = s.token(func(c *credential.TokenClaims) { c.ID = fmt.Sprint("tok_", i) })
	}
	requests := make([]resource.Request, b.N)
	for i := range requests {
		requests[i] = s.request(func(c *call) { c.token = signed[i%tokens] })
	}
	ctx := context.Background()
	if kept {
		_, err := s.try(func(c *call) { c.token = signed[0] })
		wantDone(b, err)
	}
	raw := rawES256(b, make([]byte, 600))
	measure(b, func() { raw(); raw() }, func(i int) {
		if _, err := s.verifier.Check(ctx, requests[i]); err != nil {
			b.Fatal(err)
		}
	})
	if _, err := s.verifier.Check(ctx, requests[0]); err == nil {
		b.Fatal("a replay is taken")
	}
}

// measure runs f b.N times and reports the CPU that each takes, and the ratio
// to what base takes.
func measure(b *testing.B, base func(), f func(i int)) {
	const block = 25
	var spent, spentBase time.Duration
	b.ReportAllocs()
	b.ResetTimer()
	for from := 0; from < b.N; from += block {
		to := min(from+block, b.N)
		before := cpu()
		for i := from; i < to; i++ {
			f(i)
		}
		spent += cpu() - before

		b.StopTimer()
		before = cpu()
		for range to - from {
			base()
		}
		spentBase += cpu() - before
		b.StartTimer()
	}
	b.ReportMetric(float64(spent)/float64(b.N), "cpu-ns/op")
	if spentBase > spent/100 {
		b.ReportMetric(float64(spent)/float64(spentBase), "x-raw")
	}
}

func rawES256(b *testing.B, message []byte) func() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	sum := sha256.Sum256(message)
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		b.Fatal(err)
	}
	return func() {
		sum := sha256.Sum256(message)
		if !ecdsa.VerifyASN1(&key.PublicKey, sum[:], sig) {
			b.Fatal("the signature does not verify")
		}
	}
}

func rawEd25519(b *testing.B, message []byte) func() {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	sig := ed25519.Sign(key, message)
	return func() {
		if !ed25519.Verify(pub, message, sig) {
			b.Fatal("the signature does not verify")
		}
	}
}

// BenchmarkReplay holds the replay cache against a plain sharded map.
func BenchmarkReplay(b *testing.B) {
	until := start.Add(70 * time.Second)
	replay := resource.NewMemoryReplay(func() time.Time { return start })
	type shard struct {
		sync.Mutex
		m map[string]int64
	}
	var plain [256]shard
	for i := range plain {
		plain[i].m = map[string]int64{}
	}
	for _, c := range []struct {
		name string
		use  func(string) bool
	}{
		{"plain", func(id string) bool {
			s := &plain[id[0]]
			s.Lock()
			defer s.Unlock()
			if _, seen := s.m[id]; seen {
				return false
			}
			s.m[id] = until.Unix()
			return true
		}},
		{"memory", func(id string) bool {
			fresh, err := replay.UseOnce(context.Background(), id, until)
			return fresh && err == nil
		}},
	} {
		n := 0
		b.Run(c.name, func(b *testing.B) {
			ids := make([]string, b.N)
			for i := range ids {
				n++
				ids[i] = credential.TokenHash(fmt.Sprint(n))
			}
			b.ReportAllocs()
			b.ResetTimer()
			for _, id := range ids {
				if !c.use(id) {
					b.Fatal("a first use is refused")
				}
			}
		})
	}
}
