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

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
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

	fillProbe: `INSERT INTO probe (id, room) VALUES (1, zeroblob(65536)) ON CONFLICT DO UPDATE SET room = excluded.room`,
	freeProbe: `DELETE FROM probe`,

	checkpointWAL: `PRAGMA wal_checkpoint(PASSIVE)`,
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
