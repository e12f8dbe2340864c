package gateway

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// TestAMarkIsForItsOwnCallerAndCall is APR-13: a requestState that was changed, made
// elsewhere, for somebody else or for something else is refused, and in one way.
func TestAMarkIsForItsOwnCallerAndCall(t *testing.T) {
	t.Parallel()
	key := make([]byte, keySize)
	s, err := newSealer(key)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := newSealer(append(slices.Clone(key[1:]), 1))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	honest := mark{
		Approval: "apr_" + strings.Repeat("a", 26), Resource: "bank", Agent: "payroll", Subject: "ana", Task: "task_1", Expires: now.Add(time.Minute).Unix(),
	}
	seal := func(by *sealer, change func(*mark)) string {
		m := honest
		m.Digest = counterfoil.CallDigest([]byte("the call"))
		if change != nil {
			change(&m)
		}
		state, err := by.sealMark(&m)
		if err != nil {
			t.Fatal(err)
		}
		return state
	}
	session, err := s.seal(session{ID: "x", Resource: "bank", Agent: "payroll", Task: "task_1"})
	if err != nil {
		t.Fatal(err)
	}
	good := seal(s, nil)
	flipped := []byte(good)
	if flipped[len(flipped)-5] ^= 1; !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", rune(flipped[len(flipped)-5])) {
		flipped[len(flipped)-5] = 'A'
	}
	for _, tc := range []struct {
		name, state string
		named       string
		good        bool
	}{
		{"honest", good, "", true},
		{"honest, and named", good, honest.Approval, true},
		{"changed", string(flipped), "", false},
		{"cut", good[:len(good)-3], "", false},
		{"longer", good + "AAAA", "", false},
		{"padded", good + "=", "", false},
		{"empty", markPrefix, "", false},
		{"huge", markPrefix + strings.Repeat("A", 1<<20), "", false},
		{"by another server", seal(foreign, nil), "", false},
		{"a session", markPrefix + session, "", false},
		{"another agent's", seal(s, func(m *mark) { m.Agent = "other" }), "", false},
		{"another user's", seal(s, func(m *mark) { m.Subject = "bo" }), "", false},
		{"another task's", seal(s, func(m *mark) { m.Task = "" }), "", false},
		{"another resource's", seal(s, func(m *mark) { m.Resource = "crm" }), "", false},
		{"of another call", seal(s, func(m *mark) { m.Digest = counterfoil.CallDigest([]byte("another")) }), "", false},
		{"past", seal(s, func(m *mark) { m.Expires = now.Unix() }), "", false},
		{"another approval is named", good, "apr_" + strings.Repeat("b", 26), false},
	} {
		c := &mcpCall{
			call: call{
				gateway: &Gateway{sealer: s}, now: now, resource: &counterfoil.Resource{Name: "bank"},
				caller: counterfoil.Caller{Agent: "payroll", Subject: "ana", Task: "task_1"},
			},
			message: message{params: []member{
				{"arguments", []byte(`{}`)}, {inputResponses, []byte(`{"approval":{"action":"accept"}}`)}, {"name", quote("pay")}, {requestState, quote(tc.state)},
			}},
		}
		g := counterfoil.GuardedCall{Call: []byte("the call"), Named: tc.named}
		err := c.resume()
		if err == nil {
			err = c.resumed(&g)
		}
		if tc.good {
			if err != nil || g.Named != honest.Approval || len(c.message.params) != 2 || c.action() != "accept" {
				t.Errorf("%s: %v, named %q, left %v", tc.name, err, g.Named, c.message.params)
			}
			continue
		}
		if err == nil || err.Error() != errMark().Error() {
			t.Errorf("%s: %v", tc.name, err)
		}
	}

	// An upstream's own state is none of ours and stays.
	c := &mcpCall{call: call{gateway: &Gateway{sealer: s}, now: now}, message: message{params: []member{{requestState, quote("upstream")}}}}
	if err := c.resume(); err != nil || len(c.message.params) != 1 || c.mark != nil {
		t.Errorf("an upstream's state: %v, %v", err, c.message.params)
	}
}

// TestWhoIsSentToThePage: the user that the agent acts for, where that one may say
// yes alone, and nobody else.
func TestWhoIsSentToThePage(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change func(*mcpCall, *counterfoil.Class)
		want   bool
	}{
		{"a user who may", func(*mcpCall, *counterfoil.Class) {}, true},
		{"in the other group", func(_ *mcpCall, k *counterfoil.Class) { k.Approvers = [][]string{{"legal", "desk"}} }, true},
		{"the agent itself", func(c *mcpCall, _ *counterfoil.Class) { c.caller.Subject = "payroll" }, false},
		{"an agent of a person's name", func(c *mcpCall, _ *counterfoil.Class) { c.caller.Agent = "ana" }, false},
		{"nobody known", func(c *mcpCall, _ *counterfoil.Class) { c.caller.Subject = "zoe" }, false},
		{"not in a group", func(_ *mcpCall, k *counterfoil.Class) { k.Approvers = [][]string{{"legal"}} }, false},
		{"two groups", func(_ *mcpCall, k *counterfoil.Class) { k.Approvers = [][]string{{"desk"}, {"legal"}} }, false},
		{"irreversible", func(_ *mcpCall, k *counterfoil.Class) { k.Tier = counterfoil.Irreversible }, false},
		{"who asks may not decide", func(_ *mcpCall, k *counterfoil.Class) { k.OwnerMayApprove = false }, false},
		{"no console", func(c *mcpCall, _ *counterfoil.Class) { c.gateway.cfg.ManagementURL = "" }, false},
		{"the client cannot", func(c *mcpCall, _ *counterfoil.Class) { c.message.elicits = false }, false},
		{"a session that can", func(c *mcpCall, _ *counterfoil.Class) {
			c.revision, c.message.elicits, c.open = revision20251125, false, &session{Elicits: true}
		}, true},
		{"a session that cannot", func(c *mcpCall, _ *counterfoil.Class) { c.revision, c.open = revision20251125, &session{} }, false},
		{"no session", func(c *mcpCall, _ *counterfoil.Class) { c.revision = revision20251125 }, false},
	} {
		reg := counterfoil.NewRegistry()
		reg.People["ana"] = &counterfoil.Person{Name: "ana", Groups: []string{"desk"}}
		class := &counterfoil.Class{Name: "reset", Tier: counterfoil.Guarded, OwnerMayApprove: true, Approvers: [][]string{{"desk"}}}
		reg.Classes["reset"] = class
		c := &mcpCall{
			call: call{
				gateway: &Gateway{cfg: Config{ManagementURL: "https://console.example"}}, registry: reg, class: "reset",
				caller: counterfoil.Caller{Agent: "payroll", Subject: "ana"},
			},
			revision: revision20260728, message: message{elicits: true},
		}
		tc.change(c, class)
		if got := c.elicits(); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}
