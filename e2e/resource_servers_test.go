package e2e

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/e2e/peers"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/resource"
)

// accounts is a service that no gateway of ours is in front of; %s is its URL.
const accounts = `kind: Resource
name: accounts
type: direct
environment: prod
public_url: %s
servers: [accounts-server]
tools:
  - {name: get_account, class: read}
  - {name: close_account, class: read}
---
kind: Agent
name: accounts-server
owner: ana
purpose: asks what is revoked, for the accounts service
environment: prod
---
kind: Agent
name: accountant
owner: ana
purpose: looks accounts up
environment: prod
grants:
  - tools: [accounts/get_account, bank/get_balance]
`

// TestOtherPeoplesResourceServers: a service that takes our tokens with
// express-oauth2-jwt-bearer, one that has a JWT library alone, and one with our own
// middleware let the agent in and refuse the same token in anybody else's hands.
func TestOtherPeoplesResourceServers(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]struct {
		start func(*testing.T, *counterfoiltest.System) (url string, stop func())
		alg   string // of the agent's key

		// What the service does not do, which its documentation says.
		keepsRevoked bool // a token that is revoked is taken until it expires
		twice        string
	}{
		"express-oauth2-jwt-bearer": {
			start: func(t *testing.T, sys *counterfoiltest.System) (string, func()) {
				return peers.Need(t).Express(t, sys.Issuer()), func() {}
			},
			alg: credential.ES256, keepsRevoked: true, twice: "/library/7",
		},
		"a JWT library": {
			start: func(t *testing.T, sys *counterfoiltest.System) (string, func()) {
				return peers.Need(t).Jose(t, sys.Issuer()), func() {}
			},
			alg: credential.Ed25519, keepsRevoked: true,
		},
		"resource.Middleware": {start: middleware, alg: credential.Ed25519},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
			at, stop := s.start(t, sys)
			if s.keepsRevoked {
				sys.Apply(fmt.Sprintf(accounts, at))
			}
			a := sys.AgentWith("accountant", counterfoiltest.NewSigner(t, s.alg))
			signed := a.For(at)
			account := at + "/accounts/7"

			res := send(t, signed.Client(), http.MethodGet, account)
			if res.status != http.StatusOK || !strings.Contains(res.body, `"agent":"accountant"`) || !strings.Contains(res.body, `"account":"7"`) {
				t.Fatalf("the agent's own call: %+v", res)
			}
			if res := send(t, signed.Client(), http.MethodDelete, account); res.status != http.StatusForbidden {
				t.Errorf("a tool that is not in its scope: %+v", res)
			}
			theft{t: t, at: account, token: tokenFor(t, signed), other: tokenFor(t, a.For(sys.BankURL())), signer: a.Signer}.run(s.alg)

			if s.twice != "" {
				// What the library leaves to others: it takes a proof twice.
				proof := theft{t: t, at: at + s.twice, token: tokenFor(t, signed), signer: a.Signer}.proof(nil)
				for range 2 {
					if res := proof.send(); res.status != http.StatusOK {
						t.Errorf("the library alone: %+v", res)
					}
				}
				// And no proof by an Ed25519 key, whose name it has from before RFC 9864.
				ed := sys.AgentWith("accountant", counterfoiltest.NewSigner(t, credential.Ed25519))
				if res := send(t, ed.For(at).Client(), http.MethodGet, account); res.status != http.StatusBadRequest {
					t.Errorf("an Ed25519 proof: %+v", res)
				}
			}

			proof := theft{t: t, at: account, token: tokenFor(t, signed), signer: a.Signer}
			sys.Suspend("accountant")
			for deadline := time.Now().Add(counterfoiltest.Timeout); ; {
				res := proof.proof(nil).send()
				if s.keepsRevoked {
					if res.status != http.StatusOK {
						t.Errorf("it cannot know that the agent is suspended, and answers %+v", res)
					}
					break
				}
				if res.status == http.StatusUnauthorized && strings.Contains(res.body, "agent_suspended") {
					break
				}
				// 503 is a view that is not fresh, as on a machine that is busy.
				if res.status != http.StatusOK && res.status != http.StatusServiceUnavailable || time.Now().After(deadline) {
					t.Fatalf("once the agent is suspended: %+v", res)
				}
			}
			stop()
			sys.CheckLedger()
		})
	}
}

// middleware starts a service in Go, as docs/resource-servers.md has it. stop ends what
// it asks the issuer.
func middleware(t *testing.T, sys *counterfoiltest.System) (url string, stop func()) {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	at := "http://" + srv.Listener.Addr().String() + "/api"
	sys.Apply(fmt.Sprintf(accounts, at))

	view := &resource.View{}
	feed := &resource.Feed{Issuer: sys.Issuer(), Client: sys.AgentWith("accounts-server", counterfoiltest.NewSigner(t, credential.Ed25519)).For(sys.Issuer()).Client(), View: view, Log: slog.New(slog.DiscardHandler)}
	keys := &resource.KeySet{Issuer: sys.Issuer()}
	if err := feed.Poll(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		feed.Run(ctx)
	}()
	verifier := &resource.Verifier{Issuer: sys.Issuer(), Keys: keys, Replay: resource.NewMemoryReplay(nil), Revocation: view}
	account := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, _ := resource.CallerFrom(r.Context())
		fmt.Fprintf(w, `{"agent":%q,"account":%q}`, caller.Agent, r.PathValue("id"))
	})
	mux := http.NewServeMux()
	mux.Handle("GET /api/accounts/{id}", verifier.Tool("get_account", account))
	mux.Handle("DELETE /api/accounts/{id}", verifier.Tool("close_account", account))
	srv.Config.Handler = verifier.Middleware(at, mux)
	srv.Start()
	t.Cleanup(srv.Close)
	return at, func() {
		cancel()
		<-ended
	}
}

