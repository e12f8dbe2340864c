package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

func (s *subject) tryRevoke(kind counterfoil.TargetKind, id string, change ...func(*counterfoil.Revocation)) (counterfoil.Voided, bool, error) {
	r := counterfoil.Revocation{Target: counterfoil.Target{Kind: kind, ID: id}, Reason: "stolen"}
	for _, c := range change {
		c(&r)
	}
	return s.Revoke(context.Background(), r, entry(ledger.Revoked, ""))
}

// revoke wants a revocation to be news, and to be so once.
func (s *subject) revoke(kind counterfoil.TargetKind, id string, change ...func(*counterfoil.Revocation)) counterfoil.Voided {
	s.t.Helper()
	before := s.size()
	v, news, err := s.tryRevoke(kind, id, change...)
	if err != nil || !news || s.size() != before+1 {
		s.t.Fatalf("revoking %s %s: news %v, %d entries, %v", kind, id, news, s.size()-before, err)
	}
	s.wantOld(kind, id, change...)
	return v
}

// wantOld wants nothing left to take, and nothing recorded of it.
func (s *subject) wantOld(kind counterfoil.TargetKind, id string, change ...func(*counterfoil.Revocation)) {
	s.t.Helper()
	before := s.size()
	if v, news, err := s.tryRevoke(kind, id, change...); err != nil || news || s.size() != before {
		s.t.Errorf("revoking %s %s again: news %v, %+v, %d entries, %v", kind, id, news, v, s.size()-before, err)
	}
}

func (s *subject) apply(docs ...counterfoil.Document) {
	s.t.Helper()
	s.wantDone(s.put(counterfoil.Change{Put: docs}))
}

func bankDocument(t testing.TB) counterfoil.Document {
	return document(t, counterfoil.KindResource, "bank", &counterfoil.Resource{Name: "bank", Type: counterfoil.ResourceMCP,
		Credential: &counterfoil.UpstreamCredential{Header: "Authorization", URL: "https://vault.example/v1/s3cr3t?token=s3cr3t"}, Tools: []counterfoil.Tool{{Name: "pay", Class: "payout"}}})
}

// shop is what every target can be revoked in: ana owns payroll, whose instance ins_1
// has an open task and an approval that bo signed.
func (s *subject) shop() {
	s.t.Helper()
	s.office()
	s.apply(personDocument(s.t, "ana"), bankDocument(s.t))
	s.task("tsk_1", "payroll", "ins_1")
	s.wantDone(s.bind(s.t.Context(), "payroll", "ins_1", "bound", 8))
	s.ask(s.approval("payroll", "one", func(a *counterfoil.Approval) { a.ID, a.Caller.Task = "apr_1", "tsk_1" }))
	s.wantDone(s.sign(s.signing("apr_1", "bo", 0, counterfoil.StatePending)))
}

