package authority_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/ledger"
)

// suspect tells of two sightings of a key's instance, a second apart, the later
// one now.
func (h *house) suspect(a *authority.Authority, key *credential.Signer, edit ...func(*counterfoil.Suspicion)) bool {
	h.t.Helper()
	inst, ok := h.store.InstanceByKey(key.Public().Thumbprint())
	if !ok {
		h.t.Fatal("nobody has the key")
	}
	now := h.clock.Now()
	seen := func(at time.Time, address string) counterfoil.Sighting {
		return counterfoil.Sighting{At: at, Agent: inst.Agent, Instance: inst.ID, JKT: inst.JKT, Address: address, RequestID: "req_" + address}
	}
	s := counterfoil.Suspicion{Agent: inst.Agent, Instance: inst.ID, First: seen(now.Add(-time.Second), "1"), Second: seen(now, "2")}
	for _, e := range edit {
		e(&s)
	}
	news, err := a.Suspect(h.t.Context(), s)
	if err != nil {
		h.t.Fatal(err)
	}
	return news
}

func foreign(s *counterfoil.Suspicion) {
	s.First = counterfoil.Sighting{}
	s.Second.Agent, s.Second.Instance, s.Second.Foreign = "thief", "ins_thief", true
}

// What follows from a suspicion is what the manifest in force says.
func TestSuspicionsFollowTheManifest(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a := h.authority()
	key := h.newSigner()
	declare := func(more string) {
		h.mustApply(a, bank+payroll+"keys: ['"+string(key.Public().JWK())+"']\n"+more)
	}
	status := func() counterfoil.Status {
		i, _ := h.store.InstanceByKey(key.Public().Thumbprint())
		return i.Status
	}
	declare("clones: record\n")
	for _, c := range []struct {
		name  string
		after time.Duration
		edit  []func(*counterfoil.Suspicion)
		news  bool
	}{
		{"the first", time.Second, nil, true},
		{"less than an hour later", time.Hour - time.Second, nil, false},
		{"an hour and a second later", 2 * time.Second, nil, true},
		{"another's use of it, which no network explains", time.Second, []func(*counterfoil.Suspicion){foreign}, true},
		{"its next use, a second later", time.Second, []func(*counterfoil.Suspicion){foreign}, false},
		{"and less than an hour later", time.Hour - 2*time.Second, []func(*counterfoil.Suspicion){foreign}, false},
		{"and an hour and a second later", 2 * time.Second, []func(*counterfoil.Suspicion){foreign}, true},
		{"two places, which are as long ago", 0, nil, true},
	} {
		h.clock.Advance(c.after)
		if got := h.suspect(a, key, c.edit...); got != c.news || status() != counterfoil.Active {
			t.Errorf("recorded only, %s: news %v, and the instance is %s", c.name, got, status())
		}
	}

	declare("")
	h.clock.Advance(500 * time.Millisecond)
	if h.suspect(a, key) || status() != counterfoil.Active {
		t.Error("what was seen before the last suspicion was suspected again")
	}
	h.clock.Advance(time.Second)
	if !h.suspect(a, key) || status() != counterfoil.Quarantined {
		t.Errorf("after a second sighting the instance is %s", status())
	}
	entries := h.entries(ledger.CloneSuspected)
	last := entries[len(entries)-1]
	if len(entries) != 6 || last.Agent != "payroll" || last.Owner != "ana" || last.RequestID != "req_2" || last.JKT != key.Public().Thumbprint() ||
		last.Detail["clones"] != counterfoil.ClonesQuarantine || entries[0].Detail["clones"] != counterfoil.ClonesRecord || entries[2].Detail["first"] != nil {
		t.Errorf("%d entries, the last is %+v", len(entries), last)
	}

	// A quarantined instance is its manifest's all the same: its key is neither
	// foreign to it nor free, and ends when it is listed no more.
	if _, err := h.token(a, "payroll", key, key); err == nil || counterfoil.CodeOf(err) != counterfoil.AgentSuspended {
		t.Errorf("a token for it: %v", err)
	}
	declare("proof_keys: any\n")
	if status() != counterfoil.Quarantined {
		t.Errorf("an apply made it %s", status())
	}
	if view, err := a.Agent("payroll"); err != nil || view.Instances != 0 || len(view.Quarantined) != 1 {
		t.Errorf("shown is %+v (%v)", view, err)
	}
	h.mustApply(a, bank+payroll)
	if status() != counterfoil.Ended {
		t.Errorf("listed no more, it is %s", status())
	}
	h.clock.Advance(time.Second)
	if h.suspect(a, key) {
		t.Error("an instance that ended was suspected")
	}
}

