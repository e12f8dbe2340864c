package approval

import (
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/testkit/passkey"
	"github.com/counterfoil/counterfoil/ledger"
)

// feed verifies a log and returns what does not hold in it.
func feed(entries []*ledger.Entry) string {
	var o Offline
	var bad []string
	for _, e := range entries {
		if err := o.Add(e); err != nil {
			bad = append(bad, err.Error())
		}
	}
	return strings.Join(bad, "; ")
}

// With the log alone, a forged human proof is found out.
func TestOfflineFindsForgeries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy", "ed")
	pay := w.pay("100", "DE1")
	id := w.ask(pay)
	w.approve(id, "bo", "cy")
	w.run(pay)
	log := w.entries // read anew each time, so that each forger has a copy
	of := func(log []*ledger.Entry, kind ledger.Kind, n int) int {
		for i, e := range log {
			if e.Kind == kind {
				if n == 0 {
					return i
				}
				n--
			}
		}
		t.Fatalf("no %s", kind)
		return 0
	}
	detail := func(e *ledger.Entry, path ...string) map[string]any {
		m := e.Detail
		for _, p := range path {
			m = m[p].(map[string]any)
		}
		return m
	}
	if bad := feed(log()); bad != "" {
		t.Fatalf("the honest log: %s", bad)
	}
	for _, row := range []struct {
		name, word string
		forge      func(log []*ledger.Entry) []*ledger.Entry
	}{
		{"a signature", "does not verify", func(l []*ledger.Entry) []*ledger.Entry {
			m := detail(l[of(l, ledger.ApprovalSigned, 0)], "record", "assertion")
			m["signature"] = flip(m["signature"].(string), -1)
			return l
		}},
		{"the authenticator's data", "does not verify", func(l []*ledger.Entry) []*ledger.Entry {
			m := detail(l[of(l, ledger.ApprovalSigned, 0)], "record", "assertion")
			m["authenticatorData"] = flip(m["authenticatorData"].(string), 32)
			return l
		}},
		{"a decision in the challenge", "does not verify", func(l []*ledger.Entry) []*ledger.Entry {
			detail(l[of(l, ledger.ApprovalSigned, 0)], "record", "challenge")["decision"] = "deny"
			return l
		}},
		{"the approval's digest", "another approval", func(l []*ledger.Entry) []*ledger.Entry {
			detail(l[of(l, ledger.ApprovalRequested, 0)])["approval_digest"] = "sha-256:" + strings.Repeat("A", 43)
			return l
		}},
		{"a reason", "another person, decision or reason", func(l []*ledger.Entry) []*ledger.Entry {
			l[of(l, ledger.ApprovalSigned, 1)].Reason = "looks fine to me"
			return l
		}},
		{"who signed", "signed as ed", func(l []*ledger.Entry) []*ledger.Entry {
			l[of(l, ledger.ApprovalSigned, 1)].Actor = "ed"
			return l
		}},
		{"a passkey that was enrolled later", "not enrolled before", func(l []*ledger.Entry) []*ledger.Entry {
			i := of(l, ledger.PersonEnrolled, 1)
			return append(append(l[:i:i], l[i+1:]...), l[i])
		}},
		{"another public key", "does not verify", func(l []*ledger.Entry) []*ledger.Entry {
			detail(l[of(l, ledger.PersonEnrolled, 0)])["public_key"] = encode(passkey.PublicKey(passkey.NewKey()))
			return l
		}},
		{"another origin", "does not verify", func(l []*ledger.Entry) []*ledger.Entry {
			detail(l[of(l, ledger.PersonEnrolled, 0)])["origin"] = "https://evil.example"
			return l
		}},
		{"a passkey that was ended", "ended", func(l []*ledger.Entry) []*ledger.Entry {
			end := &ledger.Entry{Kind: ledger.PasskeyEnded, Detail: map[string]any{"credential": encode(w.phone("bo").Passkeys()[0].ID)}}
			i := of(l, ledger.ApprovalSigned, 0)
			return append(append(l[:i:i], end), l[i:]...)
		}},
		{"a signature is gone", "", func(l []*ledger.Entry) []*ledger.Entry {
			i := of(l, ledger.ApprovalSigned, 0)
			return append(l[:i:i], l[i+1:]...)
		}},
		{"the second signature is gone", "needs more", func(l []*ledger.Entry) []*ledger.Entry {
			i := of(l, ledger.ApprovalSigned, 1)
			return append(l[:i:i], l[i+1:]...)
		}},
		{"a signature twice", "other signatures", func(l []*ledger.Entry) []*ledger.Entry {
			i, j := of(l, ledger.ApprovalSigned, 0), of(l, ledger.ApprovalSigned, 1)
			l[j] = l[i]
			return l
		}},
		{"the owner is a signer", "owns the agent", func(l []*ledger.Entry) []*ledger.Entry {
			l[of(l, ledger.ApprovalRequested, 0)].Owner = "cy"
			return l
		}},
		{"for whom it was", "on behalf", func(l []*ledger.Entry) []*ledger.Entry {
			l[of(l, ledger.ApprovalRequested, 0)].OnBehalfOf = "bo"
			return l
		}},
		{"a group", "needs more", func(l []*ledger.Entry) []*ledger.Entry {
			for n := range 2 {
				detail(l[of(l, ledger.ApprovalSigned, n)])["groups"] = []any{"cleaning"}
			}
			return l
		}},
		{"spent twice", "used before", func(l []*ledger.Entry) []*ledger.Entry {
			return append(l, l[of(l, ledger.CallDecided, 0)])
		}},
		{"spent after a no", "over", func(l []*ledger.Entry) []*ledger.Entry {
			i := of(l, ledger.CallDecided, 0)
			closed := &ledger.Entry{Kind: ledger.ApprovalClosed, Approval: ledger.Approval{ID: id, State: "denied"}}
			return append(append(l[:i:i], closed), l[i:]...)
		}},
		{"an approval that nobody asked for", "not requested", func(l []*ledger.Entry) []*ledger.Entry {
			l[of(l, ledger.CallDecided, 0)].Approval.ID = "apr_other"
			return l
		}},
		{"no approval at all", "without an approval", func(l []*ledger.Entry) []*ledger.Entry {
			l[of(l, ledger.CallDecided, 0)].Approval = ledger.Approval{}
			return l
		}},
		{"the request is gone", "not requested", func(l []*ledger.Entry) []*ledger.Entry {
			i := of(l, ledger.ApprovalRequested, 0)
			return append(l[:i:i], l[i+1:]...)
		}},
		{"a cooling time", "counts for irreversible", func(l []*ledger.Entry) []*ledger.Entry {
			detail(l[of(l, ledger.PersonEnrolled, 0)])["usable_from"] = "2026-03-03T09:00:00.000000Z"
			return l
		}},
		{"an id that is enrolled again", "enrolled before", func(l []*ledger.Entry) []*ledger.Entry {
			return append(l, l[of(l, ledger.PersonEnrolled, 0)])
		}},
	} {
		bad := feed(row.forge(log()))
		if bad == "" || !strings.Contains(bad, row.word) {
			t.Errorf("%s: found %q, want %q", row.name, bad, row.word)
		}
	}
}

// An exported record is verified as it is written: one byte of it changed is found.
func TestOfflineReadsWhatIsWritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo")
	c := w.pay("100", "DE1", of("reset", "credential-reset"))
	w.approve(w.ask(c), "bo")
	signed := w.entriesOf(ledger.ApprovalSigned)[0]
	a := w.approval(signed.Approval.ID)
	record, err := ijson.Marshal(signed.Detail["record"])
	wantDone(t, err)
	if string(record) != string(a.Signatures[0].Record) || digest(prefixSignature, record) != a.Signatures[0].Digest {
		t.Error("the entry's record is not the one that is kept")
	}
	if a.Signatures[0].Decision != counterfoil.DecisionApprove {
		t.Errorf("kept: %+v", a.Signatures[0])
	}
}
