package approval

import (
	"errors"
	"fmt"
	"testing"

	"github.com/counterfoil/counterfoil"
)

// Who may say yes is looked at in the registry of one revision, and it is used up under
// that one alone: nobody leaves in between.
func TestWhoLeavesWhileItIsSpent(t *testing.T) {
	t.Parallel()
	for _, leaves := range []bool{false, true} {
		t.Run(fmt.Sprintf("leaves=%t", leaves), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.enrol("bo", "cy")
			pay := w.pay("100", "DE1")
			id := w.ask(pay)
			w.approve(id, "bo", "cy")
			s, err := w.Claim(t.Context(), pay)
			if err != nil {
				t.Fatal(err)
			}
			if leaves {
				w.personDoc("cy", func(p *counterfoil.Person) { p.Groups = nil })
				if _, err := w.spend(s, pay); !errors.Is(err, counterfoil.ErrChanged) {
					t.Errorf("spending what was looked at before: %v", err)
				}
				w.wantState(id, counterfoil.StateApproved)
				_, err := w.Claim(t.Context(), pay)
				wantRefused(t, err, counterfoil.ApprovalRevoked)
				return
			}
			if _, err := w.spend(s, pay); err != nil {
				t.Errorf("spending it: %v", err)
			}
		})
	}
}
