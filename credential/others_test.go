package credential

import (
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/counterfoil/counterfoil"
)

// readOthers reads other projects' vectors, which are not part of this one. It
// skips the test where they are not there.
func readOthers(t *testing.T, name string, v any) {
	t.Helper()
	dir := os.Getenv("COUNTERFOIL_VECTORS")
	if dir == "" {
		dir = "../../shared/vectors"
	}
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Skipf("skipped: %s is not there; set COUNTERFOIL_VECTORS to the folder that holds it", name)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}

// wycheproof is what the files of C2SP/wycheproof have in common.
type wycheproof struct {
	TestGroups []struct {
		Comment string
		Public  json.RawMessage
		Private json.RawMessage
		JWK     json.RawMessage `json:"publicKeyJwk"`
		DER     string          `json:"publicKeyDer"`
		Tests   []struct {
			TcID     int
			Comment  string
			JWS      json.RawMessage // a string, or the JSON serialization
			Msg, Sig string
			Result   string
			Flags    []string
		}
	}
}

// verifyJWS is what this package does with a JWS whose payload means nothing
// to it.
func verifyJWS(compact string, key PublicKey) error {
	t, _, err := parseJWS(compact, readKeyless, nil)
	if err != nil {
		return err
	}
	return key.Verify(t.input, t.sig, t.header.Alg)
}

// joseVerifies asks go-jose, which is laxer: what we accept it accepts.
func joseVerifies(compact string, jwk []byte) bool {
	var key jose.JSONWebKey
	if json.Unmarshal(jwk, &key) != nil {
		return false
	}
	sig, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.EdDSA, jose.PS256})
	if err != nil {
		return false
	}
	_, err = sig.Verify(key.Key)
	return err == nil
}

// TestWycheproofSignatures runs the raw vectors of the algorithms that are
// taken: every row comes out as it says.
func TestWycheproofSignatures(t *testing.T) {
	t.Parallel()
	for file, alg := range map[string]string{
		"ecdsa_secp256r1_sha256_p1363_test.json": ES256,
		"ecdsa_secp384r1_sha384_p1363_test.json": ES384,
		"ed25519_test.json":                      Ed25519,
		"rsa_pss_2048_sha256_mgf1_32_test.json":  PS256,
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			var w wycheproof
			readOthers(t, filepath.Join("wycheproof", file), &w)
			rows, accepted := 0, 0
			for _, g := range w.TestGroups {
				key, err := groupKey(g.JWK, g.DER)
				for _, c := range g.Tests {
					rows++
					valid := c.Result == "valid"
					if err != nil {
						if valid {
							t.Errorf("%d: its key is refused: %v", c.TcID, err)
						}
						continue
					}
					msg, sig := unhexText(t, c.Msg), unhexText(t, c.Sig)
					got := key.Verify(msg, sig, alg) == nil
					if got != valid {
						t.Errorf("%d (%s): accepted %v, want %s", c.TcID, c.Comment, got, c.Result)
					}
					if got {
						accepted++
					}
				}
			}
			t.Logf("%d rows, %d accepted, all of them marked valid", rows, accepted)
			if rows < 100 || accepted == 0 {
				t.Errorf("only %d rows", rows)
			}
		})
	}
}

// TestWycheproofOtherAlgorithm runs the vectors of an algorithm that is not
// taken: under a name or another, none of them verifies.
func TestWycheproofOtherAlgorithm(t *testing.T) {
	t.Parallel()
	var w wycheproof
	readOthers(t, filepath.Join("wycheproof", "rsa_signature_2048_sha256_test.json"), &w)
	rows, pss := 0, 0
	for _, g := range w.TestGroups {
		key, err := groupKey(g.JWK, g.DER)
		if err != nil {
			continue // refused already
		}
		for _, c := range g.Tests {
			msg, sig := unhexText(t, c.Msg), unhexText(t, c.Sig)
			for _, alg := range append(Algorithms(), "RS256", "none", "") {
				rows++
				if key.Verify(msg, sig, alg) != nil {
					continue
				}
				// One row is a PSS signature, wrong for RS256 and right for PS256.
				if pss++; alg != PS256 || c.Comment != "RSASSA-PSS signature" || c.Result != "invalid" {
					t.Errorf("%d (%s) is accepted as %q", c.TcID, c.Comment, alg)
				}
			}
		}
	}
	t.Logf("%d presentations, none accepted but %d as what it is", rows, pss)
	if rows < 1000 || pss != 1 {
		t.Errorf("%d presentations, %d accepted", rows, pss)
	}
}

