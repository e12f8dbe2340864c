package approval

import (
	"strings"
	"testing"
	"time"

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
	// An agent that looks at it, while the call is under way or after, uses nothing up.
	for _, state := range []string{"", "spent", "succeeded"} {
		l := log()
		i := of(l, ledger.CallDecided, 0)
		look := &ledger.Entry{Kind: ledger.CallDecided, Decision: ledger.Allow, Agent: "payroll", Tool: "bank/tasks/get", Approval: ledger.Approval{ID: id, State: state}}
		if bad := feed(append(append(append(l[:i:i], look), l[i:]...), look)); bad != "" {
			t.Errorf("with a look that says %q: %s", state, bad)
		}
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
			for _, e := range l {
				if e.Approval.ID == id {
					e.OnBehalfOf = "bo"
				}
			}
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
		{"used a year later", "not used in time", func(l []*ledger.Entry) []*ledger.Entry {
			l[of(l, ledger.CallDecided, 0)].Time = "2027-03-02T09:00:00.000000Z"
			return l
		}},
		{"used six minutes later", "not used in time", func(l []*ledger.Entry) []*ledger.Entry {
			l[of(l, ledger.CallDecided, 0)].Time = "2026-03-02T09:06:00.000000Z"
			return l
		}},
		{"signed after the deadline", "signs an approval that was over", func(l []*ledger.Entry) []*ledger.Entry {
			for _, e := range l[of(l, ledger.ApprovalSigned, 1):] {
				e.Time = "2026-03-02T09:16:00.000000Z"
			}
			return l
		}},
		{"of another agent", "another agent", func(l []*ledger.Entry) []*ledger.Entry {
			l[of(l, ledger.CallDecided, 0)].Agent = "other"
			return l
		}},
		{"of another task", "another agent", func(l []*ledger.Entry) []*ledger.Entry {
			l[of(l, ledger.CallDecided, 0)].Task = "tsk_2"
			return l
		}},
		{"of another tool", "another agent", func(l []*ledger.Entry) []*ledger.Entry {
			l[of(l, ledger.CallDecided, 0)].Tool = "bank/both"
			return l
		}},
		{"of another definition", "another agent", func(l []*ledger.Entry) []*ledger.Entry {
			l[of(l, ledger.CallDecided, 0)].ToolDigest = "sha-256:other"
			return l
		}},
		{"of another class", "another agent", func(l []*ledger.Entry) []*ledger.Entry {
			l[of(l, ledger.CallDecided, 0)].Class = "both"
			return l
		}},
		{"of another tier", "of tier guarded", func(l []*ledger.Entry) []*ledger.Entry {
			l[of(l, ledger.CallDecided, 0)].Tier = "guarded"
			return l
		}},
		{"of no tier", "tier", func(l []*ledger.Entry) []*ledger.Entry {
			l[of(l, ledger.CallDecided, 0)].Tier = ""
			return l
		}},
		{"as routine", "another agent, task, tool or class", func(l []*ledger.Entry) []*ledger.Entry {
			e := l[of(l, ledger.CallDecided, 0)]
			e.Tier, e.Class = "routine", "read"
			return l
		}},
		{"other signers", "others than the entry says", func(l []*ledger.Entry) []*ledger.Entry {
			l[of(l, ledger.CallDecided, 0)].Approval.Signers = []string{"bo", "ed"}
			return l
		}},
		{"a rule of one person", "fewer people", func(l []*ledger.Entry) []*ledger.Entry {
			i := of(l, ledger.ApprovalRequested, 0)
			detail(l[i])["required"], detail(l[i], "rule")["required"] = float64(1), float64(1)
			return l
		}},
		{"a rule of another tier", "fewer people", func(l []*ledger.Entry) []*ledger.Entry {
			i := of(l, ledger.ApprovalRequested, 0)
			detail(l[i], "rule")["tier"] = "guarded"
			return l
		}},
		{"a rule of a lesser tier throughout", "of tier irreversible", func(l []*ledger.Entry) []*ledger.Entry {
			i := of(l, ledger.ApprovalRequested, 0)
			detail(l[i], "rule")["tier"], detail(l[i], "rule")["required"], detail(l[i])["required"] = "guarded", float64(1), float64(1)
			l[i].Tier = "guarded"
			return l
		}},
		{"a signer who is deleted", "ended", func(l []*ledger.Entry) []*ledger.Entry {
			gone := &ledger.Entry{Kind: ledger.ConfigApplied, Detail: map[string]any{"passkeys": []any{encode(w.phone("bo").Passkeys()[0].ID)}}}
			i := of(l, ledger.ApprovalSigned, 0)
			return append(append(l[:i:i], gone), l[i:]...)
		}},
		{"an agent that was suspended", "over", func(l []*ledger.Entry) []*ledger.Entry {
			suspended := &ledger.Entry{Kind: ledger.AgentSuspended, Detail: map[string]any{"approvals": []any{id}}}
			i := of(l, ledger.CallDecided, 0)
			return append(append(l[:i:i], suspended), l[i:]...)
		}},
		{"a change that nobody was asked about", "not requested", func(l []*ledger.Entry) []*ledger.Entry {
			return append(l, &ledger.Entry{Kind: ledger.ChangeClosed, Reason: "approved", Approval: ledger.Approval{ID: "apr_other"}})
		}},
		{"a change with the approval of a call", "not of this change", func(l []*ledger.Entry) []*ledger.Entry {
			return append(l, &ledger.Entry{Kind: ledger.ChangeClosed, Reason: "approved", Approval: ledger.Approval{ID: id}})
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

// What two people let be before its time is exactly that.
func TestOfflineFindsForgedChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo", "cy", "ed")
	second := passkey.New(testRP, testOrigin)
	w.enrolWith("bo", second, false)
	id := w.told(EventChangeProposed)[0].Approval
	w.approve(id, "cy", "ed")
	w.phones["bo"] = second
	w.approve(w.ask(w.pay("100", "DE1")), "bo")
	log := w.entries
	if bad := feed(log()); bad != "" {
		t.Fatalf("the honest log: %s", bad)
	}
	find := func(l []*ledger.Entry, kind ledger.Kind, n int) (int, *ledger.Entry) {
		for i, e := range l {
			if e.Kind == kind {
				if n--; n < 0 {
					return i, e
				}
			}
		}
		t.Fatalf("no %s", kind)
		return 0, nil
	}
	others, _ := w.entriesOf(ledger.PersonEnrolled)[1].Detail["credential"].(string)
	for _, row := range []struct {
		name, word string
		forge      func(l []*ledger.Entry) []*ledger.Entry
	}{
		{"no release", "counts for irreversible", func(l []*ledger.Entry) []*ledger.Entry {
			i, _ := find(l, ledger.ChangeClosed, 0)
			return append(l[:i:i], l[i+1:]...)
		}},
		{"another passkey is released", "not of this passkey", func(l []*ledger.Entry) []*ledger.Entry {
			_, e := find(l, ledger.ChangeClosed, 0)
			e.Detail["credential"] = others
			return l
		}},
		{"another passkey was asked about", "not the release of the passkey", func(l []*ledger.Entry) []*ledger.Entry {
			_, e := find(l, ledger.ApprovalRequested, 0)
			e.Detail["credential"] = others
			return l
		}},
		{"the passkey was enrolled otherwise", "not the release of the passkey", func(l []*ledger.Entry) []*ledger.Entry {
			_, e := find(l, ledger.PersonEnrolled, 3)
			e.Detail["how"] = "reset"
			return l
		}},
		{"another statement", "not the one that was signed", func(l []*ledger.Entry) []*ledger.Entry {
			_, e := find(l, ledger.ApprovalRequested, 0)
			e.Detail["statement"].(map[string]any)["nonce"] = "AAAA"
			return l
		}},
		{"another rule than was signed", "another rule", func(l []*ledger.Entry) []*ledger.Entry {
			_, e := find(l, ledger.ApprovalRequested, 0)
			e.Detail["rule"].(map[string]any)["groups"] = []any{[]any{"finance", "audit", "evil"}}
			return l
		}},
		{"no statement", "statement", func(l []*ledger.Entry) []*ledger.Entry {
			_, e := find(l, ledger.ApprovalRequested, 0)
			delete(e.Detail, "statement")
			return l
		}},
		{"the approval of a call", "not of this passkey", func(l []*ledger.Entry) []*ledger.Entry {
			_, asked := find(l, ledger.ApprovalRequested, 1)
			i, e := find(l, ledger.ChangeClosed, 0)
			e.Approval = asked.Approval
			return append(append(l[:i:i], l[i+1:]...), e)
		}},
		{"released by one", "needs more", func(l []*ledger.Entry) []*ledger.Entry {
			i, _ := find(l, ledger.ApprovalSigned, 1)
			return append(l[:i:i], l[i+1:]...)
		}},
		{"released long after", "not used in time", func(l []*ledger.Entry) []*ledger.Entry {
			_, e := find(l, ledger.ChangeClosed, 0)
			e.Time = "2026-03-04T09:00:00.000000Z"
			return l
		}},
		{"a call runs with it", "another agent, task, tool or class", func(l []*ledger.Entry) []*ledger.Entry {
			i, _ := find(l, ledger.ChangeClosed, 0)
			run := &ledger.Entry{
				Kind: ledger.CallDecided, Time: l[i].Time, Decision: ledger.Allow, Tool: "counterfoil/release-passkey", Class: "admin-change", Tier: "irreversible",
				Approval: ledger.Approval{ID: id},
			}
			return append(append(l[:i:i], run), l[i:]...)
		}},
	} {
		bad := feed(row.forge(log()))
		if bad == "" || !strings.Contains(bad, row.word) {
			t.Errorf("%s: found %q, want %q", row.name, bad, row.word)
		}
	}
}

// A change that took effect by itself did so at its time, and over nobody's no.
func TestOfflineHoldsChangesToTheirTime(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)
	proposed := func() *ledger.Entry {
		return &ledger.Entry{Kind: ledger.ChangeProposed, Time: ledger.FormatTime(at), Detail: map[string]any{
			"proposal": "prp_a", "effective": ledger.FormatTime(at.Add(24 * time.Hour)),
		}}
	}
	closed := func(after time.Duration, id, reason string) *ledger.Entry {
		return &ledger.Entry{Kind: ledger.ChangeClosed, Index: 1, Time: ledger.FormatTime(at.Add(after)), Reason: reason, Detail: map[string]any{
			"proposal": id, "verb": "apply",
		}}
	}
	for name, tt := range map[string]struct {
		closed *ledger.Entry
		ok     bool
	}{
		"at its time":      {closed(24*time.Hour, "prp_a", "its time came"), true},
		"a second after":   {closed(time.Second, "prp_a", "its time came"), false},
		"never proposed":   {closed(24*time.Hour, "prp_b", "its time came"), false},
		"approved by none": {closed(time.Second, "prp_a", "approved"), false},
		"denied":           {closed(time.Second, "prp_a", "denied"), true},
	} {
		var o Offline
		if err := o.Add(proposed()); err != nil {
			t.Fatal(err)
		}
		if err := o.Add(tt.closed); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
