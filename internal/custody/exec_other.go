//go:build !unix

package custody

import "os/exec"

func own(*exec.Cmd) {}
