package signals_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/outbound"
	"github.com/counterfoil/counterfoil/internal/signals"
	"github.com/counterfoil/counterfoil/ledger"
)

const issuer = "https://issuer.example"

var began = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

var signer = sync.OnceValue(func() *credential.Signer { return rs256() })

func rs256() *credential.Signer {
	key, err := credential.GenerateKey(credential.RS256)
	if err != nil {
		panic(err)
	}
	s, err := credential.NewSignerFor(credential.RS256, key)
	if err != nil {
		panic(err)
	}
	return s
}

// A world is what an engine lives in: a log that is real but for its tree, streams
// that commit with it, a clock.
type world struct {
	t   *testing.T
	cfg signals.Config
	*signals.Engine

	mu       sync.Mutex
	now      time.Time
	entries  [][]byte
	grown    chan struct{}
	streams  map[string]counterfoil.SignalStream
	received map[string]time.Time
	registry *counterfoil.Registry
	states   map[string]counterfoil.Status
	revoked  []counterfoil.Revocation
	actors   []string
	fail     error // of the next writes
	failRev  error // of revocations
	logged   bytes.Buffer
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		t: t, now: began, grown: make(chan struct{}), streams: map[string]counterfoil.SignalStream{}, received: map[string]time.Time{},
		registry: counterfoil.NewRegistry(), states: map[string]counterfoil.Status{},
	}
	w.registry.People["ana"] = &counterfoil.Person{Name: "ana", Email: "ana@example.com"}
	w.registry.People["bo"] = &counterfoil.Person{Name: "bo", Email: "b.o@example.com"}
	w.registry.People["zed"] = &counterfoil.Person{Name: "zed"}
	w.registry.Resources["bank"] = &counterfoil.Resource{Name: "bank", Type: counterfoil.ResourceMCP}
	w.registry.Agents["payroll"] = &counterfoil.Agent{Name: "payroll", Owner: "ana", Grants: []counterfoil.Grant{{Tools: []counterfoil.ToolID{{Resource: "bank", Tool: "pay"}}}}}
	w.registry.Agents["watch"] = &counterfoil.Agent{Name: "watch", Owner: "ana", Signals: &counterfoil.Signals{}}
	w.states["payroll"], w.states["watch"] = counterfoil.Active, counterfoil.Active
	w.cfg = signals.Config{
		Issuer: issuer, Log: w, Streams: w, Inbox: w,
		Registry: func() *counterfoil.Registry { w.mu.Lock(); defer w.mu.Unlock(); return w.registry },
		AgentState: func(agent string) counterfoil.AgentState {
			w.mu.Lock()
			defer w.mu.Unlock()
			return counterfoil.AgentState{Status: w.states[agent], Epoch: 1}
		},
		Signer: func(context.Context) (*credential.Signer, error) { return signer(), nil },
		Seal: func(id string, plain []byte) ([]byte, error) {
			return []byte("sealed " + id + " " + base64.StdEncoding.EncodeToString(plain)), nil
		},
		Open: func(id string, sealed []byte) ([]byte, error) {
			text, ok := strings.CutPrefix(string(sealed), "sealed "+id+" ")
			if !ok {
				return nil, errors.New("it belongs to another row")
			}
			return base64.StdEncoding.DecodeString(text)
		},
		Secret: func(file string) (counterfoil.Secret, error) { return counterfoil.NewSecret("content of " + file), nil },
		Revoke: func(_ context.Context, r counterfoil.Revocation, actor string) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.failRev != nil {
				return w.failRev
			}
			w.revoked, w.actors = append(w.revoked, r), append(w.actors, actor)
			return nil
		},
		Guard:  outbound.New([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}),
		Now:    w.clock,
		Logger: slog.New(slog.NewTextHandler(lockedWriter{w}, nil)),
	}
	w.start()
	return w
}

type lockedWriter struct{ w *world }

func (l lockedWriter) Write(b []byte) (int, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return l.w.logged.Write(b)
}

