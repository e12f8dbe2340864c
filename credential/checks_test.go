package credential

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"math/big"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json/jsontext"
)

// This file judges the vectors a second time, in another way than the package:
// each check by itself, as its text in the RFC reads, with go-jose's keys,
// net/url and encoding/json. Every refused row must fail the one check that it
// names and no other that can be looked at, and every accepted row none. So a
// row that is refused for another reason than its own does not count.

// A judged credential is what a JWT says, read without any judgement of it.
type judged struct {
	header, claims map[string]json.RawMessage
	input, sig     []byte
	failed         []string
}

func (j *judged) fail(check string) {
	if !slices.Contains(j.failed, check) {
		j.failed = append(j.failed, check)
	}
}

// judge reads a compact JWT. Without a form that can be read nothing else can
// be looked at, and it reports false; form, header and claims say which check
// that fails (claims: "" is the name of the duplicate member).
func judge(compact, form, header, claims string) (*judged, bool) {
	j := &judged{}
	parts := strings.Split(compact, ".")
	if len(parts) != 3 || strings.ContainsAny(compact, "\r\n") {
		j.fail(form)
		return j, false
	}
	var texts [3][]byte
	for i, p := range parts {
		b, err := b64.Strict().DecodeString(p)
		if err != nil {
			j.fail(form)
			return j, false
		}
		texts[i] = b
	}
	j.input, j.sig = []byte(parts[0]+"."+parts[1]), texts[2]
	for i, part := range []struct {
		check string
		to    *map[string]json.RawMessage
	}{{header, &j.header}, {claims, &j.claims}} {
		if twice := sameNames(texts[i]); twice != "" {
			if part.check == "" {
				part.check = strings.ToLower(twice)
			}
			j.fail(part.check)
			return j, false
		}
		if err := json.Unmarshal(texts[i], part.to); err != nil {
			j.fail(form)
			return j, false
		}
	}
	return j, true
}

// sameNames returns a member name of the top that is there twice, in whatever
// case.
func sameNames(text []byte) string {
	dec := jsontext.NewDecoder(bytes.NewReader(text), jsontext.AllowDuplicateNames(true))
	if dec.PeekKind() != '{' {
		return ""
	}
	seen := map[string]bool{}
	for {
		tok, err := dec.ReadToken()
		if err != nil {
			return ""
		}
		if dec.StackDepth() != 1 || tok.Kind() != '"' {
			continue
		}
		if seen[strings.ToLower(tok.String())] {
			return tok.String()
		}
		seen[strings.ToLower(tok.String())] = true
		if err := dec.SkipValue(); err != nil {
			return ""
		}
	}
}

// text returns a member that is a string of 1 to most bytes.
func text(m map[string]json.RawMessage, name string, most int) (string, bool) {
	var s string
	if string(m[name]) == "null" || json.Unmarshal(m[name], &s) != nil {
		return "", false
	}
	return s, s != "" && len(s) <= most
}

// number returns a member that is a number of seconds.
func number(m map[string]json.RawMessage, name string) (float64, bool) {
	var n float64
	if string(m[name]) == "null" || json.Unmarshal(m[name], &n) != nil {
		return 0, false
	}
	return n, n >= 0
}

// verifies says whether the signature is one by the key for the algorithm.
func (j *judged) verifies(jwk map[string]json.RawMessage, alg string) bool {
	if use, there := jwk["use"]; there && string(use) != `"sig"` {
		return false
	}
	if own, there := jwk["alg"]; there && string(own) != `"`+alg+`"` {
		return false
	}
	b, err := json.Marshal(jwk)
	if err != nil {
		return false
	}
	var key jose.JSONWebKey
	if json.Unmarshal(b, &key) != nil || !key.Valid() {
		return false
	}
	digest := func(h crypto.Hash) []byte {
		d := h.New()
		d.Write(j.input)
		return d.Sum(nil)
	}
	raw := func(pub *ecdsa.PublicKey, size int, h crypto.Hash) bool {
		if pub.Curve.Params().BitSize != size || len(j.sig) != size/4 {
			return false
		}
		r, s := new(big.Int).SetBytes(j.sig[:size/8]), new(big.Int).SetBytes(j.sig[size/8:])
		return ecdsa.Verify(pub, digest(h), r, s)
	}
	switch pub := key.Key.(type) {
	case *ecdsa.PublicKey:
		return alg == "ES256" && raw(pub, 256, crypto.SHA256) || alg == "ES384" && raw(pub, 384, crypto.SHA384)
	case ed25519.PublicKey:
		return (alg == "EdDSA" || alg == "Ed25519") && ed25519.Verify(pub, j.input, j.sig)
	case *rsa.PublicKey:
		return alg == "PS256" && rsa.VerifyPSS(pub, crypto.SHA256, digest(crypto.SHA256), j.sig, &rsa.PSSOptions{SaltLength: 32}) == nil
	}
	return false
}

