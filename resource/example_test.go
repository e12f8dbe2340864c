package resource_test

import (
	"fmt"
	"log"
	"net/http"

	"github.com/counterfoil/counterfoil/resource"
)

// A service of one's own that takes this issuer's tokens. keys is a KeySource
// over the issuer's key set; without a view of what is revoked, a token is good
// until it expires.
func Example() {
	var keys resource.KeySource
	verifier := &resource.Verifier{
		Issuer:     "https://issuer.example",
		Keys:       keys,
		Replay:     resource.NewMemoryReplay(nil),
		Revocation: resource.TokensOnly{},
	}
	accounts := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, _ := resource.CallerFrom(r.Context())
		fmt.Fprintf(w, "%s asks for %s", caller.Agent, r.URL.Path)
	})
	service := verifier.Middleware("https://accounts.example/v1", accounts)
	log.Fatal(http.ListenAndServe("localhost:8080", service))
}