func groupKey(jwk json.RawMessage, der string) (PublicKey, error) {
	if jwk != nil {
		return ParseJWK(jwk)
	}
	b, err := hex.DecodeString(der)
	if err != nil {
		return PublicKey{}, err
	}
	pub, err := x509.ParsePKIXPublicKey(b)
	if err != nil {
		return PublicKey{}, err
	}
	return NewPublicKey(pub)
}

func unhexText(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestWycheproofJOSE runs the JWS and JWK vectors. What is marked invalid is
// never accepted, but for four rows that are known to be odd and are refused
// here anyway; what is marked valid is refused only for an algorithm, a header
// parameter or a key that this package does not take.
func TestWycheproofJOSE(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"json_web_signature_test.json", "json_web_key_test.json", "json_web_crypto_test.json"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			var w wycheproof
			readOthers(t, filepath.Join("wycheproof", file), &w)
			rows, accepted, laxer := 0, 0, 0
			for _, g := range w.TestGroups {
				public := g.Public
				if public == nil {
					public = g.Private // symmetric keys and key sets
				}
				for _, c := range g.Tests {
					if c.JWS == nil {
						continue // JWE
					}
					rows++
					var compact string
					if json.Unmarshal(c.JWS, &compact) != nil {
						compact = string(c.JWS)
					}
					one := fromSet(public, compact)
					key, kerr := ParseJWK(one)
					err := kerr
					if err == nil {
						err = verifyJWS(compact, key)
					}
					if err != nil && joseVerifies(compact, one) {
						laxer++
					}
					switch {
					case err == nil && c.Result != "valid":
						t.Errorf("%d (%s, %s) is accepted", c.TcID, g.Comment, c.Comment)
					case err == nil && !joseVerifies(compact, one):
						t.Errorf("%d (%s, %s): go-jose refuses what is accepted", c.TcID, g.Comment, c.Comment)
					case err != nil && c.Result == "valid" && kerr == nil && allowed(headerOf(compact).Alg):
						t.Errorf("%d (%s, %s) is refused: %v", c.TcID, g.Comment, c.Comment, err)
					case err == nil:
						accepted++
					}
				}
			}
			t.Logf("%d rows, %d accepted, none of them marked invalid and go-jose accepts each; it accepts %d more", rows, accepted, laxer)
			if rows < 20 {
				t.Errorf("only %d rows", rows)
			}
		})
	}
}

func headerOf(compact string) (h struct{ Alg, Kid string }) {
	head, _, _ := strings.Cut(compact, ".")
	if b, err := b64.DecodeString(head); err == nil {
		_ = json.Unmarshal(b, &h) // what is no JSON has no alg
	}
	return h
}

// fromSet picks the one key of a set that the header names, as a registry
// does; a key alone is itself. Two keys of one name are none.
func fromSet(jwk json.RawMessage, compact string) json.RawMessage {
	var set struct{ Keys []json.RawMessage }
	if json.Unmarshal(jwk, &set) != nil || set.Keys == nil {
		return jwk
	}
	var found json.RawMessage
	for _, k := range set.Keys {
		var named struct{ Kid string }
		if json.Unmarshal(k, &named) == nil && named.Kid == headerOf(compact).Kid {
			if found != nil {
				return nil
			}
			found = public(k)
		}
	}
	return found
}

