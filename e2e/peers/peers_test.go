package peers_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/counterfoil/counterfoil/e2e/peers"
)

// These tests hold the peers against something other than Counterfoil, so that
// when a story in e2e fails it is known which side changed.

func TestTheSDKsTalkToEachOther(t *testing.T) {
	t.Parallel()
	p := peers.Need(t)
	s := p.MCP(t, p.Everything(t),
		peers.Call{Name: "echo", Arguments: map[string]any{"message": "to be repeated"}},
		peers.Call{Name: "trigger-long-running-operation", Arguments: map[string]any{"duration": 0.1, "steps": 4}},
		peers.Call{Name: "there-is-no-such-tool"},
	)

	if !s.Session || s.Protocol == "" || s.Server.Name == "" {
		t.Errorf("session %v, protocol %q, server %q: want all three", s.Session, s.Protocol, s.Server.Name)
	}
	for _, name := range []string{"echo", "get-env", "trigger-long-running-operation"} {
		if !slices.Contains(s.Tools, name) {
			t.Errorf("%s is not among the tools %q, and the stories call it", name, s.Tools)
		}
	}

	echo, long, unknown := s.Calls[0], s.Calls[1], s.Calls[2]
	if !strings.Contains(echo.Text(), "to be repeated") {
		t.Errorf("echo answered %+v", echo)
	}
	if long.Result == nil || len(long.Progress) != 4 || long.Progress[3].Progress != 4 {
		t.Errorf("the long operation answered %+v, want 4 notifications", long)
	}
	if unknown.Error == nil && !unknown.Result.IsError {
		t.Errorf("an unknown tool answered %+v", unknown)
	}
}

func TestOpenIDClientKeepsTheProfile(t *testing.T) {
	t.Parallel()
	p := peers.Need(t)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name      string
		key       crypto.Signer
		discovery string
	}{
		{"ES256, RFC 8414", p256, "oauth2"},
		{"Ed25519, OpenID Connect Discovery", ed, "oidc"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			as := newIssuer(t, tt.key)
			got := p.OpenID(t, peers.OpenID{
				Issuer: as.URL, Agent: "payroll", KeyFile: as.keyFile,
				Resource: as.URL + "/r/bank", Scope: "get_balance", Discovery: tt.discovery,
				Use: map[string]any{"jsonrpc": "2.0", "id": 1, "method": "ping"},
			})
			if got.Refused != nil {
				t.Fatalf("refused: %+v", *got.Refused)
			}
			if got.TokenType != "dpop" || got.ExpiresIn != 300 || got.Scope != "get_balance" {
				t.Errorf("token of type %q for %d s and %q", got.TokenType, got.ExpiresIn, got.Scope)
			}
			if got.JKT != as.jkt || got.Claims.Cnf.JKT != as.jkt {
				t.Errorf("proof key %q, token bound to %q, want %q", got.JKT, got.Claims.Cnf.JKT, as.jkt)
			}
			if got.Used == nil || got.Used.Status != http.StatusOK {
				t.Errorf("the resource answered %+v", got.Used)
			}

			if got := p.OpenID(t, peers.OpenID{
				Issuer: as.URL, Agent: "nobody", KeyFile: as.keyFile, Resource: as.URL + "/r/bank", Discovery: tt.discovery,
			}); got.Refused == nil || got.Refused.Error != "invalid_client" {
				t.Errorf("another agent's name got %+v, want invalid_client", got)
			}
		})
	}
}

// issuer is the least that grants a token, and checks with go-jose that what
// the client sends is what Counterfoil insists on.
type issuer struct {
	*httptest.Server
	key          jose.JSONWebKey // public, of the one agent
	keyFile, jkt string
	token        string
}

