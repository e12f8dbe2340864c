package ledger

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A Checkpoint is a signed statement of the log's size and root (C2SP
// tlog-checkpoint). OpenCheckpoint alone makes one, so whoever holds one may
// trust it as far as the key that it was opened with.
type Checkpoint struct {
	Origin string    // names the log
	Size   int64     // how many entries it had
	Hash   tlog.Hash // the root of the tree over them
	Note   []byte    // the signed text as it was read
}

const maxCheckpoint = 64 << 10

// GenerateKey makes a key for the log of that origin, in the text forms that
// ParseSigner and ParseVerifier read: the secret one, then the public one.
func GenerateKey(origin string) (signer, verifier string, err error) {
	signer, verifier, err = note.GenerateKey(rand.Reader, origin)
	if err != nil {
		return "", "", fmt.Errorf("making the log's key: %w", err)
	}
	if _, err := note.NewVerifier(verifier); err != nil {
		return "", "", fmt.Errorf("making the log's key: origin %q has a space or a plus", origin)
	}
	return signer, verifier, nil
}

// ParseSigner reads the secret form of a log's key.
func ParseSigner(text string) (note.Signer, error) {
	s, err := note.NewSigner(strings.TrimSpace(text))
	if err != nil {
		return nil, errors.New("reading the log's key: it is not of the form PRIVATE+KEY+origin+hash+key") // never the text itself
	}
	return s, nil
}

// ParseVerifier reads the public form of a log's key.
func ParseVerifier(text string) (note.Verifier, error) {
	text = strings.TrimSpace(text)
	v, err := note.NewVerifier(text)
	switch {
	case err == nil:
		return v, nil
	// Never the text itself: what is taken for a public key by mistake is most
	// likely a private one.
	case strings.HasPrefix(text, "PRIVATE+KEY+"):
		return nil, errors.New("reading the log's public key: this is the private one")
	}
	return nil, fmt.Errorf("reading the log's public key: it is not of the form origin+hash+key (%w)", err)
}

// SignCheckpoint signs size and root. The key's name must be the origin, as
// C2SP tlog-checkpoint recommends, so that a key vouches for one log only.
func SignCheckpoint(signer note.Signer, origin string, size int64, hash tlog.Hash) ([]byte, error) {
	if signer.Name() != origin {
		return nil, fmt.Errorf("signing a checkpoint: the key is of %q, the log is %q", signer.Name(), origin)
	}
	text := origin + "\n" + strconv.FormatInt(size, 10) + "\n" + hash.String() + "\n"
	b, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		return nil, fmt.Errorf("signing a checkpoint: %w", err)
	}
	return b, nil
}

// OpenCheckpoint verifies a checkpoint with the log's public key. Signatures by
// other keys, such as those of witnesses, are passed over; a signature by this
// key must be there.
func OpenCheckpoint(b []byte, verifier note.Verifier) (Checkpoint, error) {
	if len(b) == 0 {
		return Checkpoint{}, errors.New("the checkpoint is empty")
	}
	if len(b) > maxCheckpoint {
		return Checkpoint{}, fmt.Errorf("the checkpoint has %d bytes, more than %d", len(b), maxCheckpoint)
	}
	n, err := note.Open(b, note.VerifierList(verifier))
	if err != nil {
		return Checkpoint{}, openError(b, err, verifier)
	}
	if err := strictSignatures(b); err != nil {
		return Checkpoint{}, err
	}
	c, err := parseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	if c.Origin != verifier.Name() {
		return Checkpoint{}, fmt.Errorf("the checkpoint is of the log %q, the key is of %q", c.Origin, verifier.Name())
	}
	c.Note = bytes.Clone(b)
	return c, nil
}

// openError words what note.Open found for somebody who holds a file and a key.
func openError(b []byte, err error, verifier note.Verifier) error {
	key := fmt.Sprintf("%s+%08x", verifier.Name(), verifier.KeyHash())
	var unverified *note.UnverifiedNoteError
	if errors.As(err, &unverified) {
		origin, _, _ := bytes.Cut(b, []byte("\n"))
		if string(origin) != verifier.Name() {
			if of := kin(string(origin), verifier.Name()); of != "" {
				return fmt.Errorf("the checkpoint is of the log %.80q, the key is %s%s", origin, key, of)
			}
			return fmt.Errorf("the checkpoint is of the log %.80q, the key is %s: this is another log's", origin, key)
		}
		return fmt.Errorf("the checkpoint is not signed with the key %s", key)
	}
	var invalid *note.InvalidSignatureError
	if errors.As(err, &invalid) {
		return fmt.Errorf("the checkpoint's signature by the key %s does not verify: the checkpoint was changed", key)
	}
	return fmt.Errorf("the checkpoint is not a signed note: %w", err)
}

// parseCheckpoint reads a checkpoint's text, strictly: what is signed has one
// reading. Extension lines after the third are allowed and not looked at.
func parseCheckpoint(text string) (Checkpoint, error) {
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) != 4 || lines[0] == "" {
		return Checkpoint{}, errors.New("the checkpoint has not the three lines origin, size and root")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return Checkpoint{}, fmt.Errorf("the checkpoint's size is %.40q, not a number of entries", lines[1])
	}
	hash, err := tlog.ParseHash(lines[2])
	if err != nil || hash.String() != lines[2] {
		return Checkpoint{}, fmt.Errorf("the checkpoint's root is %.80q, not the base64 of 32 bytes", lines[2])
	}
	return Checkpoint{Origin: lines[0], Size: size, Hash: hash}, nil
}

// strictSignatures refuses signature lines whose base64 has a second spelling:
// x/mod's reader ignores stray bits, and a byte of a checkpoint that can be
// changed without anybody noticing invites the question which others can.
func strictSignatures(b []byte) error {
	i := bytes.LastIndex(b, []byte("\n\n"))
	for line := range strings.Lines(string(b[i+2:])) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		if len(fields) != 3 {
			return errors.New("the checkpoint has a malformed signature line")
		}
		raw, err := base64.StdEncoding.Strict().DecodeString(fields[2])
		if err != nil || base64.StdEncoding.EncodeToString(raw) != fields[2] {
			return errors.New("the checkpoint has a signature that is not strict base64: the checkpoint was changed")
		}
	}
	return nil
}
