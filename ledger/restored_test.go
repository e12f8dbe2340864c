package ledger

import (
	"strings"
	"testing"
)

func TestRestoredOrigins(t *testing.T) {
	t.Parallel()
	for origin, want := range map[string]struct {
		base string
		n    int
	}{
		"a.example/ledger":                       {"a.example/ledger", 0},
		"a.example/ledger/restored-1":            {"a.example/ledger", 1},
		"a.example/ledger/restored-12":           {"a.example/ledger", 12},
		"a.example/ledger/restored-0":            {"a.example/ledger/restored-0", 0},
		"a.example/ledger/restored-01":           {"a.example/ledger/restored-01", 0},
		"a.example/ledger/restored-":             {"a.example/ledger/restored-", 0},
		"a.example/restored-3/ledger":            {"a.example/restored-3/ledger", 0},
		"a.example/restored-3/ledger/restored-2": {"a.example/restored-3/ledger", 2},
	} {
		if base, n := BaseOrigin(origin); base != want.base || n != want.n {
			t.Errorf("%s: %s %d", origin, base, n)
		}
	}
	if o := RestoredOrigin("a/ledger/restored-2", 3); o != "a/ledger/restored-3" {
		t.Error(o)
	}
}

// restore returns a log that goes on from the first entries of another, with a key of
// its own.
func (l *log) restore(size int, origin string, change ...func(*Restoration)) *log {
	l.t.Helper()
	fresh := newLog(l.t, origin, 0)
	for _, e := range l.entries[:size] {
		fresh.append(e)
	}
	r := Restoration{Index: int64(size), From: l.origin, Origin: origin, Known: int64(len(l.entries)), Checkpoint: string(l.checkpoint().Note)}
	for _, c := range change {
		c(&r)
	}
	fresh.append(mustEncode(l.t, &Entry{Index: int64(size), Time: "2026-11-21T13:00:00.000000Z", Kind: ServerRestored, Actor: "uid:0", Reason: "the disk died", Detail: r.Detail()}))
	return fresh
}

func TestVerifyRestored(t *testing.T) {
	t.Parallel()
	old := newLog(t, "a.example/ledger", 50)
	restored := old.restore(30, "a.example/ledger/restored-1")
	report, err := restored.verify(restored.export(), VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Restored) != 1 {
		t.Fatalf("%+v", report)
	}
	r := report.Restored[0]
	if r.Index != 30 || r.From != old.origin || r.Origin != restored.origin || r.Known != 50 || r.Lost() != 20 || r.Reason != "the disk died" || r.Actor != "uid:0" {
		t.Errorf("%+v", r)
	}
	if c, err := OpenCheckpoint([]byte(r.Checkpoint), old.verifier); err != nil || c.Size != 50 {
		t.Errorf("the old log's last checkpoint: %+v %v", c, err)
	}
	again := restored.restore(31, "a.example/ledger/restored-2")
	if report, err := again.verify(again.export(), VerifyOptions{}); err != nil || len(report.Restored) != 2 || report.Restored[1].Lost() != 0 {
		t.Errorf("restored twice: %+v %v", report.Restored, err)
	}
	if report, err := old.verify(old.export(), VerifyOptions{}); err != nil || report.Restored != nil {
		t.Errorf("never restored: %+v %v", report.Restored, err)
	}
	if _, err := restored.verify(restored.export(), VerifyOptions{Earlier: restored.checkpoint().Note}); err != nil {
		t.Errorf("its own checkpoint: %v", err)
	}
	for name, row := range map[string]struct {
		log     *log
		earlier []byte
		says    string
	}{
		"a checkpoint of the old key": {restored, old.checkpoint().Note, "from before the log was restored"},
		"a checkpoint of the new key": {old, restored.checkpoint().Note, "was restored since and has a new key"},
		"another name than its last": {old.restore(30, "a.example/ledger/restored-1", func(r *Restoration) { r.Origin = "a.example/ledger/restored-7" }),
			nil, `goes on as "a.example/ledger/restored-7"`},
		"another log before": {restored.restore(31, "a.example/ledger/restored-2", func(r *Restoration) { r.From = "b.example/ledger" }),
			nil, `"b.example/ledger" was restored, but it was "a.example/ledger/restored-1"`},
		"another size":     {old.restore(30, "a.example/ledger/restored-1", func(r *Restoration) { r.Index = 29 }), nil, "not from which entries on"},
		"no entry says so": {newLog(t, "a.example/ledger/restored-1", 3), nil, "no entry says so"},
	} {
		if _, err := row.log.verify(row.log.export(), VerifyOptions{Earlier: row.earlier}); err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v, want %q", name, err, row.says)
		}
	}
}
