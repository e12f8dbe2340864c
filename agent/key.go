package agent

import (
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/counterfoil/counterfoil/credential"
)

// maxKeyFile is far above any PKCS#8 file of a key that is taken.
const maxKeyFile = 16 << 10

// LoadKey reads a private key out of a PKCS#8 PEM file. The file must be
// readable by its owner alone: whoever reads the key is the agent.
func LoadKey(path string) (*credential.Signer, error) {
	// The kind is looked at before opening, because opening a named pipe waits
	// for a writer, and again afterwards, because the name may have changed.
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the key %s: %w", path, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the key %s: %w", path, err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, fmt.Errorf("reading the key %s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("reading the key %s: it is not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode != 0o600 && mode != 0o400 {
		return nil, fmt.Errorf("reading the key %s: its mode is %04o and must be 0600 or 0400, so that no other user can be the agent; "+
			"mend it with: chmod 600 %s; if others could read it, enroll a new key", path, mode, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the key %s: %w", path, err)
	}
	if len(b) > maxKeyFile {
		return nil, fmt.Errorf("reading the key %s: it is larger than %d bytes, which no key is", path, maxKeyFile)
	}
	key, err := credential.ParsePrivateKeyPEM(b)
	if err != nil {
		return nil, fmt.Errorf("reading the key %s: %w", path, err)
	}
	signer, err := credential.NewSigner(key)
	if err != nil {
		return nil, fmt.Errorf("reading the key %s: %w", path, err)
	}
	return signer, nil
}

// SaveKey writes a private key to a new PKCS#8 PEM file of mode 0600. A file
// that is there is never overwritten: it may be the only copy of a key that is
// enrolled. When SaveKey returns nil, the key survives a crash; save it before
// it is enrolled.
func SaveKey(path string, key crypto.Signer) error {
	b, err := credential.MarshalPrivateKeyPEM(key)
	if err != nil {
		return fmt.Errorf("writing the key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("writing the key: %s is there already and a key is never overwritten; choose another file: %w", path, err)
	}
	if err != nil {
		return fmt.Errorf("writing the key: %w", err)
	}
	// A crash before the last sync leaves an empty or a partial file, which
	// LoadKey refuses and which belongs to no enrolled key.
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = syncFolder(filepath.Dir(path))
	}
	if err != nil {
		// It is this call's own file, made a moment ago.
		return fmt.Errorf("writing the key %s: %w", path, errors.Join(err, os.Remove(path)))
	}
	return nil
}

// syncFolder makes a new name in the folder durable.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
