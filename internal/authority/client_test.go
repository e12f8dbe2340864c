package authority

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
)

// instances is a store that knows the instances of one agent.
type instances struct {
	Store
	all []counterfoil.Instance
}

func (s instances) LatestInstances(_ string, most int) []counterfoil.Instance {
	out := slices.Clone(s.all[max(0, len(s.all)-most):])
	slices.Reverse(out)
	return out
}

func (s instances) InstanceByKey(jkt string) (counterfoil.Instance, bool) {
	i := slices.IndexFunc(s.all, func(inst counterfoil.Instance) bool { return inst.JKT == jkt })
	if i < 0 {
		return counterfoil.Instance{}, false
	}
	return s.all[i], true
}

// However many keys an agent has, a login is held against the one that it names or
// against a few.
func TestFewKeysAreTried(t *testing.T) {
	t.Parallel()
	var s instances
	for i := range 60 {
		alg := []string{credential.ES256, credential.Ed25519}[i%2]
		private, err := credential.GenerateKey(alg)
		if err != nil {
			t.Fatal(err)
		}
		k, err := credential.NewPublicKey(private.Public())
		if err != nil {
			t.Fatal(err)
		}
		s.all = append(s.all, counterfoil.Instance{
			ID: fmt.Sprint("ins_", i), Agent: "payroll", JKT: k.Thumbprint(), JWK: string(k.JWK()), Alg: alg, Status: counterfoil.Active,
		})
	}
	a := &Authority{cfg: Config{Store: s}}
	payroll, other := &counterfoil.Agent{Name: "payroll"}, &counterfoil.Agent{Name: "other"}
	for _, tt := range []struct {
		name           string
		agent          *counterfoil.Agent
		kid, hint, alg string
		want           int
		first          string // the instance that is tried first
	}{
		{"without a hint the newest", payroll, "", "", credential.Ed25519, maxTried, "ins_59"},
		{"of its algorithm", payroll, "", "", credential.ES256, maxTried, "ins_58"},
		{"with a hint that one first", payroll, "", s.all[4].JKT, credential.ES256, maxTried, "ins_4"},
		{"a hint of another algorithm", payroll, "", s.all[4].JKT, credential.Ed25519, maxTried, "ins_59"},
		{"by its key id", payroll, s.all[6].JKT, s.all[4].JKT, credential.ES256, 1, "ins_6"},
		{"by its key id, another algorithm", payroll, s.all[6].JKT, "", credential.Ed25519, 0, ""},
		{"by a key id that nobody has", payroll, "nobody", s.all[6].JKT, credential.ES256, 0, ""},
		{"by another agent's key id", other, s.all[6].JKT, "", credential.ES256, 0, ""},
		{"an algorithm that no key has", payroll, "", "", credential.ES384, 0, ""},
		{"no agent", nil, "", s.all[6].JKT, credential.ES256, 0, ""},
	} {
		got := a.keysOf(tt.agent, tt.kid, tt.hint, tt.alg, time.Time{})
		if len(got) != tt.want || tt.want > 0 && got[0].instance.ID != tt.first {
			t.Errorf("%s: %d keys are tried: %+v", tt.name, len(got), got)
		}
	}
	for _, alg := range []string{credential.ES256, credential.ES384, credential.Ed25519} {
		if k := decoy(alg); k.Alg() != alg || k.Thumbprint() != decoy(alg).Thumbprint() {
			t.Errorf("the decoy of %s is of %q", alg, k.Alg())
		}
	}
}

// The key that was rotated from is one of the instance's until its time is over, and
// not at that moment.
func TestOldKeysAreTried(t *testing.T) {
	t.Parallel()
	key := func() credential.PublicKey {
		private, err := credential.GenerateKey(credential.ES256)
		if err != nil {
			t.Fatal(err)
		}
		k, err := credential.NewPublicKey(private.Public())
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	end := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	present, old := key(), key()
	inst := counterfoil.Instance{
		ID: "ins_1", Agent: "payroll", JKT: present.Thumbprint(), JWK: string(present.JWK()), Alg: credential.ES256, Status: counterfoil.Active,
		Old: &counterfoil.OldKey{JKT: old.Thumbprint(), JWK: string(old.JWK()), Alg: credential.ES256, Until: end},
	}
	a := &Authority{cfg: Config{Store: instances{all: []counterfoil.Instance{inst}}}}
	payroll := &counterfoil.Agent{Name: "payroll"}
	for now, want := range map[time.Time]int{end.Add(-time.Millisecond): 2, end: 1} {
		if got := a.keysOf(payroll, "", "", credential.ES256, now); len(got) != want || got[0].public.Thumbprint() != present.Thumbprint() {
			t.Errorf("%v before its end: %d keys", end.Sub(now), len(got))
		}
		if own(inst, old.Thumbprint(), now) != (want == 2) || !own(inst, present.Thumbprint(), now) || own(inst, "another", now) {
			t.Errorf("%v before its end the keys that are its own are not", end.Sub(now))
		}
	}
	inst.Old = nil
	if own(inst, old.Thumbprint(), end.Add(-time.Hour)) || own(inst, "", end) {
		t.Error("without an old key, one is its own")
	}
}
