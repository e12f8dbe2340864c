package authority_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/ledger"
)

// target is what of payroll's is revoked, by each kind: all of them void the token,
// which is of the task and for the bank.
func (w *world) target(kind counterfoil.TargetKind, token, task string) counterfoil.Target {
	w.t.Helper()
	inst, _ := w.store.InstanceByKey(w.keys["payroll"].Public().Thumbprint())
	return counterfoil.Target{Kind: kind, ID: map[counterfoil.TargetKind]string{
		counterfoil.TargetToken: jtiOf(w.t, token), counterfoil.TargetKey: inst.JKT, counterfoil.TargetInstance: inst.ID, counterfoil.TargetTask: task,
		counterfoil.TargetAgent: "payroll", counterfoil.TargetPerson: "ana", counterfoil.TargetOwner: "ana", counterfoil.TargetResource: "bank",
	}[kind]}
}

// cells are the codes with which what this room gives is refused; empty: it is not.
type cells struct{ use, issue, issueTask, open, rotate, introspect counterfoil.Code }

// A holder is payroll with a task, a token of it for the bank, and one for the issuer.
type holder struct {
	*world
	task           counterfoil.Task
	token, issuers string
}

func newHolder(t *testing.T) *holder {
	t.Helper()
	w := newWorld(t)
	task := w.open(w.caller("payroll", ""), authority.TaskRequest{})
	return &holder{w, task, w.mustAsk("payroll", "bank", url.Values{"task": {task.ID}}).AccessToken, w.mustAsk("payroll", "", nil).AccessToken}
}

// look tries everything. It changes the world: the key is rotated where it may be.
func (h *holder) look() cells {
	h.t.Helper()
	code := func(err error) counterfoil.Code {
		if err == nil {
			return ""
		}
		return counterfoil.CodeOf(err)
	}
	var got cells
	_, err := h.use(h.token, "bank", h.keys["payroll"])
	got.use = code(err)
	if h.introspect("teller", h.token) == inactive {
		got.introspect = counterfoil.TokenRevoked
	}
	_, err = h.ask("payroll", "bank", nil)
	got.issue = code(err)
	_, err = h.ask("payroll", "bank", url.Values{"task": {h.task.ID}})
	got.issueTask = code(err)
	c, err := h.use(h.issuers, "", h.keys["payroll"])
	if err == nil {
		_, err = h.a.OpenTask(h.t.Context(), c, authority.TaskRequest{Purpose: "x"})
	}
	got.open = code(err)
	if err == nil {
		_, err = h.a.RotateKey(h.t.Context(), c, h.rotation(h.issuers, h.newSigner(), time.Hour))
	}
	got.rotate = code(err)
	return got
}

// What each kind of revocation takes of what this room gives: each is there before, and
// refused after, with the code that it says.
func TestRevocationTakes(t *testing.T) {
	t.Parallel()
	if got := newHolder(t).look(); got != (cells{}) {
		t.Fatalf("before: %+v", got)
	}
	const (
		revoked, client, suspended, closed, target = counterfoil.TokenRevoked, counterfoil.ClientRefused, counterfoil.AgentSuspended, counterfoil.TaskClosed, counterfoil.TargetInvalid
	)
	for kind, want := range map[counterfoil.TargetKind]cells{
		counterfoil.TargetToken:    {use: revoked, introspect: revoked},
		counterfoil.TargetKey:      {revoked, client, client, revoked, revoked, revoked},
		counterfoil.TargetInstance: {revoked, client, client, revoked, revoked, revoked},
		counterfoil.TargetTask:     {use: closed, issueTask: closed, introspect: revoked},
		counterfoil.TargetAgent:    {suspended, suspended, suspended, suspended, suspended, revoked},
		counterfoil.TargetPerson:   {suspended, suspended, suspended, suspended, suspended, revoked},
		counterfoil.TargetOwner:    {suspended, suspended, suspended, suspended, suspended, revoked},
		counterfoil.TargetResource: {use: revoked, issue: target, issueTask: target, introspect: revoked},
	} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			h := newHolder(t)
			if _, err := h.use(h.token, "bank", h.keys["payroll"]); err != nil {
				t.Fatal(err)
			}
			what := h.target(kind, h.token, h.task.ID)
			r, err := h.a.Revoke(t.Context(), counterfoil.Revocation{Target: what, Reason: "a test"}, "uid:7")
			if err != nil {
				t.Fatal(err)
			}
			if got := h.look(); got != want {
				t.Errorf("after: %+v, want %+v", got, want)
			}
			e := h.last(ledger.Revoked)
			if e.Index != r.Index || e.Actor != "uid:7" || e.Reason != "a test" || e.Detail["kind"] != string(kind) || e.Detail["id"] != what.ID {
				t.Errorf("entry %+v, the answer %+v", e, r)
			}
			again, err := h.a.Revoke(t.Context(), counterfoil.Revocation{Target: what}, "uid:7")
			if err != nil || again.Index != -1 || len(h.entries(ledger.Revoked)) != 1 {
				t.Errorf("again: %+v (%v), %d entries", again, err, len(h.entries(ledger.Revoked)))
			}
		})
	}
}

