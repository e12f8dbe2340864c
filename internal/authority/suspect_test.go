package authority_test

import (
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
	} {
		h.clock.advance(c.after)
		if got := h.suspect(a, key, c.edit...); got != c.news || status() != counterfoil.Active {
			t.Errorf("recorded only, %s: news %v, and the instance is %s", c.name, got, status())
		}
	}

	declare("")
	h.clock.advance(500 * time.Millisecond)
	if h.suspect(a, key) || status() != counterfoil.Active {
		t.Error("what was seen before the last suspicion was suspected again")
	}
	h.clock.advance(time.Second)
	if !h.suspect(a, key) || status() != counterfoil.Quarantined {
		t.Errorf("after a second sighting the instance is %s", status())
	}
	entries := h.entries(ledger.CloneSuspected)
	last := entries[len(entries)-1]
	if len(entries) != 4 || last.Agent != "payroll" || last.Owner != "ana" || last.RequestID != "req_2" || last.JKT != key.Public().Thumbprint() ||
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
	if status() != counterfoil.Offboarded {
		t.Errorf("listed no more, it is %s", status())
	}
	h.clock.advance(time.Second)
	if h.suspect(a, key) {
		t.Error("an instance that ended was suspected")
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
