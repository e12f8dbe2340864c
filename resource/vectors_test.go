package resource_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/resource"
)

// oneNonce asks every proof for the nonce that the vectors' server gave.
type oneNonce string

func (oneNonce) Required(time.Time, time.Time) bool     { return true }
func (n oneNonce) Check(nonce string, _ time.Time) bool { return nonce == string(n) }
func (n oneNonce) Mint(time.Time) string                { return string(n) }

// noNonce is a server that asks for none.
type noNonce struct{}

func (noNonce) Required(time.Time, time.Time) bool { return false }
func (noNonce) Check(string, time.Time) bool       { return false }
func (noNonce) Mint(time.Time) string              { return "" }

// forgetful is a replay cache that remembers nothing.
type forgetful struct{}

func (forgetful) UseOnce(_ context.Context, _ string, _ time.Time) (bool, error) { return true, nil }

// TestVectors runs ../vectors/requests.json, and shows for each refused row that
// it fails its own check alone: where that one check is taken away, the same
// requests are accepted.
func TestVectors(t *testing.T) {
	t.Parallel()
	type row struct {
		Name, Check string
		Code        counterfoil.Code
		Thumbprint  string
		Requests    []struct{ Authorization, DPoP string }
	}
	var f struct {
		Now                                  int64
		Method, URL, Issuer, Audience, Nonce string
		Key                                  json.RawMessage
		Accepted, Refused                    []row
	}
	data, err := os.ReadFile(filepath.Join("..", "vectors", "requests.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &f); err != nil {
		t.Fatal(err)
	}
	key, err := credential.ParseJWK(f.Key)
	if err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return time.Unix(f.Now, 0) }
	run := func(t *testing.T, r row, change func(*resource.Verifier)) (caller counterfoil.Caller, err error) {
		t.Helper()
		v := &resource.Verifier{
			Issuer: f.Issuer, Keys: keys{key.Thumbprint(): key}, Replay: resource.NewMemoryReplay(now),
			Revocation: resource.TokensOnly{}, Nonces: oneNonce(f.Nonce), Now: now,
		}
		change(v)
		for i, q := range r.Requests {
			caller, err = v.Check(t.Context(), resource.Request{
				Method: f.Method, URL: f.URL, Resource: f.Audience,
				Header: http.Header{"Authorization": {q.Authorization}, "Dpop": {q.DPoP}},
			})
			if err != nil && i < len(r.Requests)-1 {
				t.Fatalf("request %d of %d: %v", i+1, len(r.Requests), err)
			}
		}
		return caller, err
	}
	honest := func(*resource.Verifier) {}
	for _, r := range f.Accepted {
		caller, err := run(t, r, honest)
		if err != nil || r.Thumbprint != "" && caller.JKT != r.Thumbprint {
			t.Errorf("%s: %+v, %v", r.Name, caller, err)
		}
	}
	rows := map[string]int{}
	for _, r := range f.Refused {
		t.Run(r.Name, func(t *testing.T) {
			rows[r.Check]++
			_, err := run(t, r, honest)
			wantRefused(t, err, r.Code)
			without := map[string]func(*resource.Verifier){
				"10":   func(v *resource.Verifier) { v.Nonces = noNonce{} },
				"11.1": func(v *resource.Verifier) { v.Replay = forgetful{} },
				// Which key is bound is in the token, which is signed: an
				// accepted row is the same with a token of that key.
				"12": nil,
			}
			change, known := without[r.Check]
			if !known {
				t.Fatalf("no check is named %s", r.Check)
			}
			if change != nil {
				_, err := run(t, r, change)
				wantDone(t, err)
			}
		})
	}
	for _, check := range []string{"10", "11.1", "12"} {
		if rows[check] == 0 {
			t.Errorf("no row for check %s", check)
		}
	}
	t.Logf("%d accepted, %d refused: %v", len(f.Accepted), len(f.Refused), rows)
}
