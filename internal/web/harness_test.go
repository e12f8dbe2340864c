package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/note"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/approval"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/internal/store"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/internal/web"
	"github.com/counterfoil/counterfoil/ledger"
	"github.com/counterfoil/counterfoil/resource"
)

// A system is the issuer behind its real handlers, on a real store.
type system struct {
	t        *testing.T
	clock    *testkit.Clock
	store    *store.Store
	auth     *authority.Authority
	engine   *approval.Engine
	keys     *authority.Keyring
	nonces   *resource.MemoryNonces
	handlers web.Handlers
	verifier *resource.Verifier
	logs     *bytes.Buffer
	metrics  *prometheus.Registry
	issuer   string
	manage   string // the management URL
	dev      bool
	reasons  []string
	draining context.Context
	backup   func(context.Context, io.Writer) error
	opened   opened
	kept     string // see oneToken
	asked    int    // approvals
}

// opened is what a store is opened with again.
type opened struct {
	path string
	opt  store.Options
}

// view adapts the store to what the web room reads of the ledger.
type view struct {
	*store.Store
	verifier note.Verifier
}

func (v view) Head() (int64, string) {
	size, root := v.Store.Head()
	return size, root.String()
}

func (v view) Tile(ctx context.Context, path string) ([]byte, bool, error) {
	t, err := ledger.ParseTilePath(path)
	if err != nil {
		return nil, false, nil
	}
	b, err := v.ReadTile(ctx, t)
	if errors.Is(err, store.ErrNoEntry) {
		return nil, false, nil
	}
	return b, err == nil, err
}

func (v view) Range(ctx context.Context, from, to int64, each func([]byte) error) error {
	return v.Entries(ctx, from, to, func(_ int64, entry []byte) error { return each(entry) })
}

func (v view) Export(ctx context.Context, w io.Writer) error {
	note, err := v.Checkpoint(ctx)
	if err != nil {
		return err
	}
	c, err := ledger.OpenCheckpoint(note, v.verifier)
	if err != nil {
		return err
	}
	return ledger.WriteExport(w, c, func(put func([]byte) error) error { return v.Range(ctx, 0, c.Size, put) })
}

const world = `
kind: Person
name: ana
groups: [finance]
---
{kind: Person, name: bo, groups: [finance]}
---
{kind: Person, name: cy, groups: [finance]}
---
{kind: Class, name: read, tier: routine}
---
{kind: Class, name: payout, tier: irreversible, approvers: [finance]}
---
kind: Resource
name: bank
type: mcp
environment: prod
upstream: http://127.0.0.1:1/mcp
binding: require
tools:
  - {name: get_balance, class: read}
  - {name: list_payees, class: read}
  - {name: pay, class: payout}
---
kind: Resource
name: crm
type: http
environment: prod
upstream: http://127.0.0.1:1
tools:
  - {name: get_customer, method: GET, path: "/customers/{id}", class: read}
---
kind: Resource
name: vault
type: direct
public_url: https://vault.example/api
environment: prod
tools:
  - {name: look, class: read}
  - {name: empty, class: payout}
---
kind: Resource
name: lab
type: mcp
environment: dev
upstream: http://127.0.0.1:1/mcp
tools: [{name: play, class: read}]
---
kind: Resource
name: empty
type: mcp
environment: prod
upstream: http://127.0.0.1:1/mcp
tools: [{name: nothing, class: read}]
---
kind: Agent
name: payroll
owner: ana
environment: prod
grants:
  - tools: [bank/get_balance, bank/pay, crm/get_customer, vault/look, vault/empty]
---
kind: Agent
name: other
owner: ana
environment: prod
grants: [{tools: [bank/get_balance]}]
---
kind: Agent
name: free
owner: ana
environment: prod
proof_keys: any
grants: [{tools: [bank/get_balance]}]
---
kind: Agent
name: tasked
owner: ana
environment: prod
tasks: {required: true}
grants: [{tools: [bank/get_balance]}]
---
kind: Agent
name: gardener
owner: ana
environment: dev
grants: [{tools: [lab/play]}, {tools: [bank/get_balance]}]
`

func newSystem(t *testing.T, edit ...func(*system)) *system {
	t.Helper()
	s := &system{
		t: t, clock: testkit.NewClock(time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)),
		manage: "http://localhost:8421", dev: true, logs: &bytes.Buffer{}, nonces: resource.NewMemoryNonces(), metrics: prometheus.NewRegistry(),
	}
	for _, e := range edit {
		e(s)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.handlers.Public.ServeHTTP(w, r) }))
	s.issuer = "http://" + server.Listener.Addr().String()
	s.openStore()
	s.build()
	server.Start()
	t.Cleanup(server.Close)
	s.apply(world)
	return s
}

