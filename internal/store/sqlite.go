package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/counterfoil/counterfoil"
)

// Everything that is SQLite's is in this file and in schema/: another dialect
// is another table of statements and another writer.

// A statement names a text of the dialect.
type statement int

const (
	begin statement = iota
	commit
	rollback
	savepoint
	rollbackTo
	release

	readHead
	insertSegment
	insertPayload
	putMeta
	getMeta
	nextRevision

	putDocument
	deleteDocument
	readDocuments

	insertAgent
	agentStatus
	suspendAgent
	resumeAgent
	offboardAgent
	voidTokens
	readAgents

	insertInstance
	endInstance
	suspectInstance
	showKey
	releaseInstance
	countQuarantined
	instanceStatus
	endInstancesOfAgent
	keptInstancesOfAgent
	readInstances

	insertKey
	keyOwner
	endKeysOfInstance
	endKeysOfAgent
	liveKeysOfAgent
	countProofKeys
	readKeys

	useAssertion
	findAssertion
	purgeAssertions
	purgeCodes
	putCode
	spendCode

	putSigningKey
	readSigningKeys

	putPin
	putFirstPin
	dropPins
	dropFirstPin
	readPins

	readApproval
	openApprovalOfCall
	keyUses
	countPending
	insertApproval
	moveApproval
	approveApproval
	spendApproval
	finishApproval
	eraseApproval
	insertSignature
	openOfAgent
	openOfInstance
	openOfSigner
	openOfPasskey

	sumTakings
	insertTaking

	insertPasskey
	readPasskey
	readPasskeysOf
	anyPasskey
	usePasskey
	endPasskey
	releasePasskey
	putPersonCode
	readPersonCode
	spendPersonCode
	dropPersonCode
	purgePersonCodes
	findDocument

	insertProposal
	readProposal
	readProposals
	deleteProposal

	fillProbe
	freeProbe

	checkpointWAL

	statements // their number
)

