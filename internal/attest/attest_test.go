package attest_test

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/attest"
	"github.com/counterfoil/counterfoil/internal/testkit"
)

const (
	idp  = "https://idp.example"
	crm  = "https://gateway.example/r/crm"
	jwks = idp + "/jwks"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// A world is an outside issuer whose keys are published at one place.
type world struct {
	t       *testing.T
	clock   *testkit.Clock
	idp     *testkit.OutsideIssuer
	issuers *attest.Issuers
	bearer  counterfoil.Bearer

	mu      sync.Mutex
	body    map[string]string // what is published, by URL
	fails   error
	fetched map[string]int
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, clock: testkit.NewClock(start), idp: testkit.NewOutsideIssuer(t, "k1"), fetched: map[string]int{},
		bearer: counterfoil.Bearer{Agent: "reports", Issuer: idp, Subject: "job", Audience: "crm", JWKSURI: jwks},
	}
	w.body = map[string]string{jwks: w.idp.JWKS()}
	var err error
	w.issuers, err = attest.New(attest.Config{Fetch: w.fetch})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) fetch(_ context.Context, url string, most int64) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fetched[url]++
	if w.fails != nil {
		return nil, w.fails
	}
	if body, ok := w.body[url]; ok {
		return []byte(body), nil
	}
	return nil, errors.New("there is nothing at that URL")
}

func (w *world) publish(url, body string, fails error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.body[url], w.fails = body, fails
}

func (w *world) fetches(url string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fetched[url]
}

func (w *world) claims(change func(map[string]any)) map[string]any {
	now := w.clock.Now().Unix()
	c := map[string]any{"iss": idp, "sub": "job", "aud": "crm", "jti": "j1", "iat": now, "exp": now + 300}
	if change != nil {
		change(c)
	}
	return c
}

func (w *world) honest() string { return w.idp.Token(w.claims(nil)) }

func (w *world) attest(token string) (counterfoil.Caller, error) {
	return w.issuers.Attest(w.t.Context(), token, &w.bearer, crm, w.clock.Now())
}

// want tries a token; an empty code wants it taken.
func (w *world) want(name, token string, code counterfoil.Code) {
	w.t.Helper()
	_, err := w.attest(token)
	if err == nil && code == "" {
		return
	}
	if err == nil || counterfoil.CodeOf(err) != code {
		w.t.Errorf("%s: got %v, want %q", name, err, code)
	}
}

func TestHonestTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	caller, err := w.attest(w.honest())
	if err != nil {
		t.Fatal(err)
	}
	if caller.TokenID != "j1" || !caller.Issued.Equal(start) || !caller.Expires.Equal(start.Add(5*time.Minute)) || caller.Agent != "" {
		t.Errorf("the token says %+v", caller)
	}
	// An audience of one in a list, other types, no jti, a fraction of a second.
	for name, change := range map[string]func(map[string]any){
		"a list":      func(c map[string]any) { c["aud"] = []string{"crm"} },
		"no jti":      func(c map[string]any) { delete(c, "jti") },
		"a fraction":  func(c map[string]any) { c["exp"] = float64(start.Unix()) + 1.5 },
		"nbf":         func(c map[string]any) { c["nbf"] = start.Unix() + 9 },
		"more claims": func(c map[string]any) { c["scope"], c["client_id"] = "a b", "job" },
	} {
		if _, err := w.attest(w.idp.Token(w.claims(change))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, typ := range []string{"JWT", "at+jwt", "application/at+jwt", "AT+JWT", "JOSE"} {
		if _, err := w.attest(w.idp.Sign(map[string]any{"alg": "ES256", "typ": typ, "kid": "k1"}, w.claims(nil))); err != nil {
			t.Errorf("%s: %v", typ, err)
		}
	}
	if n := w.fetches(jwks); n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
	// Without an audience of its own the declaration means the resource.
	w.bearer.Audience = ""
	w.want("the resource's audience", w.idp.Token(w.claims(func(c map[string]any) { c["aud"] = crm })), "")
	w.want("another audience", w.honest(), counterfoil.TokenAudience)
}

func TestClaimsAreExact(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	now := start.Unix()
	for name, c := range map[string]struct {
		change func(map[string]any)
		code   counterfoil.Code
	}{
		"issuer with a slash":  {func(c map[string]any) { c["iss"] = idp + "/" }, counterfoil.TokenIssuer},
		"no issuer":            {func(c map[string]any) { delete(c, "iss") }, counterfoil.TokenIssuer},
		"another subject":      {func(c map[string]any) { c["sub"] = "job2" }, counterfoil.BearerRefused},
		"upper case":           {func(c map[string]any) { c["sub"] = "JOB" }, counterfoil.BearerRefused},
		"another audience":     {func(c map[string]any) { c["aud"] = "crm2" }, counterfoil.TokenAudience},
		"two audiences":        {func(c map[string]any) { c["aud"] = []string{"crm", "hr"} }, counterfoil.TokenAudience},
		"no audience":          {func(c map[string]any) { delete(c, "aud") }, counterfoil.TokenAudience},
		"an empty audience":    {func(c map[string]any) { c["aud"] = []string{} }, counterfoil.TokenAudience},
		"expired":              {func(c map[string]any) { c["iat"], c["exp"] = now-60, now }, counterfoil.TokenExpired},
		"no exp":               {func(c map[string]any) { delete(c, "exp") }, counterfoil.TokenMalformed},
		"exp as a string":      {func(c map[string]any) { c["exp"] = "4000000000" }, counterfoil.TokenMalformed},
		"a null exp":           {func(c map[string]any) { c["exp"] = nil }, counterfoil.TokenMalformed},
		"a far exp":            {func(c map[string]any) { c["exp"] = 1e300 }, counterfoil.TokenMalformed},
		"good for ten years":   {func(c map[string]any) { c["exp"] = now + 10*365*24*3600 }, counterfoil.TokenExpired},
		"no iat":               {func(c map[string]any) { delete(c, "iat") }, counterfoil.TokenMalformed},
		"iat in the future":    {func(c map[string]any) { c["iat"] = now + 11 }, counterfoil.TokenExpired},
		"not good yet":         {func(c map[string]any) { c["nbf"] = now + 11 }, counterfoil.TokenExpired},
		"nbf as a string":      {func(c map[string]any) { c["nbf"] = "0" }, counterfoil.TokenMalformed},
		"bound":                {func(c map[string]any) { c["cnf"] = map[string]any{"jkt": "x"} }, counterfoil.BearerRefused},
		"a logout token":       {func(c map[string]any) { c["events"] = map[string]any{} }, counterfoil.TokenMalformed},
		"an ID token":          {func(c map[string]any) { c["nonce"] = "n" }, counterfoil.TokenMalformed},
		"an ID token's hash":   {func(c map[string]any) { c["at_hash"] = "h" }, counterfoil.TokenMalformed},
		"a jti with a newline": {func(c map[string]any) { c["jti"] = "a\nb" }, counterfoil.TokenMalformed},
		"a long jti":           {func(c map[string]any) { c["jti"] = strings.Repeat("j", 257) }, counterfoil.TokenMalformed},
	} {
		w.want(name, w.idp.Token(w.claims(c.change)), c.code)
	}
	header := `{"alg":"ES256","kid":"k1"}`
	exp := fmt.Sprint(now + 300)
	for name, claims := range map[string]string{
		"aud twice":      `{"iss":"` + idp + `","sub":"job","aud":"hr","aud":"crm","iat":1790000000,"exp":` + exp + `}`,
		"folded names":   `{"iss":"` + idp + `","sub":"job","aud":"crm","Aud":"hr","iat":1790000000,"exp":` + exp + `}`,
		"no object":      `"claims"`,
		"trailing bytes": `{"iss":"` + idp + `"} `,
	} {
		if _, err := w.attest(w.idp.SignText(header, claims)); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
	w.want("the honest one", w.honest(), "")
}

// RFC 8725, Section 3.1; rows 11, 13 and 14 of the advisories.
func TestHeadersAndSignatures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	honest := w.honest()
	parts := strings.Split(honest, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	hs := func(secret string) string {
		input := b64([]byte(`{"alg":"HS256","kid":"k1"}`)) + "." + parts[1]
		m := hmac.New(sha256.New, []byte(secret))
		m.Write([]byte(input))
		return input + "." + b64(m.Sum(nil))
	}
	other := testkit.NewOutsideIssuer(t, "k1")
	for name, token := range map[string]string{
		"none":                     b64([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".",
		"HMAC by the public key":   hs(w.idp.JWK()),
		"no signature":             parts[0] + "." + parts[1] + ".",
		"another key, same kid":    other.Token(w.claims(nil)),
		"another payload":          parts[0] + "." + b64([]byte(`{"iss":"`+idp+`"}`)) + "." + parts[2],
		"a byte less":              honest[:len(honest)-1],
		"a byte more":              honest + "A",
		"two parts":                parts[0] + "." + parts[1],
		"five parts":               honest + "..",
		"a lot of dots":            strings.Repeat(".", 4096),
		"long":                     strings.Repeat("a", 9<<10),
		"crit":                     w.idp.Sign(map[string]any{"alg": "ES256", "kid": "k1", "crit": []string{"x"}, "x": 1}, w.claims(nil)),
		"b64":                      w.idp.Sign(map[string]any{"alg": "ES256", "kid": "k1", "b64": true}, w.claims(nil)),
		"a proof's type":           w.idp.Sign(map[string]any{"alg": "ES256", "kid": "k1", "typ": "dpop+jwt"}, w.claims(nil)),
		"an event's type":          w.idp.Sign(map[string]any{"alg": "ES256", "kid": "k1", "typ": "secevent+jwt"}, w.claims(nil)),
		"an assertion's type":      w.idp.Sign(map[string]any{"alg": "ES256", "kid": "k1", "typ": "client-authentication+jwt"}, w.claims(nil)),
		"a logout token's":         w.idp.Sign(map[string]any{"alg": "ES256", "kid": "k1", "typ": "logout+jwt"}, w.claims(nil)),
		"a key of its own":         other.Sign(map[string]any{"alg": "ES256", "kid": "k1", "jwk": map[string]any{"kty": "EC"}}, w.claims(nil)),
		"an unknown kid":           w.idp.Sign(map[string]any{"alg": "ES256", "kid": "k2"}, w.claims(nil)),
		"an algorithm of no curve": w.idp.Sign(map[string]any{"alg": "ES384", "kid": "k1"}, w.claims(nil)),
	} {
		if _, err := w.attest(token); err == nil {
			t.Errorf("%s: it is taken", name)
		} else if _, refused := counterfoil.AsRefusal(err); !refused {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.want("the honest one", honest, "")
	// Without a kid every key that suits is tried.
	w.want("no kid", w.idp.Sign(map[string]any{"alg": "ES256"}, w.claims(nil)), "")
}

// WI4, row 9: a key is known by issuer and kid.
func TestSameKidAtTwoIssuers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const other = "https://other.example"
	second := testkit.NewOutsideIssuer(t, "k1")
	w.publish(other+"/jwks", second.JWKS(), nil)
	theirs := counterfoil.Bearer{Agent: "billing", Issuer: other, Subject: "job", Audience: "crm", JWKSURI: other + "/jwks"}
	claims := w.claims(func(c map[string]any) { c["iss"] = other })
	try := func(token string, b *counterfoil.Bearer) error {
		_, err := w.issuers.Attest(t.Context(), token, b, crm, w.clock.Now())
		return err
	}
	for _, b := range []*counterfoil.Bearer{&w.bearer, &theirs, &w.bearer} {
		honest, forged := w.honest(), second.Token(w.claims(nil))
		if b == &theirs {
			honest, forged = second.Token(claims), w.idp.Token(claims)
		}
		if err := try(honest, b); err != nil {
			t.Errorf("%s: %v", b.Issuer, err)
		}
		if err := try(forged, b); counterfoil.CodeOf(err) != counterfoil.TokenMalformed {
			t.Errorf("%s: a token by the other issuer's key: %v", b.Issuer, err)
		}
	}
}

// WI5, row 12: what is published now counts, for at most five minutes.
func TestKeysAreThoseThatArePublished(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.idp
	w.want("at first", w.honest(), "")

	// Rotated: the new key is there at once where its kid is new, the old one is gone
	// with it.
	w.idp = testkit.NewOutsideIssuer(t, "k2")
	w.publish(jwks, w.idp.JWKS(), nil)
	w.clock.Advance(time.Minute + time.Second)
	w.want("the new key", w.honest(), "")
	w.want("the removed key", old.Token(w.claims(nil)), counterfoil.TokenMalformed)

	// Removed without another: gone when the copy is five minutes old.
	w.publish(jwks, `{"keys":[]}`, nil)
	w.clock.Advance(3 * time.Minute)
	w.want("a copy of three minutes", w.honest(), "")
	w.clock.Advance(2*time.Minute + time.Second)
	w.want("a copy of five minutes", w.honest(), counterfoil.TokenMalformed)
	w.publish(jwks, w.idp.JWKS(), nil)
	w.clock.Advance(time.Minute + time.Second)
	w.want("published again", w.honest(), "")

	// Not to be had: the copy serves for its time, and then nothing does.
	w.publish(jwks, "", errors.New("the connection was refused"))
	w.clock.Advance(4 * time.Minute)
	w.want("an outage", w.honest(), "")
	w.clock.Advance(time.Minute + time.Second)
	before := w.fetches(jwks)
	for range 50 {
		w.want("a long outage", w.honest(), counterfoil.UpstreamUnavailable)
	}
	if n := w.fetches(jwks) - before; n != 1 {
		t.Errorf("the keys that cannot be had were asked for %d times at once", n)
	}
	w.publish(jwks, w.idp.JWKS(), nil)
	w.clock.Advance(11 * time.Second)
	w.want("after the outage", w.honest(), "")
}

// Made-up kids make us fetch once a minute, whoever sends them.
func TestUnknownKidsAreNoFlood(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want("at first", w.honest(), "")
	for i := range 200 {
		w.want("a made-up kid", w.idp.Sign(map[string]any{"alg": "ES256", "kid": fmt.Sprint("x", i)}, w.claims(nil)), counterfoil.TokenMalformed)
	}
	if n := w.fetches(jwks); n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
	w.clock.Advance(time.Minute)
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			_, _ = w.attest(w.idp.Sign(map[string]any{"alg": "ES256", "kid": fmt.Sprint("y", i)}, w.claims(nil)))
		})
	}
	all.Wait()
	if n := w.fetches(jwks); n != 2 {
		t.Errorf("the keys were fetched %d times", n)
	}
	w.want("the honest one", w.honest(), "")
}

// Row 10: nothing that a token says is fetched.
func TestTokensNameNoAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const metadata = "http://169.254.169.254/latest"
	claims := w.claims(func(c map[string]any) { c["iss"] = metadata })
	for _, header := range []map[string]any{
		{"alg": "ES256", "kid": metadata, "jku": metadata, "x5u": metadata}, {"alg": "ES256", "kid": "../" + metadata},
	} {
		if _, err := w.attest(w.idp.Sign(header, claims)); err == nil {
			t.Error("it is taken")
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for url := range w.fetched {
		if url != jwks {
			t.Errorf("%s was fetched", url)
		}
	}
}

func TestKeySetsAreJudged(t *testing.T) {
	t.Parallel()
	rsaJWK := func(bits, e int) string {
		n := make([]byte, bits/8)
		_, _ = rand.Read(n)
		n[0], n[len(n)-1] = n[0]|0x80, n[len(n)-1]|1
		return fmt.Sprintf(`{"kty":"RSA","kid":"k1","n":%q,"e":%q}`, base64.RawURLEncoding.EncodeToString(n), base64.RawURLEncoding.EncodeToString([]byte{byte(e >> 16), byte(e >> 8), byte(e)}))
	}
	for name, body := range map[string]func(w *world) string{
		"no JSON":          func(*world) string { return "<html>" },
		"no keys":          func(*world) string { return `{}` },
		"keys of null":     func(*world) string { return `{"keys":[null,1,"x",{},[]]}` },
		"every field null": func(*world) string { return `{"keys":[{"kty":null,"crv":null,"x":null,"y":null}]}` },
		"one kid twice": func(w *world) string {
			return `{"keys":[` + w.idp.JWK() + `,` + testkit.NewOutsideIssuer(w.t, "k1").JWK() + `]}`
		},
		"for encryption": func(w *world) string { return strings.Replace(w.idp.JWKS(), `"use":"sig"`, `"use":"enc"`, 1) },
		"for signing alone": func(w *world) string {
			return strings.Replace(w.idp.JWKS(), `"use":"sig"`, `"key_ops":["sign"]`, 1)
		},
		"for another alg":   func(w *world) string { return strings.Replace(w.idp.JWKS(), `"ES256"`, `"ES384"`, 1) },
		"with its secret":   func(w *world) string { return strings.Replace(w.idp.JWKS(), `"use":"sig"`, `"d":"AQ"`, 1) },
		"symmetric":         func(*world) string { return `{"keys":[{"kty":"oct","kid":"k1","k":"AAAA"}]}` },
		"off the curve":     func(w *world) string { return strings.Replace(w.idp.JWKS(), `"x":"`, `"x":"AA`, 1) },
		"RSA of 1024 bits":  func(*world) string { return `{"keys":[` + rsaJWK(1024, 65537) + `]}` },
		"RSA of 16384 bits": func(*world) string { return `{"keys":[` + rsaJWK(16384, 65537) + `]}` },
		"RSA with e=2":      func(*world) string { return `{"keys":[` + rsaJWK(2048, 2) + `]}` },
		"too long":          func(w *world) string { return w.idp.JWKS() + strings.Repeat(" ", 64<<10) },
		"duplicate members": func(w *world) string { return strings.Replace(w.idp.JWKS(), `"kid":"k1"`, `"kid":"k1","kid":"k1"`, 1) },
	} {
		w := newWorld(t)
		w.publish(jwks, body(w), nil)
		if _, err := w.attest(w.honest()); err == nil {
			t.Errorf("%s: a token is taken", name)
		}
	}
	// What is not understood beside the key is ignored.
	w := newWorld(t)
	w.publish(jwks, `{"keys":[{"kty":"oct","k":"AA"},`+strings.Replace(w.idp.JWK(), `"use"`, `"x5c":["nonsense"],"use"`, 1)+`],"more":1}`, nil)
	w.want("other keys beside it", w.honest(), "")
}

func TestDeclaredKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bearer.JWKSURI, w.bearer.Keys = "", []string{w.idp.JWK()}
	w.want("a declared key", w.honest(), "")
	w.bearer.Keys = []string{strings.Replace(w.idp.JWK(), `"kid":"k1"`, `"use":"sig"`, 1)}
	w.bearer.Keys[0] = strings.Replace(w.bearer.Keys[0], `,"use":"sig"`, "", 1)
	w.want("a declared key without a name", w.honest(), "")
	w.bearer.Keys = []string{testkit.NewOutsideIssuer(t, "k1").JWK()}
	w.want("another key", w.honest(), counterfoil.TokenMalformed)
	w.bearer.Keys = nil
	w.want("no key", w.honest(), counterfoil.TokenMalformed)
	w.bearer = counterfoil.Bearer{Agent: "reports", Key: "sha-256:x"}
	w.want("a static key's declaration", w.honest(), counterfoil.BearerRefused)
	if n := w.fetches(jwks); n != 0 {
		t.Errorf("something was fetched %d times", n)
	}
}

// RSA keys of others verify too, by the algorithms of RSA alone.
func TestRSAKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	w.publish(jwks, fmt.Sprintf(`{"keys":[{"kty":"RSA","kid":"r1","n":%q,"e":"AQAB"}]}`, b64(key.N.Bytes())), nil)
	claims := strings.Split(w.honest(), ".")[1]
	w.want("RS256", signRSA(t, key, `{"alg":"RS256","kid":"r1"}`, claims), "")
	w.want("a signature under another name", signRSA(t, key, `{"alg":"PS256","kid":"r1"}`, claims), counterfoil.TokenMalformed)
	w.want("an algorithm of another kind", w.idp.Sign(map[string]any{"alg": "ES256", "kid": "r1"}, w.claims(nil)), counterfoil.TokenMalformed)
}

func FuzzAttest(f *testing.F) {
	o := testkit.NewOutsideIssuer(f, "k1")
	f.Add(`{"alg":"ES256","kid":"k1"}`, `{"iss":"`+idp+`","sub":"job","aud":"crm","iat":1795348800,"exp":1795349100}`)
	f.Add(`{"alg":"ES256"}`, `{"iss":"`+idp+`","aud":["crm"],"exp":1e99}`)
	issuers, err := attest.New(attest.Config{Fetch: func(context.Context, string, int64) ([]byte, error) { return nil, errors.New("none") }})
	if err != nil {
		f.Fatal(err)
	}
	b := counterfoil.Bearer{Agent: "reports", Issuer: idp, Subject: "job", Audience: "crm", Keys: []string{o.JWK()}}
	f.Fuzz(func(t *testing.T, header, claims string) {
		caller, err := issuers.Attest(t.Context(), o.SignText(header, claims), &b, crm, start)
		if err == nil && (!caller.Expires.After(start) || caller.Issued.After(start.Add(time.Minute))) {
			t.Errorf("%s is taken as %+v", claims, caller)
		}
	})
}
