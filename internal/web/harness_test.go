package web_test

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/internal/store"
	"github.com/counterfoil/counterfoil/internal/web"
	"github.com/counterfoil/counterfoil/ledger"
	"github.com/counterfoil/counterfoil/resource"
)

// A clock is set by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// A system is the issuer behind its real handlers, on a real store.
type system struct {
	t        *testing.T
	clock    *clock
	store    *store.Store
	auth     *authority.Authority
	keys     *authority.Keyring
	nonces   *resource.MemoryNonces
	handlers web.Handlers
	verifier *resource.Verifier
	logs     *bytes.Buffer
	metrics  *prometheus.Registry
	issuer   string
	reasons  []string
	opened   opened
}

// opened is what a store is opened with again.
type opened struct {
	path string
	opt  store.Options
}

// view adapts the store to what the web room reads of the ledger.
type view struct{ *store.Store }

func (v view) Head() (int64, string) {
	size, root := v.Store.Head()
	return size, root.String()
}

func (v view) Tile(ctx context.Context, path string) ([]byte, bool, error) {
	t, err := ledger.ParseTilePath(path)
	if err != nil {
		return nil, false, nil
	}
	size, _ := v.Store.Head()
	if (t.N<<t.H+int64(t.W))<<(t.L*t.H) > size {
		return nil, false, nil
	}
	b, err := tlog.ReadTileData(t, v.Hashes(ctx))
	return b, err == nil, err
}

func (v view) Range(ctx context.Context, from, to int64, each func([]byte) error) error {
	return v.Entries(ctx, from, to, func(_ int64, entry []byte) error { return each(entry) })
}

func (v view) Find(ctx context.Context, f web.Filter) ([]*ledger.Entry, error) {
	return v.Store.Find(ctx, store.Filter(f))
}

