package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/resource"
)

// A world is an issuer and, behind the real verifier, a resource, on one real
// listener. Its knobs are set before the first request or are atomic.
type world struct {
	t        *testing.T
	srv      *httptest.Server
	issuer   string
	resource string
	signing  *credential.Signer // the issuer's
	key      *credential.Signer // the agent's
	upstream http.Handler
	verifier *resource.Verifier
	asNonces *resource.MemoryNonces
	now      func() time.Time

	metadata   func(map[string]any) // changes the metadata
	tokenType  string
	life       int64
	onToken    func(w http.ResponseWriter, r *http.Request) bool // true: answered
	onRequest  func(w http.ResponseWriter, r *http.Request) bool
	onLook     http.HandlerFunc // serves the status of approvals
	office     *office          // serves tasks, rotations and leaks; nil: nothing
	tokens     atomic.Int64     // tokens issued
	asks       atomic.Int64     // requests to the token endpoint
	discovered atomic.Int64
	requests   atomic.Int64 // requests to the resource

	mu      sync.Mutex
	keys    map[string]credential.PublicKey // that are taken beside the agent's, by thumbprint
	tasked  []string                        // the task of each token request that was answered with a token
	revoked map[string]counterfoil.Code     // by token id
	seen    map[string]bool                 // ids of assertions and of proofs at the issuer
	log     bytes.Buffer                    // what the agent's side logged
}

type oneKey struct{ credential.PublicKey }

func (k oneKey) Key(_ context.Context, kid string) (credential.PublicKey, error) {
	if kid != k.Thumbprint() {
		return credential.PublicKey{}, counterfoil.Refuse(counterfoil.TokenMalformed, "unknown key")
	}
	return k.PublicKey, nil
}

func newWorld(t *testing.T, upstream http.Handler) *world {
	t.Helper()
	w := &world{
		t: t, upstream: upstream, now: time.Now, tokenType: "DPoP", life: 300,
		signing: testkit.Signer(t, credential.ES256), key: testkit.Signer(t, credential.Ed25519),
		keys: map[string]credential.PublicKey{}, revoked: map[string]counterfoil.Code{}, seen: map[string]bool{},
	}
	if w.upstream == nil {
		w.upstream = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(rw, "%s %s %s", r.Method, r.URL, body)
		})
	}
	w.srv = httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.srv.Close)
	w.issuer = w.srv.URL + "/id"
	w.resource = w.srv.URL + "/r/bank"
	w.verifier = &resource.Verifier{
		Issuer: w.issuer, Keys: oneKey{w.signing.Public()}, Replay: resource.NewMemoryReplay(w.now), Revocation: w,
		Now: func() time.Time { return w.now() }, Log: slog.New(slog.DiscardHandler),
	}
	return w
}

func (w *world) config() agent.Config {
	return agent.Config{
		Issuer: w.issuer, Agent: "payroll", Signer: w.key, Resource: w.resource,
		HTTP: w.srv.Client(), Now: func() time.Time { return w.now() },
	}
}

func (w *world) transport() *agent.Transport {
	w.t.Helper()
	t, err := agent.NewTransport(w.config())
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

// logger keeps what is logged, for looking at it afterwards.
func (w *world) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.log.Write(b)
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// Revoked makes w a resource.Revocation.
func (w *world) Revoked(_ context.Context, c counterfoil.Caller) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if code := w.revoked[c.TokenID]; code != "" {
		return counterfoil.Refuse(code, "revoked by the test")
	}
	if w.taken(c.JKT).IsZero() {
		return counterfoil.Refuse(counterfoil.TokenRevoked, "the key is taken no more")
	}
	return w.taskOpen(c.Task)
}

// taken returns a key that is taken. w.mu is held.
func (w *world) taken(jkt string) credential.PublicKey {
	if key := w.key.Public(); key.Thumbprint() == jkt {
		return key
	}
	return w.keys[jkt]
}

// taskOpen refuses what is for a task that is not open. w.mu is held.
func (w *world) taskOpen(id string) error {
	if id == "" || w.office != nil && w.office.tasks[id].State == counterfoil.TaskOpen {
		return nil
	}
	return counterfoil.Refuse(counterfoil.TaskClosed, "the task is over")
}

func (w *world) revoke(id string, code counterfoil.Code) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.revoked[id] = code
}

