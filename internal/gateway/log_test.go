package gateway_test

import (
	"context"
	"crypto/sha256"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/store"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/ledger"
)

// A log is the store, which a test can make fail and interrupt.
type log struct {
	*store.Store
	t testing.TB

	mu     sync.Mutex
	broken error

	// decided is called after a decision is durable.
	decided func(*ledger.Entry)
}

const origin = "localhost:8420/ledger"

func openLog(t testing.TB, now func() time.Time, issuer string) (*log, note.Verifier) {
	t.Helper()
	signer, verifier := testkit.LogKey(t, origin)
	db, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "store.db"), store.Options{
		Now: now, Origin: origin, Issuer: issuer, Signer: signer, Verifier: verifier, Begin: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return &log{Store: db, t: t}, verifier
}

// apply declares a registry.
func (l *log) apply(reg *counterfoil.Registry) {
	l.t.Helper()
	_, base := l.Registry()
	change := counterfoil.Change{Base: base}
	put := func(kind, name string, v any) {
		b, err := ijson.Marshal(v)
		if err != nil {
			l.t.Fatal(err)
		}
		change.Put = append(change.Put, counterfoil.Document{Kind: kind, Name: name, Body: b})
	}
	for name, v := range reg.People {
		put(counterfoil.KindPerson, name, v)
	}
	for name, v := range reg.Classes {
		put(counterfoil.KindClass, name, v)
	}
	for name, v := range reg.Resources {
		put(counterfoil.KindResource, name, v)
	}
	for name, v := range reg.Agents {
		put(counterfoil.KindAgent, name, v)
	}
	if err := l.Apply(l.t.Context(), change, []*ledger.Entry{{Kind: ledger.ConfigApplied, Actor: "uid:0"}}); err != nil {
		l.t.Fatal(err)
	}
}

// enrol makes an instance with this key.
func (l *log) enrol(agent string, key credential.PublicKey) (instance string) {
	l.t.Helper()
	ctx, now := l.t.Context(), start
	code := sha256.Sum256([]byte(key.Thumbprint()))
	err := l.PutCode(ctx, counterfoil.EnrolmentCode{Hash: code, Agent: agent, Expires: now.Add(time.Hour)}, &ledger.Entry{Kind: ledger.EnrolmentCodeIssued, Agent: agent})
	if err != nil {
		l.t.Fatal(err)
	}
	inst := counterfoil.Instance{
		ID: counterfoil.NewID("ins_"), Agent: agent, JKT: key.Thumbprint(), JWK: string(key.JWK()), Alg: key.Alg(), Status: counterfoil.Active, Enrolled: now,
	}
	if err := l.Enroll(ctx, code, inst, &ledger.Entry{Kind: ledger.InstanceEnrolled, Agent: agent, Instance: inst.ID}); err != nil {
		l.t.Fatal(err)
	}
	return inst.ID
}

func (l *log) fault() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

func (l *log) Decide(ctx context.Context, e *ledger.Entry, payload []byte) error {
	if err := l.fault(); err != nil {
		return err
	}
	err := l.Store.Decide(ctx, e, payload)
	if err == nil && l.decided != nil {
		l.decided(e)
	}
	return err
}

func (l *log) DecideUsing(ctx context.Context, use counterfoil.CallUse, e *ledger.Entry, payload []byte) error {
	if err := l.fault(); err != nil {
		return err
	}
	err := l.Store.DecideUsing(ctx, use, e, payload)
	if err == nil && l.decided != nil {
		l.decided(e)
	}
	return err
}

func (l *log) FinishUsing(ctx context.Context, use counterfoil.CallUse, result []byte, e *ledger.Entry) error {
	if err := l.fault(); err != nil {
		return err
	}
	return l.Store.FinishUsing(ctx, use, result, e)
}

func (l *log) Finish(ctx context.Context, e *ledger.Entry) error {
	if err := l.fault(); err != nil {
		return err
	}
	return l.Store.Finish(ctx, e)
}

// breakDown makes every commit fail with err, or none.
func (l *log) breakDown(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = err
}

// revokeTarget takes from a target all that it has, and returns the index of the entry.
func (l *log) revokeTarget(kind counterfoil.TargetKind, id string) int64 {
	e := &ledger.Entry{Kind: ledger.Revoked, Actor: "uid:0"}
	_, news, err := l.Revoke(context.Background(), counterfoil.Revocation{Target: counterfoil.Target{Kind: kind, ID: id}, Reason: "test"}, e)
	if err != nil || !news {
		l.t.Errorf("revoking %s %s: %v, %v", kind, id, news, err)
	}
	return e.Index
}

// revoke ends an agent.
func (l *log) revoke(agent string) {
	if _, err := l.Offboard(context.Background(), agent, &ledger.Entry{Kind: ledger.AgentOffboarded, Agent: agent, Actor: "uid:0"}); err != nil {
		l.t.Error(err)
	}
}

// pin pins what an administrator looked at.
func (l *log) pin(tool, digest string) {
	l.t.Helper()
	if err := l.PinTool(l.t.Context(), "bank", tool, digest, "apply", &ledger.Entry{Kind: ledger.ToolPinned, Resource: "bank", Tool: "bank/" + tool, ToolDigest: digest, Actor: "uid:0"}); err != nil {
		l.t.Fatal(err)
	}
}

// all returns what the gateway recorded.
func (l *log) all() []ledger.Entry {
	l.t.Helper()
	size, _ := l.Head()
	var out []ledger.Entry
	err := l.Entries(context.Background(), 0, size, func(_ int64, b []byte) error {
		e, err := ledger.Parse(b)
		if err == nil && (strings.HasPrefix(string(e.Kind), "call.") || strings.HasPrefix(string(e.Kind), "tool.")) {
			out = append(out, *e)
		}
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

func (l *log) of(kind ledger.Kind) []ledger.Entry {
	l.t.Helper()
	return slices.DeleteFunc(l.all(), func(e ledger.Entry) bool { return e.Kind != kind })
}

// waitEnds waits for the entries that follow streams.
func (l *log) waitEnds(n int) []ledger.Entry {
	l.t.Helper()
	for {
		size, _ := l.Head()
		if ends := l.of(ledger.CallFinished); len(ends) >= n {
			return ends
		}
		if err := l.Wait(l.t.Context(), size); err != nil {
			l.t.Fatalf("the end never came: %v", err)
		}
	}
}
