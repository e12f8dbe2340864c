//go:build unix

package custody

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
)

// own gives a program a process group of its own: what it started ends with it.
func own(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

// endGroup ends what a program left behind that has ended. Its group keeps its number
// from everybody else as long as there is somebody in it.
func endGroup(cmd *exec.Cmd) {
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // there may be nobody
	}
}

// owned refuses what belongs to somebody else than the server's user and root: its owner
// may change it, whatever its mode.
func owned(path string, info fs.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: whom it belongs to is not known", path)
	}
	return ownedBy(path, int64(stat.Uid), int64(os.Geteuid()))
}

func ownedBy(path string, owner, us int64) error {
	if owner == us || owner == 0 {
		return nil
	}
	return fmt.Errorf("%s belongs to user %d, who could put another program in its place; run: chown %d %s", path, owner, us, path)
}
