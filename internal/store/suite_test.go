package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// Suite is what every dialect must pass. open returns a fresh, empty store, a
// clock that it goes by, and a function that closes it and opens it again.
func Suite(t *testing.T, open func(t *testing.T) *subject) {
	for name, test := range map[string]func(*testing.T, *subject){
		"Apply":                    suiteApply,
		"ApplyIsAllOrNothing":      suiteApplyAtomic,
		"Life":                     suiteLife,
		"Enrol":                    suiteEnrol,
		"ProofKeys":                suiteProofKeys,
		"Issue":                    suiteIssue,
		"Revoked":                  suiteRevoked,
		"SigningKeys":              suiteSigningKeys,
		"Calls":                    suiteCalls,
		"Pins":                     suitePins,
		"FirstSight":               suiteFirstSight,
		"Unpin":                    suiteUnpin,
		"Void":                     suiteVoid,
		"HowInstancesCameToBe":     suiteHow,
		"Clones":                   suiteClones,
		"Sightings":                suiteSightings,
		"Payloads":                 suitePayloads,
		"Reads":                    suiteReads,
		"ExactlyOneWins":           suiteExactlyOne,
		"RefusalsLeaveNothing":     suiteRefusals,
		"AcknowledgedMeansVisible": suiteVisible,
		"RequestApproval":          suiteRequest,
		"RequestApprovalRefuses":   suiteRequestRefuses,
		"Approvals":                suiteApprovalFilter,
		"SignApproval":             suiteSign,
		"SignCounts":               suiteSignCount,
		"CloseApproval":            suiteClose,
		"EraseApprovals":           suiteErase,
		"SpendApproval":            suiteSpend,
		"SpendUnderRevision":       suiteRevision,
		"BriefApprovals":           suiteBrief,
		"LeftBehind":               suiteLeftBehind,
		"Indeterminate":            suiteIndeterminate,
		"Limits":                   suiteLimits,
		"ApprovalRaces":            suiteApprovalRaces,
		"Passkeys":                 suitePasskeys,
		"Revocation":               suiteRevocation,
		"ReleasePasskey":           suiteRelease,
		"Proposals":                suiteProposals,
		"Tasks":                    suiteTasks,
		"ManyTasks":                suiteManyTasks,
		"CloseTask":                suiteCloseTask,
		"Orchestrators":            suiteOrchestrators,
		"Counting":                 suiteCounting,
		"SpendInTask":              suiteSpendInTask,
		"CountRaces":               suiteCountRaces,
		"CloseRaces":               suiteCloseRaces,
		"Outcomes":                 suiteOutcomes,
		"OutcomeRaces":             suiteOutcomeRaces,
		"Revoke":                   suiteRevoke,
		"Voided":                   suiteVoided,
		"NeverBack":                suiteNeverBack,
		"People":                   suitePeople,
		"Resources":                suiteResources,
		"Rotate":                   suiteRotate,
		"HeldOfToken":              suiteHeldOfToken,
		"AskedUnderKey":            suiteAskedUnderKey,
		"BoundBefore":              suiteBoundBefore,
		"KeyOfAssertion":           suiteKeyOfAssertion,
		"EndedKeys":                suiteEndedKeys,
		"MovedResource":            suiteMovedResource,
		"UnsentOutcomes":           suiteUnsentOutcomes,
		"KeptOutcomes":             suiteKeptOutcomes,
		"Assertions":               suiteAssertions,
		"DropCode":                 suiteDropCode,
		"RevokeRaces":              suiteRevokeRaces,
		"Feed":                     suiteFeed,
		"FeedRing":                 suiteFeedRing,
		"FeedWaits":                suiteFeedWaits,
		"FeedFollowed":             suiteFeedFollowed,
		"Streams":                  suiteStreams,
		"Credentials":              suiteCredentials,
		"Transmitters":             suiteTransmitters,
		"Vocabularies":             suiteVocabularies,
		"Unbound":                  suiteUnbound,
		"UnboundApproval":          suiteUnboundApproval,
		"FindByBinding":            suiteFindByBinding,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			test(t, s)
			s.checkLedger()
		})
	}
}

func TestSuiteOnSQLite(t *testing.T) {
	t.Parallel()
	Suite(t, func(t *testing.T) *subject {
		f := newFixture(t)
		return &subject{t: t, fixture: f, Store: f.open()}
	})
}

// A subject is the store under test.
type subject struct {
	t       *testing.T
	fixture *fixture
	*Store
}

func (s *subject) reopen() {
	s.t.Helper()
	if err := s.Close(); err != nil {
		s.t.Fatal(err)
	}
	s.Store = s.fixture.open()
}

func (s *subject) checkLedger() { s.t.Helper(); s.fixture.checkLedger(s.Store, nil) }

func (s *subject) size() int64 { n, _ := s.Head(); return n }

func document(t testing.TB, kind, name string, noun any) counterfoil.Document {
	t.Helper()
	b, err := json.Marshal(noun)
	if err != nil {
		t.Fatal(err)
	}
	return counterfoil.Document{Kind: kind, Name: name, Body: b}
}

func agentDocument(t testing.TB, name string) counterfoil.Document {
	t.Helper()
	return document(t, counterfoil.KindAgent, name, &counterfoil.Agent{Name: name, Owner: "ana", Environment: "prod",
		Grants: []counterfoil.Grant{{Tools: []counterfoil.ToolID{{Resource: "bank", Tool: "pay"}}}}})
}

func entry(kind ledger.Kind, agent string) *ledger.Entry {
	return &ledger.Entry{Kind: kind, Agent: agent, Actor: "uid:0"}
}

// liveOf is an instance as it is live now, by its own key.
func (s *Store) liveOf(agent, instance string) counterfoil.Live {
	i, _ := s.Instance(instance)
	return counterfoil.Live{Agent: agent, Instance: instance, Epoch: s.AgentState(agent).Epoch, Key: i.JKT}
}

// issuance is of a token on an assertion that is used for nothing else in the test.
func (s *Store) issuance(agent, instance, id string) counterfoil.Issuance {
	return counterfoil.Issuance{
		Use:  counterfoil.AssertionUse{Agent: agent, ID: id, Until: s.opt.Now().Add(3 * time.Minute)},
		Live: s.liveOf(agent, instance),
	}
}