// Whom a revocation concerns is in its entry, so that it is in their history.
func TestRevocationsAreInHistories(t *testing.T) {
	t.Parallel()
	for _, kind := range counterfoil.TargetKinds() {
		h := newHolder(t)
		inst, _ := h.store.InstanceByKey(h.keys["payroll"].Public().Thumbprint())
		if _, err := h.a.Revoke(t.Context(), counterfoil.Revocation{Target: h.target(kind, h.token, h.task.ID)}, "uid:7"); err != nil {
			t.Fatal(err)
		}
		e := h.last(ledger.Revoked)
		got := []string{e.Agent, e.Owner, e.Instance, e.JKT, e.TokenJTI, e.Task, e.Resource}
		want := map[counterfoil.TargetKind][]string{
			counterfoil.TargetToken: {"payroll", "", "", "", jtiOf(t, h.token), "", ""}, counterfoil.TargetKey: {"payroll", "ana", inst.ID, inst.JKT, "", "", ""},
			counterfoil.TargetInstance: {"payroll", "ana", inst.ID, inst.JKT, "", "", ""}, counterfoil.TargetTask: {"payroll", "ana", "", "", "", h.task.ID, ""},
			counterfoil.TargetAgent: {"payroll", "ana", "", "", "", "", ""}, counterfoil.TargetPerson: {"", "", "", "", "", "", ""},
			counterfoil.TargetOwner: {"", "ana", "", "", "", "", ""}, counterfoil.TargetResource: {"", "", "", "", "", "", "bank"},
		}[kind]
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", kind, got, want)
		}
	}
}

// What never was is not revoked, and what is no target neither.
func TestRevokeNothing(t *testing.T) {
	t.Parallel()
	h := newHolder(t)
	for _, kind := range counterfoil.TargetKinds() {
		for _, id := range []string{"nobody", strings.Repeat("x", 300)} {
			_, err := h.a.Revoke(t.Context(), counterfoil.Revocation{Target: counterfoil.Target{Kind: kind, ID: id}}, "uid:7")
			wantCode(t, fmt.Sprintf("%s %.10s", kind, id), err, counterfoil.ToolUnknown)
		}
		_, err := h.a.Revoke(t.Context(), counterfoil.Revocation{Target: counterfoil.Target{Kind: kind}}, "uid:7")
		wantCode(t, string(kind)+" without an id", err, counterfoil.RequestMalformed)
	}
	for _, kind := range []counterfoil.TargetKind{"", "class", "Agent"} {
		_, err := h.a.Revoke(t.Context(), counterfoil.Revocation{Target: counterfoil.Target{Kind: kind, ID: "payroll"}}, "uid:7")
		wantCode(t, fmt.Sprintf("kind %q", kind), err, counterfoil.RequestMalformed)
	}
	_, err := h.a.Revoke(t.Context(), counterfoil.Revocation{Target: counterfoil.Target{Kind: counterfoil.TargetAgent, ID: "payroll"}, Reason: "a\nb\x00"}, "uid:7")
	wantCode(t, "a reason that cannot be seen", err, counterfoil.RequestMalformed)
	if n := len(h.entries(ledger.Revoked)); n != 0 {
		t.Errorf("%d entries", n)
	}
}