func (s *system) openStore() {
	s.t.Helper()
	if s.opened.path == "" {
		const origin = "counterfoil.test/ledger"
		signer, verifier := testkit.LogKey(s.t, origin)
		s.opened = opened{
			filepath.Join(s.t.TempDir(), "counterfoil.db"),
			store.Options{Now: s.clock.Now, Issuer: s.issuer, Origin: origin, Signer: signer, Verifier: verifier, Begin: true},
		}
	}
	var err error
	s.store, err = store.Open(s.t.Context(), "sqlite:"+s.opened.path, s.opened.opt)
	if err != nil {
		s.t.Fatal(err)
	}
	opened := s.store
	s.t.Cleanup(func() { opened.Close() })
}

// ofLog is what is revoked, with the log that it is of.
type ofLog struct {
	*store.Store
	origin string
}

func (f ofLog) Origin() string { return f.origin }

func (f ofLog) RevocationFeed(ctx context.Context, after int64) (counterfoil.RevocationFeed, error) {
	feed, err := f.Store.RevocationFeed(ctx, after)
	feed.Log = f.origin
	return feed, err
}

var testKEK = bytes.Repeat([]byte{7}, 32)

// build makes everything above the store, as a start does.
func (s *system) build() {
	s.t.Helper()
	log := slog.New(slog.NewTextHandler(&lockedWriter{w: s.logs}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	s.keys, err = authority.NewKeyring(s.t.Context(), authority.KeyringConfig{Store: s.store, KEK: testKEK, Now: s.clock.Now, Log: log})
	if err != nil {
		s.t.Fatal(err)
	}
	s.engine, err = approval.New(approval.Config{Store: s.store, Issuer: s.issuer, Origin: s.manage, Now: s.clock.Now, Log: log})
	if err != nil {
		s.t.Fatal(err)
	}
	s.verifier = &resource.Verifier{
		Issuer: s.issuer, Keys: s.keys, Replay: resource.NewMemoryReplay(s.clock.Now), Revocation: s.store, Nonces: s.nonces, Now: s.clock.Now,
	}
	s.auth, err = authority.New(authority.Config{
		Issuer: s.issuer, Store: s.store, Keys: s.keys, Replay: resource.NewMemoryReplay(s.clock.Now), Nonces: s.nonces,
		Tokens: s.verifier, Revocation: s.store, Changes: s.engine, Changed: s.engine.Changes(), Now: s.clock.Now, Log: log,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	books := view{s.store, s.opened.opt.Verifier}
	s.handlers, err = web.New(web.Config{
		Issuer: s.issuer, ManagementURL: s.manage, Authority: s.auth, Keys: s.keys, Approvals: s.engine, Passkeys: s.store,
		Verifier: s.verifier, Recorder: s.store, Revocations: ofLog{s.store, s.opened.opt.Origin}, Draining: s.draining, Now: s.clock.Now, Dev: s.dev,
		Log: books, Entries: books,
		Gateway: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/panic") {
				panic("the gateway fell over")
			}
			fmt.Fprintf(w, "gateway %s", r.URL.EscapedPath())
		}),
		Backup: s.backup,
		Source: web.Source(nil), Behind: web.Behind(nil), Ready: func() []string { return s.reasons },
		Actor: func(ctx context.Context) string { a, _ := ctx.Value(actorKey{}).(string); return a },
		Tally: web.NewTally(s.metrics), Metrics: s.metrics, Logger: log,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	host, _, _ := strings.Cut(strings.TrimPrefix(s.issuer, "http://"), "/")
	s.handlers.Public = named(s.handlers.Public, host)
	_, own, _ := strings.Cut(s.manage, "://")
	s.handlers.Management = named(s.handlers.Management, own)
}

// named gives requests that httptest made the Host of an honest one.
func named(h http.Handler, host string) http.Handler { return namedHandler{h, host} }

type namedHandler struct {
	http.Handler
	host string
}

func (n namedHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Host == "example.com" {
		r.Host = n.host
	}
	n.Handler.ServeHTTP(w, r)
}

// unnamed is the handler that named was given.
func unnamed(h http.Handler) http.Handler { return h.(namedHandler).Handler }

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

type actorKey struct{}

// An answer is what a request got.
type answer struct {
	status int
	header http.Header
	body   string
}

// member returns a member of the JSON body as text; empty when it has none.
func (a answer) member(name string) string {
	var m map[string]any
	if json.Unmarshal([]byte(a.body), &m) != nil || m[name] == nil {
		return ""
	}
	return fmt.Sprint(m[name])
}

func serve(h http.Handler, r *http.Request) answer {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{w.Code, w.Result().Header, w.Body.String()}
}

// admin asks the administration socket.
func (s *system) admin(method, path string, body any) answer {
	s.t.Helper()
	var r *http.Request
	if body == nil {
		r = httptest.NewRequest(method, path, nil)
	} else {
		b, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		r = httptest.NewRequest(method, path, bytes.NewReader(b))
		r.Header.Set("Content-Type", "application/json")
	}
	return serve(s.handlers.Admin, r.WithContext(context.WithValue(r.Context(), actorKey{}, "uid:0")))
}

func (s *system) apply(yaml string) answer {
	s.t.Helper()
	a := s.admin("POST", "/api/v1/apply", map[string]any{"files": []map[string]string{{"name": "world.yaml", "data": yaml}}})
	if a.status != 200 {
		s.t.Fatalf("apply: %d %s", a.status, a.body)
	}
	return a
}

// An agentKey is an enrolled instance with its key.
type agentKey struct {
	agent, instance string
	signer          *credential.Signer
}

// enrol makes a key, gets a code and enrols with it.
func (s *system) enrol(agent string) agentKey {
	s.t.Helper()
	signer := testkit.Signer(s.t, "ES256")
	a := s.enrolWith(signer, agent, s.code(agent))
	if a.status != 201 {
		s.t.Fatalf("enrol %s: %d %s", agent, a.status, a.body)
	}
	return agentKey{agent, a.member("instance"), signer}
}

func (s *system) code(agent string) string {
	s.t.Helper()
	a := s.admin("POST", "/api/v1/agents/"+agent+"/enroll-code", nil)
	if a.status != 200 {
		s.t.Fatalf("enrol code for %s: %d %s", agent, a.status, a.body)
	}
	return a.member("code")
}

func (s *system) enrolWith(signer *credential.Signer, agent, code string) answer {
	s.t.Helper()
	proof, err := credential.SignProof(signer, "POST", s.issuer+"/enroll", "", "", s.clock.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	body, err := json.Marshal(map[string]string{"agent": agent, "code": code})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.enrolRaw(string(body), proof)
}

func (s *system) enrolRaw(body string, proofs ...string) answer {
	_, path, _ := strings.Cut(strings.TrimPrefix(s.issuer, "http://"), "/")
	if path != "" {
		path = "/" + path
	}
	r := httptest.NewRequest("POST", path+"/enroll", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for _, p := range proofs {
		r.Header.Add("DPoP", p)
	}
	return serve(s.handlers.Public, r)
}

// get asks the public listener.
func (s *system) get(path string) answer {
	return serve(s.handlers.Public, httptest.NewRequest("GET", path, nil))
}

// reopen starts again on the same database.
func (s *system) reopen() {
	s.t.Helper()
	s.metrics = prometheus.NewRegistry()
	s.openStore()
	s.build()
}

func newRegistry() *prometheus.Registry { return prometheus.NewRegistry() }

// entries returns what the log has of one kind, oldest first.
func (s *system) entries(kind ledger.Kind) []*ledger.Entry { return s.since(0, kind) }

// since is entries from an index on.
func (s *system) since(from int64, kind ledger.Kind) []*ledger.Entry {
	s.t.Helper()
	var out []*ledger.Entry
	size, _ := s.store.Head()
	err := s.store.Entries(s.t.Context(), from, size, func(_ int64, b []byte) error {
		e, err := ledger.Parse(b)
		if err != nil {
			return err
		}
		if kind == "" || e.Kind == kind {
			out = append(out, e)
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// verify checks a token as a resource server does.
func (s *system) verify(k agentKey, token, resourceName string) (counterfoil.Caller, error) {
	s.t.Helper()
	target := s.issuer + "/r/" + resourceName
	proof, err := credential.SignProof(k.signer, "POST", target, "", token, s.clock.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	return s.verifier.Check(s.t.Context(), resource.Request{
		Method: "POST", URL: target, Resource: target,
		Header: http.Header{"Authorization": {"DPoP " + token}, "Dpop": {proof}},
	})
}

// token gets a token for the bank.
func (s *system) token(k agentKey, edits ...func(*request)) answer {
	s.t.Helper()
	q := s.request(k)
	for _, e := range edits {
		e(q)
	}
	return s.send(q)
}

func wantStatus(t *testing.T, a answer, status int, oauth string, code counterfoil.Code) {
	t.Helper()
	if a.status != status || a.member("error") != oauth || a.member("code") != string(code) {
		t.Errorf("got %d %s, want %d %s %s", a.status, a.body, status, oauth, code)
	}
	if a.status != http.StatusOK && a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("a refusal may be cached: %q", a.header.Get("Cache-Control"))
	}
}