// Ending a suspension frees no key that was seen in two places; naming it does, and
// what is named is all there is to do or nothing is done.
func TestResumeReleasesWhatIsNamed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a := h.authority()
	h.mustApply(a, bank+payroll)
	stolen, other := h.newSigner(), h.newSigner()
	h.enrol(a, "payroll", stolen)
	h.enrol(a, "payroll", other)
	resume := func(release ...string) error {
		released, err := a.Resume(t.Context(), "payroll", release, "a look", "uid:7")
		if err == nil && !slices.Equal(released, release) {
			t.Errorf("released %q, named were %q", released, release)
		}
		return err
	}
	id := func(key *credential.Signer) string {
		i, _ := h.store.InstanceByKey(key.Public().Thumbprint())
		return i.ID
	}
	wantStolen := func(refused bool) {
		t.Helper()
		_, err := h.token(a, "payroll", stolen, stolen)
		if (err == nil) == refused || refused && counterfoil.CodeOf(err) != counterfoil.AgentSuspended {
			t.Errorf("a token for the stolen key: %v", err)
		}
		if _, err := h.token(a, "payroll", other, other); err != nil {
			t.Errorf("a token for the other key: %v", err)
		}
	}
	wantStolen(false)
	h.clock.Advance(time.Second)
	if !h.suspect(a, stolen) {
		t.Fatal("the key is not suspected")
	}
	wantStolen(true)
	if _, err := a.Suspend(t.Context(), "payroll", "maintenance", "uid:7"); err != nil {
		t.Fatal(err)
	}
	if err := resume(); err != nil {
		t.Fatal(err)
	}
	wantStolen(true)
	for _, release := range [][]string{nil, {id(other)}, {id(stolen), id(other)}, {id(stolen), "ins_none"}} {
		if err := resume(release...); err == nil || counterfoil.CodeOf(err) != counterfoil.RequestMalformed {
			t.Errorf("releasing %q: %v", release, err)
		}
		wantStolen(true)
	}
	if err := resume(id(stolen)); err != nil {
		t.Fatal(err)
	}
	wantStolen(false)
	entries := h.entries(ledger.AgentResumed)
	if len(entries) != 2 || entries[0].Detail["released"] != nil || fmt.Sprint(entries[1].Detail["released"]) != fmt.Sprint([]string{id(stolen)}) ||
		entries[1].Epoch <= entries[0].Epoch || entries[1].Actor != "uid:7" {
		t.Errorf("the entries are %+v", entries)
	}
}

// What stands beside the proof of somebody else's key is an assertion that nobody
// used: one that was used is anybody's, and its instance is not named by the alarm.
func TestUsedAssertionsAccuseNobody(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a := h.authority()
	victim, shown, nobodys := h.newSigner(), h.newSigner(), h.newSigner()
	h.mustApply(a, bank+payroll+"---\nkind: Agent\nname: auditor\nowner: ana\nenvironment: prod\ngrants: [{tools: [bank/pay]}]\n")
	h.enrol(a, "payroll", victim)
	h.enrol(a, "auditor", shown)
	ask := func(assertion string, key *credential.Signer) counterfoil.Code {
		t.Helper()
		if _, err := h.tokenOn(a, assertion, key); err != nil {
			return counterfoil.CodeOf(err)
		}
		return ""
	}
	assertion := h.assertion("auditor", shown)
	for _, c := range []struct {
		name string
		key  *credential.Signer
		want counterfoil.Code
	}{
		// The control: one that was not used accuses, and is not used up by it.
		{"another agent's key", victim, counterfoil.KeyInUse},
		{"a key that nobody has", nobodys, counterfoil.ProofKeyMismatch},
		{"its own key", shown, ""},
		{"its own key again", shown, counterfoil.AssertionReplayed},
		{"another agent's key, after its use", victim, counterfoil.AssertionReplayed},
		{"a key that nobody has, after its use", nobodys, counterfoil.AssertionReplayed},
	} {
		before := h.store.Size()
		if got := ask(assertion, c.key); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		b, err := h.store.Entry(t.Context(), before)
		if err != nil || h.store.Size() != before+1 || c.want != "" && !strings.Contains(string(b), string(c.want)) {
			t.Errorf("%s: the entry is %s (%v)", c.name, b, err)
		}
	}
}

