package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/counterfoil/counterfoil/ijson"
)

// planName is the file that says that a restoration is made and only has to be put in
// place. Once it is there, the folder is restored, whoever finishes it.
const planName = "restore.plan"

// A restorePlan is what is left to do of a restoration, and what it did.
type restorePlan struct {
	Moves    []restoreMove `json:"moves"`
	Restored `json:"restored"`
}

// A restoreMove puts a file in its place.
type restoreMove struct {
	From  string `json:"from,omitzero"` // the one that was made; empty: the place stays empty
	To    string `json:"to"`
	Aside string `json:"aside"` // where goes what was in the place
}

func (p *restorePlan) move(from, to, aside string) {
	p.Moves = append(p.Moves, restoreMove{from, to, aside})
}

func (p *restorePlan) write(dir string) error {
	for _, m := range p.Moves {
		_, err := os.Lstat(m.Aside)
		if err == nil {
			return fmt.Errorf("there is something at %s already: move it away", m.Aside)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("looking at what is there: %w", err)
		}
		if _, err := os.Lstat(m.To); err == nil {
			p.Kept = append(p.Kept, m.Aside)
		}
	}
	b, err := ijson.Marshal(p)
	if err != nil {
		return fmt.Errorf("planning the restoration: %w", err)
	}
	return writePrivate(filepath.Join(dir, planName), b)
}

// readPlan returns the plan of a restoration that was broken off, nil when there is
// none.
func readPlan(dir string) (*restorePlan, error) {
	b, err := readPrivate(filepath.Join(dir, planName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var p restorePlan
	if err := ijson.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("reading %s: %w", filepath.Join(dir, planName), err)
	}
	return &p, nil
}

// carryOut puts the files in their places, as far as they are not there yet. A crash
// at any point leaves the rest of it to the next.
func (p *restorePlan) carryOut(dir string) error {
	var touched []string
	for _, m := range p.Moves {
		if err := m.carryOut(); err != nil {
			return fmt.Errorf("putting the restored files in place: %w; run the same command again", err)
		}
		touched = append(touched, filepath.Dir(m.To))
	}
	slices.Sort(touched)
	for _, d := range slices.Compact(touched) {
		if err := syncFolder(d); err != nil {
			return fmt.Errorf("putting the restored files in place: %w; run the same command again", err)
		}
	}
	if err := os.Remove(filepath.Join(dir, planName)); err != nil {
		return fmt.Errorf("ending the restoration: %w; run the same command again", err)
	}
	return syncFolder(dir)
}

// carryOut moves what is in the place aside, and then the new file into it. That there
// is no new file any more says that both were done; that there is one, and something
// aside, that the first was.
func (m restoreMove) carryOut() error {
	if m.From != "" && !exists(m.From) {
		if !exists(m.To) {
			return fmt.Errorf("neither %s nor %s is there", m.From, m.To)
		}
		return nil
	}
	if exists(m.To) {
		if exists(m.Aside) {
			return fmt.Errorf("something new is at %s, and what was there is at %s: move the new one away", m.To, m.Aside)
		}
		if err := os.Rename(m.To, m.Aside); err != nil {
			return err
		}
	}
	if m.From == "" {
		return nil
	}
	return os.Rename(m.From, m.To)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// wholeFolder refuses a folder that a restoration was broken off in: some of its files
// are of one log and some of another.
func wholeFolder(cfg *Config) error {
	path := filepath.Join(cfg.Data, planName)
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for a restoration that was broken off: %w", err)
	}
	return fmt.Errorf("a restoration of this folder was broken off (%s is there): run counterfoil restore again, it finishes", path)
}
