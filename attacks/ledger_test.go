package attacks

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/daemon"
	"github.com/counterfoil/counterfoil/ledger"
)

// built is the folder of the binary that the tests run; TestMain removes it.
var built string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if built, err = os.MkdirTemp("", "counterfoil-attacks-"); err != nil {
			fmt.Fprintln(os.Stderr, "attacks:", err)
			return 1
		}
		defer os.RemoveAll(built)
		return m.Run()
	}())
}

// build links cmd/counterfoil, once, with the race detector when the test has
// it: everything is compiled that way already.
var build = sync.OnceValues(func() (string, error) {
	args := []string{"build", "-buildvcs=false"}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	bin := filepath.Join(built, "counterfoil")
	if out, err := exec.Command("go", append(args, "-o", bin, "../cmd/counterfoil")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("building counterfoil: %w\n%s", err, out)
	}
	return bin, nil
})

// command runs the program and returns how it ended.
func command(t *testing.T, args ...string) (exit int, stdout, stderr string) {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	var out, log bytes.Buffer
	cmd := exec.CommandContext(t.Context(), bin, args...)
	cmd.Stdout, cmd.Stderr = &out, &log
	err = cmd.Run()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		return failed.ExitCode(), out.String(), log.String()
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0, out.String(), log.String()
}

// A burgled world is a deployment as a thief with its database finds it: stopped, with a
// log of some length, and a checkpoint of it that somebody keeps elsewhere.
type burgled struct {
	*world
	folder  string // a copy of the data folder
	key     string // the log's public key
	kept    string // the checkpoint that somebody keeps elsewhere
	entries [][]byte
	header  string // first line of an export
	footer  string // last line of an export of all
}

func newBurgled(t *testing.T) *burgled {
	t.Helper()
	b := &burgled{world: newWorld(t), folder: t.TempDir()}
	outside := t.TempDir()
	b.key, b.kept = filepath.Join(outside, "ledger.pub"), filepath.Join(outside, "kept")
	for range 40 {
		if got := honestCall(t, b.world); !got.passed() {
			t.Fatalf("an honest call: %s", got)
		}
	}
	if got := b.sendCall(b.callOf(b.payroll, "list_payees", `{}`)); got.code != counterfoil.ToolNotGranted {
		t.Fatalf("a call that is refused: %s", got)
	}
	b.Restart() // what was only counted is recorded
	b.header, _, _ = strings.Cut(string(b.Export()), "\n")
	b.header += "\n"
	b.Stop()
	b.copy(b.Dir, b.folder)
	b.copyFile(filepath.Join(b.Dir, daemon.LedgerKeyName), b.key)
	b.copyFile(filepath.Join(b.Dir, "checkpoint"), b.kept)
	checkpoint, err := os.ReadFile(b.kept)
	if err != nil {
		t.Fatal(err)
	}
	footer, err := ijson.Marshal(map[string]string{"checkpoint": string(checkpoint)})
	if err != nil {
		t.Fatal(err)
	}
	b.footer = string(footer) + "\n"
	b.entries = b.stored()
	if len(b.entries) < 80 {
		t.Fatalf("the log has %d entries", len(b.entries))
	}
	return b
}

func (b *burgled) copyFile(from, to string) {
	b.T.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		b.T.Fatal(err)
	}
	if err := os.WriteFile(to, text, 0o600); err != nil {
		b.T.Fatal(err)
	}
}

// copy makes a folder's files those of another.
func (b *burgled) copy(from, to string) {
	b.T.Helper()
	for _, dir := range []string{to, from} {
		files, err := os.ReadDir(dir)
		if err != nil {
			b.T.Fatal(err)
		}
		for _, f := range files {
			switch {
			case !f.Type().IsRegular():
			case dir == to:
				if err := os.Remove(filepath.Join(to, f.Name())); err != nil {
					b.T.Fatal(err)
				}
			default:
				b.copyFile(filepath.Join(from, f.Name()), filepath.Join(to, f.Name()))
			}
		}
	}
}

// back puts the deployment back to where the thief found it.
func (b *burgled) back() {
	b.T.Helper()
	b.Stop()
	b.copy(b.folder, b.Dir)
}

