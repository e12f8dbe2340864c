package approval

import (
	"context"
	"crypto/x509"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/store"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/internal/testkit/passkey"
	"github.com/counterfoil/counterfoil/ledger"
)

const (
	testIssuer = "https://gw.example"
	testOrigin = "https://console.example"
	testRP     = "console.example"
)

// A world is an engine on a real store, with people who have passkeys.
type world struct {
	*Engine
	t     *testing.T
	clock *testkit.Clock
	store *store.Store
	open  func() *store.Store
	roots *x509.CertPool
	dev   bool

	phones map[string]*passkey.Authenticator

	mu      sync.Mutex
	notices []Notice
}

// The declared world: ana owns payroll, and she, bo and cy approve payouts.
func declared() (people []counterfoil.Person, classes []counterfoil.Class) {
	people = []counterfoil.Person{
		{Name: "ana", Email: "ana@example.com", Groups: []string{"finance"}, Roles: []string{"admin"}},
		{Name: "bo", Email: "bo@example.com", Groups: []string{"finance"}},
		{Name: "cy", Email: "cy@example.com", Groups: []string{"finance"}},
		{Name: "di", Email: "di@example.com", Groups: []string{"audit"}},
		{Name: "ed", Email: "ed@example.com", Groups: []string{"finance", "audit"}},
		{Name: "fay", Email: "fay@example.com"},
		{Name: "gus", Email: "gus@example.com", Roles: []string{"auditor"}},
	}
	classes = []counterfoil.Class{
		{Name: "payout", Tier: counterfoil.Irreversible, Approvers: [][]string{{"finance"}}, Template: "Pay {{.amount}} {{.currency}} to {{.to}}", Payload: counterfoil.PayloadFull,
			Limits: []counterfoil.Limit{{Sum: "amount", Per: "agent", Window: counterfoil.Duration(24 * time.Hour), Max: "1000"}}},
		{Name: "credential-reset", Tier: counterfoil.Guarded, Approvers: [][]string{{"finance"}}},
		{Name: "own", Tier: counterfoil.Guarded, Approvers: [][]string{{"finance"}}, OwnerMayApprove: true},
		{Name: "both", Tier: counterfoil.Irreversible, Approvers: [][]string{{"finance"}, {"audit"}}},
		{Name: "read", Tier: counterfoil.Routine},
	}
	return people, classes
}

