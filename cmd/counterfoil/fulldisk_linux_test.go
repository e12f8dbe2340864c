package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

// limitFiles sets how large a process's files may become, which to a process is
// a disk that takes no more. It needs no privilege: only the soft limit moves.
func limitFiles(t *testing.T, pid int, bytes uint64) {
	t.Helper()
	const unlimited = ^uint64(0)
	limit := syscall.Rlimit{Cur: bytes, Max: unlimited}
	const rlimitFileSize = 1 // RLIMIT_FSIZE
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), rlimitFileSize, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	if errno != 0 {
		t.Fatalf("limiting the server's files: %v", errno)
	}
}

// TestADiskThatTakesNoMore shows that calls are refused while nothing can be
// recorded, that readiness says so, and that both recover without a restart.
func TestADiskThatTakesNoMore(t *testing.T) {
	t.Parallel()
	v, upstream, signer := newVictim(t)
	h := &hammer{t: t, issuer: v.issuer, signer: signer, client: http.DefaultClient, told: &told{calls: map[int]*callState{}}}
	token, _, code, err := h.login(t.Context(), "")
	if err != nil || code != "" {
		t.Fatalf("logging in: %v %s", err, code)
	}
	call := func() (int, counterfoil.Code) {
		status, code, _, err := h.call(t.Context(), h.fresh(token))
		if err != nil {
			t.Fatal(err)
		}
		return status, code
	}
	seen := func() int {
		calls, _ := upstream.Seen()
		return len(calls)
	}
	if status, code := call(); status != http.StatusOK || code != "" {
		t.Fatalf("before: HTTP %d %s", status, code)
	}
	before := seen()

	limitFiles(t, v.cmd.Process.Pid, 1)
	for range 3 {
		if status, code := call(); status != http.StatusServiceUnavailable || code != counterfoil.LedgerUnavailable {
			t.Errorf("with no room: HTTP %d %s", status, code)
		}
	}
	if _, _, code, err := h.login(t.Context(), ""); err != nil || code != counterfoil.LedgerUnavailable {
		t.Errorf("a token with no room: %s %v", code, err)
	}
	if n := seen(); n != before {
		t.Errorf("%d calls reached the upstream unrecorded", n-before)
	}
	if status, body := v.readiness(); status != http.StatusServiceUnavailable {
		t.Errorf("readiness with no room: HTTP %d %s", status, body)
	}

	limitFiles(t, v.cmd.Process.Pid, ^uint64(0))
	deadline := time.Now().Add(counterfoiltest.Timeout)
	for {
		status, body := v.readiness()
		if status == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not ready again: HTTP %d %s", status, body)
		}
		<-time.After(20 * time.Millisecond) // the server probes by itself
	}
	if status, code := call(); status != http.StatusOK || code != "" {
		t.Errorf("after: HTTP %d %s", status, code)
	}
	v.export()
}

// readiness asks the management listener.
func (v *victim) readiness() (int, string) {
	v.t.Helper()
	b, err := os.ReadFile(filepath.Join(v.dir, "management.url"))
	if err != nil {
		v.t.Fatal(err)
	}
	resp, err := http.Get(strings.TrimSpace(string(b)) + "/readyz")
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}
