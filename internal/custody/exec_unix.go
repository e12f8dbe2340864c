//go:build unix

package custody

import (
	"os/exec"
	"syscall"
)

// own gives a program a process group of its own: what it started ends with it.
func own(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
