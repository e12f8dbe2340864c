package agent_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/resource"
)

// TestAnotherGrant: the grant's parameters go where the usual ones would, in
// each attempt anew, with everything else as ever.
func TestAnotherGrant(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.asNonces = resource.NewMemoryNonces()
	w.metadata = func(m map[string]any) { m["token_endpoint_auth_methods_supported"] = []string{"none"} }
	var forms []url.Values
	var proofs []string
	w.onToken = func(rw http.ResponseWriter, r *http.Request) bool {
		p, err := w.proof(r, w.issuer+"/oauth/token", w.now())
		if err != nil {
			t.Error(err)
		}
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		forms, proofs = append(forms, r.PostForm), append(proofs, p.Hash)
		if !w.asNonces.Check(p.Nonce, w.now()) {
			rw.Header().Set("DPoP-Nonce", w.asNonces.Mint(w.now()))
			refuseToken(rw, 400, "use_dpop_nonce", counterfoil.NonceRequired, "a nonce is needed")
			return true
		}
		writeJSON(rw, 200, map[string]any{"access_token": "abc", "token_type": "DPoP", "expires_in": 60})
		return true
	}
	given := url.Values{"grant_type": {"authorization_code"}, "code": {"c"}, "resource": {"https://other.example"}}
	c := w.config()
	c.Scope = []string{"pay"}
	asked := 0
	c.Grant = func(context.Context) (url.Values, error) {
		asked++
		return given, nil
	}
	tr, err := agent.NewTransport(c)
	if err != nil {
		t.Fatal(err)
	}
	info, err := tr.Token(t.Context())
	if err != nil || info.Token.Reveal() != "abc" || info.Bearer {
		t.Fatalf("%+v, %v", info, err)
	}
	if asked != 2 || len(forms) != 2 || proofs[0] == proofs[1] {
		t.Errorf("the grant was made %d times for %d requests, the proofs are %q", asked, len(forms), proofs)
	}
	want := url.Values{"grant_type": {"authorization_code"}, "code": {"c"}, "resource": {w.resource}, "scope": {"pay"}}
	for _, form := range forms {
		if form.Encode() != want.Encode() {
			t.Errorf("asked with %q, want %q", form, want)
		}
	}
	if given.Get("resource") != "https://other.example" {
		t.Error("the caller's map was changed")
	}

	c.Grant = func(context.Context) (url.Values, error) { return nil, errors.New("nobody logged in") }
	if tr, err = agent.NewTransport(c); err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "nobody logged in") || len(forms) != 2 {
		t.Errorf("%v after %d requests", err, len(forms))
	}
}

// TestBearerIsTakenOnlyWhereItIsAllowedAndNothingBetterIsOffered: an issuer that
// binds tokens is held to it whatever it answers; one that does not gets no
// proof, and its token goes out as what it is.
func TestBearerIsTakenOnlyWhereItIsAllowedAndNothingBetterIsOffered(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name            string
		allowed, offers bool
		answers         string // token_type
		want            string // in the error; empty when it is taken
	}{
		{"allowed, not offered", true, false, "bearer", ""},
		{"allowed, offered and given", true, true, "DPoP", ""},
		{"allowed, offered, answered with less", true, true, "Bearer", "not bound"},
		{"allowed, not offered, answered with something else", true, false, "DPoP", `type "DPoP"`},
		{"not allowed, not offered", false, false, "Bearer", "no DPoP proof"},
		{"not allowed, answered with less", false, true, "Bearer", "not bound"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			if !tt.offers {
				w.metadata = func(m map[string]any) { delete(m, "dpop_signing_alg_values_supported") }
			}
			w.onToken = func(rw http.ResponseWriter, r *http.Request) bool {
				if got := len(r.Header["Dpop"]) == 1; got != tt.offers {
					t.Errorf("a proof was sent: %v", got)
				}
				if r.PostFormValue("client_assertion") == "" || r.PostFormValue("resource") != w.resource {
					t.Errorf("asked with %q", r.PostForm)
				}
				n := w.tokens.Add(1)
				writeJSON(rw, 200, map[string]any{"access_token": fmt.Sprint("token-", n), "token_type": tt.answers, "expires_in": 60})
				return true
			}
			var seen []string
			w.onRequest = func(rw http.ResponseWriter, r *http.Request) bool {
				seen = append(seen, fmt.Sprint(r.Header["Authorization"], len(r.Header["Dpop"])))
				if len(seen) == 1 { // the first token is not good any more
					rw.Header().Set("WWW-Authenticate", `DPoP error="invalid_token", Bearer error="invalid_token"`)
					rw.WriteHeader(http.StatusUnauthorized)
				}
				return true
			}
			c := w.config()
			c.InsecureBearer = tt.allowed
			tr, err := agent.NewTransport(c)
			if err != nil {
				t.Fatal(err)
			}
			status, _, _, err := try(t, tr.Client(), "GET", w.resource, "")
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) || len(seen) != 0 {
					t.Errorf("%d, %v; the resource saw %q; want %q", status, err, seen, tt.want)
				}
				return
			}
			scheme, proofs := "Bearer", 0
			if tt.offers {
				scheme, proofs = "DPoP", 1
			}
			want := fmt.Sprintf("[%[1]s token-1] %[2]d [%[1]s token-2] %[2]d", scheme, proofs)
			if err != nil || status != http.StatusOK || strings.Join(seen, " ") != want {
				t.Errorf("%d, %v; the resource saw %q, want %q", status, err, seen, want)
			}
			if info, err := tr.Token(t.Context()); err != nil || info.Bearer == tt.offers {
				t.Errorf("the token is %+v, %v", info, err)
			}
		})
	}
}
