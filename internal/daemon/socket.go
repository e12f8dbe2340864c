package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// SocketName is the admin socket's name in the data folder. Where its whole
// path is too long for a socket, a file of this name with PointerSuffix says
// where the socket is.
const (
	SocketName    = "admin.sock"
	PointerSuffix = ".path"
)

// maxSocketPath is what fits into sockaddr_un everywhere (104 bytes with the
// closing NUL on some systems).
const maxSocketPath = 103

// FindSocket returns where the admin socket of a data folder is.
func FindSocket(dir string) (string, error) {
	path := filepath.Join(dir, SocketName)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	b, err := os.ReadFile(path + PointerSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("no server runs on %s: there is no %s; start one with counterfoil serve, or name its folder with --data or COUNTERFOIL_DATA", dir, SocketName)
	}
	if err != nil {
		return "", fmt.Errorf("reading where the admin socket is: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// listenAdmin opens the admin socket. Whoever can open it is an administrator,
// so the folder (0700) and the socket (0600) are the whole of its protection.
// The data folder is locked by the store at this time, so a socket that is
// there was left by a crash.
func listenAdmin(dir string) (net.Listener, func(), error) {
	path := filepath.Join(dir, SocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("removing the old admin socket: %w", err)
	}
	cleanup := func() {}
	if len(path) > maxSocketPath {
		short, err := os.MkdirTemp("", "counterfoil-")
		if err != nil {
			return nil, nil, fmt.Errorf("making a folder for the admin socket: %w", err)
		}
		pointer := path + PointerSuffix
		path = filepath.Join(short, SocketName)
		if err := writePrivate(pointer, []byte(path+"\n")); err != nil {
			return nil, nil, err
		}
		cleanup = func() {
			os.Remove(pointer)
			os.RemoveAll(short)
		}
	}
	// The socket is made in a folder that only we can enter, so there is no
	// moment in which somebody else opens it before the chmod.
	ln, err := net.Listen("unix", path)
	if err == nil {
		if err = os.Chmod(path, 0o600); err != nil {
			ln.Close()
		}
	}
	if err != nil {
		cleanup()
		return nil, nil, fmt.Errorf("opening the admin socket: %w", err)
	}
	return ln, cleanup, nil
}

type actorKey struct{}

// withActor is the ConnContext of the admin server.
func withActor(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, actorKey{}, peerActor(c))
}

// actorOf returns who speaks on the admin socket; empty when the kernel did
// not say, which the admin routes refuse.
func actorOf(ctx context.Context) string {
	s, _ := ctx.Value(actorKey{}).(string)
	return s
}