func (b *burgled) database(use func(db *sql.DB) error) {
	b.T.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.Dir, "counterfoil.db"))
	if err != nil {
		b.T.Fatal(err)
	}
	if err := errors.Join(use(db), db.Close()); err != nil {
		b.T.Fatal(err)
	}
}

// stored reads the log out of the database.
func (b *burgled) stored() [][]byte {
	b.T.Helper()
	var all [][]byte
	b.database(func(db *sql.DB) error {
		rows, err := db.Query(`SELECT data FROM segments ORDER BY first`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var data []byte
			if err := rows.Scan(&data); err != nil {
				return err
			}
			all = append(all, bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))...)
		}
		return rows.Err()
	})
	return all
}

// store puts entries into the place of the log, with all hashes made to agree.
func (b *burgled) store(entries [][]byte) {
	b.T.Helper()
	b.database(func(db *sql.DB) error {
		if _, err := db.Exec(`DELETE FROM segments`); err != nil {
			return err
		}
		var tree ledger.Tree
		for i, e := range entries {
			var hashes []byte
			for _, h := range tree.Append(tlog.RecordHash(e), nil) {
				hashes = append(hashes, h[:]...)
			}
			if _, err := db.Exec(`INSERT INTO segments (first, count, hashes, data) VALUES (?, 1, ?, ?)`, i, hashes, append(slices.Clip(e), '\n')); err != nil {
				return err
			}
		}
		// How far the log was followed would show that it was longer.
		_, err := db.Exec(`DELETE FROM meta WHERE name = 'judged'`)
		return err
	})
}

// patch changes the entries in the database and none of the hashes.
func (b *burgled) patch(entries [][]byte) {
	b.T.Helper()
	b.database(func(db *sql.DB) error {
		rows, err := db.Query(`SELECT first, count FROM segments ORDER BY first`)
		if err != nil {
			return err
		}
		defer rows.Close()
		type segment struct{ first, count int }
		var all []segment
		for rows.Next() {
			var s segment
			if err := rows.Scan(&s.first, &s.count); err != nil {
				return err
			}
			all = append(all, s)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		for _, s := range all {
			data := bytes.Join(entries[s.first:s.first+s.count], []byte("\n"))
			if _, err := db.Exec(`UPDATE segments SET data = ? WHERE first = ?`, append(data, '\n'), s.first); err != nil {
				return err
			}
		}
		return nil
	})
}

// file writes entries as an export with the checkpoint that the log's key signed
// and all other lines made to agree.
func (b *burgled) file(entries [][]byte) string {
	b.T.Helper()
	var out strings.Builder
	out.WriteString(b.header)
	var tree ledger.Tree
	for i, e := range entries {
		fmt.Fprintf(&out, "%s\n", e)
		tree.Add(tlog.RecordHash(e))
		if (i+1)%64 == 0 {
			fmt.Fprintf(&out, "{\"tree\":{\"hash\":%q,\"size\":%d}}\n", tree.Root(), i+1)
		}
	}
	out.WriteString(b.footer)
	return b.write(out.String())
}

func (b *burgled) write(text string) string {
	b.T.Helper()
	f, err := os.CreateTemp(filepath.Dir(b.key), "*.export")
	if err != nil {
		b.T.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		b.T.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.T.Fatal(err)
	}
	return f.Name()
}

// export has the running server write its log.
func (b *burgled) export(t *testing.T) (path string, exit int) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "export")
	exit, _, _ = command(t, "ledger", "export", "-o", path, "--data", b.Dir)
	if _, err := os.Stat(path); exit != 0 && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an export that failed left a file")
	}
	return path, exit
}

// verify returns the exit code of ledger verify, and holds what it prints to it.
func (b *burgled) verify(t *testing.T, path string, more ...string) int {
	t.Helper()
	exit, out, log := command(t, append([]string{"ledger", "verify", path, "--key", b.key}, more...)...)
	if said := strings.Contains(out, "verified"); said != (exit == 0) || exit != 0 && !strings.Contains(log, "does not verify") {
		t.Errorf("exit %d with %q and %q", exit, out, log)
	}
	return exit
}

