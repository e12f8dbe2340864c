package counterfoiltest_test

import (
	"net/http"
	"testing"

	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

// proofFor signs a proof for the bank with a token that may be old.
func proofFor(t *testing.T, sys *counterfoiltest.System, a *counterfoiltest.Agent, token string) string {
	t.Helper()
	proof, err := credential.SignProof(a.Signer, http.MethodPost, sys.BankURL(), "", token, sys.Clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	return proof
}
