package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/daemon"
)

// awaitServer waits until a server that starts in another process takes
// requests on its admin socket, which it opens last, and returns its issuer.
func awaitServer(dir string) (string, error) {
	deadline := time.Now().Add(counterfoiltest.Timeout)
	for {
		if socket, err := daemon.FindSocket(dir); err == nil {
			if c, err := new(net.Dialer).DialContext(context.Background(), "unix", socket); err == nil {
				c.Close()
				break
			}
		}
		if time.Now().After(deadline) {
			return "", errors.New("no server came up in " + dir)
		}
		<-time.After(10 * time.Millisecond) // another process: there is nothing to wait on but its file
	}
	b, err := os.ReadFile(filepath.Join(dir, "public.url"))
	return strings.TrimSpace(string(b)), err
}

func replaceOnce(s, from, to string) (string, bool) {
	changed := strings.Replace(s, from, to, 1)
	return changed, changed != s
}
