package daemon

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// prepareFolder makes the data folder where it is missing. What is inside is
// the node's alone: a folder that others can enter is refused.
func prepareFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the data folder: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("looking at the data folder: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("the data folder %s has mode %04o: others could open the admin socket; run: chmod 700 %s", dir, mode, dir)
	}
	return nil
}

const kekSize = 32

// loadKEK reads the key-encryption key, or makes it where make is set and no
// file is there.
func loadKEK(path string, make bool) ([]byte, error) {
	text, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		if !make {
			return nil, fmt.Errorf("there is no key-encryption key at %s: put back the file that this data was made with, or for a new deployment make one: head -c 32 /dev/urandom | base64 > %s && chmod 600 %s", path, path, path)
		}
		kek := make32()
		if err := writePrivate(path, []byte(base64.StdEncoding.EncodeToString(kek)+"\n")); err != nil {
			return nil, err
		}
		return kek, nil
	}
	if err != nil {
		return nil, err
	}
	kek, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(kek) != kekSize {
		return nil, fmt.Errorf("the key-encryption key at %s is damaged: it should be 32 bytes in base64; put back the file that this data was made with", path)
	}
	return kek, nil
}

func make32() []byte {
	b := make([]byte, kekSize)
	rand.Read(b) // never fails: crypto/rand ends the process instead
	return b
}

// derive makes a key for one purpose out of the key-encryption key (RFC 5869),
// for keys that nothing needs once the process has another KEK.
func derive(kek []byte, purpose string) []byte {
	key, err := hkdf.Key(sha256.New, kek, nil, "counterfoil/"+purpose+"/1", 32)
	if err != nil {
		panic(err) // only for lengths that are not 32
	}
	return key
}

// readPrivate reads a file that holds a secret and refuses one that others can
// read.
func readPrivate(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path) // a pipe would be waited for
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o and holds a secret; run: chmod 600 %s", path, mode, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return b, nil
}

// writePrivate writes a new file with mode 0600. A crash leaves either no file
// or the whole one.
func writePrivate(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer os.Remove(tmp.Name()) // there is nothing left to remove after the rename
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// listen opens a listener and settles its address for the life of the data
// folder: tokens, keys and manifests name it, so it may never change. A URL
// with port 0 takes a free port on the first start and the same one after.
func listen(dir, name string, l *Listener, fallback string) (net.Listener, error) {
	kept := filepath.Join(dir, name+".url")
	b, err := os.ReadFile(kept)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the kept address: %w", err)
	}
	before := strings.TrimSpace(string(b))
	switch {
	case l.URL == "" && before != "":
		l.URL = before
	case l.URL == "":
		l.URL = fallback
	}
	u, err := url.Parse(l.URL)
	if err != nil {
		return nil, fmt.Errorf("reading %s.url: %w", name, err)
	}
	if u.Port() == "0" && before != "" {
		l.URL = before
		if u, err = url.Parse(before); err != nil {
			return nil, fmt.Errorf("reading the kept address in %s: %w", kept, err)
		}
	}
	if before != "" && before != l.URL {
		return nil, fmt.Errorf("%s.url is %s, but this data folder was made as %s (%s): tokens and manifests name that address; start with it, or use a new data folder", name, l.URL, before, kept)
	}
	addr := l.Listen
	if addr == "" {
		addr = hostPort(u)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening for %s: %w", name, err)
	}
	if u.Port() == "0" {
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		u.Host = net.JoinHostPort(u.Hostname(), port)
		l.URL = u.String()
	}
	if before == "" {
		if err := writePrivate(kept, []byte(l.URL+"\n")); err != nil {
			ln.Close()
			return nil, err
		}
	}
	return ln, nil
}

func hostPort(u *url.URL) string {
	host, port := u.Hostname(), u.Port()
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if port == "" {
		port = "80"
		if u.Scheme == "https" {
			port = "443"
		}
	}
	return net.JoinHostPort(host, port)
}
