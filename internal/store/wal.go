package store

import (
	"context"
	"database/sql/driver"
)

// settle brings home what the checkpointer could not, because the log grew
// under it. It is little, and then the WAL begins anew instead of growing.
func (q *sequencer) settle() {
	if err := q.w.query(checkpointWAL, func([]driver.Value) error { return nil }); err != nil {
		q.store.opt.Log.Warn("bringing the WAL home", "err", err)
	}
}

const (
	// walTarget is how large the WAL may become, about, before it is brought
	// home. What waits for the end of that is one commit in thousands.
	walTarget = 16 << 20
	pageSize  = 4 << 10 // SQLite's default
)

// bringHome copies the WAL into the database, on a connection of its own, so
// that no commit waits for it.
func (s *Store) bringHome(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.filled:
		}
		s.walSize.Store(0)
		// Frames that are committed from here on stay behind: how many, it
		// cannot tell, so the sequencer always looks.
		if _, err := s.reads.ExecContext(ctx, sqliteTexts[checkpointWAL]); err != nil {
			if ctx.Err() == nil {
				s.opt.Log.Warn("bringing the WAL home", "err", err)
			}
			continue
		}
		signal(s.settle)
	}
}
