package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"modernc.org/sqlite"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A database that was put back is older than what happened: what was revoked since is
// in force in it, what was used since is not. Nobody can tell what that is, so a
// restoration takes back all of it, in one transaction, and people let in again whom
// they know to be right.

// Lock keeps every other process away from the database at a URL, as an open store
// does, until release is called.
func Lock(url string) (release func() error, err error) {
	path, ok := strings.CutPrefix(url, "sqlite:")
	if !ok || path == "" {
		return nil, fmt.Errorf("locking the store %q: only sqlite:PATH is known", url)
	}
	l, err := takeLock(path + ".lock")
	if err != nil {
		return nil, err
	}
	return l.release, nil
}

// Adopt writes a copy of a database that nobody has open to a file that is not there
// yet, and leaves it as it is.
func Adopt(ctx context.Context, from, to string) error {
	if _, err := ReadLog(ctx, from); err != nil {
		return err
	}
	return compact(ctx, from, to)
}

// A Restoring says how a copy of a database is restored.
type Restoring struct {
	Now func() time.Time

	// Signer is the key of the log from now on; its name is the log's origin. No log
	// was ever signed with it.
	Signer note.Signer

	// OldKey is the public key of the log so far, empty where nobody has it, and Known
	// the checkpoints of it that were found. What they sign has to be in the copy, as
	// far as the copy goes.
	OldKey string
	Known  [][]byte

	Actor, Reason string

	// ConfirmClock restores a copy whose last entry is dated after the clock.
	ConfirmClock bool
}

// Restored is what a restoration did.
type Restored struct {
	ledger.Restoration
	Voided     Voided
	Instances  map[string][]string  // of each suspended agent, those that come back with it
	Passkeys   map[string][]Passkey // of each suspended person, those that come back with them
	Checkpoint []byte               // of the restored log
}

// A Passkey is one that the copy has of a person who is suspended.
type Passkey struct {
	ID       string    `json:"id"` // credential id, base64url
	Enrolled time.Time `json:"enrolled"`
	How      string    `json:"how"`
}

// Voided is what was taken away, each by its id or name.
type Voided struct {
	counterfoil.Voided
	People      []string `json:"people,omitzero"`    // suspended
	Resources   []string `json:"resources,omitzero"` // suspended
	Proposals   []string `json:"proposals,omitzero"`
	Streams     []string `json:"streams,omitzero"`      // of shared signals: their receivers make new ones
	SigningKeys []string `json:"signing_keys,omitzero"` // the issuer's, which the next start replaces
}

// RestoreCopy voids, in a copy of a database that is nobody else's, everything that
// must not come back, and begins its log anew under another key, in one transaction
// with the server.restored entries that say so. A crash leaves the copy as it was.
//
//   - The epoch of every agent rises, so that no token of before equals it; agents that
//     were active are suspended, and so are all people and all resources: each may have
//     been revoked since.
//   - Open tasks are closed and open approvals revoked; codes, changes that wait and
//     streams of shared signals are dropped; keys that instances had before end, with those bound beside them.
//   - The issuer's signing keys end, as one that was taken for compromised since would
//     sign again.
//
// Before that it reads the whole log and compares every entry with the tree.
func RestoreCopy(ctx context.Context, path string, opt Restoring) (Restored, error) {
	if opt.Now == nil || opt.Signer == nil || opt.Reason == "" {
		return Restored{}, errors.New("restoring: a clock, a key and a reason are needed")
	}
	r := restorer{opt: opt, path: path, now: opt.Now()}
	r.done.Instances, r.done.Passkeys = map[string][]string{}, map[string][]Passkey{}
	if err := r.prepare(ctx); err != nil {
		return Restored{}, err
	}
	if err := r.change(ctx); err != nil {
		return Restored{}, fmt.Errorf("restoring %s: %w", path, err)
	}
	return r.done, syncFile(path)
}

type restorer struct {
	opt  Restoring
	path string
	now  time.Time

	tree ledger.Tree
	last string // time of the last entry
	done Restored
}

