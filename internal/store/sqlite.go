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

// Everything that is SQLite's is in this file, in statements.go and in schema/:
// another dialect is another table of statements and another writer.

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