var sqliteTexts = [statements]string{
	begin:      `BEGIN IMMEDIATE`,
	commit:     `COMMIT`,
	rollback:   `ROLLBACK`,
	savepoint:  `SAVEPOINT decision`,
	rollbackTo: `ROLLBACK TO decision`,
	release:    `RELEASE decision`,

	readHead:      `SELECT first + count FROM segments ORDER BY first DESC LIMIT 1`,
	insertSegment: `INSERT INTO segments (first, count, hashes, data) VALUES (?, ?, ?, ?)`,
	insertPayload: `INSERT INTO payloads (entry, salt, payload) VALUES (?, ?, ?)`,
	putMeta:       `INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value`,
	getMeta:       `SELECT value FROM meta WHERE name = ?`,
	nextRevision:  `UPDATE meta SET value = ?2 WHERE name = 'revision' AND value = ?1`,

	putDocument:    `INSERT INTO documents (kind, name, body) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET body = excluded.body`,
	deleteDocument: `DELETE FROM documents WHERE kind = ? AND name = ?`,
	readDocuments:  `SELECT kind, name, body FROM documents`,

	insertAgent:  `INSERT INTO agents (name, status, epoch) VALUES (?, 'active', ?) ON CONFLICT DO NOTHING`,
	agentStatus:  `SELECT status, epoch FROM agents WHERE name = ?`,
	suspendAgent: `UPDATE agents SET status = 'suspended', epoch = max(epoch + 1, ?2) WHERE name = ?1 AND status = 'active'`,
	// An active agent is resumed for the instances that are released with it: ?3.
	resumeAgent: `UPDATE agents SET status = 'active', epoch = max(epoch + 1, ?2)
		WHERE name = ?1 AND (status = 'suspended' OR status = 'active' AND ?3)`,
	offboardAgent: `UPDATE agents SET status = 'offboarded', epoch = max(epoch + 1, ?2)
		WHERE name = ?1 AND status <> 'offboarded'`,
	voidTokens: `UPDATE agents SET epoch = max(epoch + 1, ?2) WHERE name = ?1 AND status <> 'offboarded'`,
	readAgents: `SELECT name, status, epoch FROM agents`,

	insertInstance: `INSERT INTO instances (id, agent, jkt, jwk, alg, status, enrolled, how)
		VALUES (?, ?, ?, ?, ?, 'active', ?, ?) ON CONFLICT DO NOTHING`,
	endInstance: `UPDATE instances SET status = 'ended' WHERE id = ?1 AND agent = ?2 AND status <> 'ended'`,
	// One statement decides that it was not suspected since, so that the same
	// sightings, read back by a start, are one suspicion. A foreign use (?6) that was
	// recorded before is one of them.
	suspectInstance: `UPDATE instances SET suspected = max(suspected, ?3), status = CASE WHEN ?5 THEN 'quarantined' ELSE status END
		WHERE id = ?1 AND agent = ?2 AND status = 'active' AND suspected < ?4 AND (NOT ?6 OR shown < ?4)`,
	showKey: `UPDATE instances SET shown = max(shown, ?3) WHERE id = ?1 AND agent = ?2 AND status = 'active' AND shown < ?4`,
	releaseInstance: `UPDATE instances SET status = 'active', suspected = max(suspected, ?3), shown = max(shown, ?3)
		WHERE id = ?1 AND agent = ?2 AND status = 'quarantined'`,
	countQuarantined:     `SELECT count(*) FROM instances WHERE agent = ? AND status = 'quarantined'`,
	instanceStatus:       `SELECT status FROM instances WHERE id = ? AND agent = ?`,
	endInstancesOfAgent:  `UPDATE instances SET status = 'ended' WHERE agent = ?`,
	keptInstancesOfAgent: `SELECT id FROM instances WHERE agent = ? AND status <> 'ended' ORDER BY id`,
	readInstances:        `SELECT id, agent, jkt, jwk, alg, status, enrolled, how, suspected, shown FROM instances`,

	insertKey:         `INSERT INTO keys (jkt, agent, instance, registered, live) VALUES (?, ?, ?, ?, 1) ON CONFLICT DO NOTHING`,
	keyOwner:          `SELECT agent, instance, live FROM keys WHERE jkt = ?`,
	endKeysOfInstance: `UPDATE keys SET live = 0 WHERE instance = ?`,
	endKeysOfAgent:    `UPDATE keys SET live = 0 WHERE agent = ?`,
	liveKeysOfAgent:   `SELECT jkt FROM keys WHERE agent = ? AND live = 1 ORDER BY jkt`,
	countProofKeys:    `SELECT count(*) FROM keys WHERE instance = ? AND registered = 0 AND live = 1`,
	readKeys:          `SELECT jkt, agent, instance, registered, live FROM keys`,

	// One statement decides both: that the id is new, and that whoever uses it
	// is live at that epoch.
	findAssertion: `SELECT 1 FROM assertions WHERE id = ?`,
	useAssertion: `INSERT INTO assertions (id, until)
		SELECT ?1, ?2 WHERE EXISTS (
			SELECT 1 FROM agents a JOIN instances i ON i.agent = a.name
			WHERE a.name = ?3 AND a.status = 'active' AND a.epoch = ?4 AND i.id = ?5 AND i.status = 'active')
		ON CONFLICT DO NOTHING`,
	purgeAssertions: `DELETE FROM assertions WHERE until < ?`,
	purgeCodes:      `DELETE FROM codes WHERE expires < ?`,
	putCode:         `INSERT INTO codes (hash, agent, expires) VALUES (?, ?, ?)`,
	spendCode:       `DELETE FROM codes WHERE hash = ?1 AND agent = ?2 AND expires > ?3`,

	putSigningKey: `INSERT INTO signing_keys (kid, purpose, alg, state, jwk, sealed, created, active, retired)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET state = excluded.state, sealed = excluded.sealed,
			active = excluded.active, retired = excluded.retired
		WHERE purpose = excluded.purpose AND alg = excluded.alg AND jwk = excluded.jwk`,
	readSigningKeys: `SELECT kid, purpose, alg, state, jwk, sealed, created, active, retired FROM signing_keys ORDER BY created, kid`,

	putPin: `INSERT INTO pins (resource, tool, digest, how) VALUES (?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET digest = excluded.digest, how = excluded.how`,
	putFirstPin:  `INSERT INTO pins (resource, tool, digest, how) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`,
	dropPins:     `DELETE FROM pins WHERE resource = ?`,
	dropFirstPin: `DELETE FROM pins WHERE resource = ? AND tool = ? AND how = ?`,
	readPins:     `SELECT resource, tool, digest, how FROM pins`,

	readApproval:       approvalRows(wholeColumns, `WHERE id = ?`, ``),
	openApprovalOfCall: approvalRows(wholeColumns, openCall, `ORDER BY seq DESC LIMIT 1`),
	keyUses:            `SELECT state, call_digest FROM approvals WHERE agent = ? AND task = ? AND key = ? AND key <> '' AND kind = 'call'`,
	// Those that are pending, and those that ended without anybody's decision and still
	// hold their calls.
	countPending: `SELECT count(CASE WHEN state = 'pending' AND expires > ?2 THEN 1 END), count(CASE WHEN (state <> 'pending' OR expires <= ?2) AND use_until = 0 THEN 1 END)
		FROM approvals WHERE erased = 0 AND state IN ('pending', 'expired', 'cancelled', 'superseded', 'revoked') AND agent = ?1`,
	insertApproval: `INSERT INTO approvals (id, state, kind, agent, instance, task, key, held, created, expires, use_until, closed, decided, reason,
			body, erased, call_digest, fields, statement, rendering, call)
		VALUES (?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, '', ?, 0, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
	// Of an approval that ran, closed says when it was spent.
	moveApproval: `UPDATE approvals SET state = ?3, reason = ?4, closed = CASE WHEN closed = 0 THEN ?5 ELSE closed END
		WHERE id = ?1 AND state = ?2`,
	approveApproval: `UPDATE approvals SET state = 'approved', use_until = ?2 WHERE id = ?1 AND state = 'pending'`,
	spendApproval:   `UPDATE approvals SET state = 'spent', decided = ?2, closed = ?3 WHERE id = ?1 AND state = 'approved'`,
	finishApproval:  `UPDATE approvals SET state = ?3, result = ?4 WHERE id = ?1 AND state = 'spent' AND decided = ?2`,
	eraseApproval: `UPDATE approvals SET erased = 1, call_digest = '', fields = NULL, statement = NULL, rendering = NULL, call = NULL, result = NULL
		WHERE id = ? AND state NOT IN ` + notErasable,
	insertSignature: `INSERT INTO signatures (approval, n, person, mailbox, passkey, decision, reason, member, at, record, digest)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
	openOfAgent:    `SELECT id, state FROM approvals WHERE state IN ('pending', 'approved') AND agent = ? ORDER BY seq`,
	openOfInstance: `SELECT id, state FROM approvals WHERE state IN ('pending', 'approved') AND agent = ? AND instance = ? ORDER BY seq`,
	openOfSigner: `SELECT id, state FROM approvals WHERE state IN ('pending', 'approved')
		AND id IN (SELECT approval FROM signatures WHERE person = ?) ORDER BY seq`,
	openOfPasskey: `SELECT id, state FROM approvals WHERE state IN ('pending', 'approved')
		AND id IN (SELECT approval FROM signatures WHERE passkey = ?) ORDER BY seq`,

	// In two halves, so that no sum overflows.
	sumTakings: `SELECT ifnull(sum(amount >> 32), 0), ifnull(sum(amount & 4294967295), 0) FROM takings
		WHERE class = ? AND field = ? AND agent = ? AND at > ?`,
	insertTaking: `INSERT INTO takings (class, field, agent, at, entry, amount) VALUES (?, ?, ?, ?, ?, ?)`,

	insertPasskey: `INSERT INTO passkeys (id, person, public_key, handle, aaguid, attested, sign_count, eligible, backed_up, transports,
			enrolled, usable_from, used, how, entry, status)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, 'active') ON CONFLICT DO NOTHING`,
	readPasskey:    `SELECT ` + passkeyColumns + ` FROM passkeys WHERE id = ?`,
	readPasskeysOf: `SELECT ` + passkeyColumns + ` FROM passkeys WHERE person = ? ORDER BY enrolled, entry`,
	anyPasskey:     `SELECT 1 FROM passkeys LIMIT 1`,
	// WebAuthn Level 3, Section 7.2, step 22: a count that is used only rises.
	usePasskey: `UPDATE passkeys SET sign_count = ?2, backed_up = ?3, used = max(used, ?4)
		WHERE id = ?1 AND status = 'active' AND (sign_count < ?2 OR sign_count = 0 AND ?2 = 0)`,
	endPasskey:       `UPDATE passkeys SET status = 'ended' WHERE id = ? AND status = 'active'`,
	releasePasskey:   `UPDATE passkeys SET usable_from = min(usable_from, ?2) WHERE id = ?1 AND status = 'active'`,
	putPersonCode:    `INSERT INTO person_codes (person, hash, how, expires) VALUES (?, ?, ?, ?)`,
	readPersonCode:   `SELECT person, how, expires FROM person_codes WHERE hash = ? AND expires > ?`,
	spendPersonCode:  `DELETE FROM person_codes WHERE hash = ?1 AND person = ?2 AND how = ?3 AND expires > ?4`,
	dropPersonCode:   `DELETE FROM person_codes WHERE person = ?`,
	purgePersonCodes: `DELETE FROM person_codes WHERE expires <= ?`,
	findDocument:     `SELECT 1 FROM documents WHERE kind = ? AND name = ?`,

	insertProposal: `INSERT INTO proposals (id, documents, digest, actor, approval, created, effective) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
	readProposal:   `SELECT approval, effective FROM proposals WHERE id = ?`,
	readProposals:  `SELECT id, documents, digest, actor, approval, created, effective FROM proposals ORDER BY created, id`,
	deleteProposal: `DELETE FROM proposals WHERE id = ?`,

	fillProbe: `INSERT INTO probe (id, room) VALUES (1, zeroblob(65536)) ON CONFLICT DO UPDATE SET room = excluded.room`,
	freeProbe: `DELETE FROM probe`,

	checkpointWAL: `PRAGMA wal_checkpoint(PASSIVE)`,
}

// Pieces of the texts above.
const (
	// An approval that an equal call attaches to.
	openCall = `WHERE kind = ? AND agent = ? AND task = ? AND call_digest = ? AND key = ?
		AND (state = 'pending' AND expires > ? OR state = 'approved' AND use_until > ?)`

	// What is open is still shown, what runs or is not known to have run is looked at.
	notErasable = `('pending', 'approved', 'spent', 'indeterminate')`

	// What an approval shows in a list, and all that it holds. They have the same names:
	// what an agent may make large is NULL in the first, and is not read from the disk.
	briefColumns = `statement, rendering, ` +
		`CASE WHEN kind <> 'call' THEN fields END AS fields, CASE WHEN kind <> 'call' THEN call END AS call, NULL AS result`
	wholeColumns = `statement, rendering, fields, call, result`

	passkeyColumns = `id, person, public_key, handle, aaguid, attested, sign_count, eligible, backed_up, transports,
		enrolled, usable_from, used, how, entry, status`
)

// approvalRows is the text that reads approvals, each with its signatures: one
// statement, so that both are of one moment.
func approvalRows(columns, where, order string) string {
	return `SELECT a.id, a.state, a.kind, a.key, a.held, a.created, a.expires, a.use_until, a.closed, a.decided, a.reason, a.body,
			a.call_digest, a.fields, a.statement, a.rendering, a.call, a.result,
			s.n, s.person, s.mailbox, s.passkey, s.decision, s.reason, s.member, s.at, s.record, s.digest
		FROM (SELECT seq, id, state, kind, key, held, created, expires, use_until, closed, decided, reason, body, call_digest, ` + columns + `
			FROM approvals ` + where + ` ` + order + `) a LEFT JOIN signatures s ON s.approval = a.id
		ORDER BY a.seq DESC, s.n`
}

// approvalFilter is the text that reads the approvals that a filter chooses, and its
// arguments. Only what is asked for is in the text, so that an index can serve it.
func approvalFilter(f counterfoil.ApprovalFilter) (text string, args []any) {
	where := []string{"1"}
	want := func(text string, values ...any) { where, args = append(where, text), append(args, values...) }
	if len(f.States) > 0 {
		marks := make([]any, len(f.States))
		for i, s := range f.States {
			marks[i] = string(s)
		}
		want(`state IN (?`+strings.Repeat(`, ?`, len(marks)-1)+`)`, marks...)
	}
	for _, m := range []struct{ column, value string }{{"kind", f.Kind}, {"agent", f.Agent}, {"call_digest", f.CallDigest}, {"key", f.Key}} {
		if m.value != "" {
			want(m.column+` = ?`, m.value)
		}
	}
	if f.Task != nil {
		want(`task = ?`, *f.Task)
	}
	if f.Signer != "" {
		want(`id IN (SELECT approval FROM signatures WHERE person = ?)`, f.Signer)
	}
	if f.Held {
		want(`held = 1`)
	}
	if f.Erasable {
		// SQLite would rather read all that ever was, which is in the order that is asked for.
		want(`seq IN (SELECT seq FROM approvals INDEXED BY approvals_kept WHERE erased = 0 AND state NOT IN ` + notErasable + `)`)
	}
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	// Not a parameter: SQLite plans by its value, and so would plan anew once it is
	// bound.
	columns := wholeColumns
	if f.Brief {
		columns = briefColumns
	}
	return approvalRows(columns, `WHERE `+strings.Join(where, ` AND `), `ORDER BY seq DESC LIMIT `+strconv.Itoa(limit)), args
}

// Texts of the reading connections.
const (
	textSegmentOf     = `SELECT first, count, hashes FROM segments WHERE first <= ? ORDER BY first DESC LIMIT 1`
	textDataOf        = `SELECT first, count, data FROM segments WHERE first <= ? ORDER BY first DESC LIMIT 1`
	textDataFrom      = `SELECT first, count, data FROM segments WHERE first >= ? AND first < ? ORDER BY first LIMIT 64`
	textDataBefore    = `SELECT first, count, data FROM segments WHERE first < ? ORDER BY first DESC LIMIT 64`
	textPayload       = `SELECT salt, payload FROM payloads WHERE entry = ?`
	applicationID     = 0x4354464c // "CTFL"
	quickCheckCeiling = 256 << 20
)

// A writer is the one connection that writes. It is used by one goroutine.
type writer interface {
	// exec runs a statement and returns how many rows it changed.
	exec(s statement, args ...driver.Value) (int64, error)
	// query runs a statement and calls row for each row. The values are the
	// row's to keep.
	query(s statement, row func([]driver.Value) error, args ...driver.Value) error
	close() error
}

// sqliteWriter uses the driver without database/sql in between: a statement of
// a batch costs half as much.
type sqliteWriter struct {
	conn  driver.Conn
	stmts [statements]driver.Stmt
	named []driver.NamedValue
}

func openWriter(ctx context.Context, path string) (*sqliteWriter, error) {
	c, err := sqlite.NewConnector(dataSource(path, "synchronous(FULL)", "cache_size(-16384)", "wal_autocheckpoint(0)"))
	if err != nil {
		return nil, err
	}
	conn, err := c.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &sqliteWriter{conn: conn}, nil
}

// openReaders returns the connections that read. They cannot write.
func openReaders(path string) (*sql.DB, error) {
	c, err := sqlite.NewConnector(dataSource(path, "query_only(1)"))
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(4)
	return db, nil
}

func dataSource(path string, pragmas ...string) string {
	q := url.Values{"_defensive": {"1"}}
	// First of all, wait for a checkpoint of ours rather than fail; then WAL,
	// in which a reader never blocks the writer.
	for _, p := range append([]string{"busy_timeout(5000)", "journal_mode(WAL)", "trusted_schema(0)"}, pragmas...) {
		q.Add("_pragma", p)
	}
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: q.Encode()}
	return u.String()
}

func (w *sqliteWriter) prepare(s statement) (driver.Stmt, error) {
	if w.stmts[s] == nil {
		st, err := w.conn.Prepare(sqliteTexts[s])
		if err != nil {
			return nil, err
		}
		w.stmts[s] = st
	}
	return w.stmts[s], nil
}

func (w *sqliteWriter) args(values []driver.Value) []driver.NamedValue {
	w.named = w.named[:0]
	for i, v := range values {
		w.named = append(w.named, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
	return w.named
}

func (w *sqliteWriter) exec(s statement, args ...driver.Value) (int64, error) {
	st, err := w.prepare(s)
	if err != nil {
		return 0, err
	}
	r, err := st.(driver.StmtExecContext).ExecContext(context.Background(), w.args(args))
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (w *sqliteWriter) query(s statement, row func([]driver.Value) error, args ...driver.Value) error {
	st, err := w.prepare(s)
	if err != nil {
		return err
	}
	rows, err := st.(driver.StmtQueryContext).QueryContext(context.Background(), w.args(args))
	if err != nil {
		return err
	}
	defer rows.Close()
	values := make([]driver.Value, len(rows.Columns()))
	for {
		if err := rows.Next(values); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := row(values); err != nil {
			return err
		}
	}
}

func (w *sqliteWriter) close() error {
	var errs []error
	for _, st := range w.stmts {
		if st != nil {
			errs = append(errs, st.Close())
		}
	}
	return errors.Join(append(errs, w.conn.Close())...)
}

// script runs text that is not a statement of the table: schemas and pragmas.
func (w *sqliteWriter) script(text string) error {
	_, err := w.conn.(driver.ExecerContext).ExecContext(context.Background(), text, nil)
	return err
}

// pragma returns the first value that a pragma answers, as text.
func (w *sqliteWriter) pragma(text string) (string, error) {
	rows, err := w.conn.(driver.QueryerContext).QueryContext(context.Background(), "PRAGMA "+text, nil)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	values := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(values); errors.Is(err, io.EOF) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	return fmt.Sprint(values[0]), nil
}

//go:embed schema/*.sql
var schemas embed.FS

// migrate brings the schema to this version, one numbered file in a
// transaction each: a crash in between leaves a database of an older version,
// which the next start takes further.
func (w *sqliteWriter) migrate(path string) error {
	files, err := schemas.ReadDir("schema")
	if err != nil {
		return err
	}
	id, err := w.pragma("application_id")
	if err != nil {
		return err
	}
	text, err := w.pragma("user_version")
	if err != nil {
		return err
	}
	version, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	if id != strconv.Itoa(applicationID) {
		tables, err := w.pragma("schema_version")
		if err != nil {
			return err
		}
		if id != "0" || version != 0 || tables != "0" {
			return fmt.Errorf("%s is a database of another program: name another file in storage", path)
		}
	}
	if version > len(files) {
		return fmt.Errorf("%s was written by a newer version of counterfoil (schema %d, this one knows %d): start that version, or restore a backup made by this one",
			path, version, len(files))
	}
	for i := version; i < len(files); i++ {
		b, err := schemas.ReadFile("schema/" + files[i].Name())
		if err != nil {
			return err
		}
		err = w.script(fmt.Sprintf("BEGIN IMMEDIATE;\n%s\nPRAGMA application_id = %d; PRAGMA user_version = %d;\nCOMMIT", b, applicationID, i+1))
		if err != nil {
			_ = w.script("ROLLBACK") // an error says that SQLite has done it
			return fmt.Errorf("bringing the schema to version %d: %w", i+1, err)
		}
	}
	return nil
}

// damaged reports whether err says that the file is not a sound database.
func damaged(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
		return true
	}
	return false
}
