package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

// A log is a whole one in memory, with a key of its own.
type log struct {
	t        testing.TB
	origin   string
	signer   note.Signer
	verifier note.Verifier
	entries  [][]byte
	stored   memory
	tree     Tree
}

func newLog(t testing.TB, origin string, entries int) *log {
	t.Helper()
	skey, vkey, err := GenerateKey(origin)
	if _, fuzzing := t.(*testing.F); fuzzing {
		// A fuzz target runs in several processes, which hand inputs to each other.
		skey, vkey, err = note.GenerateKey(bytes.NewReader(make([]byte, 64)), origin)
	}
	if err != nil {
		t.Fatal(err)
	}
	l := &log{t: t, origin: origin}
	if l.signer, err = ParseSigner(skey + "\n"); err != nil {
		t.Fatal(err)
	}
	if l.verifier, err = ParseVerifier(vkey + "\n"); err != nil {
		t.Fatal(err)
	}
	for range entries {
		l.add(fmt.Sprintf("agent-%d", len(l.entries)%3))
	}
	return l
}

func (l *log) add(agent string) {
	n := len(l.entries)
	l.append(mustEncode(l.t, &Entry{
		Index: int64(n), Time: FormatTime(noon.Add(time.Duration(n) * time.Second)), Kind: CallDecided, Agent: agent, Decision: Allow,
		Reason: strings.Repeat("x", n%7),
	}))
}

func (l *log) append(entry []byte) {
	l.entries = append(l.entries, entry)
	l.stored = append(l.stored, l.tree.Append(tlog.RecordHash(entry), nil)...)
}

func (l *log) checkpoint() Checkpoint {
	l.t.Helper()
	b, err := SignCheckpoint(l.signer, l.origin, l.tree.Size(), l.tree.Root())
	if err != nil {
		l.t.Fatal(err)
	}
	c, err := OpenCheckpoint(b, l.verifier)
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// export returns the lines of an export, each with its line feed.
func (l *log) export() []string {
	l.t.Helper()
	var buf bytes.Buffer
	err := WriteExport(&buf, l.checkpoint(), func(put func([]byte) error) error {
		for _, e := range l.entries {
			if err := put(e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return strings.SplitAfter(strings.TrimSuffix(buf.String(), "\n"), "\n")
}

// rebuilt returns a log by the same key with other entries.
func (l *log) rebuilt(entries int) *log {
	other := &log{t: l.t, origin: l.origin, signer: l.signer, verifier: l.verifier}
	for range entries {
		other.add("somebody-else")
	}
	return other
}

func (l *log) verify(lines []string, opt VerifyOptions) (Report, error) {
	if opt.Verifier == nil {
		opt.Verifier = l.verifier
	}
	text := strings.Join(lines, "")
	if !strings.HasSuffix(text, "\n") && len(lines) > 0 && strings.HasPrefix(lines[len(lines)-1], `{"checkpoint":`) {
		text += "\n"
	}
	return VerifyExport(strings.NewReader(text), opt)
}

// line returns where the line of an entry is.
func line(entry int) int { return 1 + entry + entry/markEvery }

func TestVerifySound(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 2, 63, 64, 65, 127, 128, 200} {
		l := newLog(t, "log.example/ledger", 0)
		earlier := l.checkpoint().Note
		for range size {
			if l.tree.Size() == int64(size/2) {
				earlier = l.checkpoint().Note
			}
			l.add("payroll")
		}
		var progress int64
		r, err := l.verify(l.export(), VerifyOptions{Earlier: earlier, Progress: func(n int64) { progress = n }})
		if err != nil {
			t.Errorf("%d entries: %v", size, err)
			continue
		}
		if r.Size != int64(size) || r.Hash != l.tree.Root() || r.Origin != l.origin || r.Earlier != int64(size/2) {
			t.Errorf("%d entries: %+v", size, r)
		}
		if size > 0 && (r.First != FormatTime(noon) || r.Last < r.First) {
			t.Errorf("%d entries: from %s to %s", size, r.First, r.Last)
		}
		if r, err := l.verify(l.export(), VerifyOptions{Earlier: l.checkpoint().Note}); err != nil || r.Earlier != int64(size) {
			t.Errorf("%d entries against their own checkpoint: %+v, %v", size, r, err)
		}
		_ = progress
	}
}

// AU1, AU8: each row is one thing that somebody did to a log of 150 entries;
// the log itself verifies.
func TestVerifyFindsTampering(t *testing.T) {
	t.Parallel()
	const size = 150
	l := newLog(t, "log.example/ledger", 100)
	earlier := l.checkpoint().Note
	for range size - 100 {
		l.add("payroll")
	}
	sound := l.export()
	other := newLog(t, "other.example/ledger", size)
	impostor := newLog(t, l.origin, size) // the same name, another key
	plain := VerifyOptions{}
	since := VerifyOptions{Earlier: earlier}
	if _, err := l.verify(sound, plain); err != nil {
		t.Fatal(err)
	}
	if r, err := l.verify(sound, since); err != nil || r.Earlier != 100 {
		t.Fatalf("%+v, %v", r, err)
	}
	edit := func(change func(lines []string) []string) []string { return change(append([]string(nil), sound...)) }
	footer := len(sound) - 1
	for name, row := range map[string]struct {
		lines []string
		opt   VerifyOptions
		want  string
	}{
		"one byte changed": {edit(func(x []string) []string {
			x[line(70)] = strings.Replace(x[line(70)], `"agent":"agent-1"`, `"agent":"agent-2"`, 1)
			return x
		}), plain, "one of the entries 64 to 127"},
		"one byte changed after the last tree line": {edit(func(x []string) []string {
			x[line(149)] = strings.Replace(x[line(149)], "payroll", "payrole", 1)
			return x
		}), plain, "128 to 149 are likelier"},
		"one byte changed, tree lines made to agree": {edit(func(x []string) []string {
			x[line(10)] = strings.Replace(x[line(10)], "xxx", "yyy", 1)
			return remark(x)
		}), plain, "do not give the root"},
		"the same, seen by an earlier checkpoint": {edit(func(x []string) []string {
			x[line(10)] = strings.Replace(x[line(10)], "xxx", "yyy", 1)
			return remark(x)
		}), since, "the first 100 entries are not those of the earlier checkpoint"},
		"a time changed": {edit(func(x []string) []string {
			x[line(70)] = strings.Replace(x[line(70)], "2026-11-21", "2025-11-21", 1)
			return x
		}), plain, "entry 70 is dated 2025"},
		"an index changed": {edit(func(x []string) []string {
			x[line(70)] = strings.Replace(x[line(70)], `"index":70`, `"index":71`, 1)
			return x
		}), plain, "at place 70 stands entry 71"},
		"two entries swapped": {edit(func(x []string) []string {
			x[line(70)], x[line(71)] = x[line(71)], x[line(70)]
			return x
		}), plain, "at place 70 stands entry 71"},
		"one deleted in the middle": {edit(func(x []string) []string {
			return append(x[:line(70)], x[line(71):]...)
		}), plain, "at place 70 stands entry 71"},
		"one deleted, the others renumbered": {edit(func(x []string) []string {
			x = append(x[:line(140)], x[line(141):]...)
			for i := 140; i < 149; i++ {
				x[line(i)] = strings.Replace(x[line(i)], fmt.Sprintf(`"index":%d`, i+1), fmt.Sprintf(`"index":%d`, i), 1)
			}
			return x
		}), plain, "the file has 149 entries, its checkpoint signs 150"},
		"one inserted twice": {edit(func(x []string) []string {
			return append(x[:line(71)], append([]string{x[line(70)]}, x[line(71):]...)...)
		}), plain, "at place 71 stands entry 70"},
		"one added at the end": {edit(func(x []string) []string {
			extra := mustEncode(t, &Entry{Index: size, Time: FormatTime(noon.Add(time.Hour)), Kind: CallDecided})
			return append(x[:footer], string(extra)+"\n", x[footer])
		}), plain, "the file has 151 entries, its checkpoint signs 150"},
		"the last one deleted": {edit(func(x []string) []string {
			return append(x[:footer-1], x[footer])
		}), plain, "the file has 149 entries, its checkpoint signs 150: the tail was cut"},
		"the tail cut with an old checkpoint of the log": {
			newLogOf(l, 90).export(), since, "the earlier checkpoint signs 100: the tail was cut"},
		"rebuilt by the holder of the key": {
			l.rebuilt(size).export(), since, "the first 100 entries are not those of the earlier checkpoint"},
		"rebuilt and shorter": {
			l.rebuilt(90).export(), since, "the earlier checkpoint signs 100: the tail was cut"},
		"another key":                        {impostor.export(), plain, "not signed with the key"},
		"another log's file":                 {other.export(), plain, `this is the log "other.example/ledger"`},
		"another log's file under our name":  {edit(func(x []string) []string { return append(x[:1], other.export()[1:]...) }), plain, "this is another log's"},
		"another log's checkpoint":           {edit(func(x []string) []string { x[footer] = other.export()[footer]; return x }), plain, "this is another log's"},
		"an empty file":                      {nil, plain, "the file is empty"},
		"only a line feed":                   {[]string{"\n"}, plain, "does not say"},
		"no export":                          {[]string{"%PDF-1.7\n", "x\n"}, plain, "does not say"},
		"only the header":                    {sound[:1], plain, "ends after 0 entries without a checkpoint"},
		"cut after an entry":                 {sound[:line(70)], plain, "ends after 70 entries without a checkpoint"},
		"cut in the middle of an entry":      {[]string{strings.Join(sound[:line(70)], ""), sound[line(70)][:20]}, plain, "in the middle of a line at entry 70"},
		"without its header":                 {sound[1:], plain, "does not say"},
		"something after the checkpoint":     {[]string{strings.Join(sound, "") + "\n", "x"}, plain, "something follows the checkpoint"},
		"a line after the checkpoint":        {[]string{strings.Join(sound, "") + "\n", "{}\n"}, plain, "something follows the checkpoint"},
		"an empty line after the checkpoint": {[]string{strings.Join(sound, "") + "\n", "\n"}, plain, "something follows the checkpoint"},
		"a second export after it":           {[]string{strings.Join(sound, "") + "\n", strings.Join(sound, "") + "\n"}, plain, "something follows the checkpoint"},
		"an empty line between entries":      {edit(func(x []string) []string { x[line(70)] = "\n" + x[line(70)]; return x }), plain, "entry 70 was changed"},
		"CR LF": {edit(func(x []string) []string {
			return strings.SplitAfter(strings.ReplaceAll(strings.Join(x, ""), "\n", "\r\n"), "\n")
		}), plain, ""},
		"a tree line removed":                {edit(func(x []string) []string { return append(x[:line(64)-1], x[line(64):]...) }), plain, "the tree line after entry 63 is missing"},
		"a tree line twice":                  {edit(func(x []string) []string { x[line(64)-1] += x[line(64)-1]; return x }), plain, "the tree line after entry 63 is out of place"},
		"the checkpoint's signature changed": {edit(func(x []string) []string { x[footer] = flip(x[footer], len(x[footer])-20); return x }), plain, "does not verify"},
		"the checkpoint's size changed":      {edit(func(x []string) []string { x[footer] = strings.Replace(x[footer], `\n150\n`, `\n151\n`, 1); return x }), plain, "does not verify"},
		"an entry that is not JSON":          {edit(func(x []string) []string { x[line(70)] = "hello\n"; return x }), plain, "entry 70 was changed"},
		"an endless line":                    {[]string{sound[0], strings.Repeat("x", 2*MaxEntry)}, plain, "longer than an entry can be"},
		"an earlier checkpoint of another log": {sound, VerifyOptions{Earlier: other.checkpoint().Note},
			"reading the earlier checkpoint"},
		"an empty earlier checkpoint": {sound, VerifyOptions{Earlier: []byte{}}, "the checkpoint is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := l.verify(row.lines, row.opt)
			if err == nil {
				t.Fatalf("it verifies: %+v", r)
			}
			if !strings.Contains(err.Error(), row.want) {
				t.Errorf("the error is %q, want %q", err, row.want)
			}
			if !reflect.DeepEqual(r, Report{}) {
				t.Errorf("a report came with it: %+v", r)
			}
		})
	}
}

// newLogOf is the log as it was when it had that many entries.
func newLogOf(l *log, size int) *log {
	old := &log{t: l.t, origin: l.origin, signer: l.signer, verifier: l.verifier}
	for _, e := range l.entries[:size] {
		old.append(e)
	}
	return old
}

// remark makes the tree lines agree with the entries again, as somebody would
// who knows the format.
func remark(lines []string) []string {
	var tree Tree
	for i, x := range lines {
		switch {
		case i == 0 || strings.HasPrefix(x, `{"checkpoint":`):
		case strings.HasPrefix(x, `{"tree":`):
			lines[i] = fmt.Sprintf("{\"tree\":{\"hash\":%q,\"size\":%d}}\n", tree.Root(), tree.Size())
		default:
			tree.Add(tlog.RecordHash([]byte(strings.TrimSuffix(x, "\n"))))
		}
	}
	return lines
}

func flip(s string, i int) string {
	b := []byte(s)
	if b[i] == 'A' {
		b[i] = 'B'
	} else {
		b[i] = 'A'
	}
	return string(b)
}

// Every byte of an export is covered: whichever is changed or left out, it does
// not verify any more. Of the bytes of entries every seventh is tried.
func TestVerifyCoversEveryByte(t *testing.T) {
	t.Parallel()
	l := newLog(t, "log.example/l", 66)
	text := strings.Join(l.export(), "") + "\n"
	verify := func(b string) error {
		_, err := VerifyExport(strings.NewReader(b), VerifyOptions{Verifier: l.verifier})
		return err
	}
	if err := verify(text); err != nil {
		t.Fatal(err)
	}
	entry := func(i int) bool {
		return strings.HasPrefix(text[strings.LastIndexByte(text[:i], '\n')+1:], `{"agent"`)
	}
	for i := range len(text) {
		if entry(i) && i%7 != 0 {
			continue
		}
		b := []byte(text)
		b[i] ^= []byte{0x01, 0x20, 0x80}[i%3]
		if verify(string(b)) == nil {
			t.Errorf("byte %d changed from %q to %q verifies, near %q", i, text[i], b[i], text[max(0, i-30):min(len(text), i+30)])
		}
		if i%3 == 0 && verify(text[:i]) == nil || verify(text[:i]+text[i+1:]) == nil {
			t.Errorf("it verifies without byte %d (%q) or what follows", i, text[i])
		}
	}
}

func TestVerifyAnyEdit(t *testing.T) {
	t.Parallel()
	l := newLog(t, "log.example/l", 70)
	text := strings.Join(l.export(), "") + "\n"
	rapid.Check(t, func(t *rapid.T) {
		i := rapid.IntRange(0, len(text)).Draw(t, "from")
		j := rapid.IntRange(i, min(len(text), i+200)).Draw(t, "to")
		with := rapid.OneOf(rapid.Just(""), rapid.StringN(0, 5, 20), rapid.Just(text[i:j]+text[i:j])).Draw(t, "with")
		edited := text[:i] + with + text[j:]
		_, err := VerifyExport(strings.NewReader(edited), VerifyOptions{Verifier: l.verifier})
		if (err == nil) != (edited == text) {
			t.Fatalf("[%d:%d] replaced by %q: %v", i, j, with, err)
		}
	})
}

func FuzzVerifyExport(f *testing.F) {
	l := newLog(f, "log.example/l", 66)
	text := strings.Join(l.export(), "") + "\n"
	f.Add([]byte(text))
	f.Add([]byte(text[:300]))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := VerifyExport(bytes.NewReader(b), VerifyOptions{Verifier: l.verifier}); err == nil && string(b) != text {
			t.Errorf("a forgery verifies: %q", b)
		}
	})
}

func FuzzOpenCheckpoint(f *testing.F) {
	l := newLog(f, "log.example/l", 3)
	good := l.checkpoint().Note
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := OpenCheckpoint(b, l.verifier); err == nil && !bytes.HasPrefix(b, good[:bytes.Index(good, []byte("\n\n"))]) {
			t.Errorf("a forgery opens: %q", b)
		}
	})
}