// Each target, and what it takes: the token, to issue another, and the approval.
func suiteRevoke(t *testing.T, s *subject) {
	for _, c := range []struct {
		kind                counterfoil.TargetKind
		id                  string
		call, issue, signed counterfoil.Code // empty: it goes on
	}{
		{counterfoil.TargetToken, "tok_1", counterfoil.TokenRevoked, "", ""},
		{counterfoil.TargetKey, "jkt-ins_1", counterfoil.TokenRevoked, counterfoil.ClientRefused, counterfoil.ApprovalRevoked},
		{counterfoil.TargetKey, "bound", "", "", ""},
		{counterfoil.TargetInstance, "ins_1", counterfoil.TokenRevoked, counterfoil.ClientRefused, counterfoil.ApprovalRevoked},
		{counterfoil.TargetTask, "tsk_1", counterfoil.TaskClosed, counterfoil.TaskClosed, counterfoil.ApprovalRevoked},
		{counterfoil.TargetAgent, "payroll", counterfoil.AgentSuspended, counterfoil.AgentSuspended, counterfoil.ApprovalRevoked},
		{counterfoil.TargetOwner, "ana", counterfoil.AgentSuspended, counterfoil.AgentSuspended, counterfoil.ApprovalRevoked},
		{counterfoil.TargetPerson, "ana", counterfoil.AgentSuspended, counterfoil.AgentSuspended, counterfoil.ApprovalRevoked},
		{counterfoil.TargetPerson, "bo", "", "", counterfoil.ApprovalRevoked},
		{counterfoil.TargetResource, "bank", counterfoil.TokenRevoked, counterfoil.TargetInvalid, counterfoil.ApprovalRevoked},
	} {
		t.Run(string(c.kind)+" "+c.id, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			s := &subject{t: t, fixture: f, Store: f.open()}
			s.shop()
			caller := s.token("tok_1", "payroll", "ins_1", "tsk_1")
			want := func(what string, code counterfoil.Code, do func() error) {
				t.Helper()
				err := do()
				if code == "" && err != nil || code != "" && (err == nil || counterfoil.CodeOf(err) != code) {
					t.Errorf("%s: %v, want %q", what, err, code)
				}
			}
			n := 0
			issue := func() error {
				n++
				return s.tryToken(fmt.Sprint("tok_n", n), "payroll", "ins_1", "tsk_1")
			}
			sign := func() error { return s.sign(s.signing("apr_1", "cy", 1, counterfoil.StateApproved)) }
			request := func() error {
				n++
				_, _, err := s.request(s.approval("payroll", fmt.Sprint(n), func(a *counterfoil.Approval) { a.Caller = caller }))
				return err
			}
			want("the control of the call", "", s.revoked(caller))
			want("the control of the token", "", issue)
			want("the control of the request", "", request)

			before, at := s.size(), s.stepsAfter(-1).Seq
			v := s.revoke(c.kind, c.id)
			if f := s.stepsAfter(at); len(f.Steps) != 1 || f.Seq != before {
				t.Errorf("who enforces is told %+v", f)
			}
			b, err := s.Entry(t.Context(), before)
			if err != nil || !strings.Contains(string(b), `"id":"`+c.id+`"`) || !strings.Contains(string(b), `"kind":"`+string(c.kind)+`"`) ||
				slices.Contains([]counterfoil.TargetKind{counterfoil.TargetToken, counterfoil.TargetKey, counterfoil.TargetInstance, counterfoil.TargetTask, counterfoil.TargetAgent}, c.kind) !=
					strings.Contains(string(b), `"agent":"payroll"`) {
				t.Errorf("the entry is %s, %v", b, err)
			}
			requestCode := c.call
			for range 2 {
				want("the call", c.call, s.revoked(caller))
				want("the token", c.issue, issue)
				want("the request", requestCode, request)
				s.wantOld(c.kind, c.id)
				s.reopen()
			}
			want("the signature", c.signed, sign)
			listed := v.Epoch > 0 || len(v.Agents)+len(v.Instances)+len(v.Keys)+len(v.Tokens)+len(v.Tasks)+len(v.Approvals)+len(v.Passkeys) > 0
			if !listed {
				t.Errorf("nothing was listed: %+v", v)
			}
			s.checkLedger()
		})
	}
	s.shop()
	for _, kind := range counterfoil.TargetKinds() {
		s.wantRefused(counterfoil.ToolUnknown, func() error { _, _, err := s.tryRevoke(kind, "none"); return err })
	}
	before := s.size()
	for _, target := range []counterfoil.Target{{Kind: "robot", ID: "x"}, {ID: "x"}, {Kind: counterfoil.TargetToken}} {
		if _, news, err := s.tryRevoke(target.Kind, target.ID); err == nil || news || s.size() != before {
			t.Errorf("%s was revoked", target)
		}
	}
}

