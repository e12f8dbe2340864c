package authority

import (
	"fmt"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
)

// instances is a store that knows the instances of one agent.
type instances struct {
	Store
	all []counterfoil.Instance
}

func (s instances) Instances(string) []counterfoil.Instance { return s.all }

// However many keys an agent has, a login is held against one of them, or of an
// agent that proves with any keys against a few: what it costs must not tell
// agents from names that nobody has.
func TestOneKeyIsTried(t *testing.T) {
	t.Parallel()
	var s instances
	for i := range 20 {
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
	payroll, free := &counterfoil.Agent{Name: "payroll"}, &counterfoil.Agent{Name: "payroll", ProofKeys: proofKeysAny}
	for _, tt := range []struct {
		name           string
		agent          *counterfoil.Agent
		kid, hint, alg string
		want           int
		first          string // the instance that is tried first
	}{
		{"without a hint the newest", payroll, "", "", credential.Ed25519, 1, "ins_19"},
		{"of its algorithm", payroll, "", "", credential.ES256, 1, "ins_18"},
		{"with a hint that one", payroll, "", s.all[4].JKT, credential.ES256, 1, "ins_4"},
		{"a hint of another algorithm", payroll, "", s.all[4].JKT, credential.Ed25519, 1, "ins_19"},
		{"by its key id", payroll, s.all[6].JKT, "", credential.ES256, 1, "ins_6"},
		{"by its key id, another algorithm", payroll, s.all[6].JKT, "", credential.Ed25519, 0, ""},
		{"by a key id that nobody has", payroll, "nobody", s.all[6].JKT, credential.ES256, 0, ""},
		{"an algorithm that no key has", payroll, "", "", credential.ES384, 0, ""},
		{"no agent", nil, "", s.all[6].JKT, credential.ES256, 0, ""},
		{"any proof keys", free, "", s.all[0].JKT, credential.ES256, maxTried, "ins_0"},
	} {
		got := a.keysOf(tt.agent, tt.kid, tt.hint, tt.alg)
		if len(got) != tt.want || tt.want > 0 && got[0].instance.ID != tt.first {
			t.Errorf("%s: %d keys are tried: %+v", tt.name, len(got), got)
		}
	}
	var d decoys
	for _, alg := range []string{credential.ES256, credential.ES384, credential.Ed25519} {
		if k := d.of(alg); k.Alg() != alg || k.Thumbprint() != d.of(alg).Thumbprint() {
			t.Errorf("the decoy of %s is of %q", alg, k.Alg())
		}
	}
}