// bind issues a token for a key of an instance, on an assertion of its own.
func (s *Store) bind(ctx context.Context, agent, instance, jkt string, most int) error {
	i := s.issuance(agent, instance, "for "+jkt+fmt.Sprint(s.Size()))
	i.Bind = counterfoil.KeyBinding{JKT: jkt, Most: most}
	return s.Issue(ctx, i, entry(ledger.TokenIssued, agent), entry(ledger.ProofKeyBound, agent))
}

// agent declares an agent.
func (s *subject) agent(name string) {
	s.t.Helper()
	_, base := s.Registry()
	err := s.Apply(s.t.Context(), counterfoil.Change{Base: base, Put: []counterfoil.Document{agentDocument(s.t, name)}},
		[]*ledger.Entry{entry(ledger.AgentCreated, name)})
	if err != nil {
		s.t.Fatal(err)
	}
}

func instance(id, agent string) counterfoil.Instance {
	return counterfoil.Instance{ID: id, Agent: agent, JKT: "jkt-" + id, JWK: `{"kty":"OKP"}`, Alg: "EdDSA", Enrolled: newClock().Now()}
}

func code(agent, text string) counterfoil.EnrolmentCode {
	return counterfoil.EnrolmentCode{Hash: sha256.Sum256([]byte(text)), Agent: agent, Expires: newClock().Now().Add(15 * time.Minute)}
}