func newWorld(t *testing.T, change ...func(*world)) *world {
	t.Helper()
	signer, verifier := testkit.LogKey(t, "gw.example/ledger")
	dir := t.TempDir()
	w := &world{t: t, clock: testkit.NewClock(time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)), phones: map[string]*passkey.Authenticator{}}
	for _, c := range change {
		c(w)
	}
	w.open = func() *store.Store {
		s, err := store.Open(context.Background(), "sqlite:"+filepath.Join(dir, "store.db"), store.Options{
			Now: w.clock.Now, Origin: "gw.example/ledger", Signer: signer, Verifier: verifier, Begin: true, Issuer: testIssuer,
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	w.store = w.open()
	t.Cleanup(func() { w.store.Close() })
	people, classes := declared()
	var docs []counterfoil.Document
	for _, p := range people {
		docs = append(docs, doc(t, counterfoil.KindPerson, p.Name, p))
	}
	for _, c := range classes {
		docs = append(docs, doc(t, counterfoil.KindClass, c.Name, c))
	}
	docs = append(docs,
		doc(t, counterfoil.KindResource, "bank", counterfoil.Resource{
			Name: "bank", Type: counterfoil.ResourceMCP, Environment: "prod", Upstream: "http://127.0.0.1:9000/mcp", Binding: "require",
			Tools: []counterfoil.Tool{{Name: "pay", Class: "payout", Fields: map[string]string{"amount": "/arguments/amount", "currency": "/arguments/currency", "to": "/arguments/to"}},
				{Name: "reset", Class: "credential-reset"}, {Name: "own", Class: "own"}, {Name: "both", Class: "both"}},
		}),
		doc(t, counterfoil.KindAgent, "payroll", counterfoil.Agent{Name: "payroll", Owner: "ana", Purpose: "monthly payroll run", Environment: "prod"}),
		doc(t, counterfoil.KindAgent, "other", counterfoil.Agent{Name: "other", Owner: "bo", Environment: "prod"}),
	)
	w.apply(docs...)
	for _, agent := range []string{"payroll", "other"} {
		text, hash := counterfoil.NewEnrolmentCode()
		_ = text
		err := w.store.PutCode(t.Context(), counterfoil.EnrolmentCode{Hash: hash, Agent: agent, Expires: w.clock.Now().Add(time.Hour)}, &ledger.Entry{Kind: ledger.EnrolmentCodeIssued, Agent: agent})
		if err == nil {
			err = w.store.Enroll(t.Context(), hash, counterfoil.Instance{
				ID: "ins_" + agent, Agent: agent, JKT: "jkt-" + agent, JWK: `{"kty":"OKP"}`, Alg: "EdDSA", Status: counterfoil.Active, Enrolled: w.clock.Now(), How: counterfoil.EnrolledByCode,
			}, &ledger.Entry{Kind: ledger.InstanceEnrolled, Agent: agent})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// These outlive what tests do with the clock; a task of a test's own has its own time.
	for _, id := range []string{"tsk_1", "tsk_2"} {
		w.task(id, func(t *counterfoil.Task) { t.Deadline = t.Opened.Add(10 * 365 * 24 * time.Hour) })
	}
	w.start()
	return w
}

// task opens a task of payroll's, for an hour.
func (w *world) task(id string, change ...func(*counterfoil.Task)) {
	w.t.Helper()
	now := w.clock.Now()
	task := counterfoil.Task{ID: id, Agent: "payroll", Opener: "payroll", Purpose: "the salaries of March", Opened: now, Deadline: now.Add(time.Hour)}
	for _, c := range change {
		c(&task)
	}
	live := counterfoil.Live{Agent: task.Opener, Instance: "ins_" + task.Opener, Epoch: w.store.AgentState(task.Opener).Epoch}
	task.Instance = live.Instance
	if err := w.store.OpenTask(w.t.Context(), task, live, &ledger.Entry{Kind: ledger.TaskOpened, Agent: task.Agent, Task: task.ID}); err != nil {
		w.t.Fatal(err)
	}
}

// revoke takes authority away, as the authority does.
func (w *world) revoke(kind counterfoil.TargetKind, id string) counterfoil.Voided {
	w.t.Helper()
	e := &ledger.Entry{Kind: ledger.Revoked, Detail: map[string]any{"kind": string(kind), "id": id}}
	v, news, err := w.store.Revoke(w.t.Context(), counterfoil.Revocation{Target: counterfoil.Target{Kind: kind, ID: id}, Reason: "test"}, e)
	if err != nil || !news {
		w.t.Fatalf("revoking %s %s: %t, %v", kind, id, news, err)
	}
	return v
}

// restore puts somebody or something back in force.
func (w *world) restore(kind counterfoil.TargetKind, id string) {
	w.t.Helper()
	e := &ledger.Entry{Kind: ledger.Restored, Detail: map[string]any{"kind": string(kind), "id": id}}
	if err := w.store.Restore(w.t.Context(), counterfoil.Target{Kind: kind, ID: id}, e); err != nil {
		w.t.Fatal(err)
	}
}

// in makes the call one of another task.
func in(task string) func(*counterfoil.GuardedCall) {
	return func(c *counterfoil.GuardedCall) { c.Caller.Task = task }
}

// start makes the engine, as a start of the daemon does.
func (w *world) start() {
	w.t.Helper()
	var err error
	w.Engine, err = New(Config{
		Store: w.store, Issuer: testIssuer, Origin: testOrigin, Dev: w.dev, Roots: w.roots, Now: w.clock.Now,
		Notify: func(_ context.Context, n Notice) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.notices = append(w.notices, n)
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// reopen ends everything and starts it again.
func (w *world) reopen() {
	w.t.Helper()
	if err := w.store.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.store = w.open()
	w.start()
}

func doc(t *testing.T, kind, name string, noun any) counterfoil.Document {
	t.Helper()
	b, err := json.Marshal(noun)
	if err != nil {
		t.Fatal(err)
	}
	return counterfoil.Document{Kind: kind, Name: name, Body: b}
}

func (w *world) apply(docs ...counterfoil.Document) {
	w.t.Helper()
	_, base := w.store.Registry()
	if err := w.store.Apply(w.t.Context(), counterfoil.Change{Base: base, Put: docs}, []*ledger.Entry{{Kind: ledger.ConfigApplied}}); err != nil {
		w.t.Fatal(err)
	}
}

// class changes a declared class.
func (w *world) class(name string, change func(*counterfoil.Class)) {
	w.t.Helper()
	reg, _ := w.store.Registry()
	c := *reg.Classes[name]
	change(&c)
	w.apply(doc(w.t, counterfoil.KindClass, name, c))
}

func (w *world) personDoc(name string, change func(*counterfoil.Person)) {
	w.t.Helper()
	reg, _ := w.store.Registry()
	p := counterfoil.Person{Name: name}
	if reg.People[name] != nil {
		p = *reg.People[name]
	}
	change(&p)
	w.apply(doc(w.t, counterfoil.KindPerson, name, p))
}

// phone returns a person's authenticator.
func (w *world) phone(name string) *passkey.Authenticator {
	if w.phones[name] == nil {
		w.phones[name] = passkey.New(testRP, testOrigin)
	}
	return w.phones[name]
}

// enrol gives people their passkeys.
func (w *world) enrol(names ...string) {
	w.t.Helper()
	for _, name := range names {
		w.enrolWith(name, w.phone(name), false)
	}
}

func (w *world) enrolWith(name string, phone *passkey.Authenticator, reset bool) PersonView {
	w.t.Helper()
	code, _, err := w.MakeCode(w.t.Context(), name, "uid:0", reset)
	if err != nil {
		w.t.Fatal(err)
	}
	options, err := w.EnrolmentOptions(w.t.Context(), code.Reveal())
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := w.Enrol(w.t.Context(), code.Reveal(), phone.Create(options))
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// pay is a call of payroll.
func (w *world) pay(amount, to string, change ...func(*counterfoil.GuardedCall)) counterfoil.GuardedCall {
	c := counterfoil.GuardedCall{
		RequestID: counterfoil.NewID("req_"), Tool: counterfoil.ToolID{Resource: "bank", Tool: "pay"}, ToolDigest: "sha-256:pay", Class: "payout",
		Fields: map[string]string{"amount": amount, "currency": "EUR", "to": to},
	}
	c.Caller = counterfoil.Caller{Agent: "payroll", Subject: "payroll", Instance: "ins_payroll", Environment: "prod", Task: "tsk_1"}
	for _, f := range change {
		f(&c)
	}
	c.Caller.Epoch = w.store.AgentState(c.Caller.Agent).Epoch
	call, err := ijson.Marshal(map[string]any{
		"v": 1, "tool": c.Tool.String(), "tool_digest": c.ToolDigest, "agent": c.Caller.Agent, "subject": c.Caller.Subject, "task": c.Caller.Task, "env": "prod",
		"arguments": map[string]any{"amount": amount, "currency": "EUR", "to": to},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	c.Call = call
	return c
}

// of makes the call one of another tool and class.
func of(tool, class string) func(*counterfoil.GuardedCall) {
	return func(c *counterfoil.GuardedCall) { c.Tool.Tool, c.Class, c.ToolDigest = tool, class, "sha-256:"+tool }
}

func named(id string) func(*counterfoil.GuardedCall) {
	return func(c *counterfoil.GuardedCall) { c.Named = id }
}

func keyed(key string) func(*counterfoil.GuardedCall) {
	return func(c *counterfoil.GuardedCall) { c.Key = key }
}

// ask claims a call that people have to be asked about and returns the approval's id.
func (w *world) ask(c counterfoil.GuardedCall) string {
	w.t.Helper()
	_, err := w.Claim(w.t.Context(), c)
	return wantRefused(w.t, err, counterfoil.ApprovalRequired).Approval.ID
}

// sign signs as a person with the person's phone.
func (w *world) sign(id, person, decision, reason string, lies ...func(*passkey.Ceremony)) (counterfoil.ApprovalState, error) {
	w.t.Helper()
	options, err := w.Challenge(w.t.Context(), id, person, decision, reason)
	if err != nil {
		return "", err
	}
	return w.Sign(w.t.Context(), id, person, decision, reason, w.phone(person).Get(options, lies...))
}

func (w *world) approve(id string, people ...string) {
	w.t.Helper()
	for _, p := range people {
		if _, err := w.sign(id, p, counterfoil.DecisionApprove, ""); err != nil {
			w.t.Fatalf("%s: %v", p, err)
		}
	}
}

// spend uses an approval up as the gateway does.
func (w *world) spend(s counterfoil.Spending, c counterfoil.GuardedCall) (*ledger.Entry, error) {
	reg, _ := w.store.Registry()
	d := &ledger.Entry{
		Kind: ledger.CallDecided, Decision: ledger.Allow, RequestID: counterfoil.NewID("req_"), Agent: c.Caller.Agent, Task: c.Caller.Task,
		Tool: c.Tool.String(), ToolDigest: c.ToolDigest, Class: c.Class, Tier: reg.Classes[c.Class].Tier.String(),
		Approval: ledger.Approval{ID: s.Approval, State: "spent", Signers: s.Signers},
	}
	if c.Caller.Subject != c.Caller.Agent {
		d.OnBehalfOf = c.Caller.Subject
	}
	return d, w.Spend(w.t.Context(), s, d, c.Call)
}

// run claims and spends a call and says how it ended.
func (w *world) run(c counterfoil.GuardedCall) (id string, index int64) {
	w.t.Helper()
	s, err := w.Claim(w.t.Context(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	d, err := w.spend(s, c)
	if err != nil {
		w.t.Fatal(err)
	}
	f := &ledger.Entry{Kind: ledger.CallFinished, RequestID: d.RequestID, Of: d.Index, Outcome: "ok", Agent: c.Caller.Agent}
	if err := w.Finish(w.t.Context(), s.Approval, counterfoil.StateSucceeded, []byte(`{"result":{}}`), f); err != nil {
		w.t.Fatal(err)
	}
	return s.Approval, d.Index
}

func (w *world) approval(id string) counterfoil.Approval {
	w.t.Helper()
	a, ok, err := w.store.Approval(w.t.Context(), id)
	if err != nil || !ok {
		w.t.Fatalf("approval %s: %t, %v", id, ok, err)
	}
	return a
}

func (w *world) wantState(id string, want counterfoil.ApprovalState) {
	w.t.Helper()
	if got := w.approval(id).State; got != want {
		w.t.Errorf("approval %s is %s, want %s", id, got, want)
	}
}

// entries returns the log.
func (w *world) entries() []*ledger.Entry {
	w.t.Helper()
	var out []*ledger.Entry
	err := w.store.Entries(w.t.Context(), 0, w.store.Size(), func(_ int64, b []byte) error {
		e, err := ledger.Parse(slices.Clone(b))
		out = append(out, e)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *world) entriesOf(kind ledger.Kind) []*ledger.Entry {
	w.t.Helper()
	return slices.DeleteFunc(w.entries(), func(e *ledger.Entry) bool { return e.Kind != kind })
}

// checkLog verifies every human proof of the log offline.
func (w *world) checkLog() OfflineReport {
	w.t.Helper()
	var o Offline
	for _, e := range w.entries() {
		if err := o.Add(e); err != nil {
			w.t.Error(err)
		}
	}
	return o.Report()
}

func (w *world) told(event string) []Notice {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.notices), func(n Notice) bool { return n.Event != event })
}

func wantRefused(t *testing.T, err error, code counterfoil.Code) *counterfoil.Refusal {
	t.Helper()
	r, ok := counterfoil.AsRefusal(err)
	if !ok || r.Code != code {
		t.Fatalf("got %v, want the refusal %s", err, code)
	}
	return r
}

// wantRefusedFor wants a refusal whose detail has a word that says which check it was.
func wantRefusedFor(t *testing.T, err error, code counterfoil.Code, word string) {
	t.Helper()
	if r := wantRefused(t, err, code); !strings.Contains(r.Detail, word) {
		t.Errorf("refused with %q, want it to be for %q", r.Detail, word)
	}
}

func wantDone(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func contains(b []byte, s string) bool { return strings.Contains(string(b), s) }

// askOrFind returns the approval of a call, whether or not it was asked for.
func (w *world) askOrFind(c counterfoil.GuardedCall) string {
	w.t.Helper()
	_, err := w.Claim(w.t.Context(), c)
	r, ok := counterfoil.AsRefusal(err)
	if !ok || r.Approval == nil {
		w.t.Fatalf("no approval: %v", err)
	}
	return r.Approval.ID
}

// actsOnNothing is a store whose process ends after a signature: what follows from it
// is not done.
type actsOnNothing struct{ Store }

func (actsOnNothing) ReleasePasskey(context.Context, []byte, string, string, *ledger.Entry) error {
	return counterfoil.NewFault(counterfoil.StoreUnavailable, context.Canceled)
}

// on returns the engine on another store, with the ceremonies that are under way.
func (w *world) on(s Store) *Engine {
	w.t.Helper()
	cfg := w.cfg
	cfg.Store = s
	e, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	e.signings = w.signings
	return e
}
