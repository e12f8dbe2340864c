package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A receipt is that of a revocation, as it is shown.
type receipt struct {
	Index  int64
	Target struct{ Kind, ID string }
	Reason string
	Actor  string
	Voided counterfoil.Voided
	Points []struct {
		Name, Kind string
		Stopped    time.Time
	}
}

func (s *system) receipt(index string) (r receipt) {
	s.t.Helper()
	a := s.admin("GET", "/api/v1/revocations/"+index, nil)
	if err := json.Unmarshal([]byte(a.body), &r); err != nil || a.status != 200 {
		s.t.Fatalf("the receipt of %s: %d %s", index, a.status, a.body)
	}
	return r
}

// TestTheSocketTakesAuthorityAway: each kind of target, with what it took and a receipt
// of who enforces it.
func TestTheSocketTakesAuthorityAway(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.apply(served)
	server := s.enrol("bank-server")
	k, other := s.enrol("payroll"), s.enrol("other")
	feed := s.following(server)
	if err := feed.Poll(t.Context()); err != nil {
		t.Fatal(err)
	}
	revoke := func(kind, id string) answer {
		return s.admin("POST", "/api/v1/revocations", map[string]any{"kind": kind, "id": id, "reason": "test"})
	}
	token, task := s.token(k).member("access_token"), s.open(k, s.mine(k), `{"purpose":"pay"}`)
	fresh := s.enrol("payroll")
	for _, c := range []struct {
		kind, id string
		taken    func(v counterfoil.Voided) bool
	}{
		{"token", jti(t, token), func(v counterfoil.Voided) bool { return slices.Contains(v.Tokens, jti(t, token)) }},
		{"task", task, func(v counterfoil.Voided) bool { return slices.Contains(v.Tasks, task) }},
		{"key", fresh.signer.Public().Thumbprint(), func(v counterfoil.Voided) bool { return slices.Contains(v.Instances, fresh.instance) }},
		{"instance", k.instance, func(v counterfoil.Voided) bool { return slices.Contains(v.Keys, k.signer.Public().Thumbprint()) }},
		{"agent", "payroll", func(v counterfoil.Voided) bool { return v.Epoch > 0 || len(v.Agents) > 0 }},
		{"resource", "crm", func(counterfoil.Voided) bool { return true }},
		{"person", "bo", func(counterfoil.Voided) bool { return true }},
		{"owner", "ana", func(v counterfoil.Voided) bool { return slices.Contains(v.Agents, "other") }},
	} {
		s.clock.Advance(time.Second)
		// Before the owner's agents go, the server among them, it looks once more.
		if err := feed.Poll(t.Context()); err != nil {
			t.Errorf("%s: following: %v", c.kind, err)
		}
		a := revoke(c.kind, c.id)
		var got struct {
			Index  int64
			Voided counterfoil.Voided
		}
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 200 || got.Index <= 0 || !c.taken(got.Voided) {
			t.Errorf("%s: %d %s", c.kind, a.status, a.body)
			continue
		}
		r := s.receipt(fmt.Sprint(got.Index))
		if r.Index != got.Index || r.Target.Kind != c.kind || r.Target.ID != c.id || r.Reason != "test" || r.Actor != "uid:0" || !c.taken(r.Voided) {
			t.Errorf("%s: its receipt is %+v", c.kind, r)
		}
		// Once more is no news, and no error.
		if again := revoke(c.kind, c.id); again.status != 200 || again.member("index") != "-1" {
			t.Errorf("%s again: %d %s", c.kind, again.status, again.body)
		}
		if c.kind == "owner" {
			continue
		}
		// The server asks with what it had, and then with this: from then on it enforces.
		stopped := func() bool {
			for _, p := range s.receipt(fmt.Sprint(got.Index)).Points {
				if p.Kind == "server" && strings.HasPrefix(p.Name, "bank-server") {
					return !p.Stopped.IsZero()
				}
			}
			t.Errorf("%s: the receipt lacks the server that follows", c.kind)
			return false
		}
		for i, want := range []bool{false, true} {
			if err := feed.Poll(t.Context()); err != nil {
				t.Fatal(err)
			}
			if stopped() != want {
				t.Errorf("%s: after look %d at the feed the server has stopped: %v", c.kind, i+1, !want)
			}
		}
	}
	wantStatus(t, s.token(other), 401, "invalid_client", counterfoil.AgentSuspended)
	for _, c := range []struct {
		body   any
		status int
		code   counterfoil.Code
	}{
		{map[string]any{"kind": "agent", "id": "nobody", "reason": "x"}, 404, counterfoil.ToolUnknown},
		{map[string]any{"kind": "tenant", "id": "x", "reason": "x"}, 400, counterfoil.RequestMalformed},
		{map[string]any{"kind": "", "id": "x"}, 400, counterfoil.RequestMalformed},
		{map[string]any{"kind": "agent", "id": ""}, 400, counterfoil.RequestMalformed},
		{map[string]any{"kind": "agent", "id": "free", "revoked": false}, 400, counterfoil.PayloadMalformed},
		{map[string]any{"kind": "task", "id": "tsk_" + strings.Repeat("a", 26)}, 404, counterfoil.ToolUnknown},
		{map[string]any{"kind": "key", "id": strings.Repeat("A", 43)}, 404, counterfoil.ToolUnknown},
	} {
		wantProblem(t, s.admin("POST", "/api/v1/revocations", c.body), c.status, c.code)
	}
	for _, index := range []string{"0", "-1", "x", "999999"} { // an entry that took nothing has no receipt
		wantProblem(t, s.admin("GET", "/api/v1/revocations/"+index, nil), 404, counterfoil.ToolUnknown)
	}
}