// Whoever has the whole of a token names it so, and it is not recorded.
func TestRevokeAWholeToken(t *testing.T) {
	t.Parallel()
	h := newHolder(t)
	_, err := h.a.Revoke(t.Context(), counterfoil.Revocation{Target: counterfoil.Target{Kind: counterfoil.TargetToken, ID: h.token + "x"}}, "uid:7")
	wantCode(t, "one that does not verify", err, counterfoil.ToolUnknown)
	r, err := h.a.Revoke(t.Context(), counterfoil.Revocation{Target: counterfoil.Target{Kind: counterfoil.TargetToken, ID: h.token}, Reason: "found"}, "uid:7")
	if err != nil || !slices.Equal(r.Voided.Tokens, []string{jtiOf(t, h.token)}) {
		t.Fatalf("%+v (%v)", r, err)
	}
	_, err = h.use(h.token, "bank", h.keys["payroll"])
	wantCode(t, "after", err, counterfoil.TokenRevoked)
	if e := h.last(ledger.Revoked); e.Agent != "payroll" || e.TokenJTI != jtiOf(t, h.token) || strings.Contains(fmt.Sprint(e), h.token) || e.Reason != "found" {
		t.Errorf("entry %+v", e)
	}
}

// Only what is a person's or a resource's comes back, and nothing of before with it.
func TestRestoreTarget(t *testing.T) {
	t.Parallel()
	h := newHolder(t)
	for _, tt := range []struct {
		target counterfoil.Target
		code   counterfoil.Code
	}{
		{counterfoil.Target{Kind: counterfoil.TargetResource, ID: "bank"}, counterfoil.RequestMalformed},
		{counterfoil.Target{Kind: counterfoil.TargetPerson, ID: "ana"}, counterfoil.RequestMalformed},
		{counterfoil.Target{Kind: counterfoil.TargetPerson, ID: "nobody"}, counterfoil.ToolUnknown},
		{counterfoil.Target{Kind: counterfoil.TargetResource, ID: "nowhere"}, counterfoil.ToolUnknown},
		{counterfoil.Target{Kind: counterfoil.TargetAgent, ID: "payroll"}, counterfoil.RequestMalformed},
		{counterfoil.Target{Kind: counterfoil.TargetTask, ID: h.task.ID}, counterfoil.RequestMalformed},
		{counterfoil.Target{Kind: counterfoil.TargetKey, ID: "x"}, counterfoil.RequestMalformed},
	} {
		wantCode(t, tt.target.String(), h.a.RestoreTarget(t.Context(), tt.target, "", "uid:7"), tt.code)
	}
	for _, what := range []counterfoil.Target{{Kind: counterfoil.TargetResource, ID: "bank"}, {Kind: counterfoil.TargetPerson, ID: "ana"}} {
		if _, err := h.a.Revoke(t.Context(), counterfoil.Revocation{Target: what}, "uid:7"); err != nil {
			t.Fatal(err)
		}
		h.clock.Advance(time.Second)
		if err := h.a.RestoreTarget(t.Context(), what, "it was a mistake", "uid:7"); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		e := h.last(ledger.Restored)
		if e.Detail["kind"] != string(what.Kind) || e.Detail["id"] != what.ID || e.Reason != "it was a mistake" || e.Actor != "uid:7" {
			t.Errorf("entry %+v", e)
		}
		if what.Kind == counterfoil.TargetResource {
			_, err := h.use(h.token, "bank", h.keys["payroll"])
			wantCode(t, "a token of before", err, counterfoil.TokenRevoked)
			if _, err := h.use(h.mustAsk("payroll", "bank", nil).AccessToken, "bank", h.keys["payroll"]); err != nil {
				t.Errorf("a token of after: %v", err)
			}
			continue
		}
		_, err := h.ask("payroll", "bank", nil)
		wantCode(t, "agents of a person who is back", err, counterfoil.AgentSuspended)
	}
}