// instance enrols an instance of an agent.
func (s *subject) instance(id, agent string) {
	s.t.Helper()
	c := code(agent, id)
	if err := s.PutCode(s.t.Context(), c, entry(ledger.EnrolmentCodeIssued, agent)); err != nil {
		s.t.Fatal(err)
	}
	if err := s.Enroll(s.t.Context(), c.Hash, instance(id, agent), entry(ledger.InstanceEnrolled, agent)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *subject) use(agent, id string) counterfoil.AssertionUse {
	return counterfoil.AssertionUse{Agent: agent, ID: id, Until: s.fixture.clock.Now().Add(3 * time.Minute)}
}

func (s *subject) live(agent, instance string) counterfoil.Live {
	return s.liveOf(agent, instance)
}

// wantRefused wants a refusal with that code, and nothing recorded.
func (s *subject) wantRefused(code counterfoil.Code, do func() error) {
	s.t.Helper()
	before := s.size()
	err := do()
	r, ok := counterfoil.AsRefusal(err)
	if !ok || r.Code != code {
		s.t.Errorf("got %v, want the refusal %s", err, code)
	}
	if after := s.size(); after != before {
		s.t.Errorf("a refusal recorded %d entries", after-before)
	}
}

func (s *subject) wantDone(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func suiteApply(t *testing.T, s *subject) {
	reg, base := s.Registry()
	if len(reg.Agents) != 0 || base == "" {
		t.Fatalf("an empty registry is %+v at %q", reg, base)
	}
	change := counterfoil.Change{Base: base, Put: []counterfoil.Document{
		document(t, counterfoil.KindPerson, "ana", &counterfoil.Person{Name: "ana", Groups: []string{"g"}}),
		document(t, counterfoil.KindClass, "read", &counterfoil.Class{Name: "read", Tier: counterfoil.Routine}),
		document(t, counterfoil.KindResource, "bank", &counterfoil.Resource{Name: "bank", Type: "mcp", Tools: []counterfoil.Tool{{Name: "pay", Class: "read"}}}),
		document(t, counterfoil.KindPolicy, "night", &counterfoil.Policy{Name: "night", Cedar: "forbid"}),
		agentDocument(t, "payroll"),
	}, NewKeys: []counterfoil.Instance{instance("ins_1", "payroll")}}
	s.wantDone(s.Apply(t.Context(), change, []*ledger.Entry{entry(ledger.ConfigApplied, ""), entry(ledger.AgentCreated, "payroll")}))
	for range 2 {
		reg, next := s.Registry()
		if next == base || reg.People["ana"].Groups[0] != "g" || reg.Classes["read"].Tier != counterfoil.Routine ||
			reg.Resources["bank"].Tools[0].Name != "pay" || reg.Policies["night"] == nil || reg.Agents["payroll"].Grants[0].Tools[0].Tool != "pay" {
			t.Fatalf("the registry at %s is %+v", next, reg)
		}
		if st := s.AgentState("payroll"); st.Status != counterfoil.Active || st.Epoch != newClock().Now().UnixMilli() {
			t.Errorf("the agent is %+v", st)
		}
		if i, ok := s.InstanceByKey("jkt-ins_1"); !ok || i.ID != "ins_1" || i.Status != counterfoil.Active || !i.Enrolled.Equal(newClock().Now()) {
			t.Errorf("the instance is %+v", i)
		}
		s.reopen()
	}
	old, base := s.Registry()
	s.wantDone(s.Apply(t.Context(), counterfoil.Change{Base: base, Delete: []counterfoil.DocKey{{Kind: counterfoil.KindPolicy, Name: "night"}},
		Put: []counterfoil.Document{agentDocument(t, "payroll")}, EndKeys: []string{"ins_1"}}, []*ledger.Entry{entry(ledger.ConfigApplied, "")}))
	for range 2 {
		if reg, _ := s.Registry(); reg.Policies["night"] != nil || reg.Agents["payroll"] == nil {
			t.Errorf("the registry is %+v", reg)
		}
		if i, _ := s.Instance("ins_1"); i.Status != counterfoil.Ended {
			t.Errorf("the instance whose key is gone is %+v", i)
		}
		if _, _, ok := s.ProofKey("jkt-ins_1"); ok {
			t.Error("its key is live")
		}
		if agent, ok := s.AgentOfKey("jkt-ins_1"); !ok || agent != "payroll" {
			t.Errorf("its key is forgotten: %q", agent)
		}
		s.reopen()
	}
	if old.Policies["night"] == nil {
		t.Error("a registry that was handed out was changed")
	}
}

func suiteApplyAtomic(t *testing.T, s *subject) {
	s.agent("payroll")
	s.instance("ins_1", "payroll")
	ctx := t.Context()
	entries := func() []*ledger.Entry { return []*ledger.Entry{entry(ledger.ConfigApplied, "")} }
	_, base := s.Registry()
	good := func() counterfoil.Change {
		return counterfoil.Change{Base: base, Put: []counterfoil.Document{agentDocument(t, "planner")}}
	}
	for name, spoil := range map[string]func(*counterfoil.Change){
		"a base that never was":      func(c *counterfoil.Change) { c.Base = "77" },
		"a base that is no revision": func(c *counterfoil.Change) { c.Base = "x" },
		"a body that is no JSON": func(c *counterfoil.Change) {
			c.Put = append(c.Put, counterfoil.Document{Kind: counterfoil.KindClass, Name: "x", Body: []byte("{")})
		},
		"a body with an unknown member": func(c *counterfoil.Change) {
			c.Put = append(c.Put, counterfoil.Document{Kind: counterfoil.KindClass, Name: "x", Body: []byte(`{"name":"x","tier":"routine","teir":1}`)})
		},
		"a body of another name": func(c *counterfoil.Change) { c.Put[0].Name = "payroll" },
		"an unknown kind":        func(c *counterfoil.Change) { c.Put[0].Kind = "Robot" },
		"deleting what is not there": func(c *counterfoil.Change) {
			c.Delete = []counterfoil.DocKey{{Kind: counterfoil.KindClass, Name: "x"}}
		},
		"deleting an agent": func(c *counterfoil.Change) {
			c.Delete = []counterfoil.DocKey{{Kind: counterfoil.KindAgent, Name: "payroll"}}
		},
		"a key in use": func(c *counterfoil.Change) {
			i := instance("ins_2", "planner")
			i.JKT = "jkt-ins_1"
			c.NewKeys = []counterfoil.Instance{i}
		},
		"an instance id in use": func(c *counterfoil.Change) {
			i := instance("ins_1", "planner")
			i.JKT = "other"
			c.NewKeys = []counterfoil.Instance{i}
		},
		"a key of an unknown agent":      func(c *counterfoil.Change) { c.NewKeys = []counterfoil.Instance{instance("ins_2", "nobody")} },
		"an instance without a key":      func(c *counterfoil.Change) { c.NewKeys = []counterfoil.Instance{{ID: "ins_2", Agent: "planner"}} },
		"ending an instance that is not": func(c *counterfoil.Change) { c.EndKeys = []string{"ins_9"} },
	} {
		c := good()
		spoil(&c)
		before := s.size()
		if err := s.Apply(ctx, c, entries()); err == nil {
			t.Errorf("%s: applied", name)
		}
		if reg, now := s.Registry(); now != base || reg.Agents["planner"] != nil || s.AgentState("planner") != (counterfoil.AgentState{}) || s.size() != before {
			t.Errorf("%s: it left something", name)
		}
		if _, ok := s.Instance("ins_2"); ok {
			t.Errorf("%s: it left an instance", name)
		}
	}
	if err := s.Apply(ctx, good(), nil); err == nil {
		t.Error("a change without an entry was applied")
	}
	s.reopen()
	if reg, _ := s.Registry(); reg.Agents["planner"] != nil {
		t.Error("the tables have what the registry had not")
	}
	s.wantDone(s.Apply(ctx, good(), entries()))
	if err := s.Apply(ctx, good(), entries()); !errors.Is(err, ErrConflict) {
		t.Errorf("a change of an old revision: %v", err)
	}
}

func suiteLife(t *testing.T, s *subject) {
	ctx := t.Context()
	s.agent("payroll")
	s.agent("planner")
	s.instance("ins_1", "payroll")
	s.instance("ins_2", "planner")
	s.wantDone(s.bind(ctx, "payroll", "ins_1", "bound", 8))
	first := s.AgentState("payroll")

	e := entry(ledger.AgentSuspended, "payroll")
	s.wantDone(s.suspend(ctx, "payroll", e))
	suspended := s.AgentState("payroll")
	if suspended.Status != counterfoil.Suspended || suspended.Epoch != first.Epoch+1 || e.Epoch != suspended.Epoch {
		t.Errorf("suspended: %+v, the entry says epoch %d", suspended, e.Epoch)
	}
	s.wantRefused(counterfoil.RequestMalformed, func() error { return s.suspend(ctx, "payroll", entry(ledger.AgentSuspended, "payroll")) })
	s.reopen()
	if got := s.AgentState("payroll"); got != suspended {
		t.Errorf("suspended, read again: %+v", got)
	}
	s.wantDone(s.resume("payroll"))
	if got := s.AgentState("payroll"); got.Status != counterfoil.Active || got.Epoch != suspended.Epoch+1 {
		t.Errorf("resumed: %+v", got)
	}
	s.wantRefused(counterfoil.RequestMalformed, func() error { return s.resume("payroll") })
	s.wantRefused(counterfoil.RequestMalformed, func() error { return s.suspend(ctx, "nobody", entry(ledger.AgentSuspended, "nobody")) })

	s.fixture.clock.Advance(time.Hour)
	e = entry(ledger.AgentOffboarded, "payroll")
	voided, err := s.Offboard(ctx, "payroll", e)
	s.wantDone(err)
	if !slices.Equal(voided.Instances, []string{"ins_1"}) || !slices.Equal(voided.Keys, []string{"bound", "jkt-ins_1"}) || voided.Epoch != s.fixture.clock.Now().UnixMilli() {
		t.Errorf("voided: %+v", voided)
	}
	b, err := s.Entry(ctx, e.Index)
	s.wantDone(err)
	if !strings.Contains(string(b), `"detail":{"grants":["bank/pay"],"instances":["ins_1"],"keys":["bound","jkt-ins_1"]}`) {
		t.Errorf("the entry does not say what was voided: %s", b)
	}
	for range 2 {
		reg, _ := s.Registry()
		i, _ := s.Instance("ins_1")
		if reg.Agents["payroll"] != nil || s.AgentState("payroll").Status != counterfoil.Offboarded || i.Status != counterfoil.Ended {
			t.Errorf("after offboarding: %+v, %+v", s.AgentState("payroll"), i)
		}
		if other, _ := s.Instance("ins_2"); reg.Agents["planner"] == nil || other.Status != counterfoil.Active {
			t.Error("offboarding one agent took another's")
		}
		for _, jkt := range []string{"bound", "jkt-ins_1"} {
			if _, _, ok := s.ProofKey(jkt); ok {
				t.Errorf("the key %s is live", jkt)
			}
			if agent, ok := s.AgentOfKey(jkt); !ok || agent != "payroll" {
				t.Errorf("the key %s is forgotten", jkt)
			}
		}
		s.reopen()
	}
	// Neither the name nor a key ever returns.
	_, base := s.Registry()
	s.wantRefused(counterfoil.RequestMalformed, func() error {
		return s.Apply(ctx, counterfoil.Change{Base: base, Put: []counterfoil.Document{agentDocument(t, "payroll")}}, []*ledger.Entry{entry(ledger.AgentCreated, "payroll")})
	})
	s.wantRefused(counterfoil.KeyInUse, func() error {
		return s.bind(ctx, "planner", "ins_2", "bound", 8)
	})
	s.wantRefused(counterfoil.RequestMalformed, func() error {
		_, err := s.Offboard(ctx, "payroll", entry(ledger.AgentOffboarded, "payroll"))
		return err
	})
	s.wantRefused(counterfoil.RequestMalformed, func() error { return s.resume("payroll") })
	s.wantRefused(counterfoil.ClientRefused, func() error {
		return s.PutCode(ctx, code("payroll", "again"), entry(ledger.EnrolmentCodeIssued, "payroll"))
	})
}

func suiteEnrol(t *testing.T, s *subject) {
	ctx := t.Context()
	s.agent("payroll")
	s.agent("planner")
	c := code("payroll", "one")
	s.wantDone(s.PutCode(ctx, c, entry(ledger.EnrolmentCodeIssued, "payroll")))
	s.instance("ins_0", "planner")
	enrol := func(hash [32]byte, i counterfoil.Instance) func() error {
		return func() error { return s.Enroll(ctx, hash, i, entry(ledger.InstanceEnrolled, i.Agent)) }
	}
	taken := instance("ins_1", "payroll")
	taken.JKT = "jkt-ins_0"
	s.wantRefused(counterfoil.EnrolmentRefused, enrol(sha256.Sum256([]byte("two")), instance("ins_1", "payroll")))
	s.wantRefused(counterfoil.EnrolmentRefused, enrol(c.Hash, instance("ins_1", "planner")))
	s.wantRefused(counterfoil.KeyInUse, enrol(c.Hash, taken))
	// The refusals above did not spend the code.
	s.reopen()
	s.wantDone(enrol(c.Hash, instance("ins_1", "payroll"))())
	s.wantRefused(counterfoil.EnrolmentRefused, enrol(c.Hash, instance("ins_2", "payroll")))
	if got := s.Instances("payroll"); len(got) != 1 || got[0].ID != "ins_1" || got[0].Status != counterfoil.Active {
		t.Errorf("the instances are %+v", got)
	}
	late := code("payroll", "late")
	s.wantDone(s.PutCode(ctx, late, entry(ledger.EnrolmentCodeIssued, "payroll")))
	s.fixture.clock.Advance(15 * time.Minute)
	s.wantRefused(counterfoil.EnrolmentRefused, enrol(late.Hash, instance("ins_3", "payroll")))
	stale := code("payroll", "suspended")
	stale.Expires = s.fixture.clock.Now().Add(time.Minute)
	s.wantDone(s.PutCode(ctx, stale, entry(ledger.EnrolmentCodeIssued, "payroll")))
	s.wantDone(s.suspend(ctx, "payroll", entry(ledger.AgentSuspended, "payroll")))
	s.wantRefused(counterfoil.EnrolmentRefused, enrol(stale.Hash, instance("ins_4", "payroll")))
	// Nothing of before a suspension comes back with its end.
	s.wantDone(s.resume("payroll"))
	s.wantRefused(counterfoil.EnrolmentRefused, enrol(stale.Hash, instance("ins_4", "payroll")))
	stale = code("payroll", "resumed")
	stale.Expires = s.fixture.clock.Now().Add(time.Minute)
	s.wantDone(s.PutCode(ctx, stale, entry(ledger.EnrolmentCodeIssued, "payroll")))
	s.wantDone(enrol(stale.Hash, instance("ins_4", "payroll"))())
}

func suiteProofKeys(t *testing.T, s *subject) {
	ctx := t.Context()
	s.agent("payroll")
	s.agent("planner")
	s.instance("ins_1", "payroll")
	s.instance("ins_2", "planner")
	bind := func(agent, instance, jkt string) func() error {
		return func() error { return s.bind(ctx, agent, instance, jkt, 2) }
	}
	first := s.issuance("payroll", "ins_1", "first")
	first.Bind = counterfoil.KeyBinding{JKT: "a", Most: 2}
	issued, bound := entry(ledger.TokenIssued, "payroll"), entry(ledger.ProofKeyBound, "payroll")
	s.wantDone(s.Issue(ctx, first, issued, bound))
	if bound.Index != s.size()-2 || issued.Index != s.size()-1 || issued.Time != bound.Time {
		t.Errorf("bound is entry %d of %s, issued %d of %s", bound.Index, bound.Time, issued.Index, issued.Time)
	}
	tokens := recorded(t, s.Store, ledger.TokenIssued)
	s.wantDone(bind("payroll", "ins_1", "a")())
	s.wantDone(bind("payroll", "ins_1", "jkt-ins_1")())
	if recorded(t, s.Store, ledger.ProofKeyBound) != 1 || recorded(t, s.Store, ledger.TokenIssued) != tokens+2 {
		t.Error("binding what is bound was recorded, or its token was not")
	}
	if err := s.Issue(ctx, s.issuance("payroll", "ins_1", "half"), entry(ledger.TokenIssued, "payroll"), entry(ledger.ProofKeyBound, "payroll")); err == nil {
		t.Error("the entry of a binding without one was committed")
	}
	half := s.issuance("payroll", "ins_1", "half")
	half.Bind = counterfoil.KeyBinding{JKT: "half", Most: 2}
	if err := s.Issue(ctx, half, entry(ledger.TokenIssued, "payroll"), nil); err == nil {
		t.Error("a binding without its entry was committed")
	}
	s.wantRefused(counterfoil.KeyInUse, bind("planner", "ins_2", "a"))
	s.wantRefused(counterfoil.KeyInUse, bind("planner", "ins_2", "jkt-ins_1"))
	s.wantRefused(counterfoil.ClientRefused, bind("planner", "ins_1", "b"))
	if err := bind("planner", "ins_9", "b")(); err == nil {
		t.Error("an instance that never was bound a key")
	}
	// Whoever repeats an assertion binds nothing; whoever has another one does.
	again := first
	again.Bind.JKT = "b"
	s.wantRefused(counterfoil.AssertionReplayed, func() error {
		return s.Issue(ctx, again, entry(ledger.TokenIssued, "payroll"), entry(ledger.ProofKeyBound, "payroll"))
	})
	s.wantDone(bind("payroll", "ins_1", "b")())
	// A refused binding issues nothing and uses up no assertion.
	for jkt, code := range map[string]counterfoil.Code{"c": counterfoil.ProofKeyMismatch, "jkt-ins_2": counterfoil.KeyInUse} {
		i := s.issuance("payroll", "ins_1", "kept for "+jkt)
		i.Bind = counterfoil.KeyBinding{JKT: jkt, Most: 2}
		s.wantRefused(code, func() error {
			return s.Issue(ctx, i, entry(ledger.TokenIssued, "payroll"), entry(ledger.ProofKeyBound, "payroll"))
		})
		used, err := s.AssertionUsed(ctx, i.Use)
		if err != nil || used {
			t.Errorf("%s: the assertion is used: %v (%v)", jkt, used, err)
		}
		i.Bind = counterfoil.KeyBinding{}
		s.wantDone(s.Issue(ctx, i, entry(ledger.TokenIssued, "payroll"), nil))
		if used, err := s.AssertionUsed(ctx, i.Use); err != nil || !used {
			t.Errorf("%s: the assertion is used: %v (%v)", jkt, used, err)
		}
	}
	for range 2 {
		if agent, inst, ok := s.ProofKey("b"); !ok || agent != "payroll" || inst != "ins_1" {
			t.Errorf("the bound key proves for %q, %q", agent, inst)
		}
		if _, ok := s.InstanceByKey("b"); ok {
			t.Error("a bound key is taken for an instance's own")
		}
		s.reopen()
	}
}

func suiteIssue(t *testing.T, s *subject) {
	ctx := t.Context()
	s.agent("payroll")
	s.instance("ins_1", "payroll")
	s.agent("planner")
	s.instance("ins_2", "planner")
	issue := func(use counterfoil.AssertionUse, live counterfoil.Live) func() error {
		return func() error {
			return s.Issue(ctx, counterfoil.Issuance{Use: use, Live: live}, entry(ledger.TokenIssued, live.Agent), nil)
		}
	}
	live := s.live("payroll", "ins_1")
	s.wantDone(issue(s.use("payroll", "1"), live)())
	s.wantRefused(counterfoil.AssertionReplayed, issue(s.use("payroll", "1"), live))
	s.reopen()
	s.wantRefused(counterfoil.AssertionReplayed, issue(s.use("payroll", "1"), live))
	s.wantDone(issue(s.use("planner", "1"), s.live("planner", "ins_2"))()) // another agent's id of the same text
	old := live
	old.Epoch--
	s.wantRefused(counterfoil.ClientRefused, issue(s.use("payroll", "2"), old))
	s.wantRefused(counterfoil.ClientRefused, issue(s.use("payroll", "2"), counterfoil.Live{Agent: "payroll", Instance: "ins_9", Epoch: live.Epoch, Key: live.Key}))
	s.wantRefused(counterfoil.ClientRefused, issue(s.use("nobody", "2"), counterfoil.Live{Agent: "nobody", Instance: "ins_1", Epoch: live.Epoch, Key: live.Key}))
	s.wantDone(s.suspend(ctx, "payroll", entry(ledger.AgentSuspended, "payroll")))
	s.wantRefused(counterfoil.AgentSuspended, issue(s.use("payroll", "2"), live))
	s.wantDone(s.resume("payroll"))
	s.wantRefused(counterfoil.ClientRefused, issue(s.use("payroll", "2"), live))
	s.wantDone(issue(s.use("payroll", "2"), s.live("payroll", "ins_1"))()) // the refusals used nothing up
	if err := issue(counterfoil.AssertionUse{Agent: "payroll"}, live)(); err == nil {
		t.Error("a token was issued without an assertion")
	}
	// An id is remembered as long as an assertion with it could be valid, and
	// not for ever.
	s.fixture.clock.Advance(3*time.Minute + backstep)
	s.wantRefused(counterfoil.AssertionReplayed, issue(s.use("payroll", "2"), s.live("payroll", "ins_1")))
	s.fixture.clock.Advance(time.Hour)
	s.wantDone(s.Append(ctx, entry(ledger.ServerStarted, "")))
	s.wantDone(issue(s.use("payroll", "2"), s.live("payroll", "ins_1"))())
	_, err := s.Offboard(ctx, "payroll", entry(ledger.AgentOffboarded, "payroll"))
	s.wantDone(err)
	s.wantRefused(counterfoil.ClientRefused, issue(s.use("payroll", "3"), s.live("payroll", "ins_1")))
}

func suiteRevoked(t *testing.T, s *subject) {
	ctx := t.Context()
	s.agent("payroll")
	s.agent("planner")
	s.instance("ins_1", "payroll")
	s.instance("ins_2", "planner")
	caller := counterfoil.Caller{Agent: "payroll", Instance: "ins_1", Epoch: s.AgentState("payroll").Epoch, JKT: "jkt-ins_1"}
	s.wantDone(s.Revoked(ctx, caller))
	// A proof key that the instance bound is as good as its own.
	s.wantDone(s.bind(ctx, "payroll", "ins_1", "bound", 8))
	bound := caller
	bound.JKT = "bound"
	s.wantDone(s.Revoked(ctx, bound))
	for name, spoil := range map[string]func(*counterfoil.Caller){
		"zero":               func(c *counterfoil.Caller) { *c = counterfoil.Caller{} },
		"unknown agent":      func(c *counterfoil.Caller) { c.Agent = "nobody" },
		"older epoch":        func(c *counterfoil.Caller) { c.Epoch-- },
		"newer epoch":        func(c *counterfoil.Caller) { c.Epoch++ },
		"unknown instance":   func(c *counterfoil.Caller) { c.Instance = "ins_9" },
		"another's instance": func(c *counterfoil.Caller) { c.Instance = "ins_2" },
		"another's key":      func(c *counterfoil.Caller) { c.JKT = "jkt-ins_2" },
		"nobody's key":       func(c *counterfoil.Caller) { c.JKT = "jkt-ins_9" },
		"no key":             func(c *counterfoil.Caller) { c.JKT = "" },
	} {
		c := caller
		spoil(&c)
		if err := s.Revoked(ctx, c); err == nil || counterfoil.CodeOf(err) != counterfoil.TokenRevoked {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.wantDone(s.suspend(ctx, "payroll", entry(ledger.AgentSuspended, "payroll")))
	s.wantRefused(counterfoil.AgentSuspended, func() error { return s.Revoked(ctx, caller) })
	s.wantDone(s.resume("payroll"))
	s.wantRefused(counterfoil.TokenRevoked, func() error { return s.Revoked(ctx, caller) })
	caller.Epoch = s.AgentState("payroll").Epoch
	s.wantDone(s.Revoked(ctx, caller))
	_, err := s.Offboard(ctx, "payroll", entry(ledger.AgentOffboarded, "payroll"))
	s.wantDone(err)
	caller.Epoch = s.AgentState("payroll").Epoch
	s.wantRefused(counterfoil.TokenRevoked, func() error { return s.Revoked(ctx, caller) })
}

func suiteSigningKeys(t *testing.T, s *subject) {
	ctx := t.Context()
	now := newClock().Now()
	key := counterfoil.SigningKey{KID: "k1", Purpose: "access-token", Alg: "ES256", State: "next", JWK: []byte(`{}`), Sealed: []byte{1}, Created: now}
	other := key
	other.KID, other.Created = "k2", now.Add(time.Second)
	s.wantDone(s.SaveKeys(ctx, nil, []counterfoil.SigningKey{other, key}, entry(ledger.KeyRotated, "")))
	from := []counterfoil.SigningKey{key, other}
	key.State, key.Sealed, key.ActiveAt, key.RetiredAt = "retired", nil, now, now.Add(time.Hour)
	s.wantDone(s.SaveKeys(ctx, from, []counterfoil.SigningKey{key}, entry(ledger.KeyRotated, "")))
	for range 2 {
		keys, err := s.Keys(ctx)
		s.wantDone(err)
		if len(keys) != 2 || keys[0].KID != "k1" || keys[0].State != "retired" || keys[0].Sealed != nil || !keys[0].RetiredAt.Equal(key.RetiredAt) ||
			keys[1].State != "next" || !keys[1].ActiveAt.IsZero() || len(keys[1].Sealed) != 1 {
			t.Fatalf("the keys are %+v", keys)
		}
		s.reopen()
	}
	swapped := other
	swapped.JWK = []byte(`{"kty":"EC"}`)
	before := s.size()
	stored, err := s.Keys(ctx)
	s.wantDone(err)
	key.State = "removed"
	// What was computed from another state of the table is not kept.
	for name, from := range map[string][]counterfoil.SigningKey{"an older state": from, "fewer keys": stored[:1], "no keys": nil} {
		if err := s.SaveKeys(ctx, from, []counterfoil.SigningKey{key}, entry(ledger.KeyRotated, "")); !errors.Is(err, ErrConflict) {
			t.Errorf("computed from %s: %v", name, err)
		}
	}
	if err := s.SaveKeys(ctx, stored, []counterfoil.SigningKey{key, swapped}, entry(ledger.KeyRotated, "")); err == nil {
		t.Error("a key was replaced under its id")
	}
	keys, err := s.Keys(ctx)
	s.wantDone(err)
	if keys[0].State != "retired" || s.size() != before {
		t.Error("half of it was kept")
	}
	s.wantDone(s.SaveKeys(ctx, stored, []counterfoil.SigningKey{key}, entry(ledger.KeyRotated, "")))
}

func suiteCalls(t *testing.T, s *subject) {
	ctx := t.Context()
	allowed := decided("payroll")
	s.wantDone(s.Decide(ctx, allowed, nil))
	refused := decided("payroll")
	refused.Decision, refused.Code = ledger.Refuse, counterfoil.PolicyForbids
	s.wantDone(s.Decide(ctx, refused, nil))
	if err := s.Finish(ctx, finished(refused)); err == nil {
		t.Error("a refused call ended")
	}
	if err := s.Finish(ctx, &ledger.Entry{Kind: ledger.CallFinished, Of: 99}); err == nil {
		t.Error("a call that never was ended")
	}
	if err := s.Finish(ctx, &ledger.Entry{Kind: ledger.CallFinished, Of: -1}); err == nil {
		t.Error("call -1 ended")
	}
	if err := s.Append(ctx, decided("payroll")); err == nil {
		t.Error("a decision was appended past Decide")
	}
	if err := s.Decide(ctx, entry(ledger.ServerStarted, ""), nil); err == nil {
		t.Error("something else was decided")
	}
	if err := s.Finish(ctx, decided("payroll")); err == nil {
		t.Error("something else was finished")
	}
	if s.size() != 2 {
		t.Fatalf("the log has %d entries", s.size())
	}
	s.reopen() // ends the call that was left open
	if s.size() != 3 {
		t.Fatalf("after a restart the log has %d entries", s.size())
	}
	b, err := s.Entry(ctx, 2)
	s.wantDone(err)
	e, err := ledger.Parse(b)
	s.wantDone(err)
	if e.Kind != ledger.CallFinished || e.Of != allowed.Index || e.Outcome != ledger.OutcomeUnknown || e.Agent != "payroll" || e.RequestID != allowed.RequestID {
		t.Errorf("the end is %s", b)
	}
	s.reopen()
	if s.size() != 3 {
		t.Error("it ended twice")
	}
}

func suitePins(t *testing.T, s *subject) {
	if _, ok := s.Pin("bank", "pay"); ok {
		t.Error("there is a pin before there is one")
	}
	s.wantDone(s.PinTool(t.Context(), "bank", "pay", "d1", "apply", entry(ledger.ToolPinned, "")))
	s.wantDone(s.PinTool(t.Context(), "bank", "pay", "d2", "apply", entry(ledger.ToolPinned, "")))
	for range 2 {
		if d, ok := s.Pin("bank", "pay"); !ok || d != "d2" {
			t.Errorf("the pin is %q", d)
		}
		if _, ok := s.Pin("bank", "get"); ok {
			t.Error("another tool is pinned too")
		}
		s.reopen()
	}
}

func suiteReads(t *testing.T, s *subject) {
	ctx := t.Context()
	start := s.fixture.clock.Now()
	var calls []*ledger.Entry
	for i := range 700 {
		e := decided(fmt.Sprintf("agent-%d", i%3))
		e.Decision, e.Reason = ledger.Refuse, strings.Repeat("é", i%50)
		e.Code = counterfoil.PolicyForbids
		if i == 500 {
			e.Tool, e.Reason = "bank/rare", `"tool":"bank/other"`
		}
		s.wantDone(s.Decide(ctx, e, nil))
		calls = append(calls, e)
		s.fixture.clock.Advance(time.Second)
	}
	for range 2 {
		var next int64 = 100
		s.wantDone(s.Entries(ctx, 100, 650, func(i int64, b []byte) error {
			if e, err := ledger.Parse(b); err != nil || i != next || e.Index != i || e.RequestID != calls[i].RequestID {
				return fmt.Errorf("entry %d at %d: %w", i, next, err)
			}
			next++
			return nil
		}))
		if next != 650 {
			t.Errorf("the entries end at %d", next)
		}
		find := func(f ledger.Filter) []*ledger.Entry {
			t.Helper()
			found, err := s.Find(ctx, f)
			s.wantDone(err)
			return found
		}
		if got := find(ledger.Filter{RequestID: calls[3].RequestID}); len(got) != 1 || got[0].Index != 3 {
			t.Errorf("by request id: %v", got)
		}
		if got := find(ledger.Filter{Tool: "bank/rare", Agent: "agent-2", Code: counterfoil.PolicyForbids, Kind: ledger.CallDecided}); len(got) != 1 || got[0].Index != 500 {
			t.Errorf("by tool: %v", got)
		}
		if got := find(ledger.Filter{Tool: "bank/other"}); len(got) != 0 {
			t.Errorf("by a text in another member: %v", got)
		}
		if got := find(ledger.Filter{Agent: "agent-1", Limit: 5}); len(got) != 5 || got[0].Index != 697 || got[4].Index != 685 {
			t.Errorf("the last five: %v", got)
		}
		if got := find(ledger.Filter{Since: start.Add(690 * time.Second)}); len(got) != 10 || got[9].Index != 690 {
			t.Errorf("since: %d", len(got))
		}
		if got := find(ledger.Filter{Agent: "agent-0", Since: start.Add(690 * time.Second)}); len(got) != 4 {
			t.Errorf("of an agent since: %d", len(got))
		}
		if got := find(ledger.Filter{Agent: "nobody", Since: start.Add(690 * time.Second)}); len(got) != 0 {
			t.Errorf("of nobody: %v", got)
		}
		proofs := map[string]bool{}
		s.wantDone(s.RecentProofs(ctx, start.Add(600*time.Second), func(hash string, at time.Time) {
			if at.Before(start.Add(600 * time.Second)) {
				t.Errorf("a proof of %s", at)
			}
			proofs[hash] = true
		}))
		if len(proofs) != 100 || !proofs[calls[600].Proof] || proofs[calls[599].Proof] {
			t.Errorf("%d recent proofs", len(proofs))
		}
		for _, tile := range []tlog.Tile{{H: 8, L: 0, N: 0, W: 256}, {H: 8, L: 0, N: 2, W: 188}, {H: 8, L: 0, N: 2, W: 1}, {H: 8, L: 1, N: 0, W: 2}} {
			if b, err := s.ReadTile(ctx, tile); err != nil || len(b) != tile.W*32 {
				t.Errorf("tile %s: %d bytes, %v", ledger.TilePath(tile), len(b), err)
			}
		}
		for _, tile := range []tlog.Tile{{H: 8, L: 0, N: 2, W: 189}, {H: 8, L: 0, N: 3, W: 1}, {H: 8, L: 1, N: 0, W: 3}, {H: 8, L: 2, N: 0, W: 1}, {H: 8, L: -1, W: 1}, {H: 7, W: 1}, {H: 8, N: 1 << 60, W: 1}, {H: 8, W: 0}} {
			if _, err := s.ReadTile(ctx, tile); !errors.Is(err, ErrNoEntry) {
				t.Errorf("tile %+v: %v", tile, err)
			}
		}
		r, err := s.Receipt(ctx, 321)
		s.wantDone(err)
		if e, err := r.Verify(s.fixture.opt.Verifier); err != nil || e.RequestID != calls[321].RequestID {
			t.Errorf("receipt: %v", err)
		}
		b, err := s.Checkpoint(ctx)
		s.wantDone(err)
		report, err := ledger.VerifyTiles(ctx, b, func(ctx context.Context, path string) ([]byte, error) {
			tile, err := ledger.ParseTilePath(path)
			if err != nil {
				return nil, err
			}
			return s.ReadTile(ctx, tile)
		}, ledger.VerifyOptions{Verifier: s.fixture.opt.Verifier})
		if err != nil || report.Size != 700 {
			t.Errorf("by tiles: %+v, %v", report, err)
		}
		s.reopen()
	}
	newest, err := s.Entry(ctx, 699)
	s.wantDone(err)
	if e, err := ledger.Parse(newest); err != nil || e.Time != ledger.FormatTime(start.Add(699*time.Second)) {
		t.Errorf("the last entry is %s, %v", newest, err)
	}
	if _, _, err := s.Payload(ctx, 1); !errors.Is(err, ErrNoEntry) {
		t.Errorf("a payload that is not kept: %v", err)
	}
	stop := errors.New("enough")
	if err := s.Entries(ctx, 0, 700, func(int64, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a reader that stops: %v", err)
	}
}

// Of 64 that try at once, one wins; the log has the winner's entry alone.
func suiteExactlyOne(t *testing.T, s *subject) {
	ctx := t.Context()
	for i := range 65 {
		s.agent(fmt.Sprintf("a%d", i))
		s.instance(fmt.Sprintf("ins_%d", i), fmt.Sprintf("a%d", i))
	}
	shared := code("a64", "shared")
	s.wantDone(s.PutCode(ctx, shared, entry(ledger.EnrolmentCodeIssued, "a64")))
	for i := range 64 {
		s.wantDone(s.PutCode(ctx, code(fmt.Sprintf("a%d", i), fmt.Sprint("race", i)), entry(ledger.EnrolmentCodeIssued, "")))
	}
	call := decided("a64")
	s.wantDone(s.Decide(ctx, call, nil))
	var base string
	live := s.live("a64", "ins_64")
	for _, race := range []struct {
		name string
		kind ledger.Kind
		try  func(i int) error
	}{
		{"an assertion", ledger.TokenIssued, func(int) error {
			return s.Issue(ctx, counterfoil.Issuance{Use: s.use("a64", "race"), Live: live}, entry(ledger.TokenIssued, "race"), nil)
		}},
		{"a code", ledger.InstanceEnrolled, func(i int) error {
			return s.Enroll(ctx, shared.Hash, instance(fmt.Sprint("ins_code", i), "a64"), entry(ledger.InstanceEnrolled, "race"))
		}},
		{"a key to enrol", ledger.InstanceEnrolled, func(i int) error {
			agent := fmt.Sprintf("a%d", i)
			inst := instance(fmt.Sprint("ins_key", i), agent)
			inst.JKT = "contested"
			return s.Enroll(ctx, code(agent, fmt.Sprint("race", i)).Hash, inst, entry(ledger.InstanceEnrolled, "race-key"))
		}},
		{"a proof key", ledger.TokenIssued, func(i int) error {
			return s.bind(ctx, fmt.Sprintf("a%d", i), fmt.Sprintf("ins_%d", i), "proof", 8)
		}},
		{"an assertion, with a key of each", ledger.TokenIssued, func(n int) error {
			i := s.issuance("a64", "ins_64", "one for many keys")
			i.Bind = counterfoil.KeyBinding{JKT: fmt.Sprint("proof", n), Most: 8}
			return s.Issue(ctx, i, entry(ledger.TokenIssued, "race"), entry(ledger.ProofKeyBound, "race"))
		}},
		{"the end of a call", ledger.CallFinished, func(int) error {
			e := finished(call)
			e.Agent = "race"
			return s.Finish(ctx, e)
		}},
		{"a suspension", ledger.AgentSuspended, func(int) error {
			return s.suspend(ctx, "a63", entry(ledger.AgentSuspended, "race"))
		}},
		{"an offboarding", ledger.AgentOffboarded, func(int) error {
			_, err := s.Offboard(ctx, "a62", entry(ledger.AgentOffboarded, "race"))
			return err
		}},
		{"a revision", ledger.ConfigApplied, func(i int) error {
			name := fmt.Sprintf("class-%d", i)
			return s.Apply(ctx, counterfoil.Change{Base: base, Put: []counterfoil.Document{
				document(t, counterfoil.KindClass, name, &counterfoil.Class{Name: name}),
			}}, []*ledger.Entry{entry(ledger.ConfigApplied, "race")})
		}},
	} {
		_, base = s.Registry()
		before := s.size()
		var wins, losses int
		var mu sync.Mutex
		var wg sync.WaitGroup
		gate := make(chan struct{})
		for i := range 64 {
			wg.Go(func() {
				<-gate
				err := race.try(i)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					wins++
				} else if c := counterfoil.CodeOf(err); c == counterfoil.LedgerUnavailable || c == counterfoil.StoreUnavailable {
					t.Errorf("%s: %v", race.name, err)
				} else {
					losses++
				}
			})
		}
		close(gate)
		wg.Wait()
		if wins != 1 || losses != 63 {
			t.Errorf("%s: %d won, %d lost", race.name, wins, losses)
		}
		entries := int64(1)
		if strings.Contains(race.name, "key") && race.kind == ledger.TokenIssued {
			entries = 2 // the key that was bound, and the token
		}
		if n := s.size() - before; n != entries {
			t.Errorf("%s: %d entries", race.name, n)
		}
		found, err := s.Find(ctx, ledger.Filter{Kind: race.kind, Limit: 1})
		if err != nil || len(found) != 1 || found[0].Index != before+entries-1 {
			t.Errorf("%s: the entry is %v, %v", race.name, found, err)
		}
	}
	bound := 0
	for i := range 64 {
		if _, instance, ok := s.ProofKey(fmt.Sprint("proof", i)); ok && instance == "ins_64" {
			bound++
		}
	}
	if bound != 1 {
		t.Errorf("one assertion bound %d keys", bound)
	}
}

func suiteRefusals(t *testing.T, s *subject) {
	// A refusal beside a success in one batch takes nothing from it: many
	// batches of both.
	ctx := t.Context()
	s.agent("payroll")
	s.instance("ins_1", "payroll")
	live := s.live("payroll", "ins_1")
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for j := range 10 {
				id := fmt.Sprintf("%d-%d", i/2, j) // two callers each
				err := s.Issue(ctx, counterfoil.Issuance{Use: s.use("payroll", id), Live: live}, entry(ledger.TokenIssued, "payroll"), nil)
				if err != nil && counterfoil.CodeOf(err) != counterfoil.AssertionReplayed {
					t.Error(err)
				}
				if err := s.Decide(ctx, decided("payroll"), []byte(`{}`)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	issued, err := s.Find(ctx, ledger.Filter{Kind: ledger.TokenIssued, Limit: 1000})
	s.wantDone(err)
	calls, err := s.Find(ctx, ledger.Filter{Kind: ledger.CallDecided, Limit: 1000})
	s.wantDone(err)
	if len(issued) != 160 || len(calls) != 320 {
		t.Errorf("%d tokens and %d calls are recorded", len(issued), len(calls))
	}
	for _, c := range calls {
		if salt, _, err := s.Payload(ctx, c.Index); err != nil || ledger.Commitment(salt, []byte(`{}`)) != c.PayloadCommitment {
			t.Fatalf("the salt of %d is not its own: %v", c.Index, err)
		}
	}
}

func suiteVisible(t *testing.T, s *subject) {
	ctx := t.Context()
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			name := fmt.Sprintf("agent-%d", i)
			for {
				_, base := s.Registry()
				err := s.Apply(ctx, counterfoil.Change{Base: base, Put: []counterfoil.Document{agentDocument(t, name)},
					NewKeys: []counterfoil.Instance{instance("ins_"+name, name)}}, []*ledger.Entry{entry(ledger.AgentCreated, name)})
				if errors.Is(err, ErrConflict) {
					continue
				}
				if err != nil {
					t.Error(err)
				}
				break
			}
			caller := counterfoil.Caller{Agent: name, Instance: "ins_" + name, Epoch: s.AgentState(name).Epoch, JKT: "jkt-ins_" + name}
			if err := s.Revoked(ctx, caller); err != nil {
				t.Errorf("acknowledged and not visible: %v", err)
			}
			if _, err := s.Offboard(ctx, name, entry(ledger.AgentOffboarded, name)); err != nil {
				t.Error(err)
			}
			if err := s.Revoked(ctx, caller); err == nil {
				t.Error("offboarding is acknowledged and the agent is live")
			}
		})
	}
	wg.Wait()
}
