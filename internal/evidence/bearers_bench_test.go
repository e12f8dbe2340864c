package evidence_test

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/evidence"
	"github.com/counterfoil/counterfoil/internal/store"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/ledger"
)

// BenchmarkBearers reports over a log of many calls, of which one in a hundred, or every
// one, is by a bearer credential; ns/entry is per entry of the log.
func BenchmarkBearers(b *testing.B) {
	for name, every := range map[string]int{"one-in-100": 100, "all": 1} {
		b.Run(name, func(b *testing.B) {
			const entries = 100_000
			signer, verifier := testkit.LogKey(b, origin)
			db, err := store.Open(b.Context(), "sqlite:"+filepath.Join(b.TempDir(), "store.db"), store.Options{
				Now: time.Now, Origin: origin, Signer: signer, Verifier: verifier, Begin: true,
			})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			var all sync.WaitGroup
			for c := range 64 {
				all.Go(func() {
					for i := c; i < entries; i += 64 {
						e := &ledger.Entry{
							Kind: ledger.CallDecided, RequestID: counterfoil.NewID("req_"), Agent: "reports", Owner: "ana", Resource: "crm", Tool: "crm/get", Class: "read",
							Tier: "routine", Binding: counterfoil.BoundDPoP, Decision: ledger.Refuse, Proof: counterfoil.NewID("p_"),
							JKT: "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I", Source: ledger.Source{Address: "192.0.2.1", Environment: "prod"},
						}
						if i%every == 0 {
							e.Binding, e.JKT, e.Proof, e.Detail = counterfoil.NotBound, "", "", map[string]any{"bearer": oldKey, "binding_mode": "observe"}
						}
						if err := db.Decide(b.Context(), e, nil); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			reg := crmRegistry(counterfoil.BindingObserve)
			for b.Loop() {
				if _, err := evidence.Bearers(b.Context(), db, reg, "", time.Time{}, time.Now()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/entries, "ns/entry")
		})
	}
}
