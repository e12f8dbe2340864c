package web

import (
	"context"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/console"
	"github.com/counterfoil/counterfoil/internal/evidence"
	"github.com/counterfoil/counterfoil/ledger"
)

// mostBehind is how many revocations back a point’s lag is counted.
const mostBehind = 500

// fillPoints fills in how far each enforcement point knows what is revoked: those that
// the newest revocation concerns.
func (p *pages) fillPoints(ctx context.Context, h *console.Health) error {
	h.Newest = -1
	revocations, err := evidence.Revocations(ctx, p.Entries, mostBehind)
	if err != nil || len(revocations) == 0 {
		return err
	}
	h.Newest, h.At = revocations[0].Index, revocations[0].At
	newest, err := evidence.ReceiptOf(ctx, p.Entries, h.Newest)
	if err != nil {
		return err
	}
	for _, point := range newest.Points {
		out := console.PointHealth{Name: point.Name, What: pointWords[point.Kind], Good: !point.Stopped.IsZero()}
		if out.Seq, out.At, err = p.lastWord(ctx, &point); err != nil {
			return err
		}
		if out.Good {
			out.Seq = max(out.Seq, h.Newest)
			if out.At.Before(point.Stopped) {
				out.At = point.Stopped
			}
		}
		var since time.Time
		for _, r := range revocations {
			if r.Index > out.Seq {
				out.Behind++
				since = r.At
			}
		}
		if !since.IsZero() {
			out.Lag = "for " + latency(p.Now().Sub(since))
		}
		h.Points = append(h.Points, out)
	}
	return nil
}

// lastWord is the newest entry in which a point says how far it knows what is revoked:
// to which index that is, and when it was.
func (p *pages) lastWord(ctx context.Context, point *evidence.Point) (seq int64, at time.Time, err error) {
	agent, instance, _ := strings.Cut(point.Name, "/")
	f := ledger.Filter{Limit: 100}
	switch point.Kind {
	case evidence.PointServer:
		f.Kind, f.Tool, f.Agent = ledger.CallDecided, feedTool, agent
	case evidence.PointSignals:
		f.Kind, f.Agent = ledger.SignalDelivered, agent
	default:
		f.Kind = ledger.RevocationEnforced
	}
	found, err := p.Entries.Find(ctx, f)
	if err != nil {
		return 0, at, err
	}
	for _, e := range found {
		if e.View.Seq > 0 && (point.Kind != evidence.PointServer || e.Instance == instance) {
			at, err = e.When()
			return e.View.Seq, at, err
		}
	}
	return 0, at, nil
}
