package daemon

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/store"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/ledger"
	"github.com/counterfoil/counterfoil/resource"
)

// TestWhatAStartKnowsOfUsedProofs: proofs with an entry are read back; where some
// were used up without an entry of each, a start says that it does not know them.
func TestWhatAStartKnowsOfUsedProofs(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)
	limited := &ledger.Entry{Kind: ledger.RefusedAggregate, Agent: "payroll", Decision: ledger.Refuse, Code: counterfoil.RateLimited}
	for _, c := range []struct {
		name    string
		entry   *ledger.Entry
		later   time.Duration
		confirm bool
		lost    bool
		used    bool // the proof "p" is known
	}{
		{name: "a token request", entry: &ledger.Entry{Kind: ledger.TokenRefused, Decision: ledger.Refuse, Proof: "p"}, used: true},
		{name: "a token request long ago", entry: &ledger.Entry{Kind: ledger.TokenRefused, Decision: ledger.Refuse, Proof: "p"}, later: time.Hour},
		{name: "refused for its rate", entry: limited, lost: true},
		{name: "refused for its rate long ago", entry: limited, later: time.Hour},
		{name: "refused before authentication", entry: &ledger.Entry{Kind: ledger.RefusedAggregate, Decision: ledger.Refuse}},
		{name: "a clock confirmed by hand", entry: &ledger.Entry{Kind: ledger.ServerStopped}, confirm: true, lost: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			now := start
			clock := func() time.Time { return now }
			const origin = "localhost/ledger"
			signer, verifier := testkit.LogKey(t, origin)
			s, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "s.db"), store.Options{Now: clock, Origin: origin, Signer: signer, Verifier: verifier, Begin: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			e := *c.entry
			if err := s.Append(t.Context(), &e); err != nil {
				t.Fatal(err)
			}
			now = now.Add(c.later)
			d := &Daemon{cfg: Config{ConfirmClock: c.confirm}, opt: Options{Now: clock}, store: s}
			memory := resource.NewMemoryReplay(clock)
			lost, err := d.readBack(t.Context(), memory)
			if err != nil || lost != c.lost {
				t.Errorf("lost %v, %v", lost, err)
			}
			fresh, err := memory.UseOnce(t.Context(), "p", now.Add(time.Minute))
			if err != nil || fresh == c.used {
				t.Errorf("the proof is taken: %v, %v", fresh, err)
			}
		})
	}
}
