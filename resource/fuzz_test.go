package resource_test

import (
	"bytes"
	"crypto/ed25519"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/resource"
)

// Whatever the two headers hold, a request without the token and a proof of its
// key is refused with a code, and its answer has headers of one line each.
func FuzzRequest(f *testing.F) {
	s := newSystem(f, credential.ES256, credential.ES256)
	// A fuzz target runs in several processes, which hand inputs to each other.
	fixed := func(b byte) *credential.Signer {
		signer, err := credential.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32)))
		if err != nil {
			f.Fatal(err)
		}
		return signer
	}
	s.issuer, s.agent = fixed(1), fixed(2)
	s.keys = keys{s.issuer.Public().Thumbprint(): s.issuer.Public()}
	s.claims.JKT = s.agent.Public().Thumbprint()
	honest := s.request(nil).Header
	token, proof := honest.Get("Authorization"), honest.Get("Dpop")
	f.Add(token, proof)
	f.Add(strings.ToLower(token), proof)
	f.Add("Bearer x", "")
	f.Add("DPoP  a.b.c", "x.y.z")
	f.Fuzz(func(t *testing.T, authorization, dpop string) {
		header := http.Header{"Authorization": {authorization}, "Dpop": {dpop}}
		v := &resource.Verifier{
			Issuer: issuer, Keys: s.keys, Replay: resource.NewMemoryReplay(func() time.Time { return start }),
			Revocation: resource.TokensOnly{}, Now: func() time.Time { return start },
		}
		caller, err := v.Check(t.Context(), resource.Request{Method: "POST", URL: bankCall, Resource: bank, Header: header})
		if err == nil {
			if caller.Agent != "payroll" || !strings.HasSuffix(authorization, strings.TrimPrefix(token, "DPoP ")) {
				t.Fatalf("%q with %q is taken for %+v", authorization, dpop, caller)
			}
			return
		}
		refusal, ok := counterfoil.AsRefusal(err)
		if !ok || refusal.Code == "" || caller.Proof != "" {
			t.Fatalf("%q with %q: %v", authorization, dpop, err)
		}
		for _, c := range resource.Challenge(err, "", "") {
			if strings.ContainsAny(c, "\r\n\x00") {
				t.Fatalf("the challenge %q", c)
			}
		}
	})
}

// A nonce is taken when it was minted, and nothing else is.
func FuzzNonce(f *testing.F) {
	n := resource.NewMemoryNonces()
	good := n.Mint(start)
	f.Add(good)
	f.Add(resource.NewMemoryNonces().Mint(start))
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if n.Check(s, start) && s != good {
			t.Errorf("%q is taken", s)
		}
	})
}
