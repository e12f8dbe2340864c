package web_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/web"
	"github.com/counterfoil/counterfoil/ledger"
)

// mine gets a token for the issuer itself.
func (s *system) mine(k agentKey, edits ...func(*request)) string {
	s.t.Helper()
	a := s.token(k, append([]func(*request){field("resource", s.issuer)}, edits...)...)
	if a.status != 200 {
		s.t.Fatalf("a token for the issuer: %d %s", a.status, a.body)
	}
	return a.member("access_token")
}

// with asks the issuer for something with a token and a fresh proof for the path.
func (s *system) with(k agentKey, token, method, path, body string) answer {
	s.t.Helper()
	bare, _, _ := strings.Cut(path, "?")
	proof, err := credential.SignProof(k.signer, method, s.issuer+bare, "", token, s.clock.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	} else {
		r.ContentLength = 0
	}
	r.Header.Set("Authorization", "DPoP "+token)
	r.Header.Set("DPoP", proof)
	return serve(s.handlers.Public, r)
}

// open opens a task.
func (s *system) open(k agentKey, token, body string) string {
	s.t.Helper()
	a := s.with(k, token, "POST", "/tasks", body)
	if a.status != 201 {
		s.t.Fatalf("opening a task: %d %s", a.status, a.body)
	}
	return a.member("id")
}

// orchestrated adds an agent that other may open tasks for.
const orchestrated = `
kind: Agent
name: worker
owner: ana
environment: prod
tasks: {max_duration: 30m, max_calls: 50, orchestrators: [other]}
grants: [{tools: [bank/get_balance, bank/list_payees]}]
`

