//go:build unix

package custody

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// A provider gets the resource's name and PATH, and nothing else of the server's.
func TestProviderProgramsGetNothing(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.provider("p", `
if [ "$#" != 1 ] || [ "$1" != crm ]; then echo wrong-arguments; exit; fi
if [ "$(env | grep -v -e ^PATH= -e ^PWD= -e ^_= -e ^SHLVL= | wc -l)" != 0 ]; then env | head -1; exit; fi
if read -r line; then echo something-to-read; exit; fi
if [ "$(pwd -P)" != "`+real(t, filepath.Join(d.dir, "providers"))+`" ]; then pwd; exit; fi
echo token-of-crm`)
	d.wantReleased(with(counterfoil.UpstreamCredential{Exec: "p"}), "token-of-crm", "exec p")
}

func real(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWhatProviderProgramsSay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ script, says string }{
		"plain":           {`printf token-of-crm`, ""},
		"a line":          {`echo token-of-crm`, ""},
		"a DOS line":      {`printf 'token-of-crm\r\n'`, ""},
		"an object":       {`echo '{"secret":"token-of-crm","expires_in":5,"more":1}'`, ""},
		"noise beside":    {`echo token-of-nobody >&2; echo token-of-crm`, ""},
		"two lines":       {`echo token-of-crm; echo token-of-crm`, "printable ASCII"},
		"nothing":         {`exit 0`, "empty"},
		"a failure":       {`echo token-of-crm; exit 3`, "exit status 3"},
		"a signal":        {`echo token-of-crm; kill -9 $$`, "signal: killed"},
		"a broken object": {`echo '{"secret":"token-of-crm"'`, "strict JSON"},
		"too much":        {`echo token-of-crm; head -c 100000 /dev/zero | tr '\0' x`, "more than 8192 bytes"},
		"too long":        {`head -c 8193 /dev/zero | tr '\0' x`, "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			d.provider("p", c.script)
			res := with(counterfoil.UpstreamCredential{Exec: "p"})
			if c.says == "" {
				d.wantReleased(res, "token-of-crm", "exec p")
			} else {
				d.wantNot(res, c.says, "token-of-crm")
			}
			if strings.Contains(d.log.String(), "token-of") {
				t.Errorf("the log has what the program wrote: %s", d.log.String())
			}
		})
	}
}

// What others could have put there does not run.
func TestWhichProgramsRun(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	dir := filepath.Join(d.dir, "providers")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"good", "loose", "plain"} {
		d.provider(name, "echo token-of-crm")
	}
	must(os.Chmod(filepath.Join(dir, "loose"), 0o722))
	must(os.Chmod(filepath.Join(dir, "plain"), 0o600))
	must(os.Mkdir(filepath.Join(dir, "folder"), 0o700))
	must(os.Rename(filepath.Join(dir, "good"), filepath.Join(dir, ".good")))
	must(os.Symlink(".good", filepath.Join(dir, "good")))
	must(os.Symlink("/bin/echo", filepath.Join(dir, "out")))
	for folder, mode := range map[string]os.FileMode{".own": 0o755, ".open": 0o777} {
		must(os.Mkdir(filepath.Join(dir, folder), 0o700))
		d.provider(filepath.Join(folder, "p"), "echo token-of-crm")
		must(os.Chmod(filepath.Join(dir, folder), mode))
		must(os.Symlink(filepath.Join(folder, "p"), filepath.Join(dir, "in"+folder)))
	}
	for name, says := range map[string]string{
		"good": "", "in.own": "", "in.open": "others could put", "loose": "others could put", "plain": "not executable", "folder": "not a plain file", "out": "a link out of", "missing": "there is no provider",
		"../providers/good": "not the name", "/bin/echo": "not the name", "..": "not the name", ".": "not the name", "good arg": "there is no provider", "$(echo good)": "there is no provider",
	} {
		res := with(counterfoil.UpstreamCredential{Exec: name})
		res.Name = "crm-" + name
		err := d.Check(res)
		if says == "" {
			d.wantReleased(res, "token-of-crm", "exec "+name)
			must(err)
			continue
		}
		d.wantNot(res, says)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s passes the check: %v", name, err)
		}
	}
	must(os.Chmod(dir, 0o777))
	res := with(counterfoil.UpstreamCredential{Exec: "good"})
	d.wantNot(res, "others could put")
}

// What belongs to somebody else does not run: its owner may change it, whatever its mode.
func TestWhosePrograms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		owner, us int64
		ok        bool
	}{{0, 0, true}, {7, 7, true}, {0, 7, true}, {7, 0, false}, {7, 8, false}} {
		if err := ownedBy("p", c.owner, c.us); (err == nil) != c.ok {
			t.Errorf("of %d for %d: %v", c.owner, c.us, err)
		}
	}
	if os.Geteuid() != 0 {
		t.Log("only root gives files away: the rest is not tried")
		return
	}
	d := newDesk(t)
	d.provider("p", "echo token-of-crm")
	dir := filepath.Join(d.dir, "providers")
	res := with(counterfoil.UpstreamCredential{Exec: "p"})
	for _, path := range []string{filepath.Join(dir, "p"), dir} {
		if err := d.Check(res); err != nil {
			t.Fatal(err)
		}
		if err := os.Lchown(path, 4711, -1); err != nil {
			t.Fatal(err)
		}
		if err := d.Check(res); err == nil || !strings.Contains(err.Error(), "belongs to user 4711") {
			t.Errorf("%s of somebody else's passes: %v", path, err)
		}
		d.wantNot(res, "belongs to user 4711")
		d.pass(maxPause)
		if err := os.Lchown(path, 0, -1); err != nil {
			t.Fatal(err)
		}
	}
	d.wantReleased(res, "token-of-crm", "exec p")
}

// What a program leaves behind ends with it. The pipe ends when the last one that has it
// open for writing does.
func TestWhatAProgramStartedEndsWithIt(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	pipe := filepath.Join(d.dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	d.provider("p", `exec 3> `+pipe+`; echo here >&3; sleep 1000 > /dev/null 2>&1 & echo token-of-crm`)
	d.wantReleased(with(counterfoil.UpstreamCredential{Exec: "p"}), "token-of-crm", "exec p")
	if err := r.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != "here\n" {
		t.Errorf("what it started goes on: %q, %v", b, err)
	}
}

// The end of the server ends a program that never does, and what it started.
func TestStopEndsPrograms(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	pipe := filepath.Join(d.dir, "started")
	d.provider("p", `: > `+pipe+`; sleep 1000 & sleep 1000`)
	res := with(counterfoil.UpstreamCredential{Exec: "p"})
	ended := make(chan error)
	go func() {
		_, err := d.Release(t.Context(), res)
		ended <- err
	}()
	for {
		if _, err := os.Stat(pipe); err == nil {
			break
		}
	}
	d.Stop()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "did not end") {
		t.Errorf("it ended with %v", err)
	}
}