// An agent gives back its own tokens, at once; every other token is answered alike and
// stays as it was (RFC 7009, Section 2.2).
func TestRevokeToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mine, kept, theirs := w.mustAsk("payroll", "bank", nil).AccessToken, w.mustAsk("payroll", "bank", nil).AccessToken, w.mustAsk("stranger", "bank", nil).AccessToken
	old := w.mustAsk("payroll", "bank", nil).AccessToken
	w.clock.Advance(time.Minute)
	revoke := func(agent, token string, more url.Values) {
		t.Helper()
		f := w.form(agent, more)
		f.Set("token", token)
		if err := w.a.RevokeToken(t.Context(), authority.ClientRequest{Form: f, RequestID: "req_7", Source: somewhere}); err != nil {
			t.Errorf("%s revokes %.20s: %v", agent, token, err)
		}
	}
	good := func(token, agent string) bool {
		_, err := w.use(token, "bank", w.keys[agent])
		return err == nil
	}
	for _, token := range []string{theirs, "x", "tok_" + strings.Repeat("a", 26), theirs + "x"} {
		revoke("payroll", token, nil)
	}
	revoke("teller", mine, nil) // who may introspect may not revoke
	if !good(mine, "payroll") || !good(kept, "payroll") || !good(theirs, "stranger") || len(w.entries(ledger.Revoked)) != 0 {
		t.Fatalf("what is not its own was revoked: %d entries", len(w.entries(ledger.Revoked)))
	}
	if e := w.last(ledger.TokenIntrospected); e.Agent != "teller" || e.Detail["active"] != false || e.Detail["endpoint"] != "/oauth/revoke" {
		t.Errorf("entry %+v", e)
	}
	for range 2 {
		revoke("payroll", mine, url.Values{"token_type_hint": {"refresh_token"}})
	}
	if good(mine, "payroll") || !good(kept, "payroll") || !good(theirs, "stranger") {
		t.Error("exactly the one token is not what was revoked")
	}
	es := w.entries(ledger.Revoked)
	if e := es[0]; e.Agent != "payroll" || e.TokenJTI != jtiOf(t, mine) || e.Detail["kind"] != "token" || e.Detail["id"] != jtiOf(t, mine) || e.RequestID != "req_7" || e.Source.Address != somewhere.String() {
		t.Errorf("entry %+v", e)
	}
	if len(es) != 2 || es[1].Detail["kind"] != nil || es[1].Detail["tokens"] != nil {
		t.Errorf("again: %d entries, %+v", len(es), es[len(es)-1])
	}
	w.clock.Advance(authority.DefaultTokenLife)
	revoke("payroll", old, nil) // past its time
	if n := len(w.entries(ledger.Revoked)); n != 2 {
		t.Errorf("an expired one was revoked: %d entries", n)
	}
}

// What an offboarding and a suspension took is in the answer and in the entry.
func TestWhatLifeTakesIsSaid(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"suspend", "offboard", "revoke"} {
		h := newHolder(t)
		inst, _ := h.store.InstanceByKey(h.keys["payroll"].Public().Thumbprint())
		if _, _, err := h.a.EnrolCode(t.Context(), "payroll", "uid:7"); err != nil {
			t.Fatal(err)
		}
		var v counterfoil.Voided
		var err error
		kind := ledger.AgentSuspended
		switch how {
		case "suspend":
			v, err = h.a.Suspend(t.Context(), "payroll", "", "uid:7")
		case "revoke":
			var r authority.Revoked
			r, err = h.a.Revoke(t.Context(), counterfoil.Revocation{Target: h.target(counterfoil.TargetAgent, h.token, "")}, "uid:7")
			v, kind = r.Voided, ledger.Revoked
		default:
			v, err = h.a.Offboard(t.Context(), "payroll", "", "uid:7")
			kind = ledger.AgentOffboarded
			if !slices.Equal(v.Keys, []string{inst.JKT}) || !slices.Equal(v.Instances, []string{inst.ID}) || len(v.Grants) != 3 {
				t.Errorf("offboard: %+v", v)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		e := h.last(kind)
		for name, got := range map[string][]string{jtiOf(t, h.token): v.Tokens, h.task.ID: v.Tasks} {
			if !slices.Contains(got, name) || !strings.Contains(fmt.Sprint(e.Detail), name) {
				t.Errorf("%s: %s is not in %+v, entry %+v", how, name, v, e.Detail)
			}
		}
		if v.Codes != 1 || v.Epoch == 0 || e.Epoch != v.Epoch {
			t.Errorf("%s: %+v", how, v)
		}
	}
}