// once reports whether an id is new.
func (w *world) once(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen[id] {
		return false
	}
	w.seen[id] = true
	return true
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path; {
	case path == "/.well-known/oauth-authorization-server/id":
		w.discovered.Add(1)
		m := map[string]any{
			"issuer": w.issuer, "token_endpoint": w.issuer + "/oauth/token",
			"token_endpoint_auth_methods_supported": []string{"private_key_jwt"},
			"dpop_signing_alg_values_supported":     credential.Algorithms(),
			"counterfoil_enrolment_endpoint":        w.issuer + "/enroll",
		}
		if w.metadata != nil {
			w.metadata(m)
		}
		writeJSON(rw, 200, m)
	case path == "/id/oauth/token":
		w.asks.Add(1)
		w.token(rw, r)
	case path == "/id/enroll":
		w.enroll(rw, r)
	case strings.HasPrefix(path, "/r/bank"):
		w.requests.Add(1)
		if w.onRequest != nil && w.onRequest(rw, r) {
			return
		}
		w.verifier.Middleware(w.resource, w.upstream).ServeHTTP(rw, r)
	case strings.HasPrefix(path, "/id/approvals/") && w.onLook != nil:
		w.onLook(rw, r)
	case w.office != nil:
		w.office.serve(rw, r)
	default:
		http.NotFound(rw, r)
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, _ := json.Marshal(v)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

func refuseToken(w http.ResponseWriter, status int, name string, code counterfoil.Code, detail string) {
	writeJSON(w, status, map[string]any{"error": name, "error_description": detail, "code": code, "request_id": "req_1"})
}

// token checks what a real issuer checks of assertion and proof.
func (w *world) token(rw http.ResponseWriter, r *http.Request) {
	if w.onToken != nil && w.onToken(rw, r) {
		return
	}
	now := w.now()
	proof, err := w.proof(r, w.issuer+"/oauth/token", now)
	if err != nil {
		refuseToken(rw, 400, "invalid_dpop_proof", counterfoil.CodeOf(err), err.Error())
		return
	}
	if w.asNonces != nil && !w.asNonces.Check(proof.Nonce, now) {
		rw.Header().Set("DPoP-Nonce", w.asNonces.Mint(now))
		refuseToken(rw, 400, "use_dpop_nonce", counterfoil.NonceRequired, "a nonce is needed")
		return
	}
	unverified, err := credential.ParseAssertion(r.PostFormValue("client_assertion"))
	var a credential.Assertion
	if err == nil {
		w.mu.Lock()
		key := w.taken(proof.JKT)
		w.mu.Unlock()
		if key.IsZero() {
			refuseToken(rw, 401, "invalid_client", counterfoil.ClientRefused, "unknown agent, key or signature")
			return
		}
		a, err = unverified.Check(key, w.issuer, now)
	}
	if err == nil && !w.once("assertion "+a.ID) {
		err = counterfoil.Refuse(counterfoil.AssertionReplayed, "again")
	}
	if err != nil {
		refuseToken(rw, 401, "invalid_client", counterfoil.CodeOf(err), err.Error())
		return
	}
	target := r.PostFormValue("resource")
	if target != w.resource && (target != w.issuer || w.office == nil) || r.PostFormValue("grant_type") != "client_credentials" {
		refuseToken(rw, 400, "invalid_target", counterfoil.TargetInvalid, "which resource?")
		return
	}
	var task *credential.TaskClaim
	if id := r.PostFormValue("task"); id != "" {
		w.mu.Lock()
		err := w.taskOpen(id)
		w.mu.Unlock()
		if err != nil {
			refuseToken(rw, 400, "invalid_grant", counterfoil.TaskClosed, "the task is over, says the issuer")
			return
		}
		task = &credential.TaskClaim{ID: id, Expires: now.Add(time.Hour)}
	}
	w.mu.Lock()
	w.tasked = append(w.tasked, r.PostFormValue("task"))
	w.mu.Unlock()
	n := w.tokens.Add(1)
	token, err := credential.SignToken(w.signing, credential.TokenClaims{
		Issuer: w.issuer, Audience: target, Task: task, Subject: a.Agent, ClientID: a.Agent, ID: fmt.Sprintf("tok_%d", n),
		IssuedAt: now, NotBefore: now, Expires: now.Add(time.Duration(w.life) * time.Second),
		Scope: []string{"pay"}, JKT: proof.JKT, SubProfile: credential.SubProfileAgent,
		Agent: credential.AgentClaim{ID: a.Agent, Instance: "ins_1", Env: "prod", Epoch: 1},
	})
	if err != nil {
		w.t.Error(err)
	}
	writeJSON(rw, 200, map[string]any{"access_token": token, "token_type": w.tokenType, "expires_in": w.life, "scope": "pay"})
}

// proof checks the proof of a request to the issuer, its single use included.
func (w *world) proof(r *http.Request, url string, now time.Time) (credential.Proof, error) {
	unverified, err := credential.ParseProof(r.Header.Values("DPoP"))
	if err != nil {
		return credential.Proof{}, err
	}
	p, err := unverified.Check(credential.ProofRequest{Method: r.Method, URL: url}, now)
	if err == nil && !w.once("proof "+p.Hash) {
		err = counterfoil.Refuse(counterfoil.ProofReplayed, "again")
	}
	return p, err
}

func (w *world) enroll(rw http.ResponseWriter, r *http.Request) {
	p, err := w.proof(r, w.issuer+"/enroll", w.now())
	var body struct {
		Agent string `json:"agent"`
		Code  string `json:"code"`
	}
	if err == nil {
		err = json.UnmarshalRead(r.Body, &body, json.RejectUnknownMembers(true))
	}
	if err == nil && body.Code != "cfe_good" {
		err = counterfoil.Refuse(counterfoil.EnrolmentRefused, "the code is not good")
	}
	if err != nil {
		writeJSON(rw, 400, map[string]any{"code": counterfoil.CodeOf(err), "detail": err.Error(), "request_id": "req_2"})
		return
	}
	writeJSON(rw, 201, map[string]any{"agent": body.Agent, "instance": "ins_7", "jkt": p.JKT})
}

// get sends a request through rt and returns status and body.
func do(t *testing.T, c *http.Client, method, url, body string, header ...string) (int, string, http.Header) {
	t.Helper()
	status, text, h, err := try(t, c, method, url, body, header...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return status, text, h
}

func try(t *testing.T, c *http.Client, method, url, body string, header ...string) (int, string, http.Header, error) {
	t.Helper()
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, rd)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, "", nil, err
	}
	return resp.StatusCode, string(b), resp.Header, nil
}

func wantCode(t *testing.T, err error, code counterfoil.Code) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s", code)
	}
	if got := counterfoil.CodeOf(err); got != code {
		t.Fatalf("code %s, want %s: %v", got, code, err)
	}
}
