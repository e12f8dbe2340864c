package gateway_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/gateway"
)

// admitCallers is how many requests wait at a time, so that commits are shared
// as they are on a busy server.
const admitCallers = 64

// BenchmarkAdmit measures what a call costs the gateway, in CPU time of the
// process by getrusage, against two raw ES256 verifications that are done in the
// same run (x-raw), because figures of different moments do not compare.
//
//	refused    verification, replay, revocation, strict JSON, policy, one durable
//	           entry, the answer: admission alone
//	forwarded  the same and building the upstream request, reading its answer and
//	           the second durable entry; the upstream costs nothing
//	task       forwarded, in a task that counts calls, below another one
//	keyed      forwarded, with an Idempotency-Key of its own
func BenchmarkAdmit(b *testing.B) {
	message := make([]byte, 600)
	raw := rawVerifications(b, message)
	for name, verify := range raw {
		b.Run("raw/"+name, func(b *testing.B) {
			began := cpuTime()
			for b.Loop() {
				verify()
			}
			b.ReportMetric(float64(cpuTime()-began)/float64(b.N), "cpu-ns/op")
		})
	}
	b.Run("refused", func(b *testing.B) { benchmarkAdmit(b, "wipe", counterfoil.ClassForbidden, raw["ES256"], plain) })
	b.Run("forwarded", func(b *testing.B) { benchmarkAdmit(b, "get_balance", "", raw["ES256"], plain) })
	b.Run("task", func(b *testing.B) { benchmarkAdmit(b, "get_balance", "", raw["ES256"], inTasks) })
	b.Run("keyed", func(b *testing.B) {
		n := 0
		benchmarkAdmit(b, "get_balance", "", raw["ES256"], func(*actor) func(*http.Request) {
			return func(r *http.Request) { n++; r.Header.Set("Idempotency-Key", strconv.Itoa(n)) }
		})
	})
}

// What is special about an actor of a benchmark, and about its requests.
func plain(*actor) func(*http.Request) { return func(*http.Request) {} }

func inTasks(a *actor) func(*http.Request) {
	parent := a.begin(func(t *counterfoil.Task) { t.MaxCalls = 1 << 40 })
	a.begin(under(parent, func(t *counterfoil.Task) {
		t.Tools, t.MaxCalls = []counterfoil.ToolID{bankTool("get_balance"), bankTool("region")}, 1<<40
	}))
	return func(*http.Request) {}
}

func rawVerifications(b *testing.B, message []byte) map[string]func() {
	b.Helper()
	digest := sha256.Sum256(message)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	sig, err := ecdsa.SignASN1(rand.Reader, ec, digest[:])
	if err != nil {
		b.Fatal(err)
	}
	pub, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	edSig, err := ed.Sign(rand.Reader, message, crypto.Hash(0))
	if err != nil {
		b.Fatal(err)
	}
	return map[string]func(){
		"ES256": func() {
			d := sha256.Sum256(message)
			if !ecdsa.VerifyASN1(&ec.PublicKey, d[:], sig) {
				panic("ES256")
			}
		},
		"Ed25519": func() {
			if !ed25519.Verify(pub, message, edSig) {
				panic("Ed25519")
			}
		},
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// instant answers every tool call at once, without a connection.
type instant struct{ next http.RoundTripper }

func (i instant) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("Mcp-Method") != "tools/call" {
		return i.next.RoundTrip(r)
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, err
	}
	const answer = `{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"12.50"}],"resultType":"complete"}}`
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r, ContentLength: int64(len(answer)),
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(answer)),
	}, nil
}

func benchmarkAdmit(b *testing.B, tool string, want counterfoil.Code, raw func(), special func(*actor) func(*http.Request)) {
	w := newWorld(b, sdkServer(true, true), func(_ *counterfoil.Registry, c *gateway.Config) {
		c.Transport = instant{&http.Transport{}}
		c.Rate = 1e9 // the clock stands still
	})
	a := w.actor("payroll")
	change := special(a)
	token := a.token(nil)
	body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + tool + `","arguments":{"account":"operating"},` + meta2026 + `}}`
	request := func() *http.Request {
		r := httptest.NewRequest(http.MethodPost, w.resource(), strings.NewReader(body))
		for k, v := range map[string]string{
			"Authorization": "DPoP " + token, "DPoP": a.proof(http.MethodPost, w.resource(), token), "Content-Type": "application/json",
			"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": rev2026, "Mcp-Method": "tools/call", "Mcp-Name": tool,
		} {
			r.Header.Set(k, v)
		}
		r.RemoteAddr = "127.0.0.1:40000" // a network of the grant
		change(r)
		return r
	}
	first := httptest.NewRecorder()
	w.gateway.ServeHTTP(first, request()) // fills what is kept: the token, the tool's definition
	says := `"code":"` + string(want) + `"`
	if want == "" {
		says = `"text":"12.50"`
	}
	if first.Code != http.StatusOK || !strings.Contains(first.Body.String(), says) {
		b.Fatalf("HTTP %d %s", first.Code, first.Body)
	}
	requests := make([]*http.Request, b.N)
	for i := range requests {
		requests[i] = request()
	}
	m := measured{b: b, callers: admitCallers}
	b.ReportAllocs()
	b.ResetTimer()
	const block = 2000
	for from := 0; from < b.N; from += block {
		to := min(from+block, b.N)
		m.spent += m.each(from, to, func(i int) {
			rec := httptest.NewRecorder()
			w.gateway.ServeHTTP(rec, requests[i])
			if rec.Code != http.StatusOK {
				b.Errorf("HTTP %d %s", rec.Code, rec.Body)
			}
		})
		b.StopTimer()
		m.base += m.each(from, to, func(int) { raw(); raw() })
		b.StartTimer()
	}
	b.ReportMetric(float64(m.spent)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(m.spent)/float64(m.base), "x-raw")
}

// measured is what the calls and what they are held against took. Both are done
// by as many callers at once, block by block: two threads on one core slow each
// other down, and figures of different moments do not compare.
type measured struct {
	b           *testing.B
	callers     int
	spent, base time.Duration
}

// each has the callers do f from one number to before another, and returns the
// CPU time of the process that it took.
func (m *measured) each(from, to int, f func(i int)) time.Duration {
	began := cpuTime()
	var next atomic.Int64
	next.Store(int64(from))
	var all sync.WaitGroup
	for range m.callers {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(to); i = next.Add(1) - 1 {
				f(int(i))
			}
		})
	}
	all.Wait()
	return cpuTime() - began
}
