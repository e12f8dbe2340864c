package credential

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
)

const typProof = "dpop+jwt"

// ProofWindow is how old a proof may be. RFC 9449, Section 11.1, leaves it to
// the server; ids are remembered for as long.
const ProofWindow = 60 * time.Second

// An UnverifiedProof is a DPoP proof that is well formed. What it says is the
// sender's word.
type UnverifiedProof struct {
	jws    jws
	key    PublicKey
	claims proofClaims
}

type proofClaims struct {
	ID       string `json:"jti"`
	Method   string `json:"htm"`
	URL      string `json:"htu"`
	IssuedAt date   `json:"iat"`
	Hash     string `json:"ath"`
	Nonce    string `json:"nonce"`
}

// A ProofRequest is what a proof must be for.
type ProofRequest struct {
	Method string
	URL    string // the public URL of the request, from configuration; query and fragment are ignored

	// TokenHash is the ath that the proof must have: TokenHash of the access
	// token that comes with it. Empty at the token endpoint, where no token
	// comes and ath is not looked at.
	TokenHash string
}

// A Proof is verified: the holder of the key made it for this method, URL and
// token, within the window. That its id was not used before is the replay
// cache's to say; that the nonce is one of ours, its maker's.
type Proof struct {
	JKT string // thumbprint of the key
	ID  string
	Key PublicKey
	Alg string

	IssuedAt time.Time
	Expires  time.Time // until when the id must be remembered
	Nonce    string

	// Hash stands for key and id: base64url(SHA-256("counterfoil/proof/1\n"
	// + JKT + "\n" + ID)). Two agents with the same id do not meet in it.
	Hash string
}

func refuseProof(format string, args ...any) error {
	return counterfoil.Refuse(counterfoil.ProofMalformed, "the DPoP proof: "+format, args...)
}

// ParseProof reads the values of the DPoP header of a request. The numbers in
// comments here and in Check are the checks of RFC 9449, Section 4.3.
func ParseProof(header []string) (UnverifiedProof, error) {
	return (*Headers)(nil).ParseProof(header)
}

// ParseProof is the function of that name, with the headers that are known.
func (h *Headers) ParseProof(header []string) (UnverifiedProof, error) {
	var none UnverifiedProof
	// Check 1: there is not more than one DPoP header; joined by a comma they
	// are as many.
	switch {
	case len(header) == 0:
		return none, counterfoil.Refuse(counterfoil.ProofMissing, "a DPoP header is needed")
	case len(header) > 1:
		return none, refuseProof("more than one DPoP header")
	case len(header[0]) > MaxProof:
		return none, counterfoil.Refuse(counterfoil.PayloadTooLarge, "the DPoP proof is larger than %d bytes", MaxProof)
	case header[0] == "":
		return none, refuseProof("the DPoP header is empty")
	case strings.IndexByte(header[0], ',') >= 0:
		return none, refuseProof("more than one in the DPoP header")
	}
	// Check 2: one well-formed JWT; check 5: alg is an asymmetric algorithm
	// that is supported.
	t, key, err := parseJWS(header[0], readProof, h)
	if err != nil {
		return none, refuseProof("%v", err)
	}
	// Check 4: typ is dpop+jwt, as it is written there: neither another case
	// nor a prefix.
	if t.header.Typ != typProof {
		return none, refuseProof("its typ %.64q is not %s", t.header.Typ, typProof)
	}
	// Check 6, first half, and check 7: jwk is there and is no private key.
	if t.header.JWK == nil {
		return none, refuseProof("its header has no jwk")
	}
	p := UnverifiedProof{jws: t, key: key}
	if !t.known {
		if p.key, err = parseJWK(t.header.JWK); err != nil {
			return none, refuseProof("%v", err)
		}
	}
	if !p.key.takes(t.header.Alg) {
		return none, refuseProof("its alg %s is not for its jwk", t.header.Alg)
	}
	// Check 3: all required claims; ath is asked for by Check.
	if err := t.claims(&p.claims); err != nil {
		return none, refuseProof("%v", err)
	}
	c := &p.claims
	switch {
	case c.ID == "" || len(c.ID) > maxID:
		return none, refuseProof("a jti of 1 to %d bytes is needed", maxID)
	case c.Method == "" || c.URL == "":
		return none, refuseProof("htm and htu are needed")
	case !c.IssuedAt.set:
		return none, refuseProof("iat is needed")
	case len(c.Nonce) > maxID:
		return none, refuseProof("its nonce is longer than %d bytes", maxID)
	}
	return p, nil
}

