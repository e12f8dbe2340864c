package attacks

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

// The keys that assertions are checked with: CA11, CA18 and CA20.

// TestKeysThatEnded is CA11: what was a key is answered as what never was one.
func TestKeysThatEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	listed, removed, gone := counterfoiltest.NewSigner(t, credential.ES256), counterfoiltest.NewSigner(t, credential.ES256), counterfoiltest.NewSigner(t, credential.ES256)
	keyed := func(keys ...*credential.Signer) string {
		var jwks []string
		for _, k := range keys {
			jwks = append(jwks, string(k.Public().JWK()))
		}
		return "kind: Agent\nname: keyed\nowner: ana\nenvironment: prod\ngrants: [{tools: [bank/get_balance]}]\nkeys: [" + strings.Join(jwks, ", ") + "]\n"
	}
	w.Apply(keyed(listed, removed))
	w.Apply(strings.Replace(keyed(gone), "name: keyed", "name: passing", 1))
	w.Apply("kind: Agent\nname: pending\nowner: ana\nenvironment: prod\ngrants: [{tools: [bank/get_balance]}]\n")
	for name, signer := range map[string]*credential.Signer{"keyed": removed, "passing": gone} {
		if got := w.sendToken(w.tokenRequest(&actor{name: name, signer: signer})); !got.passed() {
			t.Fatalf("%s before: %s", name, got)
		}
	}
	w.EnrolCode("pending") // which nobody uses
	w.Apply(keyed(listed))
	w.Offboard("passing")

	never := w.sendToken(w.tokenRequest(&actor{name: "nobody", signer: w.stranger}))
	ended := func(name, agent string, signer *credential.Signer) attack {
		return attack{row: "CA11", name: name, want: badClient(counterfoil.ClientRefused),
			control: func(_ *testing.T, w *world) answer {
				return w.sendToken(w.tokenRequest(&actor{name: "keyed", signer: listed}))
			},
			send: func(t *testing.T, w *world) answer {
				got := w.sendToken(w.tokenRequest(&actor{name: agent, signer: signer}))
				wantAlike(t, never, got)
				return got
			}}
	}
	run(t, w, []attack{
		ended("a key that was ended just now", "keyed", removed),
		ended("an offboarded agent's key", "passing", gone),
		ended("a key that is pending: its code is not used yet", "pending", w.stranger),
	})
}

// wantAlike compares all that a client gets but the request's id and the date.
func wantAlike(t *testing.T, one, other answer) {
	t.Helper()
	same := func(a answer) string {
		h := a.header.Clone()
		h.Del("Date")
		h.Del("X-Request-Id")
		if a.requestID == "" || !bytes.Contains(a.body, []byte(a.requestID)) {
			t.Errorf("an answer without its request id: %s", a)
		}
		var b strings.Builder
		if err := h.Write(&b); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(a.status, "\n", b.String(), strings.ReplaceAll(string(a.body), a.requestID, "ID"))
	}
	if x, y := same(one), same(other); x != y {
		t.Errorf("two refusals that tell something apart:\n%s\n%s", x, y)
	}
}

// TestUnknownAgentsAreAnsweredAlike is CA20.
func TestUnknownAgentsAreAnsweredAlike(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Apply("kind: Agent\nname: paused\nowner: ana\nenvironment: prod\ngrants: [{tools: [bank/get_balance]}]\n")
	w.actor("paused")
	w.Suspend("paused")
	as := func(name string) func(*world, *jwt) {
		return func(w *world, j *jwt) {
			j.Claims["iss"], j.Claims["sub"] = name, name
			j.Signer, j.Header["kid"] = w.stranger, w.stranger.Public().Thumbprint()
		}
	}
	q := w.tokenRequest(w.payroll)
	as("nobody")(w, &q.Assertion)
	never := w.sendToken(q)
	if never.code != counterfoil.ClientRefused {
		t.Fatalf("an agent that never was: %s", never)
	}
	alike := func(name string, edit func(*world, *jwt)) attack {
		a := badAssertion("CA20", name, badClient(counterfoil.ClientRefused), edit)
		send := a.send
		a.send = func(t *testing.T, w *world) answer {
			got := send(t, w)
			wantAlike(t, never, got)
			return got
		}
		return a
	}
	both := func(edits ...func(*world, *jwt)) func(*world, *jwt) {
		return func(w *world, j *jwt) {
			for _, edit := range edits {
				edit(w, j)
			}
		}
	}
	long := both(as("payroll"), func(w *world, j *jwt) { j.Claims["exp"] = w.Clock.Now().Unix() + 3600 })
	run(t, w, []attack{
		alike("a known agent, a key that is not its own", as("payroll")),
		alike("a known agent, its kid, a bad signature", func(w *world, j *jwt) { j.Signer = w.stranger }),
		alike("a known agent, no kid, a bad signature", func(w *world, j *jwt) { j.Signer = w.stranger; delete(j.Header, "kid") }),
		alike("a suspended agent, a key that is not its own", as("paused")),
		alike("a name that cannot be", as("No Body")),
		alike("a name of line breaks", as("nobody\r\nSet-Cookie: a=b")),
		alike("a known agent, another audience, a bad signature", both(as("payroll"), assertionClaim("aud", "https://as.example"))),
		alike("a known agent, a long life, a bad signature", long),
		alike("an unknown agent, another audience", both(as("nobody"), assertionClaim("aud", "https://as.example"))),
	})
}

