package attacks

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
)

// spoofed are the headers by which a proxy says who and where; from a peer that
// is no trusted proxy they say nothing.
var spoofed = map[string]string{
	"Forwarded": "for=10.0.0.1;host=evil.example;proto=https", "X-Forwarded-For": "10.0.0.1", "X-Forwarded-Host": "evil.example",
	"X-Forwarded-Proto": "https", "X-Forwarded-Port": "443", "X-Forwarded-Prefix": "/evil", "X-Forwarded-Server": "evil.example",
	"X-Forwarded-User": "root", "X-Original-Url": "/r/evil", "X-Original-Host": "evil.example", "X-Rewrite-Url": "/r/evil", "X-Real-Ip": "10.0.0.1",
	"X-Client-Cert": "MIIB", "X-Forwarded-Client-Cert": "Hash=00;URI=spiffe://evil", "X_Client_Cert": "MIIB", "Client-Cert": ":MIIB:",
	"X-Ssl-Client-Cert": "MIIB", "X-Ssl-Client-Verify": "SUCCESS", "X-Ssl-Client-S-Dn": "CN=root",
}

func spoof(h http.Header) {
	for name, value := range spoofed {
		h[name] = []string{value} // as it is written, underscores too
	}
}

// TestForwardedHeaders is HI3 and, for the headers of certificates, MT3: who sends
// them is answered as without, and none goes on to an upstream.
func TestForwardedHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	get := func(path string, edit func(*http.Request)) answer {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.Issuer()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		edit(r)
		return w.do(r)
	}
	for _, path := range []string{
		"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration", "/.well-known/oauth-protected-resource/r/bank", "/oauth/jwks", "/r/bank",
	} {
		honest := get(path, func(*http.Request) {})
		got := get(path, func(r *http.Request) { spoof(r.Header) })
		if text := string(got.body); got.status != honest.status || strings.ReplaceAll(text, got.requestID, "") != strings.ReplaceAll(string(honest.body), honest.requestID, "") {
			t.Errorf("HI3 %s: %s\nwithout the headers: %s", path, got, honest)
		}
		if one, other := got.header.Values("WWW-Authenticate"), honest.header.Values("WWW-Authenticate"); strings.Join(one, "\n") != strings.Join(other, "\n") {
			t.Errorf("HI3 %s: the challenge %q, without the headers %q", path, one, other)
		}
		if got := get(path, func(r *http.Request) { r.Host = "evil.example" }); got.status != http.StatusBadRequest || got.code != counterfoil.RequestMalformed {
			t.Errorf("HI3 %s for another host: %s", path, got)
		}
	}
	run(t, w, []attack{
		atToken("HI3", "a token request with all of them", passes, func(_ *world, q *tokenRequest) { spoof(q.Header) }),
		atBank("HI3", "a call with all of them", passes, func(_ *world, q *call) { spoof(q.header) }),
		atBank("HI3", "a proof for where they point", unproven(counterfoil.ProofTarget), func(_ *world, q *call) {
			spoof(q.header)
			q.proof.Claims["htu"] = "https://evil.example/r/bank"
		}),
		atBank("MT3", "a certificate in a header instead of a proof", want{status: 401, code: counterfoil.ProofMissing, challenge: "invalid_dpop_proof"}, func(_ *world, q *call) {
			spoof(q.header)
			q.proofs = []string{}
		}),
		atToken("MT3", "a certificate in a header instead of an assertion", badClient(counterfoil.ClientRefused), func(_ *world, q *tokenRequest) {
			spoof(q.Header)
			q.Form.Set("client_id", "payroll")
			q.Late = append(q.Late, func(q *tokenRequest) {
				q.Form.Del("client_assertion")
				q.Form.Del("client_assertion_type")
			})
		}),
	})
	reached := w.UpstreamHeaders()
	if len(reached) == 0 {
		t.Error("nothing reached the bank")
	}
	for _, h := range reached {
		for name := range spoofed {
			if _, there := h[name]; there {
				t.Errorf("the bank saw %s: %q", name, h[name])
			}
		}
	}
	for _, e := range w.since(0) {
		if e.Source.Address == "10.0.0.1" {
			t.Errorf("entry %d (%s) has the address that a header says", e.Index, e.Kind)
		}
	}
}

// TestReflectedText is HI1: what is answered back of a request makes no header and
// no line of its own.
func TestReflectedText(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const hostile = "x\r\nSet-Cookie: a=b\r\n\r\n<html>\x00\u202e\"\\"
	clean := func(a attack) attack {
		send := a.send
		a.send = func(t *testing.T, w *world) answer {
			got := send(t, w)
			for name, values := range got.header {
				for _, v := range values {
					if name == "Set-Cookie" || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
						t.Errorf("the header %s: %q", name, v)
					}
				}
			}
			if strings.ContainsAny(string(got.body), "\r\x00") || !json.Valid(got.body) {
				t.Errorf("the body %q", got.body)
			}
			return got
		}
		return a
	}
	target, broken := unproven(counterfoil.ProofTarget), unproven(counterfoil.ProofMalformed)
	var rows []attack
	for _, a := range []attack{
		badCallProof("HI1", "in a proof's htu", target, assertionClaim("htu", hostile)),
		badCallProof("HI1", "in a proof's htm", target, assertionClaim("htm", hostile)),
		badCallProof("HI1", "in a proof's typ", broken, header("typ", hostile)),
		badCallProof("HI1", "in a proof's alg", broken, header("alg", hostile)),
		forged("HI1", "in a token's iss", badToken(counterfoil.TokenIssuer), assertionClaim("iss", hostile)),
		forged("HI1", "in a token's typ", badToken(counterfoil.TokenMalformed), header("typ", hostile)),
		badProofOf("HI1", "in the htu of a proof for the token endpoint", badProof(counterfoil.ProofTarget), assertionClaim("htu", hostile)),
		badAssertion("HI1", "in an assertion's typ", badClient(counterfoil.AssertionMalformed), header("typ", hostile)),
		atToken("HI1", "in the scope", want{status: 400, oauth: "invalid_scope", code: counterfoil.ScopeInvalid}, func(_ *world, q *tokenRequest) {
			q.Form.Set("scope", strings.ReplaceAll(hostile, "\x00", "")) // a NUL is refused before
		}),
		atToken("HI1", "in the grant type", want{status: 400, oauth: "unsupported_grant_type", code: counterfoil.GrantUnsupported}, func(_ *world, q *tokenRequest) {
			q.Form.Set("grant_type", strings.ReplaceAll(hostile, "\x00", ""))
		}),
	} {
		rows = append(rows, clean(a))
	}
	run(t, w, rows)
}