// ClaimedKey returns the thumbprint of the key that the proof says it is made
// with. Nothing shows yet that it is.
func (p UnverifiedProof) ClaimedKey() string { return p.key.Thumbprint() }

// Check verifies the proof for a request. What costs little comes first; there
// is nothing to learn from the order, as the key is the sender's own. Check 10,
// the nonce, and the single use of the id (Section 11.1) are the caller's.
func (p UnverifiedProof) Check(req ProofRequest, now time.Time) (Proof, error) {
	c := &p.claims
	// Check 8: htm matches the method, which is case-sensitive (RFC 9110,
	// Section 9.1).
	if c.Method != req.Method {
		return Proof{}, counterfoil.Refuse(counterfoil.ProofTarget, "the DPoP proof's htm %.32q is not %s", c.Method, req.Method)
	}
	// Check 9: htu matches the URL without query and fragment, after the
	// normalisation of RFC 3986 that the section recommends. The URL is the
	// configured one: the Host header is the sender's.
	same, err := sameTarget(c.URL, req.URL)
	if err != nil {
		return Proof{}, counterfoil.NewFault(counterfoil.Internal, fmt.Errorf("reading the request's public URL: %w", err))
	}
	if !same {
		return Proof{}, counterfoil.Refuse(counterfoil.ProofTarget, "the DPoP proof's htu %.256q is not the public URL of this request", c.URL)
	}
	// Check 12, first half: ath is the hash of the token that comes with it.
	// Not secret, so compared in whatever time it takes.
	if req.TokenHash != "" && c.Hash != req.TokenHash {
		return Proof{}, counterfoil.Refuse(counterfoil.ProofTarget, "the DPoP proof's ath is missing or is of another token")
	}
	// Check 11: iat within the window.
	if c.IssuedAt.t.Before(now.Add(-ProofWindow)) || c.IssuedAt.t.After(now.Add(Ahead)) {
		return Proof{}, counterfoil.Refuse(counterfoil.ProofStale, "the DPoP proof is dated %s; it is %s here", stamp(c.IssuedAt.t), stamp(now))
	}
	// Check 6: the signature verifies with the key in jwk.
	if err := p.key.Verify(p.jws.input, p.jws.sig, p.jws.header.Alg); err != nil {
		return Proof{}, refuseProof("its signature does not verify with its jwk")
	}
	return Proof{
		JKT:      p.key.thumb,
		ID:       c.ID,
		Key:      p.key,
		Alg:      p.key.alg,
		IssuedAt: c.IssuedAt.t,
		Expires:  c.IssuedAt.t.Add(ProofWindow + Ahead),
		Nonce:    c.Nonce,
		Hash:     proofHash(p.key.thumb, c.ID),
	}, nil
}

func proofHash(jkt, id string) string {
	var buf [20 + 43 + 1 + maxID]byte
	b := append(buf[:0], "counterfoil/proof/1\n"...)
	b = append(b, jkt...)
	b = append(b, '\n')
	b = append(b, id...)
	return EncodeHash(sha256.Sum256(b))
}

// TokenHash returns the ath of an access token (RFC 9449, Section 4.2).
func TokenHash(accessToken string) string {
	return EncodeHash(sha256.Sum256([]byte(accessToken)))
}

// SignProof makes a proof for one request, with a fresh id; a retry needs
// another (RFC 9449, Section 11.1). Query and fragment are taken off the URL.
// nonce and accessToken are left out when empty.
func SignProof(s *Signer, method, url, nonce, accessToken string, now time.Time) (string, error) {
	if method == "" || url == "" {
		return "", errors.New("signing a proof: method and URL are needed")
	}
	if i := strings.IndexAny(url, "?#"); i >= 0 {
		url = url[:i]
	}
	c := struct {
		ID       string `json:"jti"`
		Method   string `json:"htm"`
		URL      string `json:"htu"`
		IssuedAt int64  `json:"iat"`
		Hash     string `json:"ath,omitzero"`
		Nonce    string `json:"nonce,omitzero"`
	}{ID: freshID(), Method: method, URL: url, IssuedAt: now.Unix(), Nonce: nonce}
	if accessToken != "" {
		c.Hash = TokenHash(accessToken)
	}
	return signJWS(s, s.proofHeader, c)
}

// freshID returns 128 random bits in base64url. RFC 9449, Section 4.2, asks
// for 96.
func freshID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return base64.RawURLEncoding.EncodeToString(b[:])
}
