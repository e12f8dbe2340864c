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

	"github.com/counterfoil/counterfoil/internal/seal"
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
	origin   string // the log's; of one that was restored, not its issuer's
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
// yet. The log of an issuer has the issuer's origin, or one that a restoration made
// of it.
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
		return logKey{}, fmt.Errorf("there is a ledger but not its signing key at %s: put back that file from where this folder was copied, or run counterfoil restore, which goes on with a new key", filepath.Join(dir, sealedLogKey))
	case err != nil:
		return logKey{}, err
	}
	public, err := readPublic(filepath.Join(dir, LedgerKeyName))
	if err != nil {
		return logKey{}, err
	}
	verifier, err := ledger.ParseVerifier(public)
	if err != nil {
		return logKey{}, fmt.Errorf("the ledger's public key at %s is damaged (%w): put back a copy of the file", filepath.Join(dir, LedgerKeyName), err)
	}
	if base, _ := ledger.BaseOrigin(verifier.Name()); base != origin {
		return logKey{}, fmt.Errorf("the ledger's public key at %s is of the log %q, this server's is %q: put back a copy of the file", filepath.Join(dir, LedgerKeyName), verifier.Name(), origin)
	}
	signer, err := openLogKey(path, verifier.Name(), kek, text)
	if err != nil {
		return logKey{}, err
	}
	if verifier.Name() != signer.Name() || verifier.KeyHash() != signer.KeyHash() {
		return logKey{}, fmt.Errorf("the ledger's public key at %s is not that of %s: put back a copy of the file", filepath.Join(dir, LedgerKeyName), path)
	}
	return logKey{verifier.Name(), signer, verifier, begins}, nil
}

// readPublic reads the file of a log's public key.
func readPublic(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the ledger's public key: %w: put back a copy of the file", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// openLogKey opens the sealed form of a log's private key, which was read from path.
func openLogKey(path, origin string, kek, text []byte) (note.Signer, error) {
	sealed, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("the ledger's signing key at %s is damaged: put back a copy of the file", path)
	}
	secret, err := seal.Open(kek, logKeyPurpose, origin, sealed)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger's signing key at %s: %w", path, err)
	}
	signer, err := ledger.ParseSigner(string(secret))
	if err != nil {
		return nil, fmt.Errorf("reading the ledger's signing key at %s: %w", path, err)
	}
	return signer, nil
}

// settle says on the disk that the log has an entry: from now on a database
// that is not there is one that was lost. A crash before it leaves a log of one
// entry that nobody was told of, and the next start settles. The folder is this
// process's alone by then, so what a backup that was broken off left is swept away.
func (k logKey) settle(dir string) error {
	if err := sweepCopies(dir); err != nil {
		return err
	}
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

// A freshKey is a log's key as it is kept: the sealed half, and the public one.
type freshKey struct {
	logKey
	sealed, public []byte // as their files have them
}

// newKey makes a key for the log of an origin.
func newKey(origin string, kek []byte) (freshKey, error) {
	secret, public, err := ledger.GenerateKey(origin)
	if err != nil {
		return freshKey{}, fmt.Errorf("making the ledger's key: %w", err)
	}
	signer, err := ledger.ParseSigner(secret)
	if err != nil {
		return freshKey{}, fmt.Errorf("making the ledger's key: %w", err)
	}
	verifier, err := ledger.ParseVerifier(public)
	if err != nil {
		return freshKey{}, fmt.Errorf("making the ledger's key: %w", err)
	}
	sealed, err := seal.Seal(kek, logKeyPurpose, origin, []byte(secret))
	if err != nil {
		return freshKey{}, fmt.Errorf("sealing the ledger's key: %w", err)
	}
	return freshKey{logKey{origin, signer, verifier, true}, []byte(base64.StdEncoding.EncodeToString(sealed) + "\n"), []byte(public + "\n")}, nil
}

// makeLogKey writes the public half first: a crash between the two leaves a
// folder that is still fresh, and the next start writes both anew.
func makeLogKey(dir, origin string, kek []byte) (logKey, error) {
	key, err := newKey(origin, kek)
	if err != nil {
		return logKey{}, err
	}
	if err := writePrivate(filepath.Join(dir, LedgerKeyName), key.public); err != nil {
		return logKey{}, err
	}
	if err := writePrivate(filepath.Join(dir, newLogKey), key.sealed); err != nil {
		return logKey{}, err
	}
	return key.logKey, nil
}

// isFresh reports whether the data folder has never had a ledger: neither a
// database nor the key of one is there. A folder that a restoration was broken off in
// is not to be started at all.
func isFresh(cfg *Config) (bool, error) {
	if err := wholeFolder(cfg); err != nil {
		return false, err
	}
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