func TestATaskFromItsOpeningToItsEnd(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	token := s.mine(k)
	before, _ := s.store.Head()
	a := s.with(k, token, "POST", "/tasks", `{"purpose":"pay November","tools":["bank/get_balance","bank/pay"],"expires_in":600,"max_calls":5,`+
		`"limits":[{"class":"payout","max":"2"}]}`)
	var got struct {
		ID, Agent, Opener, Purpose, State string
		Tools                             []string
		Opened                            time.Time
		Expires                           time.Time `json:"expires_at"`
		MaxCalls                          int64     `json:"max_calls"`
		Calls                             *int64
		Limits                            []map[string]string
	}
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 201 || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if !strings.HasPrefix(got.ID, "tsk_") || got.Agent != "payroll" || got.Opener != "payroll" || got.Purpose != "pay November" || got.State != "open" ||
		!slices.Equal(got.Tools, []string{"bank/get_balance", "bank/pay"}) || got.Expires.Sub(s.clock.Now().Truncate(time.Second)) != 10*time.Minute ||
		got.MaxCalls != 5 || got.Calls == nil || len(got.Limits) != 1 || got.Limits[0]["max"] != "2" || got.Limits[0]["used"] != "0" {
		t.Errorf("it is %s", a.body)
	}
	for path, has := range map[string]string{"/tasks/" + got.ID: `"purpose":"pay November"`, "/tasks": `{"tasks":[{`} {
		if a := s.with(k, token, "GET", path, ""); a.status != 200 || !strings.Contains(a.body, has) || !strings.Contains(a.body, got.ID) {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	// A token of the task is good until it ends, and not afterwards.
	inTask := s.mine(k, field("task", got.ID))
	if a := s.with(k, inTask, "GET", "/tasks/"+got.ID, ""); a.status != 200 {
		t.Errorf("with a token of the task: %d %s", a.status, a.body)
	}
	a = s.with(k, token, "POST", "/tasks/"+got.ID+"/complete", `{"reason":"all were paid"}`)
	if a.status != 200 || a.member("state") != "completed" || a.member("reason") != "all were paid" || a.member("closed") == "" {
		t.Errorf("completing: %d %s", a.status, a.body)
	}
	// TL3: it ends once, and is a conflict then, with no challenge: nobody's token is at fault.
	for _, verb := range []string{"complete", "cancel"} {
		a := s.with(k, token, "POST", "/tasks/"+got.ID+"/"+verb, "")
		wantProblem(t, a, 409, counterfoil.TaskClosed)
		if a.header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s: a challenge %q", verb, a.header.Get("WWW-Authenticate"))
		}
	}
	wantProblem(t, s.with(k, inTask, "GET", "/tasks/"+got.ID, ""), 409, counterfoil.TaskClosed)
	wantStatus(t, s.token(k, field("task", got.ID)), 400, "invalid_grant", counterfoil.TaskClosed)
	if a := s.with(k, token, "GET", "/tasks/"+got.ID, ""); a.status != 200 || a.member("state") != "completed" {
		t.Errorf("afterwards: %d %s", a.status, a.body)
	}
	s.wantEnded(before, "counterfoil/tasks", 0)
}

// wantEnded checks that every request of a tool was decided with its proof and, where
// it was allowed, ended once; so many were refused on their way.
func (s *system) wantEnded(from int64, tool string, refused int) {
	s.t.Helper()
	ends, proofs := map[int64]string{}, map[string]bool{}
	for _, e := range s.since(from, ledger.CallFinished) {
		if ends[e.Of] != "" {
			s.t.Errorf("decision %d ended twice", e.Of)
		}
		ends[e.Of] = e.Outcome
		if (e.Outcome == "refused") != (e.Code != "") {
			s.t.Errorf("entry %d ended %q with the code %q", e.Index, e.Outcome, e.Code)
		}
	}
	n := 0
	for _, e := range s.since(from, ledger.CallDecided) {
		if e.Tool != tool {
			continue
		}
		n++
		if e.Proof == "" || proofs[e.Proof] || e.Agent == "" || e.TokenJTI == "" || e.RequestID == "" {
			s.t.Errorf("decision %d lacks who asked: %+v", e.Index, e)
		}
		proofs[e.Proof] = true
		if ends[e.Index] == "refused" {
			refused--
		}
		if (e.Decision == ledger.Allow) != (ends[e.Index] != "") || ends[e.Index] == ledger.OutcomeUnknown {
			s.t.Errorf("decision %d was %s and ended %q", e.Index, e.Decision, ends[e.Index])
		}
	}
	if n == 0 {
		s.t.Errorf("no request of %s is in the log", tool)
	}
	if refused > 0 {
		s.t.Errorf("%d refusals too few are in the log", refused)
	}
}

// TestATaskIsAskedForStrictly: what is not quite right opens nothing (TL4 among it).
func TestATaskIsAskedForStrictly(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	token := s.mine(k)
	before, _ := s.store.Head()
	for body, want := range map[string]struct {
		status int
		code   counterfoil.Code
	}{
		`{}`:                     {400, counterfoil.RequestMalformed},
		`{"purpose":""}`:         {400, counterfoil.RequestMalformed},
		`{"purpose":"a\u0000b"}`: {400, ""},
		`{"purpose":"` + strings.Repeat("x", 501) + `"}`:                     {400, counterfoil.RequestMalformed},
		`{"purpose":"p","purpose":"q"}`:                                      {400, counterfoil.PayloadMalformed},
		`{"Purpose":"p"}`:                                                    {400, counterfoil.PayloadMalformed},
		`{"purpose":"p","id":"tsk_1"}`:                                       {400, counterfoil.PayloadMalformed},
		`{"purpose":"p","state":"open"}`:                                     {400, counterfoil.PayloadMalformed},
		`{"purpose":"p","tools":null}`:                                       {400, counterfoil.PayloadMalformed},
		`{"purpose":"p","tools":[]}`:                                         {400, counterfoil.RequestMalformed},
		`{"purpose":"p","tools":"bank/pay"}`:                                 {400, counterfoil.PayloadMalformed},
		`{"purpose":"p","tools":["bank"]}`:                                   {400, counterfoil.RequestMalformed},
		`{"purpose":"p","tools":["bank/*"]}`:                                 {400, counterfoil.RequestMalformed},
		`{"purpose":"p","expires_in":0}`:                                     {400, counterfoil.RequestMalformed},
		`{"purpose":"p","expires_in":-1}`:                                    {400, counterfoil.RequestMalformed},
		`{"purpose":"p","expires_in":"60"}`:                                  {400, counterfoil.PayloadMalformed},
		`{"purpose":"p","expires_in":1e400}`:                                 {400, counterfoil.PayloadMalformed},
		`{"purpose":"p","expires_in":null}`:                                  {400, counterfoil.PayloadMalformed},
		`{"purpose":"p","max_calls":0}`:                                      {400, counterfoil.RequestMalformed},
		`{"purpose":"p","max_calls":-5}`:                                     {400, counterfoil.RequestMalformed},
		`{"purpose":"p","parent":""}`:                                        {400, counterfoil.RequestMalformed},
		`{"purpose":"p","agent":""}`:                                         {400, counterfoil.RequestMalformed},
		`{"purpose":"p","limits":[{"class":"payout","max":1}]}`:              {400, counterfoil.PayloadMalformed},
		`{"purpose":"p","limits":[{"class":"payout","max":"-1"}]}`:           {400, counterfoil.RequestMalformed},
		`{"purpose":"p","limits":[{"class":"nothing","max":"1"}]}`:           {400, counterfoil.RequestMalformed},
		`{"purpose":"p","limits":[{"class":"payout","max":"1","used":"0"}]}`: {400, counterfoil.PayloadMalformed},
		`{"purpose":"p"} `:                                                   {201, ""},
		`{"purpose":"p"}{}`:                                                  {400, counterfoil.PayloadMalformed},
		`[]`:                                                                 {400, counterfoil.PayloadMalformed},
		`null`:                                                               {400, ""},
		`{"purpose":"p","tools":["bank/list_payees"]}`:                       {403, counterfoil.ToolNotGranted},
		`{"purpose":"p","tools":["lab/play"]}`:                               {403, counterfoil.ToolNotGranted},
		`{"purpose":"p","parent":"tsk_aaaaaaaaaaaaaaaaaaaaaaaaaa"}`:          {409, counterfoil.TaskClosed},
		`{"purpose":"p","agent":"worker"}`:                                   {404, counterfoil.ToolUnknown},
		`{"purpose":"p","expires_in":9007199254740991}`:                      {201, ""},
		`{"purpose":"p","agent":"payroll"}`:                                  {201, ""},
	} {
		s.clock.Advance(time.Second) // an agent's rate is not what this is about
		a := s.with(k, token, "POST", "/tasks", body)
		if a.status != want.status || want.code != "" && a.member("code") != string(want.code) {
			t.Errorf("%.80s: %d %s, want %d %s", body, a.status, a.body, want.status, want.code)
		}
		if a.status == 201 {
			if e, err := time.Parse(time.RFC3339, a.member("expires_at")); err != nil || e.After(s.clock.Now().Add(counterfoil.MaxTaskLife)) {
				t.Errorf("%s is open until %s", body, a.member("expires_at"))
			}
		}
	}
	s.clock.Advance(10 * time.Second)
	wantProblem(t, s.with(k, token, "POST", "/tasks?purpose=p", `{"purpose":"p"}`), 400, counterfoil.RequestMalformed)
	wantProblem(t, s.with(k, token, "GET", "/tasks?agent=other", ""), 400, counterfoil.RequestMalformed)
	wantProblem(t, s.with(k, token, "POST", "/tasks", `{"purpose":"`+strings.Repeat("p", web.MaxAsk)+`"}`), 413, counterfoil.PayloadTooLarge)
	wantProblem(t, s.with(k, token, "GET", "/tasks", `{}`), 400, counterfoil.RequestMalformed)
	wantProblem(t, s.with(k, token, "PUT", "/tasks", `{}`), 405, counterfoil.MethodForbidden)
	s.wantEnded(before, "counterfoil/tasks", 30)
}

// TestATaskIsItsAgentsAndItsOpeners: to everybody else it is as one that is not there,
// and nothing that they send changes it (RV5).
func TestATaskIsItsAgentsAndItsOpeners(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.apply(orchestrated)
	k, other, worker := s.enrol("payroll"), s.enrol("other"), s.enrol("worker")
	mine, theirs, works := s.mine(k), s.mine(other), s.mine(worker)
	id := s.open(k, mine, `{"purpose":"pay"}`)
	nobody := "tsk_" + strings.Repeat("a", 26)
	for name, c := range map[string]struct {
		key   agentKey
		token string
	}{"another agent": {other, theirs}, "another agent's task": {worker, works}} {
		for _, try := range []struct{ method, path string }{
			{"GET", "/tasks/%s"}, {"POST", "/tasks/%s/complete"}, {"POST", "/tasks/%s/cancel"},
		} {
			there, absent := s.with(c.key, c.token, try.method, fmt.Sprintf(try.path, id), ""), s.with(c.key, c.token, try.method, fmt.Sprintf(try.path, nobody), "")
			wantProblem(t, there, 404, counterfoil.ToolUnknown)
			if strings.ReplaceAll(there.member("detail"), id, nobody) != absent.member("detail") {
				t.Errorf("%s: %s is told apart from what is not there: %s and %s", name, try.path, there.body, absent.body)
			}
		}
		if a := s.with(c.key, c.token, "GET", "/tasks", ""); a.status != 200 || strings.Contains(a.body, id) {
			t.Errorf("%s lists it: %s", name, a.body)
		}
		// A child of it, and a token of it, are nobody else's either.
		wantProblem(t, s.with(c.key, c.token, "POST", "/tasks", `{"purpose":"p","parent":"`+id+`"}`), 409, counterfoil.TaskClosed)
		wantStatus(t, s.token(c.key, field("task", id)), 400, "invalid_grant", counterfoil.TaskClosed)
	}
	if a := s.with(k, mine, "GET", "/tasks/"+id, ""); a.member("state") != "open" {
		t.Errorf("it is %s", a.body)
	}
	// The orchestrator opens one for its worker; both see it and either may end it. It
	// works in it no more than before.
	for _, end := range []struct {
		key   agentKey
		token string
	}{{other, theirs}, {worker, works}} {
		led := s.open(other, theirs, `{"purpose":"look","agent":"worker","expires_in":86400,"max_calls":900}`)
		a := s.with(worker, works, "GET", "/tasks/"+led, "")
		if a.status != 200 || a.member("agent") != "worker" || a.member("opener") != "other" || a.member("max_calls") != "50" {
			t.Errorf("the worker sees %d %s", a.status, a.body)
		}
		wantStatus(t, s.token(other, field("task", led)), 400, "invalid_grant", counterfoil.TaskClosed)
		wantProblem(t, s.with(k, mine, "POST", "/tasks/"+led+"/cancel", ""), 404, counterfoil.ToolUnknown)
		if a := s.with(end.key, end.token, "POST", "/tasks/"+led+"/cancel", ""); a.status != 200 || a.member("state") != "cancelled" {
			t.Errorf("%s cancels: %d %s", end.key.agent, a.status, a.body)
		}
	}
}

// TestATokenOfATaskStaysWithinIt: it opens what is below, and sees nothing beside.
func TestATokenOfATaskStaysWithinIt(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	mine := s.mine(k)
	a, b := s.open(k, mine, `{"purpose":"a","tools":["bank/get_balance"]}`), s.open(k, mine, `{"purpose":"b"}`)
	inA := s.mine(k, field("task", a))
	child := s.open(k, inA, `{"purpose":"c","expires_in":86400}`)
	got := s.with(k, inA, "GET", "/tasks/"+child, "")
	if got.status != 200 || got.member("parent") != a || got.member("expires_at") != s.with(k, mine, "GET", "/tasks/"+a, "").member("expires_at") {
		t.Errorf("the child is %s", got.body) // TL6: clipped
	}
	wantProblem(t, s.with(k, inA, "GET", "/tasks/"+b, ""), 404, counterfoil.ToolUnknown)
	wantProblem(t, s.with(k, inA, "POST", "/tasks/"+b+"/complete", ""), 404, counterfoil.ToolUnknown)
	wantProblem(t, s.with(k, inA, "POST", "/tasks", `{"purpose":"d","parent":"`+b+`"}`), 403, counterfoil.OutsideTask)
	wantProblem(t, s.with(k, inA, "POST", "/tasks", `{"purpose":"d","tools":["bank/pay"]}`), 403, counterfoil.OutsideTask)
	if list := s.with(k, inA, "GET", "/tasks", ""); strings.Contains(list.body, b) || !strings.Contains(list.body, child) {
		t.Errorf("it lists %s", list.body)
	}
	// It rotates no key: the instance outlives the task.
	wantProblem(t, s.with(k, inA, "POST", "/keys/rotate", `{"proof":"x"}`), 403, counterfoil.OutsideTask)
	// The parent takes the child with it.
	if end := s.with(k, inA, "POST", "/tasks/"+a+"/complete", ""); end.status != 200 {
		t.Errorf("completing it from within: %d %s", end.status, end.body)
	}
	if got := s.with(k, mine, "GET", "/tasks/"+child, ""); got.member("state") != "revoked" {
		t.Errorf("the child is %s", got.body)
	}
	if got := s.with(k, mine, "GET", "/tasks/"+b, ""); got.member("state") != "open" {
		t.Errorf("the other is %s", got.body)
	}
}

// TestAskingTheIssuerIsLimited: an agent's rate, at one page or at several.
func TestAskingTheIssuerIsLimited(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k, other := s.enrol("payroll"), s.enrol("other")
	mine, theirs := s.mine(k), s.mine(other)
	before, _ := s.store.Head()
	limited := 0
	for i := range web.AskBurst + 5 {
		path := "/tasks"
		if i%2 == 0 {
			path = "/tasks/tsk_" + strings.Repeat("a", 26)
		}
		if a := s.with(k, mine, "GET", path, ""); a.status == 429 {
			limited++
		}
	}
	if limited != 5 || len(s.since(before, ledger.CallDecided)) != web.AskBurst || len(s.since(before, ledger.RefusedAggregate)) != 1 {
		t.Errorf("%d were refused, %d recorded, %d told of", limited, len(s.since(before, ledger.CallDecided)), len(s.since(before, ledger.RefusedAggregate)))
	}
	if a := s.with(other, theirs, "GET", "/tasks", ""); a.status != 200 {
		t.Errorf("another agent: %d %s", a.status, a.body)
	}
	s.clock.Advance(10 * time.Second)
	if a := s.with(k, mine, "GET", "/tasks", ""); a.status != 200 {
		t.Errorf("later: %d %s", a.status, a.body)
	}
}

// TestAProofForTheIssuerMayNeedANonce: it is said with the answer, and the request that
// has it is the first that counts (RFC 9449, Section 9).
func TestAProofForTheIssuerMayNeedANonce(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	token := s.mine(k)
	s.nonces.Always = true
	before, _ := s.store.Head()
	a := s.with(k, token, "GET", "/tasks", "")
	wantProblem(t, a, 401, counterfoil.NonceRequired)
	nonce := a.header.Get("DPoP-Nonce")
	if nonce == "" || !strings.Contains(a.header.Get("WWW-Authenticate"), "use_dpop_nonce") || len(s.since(before, ledger.CallDecided)) != 0 {
		t.Errorf("%v", a.header)
	}
	proof, err := credential.SignProof(k.signer, "GET", s.issuer+"/tasks", nonce, token, s.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	ask := func() answer {
		r := httptest.NewRequest("GET", "/tasks", nil)
		r.Header.Set("Authorization", "DPoP "+token)
		r.Header.Set("DPoP", proof)
		return serve(s.handlers.Public, r)
	}
	if a := ask(); a.status != 200 {
		t.Errorf("with the nonce: %d %s", a.status, a.body)
	}
	wantProblem(t, ask(), 401, counterfoil.ProofReplayed)
	s.wantEnded(before, "counterfoil/tasks", 0)
}

// TestAskingTheIssuerNeedsItsOwnToken: what opens the gateway opens nothing here, and
// a proof is for one page.
func TestAskingTheIssuerNeedsItsOwnToken(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.apply(served)
	k, other := s.enrol("payroll"), s.enrol("other")
	mine, bank := s.mine(k), s.token(k).member("access_token")
	sign := func(by agentKey, method, path, token string, at time.Time) string {
		p, err := credential.SignProof(by.signer, method, s.issuer+path, "", token, at)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	now := s.clock.Now()
	before, _ := s.store.Head()
	for _, page := range []struct{ method, path, body string }{
		{"GET", "/tasks", ""}, {"POST", "/tasks", `{"purpose":"p"}`}, {"POST", "/keys/rotate", `{"proof":"x"}`}, {"GET", "/oauth/revocations?after=-1", ""},
	} {
		bare, _, _ := strings.Cut(page.path, "?")
		for name, c := range map[string]struct {
			authorization, proof string
			code                 counterfoil.Code
		}{
			"nothing":               {"", "", counterfoil.ProofMissing},
			"no proof":              {"DPoP " + mine, "", counterfoil.ProofMissing},
			"bearer":                {"Bearer " + mine, "", counterfoil.BearerRefused},
			"a resource's token":    {"DPoP " + bank, sign(k, page.method, bare, bank, now), counterfoil.TokenAudience},
			"another's key":         {"DPoP " + mine, sign(other, page.method, bare, mine, now), counterfoil.ProofKeyMismatch},
			"another page's proof":  {"DPoP " + mine, sign(k, page.method, "/approvals/apr_aaaaaaaaaa", mine, now), counterfoil.ProofTarget},
			"another method's":      {"DPoP " + mine, sign(k, "DELETE", bare, mine, now), counterfoil.ProofTarget},
			"the token request's":   {"DPoP " + mine, sign(k, page.method, "/oauth/token", mine, now), counterfoil.ProofTarget},
			"an old one":            {"DPoP " + mine, sign(k, page.method, bare, mine, now.Add(-time.Hour)), counterfoil.ProofStale},
			"one of another token":  {"DPoP " + mine, sign(k, page.method, bare, bank, now), counterfoil.ProofTarget},
			"one without the token": {"DPoP " + mine, sign(k, page.method, bare, "", now), counterfoil.ProofTarget},
		} {
			r := httptest.NewRequest(page.method, page.path, strings.NewReader(page.body))
			if page.body == "" {
				r.ContentLength = 0
			} else {
				r.Header.Set("Content-Type", "application/json")
			}
			if c.authorization != "" {
				r.Header.Set("Authorization", c.authorization)
			}
			if c.proof != "" {
				r.Header.Set("DPoP", c.proof)
			}
			// Whatever the sender says of itself, the URL is the configured one.
			r.Header.Set("X-Forwarded-Host", "evil.example")
			a := serve(s.handlers.Public, r)
			if a.status != 401 || a.member("code") != string(c.code) || a.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s %s with %s: %d %s, want %s", page.method, page.path, name, a.status, a.body, c.code)
			}
		}
	}
	if e := s.since(before, ""); len(e) != 0 {
		t.Errorf("nobody was authenticated, and the ledger has %+v", e[0])
	}
	if a := s.with(k, mine, "POST", "/tasks", `{"purpose":"p"}`); a.status != 201 {
		t.Errorf("the honest one: %d %s", a.status, a.body)
	}
	// Suspended: recorded, as its proof was used.
	if a := s.admin("POST", "/api/v1/agents/payroll/suspend", map[string]any{"reason": "test"}); a.status != 200 {
		t.Fatal(a.body)
	}
	wantProblem(t, s.with(k, mine, "POST", "/tasks", `{"purpose":"p"}`), 401, counterfoil.AgentSuspended)
	s.wantEnded(before, "counterfoil/tasks", 0)
}
