package credential

import (
	"crypto"
	"encoding/json"
	"fmt"

	"github.com/counterfoil/counterfoil"
)

// The vectors of what a resource can judge only with more than a proof: the
// nonce that it gave, the key that the token is bound to, and what it saw
// before.

const vectorNonce = "ZXhhbXBsZSBub25jZQ" // the one that the server of requests.json gave

func requestVectors() *vectorFile {
	token := compact(keyB, tokenHeader, tokenBody)
	body := fmt.Sprintf(`{"jti":"r-1","htm":"POST","htu":"%s","iat":%d,"ath":"%s","nonce":"%s"}`, testURL, testNow.Unix(), TokenHash(token), vectorNonce)
	by := func(key crypto.Signer, change [2]string) vectorRequest {
		header := `{"typ":"dpop+jwt","alg":"ES256","jwk":` + jwkOf(key) + `}`
		return vectorRequest{"DPoP " + token, compact(key, header, edit(body, change))}
	}
	honest := by(keyA, [2]string{})
	bound := compact(keyB, tokenHeader, edit(tokenBody, [2]string{publicOf(keyA).Thumbprint(), publicOf(keyB).Thumbprint()}))
	owner := vectorRequest{"DPoP " + bound, by(keyB, [2]string{TokenHash(token), TokenHash(bound)}).DPoP}
	again := [2]string{`"r-1"`, `"r-2"`}
	nonce := func(to string) [2]string { return [2]string{`,"nonce":"` + vectorNonce + `"`, to} }
	return &vectorFile{
		Description: "Requests to one resource by a bound access token, whose server asks for a nonce each time. A row's last request is judged; the server has accepted those before it. Each refused row is the honest one with one thing changed.",
		Clauses:     "check is the number of the check in RFC 9449, Section 4.3; 11.1 is the single use of Section 11.1",
		Now:         testNow.Unix(), Method: "POST", URL: testURL,
		Issuer: testIssuer, Audience: testResource, Key: json.RawMessage(jwkOf(keyB)), Nonce: vectorNonce,
		Accepted: []*vector{
			{Name: "honest", Requests: []vectorRequest{honest}, Thumb: publicOf(keyA).Thumbprint()},
			{Name: "another key with a token bound to it", Check: "12", Requests: []vectorRequest{owner}},
			{Name: "another jti", Check: "11.1", Requests: []vectorRequest{honest, by(keyA, again)}},
			{Name: "the same nonce again", Check: "10", Requests: []vectorRequest{by(keyA, again), honest}},
		},
		Refused: []*vector{
			{Name: "no nonce", Check: "10", Code: counterfoil.NonceRequired, Requests: []vectorRequest{by(keyA, nonce(``))}},
			{Name: "a nonce of another server", Check: "10", Code: counterfoil.NonceRequired, Requests: []vectorRequest{by(keyA, nonce(`,"nonce":"YW5vdGhlciBub25jZQ"`))}},
			{Name: "the nonce with a character more", Check: "10", Code: counterfoil.NonceRequired, Requests: []vectorRequest{by(keyA, nonce(`,"nonce":"`+vectorNonce+`A"`))}},
			{Name: "a proof by another key", Check: "12", Code: counterfoil.ProofKeyMismatch, Requests: []vectorRequest{by(keyB, [2]string{})}},
			{Name: "the same proof twice", Check: "11.1", Code: counterfoil.ProofReplayed, Requests: []vectorRequest{honest, honest}},
			{Name: "the same jti in another proof", Check: "11.1", Code: counterfoil.ProofReplayed, Requests: []vectorRequest{
				honest, by(keyA, [2]string{fmt.Sprintf(`"iat":%d`, testNow.Unix()), fmt.Sprintf(`"iat":%d`, testNow.Unix()-1)}),
			}},
			{Name: "the same proof with the other s", Check: "11.1", Code: counterfoil.ProofReplayed, Requests: []vectorRequest{
				honest, {honest.Authorization, negateS(honest.DPoP)},
			}},
			{Name: "the same proof after another", Check: "11.1", Code: counterfoil.ProofReplayed, Requests: []vectorRequest{honest, by(keyA, again), honest}},
		},
	}
}
