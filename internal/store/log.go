package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// Reads of the ledger. They see what is committed, and may run for long: the
// log only grows, so each reads in pieces and holds nothing up in between.

// ErrNoEntry says that the log has no such entry or payload.
var ErrNoEntry = errors.New("there is no such entry")

// Head returns the size and the root of the log.
func (s *Store) Head() (size int64, root tlog.Hash) {
	s.mu.RLock()
	t := s.tree
	s.mu.RUnlock()
	return t.Size(), t.Root()
}

// Size returns how many entries there are.
func (s *Store) Size() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.tree.Size()
}

// Wait returns when the log has more than size entries, or the context ends.
func (s *Store) Wait(ctx context.Context, size int64) error {
	for {
		s.mu.Lock()
		if s.tree.Size() > size {
			s.mu.Unlock()
			return nil
		}
		if s.grown == nil {
			s.grown = make(chan struct{})
		}
		grown := s.grown
		s.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// A segment is a run of entries as it was read.
type segment struct {
	first, count int64
	data         []byte
}

// each calls fn with the entries of the segment from one index to before
// another. The bytes are fn's to keep.
func (g segment) each(from, to int64, fn func(index int64, entry []byte) error) error {
	rest := g.data
	for i := g.first; i < g.first+g.count && i < to; i++ {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			return fmt.Errorf("the ledger is damaged: entry %d is not where it should be", i)
		}
		if i >= from {
			if err := fn(i, rest[:end:end]); err != nil {
				return err
			}
		}
		rest = rest[end+1:]
	}
	return nil
}

func (s *Store) readSegments(ctx context.Context, text string, args ...any) ([]segment, error) {
	rows, err := s.reads.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, readFault(err)
	}
	defer rows.Close()
	var out []segment
	for rows.Next() {
		var g segment
		if err := rows.Scan(&g.first, &g.count, &g.data); err != nil {
			return nil, readFault(err)
		}
		out = append(out, g)
	}
	if err := rows.Err(); err != nil {
		return nil, readFault(err)
	}
	return out, nil
}

func readFault(err error) error {
	return counterfoil.NewFault(counterfoil.StoreUnavailable, fmt.Errorf("reading the ledger: %w", err))
}

// Entry returns the exact bytes of an entry, or ErrNoEntry.
func (s *Store) Entry(ctx context.Context, index int64) ([]byte, error) {
	var out []byte
	err := s.Entries(ctx, index, index+1, func(_ int64, entry []byte) error {
		out = entry
		return nil
	})
	if err != nil {
		return nil, err
	}
	if out == nil {
		return nil, fmt.Errorf("entry %d: %w", index, ErrNoEntry)
	}
	return out, nil
}

// Entries calls fn with the exact bytes of the entries from one index to
// before another, in order, as far as the log goes when it gets there. It
// stops at fn's first error and returns it.
func (s *Store) Entries(ctx context.Context, from, to int64, fn func(index int64, entry []byte) error) error {
	if from < 0 || from >= to {
		return nil
	}
	list, err := s.readSegments(ctx, textDataOf, from)
	for err == nil && len(list) > 0 {
		for _, g := range list {
			if err := g.each(from, to, fn); err != nil {
				return err
			}
		}
		last := list[len(list)-1]
		if from = last.first + last.count; from >= to {
			return nil
		}
		list, err = s.readSegments(ctx, textDataFrom, from, to)
	}
	return err
}

// backwards calls fn with the segments that begin before an index, from the newest
// to the oldest, until it returns false.
func (s *Store) backwards(ctx context.Context, before int64, fn func(segment) (bool, error)) error {
	for before > 0 {
		list, err := s.readSegments(ctx, textDataBefore, before)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, g := range list {
			more, err := fn(g)
			if err != nil || !more {
				return err
			}
			before = g.first
		}
	}
	return nil
}

