package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/internal/store"
	"github.com/counterfoil/counterfoil/ledger"
)

// A RestoreRequest says what to restore and why.
type RestoreRequest struct {
	From   string // a backup's file; empty: the database that was put into the folder by hand
	KEK    string // file of the key-encryption key; the configuration's when empty
	Reason string
	Actor  string

	// MoveAside goes on although the database that is there is sound and nothing that
	// is kept says that it is an old one. It is moved aside, as any other is.
	MoveAside bool

	// ConfirmClock goes on although the last entry is dated after the clock.
	ConfirmClock bool

	Now func() time.Time // time.Now when nil
}

// Restored is what a restoration did, and what is to be done now.
type Restored struct {
	Data   string `json:"data"`
	Source string `json:"source"` // the backup's file, or the database that was adopted

	ledger.Restoration
	Lost   int64        `json:"lost"` // entries that are known to be; there may have been more
	Voided store.Voided `json:"voided"`

	Agents []RestoredAgent  `json:"agents,omitzero"` // suspended
	People []RestoredPerson `json:"people,omitzero"` // suspended
	Kept   []string         `json:"kept,omitzero"`   // files that were moved aside, as they are called now
	Needs  []string         `json:"needs,omitzero"`  // before a start

	// Again says that an earlier run had done it, all but its last steps.
	Again bool `json:"again,omitzero"`
}

// A RestoredAgent is one that is suspended, with the instances that come back with it.
type RestoredAgent struct {
	Name      string   `json:"name"`
	Instances []string `json:"instances,omitzero"`
}

// A RestoredPerson is one who is suspended, with the passkeys that come back with them.
type RestoredPerson struct {
	Name     string          `json:"name"`
	Passkeys []store.Passkey `json:"passkeys,omitzero"`
}

// Restore puts a data folder back into order whose server is stopped and whose database
// is, or was, lost: from a backup, or from the older database that was copied into it.
// What authority that database holds is void afterwards (store.RestoreCopy); its log
// goes on with a new key, so that no key ever signed two logs.
//
// It works beside the files that are there, and puts its own in their places only once
// all are made: a crash before leaves the folder as it was, a crash after leaves a
// folder that does not start and that the next Restore finishes. What was there is
// moved aside, never removed.
func Restore(ctx context.Context, cfg Config, req RestoreRequest) (Restored, error) {
	if problems := cfg.check(); len(problems) > 0 {
		return Restored{}, problems
	}
	var err error
	if cfg.Data, err = filepath.Abs(cfg.Data); err != nil {
		return Restored{}, fmt.Errorf("finding the data folder: %w", err)
	}
	cfg.fill()
	if req.Now == nil {
		req.Now = time.Now
	}
	if strings.TrimSpace(req.Reason) == "" {
		return Restored{}, errors.New("restoring needs a reason: the log keeps it")
	}
	if err := prepareFolder(cfg.Data); err != nil {
		return Restored{}, err
	}
	release, err := store.Lock(cfg.Storage)
	if err != nil {
		return Restored{}, err
	}
	defer release() //nolint:errcheck // nothing was written through it
	plan, err := readPlan(cfg.Data)
	if err != nil {
		return Restored{}, err
	}
	if plan != nil {
		plan.Restored.Again = true
		return plan.Restored, plan.carryOut(cfg.Data)
	}
	r := &restoration{cfg: &cfg, req: &req, db: strings.TrimPrefix(cfg.Storage, "sqlite:")}
	defer r.sweep()
	if err := r.stage(ctx); err != nil {
		return Restored{}, err
	}
	return r.plan.Restored, r.plan.carryOut(cfg.Data)
}

// staged is how the files end that a restoration makes before it puts them in place.
const staged = ".restoring"

// A restoration is one that is under way.
type restoration struct {
	cfg *Config
	req *RestoreRequest
	db  string // path of the database

	kek     []byte
	backup  *ReadBackup // nil where the database that is there is adopted
	log     store.Log   // of the copy
	oldKey  string      // public key of that log; empty where nobody has it
	known   [][]byte    // checkpoints of that log
	made    []string    // files that are staged
	planned bool
	plan    restorePlan
}

// sweep removes what was made for nothing.
func (r *restoration) sweep() {
	if r.planned {
		return
	}
	for _, path := range r.made {
		os.Remove(path) // the next restoration begins with it
	}
}

// stage makes everything and says, last, that it is made.
func (r *restoration) stage(ctx context.Context) error {
	steps := []func(context.Context) error{r.openKEK, r.stageDatabase, r.readOldKey, r.refuseSound, r.restoreCopy, r.stageFiles}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := r.plan.write(r.cfg.Data); err != nil {
		return err
	}
	r.planned = true
	return nil
}