// What is listed is what was taken: not what had expired, or was void before.
func suiteVoided(t *testing.T, s *subject) {
	s.shop()
	s.fixture.clock.Advance(time.Minute)
	s.token("tok_1", "payroll", "ins_1", "")
	s.token("tok_2", "payroll", "ins_1", "tsk_1")
	s.token("tok_3", "payroll", "ins_1", "")
	s.revoke(counterfoil.TargetToken, "tok_3")
	s.fixture.clock.Advance(10 * time.Minute)
	s.token("tok_4", "payroll", "ins_1", "")
	s.wantDone(s.PutCode(t.Context(), counterfoil.EnrolmentCode{Hash: [32]byte{1}, Agent: "payroll", Expires: s.fixture.clock.Now().Add(time.Minute)}, entry(ledger.EnrolmentCodeIssued, "payroll")))
	s.fixture.clock.Advance(5 * time.Minute)
	e := entry(ledger.AgentSuspended, "payroll")
	v, err := s.Suspend(t.Context(), "payroll", e)
	s.wantDone(err)
	if !slices.Equal(v.Tokens, []string{"tok_4"}) || !slices.Equal(v.Tasks, []string{"tsk_1"}) || !slices.Equal(v.Approvals, []string{"apr_1"}) || v.Codes != 1 || v.Epoch != e.Epoch {
		t.Errorf("voided: %+v", v)
	}
	s.wantDone(s.resume("payroll"))
	s.token("tok_5", "payroll", "ins_1", "")
	e = entry(ledger.AgentOffboarded, "payroll")
	v, err = s.Offboard(t.Context(), "payroll", e)
	s.wantDone(err)
	if !slices.Equal(v.Tokens, []string{"tok_5"}) || len(v.Tasks)+len(v.Approvals)+v.Codes > 0 || !slices.Equal(v.Instances, []string{"ins_1"}) ||
		!slices.Equal(v.Keys, []string{"bound", "jkt-ins_1"}) || !slices.Equal(v.Grants, []string{"bank/pay"}) || !slices.Equal(v.Credentials, []string{"url https://vault.example"}) {
		t.Errorf("voided: %+v", v)
	}
	for name, want := range map[string][]string{"tokens": v.Tokens, "grants": v.Grants, "credentials": v.Credentials, "keys": v.Keys} {
		if got := s.detailOf(ledger.AgentOffboarded, name); !slices.Equal(got, want) {
			t.Errorf("the entry lists %s %v", name, got)
		}
	}
}

// Nothing of before ever comes back: by a resume, by registering it again, by doing
// again what was done.
func suiteNeverBack(t *testing.T, s *subject) {
	ctx := t.Context()
	s.shop()
	c := code("payroll", "spare")
	s.wantDone(s.PutCode(ctx, c, entry(ledger.EnrolmentCodeIssued, "payroll")))
	caller, single := s.token("tok_1", "payroll", "ins_1", "tsk_1"), s.token("tok_2", "payroll", "ins_1", "")
	s.revoke(counterfoil.TargetToken, "tok_2")
	s.revoke(counterfoil.TargetAgent, "payroll")
	for range 2 {
		s.wantDone(s.resume("payroll"))
		s.wantRefused(counterfoil.TokenRevoked, s.revoked(caller))
		caller.Epoch, single.Epoch = s.AgentState("payroll").Epoch, s.AgentState("payroll").Epoch
		s.wantRefused(counterfoil.TaskClosed, s.revoked(caller))
		s.wantRefused(counterfoil.TokenRevoked, s.revoked(single))
		s.wantRefused(counterfoil.EnrolmentRefused, func() error {
			return s.Enroll(ctx, c.Hash, instance("ins_9", "payroll"), entry(ledger.InstanceEnrolled, "payroll"))
		})
		s.wantState("apr_1", counterfoil.StateRevoked)
		if _, err := s.Suspend(ctx, "payroll", entry(ledger.AgentSuspended, "payroll")); err != nil {
			t.Fatal(err)
		}
		s.reopen()
	}
	s.wantDone(s.resume("payroll"))
	s.wantDone(s.Revoked(ctx, s.token("tok_3", "payroll", "ins_1", ""))) // and life goes on
	// A key that was revoked is nobody's again, not its own agent's either.
	s.revoke(counterfoil.TargetKey, "jkt-ins_1")
	fresh := code("payroll", "fresh")
	s.wantDone(s.PutCode(ctx, fresh, entry(ledger.EnrolmentCodeIssued, "payroll")))
	again := instance("ins_2", "payroll")
	again.JKT = "jkt-ins_1"
	s.wantRefused(counterfoil.KeyInUse, func() error {
		return s.Enroll(ctx, fresh.Hash, again, entry(ledger.InstanceEnrolled, "payroll"))
	})
	s.wantDone(s.Enroll(ctx, fresh.Hash, instance("ins_2", "payroll"), entry(ledger.InstanceEnrolled, "payroll")))
	s.wantRefused(counterfoil.KeyInUse, func() error { return s.bind(ctx, "payroll", "ins_2", "jkt-ins_1", 8) })
	s.wantRefused(counterfoil.KeyInUse, func() error {
		return s.Rotate(ctx, counterfoil.Rotation{Agent: "payroll", Instance: "ins_2", Old: "jkt-ins_2", JKT: "jkt-ins_1", JWK: "{}", Alg: "EdDSA"}, s.live("payroll", "ins_2"), entry(ledger.KeyRotated, "payroll"))
	})
	_, base := s.Registry()
	s.wantRefused(counterfoil.KeyInUse, func() error {
		i := again
		i.ID = "ins_3"
		return s.Apply(ctx, counterfoil.Change{Base: base, NewKeys: []counterfoil.Instance{i}}, []*ledger.Entry{entry(ledger.ConfigApplied, "")})
	})
	// The documents of who was revoked, declared again, put nobody back in force.
	s.revoke(counterfoil.TargetPerson, "ana")
	s.revoke(counterfoil.TargetResource, "bank")
	s.wantDone(s.put(counterfoil.Change{Delete: []counterfoil.DocKey{{Kind: counterfoil.KindPerson, Name: "ana"}, {Kind: counterfoil.KindResource, Name: "bank"}}}))
	for range 2 {
		s.apply(personDocument(t, "ana"), bankDocument(t), agentDocument(t, "payroll"))
		if st, _ := s.ResourceStatus("bank"); st != counterfoil.Suspended || s.PersonStatus("ana") != counterfoil.Suspended || s.AgentState("payroll").Status != counterfoil.Suspended {
			t.Errorf("they are %s, %s, %s", st, s.PersonStatus("ana"), s.AgentState("payroll").Status)
		}
		s.reopen()
	}
}