// Find returns the newest entries that the filter chooses, newest first.
//
// There is no index, as each would cost every call about what the entry itself
// costs. Find reads backwards from the newest entry and passes over whole
// segments that do not have the wanted text: a rare entry is found at the speed
// of reading the file.
func (s *Store) Find(ctx context.Context, f ledger.Filter) ([]*ledger.Entry, error) {
	want := wantedBy(f)
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	since := ""
	if !f.Since.IsZero() {
		since = ledger.FormatTime(f.Since)
	}
	until := "~" // after every time
	if !f.Until.IsZero() {
		until = ledger.FormatTime(f.Until)
	}
	before := f.Before
	if before <= 0 {
		before = math.MaxInt64
	}
	var found []*ledger.Entry
	err := s.backwards(ctx, before, func(g segment) (bool, error) {
		for _, w := range want {
			if !bytes.Contains(g.data, w.needle) {
				return since == "" || newest(g.data) >= since, nil
			}
		}
		var hits []*ledger.Entry
		old := false
		err := g.each(g.first, before, func(_ int64, entry []byte) error {
			for _, w := range want {
				if !bytes.Contains(entry, w.needle) {
					return nil // most are passed over without being read
				}
			}
			ok, at, err := matches(entry, want)
			if err != nil {
				return err
			}
			if at < since {
				old = true
				return nil
			}
			if !ok || at >= until {
				return nil
			}
			e, err := ledger.Parse(entry)
			if err != nil {
				return err
			}
			hits = append(hits, e)
			return nil
		})
		if err != nil {
			return false, err
		}
		slices.Reverse(hits)
		found = append(found, hits...)
		return !old && len(found) < limit, nil
	})
	if err != nil {
		return nil, err
	}
	return found[:min(len(found), limit)], nil
}

// A wanted is a member that an entry must have, and the text that it then has
// somewhere.
type wanted struct {
	name, value string
	needle      []byte
}

// wantedBy returns what a filter asks for beside the time.
func wantedBy(f ledger.Filter) []wanted {
	var out []wanted
	for _, m := range []wanted{
		{name: "request_id", value: f.RequestID}, {name: "agent", value: f.Agent}, {name: "tool", value: f.Tool},
		{name: "code", value: string(f.Code)}, {name: "kind", value: string(f.Kind)}, {name: "actor", value: f.Actor},
		{name: "class", value: f.Class}, {name: "token_jti", value: f.Token}, {name: "binding", value: f.Binding},
	} {
		if m.value != "" {
			m.needle = ledger.AppendText([]byte(`"`+m.name+`":`), m.value)
			out = append(out, m)
		}
	}
	if f.Approval != "" {
		// The approval is an object, whose first name is its id (RFC 8785, Section
		// 3.2.3).
		out = append(out, wanted{name: "approval", value: f.Approval, needle: ledger.AppendText([]byte(`"approval":{"id":`), f.Approval)})
	}
	return out
}

// meets reports whether the value of a member that has the name is the wanted one.
func (w wanted) meets(value []byte) bool {
	if w.name == "approval" {
		return bytes.HasPrefix(value, w.needle[len(`"approval":`):])
	}
	return ledger.Text(value) == w.value
}

// matches reports whether an entry has what is wanted, and its time.
func matches(entry []byte, want []wanted) (ok bool, at string, err error) {
	met := 0
	err = ledger.Members(entry, func(name, value []byte) bool {
		if string(name) == "time" {
			at = ledger.Text(value)
		}
		for _, w := range want {
			if string(name) == w.name && w.meets(value) {
				met++
			}
		}
		return true
	})
	return met == len(want), at, err
}

// newest returns the time of the last entry of a segment's data, and something
// later than every time where it cannot tell.
func newest(data []byte) string {
	data = bytes.TrimSuffix(data, []byte{'\n'})
	_, at, err := matches(data[bytes.LastIndexByte(data, '\n')+1:], nil)
	if err != nil {
		return "~"
	}
	return at
}

// RecentProofs calls fn with the hash of each proof that an entry since then
// records, newest first: what a verifier must remember after a restart.
func (s *Store) RecentProofs(ctx context.Context, since time.Time, fn func(hash string, at time.Time)) error {
	bound := ledger.FormatTime(since)
	r := proofReader{fn: fn}
	return s.backwards(ctx, math.MaxInt64, func(g segment) (bool, error) {
		if newest(g.data) < bound {
			return false, nil
		}
		return true, g.each(g.first, math.MaxInt64, func(_ int64, entry []byte) error { return r.read(entry, bound) })
	})
}

// A proofReader reads proofs out of entries. There may be a million, and a
// server that waits for them.
type proofReader struct {
	fn        func(hash string, at time.Time)
	proof, at []byte // of the entry that is read; parts of it
	time      time.Time
	text      string // what time was read from: entries of one commit share it
}

func (r *proofReader) read(entry []byte, bound string) error {
	r.proof, r.at = nil, nil
	if err := ledger.Members(entry, r.member); err != nil {
		return err
	}
	if r.proof == nil || len(r.at) < 2 || string(r.at[1:len(r.at)-1]) < bound {
		return nil
	}
	if string(r.at) != r.text {
		t, err := ledger.ParseTime(ledger.Text(r.at))
		if err != nil {
			return err
		}
		r.time, r.text = t, string(r.at)
	}
	r.fn(ledger.Text(r.proof), r.time)
	return nil
}

