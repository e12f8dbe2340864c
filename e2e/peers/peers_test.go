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
	everything := peers.Address{URL: p.Everything(t)}
	for name, client := range map[string]peers.Client{"TypeScript SDK 1": p.MCP, "TypeScript SDK 2": p.MCP2("auto"), "Go SDK": peers.GoSDK} {
		s := client(t, everything,
			peers.Call{Name: "echo", Arguments: map[string]any{"message": "to be repeated"}},
			peers.Call{Name: "trigger-long-running-operation", Arguments: map[string]any{"duration": 0.1, "steps": 4}},
			peers.Call{Name: "there-is-no-such-tool"},
		)
		if !s.Session || s.Protocol != "2025-11-25" || s.Server.Name == "" {
			t.Errorf("%s: session %v, protocol %q, server %q: want all three", name, s.Session, s.Protocol, s.Server.Name)
		}
		for _, tool := range []string{"echo", "get-env", "trigger-long-running-operation"} {
			if !slices.Contains(s.Tools, tool) {
				t.Errorf("%s: %s is not among the tools %q, and the stories call it", name, tool, s.Tools)
			}
		}
		echo, long, unknown := s.Calls[0], s.Calls[1], s.Calls[2]
		if !strings.Contains(echo.Text(), "to be repeated") {
			t.Errorf("%s: echo answered %v", name, echo)
		}
		if long.Result == nil || len(long.Progress) != 4 || long.Progress[3].Progress != 4 {
			t.Errorf("%s: the long operation answered %v, want 4 notices", name, long)
		}
		if unknown.Error == nil && !unknown.Result.IsError {
			t.Errorf("%s: an unknown tool answered %v", name, unknown)
		}
	}
}