func suitePeople(t *testing.T, s *subject) {
	ctx := t.Context()
	s.shop()
	s.wantDone(s.PutPersonCode(ctx, personCode("bo", counterfoil.PasskeyAdded), entry(ledger.EnrolmentCodeIssued, "")))
	if s.PersonStatus("bo") != counterfoil.Active {
		t.Error("bo is not in force")
	}
	restore := func(kind counterfoil.TargetKind, id string) func() error {
		return func() error {
			return s.Restore(ctx, counterfoil.Target{Kind: kind, ID: id}, entry(ledger.Restored, ""))
		}
	}
	s.wantRefused(counterfoil.RequestMalformed, restore(counterfoil.TargetPerson, "bo"))
	v := s.revoke(counterfoil.TargetPerson, "bo")
	if len(v.Passkeys) != 1 || v.Codes != 1 || !slices.Equal(v.Approvals, []string{"apr_1"}) || len(v.Agents) != 0 {
		t.Errorf("voided: %+v", v)
	}
	login := func(person string, count uint32) func() error {
		return func() error {
			return s.UsePasskey(ctx, []byte(person), count, true, entry(ledger.SessionOpened, ""))
		}
	}
	for range 2 {
		if s.PersonStatus("bo") != counterfoil.Suspended {
			t.Error("bo is in force")
		}
		s.wantRefused(counterfoil.PasskeyRefused, login("bo", 9))
		s.wantRefused(counterfoil.RequestMalformed, func() error {
			return s.PutPersonCode(ctx, personCode("bo", counterfoil.PasskeyReset), entry(ledger.EnrolmentCodeIssued, ""))
		})
		s.reopen()
	}
	// By somebody else's word alone the passkeys stay, and sign nothing.
	s.wantDone(login("cy", 1)())
	s.revoke(counterfoil.TargetPerson, "cy", func(r *counterfoil.Revocation) { r.Suspend.Approvals = true })
	s.wantRefused(counterfoil.PasskeyRefused, login("cy", 2))
	s.ask(s.approval("payroll", "two", func(a *counterfoil.Approval) { a.ID = "apr_2" }))
	s.wantRefused(counterfoil.ApproverNotEligible, func() error { return s.sign(s.signing("apr_2", "cy", 0, counterfoil.StatePending)) })
	// An operator's word takes what is left.
	if v := s.revoke(counterfoil.TargetPerson, "cy"); len(v.Passkeys) != 1 {
		t.Errorf("voided: %+v", v)
	}
	// Only the agents of a person, who goes on.
	if v := s.revoke(counterfoil.TargetPerson, "ana", func(r *counterfoil.Revocation) { r.Suspend.Agents = true }); !slices.Equal(v.Agents, []string{"payroll"}) || s.PersonStatus("ana") != counterfoil.Active {
		t.Errorf("voided: %+v, ana is %s", v, s.PersonStatus("ana"))
	}
	// What comes back is the person, with nothing.
	s.wantDone(restore(counterfoil.TargetPerson, "bo")())
	s.wantRefused(counterfoil.RequestMalformed, restore(counterfoil.TargetPerson, "bo"))
	for range 2 {
		if s.PersonStatus("bo") != counterfoil.Active {
			t.Error("bo is not back")
		}
		s.wantRefused(counterfoil.PasskeyRefused, login("bo", 9))
		s.wantState("apr_1", counterfoil.StateRevoked)
		s.reopen()
	}
	reset := personCode("bo", counterfoil.PasskeyReset)
	s.wantDone(s.PutPersonCode(ctx, reset, entry(ledger.EnrolmentCodeIssued, "")))
	s.revoke(counterfoil.TargetPerson, "bo")
	s.wantRefused(counterfoil.EnrolmentRefused, func() error {
		return s.EnrolPasskey(ctx, reset.Hash, passkeyOfTest("bo", "bo3", counterfoil.PasskeyReset), entry(ledger.PersonEnrolled, ""))
	})
	if restore(counterfoil.TargetAgent, "payroll")() == nil {
		t.Error("an agent was restored")
	}
}