// openKEK reads the key-encryption key, which has to be the one of the start after.
func (r *restoration) openKEK(context.Context) error {
	kept := r.cfg.KEK.File
	path := r.req.KEK
	if path == "" {
		path = kept
	}
	var err error
	if r.kek, err = loadKEK(path, false); err != nil || path == kept {
		return err
	}
	other, err := loadKEK(kept, false)
	switch {
	case err == nil && !bytes.Equal(other, r.kek):
		return fmt.Errorf("the key-encryption keys at %s and %s differ, and the server starts with the second: put the right one there", path, kept)
	case err != nil:
		if _, missing := os.Stat(kept); !errors.Is(missing, fs.ErrNotExist) {
			return err
		}
		r.plan.Needs = append(r.plan.Needs, fmt.Sprintf("put the key-encryption key of %s at %s, mode 0400", path, kept))
	}
	return nil
}

// stageDatabase makes the copy that is restored.
func (r *restoration) stageDatabase(ctx context.Context) error {
	to := r.db + staged
	r.made = append(r.made, to, to+"-wal", to+"-shm", to+"-journal")
	r.sweep() // what a run left that was killed
	r.plan.Source = r.db
	var err error
	if r.req.From != "" {
		r.plan.Source = r.req.From
		err = r.unpack(to)
	} else if _, missing := os.Stat(r.db); errors.Is(missing, fs.ErrNotExist) {
		err = fmt.Errorf("there is no database at %s: copy the older one there, or name a backup with --from", r.db)
	} else if err = store.Adopt(ctx, r.db, to); err != nil {
		err = fmt.Errorf("adopting the database: %w; if %s-wal is there and belongs to another copy, move it away; or name a backup with --from", err, r.db)
	}
	if err != nil {
		return err
	}
	r.log, err = store.ReadLog(ctx, to)
	return err
}

// unpack reads the backup and keeps its database.
func (r *restoration) unpack(to string) error {
	in, err := os.Open(r.req.From)
	if err != nil {
		return fmt.Errorf("reading the backup: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("reading the backup: %w", err)
	}
	r.backup, err = CheckBackup(in, out)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return fmt.Errorf("reading the backup %s: %w", r.req.From, err)
	}
	return r.backup.sealed(r.kek)
}

// aside is how what was there is called afterwards.
func (r *restoration) aside(path string) string {
	_, n := ledger.BaseOrigin(r.plan.Origin)
	return fmt.Sprintf("%s.before-restored-%d", path, n)
}

const asidePattern = ".before-restored-*"

// publicKeys returns the public keys that the folder has, that of now first.
func (r *restoration) publicKeys() []string {
	path := filepath.Join(r.cfg.Data, LedgerKeyName)
	older, err := filepath.Glob(path + asidePattern)
	if err != nil {
		older = nil // the pattern is sound, so no error is possible
	}
	slices.Sort(older)
	var out []string
	for _, p := range append([]string{path}, older...) {
		if b, err := os.ReadFile(p); err == nil {
			out = append(out, strings.TrimSpace(string(b)))
		}
	}
	return out
}

// readOldKey finds the public key of the copy's log, and the checkpoints of it that are
// kept. A folder of another issuer's log is refused, and so is a key-encryption key
// that is not this folder's.
func (r *restoration) readOldKey(context.Context) error {
	keys := r.publicKeys()
	if r.backup != nil {
		keys = append(keys, strings.TrimSpace(string(r.backup.small[LedgerKeyName])))
	}
	base, highest := ledger.BaseOrigin(r.log.Origin)
	for i, text := range keys {
		v, err := ledger.ParseVerifier(text)
		if err != nil {
			continue // damaged: the log goes on with a new one
		}
		other, n := ledger.BaseOrigin(v.Name())
		if other != base {
			return fmt.Errorf("the database has the log %q, this folder has that of %q: restore it into a folder of its own", r.log.Origin, v.Name())
		}
		highest = max(highest, n)
		if v.Name() == r.log.Origin {
			r.oldKey = text
		}
		if i == 0 {
			if err := r.checkKEK(v.Name()); err != nil {
				return err
			}
		}
	}
	for _, place := range r.places() {
		b, err := os.ReadFile(place)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading the checkpoint that is kept: %w", err)
		}
		origin, _, _ := strings.Cut(string(b), "\n")
		if other, n := ledger.BaseOrigin(origin); other == base {
			highest = max(highest, n)
		}
		if origin == r.log.Origin {
			r.known = append(r.known, b)
		}
	}
	if r.backup != nil {
		r.known = append(r.known, r.backup.small[backupCheckpoint])
	}
	r.plan.Origin = ledger.RestoredOrigin(base, highest+1)
	return nil
}

// checkKEK refuses a key-encryption key that does not open what the folder has: what is
// sealed now would not be opened by the start after.
func (r *restoration) checkKEK(origin string) error {
	path := filepath.Join(r.cfg.Data, sealedLogKey)
	text, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		_, err = openLogKey(path, origin, r.kek, text)
	}
	if err != nil {
		return fmt.Errorf("%w; if that key is lost for good, move %s away first", err, path)
	}
	return nil
}

