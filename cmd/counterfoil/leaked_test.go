package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
)

// leakedSecrets are one of each kind, of an issuer.
type leakedSecrets struct{ token, pem, sec1, jwk, jkt, code string }

func newSecrets(t *testing.T, issuer string) leakedSecrets {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := credential.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	token, err := credential.SignToken(signer, credential.TokenClaims{
		Issuer: issuer, Audience: issuer + "/r/bank", Subject: "payroll", ClientID: "payroll", ID: "tok_1",
		IssuedAt: now, NotBefore: now, Expires: now.Add(time.Minute), JKT: signer.Public().Thumbprint(),
		Agent: credential.AgentClaim{ID: "payroll", Instance: "ins_1", Env: "prod", Epoch: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := credential.MarshalPrivateKeyPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	d, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	code, _ := counterfoil.NewEnrolmentCode()
	return leakedSecrets{
		token: token, pem: string(text), sec1: string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})), jkt: signer.Public().Thumbprint(), code: code.Reveal(),
		jwk: strings.TrimSuffix(string(signer.Public().JWK()), "}") + `,"d":"` + base64.RawURLEncoding.EncodeToString(d) + `"}`,
	}
}

// TestLeakedSaysWhatItRecognises: nobody is told that something is revoked of what no
// issuer would have known.
func TestLeakedSaysWhatItRecognises(t *testing.T) {
	t.Parallel()
	var sent string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		sent = string(b)
		w.WriteHeader(http.StatusAccepted)
	}))
	defer server.Close()
	s, others := newSecrets(t, server.URL), newSecrets(t, "https://other.example")
	flipped := strings.Replace(s.code, s.code[10:11], map[bool]string{true: "b", false: "a"}[s.code[10] == 'a'], 1)
	nine := ""
	for range 9 {
		code, _ := counterfoil.NewEnrolmentCode()
		nine += code.Reveal() + "\n"
	}
	for _, tc := range []struct{ name, found, want, not string }{
		{"a token", s.token + "\n", "1 token;", s.token},
		{"a token in a log", "12:00 Authorization: DPoP " + s.token + " 200", "1 token;", s.token},
		{"a token twice", s.token + "\n" + s.token, "1 token;", ""},
		{"a key", s.pem, "1 private key;", ""},
		{"a key in SEC 1", s.sec1, "1 private key;", ""},
		{"a key in settings", "KEY=" + strings.ReplaceAll(s.pem, "\n", `\n`), "1 private key;", ""},
		{"a key's JWK", s.jwk, "1 private key;", ""},
		{"a key in two forms", s.pem + s.jwk, "1 private key;", ""},
		{"JSON", `{"a":[{"b":"` + s.token + `"},` + s.jwk + `],"c":"` + s.code + `"}`, "1 token, 1 private key, 1 enrolment code;", s.code},
		{"two of them", s.code + " " + others.code + s.pem + others.pem, "2 private keys, 2 enrolment codes;", ""},
		{"more than are looked at", nine, "9 enrolment codes;", ""},

		{"a word", "hello", "", ""},
		{"a thumbprint", s.jkt, "", ""},
		{"a public key", string(mustPublic(t, s.pem)), "", ""},
		{"a token's id", "tok_4f2k7q", "", ""},
		{"half a token", s.token[:strings.LastIndex(s.token, ".")], "", ""},
		{"another issuer's token", others.token, "", others.token},
		{"a code that was mistyped", flipped, "", flipped},
		{"a key that is none", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "", ""},
	} {
		for _, json := range []bool{false, true} {
			var out, errs bytes.Buffer
			args := []string{"leaked", "--issuer", server.URL + "/"}
			if json {
				args = append(args, "--json")
			}
			sent = ""
			code := run(t.Context(), args, streams{strings.NewReader(tc.found), &out, &errs})
			if sent != tc.found {
				t.Errorf("%s: it sent %q", tc.name, sent)
			}
			if tc.not != "" && strings.Contains(out.String()+errs.String(), tc.not) {
				t.Errorf("%s: the secret is repeated: %s%s", tc.name, &out, &errs)
			}
			good := tc.want != "" && tc.found != nine
			if good != (code == exitDone) || !good && code != exitFailed {
				t.Errorf("%s: it ends with %d", tc.name, code)
			}
			if json {
				if none := strings.Contains(out.String(), `{"enrolment_codes":0,"private_keys":[],"tokens":0}`); none != (tc.want == "") {
					t.Errorf("%s: %s", tc.name, &out)
				}
				continue
			}
			said := out.String()
			if tc.want != "" && !strings.HasPrefix(said, "reported: "+tc.want) || tc.want == "" && !strings.Contains(said, "nothing may have been revoked") {
				t.Errorf("%s: %s", tc.name, said)
			}
			if strings.Contains(tc.want, "private key") && !strings.Contains(said, s.jkt) {
				t.Errorf("%s: the key is not named: %s", tc.name, said)
			}
			if !strings.Contains(errs.String(), "counterfoil agent instances") || strings.Contains(errs.String(), "in parts") != (tc.found == nine) {
				t.Errorf("%s: %s", tc.name, &errs)
			}
		}
	}
}

func mustPublic(t *testing.T, private string) []byte {
	t.Helper()
	k, err := privatePEM(private)
	if err != nil {
		t.Fatal(err)
	}
	return k.JWK()
}

// TestLeakedThatIsNotTakenSaysWhen: a report that did not arrive is no report.
func TestLeakedThatIsNotTakenSaysWhen(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "90")
		w.WriteHeader(http.StatusTooManyRequests)
		fmt.Fprint(w, `{"error":"invalid_request"}`)
	}))
	defer server.Close()
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"leaked", "--issuer", server.URL}, streams{strings.NewReader(newSecrets(t, server.URL).token), &out, &errs})
	if code != exitFailed || out.Len() > 0 || !strings.Contains(errs.String(), "did not arrive: report it again in 1m30s") {
		t.Errorf("%d %s%s", code, &out, &errs)
	}
}
