package web_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/web"
	"github.com/counterfoil/counterfoil/ledger"
	"github.com/counterfoil/counterfoil/resource"
)

func reverse(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}

func unbase64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// signing sends requests with a token and a fresh proof, straight to the handler.
type signing struct {
	s     *system
	k     agentKey
	token string
}

func (c signing) RoundTrip(r *http.Request) (*http.Response, error) {
	proof, err := credential.SignProof(c.k.signer, r.Method, c.s.issuer+r.URL.Path, "", c.token, c.s.clock.Now())
	if err != nil {
		return nil, err
	}
	in := httptest.NewRequest(r.Method, r.URL.RequestURI(), nil).WithContext(r.Context())
	in.Header.Set("Authorization", "DPoP "+c.token)
	in.Header.Set("DPoP", proof)
	w := httptest.NewRecorder()
	c.s.handlers.Public.ServeHTTP(w, in)
	return w.Result(), nil
}

func (s *system) following(k agentKey) *resource.Feed {
	s.t.Helper()
	return &resource.Feed{
		Issuer: s.issuer, Client: &http.Client{Transport: signing{s, k, s.mine(k)}},
		// So short a bound leaves no time to wait for what comes.
		View: &resource.View{MaxStale: time.Second, Now: s.clock.Now},
	}
}

// TestWhatIsRevokedIsForServers: an agent that no resource lists has no business with
// who is there.
func TestWhatIsRevokedIsForServers(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.apply(served)
	server, k := s.enrol("bank-server"), s.enrol("payroll")
	token, mine := s.mine(server), s.mine(k)
	before, _ := s.store.Head()
	wantProblem(t, s.with(k, mine, "GET", "/oauth/revocations?after=-1", ""), 403, counterfoil.ToolNotGranted)
	a := s.with(server, token, "GET", "/oauth/revocations?after=-1", "")
	if a.status != 200 || !strings.Contains(a.body, `"snapshot":{`) || !strings.Contains(a.body, `"payroll":{"status":"active","epoch":`) || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	seq := a.member("seq")
	for query, ok := range map[string]bool{
		"": false, "?after=": false, "?after=x": false, "?after=1&after=2": false, "?after=-2": false, "?after=+1": false, "?after=01": false,
		"?after=-1&wait=26": false, "?after=-1&wait=-1": false, "?after=-1&wait=x": false, "?after=-1&also=1": false, "?after=-1&wait=": false,
		"?after=9999999999999999999": false, "?%zz": false, "?after=-1&wait=25": true, "?after=0&wait=0": true, "?after=9007199254740991": true,
	} {
		s.clock.Advance(time.Second)
		a := s.with(server, token, "GET", "/oauth/revocations"+query, "")
		if ok && a.status != 200 || !ok && (a.status != 400 || a.member("code") != string(counterfoil.RequestMalformed)) {
			t.Errorf("%q: %d %s", query, a.status, a.body)
		}
	}
	// What a server asks with is what it enforces by then; its entry says so, and
	// nothing about what is not there yet.
	at := fmt.Sprintf("%.0f", mustFloat(t, seq))
	s.with(server, token, "GET", "/oauth/revocations?after="+at, "")
	decided := s.since(before, ledger.CallDecided)
	if e := decided[len(decided)-1]; e.Tool != "counterfoil/revocations" || fmt.Sprint(e.View.Seq) != at || e.Agent != "bank-server" {
		t.Errorf("with %s, the entry is %+v", at, e)
	}
	size, _ := s.store.Head()
	for _, e := range decided {
		if e.View.Seq >= size {
			t.Errorf("entry %d says that %d is enforced", e.Index, e.View.Seq)
		}
	}
	wantProblem(t, s.with(k, s.token(k).member("access_token"), "GET", "/oauth/revocations?after=-1", ""), 401, counterfoil.TokenAudience)
	s.wantEnded(before, "counterfoil/revocations", 0)
}