func suiteResources(t *testing.T, s *subject) {
	ctx := t.Context()
	s.shop()
	s.apply(document(t, counterfoil.KindResource, "books", &counterfoil.Resource{Name: "books", Type: counterfoil.ResourceDirect, PublicURL: "https://books.example"}))
	// Its token begins in the second in which it is revoked.
	caller := s.token("tok_1", "payroll", "ins_1", "")
	caller.Issued = caller.Issued.Truncate(time.Second)
	elsewhere := caller
	elsewhere.Audience = "https://books.example"
	s.fixture.clock.Advance(200 * time.Millisecond)
	if st, at := s.ResourceStatus("bank"); st != counterfoil.Active || !at.IsZero() {
		t.Errorf("the bank is %s since %s", st, at)
	}
	s.revoke(counterfoil.TargetResource, "bank")
	at := s.fixture.clock.Now()
	for range 2 {
		s.wantRefused(counterfoil.TokenRevoked, s.revoked(caller))
		s.wantDone(s.Revoked(ctx, elsewhere))
		s.reopen()
	}
	s.wantDone(s.Restore(ctx, counterfoil.Target{Kind: counterfoil.TargetResource, ID: "bank"}, entry(ledger.Restored, "")))
	s.fixture.clock.Advance(2 * time.Second)
	fresh := s.token("tok_2", "payroll", "ins_1", "")
	for range 2 {
		if st, since := s.ResourceStatus("bank"); st != counterfoil.Active || !since.Equal(at) {
			t.Errorf("the bank is %s since %s", st, since)
		}
		s.wantRefused(counterfoil.TokenRevoked, s.revoked(caller))
		s.wantDone(s.Revoked(ctx, fresh))
		s.wantState("apr_1", counterfoil.StateRevoked)
		s.reopen()
	}
	// It has another name for tokens, and is the same.
	s.revoke(counterfoil.TargetResource, "books")
	s.wantRefused(counterfoil.TokenRevoked, s.revoked(elsewhere))
	s.apply(document(t, counterfoil.KindResource, "books", &counterfoil.Resource{Name: "books", Type: counterfoil.ResourceDirect, PublicURL: "https://moved.example"}))
	moved := elsewhere
	moved.Audience = "https://moved.example"
	for range 2 {
		s.wantRefused(counterfoil.TokenRevoked, s.revoked(moved))
		s.reopen()
	}
}

func (s *subject) rotate(old, jkt string, overlap time.Duration, change ...func(*counterfoil.Rotation)) error {
	r := counterfoil.Rotation{Agent: "payroll", Instance: "ins_1", Old: old, JKT: jkt, JWK: `{"k":"` + jkt + `"}`, Alg: "ES256"}
	if overlap > 0 {
		r.OldUntil = s.fixture.clock.Now().Add(overlap)
	}
	for _, c := range change {
		c(&r)
	}
	return s.Rotate(s.t.Context(), r, s.live(r.Agent, r.Instance), entry(ledger.KeyRotated, r.Agent))
}

