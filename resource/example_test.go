package resource_test

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/resource"
)

// A service of one's own that takes this issuer's tokens. Without a view of what is
// revoked, a token is good until it expires.
func Example() {
	keys := &resource.KeySet{Issuer: "https://issuer.example"}
	go keys.Run(context.Background())
	verifier := &resource.Verifier{
		Issuer:     keys.Issuer,
		Keys:       keys,
		Replay:     resource.NewMemoryReplay(nil),
		Revocation: resource.TokensOnly{},
	}
	accounts := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, _ := resource.CallerFrom(r.Context())
		fmt.Fprintf(w, "%s asks for %s", caller.Agent, r.URL.Path)
	})
	mux := http.NewServeMux()
	mux.Handle("GET /v1/accounts/{id}", verifier.Tool("get_account", accounts))
	service := verifier.Middleware("https://accounts.example/v1", mux)
	log.Fatal(http.ListenAndServe("localhost:8080", service))
}

// The same service, with a view of what is revoked. It asks as the agent
// accounts-server, which the resource's manifest lists among its servers, and takes
// nobody's word for longer than the view is fresh: until it has heard of everything,
// and again when the issuer is out of reach, every request is a fault.
func ExampleView() {
	const issuer = "https://issuer.example"
	key, err := agent.LoadKey("/etc/accounts/agent.key")
	if err != nil {
		log.Fatal(err)
	}
	transport, err := agent.NewTransport(agent.Config{
		Issuer: issuer, Agent: "accounts-server", Signer: key, Resource: issuer,
	})
	if err != nil {
		log.Fatal(err)
	}
	view := &resource.View{}
	feed := &resource.Feed{Issuer: issuer, Client: transport.Client(), View: view}
	go feed.Run(context.Background())

	keys := &resource.KeySet{Issuer: issuer}
	go keys.Run(context.Background())
	verifier := &resource.Verifier{
		Issuer:     issuer,
		Keys:       keys,
		Replay:     resource.NewMemoryReplay(nil),
		Revocation: view,
	}
	http.Handle("/readyz", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := view.Ready(); err != nil {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
	}))
	http.Handle("/", verifier.Middleware("https://accounts.example/v1", http.NotFoundHandler()))
	log.Fatal(http.ListenAndServe("localhost:8080", nil))
}