// renumbered makes every entry say the place where it stands, and the end of a
// call the decision that it ends.
func renumbered(t *testing.T, entries [][]byte) [][]byte {
	t.Helper()
	moved := map[int64]int64{}
	out := make([][]byte, len(entries))
	last := ""
	for i, b := range entries {
		e, err := ledger.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		moved[e.Index] = int64(i)
		e.Index, e.Time = int64(i), max(e.Time, last)
		if last = e.Time; e.Kind == ledger.CallFinished {
			e.Of = moved[e.Of]
		}
		if out[i], err = ledger.Encode(e); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestTamperedLog: a thief has the whole database, not the log's key. What it
// makes of the log never passes for the log: not as a file with the checkpoint
// that was signed, not in the place of the database. Where the thief also takes
// away the checkpoint beside the database, the server's own key signs what it
// finds, and only who kept a checkpoint elsewhere sees it: so that there is to be
// one.
func TestTamperedLog(t *testing.T) {
	t.Parallel()
	b := newBurgled(t)
	size := len(b.entries)
	index := func(has string) int {
		for i, e := range b.entries {
			if i > 20 && bytes.Contains(e, []byte(has)) {
				return i
			}
		}
		t.Fatalf("no entry has %s", has)
		return 0
	}
	call := index(`"kind":"call.finished"`)
	refusal := index(`"code":"tool_not_granted"`)
	replace := func(i int, old, text string) [][]byte {
		out := slices.Clone(b.entries)
		out[i] = bytes.Replace(out[i], []byte(old), []byte(text), 1)
		return out
	}
	swapped := slices.Clone(b.entries)
	swapped[call], swapped[call+1] = swapped[call+1], swapped[call]
	deleted := slices.Delete(slices.Clone(b.entries), call, call+2)
	forged := bytes.Replace(b.entries[call], []byte(`"agent":"payroll"`), []byte(`"agent":"auditor"`), 1)
	inserted := slices.Insert(slices.Clone(b.entries), call, forged)
	var rebuilt [][]byte
	for _, e := range b.entries {
		rebuilt = append(rebuilt, bytes.ReplaceAll(e, []byte("payroll"), []byte("auditor")))
	}
	for _, tc := range []struct {
		row, name string
		entries   [][]byte
		whole     bool // it is a log that a server could have written
	}{
		{"AU1", "one byte changed", replace(call, `"outcome":"succeeded"`, `"outcome":"succeedee"`), true},
		{"AU1", "one byte of the first entry changed", replace(0, `"version":"test"`, `"version":"tess"`), true},
		{"AU1", "one byte of the last entry changed", replace(size-1, `"kind":"server.stopped"`, `"kind":"server.stoppee"`), true},
		{"AU1", "a refusal made an allowance", replace(refusal, `"decision":"refuse"`, `"decision":"allow"`), true},
		{"AU1", "two swapped", swapped, false},
		{"AU1", "two swapped and renumbered", renumbered(t, swapped), true},
		{"AU1", "two deleted in the middle", deleted, false},
		{"AU1", "two deleted in the middle and the rest renumbered", renumbered(t, deleted), true},
		{"AU1", "the tail deleted", b.entries[:size-4], true},
		{"AU1", "the last one deleted", b.entries[:size-1], true},
		{"AU1", "one inserted", inserted, false},
		{"AU1", "one inserted and the rest renumbered", renumbered(t, inserted), true},
		{"AU1", "the whole chain made anew", rebuilt, true},
	} {
		t.Run(tc.row+" "+tc.name, func(t *testing.T) {
			defer b.in(t)()
			// The control: the log as it is, as a file and in its place.
			if honest := b.file(b.entries); b.verify(t, honest) != 0 || b.verify(t, honest, "--checkpoint", b.kept) != 0 {
				t.Fatal("the honest file does not verify")
			}
			if exit := b.verify(t, b.file(tc.entries)); exit != 1 {
				t.Errorf("as a file: exit %d", exit)
			}

			// In the place of the log, its hashes as they were.
			if len(tc.entries) == size {
				b.back()
				b.patch(tc.entries)
				if err := b.TryStart(); err == nil {
					path, exit := b.export(t)
					if exit == 0 && b.verify(t, path) == 0 {
						t.Error("in the place of the log: it is exported and verifies")
					}
				}
			}
			// The same, its hashes made to agree.
			b.back()
			b.store(tc.entries)
			if err := b.TryStart(); err == nil || !strings.Contains(err.Error(), "counterfoil restore") {
				t.Errorf("with hashes that agree: the server starts (%v)", err)
			}
			// The same, and no checkpoint beside the database.
			if err := os.Remove(filepath.Join(b.Dir, "checkpoint")); err != nil {
				t.Fatal(err)
			}
			if err := b.TryStart(); err != nil {
				if tc.whole {
					t.Errorf("without a checkpoint: %v", err)
				}
				return
			}
			path, exit := b.export(t)
			if exit != 0 {
				if tc.whole {
					t.Errorf("without a checkpoint: the export ends with %d", exit)
				}
				return
			}
			if got, want := b.verify(t, path), exitOf(tc.whole); got != want {
				t.Errorf("without a checkpoint: exit %d, want %d", got, want)
			}
			if exit := b.verify(t, path, "--checkpoint", b.kept); exit != 1 {
				t.Errorf("with a checkpoint that was kept elsewhere: exit %d", exit)
			}
		})
	}
	b.back()
	if err := b.TryStart(); err != nil {
		t.Fatalf("the folder as it was: %v", err)
	}
	if path, exit := b.export(t); exit != 0 || b.verify(t, path, "--checkpoint", b.kept) != 0 {
		t.Error("the folder as it was does not verify")
	}
	b.CheckLedger()
}

func exitOf(sound bool) int {
	if sound {
		return 0
	}
	return 1
}

// TestOldAndForkedLogs: a log that went back, or went two ways, is found by
// whoever has seen the other.
func TestOldAndForkedLogs(t *testing.T) {
	t.Parallel()
	b := newBurgled(t)
	live := func(name string) (export, checkpoint string) {
		b.T.Helper()
		b.Clock.Advance(time.Second)
		if got := honestCall(t, b.world); !got.passed() {
			b.T.Fatalf("%s: a call: %s", name, got)
		}
		b.Stop()
		checkpoint = filepath.Join(filepath.Dir(b.kept), strings.ReplaceAll(name, " ", "-"))
		b.copyFile(filepath.Join(b.Dir, "checkpoint"), checkpoint)
		b.Start()
		path, exit := b.export(t)
		if exit != 0 {
			b.T.Fatalf("%s: exporting: exit %d", name, exit)
		}
		return path, checkpoint
	}
	b.Start()
	first, seen := live("first branch")
	newer := t.TempDir()
	b.Stop()
	b.copy(b.Dir, newer)

	t.Run("AU2 an old database", func(t *testing.T) {
		defer b.in(t)()
		b.copyFile(filepath.Join(b.folder, "counterfoil.db"), filepath.Join(b.Dir, "counterfoil.db"))
		if err := b.TryStart(); err == nil || !strings.Contains(err.Error(), "counterfoil restore") {
			t.Errorf("the server starts (%v)", err)
		}
		b.copy(newer, b.Dir) // the control
		if err := b.TryStart(); err != nil {
			t.Errorf("the newer one: %v", err)
		}
	})
	var second, other string
	t.Run("AU2 an old folder, its checkpoint with it", func(t *testing.T) {
		defer b.in(t)()
		b.back()
		// Nothing on this machine knows better: whoever kept a checkpoint does.
		b.Start()
		path, exit := b.export(t)
		if exit != 0 || b.verify(t, path) != 0 || b.verify(t, path, "--checkpoint", b.kept) != 0 {
			t.Error("the old log does not verify by itself")
		}
		if exit := b.verify(t, path, "--checkpoint", seen); exit != 1 {
			t.Errorf("against the newer checkpoint: exit %d", exit)
		}
		second, other = live("second branch")
	})
	t.Run("AU2 a fork", func(t *testing.T) {
		defer b.in(t)()
		for _, tc := range []struct {
			export, checkpoint string
			exit               int
		}{{first, seen, 0}, {second, other, 0}, {first, b.kept, 0}, {second, b.kept, 0}, {first, other, 1}, {second, seen, 1}} {
			if exit := b.verify(t, tc.export, "--checkpoint", tc.checkpoint); exit != tc.exit {
				t.Errorf("%s against %s: exit %d, want %d", filepath.Base(tc.export), filepath.Base(tc.checkpoint), exit, tc.exit)
			}
		}
		// One branch's checkpoint refuses the other's folder.
		b.Stop()
		b.copyFile(seen, filepath.Join(b.Dir, "checkpoint"))
		if err := b.TryStart(); err == nil || !strings.Contains(err.Error(), "counterfoil restore") {
			t.Errorf("the server starts on the other branch (%v)", err)
		}
	})
}

// TestFilesThatAreNoLog: whatever the verifier is handed, it ends with 0 for the
// log alone.
func TestFilesThatAreNoLog(t *testing.T) {
	t.Parallel()
	b := newBurgled(t)
	stranger := newWorld(t)
	foreign := string(stranger.Export())
	_, foreignRest, _ := strings.Cut(foreign, "\n")
	foreignKey := filepath.Join(stranger.Dir, daemon.LedgerKeyName)
	honest := b.file(b.entries)
	text, err := os.ReadFile(honest)
	if err != nil {
		t.Fatal(err)
	}
	export := string(text)
	half := strings.Index(export, `"kind":"call.decided"`)
	whole := strings.Index(export[half:], "\n") + half + 1
	empty := b.write("")
	for _, tc := range []struct {
		name string
		path string
		more []string
	}{
		{"an empty file", empty, nil},
		{"a line feed", b.write("\n"), nil},
		{"the header alone", b.write(b.header), nil},
		{"cut in the middle of a record", b.write(export[:half]), nil},
		{"cut between two records", b.write(export[:whole]), nil},
		{"without its checkpoint", b.write(strings.TrimSuffix(export, b.footer)), nil},
		{"without its last line feed", b.write(strings.TrimSuffix(export, "\n")), nil},
		{"the checkpoint alone", b.kept, nil},
		{"the public key", b.key, nil},
		{"another log's file", b.write(foreign), nil},
		{"another log's file under this log's header", b.write(b.header + foreignRest), nil},
		{"this log with another log's checkpoint", b.write(strings.TrimSuffix(export, b.footer) + foreign[strings.LastIndex(strings.TrimSuffix(foreign, "\n"), "\n")+1:]), nil},
		{"this log twice", b.write(export + export), nil},
		{"two logs", b.write(export + foreign), nil},
		{"NUL bytes", b.write(strings.Repeat("\x00", 1<<20)), nil},
		{"one endless line", b.write(b.header + strings.Repeat("x", 8<<20)), nil},
		{"brackets", b.write(b.header + strings.Repeat("[", 1<<20) + "\n" + b.footer), nil},
		{"an empty object", b.write("{}"), nil},
		{"an empty receipt", b.write(`{"checkpoint":"","entry":{},"index":0,"proof":[]}`), nil},
		{"a receipt that is cut", b.write(`{"checkpoint":"`), nil},
		{"a list", b.write("[]\n"), nil},
		{"a folder", t.TempDir(), nil},
		{"nothing at all", filepath.Join(t.TempDir(), "nothing"), nil},
		{"another log's key", honest, []string{"--key", foreignKey}},
		{"an empty key", honest, []string{"--key", empty}},
		{"an empty checkpoint", honest, []string{"--checkpoint", empty}},
		{"another log's checkpoint to extend", honest, []string{"--checkpoint", filepath.Join(stranger.Dir, "checkpoint")}},
	} {
		t.Run("AU8 "+tc.name, func(t *testing.T) {
			if exit := b.verify(t, tc.path, tc.more...); exit != 1 {
				t.Errorf("exit %d", exit)
			}
			if exit := b.verify(t, honest); exit != 0 { // the control
				t.Errorf("the honest file: exit %d", exit)
			}
		})
	}
}
