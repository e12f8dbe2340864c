package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
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