// prepare brings the copy to this version and checks all of its log.
func (r *restorer) prepare(ctx context.Context) error {
	w, err := openWriter(ctx, r.path)
	if err == nil {
		err = w.migrate(r.path)
		if err == nil {
			var verdict string
			if verdict, err = w.pragma("quick_check(1)"); err == nil && verdict != "ok" {
				err = errors.New(verdict)
			}
		}
		if err == nil {
			_, err = w.pragma("journal_mode(DELETE)") // one file, and nothing beside it
		}
		err = errors.Join(err, w.close())
	}
	if err != nil {
		return fmt.Errorf("%s cannot be restored, it is damaged: %w", r.path, err)
	}
	f, err := openFile(ctx, r.path)
	if err != nil {
		return err
	}
	defer f.close()
	log, err := f.log(ctx)
	if err != nil {
		return err
	}
	hashes := f.Hashes(ctx)
	if r.tree, err = ledger.LoadTree(log.Size, hashes); err != nil {
		return err
	}
	if log.Size == 0 {
		return errors.New("the database has no entry: there is nothing to restore")
	}
	if r.last, err = f.rehash(ctx, 0, r.tree, hashes); err != nil {
		return fmt.Errorf("%s cannot be restored: %w", r.path, err)
	}
	last, err := ledger.ParseTime(r.last)
	if err != nil {
		return fmt.Errorf("reading the last entry: %w", err)
	}
	if last.Sub(r.now) > backstep && !r.opt.ConfirmClock {
		return fmt.Errorf("the clock says %s, but the last entry is of %s: set the clock right, or, when it is right, restore with --confirm-clock",
			ledger.FormatTime(r.now), r.last)
	}
	r.done.Restoration = ledger.Restoration{
		Index: log.Size, Actor: r.opt.Actor, Reason: r.opt.Reason, From: log.Origin, Key: r.opt.OldKey, Origin: r.opt.Signer.Name(),
	}
	return r.known(hashes)
}

// known finds the newest checkpoint of the log so far. One that signs other entries
// than the copy has says that the copy is not of that log.
func (r *restorer) known(hashes tlog.HashReader) error {
	if r.opt.OldKey == "" {
		return nil
	}
	verifier, err := ledger.ParseVerifier(r.opt.OldKey)
	if err != nil {
		return err
	}
	if verifier.Name() != r.done.From {
		return fmt.Errorf("the database has the log %q, the key is of %q: they do not belong together", r.done.From, verifier.Name())
	}
	for _, b := range r.opt.Known {
		c, err := ledger.OpenCheckpoint(b, verifier)
		if err != nil {
			return err
		}
		if c.Size <= r.done.Index {
			root, err := tlog.TreeHash(c.Size, hashes)
			if err != nil {
				return fmt.Errorf("reading the tree: %w", err)
			}
			if root != c.Hash {
				return fmt.Errorf("the first %d entries of the database are not those that a checkpoint of its log signs: it was changed, or is of another log; nothing was restored", c.Size)
			}
		}
		if c.Size >= r.done.Known {
			r.done.Known, r.done.Restoration.Checkpoint = c.Size, string(b)
		}
	}
	return nil
}

// change is the one transaction.
func (r *restorer) change(ctx context.Context) error {
	c, err := sqlite.NewConnector(plainSource(r.path, "synchronous(FULL)") + "&_txlock=immediate")
	if err != nil {
		return err
	}
	db := sql.OpenDB(c)
	defer db.Close()
	db.SetMaxOpenConns(1)
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := r.void(ctx, tx); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, sqliteTexts[putMeta], "origin", r.opt.Signer.Name()); err != nil {
		return fmt.Errorf("naming the log: %w", err)
	}
	for _, e := range r.entries() {
		if err := r.append(ctx, tx, e); err != nil {
			return err
		}
	}
	r.done.Checkpoint, err = ledger.SignCheckpoint(r.opt.Signer, r.opt.Signer.Name(), r.tree.Size(), r.tree.Root())
	if err != nil {
		return err
	}
	// A crash from here on leaves the copy restored or as it was. Whoever uses it does
	// so once this has returned.
	return tx.Commit()
}

// Texts of a restoration. ?1 is the time.
const (
	restoredReason = `'the server was restored'`
	notPresent     = `(until > 0 OR jkt IN (SELECT old_jkt FROM instances WHERE old_jkt <> ''))`

	textSuspendAgents = `UPDATE agents SET epoch = max(epoch + 1, ?1), status = CASE status WHEN 'active' THEN 'suspended' ELSE status END`
	textStanding      = `SELECT name FROM documents WHERE kind = ?1 UNION SELECT name FROM standing WHERE kind = ?2 ORDER BY 1`
	textSuspend       = `INSERT INTO standing (kind, name, status, before) VALUES (?1, ?2, 'suspended', ?3)
		ON CONFLICT DO UPDATE SET status = excluded.status, before = max(before, excluded.before)`
	textLivePasskeys  = `SELECT person, id, enrolled, how FROM passkeys WHERE status = 'active' ORDER BY person, enrolled, entry`
	textLiveInstances = `SELECT i.agent, i.id FROM instances i JOIN agents a ON a.name = i.agent WHERE a.status = 'suspended' AND i.status = 'active' ORDER BY i.agent, i.enrolled, i.id`
)

