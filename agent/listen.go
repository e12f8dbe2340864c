package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Listen listens on a loopback address, "127.0.0.1:0", "[::1]:8500" or
// "localhost:0", and refuses any other: what listens there acts as the agent.
func Listen(addr string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listening on %q: it is not host:port", addr)
	}
	if strings.EqualFold(host, "localhost") {
		// Not looked up: a resolver's answer would decide who can connect.
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.IsLoopback() || ip.Zone() != "" {
		return nil, fmt.Errorf("listening on %q: only loopback is taken, like 127.0.0.1:0, because whoever can connect acts as the agent", addr)
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(ip.String(), port))
	if err != nil {
		return nil, fmt.Errorf("listening on %q: %w", addr, err)
	}
	return ln, nil
}

// ListenUnix listens on a new unix socket of mode 0600. A socket that is there
// and that nobody answers on, left by a crash, is replaced; anything else that
// is there is an error. Closing the listener removes the socket.
func ListenUnix(path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("listening on %s: something else than a socket is there", path)
		}
		if c, err := net.Dial("unix", path); err == nil {
			return nil, fmt.Errorf("listening on %s: somebody listens there already", path)
		} else if c != nil {
			_ = c.Close()
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	// A socket is made with what the process's umask leaves, and narrowed
	// afterwards: in between, others could connect. So it is made inside a
	// folder that nobody else can enter and moved when it is narrow. A crash
	// before the move leaves a folder .cf… with a dead socket behind.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".cf")
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	defer os.RemoveAll(dir)
	inner := filepath.Join(dir, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: inner, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w (a socket's path has at most about 100 characters)", path, err)
	}
	ln.SetUnlinkOnClose(false) // it would remove the name that it was made under
	err = os.Chmod(inner, 0o600)
	if err == nil {
		err = os.Rename(inner, path)
	}
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, errors.Join(err, ln.Close()))
	}
	return &unixListener{UnixListener: ln, path: path}, nil
}

// A unixListener is a listener whose socket was moved to path.
type unixListener struct {
	*net.UnixListener
	path string
	once sync.Once
	err  error
}

// Close stops listening and removes the socket. Further calls do nothing.
func (l *unixListener) Close() error {
	l.once.Do(func() {
		l.err = errors.Join(os.Remove(l.path), l.UnixListener.Close())
	})
	return l.err
}

// Addr returns the path that clients connect to.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }
