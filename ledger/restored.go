package ledger

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/counterfoil/counterfoil/ijson"
)

// A restored log goes on from a copy of an older one, under a key and an origin of
// its own: the entries that followed the copy are lost, and one key that signed both
// would have signed two logs that disagree. Its first own entry is a server.restored,
// which names the log before. So whoever verifies it with the new key sees all of it,
// and is told from where on it is another log.

const restoredMark = "/restored-"

// RestoredOrigin names the log that goes on from the log of that origin, or from one
// that was restored itself. No two restorations of a log have one n, as far as who
// restores can know.
func RestoredOrigin(origin string, n int) string {
	base, _ := BaseOrigin(origin)
	return base + restoredMark + strconv.Itoa(n)
}

// BaseOrigin returns the origin that a log had before it was ever restored, and which
// restoration it is; 0 for a log that was never restored.
func BaseOrigin(origin string) (base string, n int) {
	i := strings.LastIndex(origin, restoredMark)
	if i < 0 {
		return origin, 0
	}
	text := origin[i+len(restoredMark):]
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || strconv.Itoa(n) != text {
		return origin, 0
	}
	return origin[:i], n
}

// A Restoration is what a server.restored entry says of the log before it.
type Restoration struct {
	Index  int64  `json:"index"` // of the entry; as many entries were taken over
	Time   string `json:"time"`
	Actor  string `json:"actor,omitzero"`
	Reason string `json:"reason,omitzero"`
	From   string `json:"from"`           // origin of the log before
	Key    string `json:"key,omitzero"`   // its public key, as far as it was at hand
	Origin string `json:"origin"`         // of the log from here on
	Known  int64  `json:"known,omitzero"` // entries of its newest checkpoint that was known; zero: none was

	// Checkpoint is that checkpoint: whoever has the key from elsewhere can show with
	// it that the entries from Index to Known were there.
	Checkpoint string `json:"checkpoint,omitzero"`
}

// Lost returns how many entries are known to be lost. There may have been more.
func (r *Restoration) Lost() int64 { return max(0, r.Known-r.Index) }

// Detail is what the entry says, as RestorationOf reads it.
func (r *Restoration) Detail() map[string]any {
	d := map[string]any{"from": r.From, "origin": r.Origin, "size": r.Index}
	if r.Key != "" {
		d["key"] = r.Key
	}
	if r.Checkpoint != "" {
		d["known"], d["checkpoint"] = r.Known, r.Checkpoint
	}
	return d
}

// RestorationOf reads a server.restored entry. ok is false for an entry of another
// kind, and for those that only go on with the list of what was voided.
func RestorationOf(e *Entry) (r Restoration, ok bool, err error) {
	if e.Kind != ServerRestored || e.Detail["from"] == nil {
		return r, false, nil
	}
	b, err := ijson.Marshal(e.Detail)
	if err != nil {
		return r, false, fmt.Errorf("reading entry %d: %w", e.Index, err)
	}
	var d struct {
		From       string `json:"from"`
		Key        string `json:"key"`
		Origin     string `json:"origin"`
		Size       int64  `json:"size"`
		Known      int64  `json:"known"`
		Checkpoint string `json:"checkpoint"`
	}
	if err := ijson.UnmarshalLax(b, &d); err != nil {
		return r, false, fmt.Errorf("reading entry %d: %w", e.Index, err)
	}
	if d.From == "" || d.Origin == "" || d.Size != e.Index {
		return r, false, fmt.Errorf("entry %d says that the log was restored, but not from which entries on", e.Index)
	}
	return Restoration{
		Index: e.Index, Time: e.Time, Actor: e.Actor, Reason: e.Reason,
		From: d.From, Key: d.Key, Origin: d.Origin, Known: d.Known, Checkpoint: d.Checkpoint,
	}, true, nil
}

var restoredNeedle = []byte(`"kind":"server.restored"`)

// restoration takes an entry's word that the log went on from another one. Each goes
// on where the one before it ended: a log has one name at a time.
func (v *verification) restoration(entry []byte) error {
	if !bytes.Contains(entry, restoredNeedle) {
		return nil
	}
	e, err := Parse(entry)
	if err != nil {
		return fmt.Errorf("entry %d: %w", v.tree.size, err)
	}
	r, ok, err := RestorationOf(e)
	if err != nil || !ok {
		return err
	}
	if n := len(v.report.Restored); n > 0 && v.report.Restored[n-1].Origin != r.From {
		return fmt.Errorf("entry %d says that the log %q was restored, but it was %q then", r.Index, r.From, v.report.Restored[n-1].Origin)
	}
	v.report.Restored = append(v.report.Restored, r)
	return nil
}

// named checks that the log has the name that its last restoration gave it.
func (v *verification) named() error {
	if n := len(v.report.Restored); n > 0 {
		if last := v.report.Restored[n-1]; last.Origin != v.report.Origin {
			return fmt.Errorf("this is the log %q, but entry %d says that it goes on as %q", v.report.Origin, last.Index, last.Origin)
		}
		return nil
	}
	if _, n := BaseOrigin(v.report.Origin); n > 0 {
		return fmt.Errorf("the log %q is one that was restored by its name, and no entry says so", v.report.Origin)
	}
	return nil
}

// kin says, for somebody who holds a file of one log and the key of another, that one
// goes on from the other; empty where they have nothing to do with each other.
func kin(file, key string) string {
	fileBase, fileN := BaseOrigin(file)
	keyBase, keyN := BaseOrigin(key)
	switch {
	case fileBase != keyBase || fileN == keyN:
		return ""
	case fileN < keyN:
		return fmt.Sprintf(": it is from before the log was restored. Since then it is %q and has a key of its own; what the old key signed speaks of the old log alone", key)
	}
	return fmt.Sprintf(": the log was restored since and has a new key; this is that of %q, from before", key)
}