// restorations are what is taken, and how: what a query lists, a text then changes.
var restorations = []struct {
	what         string
	list, change string
	timed        bool
}{
	{what: "tokens", list: `SELECT token FROM assertions WHERE token <> '' AND expires > ?1 ORDER BY token`, timed: true},
	{what: "tasks", list: `SELECT id FROM tasks WHERE state = 'open' ORDER BY id`,
		change: `UPDATE tasks SET state = 'revoked', closed = ?1, reason = ` + restoredReason + ` WHERE state = 'open'`},
	{what: "approvals", list: `SELECT id FROM approvals WHERE state IN ('pending', 'approved') ORDER BY seq`,
		change: `UPDATE approvals SET state = 'revoked', closed = ?1, reason = ` + restoredReason + ` WHERE state IN ('pending', 'approved')`},
	{what: "proposals", list: `SELECT id FROM proposals ORDER BY created, id`, change: `DELETE FROM proposals WHERE ?1`},
	{what: "streams", list: `SELECT id FROM streams ORDER BY id`, change: `DELETE FROM streams WHERE ?1`},
	{what: "signing keys", list: `SELECT kid FROM signing_keys WHERE state <> 'removed' ORDER BY kid`,
		change: `UPDATE signing_keys SET state = 'removed', sealed = NULL WHERE ?1`},
	{what: "old keys", list: `SELECT jkt FROM keys WHERE live = 1 AND ` + notPresent + ` ORDER BY jkt`,
		change: `UPDATE keys SET live = 0 WHERE ?1 AND ` + notPresent},
	{what: "old keys of instances", change: `UPDATE instances SET old_jkt = '', old_jwk = '', old_alg = '', old_until = 0 WHERE ?1 AND old_jkt <> ''`},
	{what: "codes", list: `SELECT hash FROM codes UNION ALL SELECT hash FROM person_codes`, change: `DELETE FROM codes WHERE ?1`},
	{what: "people's codes", change: `DELETE FROM person_codes WHERE ?1`},
}

// void takes away what must not come back.
func (r *restorer) void(ctx context.Context, tx *sql.Tx) error {
	ms := millis(r.now)
	v := &r.done.Voided
	into := map[string]*[]string{
		"tokens": &v.Tokens, "tasks": &v.Tasks, "approvals": &v.Approvals, "proposals": &v.Proposals, "streams": &v.Streams,
		"signing keys": &v.SigningKeys, "old keys": &v.Keys, "codes": new([]string),
	}
	for _, t := range restorations {
		if t.list != "" {
			var args []any
			if t.timed {
				args = append(args, ms)
			}
			ids, err := namesOf(ctx, tx, t.list, args...)
			if err != nil {
				return fmt.Errorf("reading %s: %w", t.what, err)
			}
			*into[t.what] = ids
		}
		if t.change != "" {
			if _, err := tx.ExecContext(ctx, t.change, ms); err != nil {
				return fmt.Errorf("voiding %s: %w", t.what, err)
			}
		}
	}
	v.Codes = len(*into["codes"])
	return r.suspend(ctx, tx)
}

