package daemon

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/ledger"
)

// A backup is one tar file: a manifest, what it lists, and an end.
//
//	manifest.json   what the backup is of, and the SHA-256 of every file
//	counterfoil.db  state and ledger, as they were at one moment
//	ledger.key      the log's private key, sealed under the key-encryption key
//	ledger.pub      its public half
//	checkpoint      a signed checkpoint of the copy's log
//	public.url, management.url
//	end             SHA-256 of the manifest, and its seal
//
// The seal is a MAC under the key-encryption key: who can write where backups are kept
// cannot make one that a restoration takes. The key-encryption key is not in it, nor is
// any file of the folder of secrets: a backup by itself opens nothing.

// BackupFormat is the name of the format.
const BackupFormat = "counterfoil-backup/1"

// Names in a backup.
const (
	backupManifest   = "manifest.json"
	backupDatabase   = "counterfoil.db"
	backupCheckpoint = "checkpoint"
	backupEnd        = "end"
)

// A BackupManifest says what a backup is.
type BackupManifest struct {
	Format  string       `json:"format"`
	Made    time.Time    `json:"made"`
	Version string       `json:"version,omitzero"`
	Issuer  string       `json:"issuer"`
	Origin  string       `json:"origin"`  // of the log
	Entries int64        `json:"entries"` // the log has
	Root    string       `json:"root"`
	Files   []BackupFile `json:"files"`

	// Without says what a restoration needs beside it.
	Without []string `json:"without"`
}

// A BackupFile is one file of a backup.
type BackupFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// copyPrefix is how the folder begins that a backup is made in.
const copyPrefix = ".backup-"

// sweepCopies removes what backups left that were broken off.
func sweepCopies(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, copyPrefix+"*"))
	if err != nil {
		return fmt.Errorf("looking for what a backup left: %w", err)
	}
	for _, path := range left {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("removing what a backup left: %w", err)
		}
	}
	return nil
}

// Backup writes a backup of the data folder, as it is at one moment, to w. That it is
// made is recorded before: the copy holds the entry, and nothing leaves without one.
// An error before the first byte has written nothing; after it, the file has no end
// and is none.
//
// It needs room for a second database in the data folder while it runs.
func (d *Daemon) Backup(ctx context.Context, w io.Writer) error {
	kek, err := loadKEK(d.cfg.KEK.File, false)
	if err != nil {
		return fmt.Errorf("making a backup: %w", err)
	}
	b := backup{d: d, kek: kek}
	if err := b.readKeys(); err != nil {
		return fmt.Errorf("making a backup: %w", err)
	}
	if err := d.store.Append(ctx, &ledger.Entry{Kind: ledger.BackupMade, Actor: actorOf(ctx)}); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(d.cfg.Data, copyPrefix)
	if err != nil {
		return fmt.Errorf("making a backup: %w", err)
	}
	defer os.RemoveAll(dir)
	copied, err := d.store.Backup(ctx, filepath.Join(dir, backupDatabase))
	if err != nil {
		return fmt.Errorf("making a backup: %w", err)
	}
	b.manifest = BackupManifest{
		Format: BackupFormat, Made: d.opt.Now().UTC(), Version: d.opt.Version, Issuer: d.cfg.Public.URL,
		Origin: b.origin, Entries: copied.Size, Root: copied.Root.String(), Without: []string{"the key-encryption key", "the files of secrets_dir", "the programs of providers_dir"},
	}
	b.small[backupCheckpoint] = copied.Checkpoint
	if err := b.write(ctx, w, filepath.Join(dir, backupDatabase)); err != nil {
		return fmt.Errorf("writing a backup: %w", err)
	}
	return nil
}

// A backup is one that is being made.
type backup struct {
	d        *Daemon
	kek      []byte
	origin   string
	small    map[string][]byte // files beside the database
	manifest BackupManifest
}

// readKeys reads the small files. The sealed key has to open with the key-encryption
// key that is there: otherwise nobody could use the backup, and it is now that somebody
// can still do something about it.
func (b *backup) readKeys() error {
	dir := b.d.cfg.Data
	base := logOrigin(b.d.cfg.Public.URL)
	key, err := loadLogKey(dir, base, b.kek, false)
	if err != nil {
		return err
	}
	b.origin, b.small = key.origin, map[string][]byte{}
	for _, name := range []string{sealedLogKey, LedgerKeyName, "public.url", "management.url"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(name, ".url") {
			continue
		}
		if err != nil {
			return err
		}
		b.small[name] = text
	}
	return nil
}

func (b *backup) write(ctx context.Context, w io.Writer, database string) error {
	db, err := os.Open(database)
	if err != nil {
		return err
	}
	defer db.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, reader{ctx, db})
	if err != nil {
		return err
	}
	b.manifest.Files = []BackupFile{{backupDatabase, size, hex.EncodeToString(sum.Sum(nil))}}
	for _, name := range slices.Sorted(maps.Keys(b.small)) {
		one := sha256.Sum256(b.small[name])
		b.manifest.Files = append(b.manifest.Files, BackupFile{name, int64(len(b.small[name])), hex.EncodeToString(one[:])})
	}
	manifest, err := ijson.Marshal(b.manifest)
	if err != nil {
		return err
	}
	if _, err := db.Seek(0, io.SeekStart); err != nil {
		return err
	}
	out := tar.NewWriter(w)
	put := func(name string, size int64, from io.Reader) error {
		h := &tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: b.manifest.Made, Format: tar.FormatPAX}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.Copy(out, from)
		return err
	}
	if err := put(backupManifest, int64(len(manifest)), bytes.NewReader(manifest)); err != nil {
		return err
	}
	for _, f := range b.manifest.Files {
		var from io.Reader = reader{ctx, db}
		if f.Name != backupDatabase {
			from = bytes.NewReader(b.small[f.Name])
		}
		if err := put(f.Name, f.Size, from); err != nil {
			return err
		}
	}
	end := endOf(manifest, b.kek)
	if err := put(backupEnd, int64(len(end)), bytes.NewReader(end)); err != nil {
		return err
	}
	return out.Close()
}

