package daemon

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/ledger"
)

// LedgerKeyName is the file in the data folder with the log's public key, all
// that anyone needs to verify the log.
const LedgerKeyName = "ledger.pub"

// sealedLogKey is the file with the log's private key, sealed under the KEK. It
// is not in the database, so that who restores an old database does not restore
// the key with it.
const sealedLogKey = "ledger.key"

// newLogKey is that file until the log has its first entry. So a folder with a
// sealedLogKey has had a log, and one whose first start failed half-way has not:
// it begins its log at the next.
const newLogKey = "ledger.key.new"

const logKeyPurpose = "ledger/signing-key"

type logKey struct {
	signer   note.Signer
	verifier note.Verifier
	begins   bool // no log of this key has an entry yet, as far as its file says
}

// logOrigin names the log after its issuer, without the scheme (C2SP
// tlog-checkpoint, "Note text").
func logOrigin(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil {
		return issuer + "/ledger"
	}
	return u.Host + u.Path + "/ledger"
}

// loadLogKey reads the log's key, or makes it for a data folder that has no log
// yet.
func loadLogKey(dir, origin string, kek []byte, fresh bool) (logKey, error) {
	path := filepath.Join(dir, sealedLogKey)
	text, err := readPrivate(path)
	begins := errors.Is(err, fs.ErrNotExist)
	if begins {
		path = filepath.Join(dir, newLogKey)
		text, err = readPrivate(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && fresh:
		return makeLogKey(dir, origin, kek)
	case errors.Is(err, fs.ErrNotExist):
		return logKey{}, fmt.Errorf("there is a ledger but not its signing key at %s: put back that file from where this folder was copied; a new key would make another log", filepath.Join(dir, sealedLogKey))
	case err != nil:
		return logKey{}, err
	}
	sealed, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return logKey{}, fmt.Errorf("the ledger's signing key at %s is damaged: put back a copy of the file", path)
	}
	secret, err := authority.Unseal(kek, logKeyPurpose, origin, sealed)
	if err != nil {
		return logKey{}, fmt.Errorf("opening the ledger's signing key at %s: %w", path, err)
	}
	signer, err := ledger.ParseSigner(string(secret))
	if err != nil {
		return logKey{}, fmt.Errorf("reading the ledger's signing key at %s: %w", path, err)
	}
	public := filepath.Join(dir, LedgerKeyName)
	b, err := os.ReadFile(public)
	if err != nil {
		return logKey{}, fmt.Errorf("reading the ledger's public key: %w: put back a copy of the file", err)
	}
	verifier, err := ledger.ParseVerifier(strings.TrimSpace(string(b)))
	if err != nil {
		return logKey{}, fmt.Errorf("the ledger's public key at %s is damaged (%w): put back a copy of the file", public, err)
	}
	if verifier.Name() != signer.Name() || verifier.KeyHash() != signer.KeyHash() {
		return logKey{}, fmt.Errorf("the ledger's public key at %s is not that of %s: put back a copy of the file", public, path)
	}
	return logKey{signer, verifier, begins}, nil
}

// settle says on the disk that the log has an entry: from now on a database
// that is not there is one that was lost. A crash before it leaves a log of one
// entry that nobody was told of, and the next start settles.
func (k logKey) settle(dir string) error {
	if !k.begins {
		return nil
	}
	err := os.Rename(filepath.Join(dir, newLogKey), filepath.Join(dir, sealedLogKey))
	if err == nil {
		err = syncFolder(dir)
	}
	if err != nil {
		return fmt.Errorf("keeping the ledger's key: %w", err)
	}
	return nil
}

// makeLogKey writes the public half first: a crash between the two leaves a
// folder that is still fresh, and the next start writes both anew.
func makeLogKey(dir, origin string, kek []byte) (logKey, error) {
	secret, public, err := ledger.GenerateKey(origin)
	if err != nil {
		return logKey{}, fmt.Errorf("making the ledger's key: %w", err)
	}
	signer, err := ledger.ParseSigner(secret)
	if err != nil {
		return logKey{}, fmt.Errorf("making the ledger's key: %w", err)
	}
	verifier, err := ledger.ParseVerifier(public)
	if err != nil {
		return logKey{}, fmt.Errorf("making the ledger's key: %w", err)
	}
	sealed, err := authority.Seal(kek, logKeyPurpose, origin, []byte(secret))
	if err != nil {
		return logKey{}, fmt.Errorf("sealing the ledger's key: %w", err)
	}
	if err := writePrivate(filepath.Join(dir, LedgerKeyName), []byte(public+"\n")); err != nil {
		return logKey{}, err
	}
	if err := writePrivate(filepath.Join(dir, newLogKey), []byte(base64.StdEncoding.EncodeToString(sealed)+"\n")); err != nil {
		return logKey{}, err
	}
	return logKey{signer, verifier, true}, nil
}

// isFresh reports whether the data folder has never had a ledger: neither a
// database nor the key of one is there.
func isFresh(cfg *Config) (bool, error) {
	for _, path := range []string{strings.TrimPrefix(cfg.Storage, "sqlite:"), filepath.Join(cfg.Data, sealedLogKey)} {
		_, err := os.Stat(path)
		if err == nil {
			return false, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return false, fmt.Errorf("looking for the ledger: %w", err)
		}
	}
	return true, nil
}
