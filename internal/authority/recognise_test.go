package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
)

// privateOf makes a key, and writes it as a private JWK and in PEM.
func privateOf(t testing.TB, alg string) (public credential.PublicKey, jwk, text string) {
	t.Helper()
	var key crypto.Signer
	var err error
	if alg == credential.PS256 {
		key, _ = rsaOf(t) // the smallest that is taken: making one takes its time
	} else if key, err = credential.GenerateKey(alg); err != nil {
		t.Fatal(err)
	}
	if public, err = credential.NewPublicKey(key.Public()); err != nil {
		t.Fatal(err)
	}
	b, err := credential.MarshalPrivateKeyPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	members := map[string]string{}
	if err := ijson.Unmarshal(public.JWK(), &members); err != nil {
		t.Fatal(err)
	}
	members["d"] = base64.RawURLEncoding.EncodeToString(exponentOf(t, key))
	private, err := ijson.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	return public, string(private), string(b)
}

// words says what was recognised: a code, a token, or the thumbprint of a key that is
// shown to be one.
func words(found []leak) []string {
	var out []string
	for _, l := range found {
		switch {
		case l.code != nil:
			out = append(out, "code")
		case l.token != "":
			out = append(out, l.token)
		case l.private.proves():
			out = append(out, l.private.thumbprint())
		default:
			out = append(out, "unproven")
		}
	}
	return out
}