func (r *restoration) places() []string {
	var out []string
	for _, p := range r.cfg.Checkpoints {
		out = append(out, strings.TrimPrefix(p, "file:"))
	}
	return out
}

// refuseSound refuses to put another database in the place of one that is sound and not
// older, unless that is wanted.
func (r *restoration) refuseSound(ctx context.Context) error {
	if r.req.MoveAside {
		return nil
	}
	if r.backup == nil {
		return r.refuseNewest()
	}
	here, err := store.ReadLog(ctx, r.db)
	if err != nil {
		return nil // none, or damaged
	}
	if here.Origin == r.log.Origin && here.Size < r.log.Size {
		return nil
	}
	return fmt.Errorf("the database at %s has the log %q with %d entries, the backup %q with %d: to restore what is there instead, leave --from away; to put the backup in its place all the same, add --move-aside",
		r.db, here.Origin, here.Size, r.log.Origin, r.log.Size)
}

// refuseNewest refuses to restore a folder that would start: everything in it would be
// void for nothing.
func (r *restoration) refuseNewest() error {
	key, err := loadLogKey(r.cfg.Data, baseOrigin(r.log.Origin), r.kek, false)
	if err != nil || key.origin != r.log.Origin {
		return nil
	}
	kept := false
	for _, b := range r.known {
		c, err := ledger.OpenCheckpoint(b, key.verifier)
		if err != nil || c.Size > r.log.Size {
			return nil
		}
		kept = true
	}
	if !kept || len(r.known) < len(r.places()) {
		return nil
	}
	return fmt.Errorf("no checkpoint that is kept is newer than the database at %s: start the server; if you know that the database is an old one, add --move-aside", r.db)
}

func baseOrigin(origin string) string {
	base, _ := ledger.BaseOrigin(origin)
	return base
}

// restoreCopy makes the new key, and the copy what it is to be.
func (r *restoration) restoreCopy(ctx context.Context) error {
	key, err := newKey(r.plan.Origin, r.kek)
	if err != nil {
		return err
	}
	done, err := store.RestoreCopy(ctx, r.db+staged, store.Restoring{
		Now: r.req.Now, Signer: key.signer, OldKey: r.oldKey, Known: r.known, Actor: r.req.Actor, Reason: r.req.Reason, ConfirmClock: r.req.ConfirmClock,
	})
	if err != nil {
		return err
	}
	p := &r.plan.Restored
	p.Data, p.Restoration, p.Lost, p.Voided = r.cfg.Data, done.Restoration, done.Restoration.Lost(), done.Voided
	for _, name := range done.Voided.Agents {
		p.Agents = append(p.Agents, RestoredAgent{name, done.Instances[name]})
	}
	for _, name := range done.Voided.People {
		p.People = append(p.People, RestoredPerson{name, done.Passkeys[name]})
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		r.plan.move("", r.db+suffix, r.aside(r.db)+suffix)
	}
	r.plan.move(r.db+staged, r.db, r.aside(r.db))
	if err := r.put(filepath.Join(r.cfg.Data, sealedLogKey), key.sealed, true); err != nil {
		return err
	}
	if err := r.put(filepath.Join(r.cfg.Data, LedgerKeyName), key.public, true); err != nil {
		return err
	}
	r.plan.move("", filepath.Join(r.cfg.Data, newLogKey), r.aside(filepath.Join(r.cfg.Data, newLogKey)))
	for _, place := range r.places() {
		if err := r.put(place, done.Checkpoint, true); err != nil {
			return fmt.Errorf("%w: make the place writable, or take it out of the configuration until the server has started", err)
		}
	}
	return nil
}

// put stages a file; what is in its place is moved aside, or stays and counts.
func (r *restoration) put(path string, data []byte, replace bool) error {
	if _, err := os.Stat(path); err == nil && !replace {
		return nil
	}
	r.made = append(r.made, path+staged)
	if err := writePrivate(path+staged, data); err != nil {
		return err
	}
	r.plan.move(path+staged, path, r.aside(path))
	return nil
}

// stageFiles stages what else a new folder needs: the addresses that it was made with.
func (r *restoration) stageFiles(context.Context) error {
	if r.backup == nil {
		return nil
	}
	for _, name := range []string{"public.url", "management.url"} {
		text, ok := r.backup.small[name]
		if !ok {
			continue
		}
		path := filepath.Join(r.cfg.Data, name)
		if here, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(here)) != strings.TrimSpace(string(text)) {
			return fmt.Errorf("this folder was made as %s, the backup as %s (%s): restore it into a folder of its own", strings.TrimSpace(string(here)), strings.TrimSpace(string(text)), name)
		}
		if err := r.put(path, text, false); err != nil {
			return err
		}
	}
	return nil
}