// start makes an engine upon what is kept, as a restart does.
func (w *world) start() {
	w.t.Helper()
	e, err := signals.New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Engine = e
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// declare changes the registry, as an apply does.
func (w *world) declare(change func(r *counterfoil.Registry)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := counterfoil.NewRegistry()
	for name, p := range w.registry.People {
		r.People[name] = p
	}
	for name, a := range w.registry.Agents {
		c := *a
		r.Agents[name] = &c
	}
	for name, res := range w.registry.Resources {
		r.Resources[name] = res
	}
	for name, t := range w.registry.Transmitters {
		c := *t
		r.Transmitters[name] = &c
	}
	change(r)
	w.registry = r
}

func (w *world) set(agent string, s counterfoil.Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states[agent] = s
}

func (w *world) commit(e *ledger.Entry) error {
	if w.fail != nil {
		return w.fail
	}
	e.Index, e.Time = int64(len(w.entries)), ledger.FormatTime(w.now)
	b, err := ledger.Encode(e)
	if err != nil {
		return err
	}
	w.entries = append(w.entries, b)
	close(w.grown)
	w.grown = make(chan struct{})
	return nil
}

func (w *world) Append(_ context.Context, e *ledger.Entry) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.commit(e)
}

// happen records entries and returns the index of the last.
func (w *world) happen(entries ...ledger.Entry) int64 {
	w.t.Helper()
	for i := range entries {
		if err := w.Append(w.t.Context(), &entries[i]); err != nil {
			w.t.Fatal(err)
		}
	}
	return entries[len(entries)-1].Index
}

func (w *world) Size() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int64(len(w.entries))
}

func (w *world) Wait(ctx context.Context, size int64) error {
	for {
		w.mu.Lock()
		have, grown := int64(len(w.entries)), w.grown
		w.mu.Unlock()
		if have > size {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *world) Entries(_ context.Context, from, to int64, fn func(int64, []byte) error) error {
	w.mu.Lock()
	all := slices.Clone(w.entries)
	w.mu.Unlock()
	for i := from; i < to && i < int64(len(all)); i++ {
		if err := fn(i, all[i]); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) PutStream(_ context.Context, s counterfoil.SignalStream, from *counterfoil.SignalStream, e *ledger.Entry) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, there := w.streams[s.ID]
	for _, other := range w.streams {
		if other.Agent == s.Agent && other.ID != s.ID {
			return errors.New("the agent has a stream")
		}
	}
	if there != (from != nil) {
		return errors.New("the stream is not what it was")
	}
	if err := w.commit(e); err != nil {
		return err
	}
	w.streams[s.ID] = s
	return nil
}

func (w *world) DeleteStream(_ context.Context, id string, e *ledger.Entry) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.commit(e); err != nil {
		return err
	}
	delete(w.streams, id)
	return nil
}

func (w *world) Streams(context.Context) ([]counterfoil.SignalStream, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []counterfoil.SignalStream
	for _, s := range w.streams {
		s.Acked = slices.Clone(s.Acked)
		out = append(out, s)
	}
	return out, nil
}

func (w *world) AckStream(_ context.Context, id string, cursor int64, acked []int64, e *ledger.Entry) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := w.streams[id]
	if !ok {
		return errors.New("there is no such stream")
	}
	if err := w.commit(e); err != nil {
		return err
	}
	s.Cursor, s.Acked = cursor, slices.Clone(acked)
	w.streams[id] = s
	return nil
}

func (w *world) SignalSeen(_ context.Context, transmitter, id string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.received[transmitter+"\n"+id]
	return ok, nil
}

func (w *world) ReceiveSignal(_ context.Context, transmitter, id string, until time.Time, e *ledger.Entry) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.received[transmitter+"\n"+id]; ok {
		return false, nil
	}
	if err := w.commit(e); err != nil {
		return false, err
	}
	w.received[transmitter+"\n"+id] = until
	return true, nil
}

