package daemon

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/ledger"
)

// A house is a data folder with a place for checkpoints elsewhere, and a backup of it
// that is older than it.
type house struct {
	t      *testing.T
	root   string
	cfg    Config
	backup string
	old    []byte // the database when the backup was made
	issuer string
	port   *sync.Mutex // held while the server runs: a copy has the same addresses
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, root: t.TempDir(), port: new(sync.Mutex)}
	local := Listener{URL: "http://localhost:0"}
	h.cfg = Config{Dev: true, Data: filepath.Join(h.root, "data"), Public: local, Management: local,
		Checkpoints: []string{"file:" + filepath.Join(h.root, "data", "checkpoint"), "file:" + filepath.Join(h.root, "elsewhere")}}
	h.backup = filepath.Join(h.root, "backup")
	h.run(func(d *Daemon) {
		f, err := os.OpenFile(h.backup, os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(d.Backup(t.Context(), f), f.Close()); err != nil {
			t.Fatal(err)
		}
		h.issuer = d.PublicURL()
	})
	h.old = h.read("data/counterfoil.db")
	h.run(func(d *Daemon) {
		for range 3 {
			if err := d.store.Append(t.Context(), &ledger.Entry{Kind: ledger.ConfigApplied, Actor: "uid:0"}); err != nil {
				t.Fatal(err)
			}
		}
	})
	return h
}