func newIssuer(t *testing.T, key crypto.Signer) *issuer {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	as := &issuer{key: jose.JSONWebKey{Key: key.Public()}, keyFile: filepath.Join(t.TempDir(), "agent.key")}
	if err := os.WriteFile(as.keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	thumbprint, err := as.key.Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	as.jkt = base64.RawURLEncoding.EncodeToString(thumbprint)
	claims := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"cnf":{"jkt":%q}}`, as.jkt))
	as.token = base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"at+jwt"}`)) + "." + claims + ".c2ln"

	mux := http.NewServeMux()
	as.Server = httptest.NewServer(mux)
	t.Cleanup(as.Close)
	metadata := func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{
			"issuer":                                as.URL,
			"token_endpoint":                        as.URL + "/token",
			"response_types_supported":              []string{"none"},
			"grant_types_supported":                 []string{"client_credentials"},
			"token_endpoint_auth_methods_supported": []string{"private_key_jwt"},
			"token_endpoint_auth_signing_alg_values_supported": []string{"ES256", "Ed25519"},
			"dpop_signing_alg_values_supported":                []string{"ES256", "Ed25519"},
		})
	}
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", metadata)
	mux.HandleFunc("GET /.well-known/openid-configuration", metadata)
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		if err := as.checkAssertion(r.FormValue("client_assertion")); err != nil {
			answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client", "error_description": err.Error()})
			return
		}
		err := as.checkProof(r, "")
		if err == nil && r.FormValue("resource") != as.URL+"/r/bank" {
			err = fmt.Errorf("the resource is %q", r.FormValue("resource"))
		}
		if err != nil {
			answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_request", "error_description": err.Error()})
			return
		}
		answer(w, http.StatusOK, map[string]any{
			"access_token": as.token, "token_type": "DPoP", "expires_in": 300, "scope": r.FormValue("scope"),
		})
	})
	mux.HandleFunc("POST /r/bank", func(w http.ResponseWriter, r *http.Request) {
		if got, want := r.Header.Get("Authorization"), "DPoP "+as.token; got != want {
			answer(w, http.StatusUnauthorized, map[string]any{"error": "Authorization is " + got})
			return
		}
		if err := as.checkProof(r, as.token); err != nil {
			answer(w, http.StatusUnauthorized, map[string]any{"error": err.Error()})
			return
		}
		answer(w, http.StatusOK, map[string]any{"jsonrpc": "2.0", "id": 1, "result": map[string]any{}})
	})
	return as
}

// checkAssertion holds an assertion against standards that we insist on: the
// issuer as the one audience, written as a string, and a minute of life.
func (as *issuer) checkAssertion(compact string) error {
	var claims struct {
		Iss, Sub, Aud, Jti string
		Iat, Exp           int64
	}
	if _, err := as.open(compact, &claims); err != nil {
		return err
	}
	switch now := time.Now().Unix(); {
	case claims.Iss != "payroll" || claims.Sub != "payroll":
		return fmt.Errorf("iss is %q, sub %q", claims.Iss, claims.Sub)
	case claims.Aud != as.URL:
		return fmt.Errorf("aud is %q", claims.Aud)
	case claims.Jti == "":
		return errors.New("there is no jti")
	case claims.Exp <= now || claims.Exp > now+120:
		return fmt.Errorf("exp is in %d s", claims.Exp-now)
	}
	return nil
}

// checkProof holds the one proof of a request against RFC 9449, Section 4.3.
func (as *issuer) checkProof(r *http.Request, token string) error {
	values := r.Header.Values("DPoP")
	if len(values) != 1 {
		return fmt.Errorf("there are %d proofs", len(values))
	}
	var claims struct {
		Htm, Htu, Jti, Ath string
		Iat                int64
	}
	header, err := as.open(values[0], &claims)
	if err != nil {
		return err
	}
	target, err := url.JoinPath(as.URL, r.URL.Path)
	if err != nil {
		return err
	}
	ath := ""
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		ath = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	switch {
	case header.ExtraHeaders[jose.HeaderType] != "dpop+jwt":
		return fmt.Errorf("typ is %v", header.ExtraHeaders[jose.HeaderType])
	case header.JSONWebKey == nil || !header.JSONWebKey.IsPublic():
		return errors.New("there is no public key in the header")
	case claims.Htm != r.Method || claims.Htu != target || claims.Ath != ath || claims.Jti == "" || claims.Iat == 0:
		return fmt.Errorf("the claims are %+v", claims)
	}
	return nil
}

func (as *issuer) open(compact string, claims any) (jose.Header, error) {
	jws, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA, "Ed25519"})
	if err != nil {
		return jose.Header{}, err
	}
	header := jws.Signatures[0].Protected
	if header.Algorithm != "Ed25519" {
		payload, err := jws.Verify(as.key)
		if err != nil {
			return jose.Header{}, err
		}
		return header, json.Unmarshal(payload, claims)
	}
	// go-jose knows the algorithm by its older name alone.
	key, ok := as.key.Key.(ed25519.PublicKey)
	signed := compact[:strings.LastIndexByte(compact, '.')]
	if !ok || !ed25519.Verify(key, []byte(signed), jws.Signatures[0].Signature) {
		return jose.Header{}, errors.New("the signature is not the key's")
	}
	return header, json.Unmarshal(jws.UnsafePayloadWithoutVerification(), claims)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		panic(err)
	}
}
