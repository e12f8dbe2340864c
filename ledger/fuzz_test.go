package ledger

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/counterfoil/counterfoil/ijson"
)

// An entry that was read and can be written is written canonically and read as
// the same, and Members, which does not parse, sees the same names and texts.
func FuzzParseEntry(f *testing.F) {
	f.Add(mustEncode(f, full()))
	f.Add(mustEncode(f, &Entry{Time: FormatTime(noon), Kind: ServerStarted}))
	f.Add([]byte(`{"index":0,"kind":"future.kind","time":"2026-11-21T12:00:00.000000Z","unknown":[1]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Parse(b)
		if err != nil {
			return
		}
		out, err := Encode(e)
		if err != nil {
			return // a time, an index or a detail that no log has
		}
		if canonical, err := ijson.Canonical(out); err != nil || !bytes.Equal(canonical, out) {
			t.Fatalf("%q is written as %q, which is not canonical: %v", b, out, err)
		}
		again, err := Parse(out)
		if err != nil {
			t.Fatalf("%q is written as %q, which is refused: %v", b, out, err)
		}
		twice, err := Encode(again)
		if err != nil || !bytes.Equal(twice, out) {
			t.Fatalf("%q becomes %q: %v", out, twice, err)
		}
		seen := map[string]string{}
		if err := Members(out, func(name, value []byte) bool {
			seen[string(name)] = Text(value)
			return true
		}); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		if seen["proof"] != again.Proof || seen["time"] != again.Time || seen["agent"] != again.Agent || seen["kind"] != string(again.Kind) {
			t.Fatalf("%q reads as %v and as %+v", out, seen, again)
		}
	})
}

// A receipt shows an entry of the log or nothing.
func FuzzReceipt(f *testing.F) {
	l := newLog(f, "log.example/l", 5)
	c := l.checkpoint()
	for i, e := range l.entries {
		r, err := MakeReceipt(l.stored, e, int64(i), c)
		if err != nil {
			f.Fatal(err)
		}
		b, err := r.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseReceipt(b)
		if err != nil {
			return
		}
		if out, err := r.Encode(); err == nil {
			if again, err := ParseReceipt(out); err != nil || again.Index != r.Index || !slices.Equal(again.Proof, r.Proof) || again.Checkpoint != r.Checkpoint {
				t.Fatalf("%q is written as %q: %v", b, out, err)
			}
		}
		e, err := r.Verify(l.verifier)
		if err != nil {
			return
		}
		if shown, err := Encode(e); err != nil || !bytes.Equal(shown, l.entries[e.Index]) {
			t.Fatalf("%q shows %q, which is not in the log: %v", b, shown, err)
		}
	})
}

// A tile has one path, which is below tile/.
func FuzzParseTilePath(f *testing.F) {
	for _, s := range []string{"tile/0/000", "tile/0/x001/x234/067.p/5", "tile/7/255", "tile/8/000", "tile/entries/000", "tile/data/000", "tile/0/0", "tile/0/x000/001", "tile/0/000.p/256", "tile/-1/000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tile, err := ParseTilePath(s)
		if err != nil {
			return
		}
		if TilePath(tile) != s || strings.Contains(s, "..") || tile.H != TileHeight || tile.W < 1 || tile.W > 1<<TileHeight || tile.N < 0 {
			t.Errorf("%q is read as %+v", s, tile)
		}
		_ = tlog.Tile(tile).Path()
	})
}

// A key's secret form is never said, and what is read as a key has a name.
func FuzzNoteKeys(f *testing.F) {
	secret, public, err := GenerateKey("log.example/l")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(secret)
	f.Add(public)
	f.Add("PRIVATE+KEY+log.example/l+00000000+AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		if signer, err := ParseSigner(s); err == nil {
			if signer.Name() == "" {
				t.Errorf("%q has no name", s)
			}
		} else if text := strings.TrimSpace(s); len(text) > 20 && strings.Contains(err.Error(), text) {
			t.Errorf("the error has the text: %v", err)
		}
		v, err := ParseVerifier(s)
		if err == nil && (v.Name() == "" || strings.HasPrefix(s, "PRIVATE+KEY+")) {
			t.Errorf("%q is taken as %q", s, v.Name())
		}
		if text := strings.TrimSpace(s); err != nil && len(text) > 20 && strings.Contains(err.Error(), text) {
			t.Errorf("the error has the text: %v", err)
		}
	})
}

// A time has one spelling.
func FuzzParseTime(f *testing.F) {
	f.Add(FormatTime(noon))
	f.Add("2026-11-21T12:00:00,000000Z")
	f.Add("2026-02-30T12:00:00.000000Z")
	f.Fuzz(func(t *testing.T, s string) {
		if at, err := ParseTime(s); err == nil && FormatTime(at) != s {
			t.Errorf("%q is read as %q", s, FormatTime(at))
		}
	})
}
