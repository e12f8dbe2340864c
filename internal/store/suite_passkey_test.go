package store

import (
	"cmp"
	"encoding/base64"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

func suitePasskeys(t *testing.T, s *subject) {
	ctx := t.Context()
	s.wantDone(s.put(counterfoil.Change{Put: []counterfoil.Document{personDocument(t, "bo"), personDocument(t, "cy")}}))
	put := func(c counterfoil.PersonCode) func() error {
		return func() error { return s.PutPersonCode(ctx, c, entry(ledger.EnrolmentCodeIssued, "")) }
	}
	enrol := func(c counterfoil.PersonCode, p counterfoil.Passkey) func() error {
		return func() error { return s.EnrolPasskey(ctx, c.Hash, p, entry(ledger.PersonEnrolled, "")) }
	}
	const first, added = counterfoil.PasskeyFirst, counterfoil.PasskeyAdded
	c := personCode("bo", first)
	s.wantRefused(counterfoil.ToolUnknown, put(personCode("nobody", first)))
	s.wantDone(put(c)())
	for range 2 {
		if got, ok, err := s.PersonCode(ctx, c.Hash); err != nil || !ok || got != c {
			t.Errorf("the code is %+v, %v, %v", got, ok, err)
		}
		s.reopen()
	}
	if _, ok, err := s.PersonCode(ctx, personCode("x", first).Hash); ok || err != nil {
		t.Errorf("a code that nobody made: %v, %v", ok, err)
	}
	key := passkeyOfTest("bo", "one", first)
	s.wantRefused(counterfoil.EnrolmentRefused, enrol(personCode("x", first), key))
	s.wantRefused(counterfoil.EnrolmentRefused, enrol(c, passkeyOfTest("cy", "one", first)))
	s.wantRefused(counterfoil.EnrolmentRefused, enrol(c, passkeyOfTest("bo", "one", added)))
	e := entry(ledger.PersonEnrolled, "")
	s.wantDone(s.EnrolPasskey(ctx, c.Hash, key, e))
	s.wantRefused(counterfoil.EnrolmentRefused, enrol(c, passkeyOfTest("bo", "two", first)))
	key.Status, key.Entry = counterfoil.Active, e.Index
	for range 2 {
		if got, ok, err := s.PasskeyByID(ctx, []byte("one")); err != nil || !ok || !reflect.DeepEqual(got, key) || e.Index == 0 {
			t.Errorf("the passkey is\n%+v, enrolled was\n%+v (%v)", got, key, err)
		}
		if list, err := s.PasskeysOf(ctx, "bo"); err != nil || len(list) != 1 || !reflect.DeepEqual(list[0], key) {
			t.Errorf("the passkeys are %+v, %v", list, err)
		}
		if list, err := s.PasskeysOf(ctx, "cy"); err != nil || len(list) != 0 {
			t.Errorf("another's passkeys are %+v, %v", list, err)
		}
		if _, ok, err := s.PasskeyByID(ctx, []byte("two")); ok || err != nil {
			t.Errorf("a passkey that nobody has: %v, %v", ok, err)
		}
		s.reopen()
	}
	// Neither id nor key is anybody's twice, and a refusal spends no code.
	c = personCode("cy", first)
	s.wantDone(put(c)())
	same := passkeyOfTest("cy", "three", first)
	same.PublicKey = key.PublicKey
	s.wantRefused(counterfoil.KeyInUse, enrol(c, passkeyOfTest("cy", "one", first)))
	s.wantRefused(counterfoil.KeyInUse, enrol(c, same))
	s.wantDone(s.EndPasskeys(ctx, [][]byte{[]byte("one")}, entry(ledger.PasskeyEnded, "")))
	s.wantRefused(counterfoil.KeyInUse, enrol(c, same))
	s.wantDone(enrol(c, passkeyOfTest("cy", "three", first))())
	// Whoever ever had one has no first one again.
	s.wantRefused(counterfoil.RequestMalformed, put(personCode("bo", first)))
	s.wantDone(put(personCode("bo", added))())
	// A person has one code: the next one drops it.
	s.wantDone(put(personCode("bo", counterfoil.PasskeyReset))())
	s.wantRefused(counterfoil.EnrolmentRefused, enrol(personCode("bo", added), passkeyOfTest("bo", "four", added)))
	c = personCode("bo", counterfoil.PasskeyReset)
	four := passkeyOfTest("bo", "four", counterfoil.PasskeyReset)
	s.fixture.clock.Advance(24 * time.Hour)
	s.wantRefused(counterfoil.EnrolmentRefused, enrol(c, four))
	if _, ok, err := s.PersonCode(ctx, c.Hash); ok || err != nil {
		t.Errorf("an expired code: %v, %v", ok, err)
	}
	c.Expires = s.fixture.clock.Now().Add(time.Minute)
	s.wantDone(put(c)())
	s.wantDone(enrol(c, four)())
	if list, err := s.PasskeysOf(ctx, "bo"); err != nil || len(list) != 2 || list[0].Status != counterfoil.Ended || list[1].Status != counterfoil.Active {
		t.Errorf("the passkeys are %+v, %v", list, err)
	}
	for name, bad := range map[string]func() error{
		"no way": put(personCode("bo", "")),
		"no id":  enrol(c, passkeyOfTest("bo", "", added)),
	} {
		if bad() == nil {
			t.Errorf("%s: it was kept", name)
		}
	}
}

// losing is something that takes its ground from an approval.
type losing struct {
	name string
	kind ledger.Kind // whose entry says so
	do   func(*subject) error
	// others stay: an approval by another agent, instance, or signers
}

// Whatever an approval stands on, when it goes the approval goes with it, in one
// transaction, and the entry says so. What does not stand on it stays.
func suiteRevocation(t *testing.T, s *subject) {
	ctx := t.Context()
	code := func(person, how string) func(*subject) error {
		return func(s *subject) error {
			return s.PutPersonCode(ctx, personCode(person, how), entry(ledger.EnrolmentCodeIssued, ""))
		}
	}
	s.people("bo", "cy", "di", "ed", "flo", "gus")
	rows := []losing{
		{"suspended", ledger.AgentSuspended, func(s *subject) error {
			return s.suspend(ctx, "a-suspended", entry(ledger.AgentSuspended, "a-suspended"))
		}},
		{"offboarded", ledger.AgentOffboarded, func(s *subject) error {
			v, err := s.Offboard(ctx, "a-offboarded", entry(ledger.AgentOffboarded, "a-offboarded"))
			if len(v.Approvals) != 2 {
				t.Errorf("voided: %+v", v)
			}
			return err
		}},
		{"quarantined", ledger.CloneSuspected, func(s *subject) error {
			p := suspicion("ins-quarantined", s.fixture.clock.Now(), true)
			p.Agent, p.Second.Agent = "a-quarantined", "a-quarantined"
			ok, err := s.Suspect(ctx, p, entry(ledger.CloneSuspected, "a-quarantined"))
			if !ok {
				t.Error("it was not suspected")
			}
			return err
		}},
		{"key gone", ledger.ConfigApplied, func(s *subject) error { return s.put(counterfoil.Change{EndKeys: []string{"ins-key gone"}}) }},
		{"di", ledger.ConfigApplied, func(s *subject) error {
			return s.put(counterfoil.Change{Delete: []counterfoil.DocKey{{Kind: counterfoil.KindPerson, Name: "di"}}})
		}},
		{"ed", ledger.PasskeyEnded, func(s *subject) error {
			return s.EndPasskeys(ctx, [][]byte{[]byte("ed")}, entry(ledger.PasskeyEnded, ""))
		}},
		{"flo", ledger.EnrolmentCodeIssued, code("flo", counterfoil.PasskeyReset)},
	}
	// Each has two approvals, one pending and one approved, of an agent and an
	// instance of its own and with a signature of its own, where a person has that
	// name; and so has one that nothing happens to.
	approvals := map[string][]string{}
	for _, row := range append(slices.Clone(rows), losing{name: "none"}) {
		agent, inst, signer := "a-"+row.name, "ins-"+row.name, "cy"
		if slices.Contains([]string{"di", "ed", "flo"}, row.name) {
			signer = row.name
		}
		if row.name == "key gone" {
			agent = "a-key-gone"
		}
		s.agent(agent)
		s.instance(inst, agent)
		for _, next := range []counterfoil.ApprovalState{counterfoil.StatePending, counterfoil.StateApproved} {
			a := s.approval(agent, row.name+string(next), func(a *counterfoil.Approval) { a.Caller.Instance, a.Rule.Required = inst, 1 })
			s.ask(a)
			s.wantDone(s.sign(s.signing(a.ID, signer, 0, next)))
			approvals[row.name] = append(approvals[row.name], a.ID)
		}
	}
	s.wantDone(code("gus", counterfoil.PasskeyAdded)(s)) // takes nothing
	for i, row := range rows {
		s.wantDone(row.do(s))
		if got := s.detailOf(row.kind, "approvals"); !slices.Equal(got, approvals[row.name]) {
			t.Errorf("%s: the entry lists %v, want %v", row.name, got, approvals[row.name])
		}
		for j, other := range append(slices.Clone(rows), losing{name: "none"}) {
			for n, id := range approvals[other.name] {
				want := []counterfoil.ApprovalState{counterfoil.StatePending, counterfoil.StateApproved}[n]
				if j <= i {
					want = counterfoil.StateRevoked
				}
				s.wantState(id, want)
			}
		}
		a := s.kept(approvals[row.name][1])
		if a.Reason == "" || a.Closed.IsZero() {
			t.Errorf("%s: revoked is %+v", row.name, a)
		}
		if s.AgentState(a.Caller.Agent).Status == counterfoil.Active {
			s.wantRefused(counterfoil.ApprovalRevoked, s.spend(a))
		}
		s.wantRefused(counterfoil.ApprovalRevoked, func() error { return s.sign(s.signing(a.ID, "gus", 1, counterfoil.StatePending)) })
	}
	s.reopen()
	s.wantDone(s.spend(s.kept(approvals["none"][1]))())

	// With a person go the passkeys and the code; with a reset the passkeys alone.
	for _, name := range []string{"di", "ed", "flo"} {
		p, ok, err := s.PasskeyByID(ctx, []byte(name))
		if err != nil || !ok || p.Status != counterfoil.Ended {
			t.Errorf("%s: the passkey is %+v, %v", name, p, err)
		}
		s.wantRefused(counterfoil.PasskeyRefused, func() error {
			return s.UsePasskey(ctx, []byte(name), 1, false, entry(ledger.SessionOpened, ""))
		})
	}
	if got := s.detailOf(ledger.EnrolmentCodeIssued, "passkeys"); !slices.Equal(got, []string{base64.RawURLEncoding.EncodeToString([]byte("flo"))}) {
		t.Errorf("the entry lists the passkeys %v", got)
	}
	s.wantRefused(counterfoil.ToolUnknown, func() error {
		return s.EndPasskeys(ctx, [][]byte{[]byte("gus"), []byte("ed")}, entry(ledger.PasskeyEnded, ""))
	})
	s.wantDone(s.UsePasskey(ctx, []byte("gus"), 1, false, entry(ledger.SessionOpened, "")))
	// Nobody enrols as somebody who is not declared any more.
	gone := personCode("gus", counterfoil.PasskeyAdded)
	s.wantDone(s.put(counterfoil.Change{Delete: []counterfoil.DocKey{{Kind: counterfoil.KindPerson, Name: "gus"}}}))
	enrol := func() error {
		return s.EnrolPasskey(ctx, gone.Hash, passkeyOfTest("gus", "gus2", counterfoil.PasskeyAdded), entry(ledger.PersonEnrolled, ""))
	}
	s.wantRefused(counterfoil.EnrolmentRefused, enrol)
	s.wantDone(s.put(counterfoil.Change{Put: []counterfoil.Document{personDocument(t, "gus")}}))
	s.wantRefused(counterfoil.EnrolmentRefused, enrol)
	s.wantDone(s.PutPersonCode(ctx, gone, entry(ledger.EnrolmentCodeIssued, "")))
	s.wantDone(enrol())
}

// changeApproval is asked for by a person, of people.
func (s *subject) changeApproval(verb, digest string) counterfoil.Approval {
	return s.approval("", digest, func(a *counterfoil.Approval) {
		a.Kind, a.Caller, a.Requester, a.Tool = counterfoil.ApprovalOfChange, counterfoil.Caller{}, "uid:0", counterfoil.ToolID{Resource: "counterfoil", Tool: verb}
		a.Expires = s.fixture.clock.Now().Add(24 * time.Hour)
	})
}

func suiteRelease(t *testing.T, s *subject) {
	ctx := t.Context()
	s.office()
	s.wantDone(s.PutPersonCode(ctx, personCode("di", counterfoil.PasskeyAdded), entry(ledger.EnrolmentCodeIssued, "")))
	p := passkeyOfTest("di", "di2", counterfoil.PasskeyAdded)
	p.UsableFrom = p.Enrolled.Add(24 * time.Hour)
	s.wantDone(s.EnrolPasskey(ctx, personCode("di", counterfoil.PasskeyAdded).Hash, p, entry(ledger.PersonEnrolled, "")))
	releaseOf := func(id, approval, digest string) func() error {
		return func() error {
			return s.ReleasePasskey(ctx, []byte(id), approval, digest, entry(ledger.PersonChanged, ""))
		}
	}
	release := func(id, approval string) func() error {
		return func() error {
			a, _, err := s.Approval(ctx, approval)
			s.wantDone(err)
			return releaseOf(id, approval, cmp.Or(a.CallDigest, "sha-256:none"))()
		}
	}
	pending := s.ask(s.changeApproval(counterfoil.ChangeRelease, "pending"))
	ok := s.approved(s.changeApproval(counterfoil.ChangeRelease, "release"))
	apply, call := s.approved(s.changeApproval(counterfoil.ChangeApply, "apply")), s.approved(s.approval("payroll", "call"))
	s.wantRefused(counterfoil.ToolUnknown, release("di2", "apr_other"))
	s.wantRefused(counterfoil.ApprovalPending, release("di2", pending.ID))
	s.wantRefused(counterfoil.ApprovalMismatch, release("di2", apply.ID))
	s.wantRefused(counterfoil.ApprovalMismatch, release("di2", call.ID))
	s.wantRefused(counterfoil.ApprovalMismatch, releaseOf("di2", ok.ID, "sha-256:other"))
	s.wantRefused(counterfoil.PasskeyRefused, release("di3", ok.ID))
	if release("di2", "")() == nil {
		t.Error("it was released without an approval")
	}
	s.wantState(ok.ID, counterfoil.StateApproved)
	if got, _, _ := s.PasskeyByID(ctx, []byte("di2")); !got.UsableFrom.Equal(p.UsableFrom) {
		t.Errorf("released without leave: %+v", got)
	}
	s.fixture.clock.Advance(time.Minute)
	s.wantDone(release("di2", ok.ID)())
	for range 2 {
		if got, _, err := s.PasskeyByID(ctx, []byte("di2")); err != nil || !got.UsableFrom.Equal(s.fixture.clock.Now()) {
			t.Errorf("released: %+v, %v", got, err)
		}
		s.wantState(ok.ID, counterfoil.StateSucceeded)
		s.reopen()
	}
	s.wantRefused(counterfoil.ApprovalSpent, release("di2", ok.ID))
	late := s.approved(s.changeApproval(counterfoil.ChangeRelease, "late"))
	s.fixture.clock.Advance(5 * time.Minute)
	s.wantRefused(counterfoil.ApprovalExpired, release("di2", late.ID))
}

func suiteProposals(t *testing.T, s *subject) {
	ctx := t.Context()
	s.office()
	propose := func(id, approval string) counterfoil.Proposal {
		now := s.fixture.clock.Now()
		return counterfoil.Proposal{ID: id, Documents: []byte(`[{"name":"a"}]`), Digest: "d", Actor: "uid:0", Approval: approval, Created: now, Effective: now.Add(24 * time.Hour)}
	}
	put := func(p counterfoil.Proposal) func() error {
		return func() error { return s.PutProposal(ctx, p, entry(ledger.ChangeProposed, "")) }
	}
	made := func(id string) func() error { return func() error { return s.put(counterfoil.Change{Proposal: id}) } }
	closed := func(id string) func() error {
		return func() error { return s.CloseProposal(ctx, id, entry(ledger.ChangeClosed, "")) }
	}
	waiting := func(want ...string) {
		t.Helper()
		list, err := s.Proposals(ctx)
		s.wantDone(err)
		var got []string
		for _, p := range list {
			got = append(got, p.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v wait, want %v", got, want)
		}
	}
	ask := func(digest string) string { return s.ask(s.changeApproval(counterfoil.ChangeApply, digest)).ID }
	call := s.ask(s.approval("payroll", "call"))
	s.wantRefused(counterfoil.ApprovalMismatch, put(propose("prp_1", call.ID)))
	s.wantRefused(counterfoil.ToolUnknown, put(propose("prp_1", "apr_other")))

	p := propose("prp_1", ask("one"))
	s.wantDone(put(p)())
	for range 2 {
		if list, err := s.Proposals(ctx); err != nil || len(list) != 1 || !reflect.DeepEqual(list[0], p) {
			t.Fatalf("the proposals are %+v, %v", list, err)
		}
		s.reopen()
	}
	_, base := s.Registry()
	s.wantRefused(counterfoil.ApprovalPending, made(p.ID))
	s.wantRefused(counterfoil.ToolUnknown, made("prp_other"))
	waiting("prp_1")
	s.wantDone(s.sign(s.signing(p.Approval, "bo", 0, counterfoil.StatePending)))
	s.wantDone(s.sign(s.signing(p.Approval, "cy", 1, counterfoil.StateApproved)))
	if _, now := s.Registry(); now != base {
		t.Error("a refused change gave the registry another revision")
	}
	s.wantDone(made(p.ID)())
	s.wantState(p.Approval, counterfoil.StateSucceeded)
	waiting()
	s.wantRefused(counterfoil.ToolUnknown, made(p.ID))
	s.wantRefused(counterfoil.ToolUnknown, closed(p.ID))

	// An approval that was not used in its time, or that was revoked, leaves it to the
	// time of the change.
	unused, revoked := propose("prp_a", s.approved(s.changeApproval(counterfoil.ChangeApply, "a")).ID), propose("prp_b", ask("b"))
	s.wantDone(put(unused)())
	s.wantDone(put(revoked)())
	s.wantDone(s.CloseApproval(ctx, revoked.Approval, []counterfoil.ApprovalState{counterfoil.StatePending}, counterfoil.StateRevoked, "", entry(ledger.ApprovalClosed, "")))
	s.fixture.clock.Advance(5 * time.Minute)
	s.wantRefused(counterfoil.ApprovalExpired, made(unused.ID))
	s.wantRefused(counterfoil.ApprovalRevoked, made(revoked.ID))
	s.fixture.clock.Advance(24 * time.Hour)
	s.wantDone(made(unused.ID)())
	s.wantDone(made(revoked.ID)())
	s.wantState(unused.Approval, counterfoil.StateSucceeded)
	s.wantState(revoked.Approval, counterfoil.StateRevoked)

	// What a person said no to is never made; what is taken back asks nobody.
	denied, late, alone := propose("prp_2", ask("two")), propose("prp_3", ask("three")), propose("prp_4", "")
	gone := propose("prp_5", ask("five"))
	for _, p := range []counterfoil.Proposal{denied, late, alone, gone} {
		s.wantDone(put(p)())
	}
	s.wantDone(s.sign(s.signing(denied.Approval, "bo", 0, counterfoil.StateDenied)))
	s.wantRefused(counterfoil.ApprovalDenied, put(propose("prp_6", denied.Approval)))
	s.wantRefused(counterfoil.ApprovalDenied, made(denied.ID))
	s.wantRefused(counterfoil.ApprovalPending, made(alone.ID))
	s.wantDone(closed(gone.ID)())
	s.wantState(gone.Approval, counterfoil.StateCancelled)
	if got := s.detailOf(ledger.ChangeClosed, "approvals"); !slices.Equal(got, []string{gone.Approval}) {
		t.Errorf("the entry lists %v", got)
	}
	s.wantRefused(counterfoil.ToolUnknown, closed(gone.ID))
	waiting("prp_2", "prp_3", "prp_4")
	// From its time on it needs nobody.
	s.fixture.clock.Advance(24*time.Hour - time.Millisecond)
	s.wantRefused(counterfoil.ApprovalPending, made(late.ID))
	s.fixture.clock.Advance(time.Millisecond)
	s.wantDone(made(late.ID)())
	s.wantDone(made(alone.ID)())
	s.wantRefused(counterfoil.ApprovalDenied, made(denied.ID))
	s.wantDone(closed(denied.ID)())
	s.wantState(denied.Approval, counterfoil.StateDenied)
	waiting()
	// One of many takes it.
	race := propose("prp_7", "")
	race.Effective = s.fixture.clock.Now()
	s.wantDone(put(race)())
	if wins := s.atOnce(50, []counterfoil.Code{counterfoil.ToolUnknown}, func(int) error { return closed(race.ID)() }); wins != 1 {
		t.Errorf("%d closed one proposal", wins)
	}
}