// copy returns the same house elsewhere: a first start makes keys, which takes time.
func (h *house) copy(t *testing.T) *house {
	t.Helper()
	c := &house{t: t, root: t.TempDir(), old: h.old, issuer: h.issuer, port: h.port}
	if err := os.CopyFS(filepath.Join(c.root, "copy"), os.DirFS(h.root)); err != nil {
		t.Fatal(err)
	}
	c.root = filepath.Join(c.root, "copy")
	c.cfg, c.backup = h.cfg, filepath.Join(c.root, "backup")
	c.cfg.Data = filepath.Join(c.root, "data")
	c.cfg.Checkpoints = []string{"file:" + filepath.Join(c.root, "data", "checkpoint"), "file:" + filepath.Join(c.root, "elsewhere")}
	err := filepath.WalkDir(c.root, func(path string, d fs.DirEntry, err error) error { // which a copy does not keep
		if err == nil && d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return errors.Join(err, os.Chmod(path, 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// start opens the daemon, lets it be used, and closes it.
func (h *house) start(use func(*Daemon)) error {
	h.port.Lock()
	defer h.port.Unlock()
	d, err := Open(h.t.Context(), h.cfg, Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if use != nil {
		use(d)
	}
	return d.Close()
}

func (h *house) run(use func(*Daemon)) {
	h.t.Helper()
	if err := h.start(use); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) read(name string) []byte {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.root, name))
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

func (h *house) write(name string, b []byte) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.root, name), b, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) remove(names ...string) {
	h.t.Helper()
	for _, name := range names {
		if err := os.RemoveAll(filepath.Join(h.root, name)); err != nil {
			h.t.Fatal(err)
		}
	}
}

// rollBack copies the old database over the new one.
func (h *house) rollBack() {
	h.remove("data/counterfoil.db-wal", "data/counterfoil.db-shm")
	h.write("data/counterfoil.db", h.old)
}

func (h *house) restore(req RestoreRequest) (Restored, error) {
	req.Reason, req.Actor = "the disk died", "uid:0"
	return Restore(h.t.Context(), h.cfg, req)
}

// files is what is below the house, each file with its digest, but for what another
// open of a database changes.
func (h *house) files() string {
	h.t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(h.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".lock") {
			return err
		}
		content, err := os.ReadFile(path)
		fmt.Fprintf(&b, "%s %x\n", path, sha256.Sum256(content))
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return b.String()
}

// wantRestored starts the folder and looks at what it has become.
func (h *house) wantRestored(done Restored) {
	h.t.Helper()
	h.run(func(d *Daemon) {
		if d.PublicURL() != h.issuer {
			h.t.Errorf("the issuer is %s, it was %s", d.PublicURL(), h.issuer)
		}
		b, err := d.books.Checkpoint(h.t.Context())
		if err != nil {
			h.t.Fatal(err)
		}
		c, err := ledger.OpenCheckpoint(b, d.books.verifier)
		if err != nil || c.Origin != done.Origin || !strings.HasSuffix(c.Origin, "/restored-1") {
			h.t.Errorf("%+v %v", c, err)
		}
		var export bytes.Buffer
		if err := d.books.Export(h.t.Context(), &export); err != nil {
			h.t.Fatal(err)
		}
		r, err := ledger.VerifyExport(&export, ledger.VerifyOptions{Verifier: d.books.verifier})
		if err != nil || len(r.Restored) != 1 || r.Restored[0].Reason != "the disk died" || r.Restored[0].Index != done.Index || done.Lost < 3 {
			h.t.Errorf("%+v, %d lost: %v", r, done.Lost, err)
		}
	})
	h.run(nil) // and once more, against the places
}

func TestRestore(t *testing.T) {
	t.Parallel()
	made, other := newHouse(t), newHouse(t)
	for name, row := range map[string]struct {
		before func(*house)
		from   bool
		says   string // why it is refused; empty: it is not
		aside  bool
	}{
		"the older database, copied back":        {before: (*house).rollBack},
		"and its key is gone":                    {before: func(h *house) { h.rollBack(); h.remove("data/ledger.key") }},
		"a backup over an old one that is newer": {before: (*house).rollBack, from: true, says: "leave --from away"},
		"a backup, and no database":              {before: func(h *house) { h.remove("data/counterfoil.db") }, from: true},
		"a backup, and garbage":                  {before: func(h *house) { h.write("data/counterfoil.db", []byte("garbage")) }, from: true},
		"a backup, and nothing but the KEK": {before: func(h *house) {
			kek := h.read("data/kek")
			h.remove("data")
			os.Mkdir(filepath.Join(h.root, "data"), 0o700)
			h.write("data/kek", kek)
		}, from: true},
		"a backup over a newer database": {before: func(*house) {}, from: true, says: "--move-aside"},
		"and it is moved aside":          {before: func(*house) {}, from: true, aside: true},
		"the newest database":            {before: func(*house) {}, says: "no checkpoint that is kept is newer"},
		"no database":                    {before: func(h *house) { h.remove("data/counterfoil.db") }, says: "--from"},
		"a damaged database":             {before: func(h *house) { h.write("data/counterfoil.db", h.old[:len(h.old)/2]) }, says: "adopting the database"},
		"another KEK": {before: func(h *house) {
			h.rollBack()
			h.write("data/kek", []byte("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"))
		}, says: "key-encryption key"},
		"a backup and another KEK": {before: func(h *house) {
			h.remove("data/counterfoil.db", "data/ledger.key")
			h.write("data/kek", []byte("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"))
		}, from: true, says: "does not belong to this key-encryption key"},
		"a backup that was cut": {before: func(h *house) {
			h.remove("data/counterfoil.db")
			b := h.read("backup")
			h.write("backup", b[:len(b)-4096])
		}, from: true, says: "cut"},
		"a backup of which a bit was changed": {before: func(h *house) {
			h.remove("data/counterfoil.db")
			b := h.read("backup")
			b[len(b)/2] ^= 1
			h.write("backup", b)
		}, from: true, says: "changed or is damaged"},
		"a place that takes nothing": {before: func(h *house) {
			h.rollBack()
			h.cfg.Checkpoints = append(h.cfg.Checkpoints, "file:"+filepath.Join(h.root, "nowhere", "checkpoint"))
		}, says: "make the place writable"},
		"another log's folder": {before: func(h *house) { h.write("data/counterfoil.db", other.old) }, says: "a folder of its own"},
		"a changed database":   {before: func(h *house) { h.rollBack(); h.write("elsewhere", h.otherCheckpoint()) }, says: "are not those that a checkpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := made.copy(t)
			row.before(h)
			req := RestoreRequest{MoveAside: row.aside}
			if row.from {
				req.From = h.backup
			}
			before := h.files()
			done, err := h.restore(req)
			if row.says != "" {
				if err == nil || !strings.Contains(err.Error(), row.says) {
					t.Errorf("%v, want %q", err, row.says)
				}
				if after := h.files(); after != before {
					t.Errorf("a refused restoration left\n%s\nof\n%s", after, before)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, kept := range done.Kept {
				if _, err := os.Stat(kept); err != nil {
					t.Errorf("what is kept: %v", err)
				}
			}
			h.wantRestored(done)
		})
	}
}

// otherCheckpoint is one that the log's own key signs of another log.
func (h *house) otherCheckpoint() []byte {
	h.t.Helper()
	kek, err := loadKEK(filepath.Join(h.cfg.Data, "kek"), false)
	if err != nil {
		h.t.Fatal(err)
	}
	public, err := ledger.ParseVerifier(string(bytes.TrimSpace(h.read("data/ledger.pub"))))
	if err != nil {
		h.t.Fatal(err)
	}
	signer, err := openLogKey("", public.Name(), kek, h.read("data/ledger.key"))
	if err != nil {
		h.t.Fatal(err)
	}
	b, err := ledger.SignCheckpoint(signer, signer.Name(), 2, [32]byte{1})
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

// Wherever the last steps end, the folder does not start, and the next restoration
// finishes them.
func TestRestoreBrokenOff(t *testing.T) {
	t.Parallel()
	made := newHouse(t)
	for steps := 0; ; steps++ {
		h := made.copy(t)
		h.rollBack()
		r := &restoration{cfg: &h.cfg, req: &RestoreRequest{Reason: "the disk died", Actor: "uid:0", Now: time.Now}, db: filepath.Join(h.cfg.Data, "counterfoil.db")}
		h.cfg.fill()
		if err := r.stage(t.Context()); err != nil {
			t.Fatal(err)
		}
		if steps > 2*len(r.plan.Moves) {
			return
		}
		for i, m := range r.plan.Moves {
			if i > steps/2 || i == steps/2 && steps%2 == 0 {
				break
			}
			if i == steps/2 { // half of it
				if exists(m.To) && m.From != "" {
					if err := os.Rename(m.To, m.Aside); err != nil {
						t.Fatal(err)
					}
				}
				break
			}
			if err := m.carryOut(); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.start(nil); err == nil || !strings.Contains(err.Error(), "run counterfoil restore again") {
			t.Errorf("after %d steps it starts: %v", steps, err)
		}
		done, err := h.restore(RestoreRequest{})
		if err != nil || !done.Again {
			t.Fatalf("after %d steps: %v", steps, err)
		}
		for _, m := range r.plan.Moves {
			if m.From != "" && (exists(m.From) || !exists(m.To)) {
				t.Errorf("after %d steps %s is not in its place", steps, m.To)
			}
		}
		if steps%5 == 0 {
			h.wantRestored(done)
		}
		if _, err := h.restore(RestoreRequest{}); err == nil || !strings.Contains(err.Error(), "start the server") {
			t.Errorf("and again: %v", err)
		}
	}
}

// A backup is refused to whoever changed it, at whichever byte.
func TestEveryByteOfABackupCounts(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	whole := h.read("backup")
	kek, err := loadKEK(filepath.Join(h.cfg.Data, "kek"), false)
	if err != nil {
		t.Fatal(err)
	}
	check := func(b []byte) (string, error) {
		var db bytes.Buffer
		read, err := CheckBackup(bytes.NewReader(b), &db)
		if err != nil {
			return "", err
		}
		return fmt.Sprint(read.Manifest, read.small, db.String()), read.sealed(kek)
	}
	says, err := check(whole)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(whole); i += 1 + len(whole)/1000 {
		b := bytes.Clone(whole)
		b[i] ^= 0x41
		// Between its files a tar has bytes that say nothing.
		if other, err := check(b); err == nil && other != says {
			t.Fatalf("byte %d of %d can be changed", i, len(whole))
		}
	}
	for i := 0; i < len(whole)-1024; i += 1 + len(whole)/100 {
		if _, err := check(whole[:i]); err == nil {
			t.Fatalf("it can be cut after %d of %d bytes", i, len(whole))
		}
	}
	if strings.Contains(string(whole), string(bytes.TrimSpace(h.read("data/kek")))) || bytes.Contains(whole, kek) {
		t.Error("the key-encryption key is in it")
	}
}

func TestABackupIsRecordedAndSealed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	b, err := CheckBackup(bytes.NewReader(h.read("backup")), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	m := b.Manifest
	if m.Issuer != h.issuer || !strings.HasSuffix(m.Origin, "/ledger") || m.Entries < 3 || len(m.Files) != 6 || len(m.Without) != 3 || len(b.SHA256) != 64 {
		t.Errorf("%+v", m)
	}
	h.run(func(d *Daemon) {
		found, err := d.store.Find(t.Context(), ledger.Filter{Kind: ledger.BackupMade})
		if err != nil || len(found) != 1 || found[0].Index >= m.Entries {
			t.Errorf("%+v %v", found, err)
		}
		// A KEK that does not open the folder's keys makes no backup that nobody could use.
		h.write("data/kek", []byte("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"))
		var out bytes.Buffer
		if err := d.Backup(t.Context(), &out); err == nil || out.Len() > 0 {
			t.Errorf("with another KEK: %v, %d bytes", err, out.Len())
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if err := d.Backup(ctx, &out); err == nil || out.Len() > 0 {
			t.Errorf("for nobody: %v, %d bytes", err, out.Len())
		}
	})
	left, err := filepath.Glob(filepath.Join(h.cfg.Data, copyPrefix+"*"))
	if err != nil || len(left) > 0 {
		t.Errorf("%v %v", left, err)
	}
}
