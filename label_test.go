package counterfoil_test

import (
	"testing"

	"github.com/counterfoil/counterfoil"
)

// What is said of a credential's place holds no part of an address that may be a secret.
func TestLabelOfAnUpstreamCredential(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]counterfoil.UpstreamCredential{
		"file crm-token": {File: "crm-token"}, "stored crm": {Stored: "crm"}, "exec vault-crm": {Exec: "vault-crm"},
		"url https://vault.example:8200": {URL: "https://user:s3cr3t@vault.example:8200/v1/s3cr3t?key=s3cr3t#s3cr3t", URLToken: "how"},
		"oauth https://login.example":    {OAuth: &counterfoil.OAuthProvider{TokenURL: "https://login.example/s3cr3t/token?key=s3cr3t", ClientSecret: "f"}},
		"url ?":                          {URL: "s3cr3t"},
		"oauth ?":                        {OAuth: &counterfoil.OAuthProvider{TokenURL: "%s3cr3t"}},
	} {
		if got := c.Label(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