// public takes the private member off an EC key: the vectors' sets hold both.
func public(jwk json.RawMessage) json.RawMessage {
	var m map[string]any
	if json.Unmarshal(jwk, &m) != nil || m["kty"] == "oct" {
		return jwk
	}
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi"} {
		delete(m, private)
	}
	out, err := json.Marshal(m)
	if err != nil {
		return jwk
	}
	return out
}

// TestRFC9449Examples runs the proofs that the RFC prints.
func TestRFC9449Examples(t *testing.T) {
	t.Parallel()
	type example struct {
		JWS     string
		Payload struct {
			Htm, Htu string
			Iat      int64
		}
	}
	var f struct {
		Dpop struct {
			Token, RS, RT example
			AccessToken   string `json:"access_token"`
			Ath, JKT      string
		}
	}
	readOthers(t, "rfc9449.json", &f)
	if got := TokenHash(f.Dpop.AccessToken); got != f.Dpop.Ath {
		t.Errorf("ath %s, want %s", got, f.Dpop.Ath)
	}
	examples := map[string]example{"token": f.Dpop.Token, "resource": f.Dpop.RS, "refresh": f.Dpop.RT}
	for name, e := range examples {
		u, err := ParseProof([]string{e.JWS})
		if err != nil {
			t.Fatal(name, err)
		}
		req := ProofRequest{Method: e.Payload.Htm, URL: e.Payload.Htu}
		if name == "resource" {
			req.TokenHash = f.Dpop.Ath
		}
		p, err := u.Check(req, time.Unix(e.Payload.Iat+30, 0))
		if err != nil {
			t.Fatal(name, err)
		}
		if p.JKT != f.Dpop.JKT {
			t.Errorf("%s: jkt %s, want %s", name, p.JKT, f.Dpop.JKT)
		}
		_, err = u.Check(req, time.Unix(e.Payload.Iat+61, 0))
		wantRefused(t, err, counterfoil.ProofStale)
	}
	t.Logf("%d proofs accepted at their time, with the ath and jkt that the RFC prints, and refused a minute later", len(examples))
}

// TestOracle holds our own vectors against go-jose: it accepts the signature
// of whatever is accepted here, with the same thumbprint of the key.
func TestOracle(t *testing.T) {
	t.Parallel()
	for _, f := range []*vectorFile{assertionVectors(), tokenVectors()} {
		for _, v := range f.Accepted {
			if !joseVerifies(v.Compact, f.Key.(json.RawMessage)) {
				t.Errorf("go-jose refuses %q", v.Name)
			}
		}
	}
	for _, v := range proofVectors().Accepted {
		t.Run(v.Name, func(t *testing.T) {
			var h struct {
				Alg string
				JWK json.RawMessage
			}
			b, err := b64.DecodeString(part(v.Header[0], 0))
			if err != nil || json.Unmarshal(b, &h) != nil {
				t.Fatal(err)
			}
			if h.Alg == Ed25519 {
				t.Skip("skipped: go-jose does not know the name Ed25519 of RFC 9864")
			}
			if !joseVerifies(v.Header[0], h.JWK) {
				t.Error("go-jose refuses it")
			}
			sameThumbprint(t, h.JWK)
		})
	}
	for _, v := range keyVectors().Accepted {
		sameThumbprint(t, []byte(v.JWK))
	}
}

func sameThumbprint(t *testing.T, jwk []byte) {
	t.Helper()
	key, err := ParseJWK(jwk)
	if err != nil {
		t.Fatal(err)
	}
	var other jose.JSONWebKey
	if err := json.Unmarshal(jwk, &other); err != nil {
		t.Fatalf("go-jose refuses %s: %v", jwk, err)
	}
	sum, err := other.Thumbprint(crypto.SHA256)
	if err != nil || b64.EncodeToString(sum) != key.Thumbprint() {
		t.Errorf("go-jose's thumbprint of %s is another: %v", jwk, err)
	}
}
