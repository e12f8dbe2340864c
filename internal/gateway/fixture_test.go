package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/mod/sumdb/note"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/custody"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/internal/policy"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/ledger"
	"github.com/counterfoil/counterfoil/resource"
)

const (
	issuer = "https://issuer.example"

	rev2026 = "2026-07-28"
	rev2025 = "2025-11-25"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// An upstream is a server of the test's own that remembers what reached it.
type upstream struct {
	mu   sync.Mutex
	got  []received
	next http.Handler
	own  http.Handler // in place of next and of remembering; nil: none
}

type received struct {
	method string
	header http.Header
	body   string
	target string
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	own := u.own
	u.mu.Unlock()
	if own != nil {
		own.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	u.mu.Lock()
	u.got = append(u.got, received{r.Method, r.Header.Clone(), string(body), r.RequestURI})
	next := u.next
	u.mu.Unlock()
	next.ServeHTTP(w, r)
}

// raw replaces what answers, which gets the body as it comes.
func (u *upstream) raw(h http.Handler) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.own = h
}

// handle replaces what answers.
func (u *upstream) handle(h http.Handler) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.next = h
}

// calls returns the requests whose body holds the text.
func (u *upstream) calls(text string) []received {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []received
	for _, r := range u.got {
		if strings.Contains(r.body, text) {
			out = append(out, r)
		}
	}
	return out
}

func (u *upstream) all() []received {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]received(nil), u.got...)
}

// A world is a gateway with all that is around it.
type world struct {
	t        testing.TB
	clock    *testkit.Clock
	log      *log
	verifier note.Verifier // of the log
	upstream *upstream
	url      string // of the gateway's server
	base     string // the path of its public URL
	gateway  *gateway.Gateway
	registry *counterfoil.Registry
	policy   *policy.Set
	issuer   *credential.Signer
	client   *http.Client
	early    map[counterfoil.Code]int // refused before authentication
	mu       sync.Mutex
	tokens   int
}

// An actor is an agent with its key.
type actor struct {
	w      *world
	name   string
	task   string
	signer *credential.Signer
	scope  []string

	instance string
	epoch    int64
	sent     string // id of its last token; guarded by w.mu
}

type keys map[string]credential.PublicKey

func (k keys) Key(_ context.Context, kid string) (credential.PublicKey, error) {
	if key, ok := k[kid]; ok {
		return key, nil
	}
	return credential.PublicKey{}, counterfoil.Refuse(counterfoil.TokenMalformed, "the key %.64q is unknown", kid)
}

// secrets gives out what is in files.
type secrets func(file string) (counterfoil.Secret, error)

func (s secrets) Release(_ context.Context, res *counterfoil.Resource) (custody.Released, error) {
	if res.Credential == nil {
		return custody.Released{}, nil
	}
	secret, err := s(res.Credential.File)
	return custody.Released{Secret: secret, From: "file " + res.Credential.File, Mask: custody.NewMask(secret)}, err
}

func (secrets) Refused(*counterfoil.Resource, custody.Released) {}

func bankRegistry(upstreamURL string) *counterfoil.Registry {
	reg := counterfoil.NewRegistry()
	reg.People["ana"] = &counterfoil.Person{Name: "ana"}
	reg.Classes["read"] = &counterfoil.Class{Name: "read", Tier: counterfoil.Routine}
	reg.Classes["payout"] = &counterfoil.Class{Name: "payout", Tier: counterfoil.Irreversible, Approvers: [][]string{{"finance"}}}
	reg.Classes["never"] = &counterfoil.Class{Name: "never", Tier: counterfoil.Forbidden}
	reg.Resources["bank"] = &counterfoil.Resource{
		Name: "bank", Type: counterfoil.ResourceMCP, Environment: "prod", Upstream: upstreamURL, Binding: counterfoil.BindingRequire,
		Resources: "read", Prompts: "read",
		Tools: []counterfoil.Tool{
			{Name: "get_balance", Class: "read"}, {Name: "list_payees", Class: "read"}, {Name: "count", Class: "read"},
			{Name: "region", Class: "read"}, {Name: "typed", Class: "read"}, {Name: "pay", Class: "payout"}, {Name: "wipe", Class: "never"},
		},
	}
	reg.Resources["crm"] = &counterfoil.Resource{
		Name: "crm", Type: counterfoil.ResourceHTTP, Environment: "prod", Upstream: upstreamURL, Binding: counterfoil.BindingRequire,
	}
	tool := func(names ...string) (out []counterfoil.ToolID) {
		for _, n := range names {
			out = append(out, counterfoil.ToolID{Resource: "bank", Tool: n})
		}
		return out
	}
	all := tool("get_balance", "count", "region", "typed", "pay", "wipe", "resources", "prompts")
	reg.Agents["payroll"] = &counterfoil.Agent{
		Name: "payroll", Owner: "ana", Environment: "prod",
		Grants: []counterfoil.Grant{{Tools: all, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}},
	}
	reg.Agents["other"] = &counterfoil.Agent{Name: "other", Owner: "ana", Environment: "prod", Grants: []counterfoil.Grant{{Tools: tool("get_balance")}}}
	return reg
}

// newWorld makes a gateway in front of h, with a registry that change changed.
func newWorld(t testing.TB, h http.Handler, change func(*counterfoil.Registry, *gateway.Config)) *world {
	t.Helper()
	w := &world{
		t: t, clock: testkit.NewClock(start), upstream: &upstream{next: h}, issuer: testkit.Signer(t, credential.ES256),
		client: &http.Client{Transport: &http.Transport{}}, early: map[counterfoil.Code]int{},
	}
	up := httptest.NewServer(w.upstream)
	t.Cleanup(up.Close)
	w.registry = bankRegistry(up.URL + "/mcp")

	front := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.gateway.ServeHTTP(rw, r) }))
	w.url = "http://" + front.Listener.Addr().String()
	w.log, w.verifier = openLog(t, w.clock.Now, w.url)
	pub := w.issuer.Public()
	cfg := gateway.Config{
		PublicURL: w.url,
		Verifier: &resource.Verifier{
			Issuer: issuer, Keys: keys{pub.Thumbprint(): pub}, Replay: resource.NewMemoryReplay(w.clock.Now), Revocation: w.log, Now: w.clock.Now,
		},
		Recorder: w.log, Revocation: w.log, Pins: w.log, Tasks: w.log,
		Policy: func() (*policy.Set, *counterfoil.Registry) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.policy, w.registry
		},
		Credentials: secrets(func(string) (counterfoil.Secret, error) { return counterfoil.Secret{}, errors.New("no such file") }),
		Source: func(r *http.Request) netip.Addr {
			ap, err := netip.ParseAddrPort(r.RemoteAddr)
			if err != nil {
				return netip.Addr{}
			}
			return ap.Addr().Unmap()
		},
		SessionKey: bytes.Repeat([]byte{7}, 32),
		Unauthenticated: func(code counterfoil.Code) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.early[code]++
		},
		Now: w.clock.Now,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(w.registry, &cfg)
	}
	w.base = strings.TrimPrefix(cfg.PublicURL, w.url)
	w.log.apply(w.registry)
	set, problems := policy.Load(w.registry)
	if len(problems) > 0 {
		t.Fatalf("loading the policy: %v", problems)
	}
	w.policy = set
	g, err := gateway.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.gateway = g
	front.Start()
	t.Cleanup(front.Close)
	t.Cleanup(g.Drain)
	t.Cleanup(w.client.CloseIdleConnections)
	return w
}