// endOf is the last file of a backup: the digest of its manifest, which anybody can
// check, and the seal, which takes the key-encryption key.
func endOf(manifest, kek []byte) []byte {
	return []byte(sumOf(manifest) + "\n" + hex.EncodeToString(sealOf(manifest, kek)) + "\n")
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func sealOf(manifest, kek []byte) []byte {
	mac := hmac.New(sha256.New, derive(kek, "backup"))
	mac.Write(manifest)
	return mac.Sum(nil)
}

// A reader ends when its context does.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// maxSmall bounds a file of a backup that is not the database.
const maxSmall = 1 << 20

// A ReadBackup is a backup as it was read.
type ReadBackup struct {
	Manifest BackupManifest
	SHA256   string // of the whole file

	small map[string][]byte
	raw   []byte // the manifest
	seal  string
}

// CheckBackup reads a backup to its end and checks that it is whole: that every file is
// the one that the manifest lists, and that nothing is missing. It writes the database
// to w, which nobody uses before CheckBackup has returned without an error. Whoever
// has the key-encryption key can tell, beyond that, that nobody else made it.
func CheckBackup(r io.Reader, w io.Writer) (*ReadBackup, error) {
	whole := sha256.New()
	in := tar.NewReader(io.TeeReader(r, whole))
	b := &ReadBackup{small: map[string][]byte{}}
	raw, err := nextFile(in, backupManifest)
	if err != nil {
		return nil, err
	}
	b.raw = raw
	if err := ijson.Unmarshal(raw, &b.Manifest); err != nil || b.Manifest.Format != BackupFormat {
		return nil, fmt.Errorf("its manifest does not say %q: this is not a backup of a version that this one knows", BackupFormat)
	}
	if len(b.Manifest.Files) == 0 || b.Manifest.Files[0].Name != backupDatabase {
		return nil, errors.New("its manifest does not begin with the database: this is not a backup")
	}
	for _, f := range b.Manifest.Files {
		if err := b.file(in, f, w); err != nil {
			return nil, err
		}
	}
	end, err := nextFile(in, backupEnd)
	if err != nil {
		return nil, err
	}
	sum, seal, ok := strings.Cut(strings.TrimSuffix(string(end), "\n"), "\n")
	if !ok || sum != sumOf(raw) {
		return nil, errors.New("its manifest was changed")
	}
	b.seal = seal
	if _, err := in.Next(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows its end")
	}
	if _, err := io.Copy(whole, r); err != nil {
		return nil, err
	}
	b.SHA256 = hex.EncodeToString(whole.Sum(nil))
	return b, nil
}

// file reads one file that the manifest lists.
func (b *ReadBackup) file(in *tar.Reader, f BackupFile, w io.Writer) error {
	h, err := in.Next()
	if err != nil || h.Name != f.Name || h.Size != f.Size {
		return fmt.Errorf("%s is not where the manifest says: the file was cut or changed", f.Name)
	}
	sum := sha256.New()
	var kept bytes.Buffer
	to := io.MultiWriter(sum, &kept)
	if f.Name == backupDatabase {
		to = io.MultiWriter(sum, w)
	} else if f.Size > maxSmall {
		return fmt.Errorf("%s is larger than it can be", f.Name)
	}
	if _, err := io.Copy(to, in); err != nil {
		return fmt.Errorf("reading %s: %w", f.Name, err)
	}
	if hex.EncodeToString(sum.Sum(nil)) != f.SHA256 {
		return fmt.Errorf("%s does not have the digest that the manifest says: the file was changed or is damaged", f.Name)
	}
	if f.Name != backupDatabase {
		b.small[f.Name] = kept.Bytes()
	}
	return nil
}

// nextFile reads a small file, which has to be the next one.
func nextFile(in *tar.Reader, name string) ([]byte, error) {
	h, err := in.Next()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("it ends before %s: it was cut", name)
	}
	if err != nil {
		return nil, fmt.Errorf("it is not a backup: %w", err)
	}
	if h.Name != name || h.Size > maxSmall {
		return nil, fmt.Errorf("%.80q stands where %s should: this is not a backup", h.Name, name)
	}
	b, err := io.ReadAll(in)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return b, nil
}

// sealed checks that the backup was made by who has the key-encryption key.
func (b *ReadBackup) sealed(kek []byte) error {
	seal, err := hex.DecodeString(b.seal)
	if err != nil || !hmac.Equal(seal, sealOf(b.raw, kek)) {
		return errors.New("the backup does not belong to this key-encryption key: it was made with another, or somebody else made it; name the right file with --kek")
	}
	return nil
}