func (r *proofReader) member(name, value []byte) bool {
	switch string(name) {
	case "proof":
		r.proof = value
	case "time":
		r.at = value
		return false
	}
	return true
}

// Unfinished returns the indexes of the calls that were allowed and have no end
// yet, oldest first.
func (s *Store) Unfinished(ctx context.Context) ([]int64, error) {
	size, _ := s.Head()
	saved, err := s.savedOpen(ctx)
	if err != nil {
		return nil, err
	}
	open := map[int64]struct{}{}
	for _, i := range saved.Open {
		open[i] = struct{}{}
	}
	if err := s.replayOpen(ctx, saved.Size, size, open); err != nil {
		return nil, err
	}
	return sortedOpen(open), nil
}

// Payload returns the payload that is kept for an entry, and its salt:
// ledger.Commitment of both is what the entry says. The payload is empty when
// the salt alone is kept; a payload is JSON and so never empty itself.
// ErrNoEntry when there is neither, or it was erased.
func (s *Store) Payload(ctx context.Context, index int64) (salt, payload []byte, err error) {
	err = s.reads.QueryRowContext(ctx, textPayload, index).Scan(&salt, &payload)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil, fmt.Errorf("payload of entry %d: %w", index, ErrNoEntry)
	}
	if err != nil {
		return nil, nil, readFault(err)
	}
	return salt, payload, nil
}

// Hashes returns a reader of the tree's stored hashes, for proofs and tiles.
func (s *Store) Hashes(ctx context.Context) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var have hashSegment // neighbours are read once
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			level, n := tlog.SplitStoredHashIndex(index)
			// The hash of a subtree is stored with the entry that completes it.
			entry := (n+1)<<level - 1
			if entry < have.first || entry >= have.first+have.count {
				var err error
				if have, err = s.readHashes(ctx, entry); err != nil {
					return nil, err
				}
			}
			h, err := have.hash(index)
			if err != nil {
				return nil, err
			}
			out[i] = h
		}
		return out, nil
	})
}

type hashSegment struct {
	first, count int64
	hashes       []byte
}

func (g hashSegment) hash(index int64) (tlog.Hash, error) {
	at := (index - tlog.StoredHashIndex(0, g.first)) * tlog.HashSize
	if at < 0 || at+tlog.HashSize > int64(len(g.hashes)) {
		return tlog.Hash{}, fmt.Errorf("the ledger is damaged: hash %d is not where it should be", index)
	}
	return tlog.Hash(g.hashes[at : at+tlog.HashSize]), nil
}

func (s *Store) readHashes(ctx context.Context, entry int64) (hashSegment, error) {
	var g hashSegment
	err := s.reads.QueryRowContext(ctx, textSegmentOf, entry).Scan(&g.first, &g.count, &g.hashes)
	if errors.Is(err, sql.ErrNoRows) || err == nil && entry >= g.first+g.count {
		return hashSegment{}, fmt.Errorf("the ledger is damaged: the hash of entry %d is not there", entry)
	}
	if err != nil {
		return hashSegment{}, readFault(err)
	}
	return g, nil
}

// ReadTile returns the bytes of a tile of hashes, or ErrNoEntry when the log is
// not that large.
func (s *Store) ReadTile(ctx context.Context, t tlog.Tile) ([]byte, error) {
	if t.H != ledger.TileHeight || t.L < 0 || t.L > 7 || t.N < 0 || t.W < 1 || t.W > 1<<ledger.TileHeight {
		return nil, fmt.Errorf("tile %s: %w", ledger.TilePath(t), ErrNoEntry)
	}
	size, _ := s.Head()
	level := t.L * ledger.TileHeight
	// The tile's last hash is there when its last entry is.
	if t.N >= size>>ledger.TileHeight+1 || (t.N<<ledger.TileHeight+int64(t.W)) > size>>level {
		return nil, fmt.Errorf("tile %s: %w", ledger.TilePath(t), ErrNoEntry)
	}
	return tlog.ReadTileData(t, s.Hashes(ctx))
}

// Receipt returns the receipt of an entry under a checkpoint of now.
func (s *Store) Receipt(ctx context.Context, index int64) (ledger.Receipt, error) {
	entry, err := s.Entry(ctx, index)
	if err != nil {
		return ledger.Receipt{}, err
	}
	note, err := s.Checkpoint(ctx)
	if err != nil {
		return ledger.Receipt{}, err
	}
	c, err := ledger.OpenCheckpoint(note, s.opt.Verifier)
	if err != nil {
		return ledger.Receipt{}, err
	}
	return ledger.MakeReceipt(s.Hashes(ctx), entry, index, c)
}