// A theft is what somebody does with a token that is not theirs, or with a request of
// the agent's that they saw.
type theft struct {
	t            *testing.T
	at           string
	token, other string // the token; one of the same agent for another resource
	signer       *credential.Signer
}

// A showing is one request in the making: an attack changes one thing about it.
type showing struct {
	t      *testing.T
	at     string
	host   string
	header http.Header

	// Of the proof.
	signer                *credential.Signer
	htm, htu, ath, scheme string
	issued                time.Time
}

// proof makes the agent's own request, but for what change changes.
func (s theft) proof(change func(*showing)) showing {
	s.t.Helper()
	r := showing{t: s.t, at: s.at, header: http.Header{}, signer: s.signer, htm: http.MethodGet, htu: s.at, ath: s.token, scheme: "DPoP", issued: time.Now()}
	if change != nil {
		change(&r)
	}
	proof, err := credential.SignProof(r.signer, r.htm, r.htu, "", r.ath, r.issued)
	if err != nil {
		s.t.Fatal(err)
	}
	r.header.Set("Authorization", r.scheme+" "+s.token)
	r.header.Set("DPoP", proof)
	return r
}

func (r showing) send() answered {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.at, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header, req.Host = r.header, r.host
	return sent(r.t, http.DefaultClient, req)
}

// run tries everything, each time beside the agent's own request.
func (s theft) run(alg string) {
	s.t.Helper()
	thief := counterfoiltest.NewSigner(s.t, alg)
	tries := map[string]showing{
		"the thief's key":            s.proof(func(r *showing) { r.signer = thief }),
		"as bearer, with a proof":    s.proof(func(r *showing) { r.scheme = "Bearer" }),
		"a proof of another method":  s.proof(func(r *showing) { r.htm = http.MethodPost }),
		"a proof of another path":    s.proof(func(r *showing) { r.htu = s.at + "/more" }),
		"a proof of another host":    s.proof(func(r *showing) { r.htu = "http://elsewhere.example/api/accounts/7" }),
		"a proof of another token":   s.proof(func(r *showing) { r.ath = s.other }),
		"a proof of ten minutes ago": s.proof(func(r *showing) { r.issued = r.issued.Add(-10 * time.Minute) }),
		"a proof of the future":      s.proof(func(r *showing) { r.issued = r.issued.Add(5 * time.Minute) }),
		"another Host, and a proof of it": s.proof(func(r *showing) {
			r.host, r.htu = "elsewhere.example", "http://elsewhere.example/api/accounts/7"
		}),
	}
	bearer := s.proof(func(r *showing) { r.scheme = "Bearer" })
	bearer.header.Del("DPoP")
	tries["as bearer"] = bearer
	bare := s.proof(nil)
	bare.header.Del("DPoP")
	tries["without a proof"] = bare
	tries["without anything"] = showing{t: s.t, at: s.at, header: http.Header{}}
	tries["in the query"] = showing{t: s.t, at: s.at + "?access_token=" + s.token, header: http.Header{}}
	two := s.proof(nil)
	two.header.Add("DPoP", s.proof(nil).header.Get("DPoP"))
	tries["two proofs"] = two
	elsewhere := theft{t: s.t, at: s.at, token: s.other, signer: s.signer}
	tries["a token for another resource"] = elsewhere.proof(nil)
	forged := s.proof(nil)
	forged.header.Set("Authorization", "DPoP "+s.token[:len(s.token)-6]+"AAAAAA")
	tries["a forged signature"] = forged

	for name, try := range tries {
		if res := try.send(); res.status != http.StatusUnauthorized && res.status != http.StatusBadRequest && res.status != http.StatusMisdirectedRequest {
			s.t.Errorf("%s: %+v", name, res)
		}
		own := s.proof(nil)
		if res := own.send(); res.status != http.StatusOK {
			s.t.Errorf("%s: the agent's own request beside it: %+v", name, res)
		}
		if res := own.send(); res.status != http.StatusUnauthorized {
			s.t.Errorf("the agent's own request, recorded and sent again: %+v", res)
		}
	}
}

// An answered is what a service answered.
type answered struct {
	status int
	header http.Header
	body   string
}

func send(t *testing.T, client *http.Client, method, at string) answered {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, at, nil)
	if err != nil {
		t.Fatal(err)
	}
	return sent(t, client, req)
}

func sent(t *testing.T, client *http.Client, req *http.Request) answered {
	t.Helper()
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return answered{res.StatusCode, res.Header, string(body)}
}

func tokenFor(t *testing.T, signed *agent.Transport) string {
	t.Helper()
	tok, err := signed.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return tok.Token.Reveal()
}

// TestResourceServersAsDocumented: what docs/resource-servers.md shows of the services
// above is what they run.
func TestResourceServersAsDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/resource-servers.md")
	if err != nil {
		t.Fatal(err)
	}
	var run strings.Builder
	for _, name := range []string{"express-server.mjs", "jose-server.mjs"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		run.Write(b)
	}
	shown := regexp.MustCompile("(?s)```js\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(shown) < 2 {
		t.Fatalf("the page shows %d pieces", len(shown))
	}
	for _, piece := range shown {
		for part := range strings.SplitSeq(piece[1], "\n\n") {
			if part := strings.TrimSpace(part); !strings.Contains(run.String(), part) {
				t.Errorf("the page shows what no service here runs:\n%s", part)
			}
		}
	}
}
