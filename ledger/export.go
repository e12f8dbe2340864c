package ledger

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/counterfoil/counterfoil/ijson"
)

// Format is the name of the export format. An export is one file of lines,
// each ended by a line feed:
//
//	{"format":"counterfoil-ledger/1","origin":ORIGIN}
//	the exact bytes of entry 0, and so on
//	{"tree":{"hash":HASH,"size":N}}      after each 64 entries: the root so far
//	{"checkpoint":NOTE}                  last: the signed checkpoint over all of them
//
// No entry begins with the member tree or checkpoint. The tree lines are not
// signed; they tell where a change is, the checkpoint tells that there is one.
// Every byte of an export is covered: it has one spelling.
const Format = "counterfoil-ledger/1"

const markEvery = 64

type header struct {
	Format string `json:"format"`
	Origin string `json:"origin"`
}

type mark struct {
	Tree markTree `json:"tree"`
}

type markTree struct {
	Hash string `json:"hash"`
	Size int64  `json:"size"`
}

type footer struct {
	Checkpoint string `json:"checkpoint"`
}

var (
	markPrefix   = []byte(`{"tree":`)
	footerPrefix = []byte(`{"checkpoint":`)
)

// WriteExport writes the log as of a checkpoint. It calls each with a function
// that takes the entries' exact bytes, in order from index 0; there must be as
// many as the checkpoint says. When they do not give the checkpoint's root, it
// returns an error and leaves the export without its end.
func WriteExport(w io.Writer, c Checkpoint, each func(put func(entry []byte) error) error) error {
	out := bufio.NewWriterSize(w, 64<<10)
	if err := writeLine(out, header{Format, c.Origin}); err != nil {
		return err
	}
	var tree Tree
	err := each(func(entry []byte) error {
		if bytes.IndexByte(entry, '\n') >= 0 || len(entry) > MaxEntry {
			return fmt.Errorf("exporting: entry %d is not one line of at most %d bytes", tree.size, MaxEntry)
		}
		tree.Add(tlog.RecordHash(entry))
		if _, err := out.Write(entry); err != nil {
			return err
		}
		if err := out.WriteByte('\n'); err != nil {
			return err
		}
		if tree.size%markEvery == 0 {
			return writeLine(out, mark{markTree{tree.Root().String(), tree.size}})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if tree.size != c.Size || tree.Root() != c.Hash {
		return fmt.Errorf("exporting: the %d entries are not those of the checkpoint over %d: the log is damaged", tree.size, c.Size)
	}
	if err := writeLine(out, footer{string(c.Note)}); err != nil {
		return err
	}
	return out.Flush()
}

func writeLine(w *bufio.Writer, v any) error {
	b, err := ijson.Marshal(v)
	if err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// VerifyOptions say what an export is checked against.
type VerifyOptions struct {
	// Verifier is the log's public key. It must be set; its name is the log's
	// origin.
	Verifier note.Verifier

	// Earlier is a checkpoint of the same log that was kept from before. The
	// log must extend it: without one, a log that its own key's holder cut or
	// rebuilt verifies. Nil when there is none.
	Earlier []byte

	// Progress is called now and then with the number of entries read, when it
	// is set.
	Progress func(entries int64)

	// Each is called with every entry's bytes, in order, when it is set; they are
	// valid until it returns. An error of its ends the verification. What they say is
	// the log's only once VerifyExport has returned without an error.
	Each func(entry []byte) error
}

// A Report says what a verified export is.
type Report struct {
	Origin  string
	Size    int64     // entries
	Hash    tlog.Hash // the root
	First   string    // time of the first entry, empty when there is none
	Last    string    // time of the last entry
	Earlier int64     // size of the earlier checkpoint that the log extends, -1 when none was given

	// Restored says, oldest first, where the log went on from a copy of an older one.
	// Of published hashes alone nobody can tell.
	Restored []Restoration
}

// VerifyExport reads an export to its end and reports what it is, or returns an
// error that says what is wrong and where. It needs as much memory for ten
// million entries as for one.
//
// Checked are: the header and the origin; that each entry is at the place that
// it says itself, and not dated before the one before it; the signature over
// size and root; that the entries give that root; that the log extends the
// earlier checkpoint; that, where it was restored, its entries say so and give it
// its name; and that nothing follows.
func VerifyExport(r io.Reader, opt VerifyOptions) (Report, error) {
	v := verification{opt: opt, in: bufio.NewReaderSize(r, 64<<10), report: Report{Earlier: -1}}
	if opt.Verifier == nil {
		return Report{}, errors.New("verifying needs the log's public key")
	}
	if opt.Earlier != nil {
		c, err := OpenCheckpoint(opt.Earlier, opt.Verifier)
		if err != nil {
			return Report{}, fmt.Errorf("reading the earlier checkpoint: %w", err)
		}
		v.earlier = &c
	}
	if err := v.header(); err != nil {
		return Report{}, err
	}
	for {
		done, err := v.line()
		if err != nil {
			return Report{}, err
		}
		if done {
			return v.report, nil
		}
	}
}

type verification struct {
	opt     VerifyOptions
	in      *bufio.Reader
	long    []byte // a line that is longer than the reader's buffer
	earlier *Checkpoint
	tree    Tree
	marked  int64 // entries up to the last tree line
	last    [len(timeLayout)]byte
	report  Report
}

// next returns the next line without its line feed. It is valid until the next
// call.
func (v *verification) next() ([]byte, error) {
	b, err := v.in.ReadSlice('\n')
	v.long = v.long[:0]
	for errors.Is(err, bufio.ErrBufferFull) && len(v.long) <= MaxEntry {
		v.long = append(v.long, b...)
		b, err = v.in.ReadSlice('\n')
	}
	if len(v.long) > 0 && len(v.long) <= MaxEntry {
		v.long = append(v.long, b...)
		b = v.long
	}
	switch {
	case err == nil:
		return b[:len(b)-1], nil
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("the line at entry %d is longer than an entry can be: this is not an export", v.tree.size)
	case errors.Is(err, io.EOF) && len(b) > 0:
		return nil, fmt.Errorf("the file ends in the middle of a line at entry %d: it was cut", v.tree.size)
	case errors.Is(err, io.EOF):
		return nil, io.EOF
	}
	return nil, fmt.Errorf("reading the export at entry %d: %w", v.tree.size, err)
}

func (v *verification) header() error {
	b, err := v.next()
	if errors.Is(err, io.EOF) {
		return errors.New("the file is empty: this is not an export")
	}
	if err != nil {
		return err
	}
	var h header
	if err := spelled(b, &h); err != nil || h.Format != Format {
		return fmt.Errorf("the first line does not say %q: this is not an export, or its first line was changed", Format)
	}
	if name := v.opt.Verifier.Name(); h.Origin != name {
		if of := kin(h.Origin, name); of != "" {
			return fmt.Errorf("this is the log %q, the key is of %q%s", h.Origin, name, of)
		}
		return fmt.Errorf("this is the log %q, the key is of %q: another log's file", h.Origin, name)
	}
	v.report.Origin = h.Origin
	return v.passEarlier()
}

// line reads one line after the header and reports whether it was the last.
func (v *verification) line() (done bool, err error) {
	b, err := v.next()
	if errors.Is(err, io.EOF) {
		return false, fmt.Errorf("the file ends after %d entries without a checkpoint: it was cut", v.tree.size)
	}
	if err != nil {
		return false, err
	}
	if bytes.HasPrefix(b, footerPrefix) {
		return true, v.footer(b)
	}
	if bytes.HasPrefix(b, markPrefix) {
		return false, v.mark(b)
	}
	if v.tree.size-v.marked == markEvery {
		return false, fmt.Errorf("the tree line after entry %d is missing or was changed", v.tree.size-1)
	}
	return false, v.entry(b)
}

func (v *verification) entry(b []byte) error {
	n := v.tree.size
	index, at, err := place(b)
	if err != nil {
		return fmt.Errorf("entry %d was changed: %w", n, err)
	}
	if index != n {
		return fmt.Errorf("at place %d stands entry %d: entries were removed, added or put in another order", n, index)
	}
	if n == 0 {
		v.report.First = string(at)
	} else if bytes.Compare(at, v.last[:]) < 0 {
		return fmt.Errorf("entry %d is dated %s, before entry %d (%s): entries were changed", n, at, n-1, v.last[:])
	}
	copy(v.last[:], at)
	if err := v.restoration(b); err != nil {
		return err
	}
	if v.opt.Each != nil {
		if err := v.opt.Each(b); err != nil {
			return err
		}
	}
	v.tree.Add(tlog.RecordHash(b))
	if v.opt.Progress != nil && v.tree.size%(1<<16) == 0 {
		v.opt.Progress(v.tree.size)
	}
	return v.passEarlier()
}

// passEarlier compares the root at the size of the earlier checkpoint.
func (v *verification) passEarlier() error {
	c := v.earlier
	if c == nil || c.Size != v.tree.size {
		return nil
	}
	if v.tree.Root() != c.Hash {
		return fmt.Errorf("the first %d entries are not those of the earlier checkpoint: one of them was changed, or the log was rebuilt", c.Size)
	}
	v.report.Earlier = c.Size
	return nil
}

func (v *verification) mark(b []byte) error {
	from := v.marked
	var m mark
	if err := spelled(b, &m); err != nil || m.Tree.Size != v.tree.size || v.tree.size != from+markEvery {
		return fmt.Errorf("the tree line after entry %d is out of place or was changed", v.tree.size-1)
	}
	if m.Tree.Hash != v.tree.Root().String() {
		return fmt.Errorf("one of the entries %d to %d, or the tree line after them, was changed", from, v.tree.size-1)
	}
	v.marked = v.tree.size
	return nil
}

func (v *verification) footer(b []byte) error {
	size := v.tree.size
	var f footer
	if err := spelled(b, &f); err != nil {
		return fmt.Errorf("the last line is not a checkpoint, or was changed: %w", err)
	}
	c, err := OpenCheckpoint([]byte(f.Checkpoint), v.opt.Verifier)
	if err != nil {
		return err
	}
	switch {
	case size < c.Size:
		return fmt.Errorf("the file has %d entries, its checkpoint signs %d: the tail was cut", size, c.Size)
	case size > c.Size:
		return fmt.Errorf("the file has %d entries, its checkpoint signs %d: entries were added", size, c.Size)
	case v.tree.Root() != c.Hash:
		return fmt.Errorf("the entries do not give the root that the checkpoint signs: %s", v.suspects())
	}
	if v.earlier != nil && v.report.Earlier < 0 {
		return fmt.Errorf("the log has %d entries, the earlier checkpoint signs %d: the tail was cut", size, v.earlier.Size)
	}
	if v.tree.size-v.marked == markEvery {
		return fmt.Errorf("the tree line after entry %d is missing", size-1)
	}
	if _, err := v.next(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the checkpoint: it is not part of the log")
	}
	if err := v.named(); err != nil {
		return err
	}
	v.report.Size, v.report.Hash = size, c.Hash
	if size > 0 {
		v.report.Last = string(v.last[:])
	}
	return nil
}

// suspects names the entries among which the change is, as far as that can be
// known: what agrees with the earlier checkpoint is not among them.
func (v *verification) suspects() string {
	from := max(v.report.Earlier, 0)
	if from == v.tree.size {
		return "the checkpoint is not of these entries"
	}
	if v.marked == v.tree.size || from >= v.marked {
		return fmt.Sprintf("one of the entries %d to %d was changed", from, v.tree.size-1)
	}
	return fmt.Sprintf("one of the entries %d to %d was changed (where the tree lines agree, %d to %d are likelier)",
		from, v.tree.size-1, v.marked, v.tree.size-1)
}

// spelled reads a line of ours and insists on its one spelling.
func spelled(b []byte, v any) error {
	if err := ijson.Unmarshal(b, v); err != nil {
		return err
	}
	canonical, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return err
	}
	if canonical, err = ijson.Canonical(canonical); err != nil {
		return err
	}
	if !bytes.Equal(canonical, b) {
		return errors.New("it is not spelled as it was written")
	}
	return nil
}