// foreign are the header parameters that no kind of JWT here may have.
var foreign = []string{"crit", "b64", "zip", "jku", "x5u", "x5c"}

// failedProofChecks returns the numbers of the checks of RFC 9449, Section 4.3,
// that a row fails, in order; "size" is a limit of ours. Where nothing can be
// verified with the key shown (5, 7), the signature is not looked at.
func failedProofChecks(f *vectorFile, v *vector) []string {
	values := strings.Split(strings.Join(v.Header, ","), ",")
	first := strings.TrimSpace(values[0])
	several := len(values) != 1 || first == ""
	j, readable := judge(first, "2", "2", "2")
	if several {
		j.failed = nil
		j.fail("1")
		if first == "" {
			return j.failed
		}
	}
	if !readable {
		return j.failed
	}
	if len(v.Header[0]) > 8<<10 {
		j.fail("size")
	}
	for _, name := range foreign {
		if j.header[name] != nil {
			j.fail("2")
		}
	}
	htm, okM := text(j.claims, "htm", 1<<20)
	htu, okU := text(j.claims, "htu", 1<<20)
	_, okID := text(j.claims, "jti", 256)
	ath, okA := text(j.claims, "ath", 1<<20)
	if _, there := j.claims["iat"]; !there || !okM || !okU || !okID || f.AccessToken != "" && !okA {
		j.fail("3")
	}
	if typ, _ := text(j.header, "typ", 64); typ != "dpop+jwt" {
		j.fail("4")
	}
	alg, _ := text(j.header, "alg", 64)
	j.key(alg)
	if okM && htm != f.Method {
		j.fail("8")
	}
	if okU && plainURL(htu) != plainURL(f.URL) {
		j.fail("9")
	}
	if _, there := j.claims["iat"]; there {
		iat, ok := number(j.claims, "iat")
		if !ok || iat < float64(f.Now-60) || iat > float64(f.Now+10) {
			j.fail("11")
		}
	}
	if sum := sha256.Sum256([]byte(f.AccessToken)); okA && f.AccessToken != "" && ath != b64.EncodeToString(sum[:]) {
		j.fail("12")
	}
	return j.failed
}

// key looks at the header's alg and jwk and at the signature: checks 5 to 7.
func (j *judged) key(alg string) {
	supported := slices.Contains([]string{"ES256", "ES384", "EdDSA", "Ed25519", "PS256"}, alg)
	if !supported {
		j.fail("5")
	}
	var jwk map[string]json.RawMessage
	if json.Unmarshal(j.header["jwk"], &jwk) != nil || jwk == nil {
		j.fail("6")
		return
	}
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if _, there := jwk[private]; there {
			j.fail("7")
			delete(jwk, private)
		}
	}
	if supported && string(jwk["kty"]) != `"oct"` && !j.verifies(jwk, alg) {
		j.fail("6")
	}
}

var unreservedEscape = regexp.MustCompile(`(?i)%(2d|2e|5f|7e|3[0-9]|4[1-9a-f]|5[0-9a]|6[1-9a-f]|7[0-9a])`)

// plainURL is the normal form of RFC 3986, Sections 6.2.2 and 6.2.3, without
// query and fragment, or what no normal form is.
func plainURL(s string) string {
	s = unreservedEscape.ReplaceAllStringFunc(s, func(e string) string {
		c, err := url.PathUnescape(e)
		if err != nil {
			return e
		}
		return c
	})
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil {
		return "none: " + s
	}
	u = u.ResolveReference(&url.URL{Path: u.Path, RawPath: u.RawPath})
	host := strings.ToLower(u.Hostname())
	if port := u.Port(); port != "" && (u.Scheme != "https" || port != "443") && (u.Scheme != "http" || port != "80") {
		host += ":" + port
	}
	return u.Scheme + "://" + host + u.EscapedPath()
}