// suspend suspends every agent, every person and every resource.
func (r *restorer) suspend(ctx context.Context, tx *sql.Tx) error {
	if _, err := tx.ExecContext(ctx, textSuspendAgents, millis(r.now)); err != nil {
		return fmt.Errorf("suspending agents: %w", err)
	}
	v := &r.done.Voided
	var err error
	if v.Agents, err = namesOf(ctx, tx, `SELECT name FROM agents WHERE status = 'suspended' ORDER BY name`); err != nil {
		return fmt.Errorf("reading agents: %w", err)
	}
	if v.People, err = suspendAll(ctx, tx, counterfoil.KindPerson, counterfoil.TargetPerson, 0); err != nil {
		return err
	}
	if v.Resources, err = suspendAll(ctx, tx, counterfoil.KindResource, counterfoil.TargetResource, millis(r.now)); err != nil {
		return err
	}
	err = eachRow(ctx, tx, textLivePasskeys, func(row []driver.Value) error {
		person := row[0].(string)
		r.done.Passkeys[person] = append(r.done.Passkeys[person], Passkey{
			ID: base64.RawURLEncoding.EncodeToString(row[1].([]byte)), Enrolled: fromMillis(row[2].(int64)), How: row[3].(string),
		})
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading passkeys: %w", err)
	}
	return eachRow(ctx, tx, textLiveInstances, func(row []driver.Value) error {
		agent := row[0].(string)
		r.done.Instances[agent] = append(r.done.Instances[agent], row[1].(string))
		return nil
	})
}

// suspendAll suspends whoever is declared, or was, of a kind. Their tokens of before are
// void.
func suspendAll(ctx context.Context, tx *sql.Tx, documents string, kind counterfoil.TargetKind, before int64) ([]string, error) {
	names, err := namesOf(ctx, tx, textStanding, documents, string(kind))
	if err != nil {
		return nil, fmt.Errorf("reading who is a %s: %w", kind, err)
	}
	for _, name := range names {
		if _, err := tx.ExecContext(ctx, textSuspend, string(kind), name, before); err != nil {
			return nil, fmt.Errorf("suspending %s %q: %w", kind, name, err)
		}
	}
	return names, nil
}

// namesOf returns the first column of a query. What is no text is written in hex.
func namesOf(ctx context.Context, tx *sql.Tx, text string, args ...any) ([]string, error) {
	var out []string
	err := eachRow(ctx, tx, text, func(row []driver.Value) error {
		switch v := row[0].(type) {
		case string:
			out = append(out, v)
		case []byte:
			out = append(out, hex.EncodeToString(v))
		default:
			return fmt.Errorf("%T is not a name", v)
		}
		return nil
	}, args...)
	return out, err
}

// maxIDs is how many ids one entry lists: an entry has a bound, and a deployment may
// have more than fit.
const maxIDs = 2000

// entries returns what the log says of it: the first entry what log it was and how
// much was taken away, it and those after it each of them.
func (r *restorer) entries() []*ledger.Entry {
	v := &r.done.Voided
	lists := []struct {
		name string
		ids  []string
	}{
		{"agents", v.Agents}, {"people", v.People}, {"resources", v.Resources}, {"tasks", v.Tasks}, {"approvals", v.Approvals}, {"proposals", v.Proposals},
		{"streams", v.Streams}, {"keys", v.Keys}, {"signing_keys", v.SigningKeys}, {"tokens", v.Tokens},
	}
	detail := r.done.Detail()
	counts := map[string]any{"codes": v.Codes}
	detail["counts"] = counts
	first := &ledger.Entry{Kind: ledger.ServerRestored, Actor: r.opt.Actor, Reason: r.opt.Reason, Detail: detail}
	out := []*ledger.Entry{first}
	voided, room := map[string]any{}, maxIDs
	detail["voided"] = voided
	for _, l := range lists {
		counts[l.name] = len(l.ids)
		for rest := l.ids; len(rest) > 0; {
			if room == 0 {
				voided, room = map[string]any{}, maxIDs
				out = append(out, &ledger.Entry{Kind: ledger.ServerRestored, Actor: r.opt.Actor, Detail: map[string]any{"of": r.done.Index, "voided": voided}})
			}
			n := min(room, len(rest))
			voided[l.name], rest, room = rest[:n], rest[n:], room-n
		}
	}
	return out
}

// append adds an entry to the log, as the sequencer does.
func (r *restorer) append(ctx context.Context, tx *sql.Tx, e *ledger.Entry) error {
	draft, err := ledger.Prepare(e)
	if err != nil {
		return err
	}
	index, at := r.tree.Size(), max(r.last, ledger.FormatTime(r.now))
	data := draft.AppendTo(nil, index, at)
	var hashes []byte
	for _, h := range r.tree.Append(tlog.RecordHash(data), nil) {
		hashes = append(hashes, h[:]...)
	}
	if _, err := tx.ExecContext(ctx, sqliteTexts[insertSegment], index, int64(1), hashes, append(data, '\n')); err != nil {
		return fmt.Errorf("writing the entry: %w", err)
	}
	if index == r.done.Index {
		r.done.Time = at
	}
	return nil
}
