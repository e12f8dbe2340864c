package daemon

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/counterfoil/counterfoil/internal/notify"
	"github.com/counterfoil/counterfoil/internal/store"
)

// registerNotifier adds what people were not told.
func registerNotifier(registry prometheus.Registerer, n *notify.Notifier) {
	for _, c := range []struct {
		name, help string
		value      func() uint64
	}{
		{"counterfoil_notifications_dropped_total", "Messages for which the queue had no room.", n.Dropped},
		{"counterfoil_notifications_failed_total", "Messages that a receiver did not take.", n.Failed},
	} {
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: c.name, Help: c.help},
			func() float64 { return float64(c.value()) }))
	}
}

// registerStore adds what an operator needs to know of the ledger: how much goes
// in, how well commits are shared, and what failed. They are read when
// Prometheus asks, so that the write path counts once.
func registerStore(registry prometheus.Registerer, s *store.Store) {
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "counterfoil_ledger_entries", Help: "Entries in the ledger.",
	}, func() float64 { return float64(s.Size()) }))
	for _, c := range []struct {
		name, help string
		value      func(store.Stats) int64
	}{
		{"counterfoil_ledger_decisions_total", "Decisions that were committed.", func(t store.Stats) int64 { return t.Decisions }},
		{"counterfoil_ledger_batches_total", "Commits of one or more decisions.", func(t store.Stats) int64 { return t.Batches }},
		{"counterfoil_ledger_bytes_total", "Bytes of the entries that were committed.", func(t store.Stats) int64 { return t.Bytes }},
		{"counterfoil_ledger_failures_total", "Commits, and looks whether one could be made, that failed.", func(t store.Stats) int64 { return t.Failures }},
		{"counterfoil_checkpoint_failures_total", "Checkpoints that a place did not take.", func(t store.Stats) int64 { return t.PlaceFailures }},
		{"counterfoil_sightings_overflows_total", "Times that the search for cloned keys fell behind and read the ledger instead.", func(t store.Stats) int64 { return t.Overflows }},
	} {
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: c.name, Help: c.help},
			func() float64 { return float64(c.value(s.Stats())) }))
	}
}