// TestWeakKeysAreNotRegistered is CA18, at both places where keys come in.
func TestWeakKeysAreNotRegistered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	integer := func(i *big.Int) string { return base64.RawURLEncoding.EncodeToString(i.Bytes()) }
	modulus := func(bits int) *big.Int {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits)))
		if err != nil {
			t.Fatal(err)
		}
		return n.SetBit(n.SetBit(n, bits-1, 1), 0, 1)
	}
	rsaKey := func(n *big.Int, e int64) map[string]any {
		return map[string]any{"kty": "RSA", "n": integer(n), "e": integer(big.NewInt(e))}
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	strong := counterfoiltest.PublicJWK(t, counterfoiltest.NewSigner(t, credential.PS256))
	weak := map[string]map[string]any{
		"a modulus of 1024 bits":          rsaKey(modulus(1024), 65537),
		"a modulus of 2047 bits":          rsaKey(modulus(2047), 65537),
		"a modulus of 16384 bits":         rsaKey(modulus(16384), 65537),
		"an exponent of 1":                rsaKey(modulus(2048), 1),
		"an exponent of 3":                rsaKey(modulus(2048), 3),
		"an even modulus":                 rsaKey(new(big.Int).SetBit(modulus(2048), 0, 0), 65537),
		"a generator known to be weak":    rsaKey(rocaModulus(), 65537),
		"P-521, that says it is ES512":    {"kty": "EC", "crv": "P-521", "alg": "ES512", "x": integer(p521.X), "y": integer(p521.Y)},
		"P-521, that says it is ES256":    {"kty": "EC", "crv": "P-521", "alg": "ES256", "x": integer(p521.X), "y": integer(p521.Y)},
		"a shared secret":                 {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"},
		"a point off the curve":           {"kty": "EC", "crv": "P-256", "x": strings.Repeat("A", 43), "y": strings.Repeat("A", 43)},
		"secp256k1":                       {"kty": "EC", "crv": "secp256k1", "x": strings.Repeat("A", 43), "y": strings.Repeat("A", 43)},
		"a key for encryption":            with(strong, "use", "enc"),
		"an algorithm that it is not for": with(strong, "alg", "RS256"),
	}
	manifest := func(name string, jwk map[string]any) string {
		b, err := json.Marshal(jwk)
		if err != nil {
			t.Fatal(err)
		}
		return "kind: Agent\nname: " + name + "\nowner: ana\nenvironment: prod\nkeys: [" + string(b) + "]\n"
	}
	if problems := w.TryApply(manifest("strong", strong)); len(problems) > 0 {
		t.Fatalf("a strong key: %q", problems)
	}
	for name, jwk := range weak {
		if problems := w.TryApply(manifest("weak", jwk)); len(problems) == 0 {
			t.Errorf("CA18 %s: a manifest registered it", name)
		}
	}
	var rows []attack
	for name, jwk := range weak {
		rows = append(rows, attack{row: "CA18", name: name, want: want{status: 401, code: counterfoil.ProofMalformed, challenge: "invalid_dpop_proof"},
			send: func(t *testing.T, w *world) answer {
				got := w.enrol(w.stranger, func(_ *world, j *jwt) {
					j.Header["jwk"] = jwk
					if jwk["kty"] == "RSA" {
						j.Header["alg"] = "PS256"
					}
				})
				// Nobody can sign with most of these keys: it is the key that has to
				// be refused, not the signature.
				if strings.Contains(fmt.Sprint(got.member("detail")), "signature") {
					t.Errorf("refused for its signature alone: %s", got)
				}
				return got
			}})
	}
	run(t, w, rows)
	if got := w.enrol(w.stranger); got.status != http.StatusCreated {
		t.Errorf("an honest enrolment: %s", got)
	}
}

// enrol sends an enrolment of payroll's with a good code.
func (w *world) enrol(signer *credential.Signer, edits ...func(*world, *jwt)) answer {
	w.T.Helper()
	proof := counterfoiltest.ForgeProof(w.T, signer, http.MethodPost, w.Issuer()+"/enroll", w.Clock.Now())
	for _, edit := range edits {
		edit(w, &proof)
	}
	body, err := json.Marshal(map[string]string{"agent": "payroll", "code": w.EnrolCode("payroll")})
	if err != nil {
		w.T.Fatal(err)
	}
	r, err := http.NewRequestWithContext(w.T.Context(), http.MethodPost, w.Issuer()+"/enroll", bytes.NewReader(body))
	if err != nil {
		w.T.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("DPoP", proof.Compact(w.T))
	return w.do(r)
}

// rocaModulus has the fingerprint of CVE-2017-15361: a power of 65537 modulo many
// small primes.
func rocaModulus() *big.Int {
	m := big.NewInt(1)
	for p := int64(3); p <= 701; p += 2 {
		if prime := big.NewInt(p); prime.ProbablyPrime(0) {
			m.Mul(m, prime)
		}
	}
	n := new(big.Int).Exp(big.NewInt(65537), big.NewInt(12345), m)
	n.Add(n, new(big.Int).Lsh(m, uint(2048-m.BitLen())))
	if n.Bit(0) == 0 {
		n.Add(n, m)
	}
	return n
}

func with(jwk map[string]any, name string, value any) map[string]any {
	m := map[string]any{name: value}
	for k, v := range jwk {
		if k != name {
			m[k] = v
		}
	}
	return m
}