func suiteRotate(t *testing.T, s *subject) {
	ctx := t.Context()
	s.shop()
	s.agent("planner")
	i2 := instance("ins_2", "planner")
	_, base := s.Registry()
	s.wantDone(s.Apply(ctx, counterfoil.Change{Base: base, NewKeys: []counterfoil.Instance{i2}}, []*ledger.Entry{entry(ledger.ConfigApplied, "")}))
	with := func(jkt string) counterfoil.Caller { c := s.caller("payroll", "ins_1", ""); c.JKT = jkt; return c }
	want := func(jkt string, live, own bool) {
		t.Helper()
		_, _, ok := s.ProofKey(jkt)
		i, is := s.InstanceByKey(jkt)
		if ok != live || is != own || (s.Revoked(ctx, with(jkt)) == nil) != live || own && i.ID != "ins_1" {
			t.Errorf("%s is live %v, of an instance %v (%v), want %v, %v", jkt, ok, is, s.Revoked(ctx, with(jkt)), live, own)
		}
		if agent, ok := s.AgentOfKey(jkt); !ok || agent != "payroll" {
			t.Errorf("%s is forgotten", jkt)
		}
	}
	s.wantDone(s.rotate("jkt-ins_1", "k2", time.Hour))
	for range 2 {
		i, _ := s.Instance("ins_1")
		if i.JKT != "k2" || i.Alg != "ES256" || i.Old == nil || i.Old.JKT != "jkt-ins_1" || i.Old.Alg != "EdDSA" || i.Old.JWK != `{"kty":"OKP"}` || !i.Old.Until.Equal(s.fixture.clock.Now().Add(time.Hour)) {
			t.Errorf("the instance is %+v, before %+v", i, i.Old)
		}
		want("jkt-ins_1", true, true)
		want("k2", true, true)
		s.reopen()
	}
	s.wantState("apr_1", counterfoil.StatePending) // its approvals stay, and its task
	s.wantDone(s.Revoked(ctx, with("bound")))
	for code, do := range map[counterfoil.Code]func() error{
		counterfoil.TokenRevoked: func() error { return s.rotate("jkt-ins_1", "k3", 0) }, // not by the one before
		counterfoil.KeyInUse:     func() error { return s.rotate("k2", "jkt-ins_2", 0) },
		counterfoil.RequestMalformed: func() error {
			return s.rotate("jkt-ins_2", "k3", 0, func(r *counterfoil.Rotation) { r.Agent, r.Instance = "planner", "ins_2" })
		},
	} {
		s.wantRefused(code, do)
	}
	for name, spoil := range map[string]func(*counterfoil.Rotation){
		"no key":        func(r *counterfoil.Rotation) { r.JWK = "" },
		"no thumbprint": func(r *counterfoil.Rotation) { r.JKT = "" },
		"no old one":    func(r *counterfoil.Rotation) { r.Old = "" },
	} {
		if s.rotate("k2", "k3", 0, spoil) == nil {
			t.Errorf("%s: it was rotated", name)
		}
	}
	// The overlap ends without anybody saying so.
	s.fixture.clock.Advance(time.Hour)
	for range 2 {
		want("jkt-ins_1", false, false)
		want("k2", true, true)
		if i, _ := s.Instance("ins_1"); i.Old != nil {
			t.Errorf("the key before is %+v", i.Old)
		}
		if due := s.DueKeys(s.fixture.clock.Now()); !slices.Equal(due, []string{"jkt-ins_1"}) {
			t.Errorf("due: %v", due)
		}
		s.reopen()
	}
	if v := s.revoke(counterfoil.TargetKey, "jkt-ins_1"); !slices.Equal(v.Keys, []string{"jkt-ins_1", "bound"}) || len(v.Instances) > 0 {
		t.Errorf("voided: %+v", v)
	}
	if due := s.DueKeys(s.fixture.clock.Now()); len(due) != 0 {
		t.Errorf("due: %v", due)
	}
	// A third one ends the first; without an overlap the one before is dead at once.
	s.wantDone(s.rotate("k2", "k3", time.Hour))
	s.wantDone(s.rotate("k3", "k4", time.Hour))
	want("k2", false, false)
	want("k3", true, true)
	s.wantDone(s.rotate("k4", "k5", 0))
	for range 2 {
		for _, jkt := range []string{"k2", "k3", "k4"} {
			want(jkt, false, false)
		}
		want("k5", true, true)
		s.reopen()
	}
	// A key before that is revoked takes nothing with it, the present one does.
	s.wantDone(s.rotate("k5", "k6", time.Hour))
	s.revoke(counterfoil.TargetKey, "k5")
	want("k5", false, false)
	want("k6", true, true)
	s.wantDone(s.rotate("k6", "k7", time.Hour))
	if v := s.revoke(counterfoil.TargetKey, "k7"); !slices.Equal(v.Instances, []string{"ins_1"}) || !slices.Equal(v.Keys, []string{"k6", "k7"}) {
		t.Errorf("voided: %+v", v)
	}
	s.wantRefused(counterfoil.TokenRevoked, s.revoked(with("k6")))
	s.wantRefused(counterfoil.TokenRevoked, s.revoked(with("bound")))
	s.wantRefused(counterfoil.TokenRevoked, func() error { return s.rotate("k7", "k8", 0) })
}

