package custody

import (
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
)

// FuzzProvider reads what a provider says in each of the three forms: what is taken can be
// a header, lives for a while, and no error shows anything of it.
func FuzzProvider(f *testing.F) {
	f.Add(`{"secret":"s3cr3t-token","expires_in":300}`, 200)
	f.Add(`{"access_token":"s3cr3t-token","token_type":"Bearer","expires_in":1.5}`, 200)
	f.Add(`{"error":"invalid_client"}`, 401)
	f.Add("s3cr3t-token\n", 200)
	f.Add("********", 200)
	f.Add(`{"secret":"s3cr3t-token","secret":"other-token"}`, 200)
	f.Add(`{"secret":"s3cr3t-token","expires_in":-1e300}`, 200)
	f.Fuzz(func(t *testing.T, said string, status int) {
		said = strings.ReplaceAll(said, "s3cr3t", "canary-7fb9e1")
		printed, err1 := readPrinted([]byte(said))
		got, err2 := readSaid([]byte(said))
		token, err3 := readToken(status, []byte(said))
		for i, a := range []answer{printed, got, token} {
			if err := []error{err1, err2, err3}[i]; err != nil {
				if strings.Contains(err.Error(), "canary") {
					t.Errorf("the error of form %d tells: %v", i, err)
				}
				continue
			}
			if a.lives < 0 {
				t.Errorf("form %d lives for %s", i, a.lives)
			}
			g := gotten{}
			g.keep(0, a.lives)
			if !g.renew.Before(g.until) || g.until.Sub(g.at) > defaultTTL {
				t.Errorf("form %d is kept from %s, renewed %s, over %s", i, g.at, g.renew, g.until)
			}
			if usable(a.secret) != nil {
				continue
			}
			v := a.secret.Reveal()
			if out, struck := NewMask(counterfoil.NewSecret(v)).Bytes([]byte("x " + v + " y")); !struck || strings.Contains(string(out), v) {
				t.Errorf("form %d: %q is taken, and not masked", i, v)
			}
		}
		if status != 200 && err3 == nil {
			t.Errorf("status %d was taken", status)
		}
	})
}
