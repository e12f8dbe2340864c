package resource

import (
	"context"
	"crypto/sha256"
	"errors"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
)

// Inspect verifies a token that is not shown to use it: its signature, its issuer, its
// type and its time. Its audience may be any, and there is no proof, so nobody has
// shown to hold its key: it says what a token is, to those who may know, and lets
// nobody in. Whether it was revoked is for the caller to ask.
//
// It is here because nothing else checks tokens: what is said of a token and what a
// resource does with it are the same check.
func (v *Verifier) Inspect(ctx context.Context, compact string) (credential.Token, error) {
	if v.Keys == nil {
		return credential.Token{}, counterfoil.NewFault(counterfoil.Internal, errors.New("the verifier lacks keys"))
	}
	signed, err := v.signed(ctx, compact, sha256.Sum256([]byte(compact)))
	if err != nil {
		return credential.Token{}, err
	}
	return signed.Check(v.Issuer, signed.ClaimedAudience(), v.now())
}