// apply replaces the registry by a changed copy, and the policy with it.
func (w *world) apply(change func(*counterfoil.Registry)) {
	w.t.Helper()
	next := counterfoil.NewRegistry()
	maps.Copy(next.People, w.registry.People)
	maps.Copy(next.Classes, w.registry.Classes)
	maps.Copy(next.Resources, w.registry.Resources)
	maps.Copy(next.Agents, w.registry.Agents)
	maps.Copy(next.Policies, w.registry.Policies)
	change(next)
	set, problems := policy.Load(next)
	if len(problems) > 0 {
		w.t.Fatalf("loading the policy: %v", problems)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.registry, w.policy = next, set
}

func (w *world) resource() string { return w.url + w.base + "/r/bank" }

// actor makes an instance of an agent, with a key of its own.
func (w *world) actor(name string) *actor {
	w.t.Helper()
	a := &actor{w: w, name: name, signer: testkit.Signer(w.t, credential.ES256), epoch: w.log.AgentState(name).Epoch, scope: []string{
		"get_balance", "list_payees", "count", "region", "typed", "pay", "wipe", "resources", "prompts",
	}}
	a.instance = w.log.enrol(name, a.signer.Public())
	return a
}

// begin opens a task of the actor's, which its tokens are for from here on.
func (a *actor) begin(change func(*counterfoil.Task)) string {
	a.w.t.Helper()
	now := a.w.clock.Now()
	task := counterfoil.Task{
		ID: counterfoil.NewID("tsk_"), Agent: a.name, Opener: a.name, Instance: a.instance, Purpose: "what is to be done", Opened: now, Deadline: now.Add(time.Hour),
	}
	if change != nil {
		change(&task)
	}
	live := counterfoil.Live{Agent: a.name, Instance: a.instance, Epoch: a.epoch}
	if err := a.w.log.OpenTask(a.w.t.Context(), task, live, &ledger.Entry{Kind: ledger.TaskOpened, Agent: a.name, Task: task.ID}); err != nil {
		a.w.t.Fatal(err)
	}
	a.task = task.ID
	return task.ID
}

// close ends a task.
func (w *world) close(task string) {
	if _, err := w.log.CloseTask(context.WithoutCancel(w.t.Context()), task, counterfoil.TaskCompleted, "done", &ledger.Entry{Kind: ledger.TaskClosed, Task: task}); err != nil {
		w.t.Error(err)
	}
}

func (a *actor) token(change func(*credential.TokenClaims)) string {
	a.w.t.Helper()
	a.w.mu.Lock()
	a.w.tokens++
	id := fmt.Sprintf("tok_%d", a.w.tokens)
	a.sent = id
	a.w.mu.Unlock()
	now := a.w.clock.Now()
	c := credential.TokenClaims{
		Issuer: issuer, Audience: a.w.resource(), Subject: a.name, ClientID: a.name, ID: id,
		IssuedAt: now, NotBefore: now, Expires: now.Add(5 * time.Minute), Scope: a.scope,
		JKT: a.signer.Public().Thumbprint(), SubProfile: credential.SubProfileAgent,
		Agent: credential.AgentClaim{ID: a.name, Instance: a.instance, Env: "prod", Epoch: a.epoch},
	}
	if a.task != "" {
		c.Task = &credential.TaskClaim{ID: a.task, Expires: now.Add(time.Hour)}
	}
	if change != nil {
		change(&c)
	}
	token, err := credential.SignToken(a.w.issuer, c)
	if err != nil {
		a.w.t.Fatal(err)
	}
	return token
}

func (a *actor) proof(method, url, token string) string {
	a.w.t.Helper()
	p, err := credential.SignProof(a.signer, method, url, "", token, a.w.clock.Now())
	if err != nil {
		a.w.t.Fatal(err)
	}
	return p
}

// sign puts token and proof on a request.
func (a *actor) sign(r *http.Request) {
	token := a.token(nil)
	r.Header.Set("Authorization", "DPoP "+token)
	r.Header.Set("DPoP", a.proof(r.Method, a.w.resource(), token))
}

// RoundTrip signs each request, so that an unmodified MCP client can use it.
func (a *actor) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	a.sign(r)
	return a.w.client.Transport.RoundTrip(r)
}

// A reply is an answer of the gateway, read to its end.
type reply struct {
	status int
	header http.Header
	body   string
}

func (a *actor) do(r *http.Request) reply {
	a.w.t.Helper()
	res, err := a.w.client.Do(r)
	if err != nil {
		a.w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		a.w.t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, string(b)}
}