// of returns the entries of a kind.
func (w *world) of(kind ledger.Kind) []*ledger.Entry {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []*ledger.Entry
	for _, raw := range w.entries {
		e, err := ledger.Parse(raw)
		if err != nil {
			w.t.Fatal(err)
		}
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

var watch = counterfoil.Caller{Agent: "watch", Instance: "ins_w", JKT: "jkt-w", TokenID: "tok_w", Epoch: 1}

func (w *world) create(wish signals.Wish) counterfoil.SignalStream {
	w.t.Helper()
	s, err := w.Create(w.t.Context(), watch, wish)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) poll(id string, req signals.PollRequest) signals.PollAnswer {
	w.t.Helper()
	req.ReturnImmediately = true
	a, err := w.Poll(w.t.Context(), watch, id, req)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// A told event is one as an independent receiver reads it: nothing of the product's
// verification is used.
type told struct {
	ID, Event string
	Subject   string
	Payload   map[string]any
	IssuedAt  int64
}

// readSET verifies an event as a receiver does who has our public key and the
// specifications, and nothing else of ours.
func readSET(set string, key *rsa.PublicKey, iss, aud string) (told, error) {
	parts := strings.Split(set, ".")
	if len(parts) != 3 {
		return told{}, errors.New("not three parts")
	}
	var raw [3][]byte
	for i := range parts {
		var err error
		if raw[i], err = base64.RawURLEncoding.DecodeString(parts[i]); err != nil {
			return told{}, err
		}
	}
	var header map[string]any
	if err := json.Unmarshal(raw[0], &header); err != nil {
		return told{}, err
	}
	if header["alg"] != "RS256" || header["typ"] != "secevent+jwt" {
		return told{}, fmt.Errorf("header %v", header)
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], raw[2]); err != nil {
		return told{}, err
	}
	var claims map[string]any
	if err := json.Unmarshal(raw[1], &claims); err != nil {
		return told{}, err
	}
	for _, name := range []string{"sub", "exp"} {
		if _, has := claims[name]; has {
			return told{}, fmt.Errorf("the event has %s", name)
		}
	}
	events, _ := claims["events"].(map[string]any)
	if claims["iss"] != iss || claims["aud"] != aud || len(events) != 1 {
		return told{}, fmt.Errorf("claims %v", claims)
	}
	out := told{ID: claims["jti"].(string), IssuedAt: int64(claims["iat"].(float64))}
	subject, err := json.Marshal(claims["sub_id"])
	if err != nil {
		return told{}, err
	}
	out.Subject = string(subject)
	for kind, payload := range events {
		out.Event, out.Payload = kind[strings.LastIndexByte(kind, '/')+1:], payload.(map[string]any)
	}
	return out, nil
}

func publicKey() *rsa.PublicKey { return signer().Public().Key().(*rsa.PublicKey) }

// read verifies every event of an answer, in the order of their places.
func (w *world) read(sets map[string]string) []told {
	w.t.Helper()
	var out []told
	for id, set := range sets {
		got, err := readSET(set, publicKey(), issuer, "watch")
		if err != nil {
			w.t.Fatalf("%s: %v", id, err)
		}
		if got.ID != id {
			w.t.Errorf("jti %s is listed as %s", got.ID, id)
		}
		out = append(out, got)
	}
	slices.SortFunc(out, func(a, b told) int {
		var x, y, m, n int64
		fmt.Sscanf(a.ID[strings.IndexByte(a.ID, '.')+1:], "%d.%d", &x, &m)
		fmt.Sscanf(b.ID[strings.IndexByte(b.ID, '.')+1:], "%d.%d", &y, &n)
		return int(x*1000 + m - y*1000 - n)
	})
	return out
}

func words(all []told) string {
	var out []string
	for _, e := range all {
		out = append(out, e.Event)
	}
	return strings.Join(out, " ")
}

func ids(all []told) []string {
	var out []string
	for _, e := range all {
		out = append(out, e.ID)
	}
	return out
}

func suspended(agent string) ledger.Entry {
	return ledger.Entry{Kind: ledger.AgentSuspended, Agent: agent, Owner: "ana", Actor: "uid:0", Reason: "a secret of ours"}
}

func taskClosed(id string) ledger.Entry {
	return ledger.Entry{Kind: ledger.TaskClosed, Agent: "payroll", Task: id, Detail: map[string]any{"state": "completed"}}
}

func wantCode(t *testing.T, what string, err error, code counterfoil.Code) {
	t.Helper()
	switch {
	case code == "" && err != nil:
		t.Errorf("%s: %v", what, err)
	case code != "" && (err == nil || counterfoil.CodeOf(err) != code):
		t.Errorf("%s: %v, want %s", what, err, code)
	}
}

var nowhere = netip.Addr{}