// A secret is found whatever it is sent in, once, and nothing else is.
func TestRecognise(t *testing.T) {
	t.Parallel()
	secret, _ := counterfoil.NewEnrolmentCode()
	code := secret.Reveal()
	jwt := "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJodHRwczovL2NmIn0.c2lnbmF0dXJlLXRoYXQtaXMtbm90LW9uZQ"
	public, jwk, text := privateOf(t, credential.ES256)
	jkt := public.Thumbprint()
	const form = "application/x-www-form-urlencoded"
	quoted, err := ijson.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, body, kind string
		want             []string
	}{
		{"a code as it is", code, "text/plain", []string{"code"}},
		{"in the midst of a text", "export CODE='" + code + "' # oops", "", []string{"code"}},
		{"a mistyped code", code[:len(code)-1] + "2", "", nil},
		{"a token in a form", "token=" + jwt, form, []string{jwt}},
		{"a token as a body that claims to be a form", jwt, form, []string{jwt}},
		{"a token in a header's line", "Authorization: DPoP " + jwt + "\r\n", "", []string{jwt}},
		{"a token in JSON", `{"token":"` + jwt + `","url":"https://x.example"}`, "application/json", []string{jwt}},
		{"in a list, deep, and twice", `[{"a":{"b":["` + jwt + `"]}},{"token":"` + jwt + `"},"` + code + `"]`, "", []string{jwt, "code"}},
		{"as a member's name", `{"` + code + `":1}`, "", []string{"code"}},
		{"a private JWK", jwk, "application/json", []string{jkt}},
		{"a private JWK in JSON", `{"found":[` + jwk + `]}`, "application/json", []string{jkt}},
		{"a private JWK in a form", "key=" + url.QueryEscape(jwk), form, []string{jkt}},
		{"a private JWK in a text", "const key = " + jwk + ";", "", []string{jkt}},
		{"a private JWK as JSON's string", fmt.Sprintf("{%q:%q}", "key", jwk), "", []string{jkt}},
		{"PEM", text, "application/x-pem-file", []string{jkt}},
		{"PEM that claims to be a form", text, form, []string{jkt}},
		{"PEM in a form", "key=" + url.QueryEscape(text), form, []string{jkt}},
		{"PEM in JSON", `{"key":` + string(quoted) + `}`, "", []string{jkt}},
		{"PEM in a file of settings", `KEY="` + strings.ReplaceAll(text, "\n", `\n`) + `"`, "", []string{jkt}},
		{"PEM and JWK of one key", text + jwk, "", []string{jkt}},
		{"a public JWK", string(public.JWK()), "application/json", nil},
		{"a thumbprint", jkt, "", nil},
		{"a thumbprint in JSON", `{"jkt":"` + jkt + `"}`, "application/json", nil},
		{"nothing", "", "", nil},
		{"JSON that is none", `{"token":`, "application/json", nil},
		{"a domain name", "registry.terraform.example.com.subdomain", "", nil},
	} {
		if got := words(recognise([]byte(tt.body), tt.kind)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if got := recognise([]byte(strings.Repeat(jwt+" x"+jwt+"\n", 3)), ""); len(got) > maxLeaks {
		t.Errorf("%d are looked at", len(got))
	}
	var many strings.Builder
	for range 3 * maxLeaks {
		s, _ := counterfoil.NewEnrolmentCode()
		many.WriteString(s.Reveal() + "\n")
	}
	if got := recognise([]byte(many.String()), ""); len(got) != maxLeaks {
		t.Errorf("of many codes %d are looked at", len(got))
	}
}

// A private key is one of its public half, or it proves nothing: anybody can write a
// number beside a public key.
func TestPrivateKeysProveThemselves(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{credential.ES256, credential.ES384, credential.Ed25519, credential.PS256} {
		public, jwk, text := privateOf(t, alg)
		want := []string{public.Thumbprint()}
		if got := words(recognise([]byte(jwk), "")); !slices.Equal(got, want) {
			t.Errorf("%s as JWK: %q", alg, got)
		}
		if got := words(recognise([]byte(text), "")); !slices.Equal(got, want) {
			t.Errorf("%s in PEM: %q", alg, got)
		}
		// Another's private half beside its public one.
		_, other, _ := privateOf(t, alg)
		var mine, theirs map[string]string
		if err := ijson.Unmarshal([]byte(jwk), &mine); err != nil {
			t.Fatal(err)
		}
		if err := ijson.Unmarshal([]byte(other), &theirs); err != nil {
			t.Fatal(err)
		}
		mine["d"] = theirs["d"]
		forged, err := ijson.Marshal(mine)
		if err != nil {
			t.Fatal(err)
		}
		if got := words(recognise(forged, "")); slices.Contains(got, public.Thumbprint()) {
			t.Errorf("%s: a public key with another's private half is taken for its own: %q", alg, got)
		}
	}
	for _, d := range []string{"AA", "AQ", "", "!", strings.Repeat("A", 43), strings.Repeat("_", 43)} {
		for _, jwk := range []string{`{"kty":"EC","crv":"P-256","d":"` + d + `"}`, `{"kty":"oct","k":"x","d":"` + d + `"}`, `{"kty":"EC","crv":"P-521","d":"` + d + `"}`} {
			if got := recognise([]byte(jwk), ""); len(got) != 0 {
				t.Errorf("%s: %q", jwk, words(got))
			}
		}
	}
}

// The forms that other tools write.
func TestOtherPEM(t *testing.T) {
	t.Parallel()
	key, err := credential.GenerateKey(credential.ES256)
	if err != nil {
		t.Fatal(err)
	}
	public, err := credential.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	sec1 := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	if got := words(recognise(sec1, "")); !slices.Equal(got, []string{public.Thumbprint()}) {
		t.Errorf("SEC 1: %q", got)
	}
	rsaKey, want := rsaOf(t)
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)})
	if got := words(recognise(pkcs1, "")); !slices.Equal(got, []string{want.Thumbprint()}) {
		t.Errorf("PKCS #1: %q", got)
	}
	for _, bad := range []string{
		"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----",
		strings.Replace(string(sec1), "EC PRIVATE", "PRIVATE", 2), "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
	} {
		if got := recognise([]byte(bad), ""); len(got) != 0 {
			t.Errorf("%.40s: %q", bad, words(got))
		}
	}
}

