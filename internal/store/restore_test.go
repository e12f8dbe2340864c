package store

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/ledger"
)

// A relic is a store whose newest entries are lost: old is a copy of its
// database from before them, kept its last checkpoint.
type relic struct {
	*fixture
	public   string // key of its log
	old      string
	kept     []byte
	signer   note.Signer // of the restored log
	verifier note.Verifier
}

// newRelic fills a store, copies it with backup, and works on.
func newRelic(t *testing.T) *relic {
	t.Helper()
	l := &relic{fixture: newFixture(t)}
	var secret string
	var err error
	if secret, l.public, err = ledger.GenerateKey(testOrigin); err != nil {
		t.Fatal(err)
	}
	if l.opt.Signer, err = ledger.ParseSigner(secret); err != nil {
		t.Fatal(err)
	}
	if l.opt.Verifier, err = ledger.ParseVerifier(l.public); err != nil {
		t.Fatal(err)
	}
	l.old = filepath.Join(l.dir, "old.db")
	s := l.open()
	ctx := t.Context()
	for i := range 5 {
		if err := s.Append(ctx, entry(ledger.ServerStarted, fmt.Sprint("started ", i))); err != nil {
			t.Fatal(err)
		}
	}
	l.edit(`
		INSERT INTO documents (kind, name, body) VALUES ('Person', 'ana', '{"name":"ana"}'), ('Person', 'bo', '{"name":"bo"}'), ('Resource', 'bank', '{"name":"bank"}'), ('Resource', 'books', '{"name":"books"}');
		INSERT INTO standing (kind, name, status, before) VALUES ('resource', 'books', 'active', 9000000000000), ('resource', 'past', 'suspended', 5);
		INSERT INTO passkeys (id, person, public_key, handle, aaguid, attested, sign_count, eligible, backed_up, transports, enrolled, usable_from, used, how, entry, status) VALUES
			(x'0102', 'bo', x'01', x'00', '', 0, 0, 1, 0, '[]', 7, 7, 0, 'first', 1, 'active'), (x'0103', 'bo', x'02', x'00', '', 0, 0, 1, 0, '[]', 8, 8, 0, 'added', 2, 'ended');
		INSERT INTO agents (name, status, epoch) VALUES ('payroll', 'active', 1), ('paused', 'suspended', 7), ('gone', 'offboarded', 9), ('ahead', 'active', 9000000000000);
		INSERT INTO instances (id, agent, jkt, jwk, alg, status, enrolled, how, old_jkt, old_until) VALUES
			('ins_1', 'payroll', 'k1', '{}', 'EdDSA', 'active', 1, 'code', 'k0', 9000000000000), ('ins_2', 'payroll', 'k2', '{}', 'EdDSA', 'ended', 2, 'code', '', 0);
		INSERT INTO keys (jkt, agent, instance, registered, live, until) VALUES ('k0', 'payroll', 'ins_1', 1, 1, 9000000000000), ('k1', 'payroll', 'ins_1', 1, 1, 0), ('k2', 'payroll', 'ins_2', 1, 0, 0),
			('b0', 'payroll', 'ins_1', 0, 1, 9000000000000), ('b1', 'payroll', 'ins_1', 0, 1, 0);
		INSERT INTO tasks (id, agent, opener, instance, parent, purpose, tools, opened, deadline, max_calls, calls, state, closed, reason) VALUES
			('tsk_1', 'payroll', 'payroll', 'ins_1', '', 'p', '[]', 1, 9000000000000, 0, 0, 'open', 0, ''),
			('tsk_2', 'payroll', 'payroll', 'ins_1', '', 'p', '[]', 1, 2, 0, 0, 'completed', 2, 'done');
		INSERT INTO assertions (agent, id, until, token, instance, task, epoch, expires) VALUES
			('payroll', x'01', 9000000000000, 'tok_live', 'ins_1', '', 1, 9000000000000), ('payroll', x'02', 1, 'tok_over', 'ins_1', '', 1, 1), ('payroll', x'03', 9000000000000, '', '', '', 0, 0);
		INSERT INTO codes (hash, agent, expires) VALUES (x'aa', 'payroll', 9000000000000);
		INSERT INTO person_codes (person, hash, how, expires) VALUES ('bo', x'bb', 'first', 9000000000000);
		INSERT INTO proposals (id, documents, digest, actor, approval, created, effective) VALUES ('prp_1', x'00', 'd', 'uid:0', '', 1, 2);
		INSERT INTO streams (id, agent, body, cursor, acked) VALUES ('str_1', 'payroll', '{}', 0, '[]');
		INSERT INTO credentials (name, sealed, stored, actor) VALUES ('crm', x'0102', 1, 'uid:0');
		INSERT INTO signing_keys (kid, purpose, alg, state, jwk, sealed, created, active, retired) VALUES ('sk1', 'access-token', 'ES256', 'active', x'00', x'01', 1, 1, 0), ('sk0', 'access-token', 'ES256', 'removed', x'00', NULL, 1, 1, 1);
		INSERT INTO approvals (id, state, kind, agent, instance, task, key, held, created, expires, use_until, closed, decided, reason, body, erased, call_digest) VALUES
			('apr_1', 'pending', 'call', 'payroll', 'ins_1', '', '', 0, 1, 9000000000000, 0, 0, 0, '', '{}', 0, 'd1'),
			('apr_2', 'approved', 'call', 'payroll', 'ins_1', '', '', 0, 1, 9000000000000, 9000000000000, 0, 0, '', '{}', 0, 'd2'),
			('apr_3', 'denied', 'call', 'payroll', 'ins_1', '', '', 0, 1, 9000000000000, 0, 5, 0, 'no', '{}', 0, 'd3')`)
	if _, err := s.Backup(ctx, l.old); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if err := s.Append(ctx, entry(ledger.ServerStarted, fmt.Sprint("lost ", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	l.kept = l.read(l.place())
	l.signer, l.verifier = testkit.LogKey(t, ledger.RestoredOrigin(testOrigin, 1))
	return l
}

func (l *relic) restoring() Restoring {
	return Restoring{Now: l.clock.Now, Signer: l.signer, OldKey: l.public, Known: [][]byte{l.kept}, Actor: "uid:0", Reason: "the disk died"}
}

// dump returns every row of the database but for the log's own tables.
func dump(t testing.TB, path string) string {
	t.Helper()
	f, err := openFile(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	var tables []string
	err = eachRow(context.Background(), f.reads, `SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name`, func(r []driver.Value) error {
		tables = append(tables, r[0].(string))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, table := range tables {
		err := eachRow(context.Background(), f.reads, `SELECT * FROM `+table, func(r []driver.Value) error {
			fmt.Fprintln(&b, table, r)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func one(t testing.TB, path, query string) string {
	t.Helper()
	f, err := openFile(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	var v sql.NullString
	if err := f.reads.QueryRowContext(context.Background(), query).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v.String
}

func TestRestoreVoids(t *testing.T) {
	t.Parallel()
	l := newRelic(t)
	// The control: before, all of it is in force.
	for query, want := range map[string]string{
		`SELECT status FROM agents WHERE name = 'payroll'`:                          "active",
		`SELECT count(*) FROM standing WHERE status = 'suspended'`:                  "1",
		`SELECT count(*) FROM tasks WHERE state = 'open'`:                           "1",
		`SELECT count(*) FROM approvals WHERE state IN ('pending', 'approved')`:     "2",
		`SELECT count(*) FROM signing_keys WHERE sealed IS NOT NULL`:                "1",
		`SELECT (SELECT count(*) FROM codes) + (SELECT count(*) FROM person_codes)`: "2",
		`SELECT count(*) FROM proposals`:                                            "1",
		`SELECT value FROM meta WHERE name = 'origin'`:                              testOrigin,
		`SELECT live FROM keys WHERE jkt = 'k0'`:                                    "1",
	} {
		if got := one(t, l.old, query); got != want {
			t.Fatalf("%s before: %s", query, got)
		}
	}
	done, err := RestoreCopy(t.Context(), l.old, l.restoring())
	if err != nil {
		t.Fatal(err)
	}
	now := fmt.Sprint(millis(l.clock.Now()))
	for query, want := range map[string]string{
		`SELECT status FROM agents WHERE name = 'payroll'`:                                 "suspended",
		`SELECT epoch FROM agents WHERE name = 'payroll'`:                                  now,
		`SELECT epoch FROM agents WHERE name = 'ahead'`:                                    "9000000000001",
		`SELECT status FROM agents WHERE name = 'gone'`:                                    "offboarded",
		`SELECT group_concat(kind || ' ' || name || ' ' || status) FROM standing`:          "person ana suspended,person bo suspended,resource bank suspended,resource books suspended,resource past suspended",
		`SELECT before FROM standing WHERE name = 'bank'`:                                  now,
		`SELECT before FROM standing WHERE name = 'past'`:                                  now,
		`SELECT before FROM standing WHERE name = 'books'`:                                 "9000000000000", // what was void stays void
		`SELECT group_concat(id || ' ' || state) FROM tasks`:                               "tsk_1 revoked,tsk_2 completed",
		`SELECT closed FROM tasks WHERE id = 'tsk_1'`:                                      now,
		`SELECT group_concat(id || ' ' || state) FROM approvals`:                           "apr_1 revoked,apr_2 revoked,apr_3 denied",
		`SELECT count(*) FROM signing_keys WHERE sealed IS NOT NULL OR state <> 'removed'`: "0",
		`SELECT name || hex(sealed) || stored || actor FROM credentials`:                   "crm01021uid:0", // an upstream's, which it takes still
		`SELECT (SELECT count(*) FROM codes) + (SELECT count(*) FROM person_codes) + (SELECT count(*) FROM proposals) + (SELECT count(*) FROM streams)`: "0",
		`SELECT value FROM meta WHERE name = 'origin'`:                  testOrigin + "/restored-1",
		`SELECT group_concat(jkt || ' ' || live) FROM keys`:             "b0 0,b1 1,k0 0,k1 1,k2 0",
		`SELECT old_jkt || old_until FROM instances WHERE id = 'ins_1'`: "0",
	} {
		if got := one(t, l.old, query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	v := done.Voided
	for what, got := range map[string][2][]string{
		"agents": {v.Agents, {"ahead", "paused", "payroll"}}, "people": {v.People, {"ana", "bo"}}, "tasks": {v.Tasks, {"tsk_1"}},
		"approvals": {v.Approvals, {"apr_1", "apr_2"}}, "tokens": {v.Tokens, {"tok_live"}}, "proposals": {v.Proposals, {"prp_1"}},
		"resources": {v.Resources, {"bank", "books", "past"}},
		"streams":   {v.Streams, {"str_1"}}, "signing keys": {v.SigningKeys, {"sk1"}}, "keys": {v.Keys, {"b0", "k0"}}, "instances": {done.Instances["payroll"], {"ins_1"}},
	} {
		if !slices.Equal(got[0], got[1]) {
			t.Errorf("%s: %v, want %v", what, got[0], got[1])
		}
	}
	if p := done.Passkeys["bo"]; len(done.Passkeys) != 1 || len(p) != 1 || p[0] != (Passkey{ID: "AQI", Enrolled: fromMillis(7), How: "first"}) {
		t.Errorf("passkeys: %+v", done.Passkeys)
	}
	if v.Codes != 2 || done.Index != 5 || done.Known != 9 || done.Lost() != 4 || done.From != testOrigin || done.Origin != testOrigin+"/restored-1" {
		t.Errorf("%+v", done)
	}
}

// The restored copy opens with its new key alone, and its log verifies with that.
func TestRestoredLog(t *testing.T) {
	t.Parallel()
	l := newRelic(t)
	old := l.read(l.old)
	done, err := RestoreCopy(t.Context(), l.old, l.restoring())
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t)
	f.opt.Signer, f.opt.Origin, f.opt.Begin = l.signer, l.signer.Name(), false
	f.opt.Verifier = l.verifier
	f.write(f.db(), l.read(l.old))
	f.write(f.place(), done.Checkpoint)
	l.clock.Advance(time.Second)
	f.opt.Now = l.clock.Now
	f.edit(`DELETE FROM approvals; DELETE FROM streams; DELETE FROM agents; DELETE FROM instances; DELETE FROM keys; DELETE FROM tasks`) // rows that no engine wrote
	s := f.open()
	if err := s.Append(t.Context(), entry(ledger.ServerStarted, "after")); err != nil {
		t.Fatal(err)
	}
	r := f.checkLedger(s, done.Checkpoint)
	if len(r.Restored) != 1 || r.Restored[0].Index != 5 || r.Restored[0].Known != 9 || r.Size != 7 {
		t.Errorf("%+v", r)
	}
	if _, err := verifyStore(t.Context(), s, ledger.VerifyOptions{Verifier: f.opt.Verifier, Earlier: l.kept}); err == nil || !strings.Contains(err.Error(), "from before the log was restored") {
		t.Errorf("against the old log's checkpoint: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// The old database and the old checkpoint do not go with the new key.
	newest := f.read(f.place())
	f.write(f.place(), l.kept)
	if _, err := f.tryOpen(); err == nil || !strings.Contains(err.Error(), "from before the log was restored") {
		t.Errorf("with the old checkpoint: %v", err)
	}
	f.write(f.place(), newest)
	f.write(f.db(), old)
	if _, err := f.tryOpen(); err == nil || !strings.Contains(err.Error(), "is from before this folder was restored") {
		t.Errorf("with the old database: %v", err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		spoil func(*relic, *Restoring)
		says  string
	}{
		"nothing":               {func(*relic, *Restoring) {}, ""},
		"no key of the old log": {func(_ *relic, r *Restoring) { r.OldKey, r.Known = "", nil }, ""},
		"no checkpoint":         {func(_ *relic, r *Restoring) { r.Known = nil }, ""},
		"no reason":             {func(_ *relic, r *Restoring) { r.Reason = "" }, "a reason"},
		"an entry changed": {func(l *relic, _ *Restoring) {
			l.editAt(l.old, `UPDATE segments SET data = CAST(replace(CAST(data AS TEXT), 'started 1', 'started 9') AS BLOB)`)
		}, "do not give the tree"},
		"an entry gone":     {func(l *relic, _ *Restoring) { l.editAt(l.old, `DELETE FROM segments WHERE first = 2`) }, "damaged"},
		"no entry":          {func(l *relic, _ *Restoring) { l.editAt(l.old, `DELETE FROM segments`) }, "no entry"},
		"another program's": {func(l *relic, _ *Restoring) { l.editAt(l.old, `PRAGMA application_id = 7`) }, "another program"},
		"a newer version's": {func(l *relic, _ *Restoring) { l.editAt(l.old, `PRAGMA user_version = 99`) }, "newer version"},
		"garbage":           {func(l *relic, _ *Restoring) { l.write(l.old, bytes.Repeat([]byte("garbage\n"), 1000)) }, "damaged"},
		"another log's key": {func(l *relic, r *Restoring) {
			var err error
			if _, r.OldKey, err = ledger.GenerateKey("other"); err != nil {
				l.t.Fatal(err)
			}
		}, "do not belong together"},
		"another log's entries":   {func(l *relic, r *Restoring) { r.Known = [][]byte{l.otherCheckpoint(3)} }, "are not those that a checkpoint"},
		"another log's newer end": {func(l *relic, r *Restoring) { r.Known = [][]byte{l.otherCheckpoint(30)} }, ""},
		"a clock that is behind":  {func(l *relic, _ *Restoring) { l.clock.Advance(-time.Hour) }, "--confirm-clock"},
		"and is right":            {func(l *relic, r *Restoring) { l.clock.Advance(-time.Hour); r.ConfirmClock = true }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newRelic(t)
			opt := l.restoring()
			row.spoil(l, &opt)
			_, err := RestoreCopy(t.Context(), l.old, opt)
			switch {
			case row.says == "" && err != nil:
				t.Errorf("it is refused: %v", err)
			case row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says)):
				t.Errorf("%v, want %q", err, row.says)
			}
			for _, suffix := range []string{"-wal", "-shm", "-journal"} {
				if _, err := os.Stat(l.old + suffix); row.says == "" && err == nil {
					t.Errorf("%s is beside it", suffix)
				}
			}
		})
	}
}

// otherCheckpoint signs with the log's key what is not its log.
func (l *relic) otherCheckpoint(size int64) []byte {
	l.t.Helper()
	var root [32]byte
	b, err := ledger.SignCheckpoint(l.opt.Signer, testOrigin, size, root)
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

func (l *relic) editAt(path, text string) {
	l.t.Helper()
	other := *l.fixture
	dir := l.t.TempDir()
	other.dir = dir
	if err := os.Rename(path, other.db()); err != nil {
		l.t.Fatal(err)
	}
	other.edit(text)
	if err := os.Rename(other.db(), path); err != nil {
		l.t.Fatal(err)
	}
}

// A restoration that ends half-way leaves the copy as it was: it is one transaction.
func TestRestoreIsOneTransaction(t *testing.T) {
	t.Parallel()
	l := newRelic(t)
	l.editAt(l.old, `CREATE TRIGGER late BEFORE INSERT ON segments BEGIN SELECT RAISE(ABORT, 'late'); END`)
	before := dump(t, l.old)
	if _, err := RestoreCopy(t.Context(), l.old, l.restoring()); err == nil || !strings.Contains(err.Error(), "late") {
		t.Fatalf("%v", err)
	}
	if after := dump(t, l.old); after != before {
		t.Errorf("it was changed:\n%s\nbefore:\n%s", after, before)
	}
	l.editAt(l.old, `DROP TRIGGER late`)
	if _, err := RestoreCopy(t.Context(), l.old, l.restoring()); err != nil {
		t.Fatal(err)
	}
	if after := dump(t, l.old); after == before {
		t.Error("nothing was changed")
	}
}

// More than an entry holds is in several, and nothing is left out.
func TestRestoreListsEverything(t *testing.T) {
	t.Parallel()
	l := newRelic(t)
	l.editAt(l.old, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
		INSERT INTO tasks (id, agent, opener, instance, parent, purpose, tools, opened, deadline, max_calls, calls, state, closed, reason)
		SELECT 'tsk_many_' || i, 'payroll', 'payroll', 'ins_1', '', 'p', '[]', 1, 9000000000000, 0, 0, 'open', 0, '' FROM n`)
	done, err := RestoreCopy(t.Context(), l.old, l.restoring())
	if err != nil {
		t.Fatal(err)
	}
	f, err := openFile(t.Context(), l.old)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	listed, entries := 0, 0
	err = f.Entries(t.Context(), done.Index, 1<<40, func(_ int64, b []byte) error {
		e, err := ledger.Parse(b)
		if err != nil {
			return err
		}
		entries++
		tasks, _ := e.Detail["voided"].(map[string]any)["tasks"].([]any)
		listed += len(tasks)
		return nil
	})
	if err != nil || listed != 5001 || entries != 3 || len(done.Voided.Tasks) != 5001 {
		t.Errorf("%d of %d tasks in %d entries: %v", listed, len(done.Voided.Tasks), entries, err)
	}
	c, err := ledger.OpenCheckpoint(done.Checkpoint, l.verifier)
	if err != nil || c.Size != done.Index+3 {
		t.Errorf("%+v %v", c, err)
	}
}

// A backup is of one moment, however much is written meanwhile, and is a database of
// its own.
func TestBackupUnderLoad(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.open()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int)
	for range 4 {
		go func() {
			n := 0
			for ctx.Err() == nil {
				if s.Append(context.WithoutCancel(ctx), entry(ledger.ServerStarted, "")) == nil {
					n++
				}
			}
			ended <- n
		}()
	}
	if err := s.Wait(t.Context(), 100); err != nil {
		t.Fatal(err)
	}
	var last int64
	for i := range 5 {
		path := filepath.Join(f.dir, fmt.Sprint("copy", i))
		c, err := s.Backup(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info, err)
		}
		signed, err := ledger.OpenCheckpoint(c.Checkpoint, f.opt.Verifier)
		if err != nil || signed.Size != c.Size || signed.Hash != c.Root || c.Size < last {
			t.Errorf("%+v %v", signed, err)
		}
		last = c.Size
		other := newFixture(t)
		other.opt.Signer, other.opt.Verifier = f.opt.Signer, f.opt.Verifier
		other.write(other.db(), other.read(path))
		if r := other.checkLedger(other.open(), c.Checkpoint); r.Size != c.Size {
			t.Errorf("the copy has %d entries, %d were signed", r.Size, c.Size)
		}
		if _, err := s.Backup(t.Context(), path); err == nil {
			t.Error("a second one takes its place")
		}
	}
	stop()
	for range 4 {
		<-ended
	}
	cancelled, end := context.WithCancel(t.Context())
	end()
	if _, err := s.Backup(cancelled, filepath.Join(f.dir, "none")); err == nil {
		t.Error("it is made for nobody")
	}
}
