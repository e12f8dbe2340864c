package policy_test

import (
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/policy"
)

// TestPolicyBombs is DO8: a policy that would exhaust whoever compiles or evaluates it
// is refused as a text, in no time and without a crash; one that only looks like it
// compiles.
func TestPolicyBombs(t *testing.T) {
	t.Parallel()
	around := func(before, inside, after string, n int) string {
		return strings.Repeat(before, n) + inside + strings.Repeat(after, n)
	}
	for name, tt := range map[string]struct {
		honest, bomb string
		because      string
	}{
		"brackets":    {around("(", "true", ")", 50), around("(", "true", ")", 30000), "nested deeper"},
		"records":     {around("{a:", "1", "}", 50) + " == 1", around("{a:", "1", "}", 10000) + " == 1", "nested deeper"},
		"sets":        {around("[", "1", "]", 50) + " == 1", around("[", "1", "]", 30000) + " == 1", "nested deeper"},
		"negations":   {"!!true", around("!", "true", "", 30000), "nested deeper"},
		"minus signs": {"1 == - 1", "1 == " + around("- ", "1", "", 30000), "nested deeper"},
		"a long text": {"true" + strings.Repeat(" && true", 500), "true" + strings.Repeat(" && true", 9000), "the limit is"},
		"a pattern": {
			`context has subject && context.subject like "*` + strings.Repeat("a", 200) + `*"`,
			`context has subject && context.subject like "*` + strings.Repeat("a", 5000) + `b*"`, "a pattern of like",
		},
		"stars": {`context has subject && context.subject like "*a*b*"`, `context has subject && context.subject like "` + strings.Repeat("*a", 5000) + `"`, "a pattern of like"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compile := func(when string) []policy.Problem {
				reg := counterfoil.NewRegistry()
				reg.Policies["bomb"] = &counterfoil.Policy{Name: "bomb", Cedar: "forbid (principal, action, resource) when { " + when + " };"}
				_, problems := policy.Load(reg)
				return problems
			}
			if problems := compile(tt.honest); len(problems) > 0 {
				t.Errorf("the honest one: %v", problems)
			}
			problems := compile(tt.bomb)
			if len(problems) == 0 || !strings.Contains(problems[0].Text, tt.because) {
				t.Errorf("the bomb: %.300v", problems)
			}
			// In words of a Vocabulary as well, where what is asked is an enforcement point's.
			vocabulary := func(when string) []policy.Problem {
				reg := counterfoil.NewRegistry()
				reg.Classes["read"] = &counterfoil.Class{Name: "read", Tier: counterfoil.Routine}
				reg.Vocabularies["bomb"] = &counterfoil.Vocabulary{
					Name: "bomb", Servers: []string{"edge"}, Class: "read",
					Cedar: "permit (principal is user, action, resource is record) when { " + when + " };",
				}
				_, problems := policy.Load(reg)
				return problems
			}
			if problems := vocabulary(tt.honest); len(problems) > 0 {
				t.Errorf("the honest one, of a vocabulary: %v", problems)
			}
			if problems = vocabulary(tt.bomb); len(problems) == 0 || !strings.Contains(problems[0].Text, tt.because) {
				t.Errorf("the bomb, of a vocabulary: %.300v", problems)
			}
		})
	}
}
