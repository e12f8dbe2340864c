package custody

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/counterfoil/counterfoil"
)

const (
	// providerPath is all that a program's environment has, so that nothing of the
	// server's gets there.
	providerPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

	// killWait is how long pipes may stay open once a program was killed: what it
	// started may hold them.
	killWait = time.Second

	// A file that is being replaced while it is run is busy for a moment.
	busyTries = 5
	busyPause = 20 * time.Millisecond
)

// program returns the file of a provider. Only a plain file in the folder of providers
// runs, which nobody but its owner may change; a link may lead to another file there.
func (c *Custody) program(name string) (string, error) {
	if c.cfg.Providers == "" {
		return "", errors.New("this server has no folder of providers")
	}
	if name == "" || name != filepath.Base(name) || name == "." || name == ".." || strings.ContainsAny(name, "/\\\x00") {
		return "", fmt.Errorf("%q is not the name of a provider", name)
	}
	dir, err := filepath.EvalSymlinks(c.cfg.Providers)
	if err != nil {
		return "", fmt.Errorf("finding the folder of providers: %w", err)
	}
	if err := private(dir, true); err != nil {
		return "", err
	}
	path, err := filepath.EvalSymlinks(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no provider %s in %s", name, c.cfg.Providers)
	}
	if err != nil {
		return "", fmt.Errorf("finding provider %s: %w", name, err)
	}
	if inside, err := filepath.Rel(dir, path); err != nil || !filepath.IsLocal(inside) {
		return "", fmt.Errorf("provider %s is a link out of %s", name, c.cfg.Providers)
	}
	for folder := filepath.Dir(path); folder != dir; folder = filepath.Dir(folder) {
		if err := private(folder, true); err != nil {
			return "", err
		}
	}
	return path, private(path, false)
}

// private refuses what others than the server's user and root may change, and what is no
// program.
func private(path string, folder bool) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("looking at a provider: %w", err)
	}
	mode := info.Mode()
	switch {
	case folder && !mode.IsDir():
		return fmt.Errorf("%s is not a folder", path)
	case !folder && !mode.IsRegular():
		return fmt.Errorf("%s is not a plain file", path)
	case mode.Perm()&0o022 != 0:
		return fmt.Errorf("%s has mode %04o: others could put their own program in its place; run: chmod go-w %s", path, mode.Perm(), path)
	case !folder && mode.Perm()&0o111 == 0:
		return fmt.Errorf("%s is not executable; run: chmod u+x %s", path, path)
	}
	return owned(path, info)
}

// run runs a provider: no shell, no argument but the resource's name, an empty environment
// but for PATH, nothing to read. It prints the secret, or an object with it and its
// lifetime; what it writes elsewhere is dropped, as it could be the secret.
func (c *Custody) run(ctx context.Context, name, resource string) (answer, error) {
	path, err := c.program(name)
	if err != nil {
		return answer{}, err
	}
	for try := 1; ; try++ {
		printed, err := start(ctx, path, resource)
		if !errors.Is(err, syscall.ETXTBSY) || try == busyTries {
			if err != nil {
				return answer{}, fmt.Errorf("running provider %s: %w", name, err)
			}
			return readPrinted(printed)
		}
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
			return answer{}, fmt.Errorf("running provider %s: %w", name, err)
		}
	}
}

func start(ctx context.Context, path, resource string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, path, resource)
	cmd.Env, cmd.Dir, cmd.WaitDelay = []string{providerPath}, filepath.Dir(path), killWait
	own(cmd)
	out := &bounded{most: maxPrinted + 2} // and a line break
	cmd.Stdout = out
	err := cmd.Run()
	endGroup(cmd)
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("it did not end within %s", askTimeout)
	case out.over:
		return nil, fmt.Errorf("it printed more than %d bytes", maxPrinted)
	case errors.As(err, &exit):
		return nil, fmt.Errorf("it ended with %s", exit.ProcessState)
	case err != nil:
		return nil, err
	}
	return out.b.Bytes(), nil
}

// readPrinted reads what a provider printed: an object where it begins like one, and
// otherwise the secret itself and at most one line break.
func readPrinted(b []byte) (answer, error) {
	if text := bytes.TrimSpace(b); bytes.HasPrefix(text, []byte("{")) {
		return readSaid(text)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	return answer{secret: counterfoil.NewSecret(text)}, nil
}

// A bounded takes so many bytes and ends whoever writes more.
type bounded struct {
	b    bytes.Buffer
	most int
	over bool
}

func (w *bounded) Write(p []byte) (int, error) {
	if w.b.Len()+len(p) > w.most {
		w.over = true
		return 0, errors.New("too much")
	}
	return w.b.Write(p)
}