// TestTheSocketGivesBack: a person and a resource may act again, and nothing of before
// comes back with them.
func TestTheSocketGivesBack(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	token := s.token(k).member("access_token")
	before, _ := s.store.Head()
	for _, c := range []struct{ kind, name, path string }{{"person", "bo", "people/bo"}, {"resource", "bank", "resources/bank"}} {
		wantProblem(t, s.admin("POST", "/api/v1/"+c.path+"/resume", map[string]any{"reason": "x"}), 400, counterfoil.RequestMalformed)
		if a := s.admin("POST", "/api/v1/revocations", map[string]any{"kind": c.kind, "id": c.name, "reason": "test"}); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		a := s.admin("POST", "/api/v1/"+c.path+"/resume", map[string]any{"reason": "found out"})
		if a.status != 200 || a.member("kind") != c.kind || a.member("name") != c.name {
			t.Errorf("%s: %d %s", c.path, a.status, a.body)
		}
	}
	if e := s.since(before, ledger.Restored); len(e) != 2 || e[0].Actor != "uid:0" || e[0].Reason != "found out" {
		t.Errorf("the ledger has %+v", e)
	}
	if _, err := s.verify(k, token, "bank"); err == nil || counterfoil.CodeOf(err) != counterfoil.TokenRevoked {
		t.Errorf("a token of before: %v", err)
	}
	s.clock.Advance(2 * time.Second)
	if _, err := s.verify(k, s.token(k).member("access_token"), "bank"); err != nil {
		t.Errorf("a new token: %v", err)
	}
	for _, path := range []string{"people/nobody", "resources/nothing"} {
		wantProblem(t, s.admin("POST", "/api/v1/"+path+"/resume", map[string]any{"reason": "x"}), 404, counterfoil.ToolUnknown)
	}
	wantProblem(t, s.admin("POST", "/api/v1/tasks/x/resume", map[string]any{"reason": "x"}), 404, counterfoil.ToolUnknown)
}

// TestTheSocketSeesAndEndsTasks: every agent's.
func TestTheSocketSeesAndEndsTasks(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k, other := s.enrol("payroll"), s.enrol("other")
	a, b := s.open(k, s.mine(k), `{"purpose":"a"}`), s.open(other, s.mine(other), `{"purpose":"b"}`)
	for query, want := range map[string][2]bool{
		"": {true, true}, "?agent=payroll": {true, false}, "?state=open": {true, true}, "?state=completed": {false, false}, "?agent=other&state=open": {false, true},
	} {
		got := s.admin("GET", "/api/v1/tasks"+query, nil)
		if got.status != 200 || strings.Contains(got.body, a) != want[0] || strings.Contains(got.body, b) != want[1] || !strings.HasPrefix(got.body, `{"tasks":[`) {
			t.Errorf("%q: %d %s", query, got.status, got.body)
		}
	}
	for _, query := range []string{"?agent=a&agent=b", "?opener=payroll"} {
		wantProblem(t, s.admin("GET", "/api/v1/tasks"+query, nil), 400, counterfoil.RequestMalformed)
	}
	if got := s.admin("GET", "/api/v1/tasks/"+a, nil); got.status != 200 || got.member("purpose") != "a" {
		t.Errorf("%d %s", got.status, got.body)
	}
	wantProblem(t, s.admin("GET", "/api/v1/tasks/tsk_x", nil), 404, counterfoil.ToolUnknown)
	end := s.admin("POST", "/api/v1/tasks/"+a+"/cancel", map[string]any{"reason": "not today"})
	if end.status != 200 || end.member("state") != "cancelled" || end.member("reason") != "not today" {
		t.Errorf("%d %s", end.status, end.body)
	}
	wantProblem(t, s.admin("POST", "/api/v1/tasks/"+a+"/cancel", map[string]any{"reason": "x"}), 409, counterfoil.TaskClosed)
	wantStatus(t, s.token(k, field("task", a)), 400, "invalid_grant", counterfoil.TaskClosed)
	if got := s.token(other, field("task", b)); got.status != 200 {
		t.Errorf("the other task: %d %s", got.status, got.body)
	}
}

