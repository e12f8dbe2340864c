package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
	"modernc.org/sqlite"

	"github.com/counterfoil/counterfoil/ledger"
)

// A Copy is a copy of the database as it was at one moment.
type Copy struct {
	Size       int64 // entries
	Root       tlog.Hash
	Checkpoint []byte // of them, signed
}

// Backup writes a copy of the database, as it is at one moment while work goes on, to
// a file that is empty or not there yet. The copy's log is compared with this one, so
// that a copy that was not made well is found now and not when it is needed.
//
// What was erased is not in it: pages that are not in use are not copied. While it is
// made, the WAL cannot begin anew and grows with what is committed meanwhile.
func (s *Store) Backup(ctx context.Context, path string) (Copy, error) {
	if err := compact(ctx, s.path, path); err != nil {
		return Copy{}, err
	}
	log, err := ReadLog(ctx, path)
	if err != nil {
		return Copy{}, fmt.Errorf("reading the copy: %w", err)
	}
	root, err := tlog.TreeHash(log.Size, s.Hashes(ctx))
	if err != nil {
		return Copy{}, fmt.Errorf("reading the tree: %w", err)
	}
	if log.Origin != s.opt.Origin || log.Root != root {
		return Copy{}, errors.New("the copy of the database does not have the log that was copied: the disk is damaged")
	}
	// What is committed is signed: the copy's head is a committed one.
	c, err := ledger.SignCheckpoint(s.opt.Signer, s.opt.Origin, log.Size, log.Root)
	if err != nil {
		return Copy{}, err
	}
	return Copy{Size: log.Size, Root: log.Root, Checkpoint: c}, nil
}

// compact writes what is in use of one database to another file, which then has no
// other file beside it. The new one is on the disk when it returns.
func compact(ctx context.Context, from, to string) error {
	size, err := createFile(to)
	if err != nil {
		return err
	}
	if size != 0 {
		return fmt.Errorf("copying the database: there is something at %s", to)
	}
	c, err := sqlite.NewConnector(dataSource(from))
	if err != nil {
		return fmt.Errorf("copying the database: %w", err)
	}
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(1)
	_, err = db.ExecContext(ctx, `VACUUM INTO ?`, to)
	if err = errors.Join(err, db.Close()); err == nil {
		err = syncFile(to)
	}
	if err != nil {
		return fmt.Errorf("copying the database: %w", err)
	}
	return nil
}

// syncFile makes what was written to a file durable.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// A Log is what a database file says of its log.
type Log struct {
	Origin string
	Size   int64
	Root   tlog.Hash
}

// ReadLog reads what log a database file has, without checking more of it than that
// it is a database of ours. Nobody else has it open, but for reading.
func ReadLog(ctx context.Context, path string) (Log, error) {
	r, err := openFile(ctx, path)
	if err != nil {
		return Log{}, err
	}
	defer r.close()
	return r.log(ctx)
}

// A looseFile is a database that no Store has open: one that was copied, or that is to be
// restored. Its reader stands in for that of a Store.
type looseFile struct{ *Store }

// openFile opens a database for reading. One that has a WAL beside it is read with
// that; a copy has none, and gets none.
func openFile(_ context.Context, path string) (looseFile, error) {
	// SQLite would make one.
	if info, err := os.Stat(path); err != nil {
		return looseFile{}, err
	} else if !info.Mode().IsRegular() || info.Size() == 0 {
		return looseFile{}, fmt.Errorf("%s is not a database", path)
	}
	c, err := sqlite.NewConnector(plainSource(path, "query_only(1)"))
	if err != nil {
		return looseFile{}, err
	}
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(2) // hashes are read while entries are
	return looseFile{&Store{path: path, reads: db}}, nil
}

// plainSource names a database that is left in the mode that it is in.
func plainSource(path, pragma string) string {
	q := url.Values{"_defensive": {"1"}, "_pragma": {"busy_timeout(5000)", "trusted_schema(0)", pragma}}
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: q.Encode()}
	return u.String()
}

func (f looseFile) close() { _ = f.reads.Close() } // nothing was written

// log reads the head of the log.
func (f looseFile) log(ctx context.Context) (Log, error) {
	var id string
	if err := f.reads.QueryRowContext(ctx, `PRAGMA application_id`).Scan(&id); err != nil {
		return Log{}, fmt.Errorf("reading %s: %w", f.path, err)
	}
	if id != strconv.Itoa(applicationID) {
		return Log{}, fmt.Errorf("%s is a database of another program", f.path)
	}
	var l Log
	if err := f.reads.QueryRowContext(ctx, sqliteTexts[getMeta], "origin").Scan(&l.Origin); err != nil {
		return Log{}, fmt.Errorf("reading the log's origin in %s: %w", f.path, err)
	}
	err := f.reads.QueryRowContext(ctx, sqliteTexts[readHead]).Scan(&l.Size)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return Log{}, fmt.Errorf("reading the head of the log in %s: %w", f.path, err)
	}
	tree, err := ledger.LoadTree(l.Size, f.Hashes(ctx))
	if err != nil {
		return Log{}, fmt.Errorf("reading the tree in %s: %w", f.path, err)
	}
	l.Root = tree.Root()
	return l, nil
}

// eachRow calls row for each row of a query. The values are the row's to keep.
func eachRow(ctx context.Context, q interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}, text string, row func([]driver.Value) error, args ...any) error {
	r, err := q.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer r.Close()
	columns, err := r.Columns()
	if err != nil {
		return err
	}
	for r.Next() {
		scanned, into, values := make([]any, len(columns)), make([]any, len(columns)), make([]driver.Value, len(columns))
		for i := range scanned {
			into[i] = &scanned[i]
		}
		if err := r.Scan(into...); err != nil {
			return err
		}
		for i, v := range scanned {
			values[i] = v
		}
		if err := row(values); err != nil {
			return err
		}
	}
	return r.Err()
}