// Whatever is reported, what is recognised is few, and each is one thing.
func FuzzRecognise(f *testing.F) {
	secret, _ := counterfoil.NewEnrolmentCode()
	f.Add([]byte(secret.Reveal()), "")
	f.Add([]byte(`{"a":[{"kty":"EC","crv":"P-256","d":"AQ"}]}`), "application/json")
	f.Add([]byte(`a=%7B%22kty%22%3A%22RSA%22%7D&b=eyJ`), "application/x-www-form-urlencoded")
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----"), "text/plain")
	f.Fuzz(func(t *testing.T, body []byte, kind string) {
		found := recognise(body, kind)
		if len(found) > maxLeaks {
			t.Errorf("%d are found", len(found))
		}
		for _, l := range found {
			n := 0
			for _, is := range []bool{l.code != nil, l.token != "", l.private != nil} {
				if is {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%+v is %d things", l, n)
			}
		}
	})
}

// padded is a P-256 key in PKCS #8 with attributes of so many bytes after it (RFC 5958,
// Section 2), which nobody looks at.
func padded(t *testing.T, size int) (jkt, text string) {
	t.Helper()
	key, err := credential.GenerateKey(credential.ES256)
	if err != nil {
		t.Fatal(err)
	}
	public, err := credential.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
		More      []byte `asn1:"tag:0,optional"`
	}
	if _, err := asn1.Unmarshal(der, &p); err != nil {
		t.Fatal(err)
	}
	p.More = make([]byte, size)
	if der, err = asn1.Marshal(p); err != nil {
		t.Fatal(err)
	}
	return public.Thumbprint(), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// A report makes little work, whatever is in it: a key that is too large is not parsed,
// none is parsed twice, and few are.
func TestReportsMakeLittleWork(t *testing.T) {
	t.Parallel()
	look := func(body string) *finder {
		f := newFinder()
		f.report([]byte(body), "")
		return f
	}
	jkt, small := padded(t, 3<<10)
	_, large := padded(t, maxPrivate)
	if f := look(small); f.parsed != 1 || !slices.Equal(words(f.found), []string{jkt}) {
		t.Errorf("a small one: %d parsed, %q", f.parsed, words(f.found))
	}
	for name, body := range map[string]string{
		"a large one": large, "a large one in JSON": fmt.Sprintf("[%q]", large),
		"all of a report": "-----BEGIN RSA PRIVATE KEY-----\n" + strings.Repeat("A", 40<<10) + "\n-----END RSA PRIVATE KEY-----",
		"a large JWK":     `{"kty":"RSA","n":"` + strings.Repeat("A", maxPrivate) + `","e":"AQAB","d":"AQ"}`,
	} {
		if f := look(body); f.parsed != 0 || len(f.found) != 0 {
			t.Errorf("%s: %d parsed, %q", name, f.parsed, words(f.found))
		}
	}
	// The same again, in other lines, and as a text within a text.
	_, jwk, text := privateOf(t, credential.ES256)
	junk := "-----BEGIN EC PRIVATE KEY-----\nMAA=\n-----END EC PRIVATE KEY-----\n"
	for name, tt := range map[string]struct {
		body   string
		parsed int
	}{
		"a key often":            {strings.Repeat(text, 40), 1},
		"a key in other lines":   {text + strings.ReplaceAll(text, "\n", `\n`), 1},
		"what is none, often":    {strings.Repeat(junk, 200), 1},
		"none in many strings":   {"[" + strings.TrimSuffix(strings.Repeat(fmt.Sprintf("%q,", junk), 200), ",") + "]", 1},
		"a JWK often":            {"[" + strings.TrimSuffix(strings.Repeat(jwk+",", 40), ",") + "]", 1},
		"a JWK within and again": {`{"a":{"b":{"c":` + jwk + `}},"d":` + fmt.Sprintf("%q", jwk) + `}`, 1},
	} {
		if f := look(tt.body); f.parsed != tt.parsed {
			t.Errorf("%s: %d parsed, want %d", name, f.parsed, tt.parsed)
		}
	}
	var many strings.Builder
	many.WriteString(text)
	for i := range 10 * maxParsed {
		der := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "no key %06d", i))
		fmt.Fprintf(&many, "-----BEGIN RSA PRIVATE KEY-----\n%s\n-----END RSA PRIVATE KEY-----\n", der)
	}
	if f := look(many.String()); f.parsed != maxParsed || len(f.found) != 1 {
		t.Errorf("of many %d are parsed, and %d found", f.parsed, len(f.found))
	}
}

// An RSA key is parsed when its modulus is of a size that is taken, as its first number
// says it.
func TestLargeModuliAreNotParsed(t *testing.T) {
	t.Parallel()
	of := func(bits uint) []byte {
		t.Helper()
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		der, err := asn1.Marshal(struct {
			Version int
			N, E, D *big.Int
		}{0, n, big.NewInt(65537), big.NewInt(3)})
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	if !fewBits(of(maxRSA)) {
		t.Errorf("%d bits are too many", maxRSA)
	}
	for name, der := range map[string][]byte{"one bit more": of(maxRSA + 1), "many more": of(4 * maxRSA), "no number": []byte("x"), "nothing": nil} {
		if fewBits(der) {
			t.Errorf("%s is taken", name)
		}
	}
	key, want := rsaOf(t)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if got := words(recognise(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), "")); !slices.Equal(got, []string{want.Thumbprint()}) {
		t.Errorf("one that is taken, in PKCS #8: %q", got)
	}
}