// TestLifeSaysWhatItTook: suspending and offboarding.
func TestLifeSaysWhatItTook(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	for _, verb := range []string{"suspend", "offboard"} {
		k := s.enrol("payroll")
		token, task := s.token(k).member("access_token"), s.open(k, s.mine(k), `{"purpose":"pay"}`)
		a := s.admin("POST", "/api/v1/agents/payroll/"+verb, map[string]any{"reason": "test"})
		var got struct{ Voided counterfoil.Voided }
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 200 || got.Voided.Epoch == 0 ||
			!slices.Contains(got.Voided.Tokens, jti(t, token)) || !slices.Contains(got.Voided.Tasks, task) {
			t.Errorf("%s: %d %s", verb, a.status, a.body)
		}
		if has := slices.Contains(got.Voided.Grants, "bank/get_balance"); has != (verb == "offboard") {
			t.Errorf("%s: grants %v", verb, got.Voided.Grants)
		}
		if verb == "suspend" {
			if a := s.admin("POST", "/api/v1/agents/payroll/resume", map[string]any{"reason": "test"}); a.status != 200 {
				t.Fatal(a.body)
			}
			// Nothing of before revives.
			if _, err := s.verify(k, token, "bank"); err == nil {
				t.Error("a token came back with its agent")
			}
			wantStatus(t, s.token(k, field("task", task)), 400, "invalid_grant", counterfoil.TaskClosed)
			if a := s.token(k); a.status != 200 {
				t.Errorf("a new token: %d %s", a.status, a.body)
			}
		}
	}
}

// TestABackupIsStreamed: to the socket's administrator, and cut off where it fails.
func TestABackupIsStreamed(t *testing.T) {
	t.Parallel()
	write := func(context.Context, io.Writer) error { return nil }
	s := newSystem(t, func(s *system) {
		s.backup = func(ctx context.Context, w io.Writer) error { return write(ctx, w) }
	})
	write = func(ctx context.Context, w io.Writer) error {
		if ctx.Value(actorKey{}) != "uid:0" {
			return errors.New("nobody asks")
		}
		_, err := io.WriteString(w, "everything")
		return err
	}
	a := s.admin("GET", "/api/v1/backup", nil)
	if a.status != 200 || a.body != "everything" || a.header.Get("Content-Type") != "application/x-tar" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	wantProblem(t, serve(s.handlers.Admin, httptest.NewRequest("GET", "/api/v1/backup", nil)), 403, counterfoil.RoleRequired)
	write = func(context.Context, io.Writer) error { return errors.New("no space in /var/lib") }
	if a := s.admin("GET", "/api/v1/backup", nil); a.status != 503 || strings.Contains(a.body, "/var/lib") {
		t.Errorf("before its first byte: %d %s", a.status, a.body)
	}
	write = func(_ context.Context, w io.Writer) error {
		io.WriteString(w, "half")
		return errors.New("no space")
	}
	func() {
		defer func() {
			if cause, _ := recover().(error); !errors.Is(cause, http.ErrAbortHandler) {
				t.Errorf("half of it ended with %v", cause)
			}
		}()
		s.admin("GET", "/api/v1/backup", nil)
	}()
	// Not without it, and nowhere else.
	wantProblem(t, newSystem(t).admin("GET", "/api/v1/backup", nil), 404, counterfoil.ToolUnknown)
	for name, h := range map[string]http.Handler{"public": s.handlers.Public, "management": s.handlers.Management} {
		if a := serve(h, httptest.NewRequest("GET", "/api/v1/backup", nil)); a.status != 404 && a.status != 401 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}