func (v view) Export(ctx context.Context, w io.Writer) error {
	_, err := io.WriteString(w, "export\n")
	return err
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
		t: t, clock: &clock{now: time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)},
		logs: &bytes.Buffer{}, nonces: resource.NewMemoryNonces(), metrics: prometheus.NewRegistry(),
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
		secret, public, err := ledger.GenerateKey(origin)
		if err != nil {
			s.t.Fatal(err)
		}
		signer, err := ledger.ParseSigner(secret)
		if err != nil {
			s.t.Fatal(err)
		}
		verifier, err := ledger.ParseVerifier(public)
		if err != nil {
			s.t.Fatal(err)
		}
		s.opened = opened{
			filepath.Join(s.t.TempDir(), "counterfoil.db"),
			store.Options{Now: s.clock.Now, Origin: origin, Signer: signer, Verifier: verifier},
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
	s.auth, err = authority.New(authority.Config{
		Issuer: s.issuer, Store: s.store, Keys: s.keys, Replay: resource.NewMemoryReplay(s.clock.Now), Nonces: s.nonces,
		Now: s.clock.Now, Log: log,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.verifier = &resource.Verifier{
		Issuer: s.issuer, Keys: s.keys, Replay: resource.NewMemoryReplay(s.clock.Now), Revocation: s.store, Now: s.clock.Now,
	}
	s.handlers, err = web.New(web.Config{
		Issuer: s.issuer, ManagementURL: "http://localhost:8421", Authority: s.auth, Keys: s.keys,
		Log: view{s.store}, Entries: view{s.store},
		Gateway: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/panic") {
				panic("the gateway fell over")
			}
			fmt.Fprintf(w, "gateway %s", r.URL.EscapedPath())
		}),
		Source: web.Source(nil), Ready: func() []string { return s.reasons },
		Actor: func(ctx context.Context) string { a, _ := ctx.Value(actorKey{}).(string); return a },
		Tally: web.NewTally(s.metrics), Metrics: s.metrics, Logger: log,
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

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

func newSigner(t *testing.T, alg string) *credential.Signer {
	t.Helper()
	key, err := credential.GenerateKey(alg)
	if err != nil {
		t.Fatal(err)
	}
	return signerOf(t, key)
}

func signerOf(t *testing.T, key crypto.Signer) *credential.Signer {
	t.Helper()
	signer, err := credential.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// enrol makes a key, gets a code and enrols with it.
func (s *system) enrol(agent string) agentKey {
	s.t.Helper()
	signer := newSigner(s.t, "ES256")
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
	r := httptest.NewRequest("POST", s.issuer+"/enroll", strings.NewReader(body))
	r.RequestURI, r.URL.Scheme, r.URL.Host = "/enroll", "", ""
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

// A request is a token request before it is signed and sent. Everything in it
// can be bent.
type request struct {
	method, query, contentType string
	form                       url.Values
	header                     http.Header
	body                       string // instead of the form
	remote                     string

	assertion, proof jwt
	proofs           []string // instead of the one proof

	late []func(*request) // after signing
}

// A jwt is a token to be: maps for what is bent by member, raw texts for the
// rest.
type jwt struct {
	header, claims       map[string]any
	rawHeader, rawClaims string
	signer               *credential.Signer
	sign                 func(input []byte) []byte // instead of the signer
	text                 string                    // instead of all
}

func (j *jwt) compact(t *testing.T) string {
	t.Helper()
	if j.text != "" {
		return j.text
	}
	part := func(raw string, m map[string]any) string {
		if raw == "" {
			b, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			raw = string(b)
		}
		return base64.RawURLEncoding.EncodeToString([]byte(raw))
	}
	input := part(j.rawHeader, j.header) + "." + part(j.rawClaims, j.claims)
	var sig []byte
	if j.sign != nil {
		sig = j.sign([]byte(input))
	} else {
		var err error
		if sig, err = j.signer.Sign([]byte(input)); err != nil {
			t.Fatal(err)
		}
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// request makes a good token request for the bank.
func (s *system) request(k agentKey) *request {
	now := s.clock.Now().Unix()
	var jwk map[string]any
	if err := json.Unmarshal(k.signer.Public().JWK(), &jwk); err != nil {
		s.t.Fatal(err)
	}
	return &request{
		method: "POST", contentType: "application/x-www-form-urlencoded", header: http.Header{}, remote: "192.0.2.1:1234",
		form: url.Values{
			"grant_type":            {"client_credentials"},
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
			"resource":              {s.issuer + "/r/bank"},
		},
		assertion: jwt{
			header: map[string]any{"alg": k.signer.Public().Alg(), "typ": "client-authentication+jwt", "kid": k.signer.Public().Thumbprint()},
			claims: map[string]any{
				"iss": k.agent, "sub": k.agent, "aud": s.issuer, "jti": counterfoil.NewID(""), "iat": now, "exp": now + 60,
			},
			signer: k.signer,
		},
		proof: jwt{
			header: map[string]any{"alg": k.signer.Public().Alg(), "typ": "dpop+jwt", "jwk": jwk},
			claims: map[string]any{"htm": "POST", "htu": s.issuer + "/oauth/token", "jti": counterfoil.NewID(""), "iat": now},
			signer: k.signer,
		},
	}
}

// send signs and sends a request.
func (s *system) send(q *request) answer {
	s.t.Helper()
	return serve(s.handlers.Public, s.finish(q))
}

func (s *system) finish(q *request) *http.Request {
	s.t.Helper()
	if !q.form.Has("client_assertion") {
		q.form.Set("client_assertion", q.assertion.compact(s.t))
	}
	if q.proofs == nil {
		q.proofs = []string{q.proof.compact(s.t)}
	}
	for _, edit := range q.late {
		edit(q)
	}
	body := q.body
	if body == "" {
		body = q.form.Encode()
	}
	r := httptest.NewRequest(q.method, "/oauth/token"+q.query, strings.NewReader(body))
	r.RemoteAddr = q.remote
	if q.contentType != "" {
		r.Header.Set("Content-Type", q.contentType)
	}
	for name, values := range q.header {
		r.Header[name] = values
	}
	for _, p := range q.proofs {
		r.Header.Add("DPoP", p)
	}
	return r
}

// entries returns what the log has of one kind, oldest first.
func (s *system) entries(kind ledger.Kind) []*ledger.Entry {
	s.t.Helper()
	var out []*ledger.Entry
	size, _ := s.store.Head()
	err := s.store.Entries(s.t.Context(), 0, size, func(_ int64, b []byte) error {
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

var _ = netip.Addr{}