// The stories use the tools of these servers without listing all of them.
func TestTheServersHaveTheTools(t *testing.T) {
	t.Parallel()
	p := peers.Need(t)
	folder := t.TempDir()
	for name, tt := range map[string]struct {
		url, revision string
		tools         []string
	}{
		"notes":  {p.Notes(t), "2026-07-28", []string{"count", "read_note", "write_note"}},
		"files":  {p.Files(t, folder), "2025-11-25", []string{"create_directory", "edit_file", "get_file_info", "list_directory", "move_file", "read_text_file", "write_file"}},
		"memory": {p.Memory(t, filepath.Join(folder, "memory.jsonl")), "2025-11-25", []string{"add_observations", "create_entities", "delete_entities", "read_graph", "search_nodes"}},
	} {
		s := p.MCP2("auto")(t, peers.Address{URL: tt.url})
		if s.Protocol != tt.revision {
			t.Errorf("%s speaks %q, want %q", name, s.Protocol, tt.revision)
		}
		for _, tool := range tt.tools {
			if !slices.Contains(s.Tools, tool) {
				t.Errorf("%s: %s is not among the tools %q", name, tool, s.Tools)
			}
		}
	}

	s := p.Inspector("modern")(t, peers.Address{URL: p.Notes(t)},
		peers.Call{Name: "write_note", Arguments: map[string]any{"title": "a", "text": "b"}}, peers.Call{Name: "burn_note"})
	if s.Calls[0].Text() != "wrote a" {
		t.Errorf("the inspector got %v", s.Calls[0])
	}
	if e := s.Calls[1].Error; e == nil || e.Code != "tool_not_found" {
		t.Errorf("the inspector got %v for an unknown tool", s.Calls[1])
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

func TestOAuth4webapiKeepsTheProfile(t *testing.T) {
	t.Parallel()
	p := peers.Need(t)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, nonce := range []string{"", "to-be-repeated"} {
		as := newIssuer(t, ed)
		as.nonce = nonce
		ask := peers.OAuth{
			Agent: "payroll", KeyFile: as.keyFile, Resource: as.URL + "/r/bank", Use: map[string]any{"jsonrpc": "2.0", "id": 1, "method": "ping"},
		}
		got := p.OAuth(t, ask)
		if got.Refused != nil {
			t.Fatalf("refused: %+v", *got.Refused)
		}
		if asked := len(got.Nonces) > 0; asked != (nonce != "") {
			t.Errorf("it was asked for a nonce at %q", got.Nonces)
		}
		if got.Issuer != as.URL || got.JKT != as.jkt || got.Claims == nil || got.Claims.Cnf.JKT != as.jkt || got.Claims.Aud != as.URL+"/r/bank" {
			t.Errorf("it got %+v with the claims %+v", got, got.Claims)
		}
		if got.Used == nil || got.Used.Status != http.StatusOK {
			t.Errorf("the resource answered %+v", got.Used)
		}

		ask.Audience = "https://elsewhere.example"
		if got := p.OAuth(t, ask); got.Refused == nil || got.Refused.Error != "invalid_client" || got.Refused.Where != "token" {
			t.Errorf("an assertion for another issuer got %+v (refused %+v), want invalid_client", got, got.Refused)
		}
	}
}

// issuer is the least that grants a token, and checks with go-jose that what
// the client sends is what Counterfoil insists on.
type issuer struct {
	*httptest.Server
	key          jose.JSONWebKey // public, of the one agent
	keyFile, jkt string
	token        string
	nonce        string // that a proof must hold, if any
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
	mux := http.NewServeMux()
	as.Server = httptest.NewServer(mux)
	t.Cleanup(as.Close)
	as.token = as.sign(t, mux)
	metadata := func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{
			"issuer":                                as.URL,
			"token_endpoint":                        as.URL + "/token",
			"jwks_uri":                              as.URL + "/jwks",
			"response_types_supported":              []string{"none"},
			"grant_types_supported":                 []string{"client_credentials"},
			"token_endpoint_auth_methods_supported": []string{"private_key_jwt"},
			"token_endpoint_auth_signing_alg_values_supported": []string{"ES256", "Ed25519"},
			"dpop_signing_alg_values_supported":                []string{"ES256", "Ed25519"},
		})
	}
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", metadata)
	mux.HandleFunc("GET /.well-known/openid-configuration", metadata)
	mux.HandleFunc("GET /.well-known/oauth-protected-resource/r/bank", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{"resource": as.URL + "/r/bank", "authorization_servers": []string{as.URL}})
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		if err := as.checkAssertion(r.FormValue("client_assertion")); err != nil {
			answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client", "error_description": err.Error()})
			return
		}
		err := as.checkProof(r, "")
		if err == nil && r.FormValue("resource") != as.URL+"/r/bank" {
			err = fmt.Errorf("the resource is %q", r.FormValue("resource"))
		}
		switch {
		case errors.Is(err, errNonce):
			w.Header().Set("DPoP-Nonce", as.nonce)
			answer(w, http.StatusBadRequest, map[string]any{"error": "use_dpop_nonce"})
			return
		case err != nil:
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

// sign makes the one token, as a resource server takes it, and publishes the key.
func (as *issuer) sign(t *testing.T, mux *http.ServeMux) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	published := jose.JSONWebKey{Key: key.Public(), KeyID: "1", Algorithm: string(jose.ES256), Use: "sig"}
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{published}})
	})
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, (&jose.SignerOptions{}).WithType("at+jwt"))
	if err != nil {
		t.Fatal(err)
	}
	claims, err := json.Marshal(map[string]any{
		"iss": as.URL, "aud": as.URL + "/r/bank", "sub": "payroll", "client_id": "payroll", "jti": "1",
		"iat": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix(), "cnf": map[string]string{"jkt": as.jkt},
	})
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
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

var errNonce = errors.New("the proof's nonce is another")

// checkProof holds the one proof of a request against RFC 9449, Section 4.3.
func (as *issuer) checkProof(r *http.Request, token string) error {
	values := r.Header.Values("DPoP")
	if len(values) != 1 {
		return fmt.Errorf("there are %d proofs", len(values))
	}
	var claims struct {
		Htm, Htu, Jti, Ath, Nonce string
		Iat                       int64
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
	case claims.Nonce != as.nonce:
		return errNonce
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