// However many ask at once, and whatever keys they prove with, one assertion is one
// token and one key.
func TestOneAssertionBindsOneKey(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a := h.authority()
	own := h.newSigner()
	h.mustApply(a, bank+payroll+"proof_keys: any\n")
	h.enrol(a, "payroll", own)
	assertion := h.assertion("payroll", own)
	const many = 16
	errs := make([]error, many)
	var keys []*credential.Signer
	for range many {
		keys = append(keys, h.newSigner())
	}
	gate := make(chan struct{})
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			<-gate
			_, errs[i] = h.tokenOn(a, assertion, keys[i])
		})
	}
	close(gate)
	all.Wait()
	tokens, bound := 0, 0
	for i, err := range errs {
		_, _, live := h.store.ProofKey(keys[i].Public().Thumbprint())
		if live {
			bound++
		}
		if err == nil {
			tokens++
		} else if counterfoil.CodeOf(err) != counterfoil.AssertionReplayed {
			t.Error(err)
		}
		if live != (err == nil) {
			t.Errorf("key %d is bound: %v, and its token: %v", i, live, err)
		}
	}
	if tokens != 1 || bound != 1 || len(h.entries(ledger.ProofKeyBound)) != 1 || len(h.entries(ledger.TokenIssued)) != 1 {
		t.Errorf("%d tokens, %d keys", tokens, bound)
	}
	// The control: with assertions of their own, others are bound too.
	for _, key := range keys[:7] {
		if _, err := h.token(a, "payroll", own, key); err != nil {
			t.Error(err)
		}
	}
}

// A code is for an agent that has room for one more instance. Those that are
// quarantined have theirs: they may be released.
func TestInstancesOfOneAgent(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a := h.authority()
	h.mustApply(a, bank+payroll)
	const most = 1000
	_, base := h.store.Registry()
	change := counterfoil.Change{Base: base}
	for i := range most - 1 {
		id := fmt.Sprint("ins_", i)
		change.NewKeys = append(change.NewKeys, counterfoil.Instance{ID: id, Agent: "payroll", JKT: "jkt-" + id, JWK: "{}", Alg: "ES256", Enrolled: h.clock.Now()})
	}
	if err := h.store.Apply(t.Context(), change, []*ledger.Entry{{Kind: ledger.AgentChanged, Agent: "payroll"}}); err != nil {
		t.Fatal(err)
	}
	last := h.newSigner()
	h.enrol(a, "payroll", last) // the control
	h.clock.Advance(time.Second)
	if !h.suspect(a, last) {
		t.Fatal("the key is not suspected")
	}
	_, _, err := a.EnrolCode(t.Context(), "payroll", "uid:7")
	r, ok := counterfoil.AsRefusal(err)
	if !ok || r.Code != counterfoil.RequestMalformed || !strings.Contains(r.Detail, "1000 instances that did not end (quarantined ones count)") {
		t.Errorf("a code for one more: %v", err)
	}
}

// An agent that was offboarded before its clone was told of has nothing to lose.
func TestSuspicionOfAnAgentThatIsGone(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a := h.authority()
	key := h.newSigner()
	h.mustApply(a, bank+payroll)
	h.enrol(a, "payroll", key)
	if _, err := a.Offboard(t.Context(), "payroll", "", "uid:7"); err != nil {
		t.Fatal(err)
	}
	if h.suspect(a, key) || h.suspect(a, key, foreign) || len(h.entries(ledger.CloneSuspected)) != 0 {
		t.Error("an agent that is gone was suspected")
	}
}