// request makes an honest, signed request in the old revision. change changes
// it after it is signed.
func (a *actor) request(method, body string, change func(*http.Request)) *http.Request {
	a.w.t.Helper()
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(a.w.t.Context(), method, a.w.resource(), rd)
	if err != nil {
		a.w.t.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Accept", "application/json, text/event-stream")
	r.Header.Set("MCP-Protocol-Version", rev2025)
	a.sign(r)
	if change != nil {
		change(r)
	}
	return r
}

// post sends a body in the old revision.
func (a *actor) post(body string, change func(*http.Request)) reply {
	a.w.t.Helper()
	return a.do(a.request(http.MethodPost, body, change))
}

const meta2026 = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}`

// call2026 calls a tool in the new revision, with the headers it needs.
func (a *actor) call2026(name, arguments string, change func(*http.Request)) reply {
	a.w.t.Helper()
	body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + name + `","arguments":` + arguments + `,` + meta2026 + `}}`
	return a.post(body, func(r *http.Request) {
		r.Header.Set("MCP-Protocol-Version", rev2026)
		r.Header.Set("Mcp-Method", "tools/call")
		r.Header.Set("Mcp-Name", name)
		if change != nil {
			change(r)
		}
	})
}

func toolCall(name, arguments string) string {
	return `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + name + `","arguments":` + arguments + `}}`
}

// problem is what every HTTP refusal says.
type problem struct {
	JSONRPC   string           `json:"jsonrpc"`
	ID        jsontext.Value   `json:"id"`
	Error     *rpcError        `json:"error"`
	Type      string           `json:"type"`
	Title     string           `json:"title"`
	Status    int              `json:"status"`
	Code      counterfoil.Code `json:"code"`
	Detail    string           `json:"detail"`
	RequestID string           `json:"request_id"`
}

type rpcError struct {
	Code    int            `json:"code"`
	Message string         `json:"message"`
	Data    jsontext.Value `json:"data"`
}

// wantHTTP checks a refusal that is answered in HTTP.
func wantHTTP(t testing.TB, r reply, status int, code counterfoil.Code) problem {
	t.Helper()
	var p problem
	if err := json.Unmarshal([]byte(r.body), &p); err != nil {
		t.Fatalf("status %d, body %q: %v", r.status, r.body, err)
	}
	if r.status != status || p.Code != code || p.Status != status || p.RequestID == "" || p.RequestID != r.header.Get("X-Request-Id") {
		t.Fatalf("got %d %s, want %d %s", r.status, r.body, status, code)
	}
	if r.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("Cache-Control is %q", r.header.Get("Cache-Control"))
	}
	want := "application/problem+json"
	if p.JSONRPC != "" {
		want = "application/json"
	}
	if got := r.header.Get("Content-Type"); got != want {
		t.Fatalf("Content-Type is %q, want %q", got, want)
	}
	return p
}

type refusal struct {
	Code      counterfoil.Code `json:"code"`
	Detail    string           `json:"detail"`
	RequestID string           `json:"request_id"`
}

type toolResult struct {
	Result struct {
		Meta       map[string]refusal `json:"_meta"`
		ResultType string             `json:"resultType"`
		IsError    bool               `json:"isError"`
		Content    []struct {
			Type string `json:"type"`
			Text string `json:"text"`
		} `json:"content"`
		Structured *refusal `json:"structuredContent"`
	} `json:"result"`
	Error *rpcError `json:"error"`
}

// wantDenied checks a refusal that is a result of tools/call.
func wantDenied(t testing.TB, r reply, code counterfoil.Code) toolResult {
	t.Helper()
	var got toolResult
	if err := json.Unmarshal([]byte(r.body), &got); err != nil {
		t.Fatalf("status %d, body %q: %v", r.status, r.body, err)
	}
	res := got.Result
	if r.status != http.StatusOK || !res.IsError || len(res.Content) != 2 || res.Meta["counterfoil/refusal"].Code != code {
		t.Fatalf("got %d %s, want the refusal %s", r.status, r.body, code)
	}
	var second refusal
	if err := json.Unmarshal([]byte(res.Content[1].Text), &second); err != nil || second != res.Meta["counterfoil/refusal"] {
		t.Fatalf("the second block is %q", res.Content[1].Text)
	}
	return got
}

// wantDone checks that a call went through.
func wantDone(t testing.TB, r reply) {
	t.Helper()
	if r.status != http.StatusOK || strings.Contains(r.body, "counterfoil/refusal") || strings.Contains(r.body, `"error"`) || strings.Contains(r.body, `"isError":true`) {
		t.Fatalf("the honest call got %d %s", r.status, r.body)
	}
}
