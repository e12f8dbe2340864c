package attacks

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// Reports of leaks: LK1 to LK4.

// knownKey makes a key whose private half the test has, too.
func knownKey(t testing.TB) (*credential.Signer, string) {
	t.Helper()
	key, err := credential.GenerateKey(credential.ES256)
	if err != nil {
		t.Fatal(err)
	}
	text, err := credential.MarshalPrivateKeyPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := credential.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer, string(text)
}

// TestReportsThatProveNothing is LK1, LK2 and LK3: a report of what everybody may know
// takes nothing, and its answer says nothing: it is the same as that to a report that
// takes something.
func TestReportsThatProveNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	signer, private := knownKey(t)
	_, nobodys := knownKey(t)
	a := w.actorWith("payroll", signer)
	expired := w.tokenFor(a, w.BankURL())
	w.Clock.Advance(6 * time.Minute)
	token := w.tokenFor(a, w.BankURL())
	der, err := x509.MarshalPKIXPublicKey(a.signer.Public().Key())
	if err != nil {
		t.Fatal(err)
	}
	code := w.EnrolCode("payroll")
	forged := counterfoiltest.ReadJWT(t, token)
	forged.Signer = w.stranger
	issuer := counterfoiltest.ReadJWT(t, token)
	issuer.Claims["iss"], issuer.Signer = "https://as.example", w.stranger
	none := counterfoiltest.ReadJWT(t, token)
	none.Header["alg"], none.Sign = "none", unsigned
	assertion := counterfoiltest.ForgeAssertion(a.signer, a.name, w.Issuer(), w.Clock.Now())
	proof := counterfoiltest.ForgeProof(t, a.signer, "POST", w.BankURL(), w.Clock.Now())
	jwk := string(a.signer.Public().JWK())
	public := counterfoiltest.PublicJWK(t, a.signer)
	public["d"] = "AQ" // not its own
	added, err := json.Marshal(public)
	if err != nil {
		t.Fatal(err)
	}
	report := func(contentType, body string) answer {
		w.Clock.Advance(500 * time.Millisecond) // no report is refused for the rate
		return w.do(w.post(w.Issuer()+counterfoil.LeakedPath, contentType, body))
	}
	control := report("text/plain", "nothing")
	if control.status != 202 || len(control.body) != 0 {
		t.Fatalf("a report: %s", control)
	}
	same := func(what string, got answer) {
		t.Helper()
		for _, h := range []string{"Date", "X-Request-Id"} {
			got.header.Del(h)
			control.header.Del(h)
		}
		if got.status != control.status || !bytes.Equal(got.body, control.body) || fmt.Sprint(got.header) != fmt.Sprint(control.header) {
			t.Errorf("LK3 %s is told apart: %s\n%s", what, got, control)
		}
	}
	from := w.size()
	for name, body := range map[string]string{
		"LK1 a token without its signature":     token[:strings.LastIndexByte(token, '.')+1],
		"LK1 a token that is cut":               token[:len(token)-4],
		"LK1 a token that goes on":              token + "AAAA",
		"LK1 a token with another end":          token[:len(token)-6] + "AAAAAA",
		"LK1 a token in upper case":             strings.ToUpper(token),
		"LK1 a token by another key":            forged.Compact(t),
		"LK1 a token of another issuer":         issuer.Compact(t),
		"LK1 a token by nobody":                 none.Compact(t),
		"LK1 a token that is past":              expired,
		"LK1 an id of a token":                  w.jti(token),
		"LK1 an assertion":                      assertion.Compact(t),
		"LK1 a proof":                           proof.Compact(t),
		"LK2 a thumbprint":                      a.signer.Public().Thumbprint(),
		"LK2 a thumbprint in JSON":              `{"jkt":"` + a.signer.Public().Thumbprint() + `"}`,
		"LK2 a public key":                      jwk,
		"LK2 a public key in an array":          `[` + jwk + `]`,
		"LK2 a public key as PEM":               string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		"LK2 a public key called private":       string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"LK2 a public key with somebody's d":    string(added),
		"LK2 a key that nobody registered":      nobodys,
		"LK2 an agent, an instance":             `{"agent":"payroll","instance":"` + a.instance + `"}`,
		"LK1 a code's hash":                     `cfe_` + strings.Repeat("a", 30),
		"LK1 a code with another end":           code[:len(code)-1] + string(rune('a'+(code[len(code)-1]-'a'+1)%25)),
		"LK1 half of a code":                    code[:len(code)/2],
		"LK3 nothing":                           "",
		"LK3 nonsense":                          "\x00\xff{[",
		"LK3 deep JSON":                         strings.Repeat("[", 20000),
		"LK3 an array of nothing":               `[null,1,true,{"":""}]`,
		"LK3 many tokens of nobody":             `["` + strings.Repeat(forged.Compact(t)+`","`, 20) + `"]`,
		"LK3 a PEM block without an end":        "-----BEGIN PRIVATE KEY-----\n" + strings.Repeat("A", 1000),
		"LK3 a key whose numbers are too large": `{"kty":"RSA","n":"` + strings.Repeat("_", 8000) + `","e":"AQAB","d":"` + strings.Repeat("_", 8000) + `"}`,
	} {
		for _, contentType := range []string{"application/x-www-form-urlencoded", "application/json"} {
			sent := body
			if contentType == "application/x-www-form-urlencoded" {
				sent = url.Values{"token": {body}}.Encode()
			}
			same(name+" as "+contentType, report(contentType, sent))
		}
	}
	for _, e := range w.since(from) {
		if e.Kind == ledger.Revoked {
			t.Errorf("LK1: something was revoked: %+v %v", e, e.Detail)
		}
	}
	token = w.tokenFor(a, w.BankURL())
	w.works("the control: the agent goes on", w.sendCall(w.callWith(a, token, w.BankURL())))

	// What proves itself is revoked, and that alone; the answer says as little.
	kept := w.tokenFor(a, w.BankURL())
	same("a whole token", report("application/json", `{"found":[{"in":"a log","it":"`+token+`"}]}`))
	w.says("LK4: the token", w.sendCall(w.callWith(a, token, w.BankURL())), 401, counterfoil.TokenRevoked)
	w.works("LK4: another token of the agent", w.sendCall(w.callWith(a, kept, w.BankURL())))
	same("a token that is revoked", report("text/plain", token))
	same("a code", report("text/plain", "export CODE="+code+"\n"))
	if got := w.do(w.enrolment("payroll", code)); got.status != 400 || got.code != counterfoil.EnrolmentRefused {
		t.Errorf("LK4: the code: %s", got)
	}
	if got := w.do(w.enrolment("payroll", w.EnrolCode("payroll"))); got.status != 201 {
		t.Errorf("LK4: another code: %s", got)
	}
	same("a private key", report("text/plain", private))
	w.says("LK4: the key's token", w.sendCall(w.callWith(a, kept, w.BankURL())), 401, counterfoil.TokenRevoked)
	w.says("LK4: the key's assertion", w.tokenIn(a, "", w.BankURL()), 401, counterfoil.ClientRefused)
	w.works("the control: another instance of the agent", w.sendCall(w.call(w.payroll)))
	if n := w.revocations(from); n < 2 {
		t.Errorf("LK4: %d revocations were recorded", n)
	}
	// What is reported is in no log and no entry.
	for _, secret := range []string{token, code} {
		if strings.Contains(w.Log.String(), secret) || bytes.Contains(w.Export(), []byte(secret)) {
			t.Error("LC5: what was reported as leaked was written down")
		}
	}
	// Too much is refused by its size, and a flood for its address.
	if got := report("text/plain", strings.Repeat("a", 1<<20)); got.status != 413 {
		t.Errorf("LK3: a huge report: %s", got)
	}
	flooded := 0
	var flood []*http.Request
	for range 80 {
		flood = append(flood, w.post(w.Issuer()+counterfoil.LeakedPath, "text/plain", "x"))
	}
	for _, got := range w.atOnce(flood) {
		if got.status == 429 {
			flooded++
		} else if got.status != 202 {
			t.Errorf("LK3: one of a flood: %s", got)
		}
	}
	if flooded == 0 {
		t.Error("LK3: a flood is not refused")
	}
	w.works("the control: others go on", w.sendCall(w.call(w.payroll)))
	w.CheckLedger()
}
