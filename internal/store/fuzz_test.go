package store

import (
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// What a start reads back of an entry, without parsing it, is what the entry
// says.
func FuzzReadBack(f *testing.F) {
	add := func(e ledger.Entry) {
		e.Time = ledger.FormatTime(time.Unix(0, 0))
		b, err := ledger.Encode(&e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	add(ledger.Entry{Kind: ledger.CallDecided, Proof: "proof", Agent: "payroll", JKT: "jkt"})
	add(ledger.Entry{Kind: ledger.TokenRefused, Proof: "p", Code: counterfoil.KeyInUse, Reason: `a "proof":"x" in a text`})
	add(ledger.Entry{Kind: ledger.ServerStarted, Detail: map[string]any{"proof": "inner"}})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ledger.Parse(b)
		if err != nil {
			return
		}
		e.Time = ledger.FormatTime(time.Unix(0, 0)) // the log's, not the writer's
		entry, err := ledger.Encode(e)
		if err != nil {
			return // no log has it
		}
		var proofs []string
		r := proofReader{fn: func(hash string, at time.Time) {
			proofs = append(proofs, hash)
			if !at.Equal(time.Unix(0, 0)) {
				t.Errorf("%q is of %s", entry, at)
			}
		}}
		if err := r.read(entry, ""); err != nil {
			t.Fatalf("%q: %v", entry, err)
		}
		if e.Proof == "" && len(proofs) > 0 || e.Proof != "" && (len(proofs) != 1 || proofs[0] != e.Proof) {
			t.Fatalf("%q has the proof %q, read as %q", entry, e.Proof, proofs)
		}
		for _, want := range []ledger.Filter{{Agent: e.Agent}, {Kind: e.Kind}, {RequestID: e.RequestID}, {Code: e.Code}, {Tool: e.Tool}} {
			if ok, _, err := matches(entry, wantedBy(want)); err != nil || !ok {
				t.Fatalf("%q is not found by %+v: %v", entry, want, err)
			}
		}
	})
}

// A document that is read names itself as it is filed.
func FuzzParseDocument(f *testing.F) {
	f.Add("Agent", "payroll", []byte(`{"name":"payroll","owner":"ana","environment":"prod"}`))
	f.Add("Class", "payout", []byte(`{"name":"payout","tier":"irreversible"}`))
	f.Add("Policy", "x", []byte(`null`))
	f.Add("King", "x", []byte(`{"name":"x"}`))
	f.Fuzz(func(t *testing.T, kind, name string, body []byte) {
		n, err := parseDocument(counterfoil.Document{Kind: kind, Name: name, Body: body})
		if err == nil && n.name != name {
			t.Errorf("%s %q is read as %q", kind, name, n.name)
		}
	})
}