// failedAssertionChecks is the same for client assertions: RFC 7523, Section 3,
// as rfc7523bis narrows it. The names are those of the claims and header
// parameters, and form, size, header and signature.
func failedAssertionChecks(f *vectorFile, v *vector) []string {
	j, readable := judge(v.Compact, "form", "header", "")
	if !readable {
		return j.failed
	}
	if len(v.Compact) > 16<<10 {
		j.fail("size")
	}
	for _, name := range append([]string{"jwk"}, foreign...) {
		if j.header[name] != nil {
			j.fail("header")
		}
	}
	if typ, there := j.header["typ"]; there && !slices.Contains([]string{`"JWT"`, `"client-authentication+jwt"`, `"application/client-authentication+jwt"`}, string(typ)) {
		j.fail("typ")
	}
	var key map[string]json.RawMessage
	b, err := json.Marshal(f.Key)
	if err != nil || json.Unmarshal(b, &key) != nil {
		return []string{"the file has no key"}
	}
	// The registered key is for ES256, so that nothing else can verify.
	if alg, _ := text(j.header, "alg", 64); alg != "ES256" {
		j.fail("alg")
	} else if !j.verifies(key, alg) {
		j.fail("signature")
	}
	iss, okIss := text(j.claims, "iss", 1<<20)
	sub, okSub := text(j.claims, "sub", 1<<20)
	if !okSub {
		j.fail("sub")
	}
	if okSub && (!okIss || iss != sub) {
		j.fail("iss")
	}
	if aud := string(j.claims["aud"]); aud != `"`+f.Issuer+`"` && aud != `["`+f.Issuer+`"]` {
		j.fail("aud")
	}
	if _, ok := text(j.claims, "jti", 256); !ok {
		j.fail("jti")
	}
	j.times(float64(f.Now))
	return j.failed
}

func (j *judged) times(now float64) {
	from := now
	if _, there := j.claims["iat"]; there {
		iat, ok := number(j.claims, "iat")
		if !ok || iat > now+10 {
			j.fail("iat")
		}
		from = iat
	}
	if _, there := j.claims["nbf"]; there {
		if nbf, ok := number(j.claims, "nbf"); !ok || nbf > now+10 {
			j.fail("nbf")
		}
	}
	if exp, ok := number(j.claims, "exp"); !ok || now >= exp+10 || exp < from || exp-from > 120 {
		j.fail("exp")
	}
}

// TestOneNegativePerCheck shows that each refused row of proofs.json and
// assertions.json fails the check that it names and that alone, that the
// accepted rows fail none, and that every check has a row.
func TestOneNegativePerCheck(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		file   *vectorFile
		failed func(*vectorFile, *vector) []string
		checks []string // each must have a refused row
	}{
		// Check 10, the other half of check 12 and single use need to know more
		// than the proof and the token's hash: they are in requests.json.
		{"proofs.json", proofVectors(), failedProofChecks, []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "11", "12", "size"}},
		{"assertions.json", assertionVectors(), failedAssertionChecks, []string{
			"form", "size", "header", "typ", "alg", "signature", "iss", "sub", "aud", "exp", "iat", "nbf", "jti",
		}},
	} {
		rows := map[string]int{}
		for _, v := range c.file.Accepted {
			if got := c.failed(c.file, v); len(got) > 0 {
				t.Errorf("%s, %q is accepted and fails %v", c.name, v.Name, got)
			}
		}
		for _, v := range c.file.Refused {
			rows[v.Check]++
			if got := c.failed(c.file, v); !slices.Equal(got, []string{v.Check}) {
				t.Errorf("%s, %q is there for check %s and fails %v", c.name, v.Name, v.Check, got)
			}
		}
		for _, check := range c.checks {
			if rows[check] == 0 {
				t.Errorf("%s has no row for check %s", c.name, check)
			}
			delete(rows, check)
		}
		if len(rows) > 0 {
			t.Errorf("%s has rows for checks that are none: %v", c.name, rows)
		}
		t.Logf("%s: %d accepted, %d refused, each for one of %d checks and that alone", c.name, len(c.file.Accepted), len(c.file.Refused), len(c.checks))
	}
}