func mustFloat(t *testing.T, s string) (f float64) {
	t.Helper()
	if _, err := fmt.Sscan(s, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestAServerElsewhereEnforces: with a view that follows the feed, a resource server
// that is not ours refuses what is revoked, of every kind, and nothing else.
func TestAServerElsewhereEnforces(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.apply(served)
	s.apply(`
kind: Resource
name: vault
type: direct
public_url: https://vault.example/api
environment: prod
servers: [bank-server]
tools:
  - {name: look, class: read}
  - {name: empty, class: payout}
`)
	server := s.enrol("bank-server")
	const vault = "https://vault.example/api"
	feed := s.following(server)
	elsewhere := &resource.Verifier{
		Issuer: s.issuer, Keys: s.keys, Replay: resource.NewMemoryReplay(s.clock.Now), Revocation: feed.View, Now: s.clock.Now,
	}
	use := func(k agentKey, token string) error {
		proof, err := credential.SignProof(k.signer, "GET", vault, "", token, s.clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		_, err = elsewhere.Check(t.Context(), resource.Request{
			Method: "GET", URL: vault, Resource: vault, Header: http.Header{"Authorization": {"DPoP " + token}, "Dpop": {proof}},
		})
		return err
	}
	poll := func() {
		t.Helper()
		if err := feed.Poll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	k, free := s.enrol("payroll"), s.enrol("payroll")
	token := func(k agentKey, edits ...func(*request)) string {
		t.Helper()
		a := s.token(k, append([]func(*request){field("resource", vault), field("scope", "look")}, edits...)...)
		if a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		return a.member("access_token")
	}
	if err := use(k, token(k)); err == nil || counterfoil.CodeOf(err) != counterfoil.RevocationStale {
		t.Errorf("before it knows anything: %v", err)
	}
	revoke := func(kind, id string) {
		t.Helper()
		if a := s.admin("POST", "/api/v1/revocations", map[string]any{"kind": kind, "id": id, "reason": "test"}); a.status != 200 || a.member("index") == "-1" {
			t.Fatalf("revoking %s %s: %d %s", kind, id, a.status, a.body)
		}
	}
	poll()
	// Each with its control before it.
	for _, c := range []struct {
		kind string
		id   func(token string) string
		code counterfoil.Code
	}{
		{"token", func(tok string) string { return jti(t, tok) }, counterfoil.TokenRevoked},
		{"task", nil, counterfoil.TaskClosed},
		{"instance", func(string) string { return k.instance }, counterfoil.TokenRevoked},
		{"key", func(string) string { return k.signer.Public().Thumbprint() }, counterfoil.TokenRevoked},
		{"resource", func(string) string { return "vault" }, counterfoil.TokenRevoked},
		{"agent", func(string) string { return "payroll" }, counterfoil.AgentSuspended},
	} {
		s.clock.Advance(2 * time.Second)
		poll()
		k = s.enrol("payroll")
		poll()
		var tok, id string
		if c.kind == "task" {
			id = s.open(k, s.mine(k), `{"purpose":"look"}`)
			tok = token(k, field("task", id))
		} else {
			tok = token(k)
			id = c.id(tok)
		}
		control := token(free)
		if err := use(k, tok); err != nil {
			t.Fatalf("%s, before: %v", c.kind, err)
		}
		revoke(c.kind, id)
		poll()
		if err := use(k, tok); err == nil || counterfoil.CodeOf(err) != c.code {
			t.Errorf("%s, after: %v, want %s", c.kind, err, c.code)
		}
		alone := c.kind != "resource" && c.kind != "agent"
		if err := use(free, control); (err == nil) != alone {
			t.Errorf("%s, another instance: %v", c.kind, err)
		}
		if c.kind == "resource" {
			if a := s.admin("POST", "/api/v1/resources/vault/resume", map[string]any{"reason": "test"}); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			s.clock.Advance(2 * time.Second)
			poll()
			if err := use(free, control); err == nil {
				t.Error("a token of before came back with its resource")
			}
			if err := use(free, token(free)); err != nil {
				t.Errorf("a new token: %v", err)
			}
		}
	}
	// When the issuer is out of reach it stops letting anybody in.
	if a := s.admin("POST", "/api/v1/agents/payroll/resume", map[string]any{"reason": "test"}); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	poll()
	if err := use(free, token(free)); err != nil {
		t.Errorf("resumed: %v", err)
	}
	s.clock.Advance(time.Second)
	if err := use(free, token(free)); err == nil || counterfoil.CodeOf(err) != counterfoil.RevocationStale {
		t.Errorf("without news: %v", err)
	}
}

func jti(t *testing.T, token string) string {
	t.Helper()
	return counterfoiltest.ReadJWT(t, token).Claims["jti"].(string)
}

// TestAServerThatWaits is told at once of what it waits for. When it was revoked
// meanwhile it is told nothing, and when the issuer drains, that nothing happened.
func TestAServerThatWaits(t *testing.T) {
	t.Parallel()
	draining, drain := context.WithCancel(context.Background())
	s := newSystem(t, func(s *system) { s.draining = draining })
	s.apply(served)
	server, crm := s.enrol("bank-server"), s.enrol("crm-server")
	seq := func(k agentKey) string {
		t.Helper()
		a := s.with(k, s.mine(k), "GET", "/oauth/revocations?after=-1", "")
		return fmt.Sprintf("%.0f", mustFloat(t, a.member("seq")))
	}
	ask := func(k agentKey) (wait func() answer) {
		done := make(chan answer, 1)
		token, after := s.mine(k), seq(k)
		decided := len(s.entries(ledger.CallDecided))
		go func() { done <- s.with(k, token, "GET", "/oauth/revocations?after="+after+"&wait=25", "") }()
		for len(s.entries(ledger.CallDecided)) == decided {
			select {
			case a := <-done:
				t.Fatalf("it did not wait: %d %s", a.status, a.body)
			default:
				runtime.Gosched()
			}
		}
		return func() answer { return <-done }
	}
	revoke := func(agent string) {
		t.Helper()
		if a := s.admin("POST", "/api/v1/agents/"+agent+"/suspend", map[string]any{"reason": "test"}); a.status != 200 {
			t.Fatal(a.body)
		}
	}
	wait := ask(server)
	revoke("payroll")
	if a := wait(); a.status != 200 || !strings.Contains(a.body, `"steps":[{`) || !strings.Contains(a.body, `"payroll":{`) || strings.Contains(a.body, "snapshot") {
		t.Errorf("what it waited for: %d %s", a.status, a.body)
	}
	wait = ask(server)
	revoke("bank-server")
	wantProblem(t, wait(), 401, counterfoil.AgentSuspended)
	wait = ask(crm)
	began := time.Now()
	drain()
	if a := wait(); time.Since(began) > 15*time.Second || a.status != 200 || strings.Contains(a.body, "steps") {
		t.Errorf("at the end: %d %s", a.status, a.body)
	}
}

// TestWaitingIsBounded: one agent does not hold more than so many requests open.
func TestWaitingIsBounded(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s := newSystem(t, func(s *system) { s.draining = ctx })
	s.apply(served)
	var all []agentKey
	for range 3 {
		all = append(all, s.enrol("bank-server")) // a rate is each instance's
	}
	var tokens []string
	for _, k := range all {
		tokens = append(tokens, s.mine(k))
	}
	a := s.with(all[0], tokens[0], "GET", "/oauth/revocations?after=-1", "")
	after := fmt.Sprintf("%.0f", mustFloat(t, a.member("seq")))
	var wg sync.WaitGroup
	answers := make(chan int, web.MaxWaiting+3)
	for i := range web.MaxWaiting + 3 {
		wg.Go(func() {
			n := i % len(all)
			answers <- s.with(all[n], tokens[n], "GET", "/oauth/revocations?after="+after+"&wait=25", "").status
		})
	}
	for range 3 {
		if status := <-answers; status != 429 {
			t.Errorf("%d before any was answered", status)
		}
	}
	cancel()
	wg.Wait()
	close(answers)
	for status := range answers {
		if status != 200 {
			t.Errorf("one that waited: %d", status)
		}
	}
}

// TestAServerOfAnotherLog: what a server knows of a log that was restored says nothing
// of this one. It is told everything at once, and nobody takes its index for one of ours.
func TestAServerOfAnotherLog(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.apply(served)
	server := s.enrol("bank-server")
	token := s.mine(server)
	ask := func(query string) answer {
		t.Helper()
		s.clock.Advance(time.Second)
		return s.with(server, token, "GET", "/oauth/revocations?"+query, "")
	}
	first := ask("after=-1")
	log := first.member("log")
	if first.status != 200 || log == "" {
		t.Fatalf("%d %s", first.status, first.body)
	}
	at := fmt.Sprintf("%.0f", mustFloat(t, first.member("seq")))
	for _, c := range []struct {
		log      string
		snapshot bool
		seq      string
	}{{"", false, at}, {"&log=" + url.QueryEscape(log), false, at}, {"&log=" + url.QueryEscape(log+"/restored-1"), true, "0"}} {
		before, _ := s.store.Head()
		wait := "&wait=0"
		if c.snapshot {
			wait = "&wait=25" // for nothing
		}
		a := ask("after=" + at + wait + c.log)
		if a.status != 200 || strings.Contains(a.body, `"snapshot":{`) != c.snapshot || a.member("log") != log {
			t.Errorf("with log %q: %d %s", c.log, a.status, a.body)
		}
		decided := s.since(before, ledger.CallDecided)
		if e := decided[len(decided)-1]; fmt.Sprint(e.View.Seq) != c.seq {
			t.Errorf("with log %q the entry says that %d is enforced", c.log, e.View.Seq)
		}
	}
	for _, query := range []string{"after=-1&log=", "after=-1&log=a&log=a", "after=-1&log=" + strings.Repeat("a", 1025)} {
		if a := ask(query); a.status != 400 || a.member("code") != string(counterfoil.RequestMalformed) {
			t.Errorf("%.40q: %d %s", query, a.status, a.body)
		}
	}
}