// One assertion is good for one request, whatever that is for.
func suiteAssertions(t *testing.T, s *subject) {
	ctx := t.Context()
	s.shop()
	exp := s.fixture.clock.Now().Add(15 * time.Minute)
	caller := s.token("tok_1", "payroll", "ins_1", "")
	ask := func(id string) func() error {
		return func() error {
			return s.UseAssertion(ctx, s.use("payroll", id), s.live("payroll", "ins_1"), entry(ledger.TokenIntrospected, "payroll"))
		}
	}
	target := counterfoil.Revocation{Target: counterfoil.Target{Kind: counterfoil.TargetToken, ID: "tok_1"}, Agent: "payroll", Expires: exp}
	give := func(id string, r counterfoil.Revocation, want bool) func() error {
		return func() error {
			news, err := s.RevokeTokenWith(ctx, s.use("payroll", id), r, entry(ledger.Revoked, "payroll"))
			if err == nil && news != want {
				t.Errorf("assertion %s: news %v", id, news)
			}
			return err
		}
	}
	s.wantDone(ask("1")())
	s.wantRefused(counterfoil.AssertionReplayed, ask("1"))
	s.wantRefused(counterfoil.AssertionReplayed, give("1", target, true))
	s.wantDone(s.Revoked(ctx, caller))
	s.wantDone(give("2", target, true)())
	s.wantRefused(counterfoil.TokenRevoked, s.revoked(caller))
	s.wantRefused(counterfoil.AssertionReplayed, ask("2"))
	s.wantRefused(counterfoil.AssertionReplayed, func() error {
		return s.Issue(ctx, s.issuance("payroll", "ins_1", "2"), entry(ledger.TokenIssued, "payroll"), nil)
	})
	// What is no news, or nothing at all, is recorded, and uses it up.
	for id, r := range map[string]counterfoil.Revocation{"3": target, "4": {}, "5": {Target: target.Target, Agent: "payroll", Expires: s.fixture.clock.Now().Add(-time.Hour)}} {
		size := s.size()
		s.wantDone(give(id, r, false)())
		if s.size() != size+1 {
			t.Errorf("assertion %s is not recorded", id)
		}
		s.wantRefused(counterfoil.AssertionReplayed, ask(id))
	}
	s.wantDone(s.suspend(ctx, "payroll", entry(ledger.AgentSuspended, "payroll")))
	s.wantRefused(counterfoil.AgentSuspended, ask("6"))
	for name, use := range map[string]counterfoil.AssertionUse{"nothing": {}, "somebody else": s.use("planner", "7")} {
		if s.UseAssertion(ctx, use, s.live("payroll", "ins_1"), entry(ledger.TokenIntrospected, "payroll")) == nil {
			t.Errorf("with %s", name)
		}
	}
}

func suiteDropCode(t *testing.T, s *subject) {
	ctx := t.Context()
	s.shop()
	c, p := code("payroll", "one"), personCode("bo", counterfoil.PasskeyAdded)
	s.wantDone(s.PutCode(ctx, c, entry(ledger.EnrolmentCodeIssued, "payroll")))
	s.wantDone(s.PutPersonCode(ctx, p, entry(ledger.EnrolmentCodeIssued, "")))
	for _, hash := range [][32]byte{c.Hash, p.Hash, {9}} {
		for again := range 2 {
			size, want := s.size(), again == 0 && hash != [32]byte{9}
			news, err := s.DropCode(ctx, hash, entry(ledger.Revoked, ""))
			if err != nil || news != want || (s.size() > size) != want {
				t.Errorf("dropped: news %v, %v", news, err)
			}
		}
	}
	s.wantRefused(counterfoil.EnrolmentRefused, func() error {
		return s.Enroll(ctx, c.Hash, instance("ins_2", "payroll"), entry(ledger.InstanceEnrolled, "payroll"))
	})
	if _, ok, err := s.PersonCode(ctx, p.Hash); ok || err != nil {
		t.Errorf("the code is there: %v", err)
	}
}