func TestReadErrorsAreReported(t *testing.T) {
	t.Parallel()
	l := newLog(t, "log.example/l", 3)
	broken := errors.New("the cable")
	r := io.MultiReader(strings.NewReader(strings.Join(l.export()[:2], "")), errorReader{broken})
	if _, err := VerifyExport(r, VerifyOptions{Verifier: l.verifier}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if _, err := VerifyExport(strings.NewReader(""), VerifyOptions{}); err == nil {
		t.Error("it verifies without a key")
	}
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

func TestWriteExportChecksItsLog(t *testing.T) {
	t.Parallel()
	l := newLog(t, "log.example/l", 5)
	each := func(entries ...[]byte) func(func([]byte) error) error {
		return func(put func([]byte) error) error {
			for _, e := range entries {
				if err := put(e); err != nil {
					return err
				}
			}
			return nil
		}
	}
	if err := WriteExport(io.Discard, l.checkpoint(), each(l.entries...)); err != nil {
		t.Fatal(err)
	}
	for name, entries := range map[string][][]byte{
		"one missing": l.entries[:4],
		"one changed": {l.entries[0], l.entries[1], l.entries[2], l.entries[3], []byte("{}")},
		"one more":    append(l.entries[:5:5], []byte("{}")),
		"two lines":   {[]byte("{\n}")},
	} {
		var out bytes.Buffer
		if err := WriteExport(&out, l.checkpoint(), each(entries...)); err == nil {
			t.Errorf("%s: exported", name)
		}
		if strings.Contains(out.String(), `{"checkpoint":`) {
			t.Errorf("%s: the export has its end", name)
		}
	}
	full := errors.New("the disk is full")
	if err := WriteExport(errorWriter{full}, l.checkpoint(), each(l.entries...)); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

type errorWriter struct{ err error }

func (w errorWriter) Write([]byte) (int, error) { return 0, w.err }

func TestCheckpoint(t *testing.T) {
	t.Parallel()
	l := newLog(t, "log.example/ledger", 7)
	good := string(l.checkpoint().Note)
	if c, err := OpenCheckpoint([]byte(good), l.verifier); err != nil || c.Size != 7 || c.Hash != l.tree.Root() || c.Origin != l.origin {
		t.Fatalf("%+v, %v", c, err)
	}
	// A witness adds its signature (C2SP tlog-cosignature) and changes nothing.
	witness := newLog(t, "witness.example", 0)
	n, err := note.Open([]byte(good), note.VerifierList(l.verifier))
	if err != nil {
		t.Fatal(err)
	}
	cosigned, err := note.Sign(n, witness.signer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCheckpoint(cosigned, l.verifier); err != nil {
		t.Errorf("cosigned: %v", err)
	}
	if _, err := OpenCheckpoint(cosigned, newLog(t, l.origin, 0).verifier); err == nil {
		t.Error("cosigned, by neither key: it opens")
	}
	sign := func(text string) string {
		b, err := note.Sign(&note.Note{Text: text}, l.signer)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	hash := l.tree.Root().String()
	if _, err := OpenCheckpoint([]byte(sign(l.origin+"\n7\n"+hash+"\nextension\n")), l.verifier); err != nil {
		t.Errorf("with an extension line: %v", err)
	}
	for name, bad := range map[string]string{
		"empty":            "",
		"nonsense":         "nonsense",
		"no signature":     l.origin + "\n7\n" + hash + "\n",
		"another origin":   sign("other.example\n7\n" + hash + "\n"),
		"two lines":        sign(l.origin + "\n7\n"),
		"negative":         sign(l.origin + "\n-7\n" + hash + "\n"),
		"leading zero":     sign(l.origin + "\n07\n" + hash + "\n"),
		"no number":        sign(l.origin + "\nseven\n" + hash + "\n"),
		"short root":       sign(l.origin + "\n7\nAAAA\n"),
		"trailing garbage": good + "x",
		"trailing line":    good + "\n",
		"changed size":     strings.Replace(good, "\n7\n", "\n8\n", 1),
		"signature twice":  good + good,
		"too large":        sign(l.origin + "\n7\n" + hash + "\n" + strings.Repeat("x", maxCheckpoint) + "\n"),
	} {
		if c, err := OpenCheckpoint([]byte(bad), l.verifier); err == nil {
			t.Errorf("%s: opens as %+v", name, c)
		}
	}
	if _, err := SignCheckpoint(l.signer, "other.example", 7, l.tree.Root()); err == nil {
		t.Error("a key signs for another origin")
	}
}

func TestKeysInTheirTextForms(t *testing.T) {
	t.Parallel()
	if _, _, err := GenerateKey("has space"); err == nil {
		t.Error("an origin with a space has a key")
	}
	skey, vkey, err := GenerateKey("log.example/l")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseSigner(vkey); err == nil || strings.Contains(err.Error(), vkey) {
		t.Errorf("a public key as a secret one: %v", err)
	}
	if _, err := ParseVerifier(skey); err == nil {
		t.Error("a secret key as a public one")
	}
	if _, err := ParseSigner(skey[:len(skey)-2]); err == nil || strings.Contains(err.Error(), skey[40:50]) {
		t.Errorf("a cut secret key: %v", err)
	}
}

func TestReceipts(t *testing.T) {
	t.Parallel()
	l := newLog(t, "log.example/ledger", 37)
	c := l.checkpoint()
	for _, index := range []int64{0, 1, 31, 32, 36} {
		r, err := MakeReceipt(l.stored, l.entries[index], index, c)
		if err != nil {
			t.Fatal(err)
		}
		if e, err := r.Verify(l.verifier); err != nil || e.Index != index {
			t.Fatalf("receipt of %d: %v, %v", index, e, err)
		}
	}
	sound := func() Receipt {
		r, err := MakeReceipt(l.stored, l.entries[9], 9, c)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for name, spoil := range map[string]func(*Receipt){
		"another entry":     func(r *Receipt) { r.Entry = l.entries[10] },
		"a changed entry":   func(r *Receipt) { r.Entry = bytes.Replace(r.Entry, []byte("agent-0"), []byte("agent-9"), 1) },
		"no entry":          func(r *Receipt) { r.Entry = nil },
		"another index":     func(r *Receipt) { r.Index = 8 },
		"a negative index":  func(r *Receipt) { r.Index = -1 },
		"an index beyond":   func(r *Receipt) { r.Index = 37 },
		"a proof too short": func(r *Receipt) { r.Proof = r.Proof[1:] },
		"a changed proof":   func(r *Receipt) { r.Proof[0][3] ^= 1 },
		"an endless proof":  func(r *Receipt) { r.Proof = make([]tlog.Hash, 1000) },
		"no checkpoint":     func(r *Receipt) { r.Checkpoint = "" },
		"an older checkpoint": func(r *Receipt) {
			r.Checkpoint = string(newLogOf(l, 20).checkpoint().Note)
		},
		"another key's checkpoint": func(r *Receipt) { r.Checkpoint = string(newLog(t, l.origin, 37).checkpoint().Note) },
	} {
		r := sound()
		if _, err := r.Verify(l.verifier); err != nil {
			t.Fatal(err)
		}
		spoil(&r)
		if e, err := r.Verify(l.verifier); err == nil {
			t.Errorf("%s: verifies as %+v", name, e)
		}
	}
	if _, err := MakeReceipt(l.stored, l.entries[8], 9, c); err == nil {
		t.Error("a receipt that would not verify was made")
	}
	if _, err := MakeReceipt(l.stored, l.entries[9], 37, c); err == nil {
		t.Error("a receipt beyond the checkpoint was made")
	}
}

func TestReceiptsAsFiles(t *testing.T) {
	t.Parallel()
	l := newLog(t, "log.example/ledger", 5)
	r, err := MakeReceipt(l.stored, l.entries[3], 3, l.checkpoint())
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"as written":      b,
		"another spacing": bytes.ReplaceAll(b, []byte(`,"index"`), []byte(",\n  \"index\"")),
	} {
		back, err := ParseReceipt(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := back.Verify(l.verifier); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []string{"", "{}x", `{"entry":{},"entry":{}}`, `{"unknown":1}`} {
		if _, err := ParseReceipt([]byte(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

func TestVerifyTiles(t *testing.T) {
	t.Parallel()
	l := newLog(t, "log.example/ledger", 300)
	earlier := l.checkpoint().Note
	for range 400 {
		l.add("payroll")
	}
	fetch := func(_ context.Context, path string) ([]byte, error) {
		tile, err := ParseTilePath(path)
		if err != nil {
			return nil, err
		}
		return tlog.ReadTileData(tile, l.stored)
	}
	ctx := t.Context()
	note := l.checkpoint().Note
	opt := VerifyOptions{Verifier: l.verifier, Earlier: earlier}
	if r, err := VerifyTiles(ctx, note, fetch, opt); err != nil || r.Size != 700 || r.Earlier != 300 {
		t.Fatalf("%+v, %v", r, err)
	}
	spoilt := func(spoil func(path string, b []byte) []byte) FetchTile {
		return func(ctx context.Context, path string) ([]byte, error) {
			b, err := fetch(ctx, path)
			return spoil(path, b), err
		}
	}
	old := newLogOf(l, 200)
	for name, row := range map[string]struct {
		note  []byte
		fetch FetchTile
		want  string
	}{
		"a changed hash": {note, spoilt(func(path string, b []byte) []byte {
			if path == "tile/0/002.p/188" {
				b[7] ^= 1
			}
			return b
		}), "do not give the root"},
		"a changed hash before the earlier checkpoint": {note, spoilt(func(path string, b []byte) []byte {
			if path == "tile/0/000" {
				b[7] ^= 1
			}
			return b
		}), "the first 300 entries"},
		"a short tile":       {note, spoilt(func(_ string, b []byte) []byte { return b[32:] }), "bytes instead of"},
		"an unreachable log": {note, func(context.Context, string) ([]byte, error) { return nil, errors.New("refused") }, "refused"},
		"a log that was cut": {old.checkpoint().Note, fetch, "the tail was cut"},
		"a rebuilt log":      {l.rebuilt(700).checkpoint().Note, fetch, "do not give the root"},
	} {
		if r, err := VerifyTiles(ctx, row.note, row.fetch, opt); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %+v, %v, want %q", name, r, err, row.want)
		}
	}
}

func BenchmarkVerifyExport(b *testing.B) {
	l := newLog(b, "log.example/ledger", 0)
	e := full()
	e.Detail = nil
	const size = 20_000
	for i := range int64(size) {
		e.Index = i
		l.append(mustEncode(b, e))
	}
	text := strings.Join(l.export(), "") + "\n"
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := VerifyExport(strings.NewReader(text), VerifyOptions{Verifier: l.verifier}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
