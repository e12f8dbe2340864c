package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/examples/bank/bankserver"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/daemon"
	"github.com/counterfoil/counterfoil/ledger"
)

// killRounds is how often the server is killed. COUNTERFOIL_KILL_ROUNDS names
// another number, for a longer run.
func killRounds(t *testing.T) int {
	n := 20
	if s := os.Getenv("COUNTERFOIL_KILL_ROUNDS"); s != "" {
		if _, err := fmt.Sscan(s, &n); err != nil {
			t.Fatalf("COUNTERFOIL_KILL_ROUNDS: %v", err)
		}
	}
	return n
}

// victim is a server in a process of its own that gets killed.
type victim struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	stderr *bytes.Buffer
	issuer string
}

// newVictim starts a server in front of a bank, with one enrolled instance of
// payroll. What reaches the bank passes what is given before it.
func newVictim(t *testing.T, before ...interface {
	before(http.Handler) http.Handler
}) (*victim, *counterfoiltest.Recorder, *credential.Signer) {
	t.Helper()
	dir := t.TempDir()
	bank, err := bankserver.Open(filepath.Join(dir, "bank.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bank.Close() })
	upstream := counterfoiltest.NewRecorder(bank.Handler())
	var handler http.Handler = upstream
	for _, b := range before {
		handler = b.before(handler)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)

	v := &victim{t: t, dir: filepath.Join(dir, "data")}
	v.start()
	t.Cleanup(v.kill)
	manifest := filepath.Join(dir, "bank.yaml")
	if err := os.WriteFile(manifest, fmt.Appendf(nil, counterfoiltest.Manifest, server.URL+"/mcp"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "", "apply", "--data", v.dir, "-f", manifest)
	key := filepath.Join(dir, "payroll.key")
	code := command(t, "", "agent", "enroll-code", "payroll", "--data", v.dir)
	command(t, code, "enroll", "--issuer", v.issuer, "--agent", "payroll", "--key", key)
	signer, err := agent.LoadKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return v, upstream, signer
}

// export writes the log to a file and verifies it with the public key alone.
func (v *victim) export() string {
	v.t.Helper()
	export := filepath.Join(v.t.TempDir(), "ledger.export")
	command(v.t, "", "ledger", "export", "--data", v.dir, "-o", export)
	command(v.t, "", "ledger", "verify", export, "--key", filepath.Join(v.dir, daemon.LedgerKeyName))
	return export
}

func (v *victim) start() {
	v.t.Helper()
	v.cmd = exec.Command("counterfoil", "serve", "--dev", "--data", v.dir, "--public", "http://localhost:0", "--management", "http://localhost:0")
	v.stderr = new(bytes.Buffer)
	v.cmd.Stderr = v.stderr
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		v.t.Fatal(err)
	}
	if err := v.cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		v.cmd.Wait()
		v.t.Fatalf("the server did not start: %v\n%s", err, v.stderr)
	}
	for _, word := range strings.Fields(line) {
		if u, ok := strings.CutPrefix(word, "public="); ok {
			v.issuer = u
		}
	}
	if !strings.HasPrefix(line, "ready ") || v.issuer == "" {
		v.t.Fatalf("the server said %q", line)
	}
}

func (v *victim) kill() {
	v.t.Helper()
	if v.cmd.ProcessState != nil {
		return // it is dead
	}
	if err := v.cmd.Process.Kill(); err != nil {
		v.t.Fatal(err)
	}
	v.cmd.Wait() // says that it was killed
}

// told is what a client was told, and what it would take to do it again.
type told struct {
	mu    sync.Mutex
	n     int                // numbers calls
	calls map[int]*callState // every call that was ever sent, by its number

	tokens int // token requests that were answered with a token, or refused as used when they were sent again

	// Since the last kill.
	last, open             []sent   // the newest calls that were answered; those that were not
	lastLogins, openLogins []string // the same of token requests: their assertions
	again                  tally
}

// A tally counts what was sent again after a kill.
type tally struct{ answered, used, fresh int }

// A callState is what is known of a call.
type callState struct {
	hash      string // of its proof, as the ledger has it
	requestID string // once it was answered
	used      bool   // never answered, and its proof was refused as used after the kill
}

// sent is a call as it was sent.
type sent struct {
	number       int
	token, proof string
}

// newest is how many answered ones are sent again after a kill.
const newest = 8

func (a *told) answered(s sent, requestID string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls[s.number].requestID = requestID
	a.last = append(a.last, s)
	a.last = a.last[max(0, len(a.last)-newest):]
}

func (a *told) unanswered(s sent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open = append(a.open, s)
}

func (a *told) loggedIn(assertion string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens++
	a.lastLogins = append(a.lastLogins, assertion)
	a.lastLogins = a.lastLogins[max(0, len(a.lastLogins)-newest):]
}

func (a *told) notLoggedIn(assertion string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.openLogins = append(a.openLogins, assertion)
}

// byNumber counts the calls that reach an upstream, by the JSON-RPC id that the
// client gave them.
type byNumber struct {
	next http.Handler

	mu   sync.Mutex
	seen map[int]int
}

func (b *byNumber) before(next http.Handler) http.Handler {
	b.next = next
	return b
}

func (b *byNumber) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "unreadable", http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var m struct {
		ID     int    `json:"id"`
		Method string `json:"method"`
	}
	if ijson.UnmarshalLax(body, &m) == nil && m.Method == "tools/call" {
		b.mu.Lock()
		b.seen[m.ID]++
		b.mu.Unlock()
	}
	b.next.ServeHTTP(w, r)
}

// hammer is the load: what an instance sends as fast as it is answered.
type hammer struct {
	t      *testing.T
	issuer string
	signer *credential.Signer
	client *http.Client
	told   *told
}

func (h *hammer) post(ctx context.Context, target, body string, header map[string]string) (int, http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, b, err
}

// fresh makes the next call of get_balance.
func (h *hammer) fresh(token string) sent {
	target := h.issuer + "/r/bank"
	s := sent{token: token, proof: h.proof(target, token)}
	u, err := credential.ParseProof([]string{s.proof})
	if err != nil {
		h.t.Error(err)
		return s
	}
	p, err := u.Check(credential.ProofRequest{Method: http.MethodPost, URL: target, TokenHash: credential.TokenHash(token)}, time.Now())
	if err != nil {
		h.t.Error(err)
	}
	h.told.mu.Lock()
	defer h.told.mu.Unlock()
	h.told.n++
	s.number = h.told.n
	h.told.calls[s.number] = &callState{hash: p.Hash}
	return s
}

// call sends one call of get_balance, and reports its code.
func (h *hammer) call(ctx context.Context, s sent) (status int, code counterfoil.Code, id string, err error) {
	body := strings.Replace(counterfoiltest.Body("get_balance", `{"account":"operating"}`), `"id":1,`, fmt.Sprintf(`"id":%d,`, s.number), 1)
	status, header, answer, err := h.post(ctx, h.issuer+"/r/bank", body, map[string]string{
		"Authorization": "DPoP " + s.token, "DPoP": s.proof, "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
		"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "get_balance",
	})
	if err != nil {
		return 0, "", "", err
	}
	return status, counterfoiltest.CodeOf(answer), header.Get("X-Request-Id"), nil
}

func (h *hammer) proof(target, token string) string {
	p, err := credential.SignProof(h.signer, http.MethodPost, target, "", token, time.Now())
	if err != nil {
		h.t.Error(err)
	}
	return p
}

// login asks for a token with an assertion, made anew unless one is given.
func (h *hammer) login(ctx context.Context, assertion string) (token string, used string, code counterfoil.Code, err error) {
	if assertion == "" {
		if assertion, err = credential.SignAssertion(h.signer, "payroll", h.issuer, time.Now()); err != nil {
			return "", "", "", err
		}
	}
	form := url.Values{
		"grant_type": {"client_credentials"}, "resource": {h.issuer + "/r/bank"}, "client_assertion": {assertion},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
	}
	target := h.issuer + "/oauth/token"
	status, _, body, err := h.post(ctx, target, form.Encode(), map[string]string{"Content-Type": "application/x-www-form-urlencoded", "DPoP": h.proof(target, "")})
	if err != nil {
		return "", assertion, "", err
	}
	var answer struct {
		Token string `json:"access_token"`
		Code  string `json:"code"`
	}
	if err := ijson.UnmarshalLax(body, &answer); err != nil {
		return "", "", "", fmt.Errorf("HTTP %d: %w", status, err)
	}
	return answer.Token, assertion, counterfoil.Code(answer.Code), nil
}

// run sends calls and logins until ctx ends or the server is gone.
func (h *hammer) run(ctx context.Context, token string) {
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for ctx.Err() == nil {
				s := h.fresh(token)
				status, code, id, err := h.call(ctx, s)
				if err != nil {
					h.told.unanswered(s) // killed
					return
				}
				if status != http.StatusOK || code != "" {
					h.t.Errorf("an honest call: HTTP %d %s", status, code)
					return
				}
				h.told.answered(s, id)
			}
		})
	}
	all.Go(func() {
		for ctx.Err() == nil {
			_, assertion, code, err := h.login(ctx, "")
			switch {
			case err != nil:
				h.told.notLoggedIn(assertion) // killed
				return
			case code == "":
				h.told.loggedIn(assertion)
			case code != counterfoil.RateLimited:
				h.t.Errorf("an honest login: %s", code)
				return
			}
		}
	})
	all.Wait()
}

// again sends once more what was sent before the last kill. What was answered
// is refused as a repetition. What was not may have been recorded or not: then
// it is refused or taken, and the ledger has to have it once either way.
func (h *hammer) again(round int) {
	a := h.told
	a.mu.Lock()
	last, open, lastLogins, openLogins := a.last, a.open, a.lastLogins, a.openLogins
	a.last, a.open, a.lastLogins, a.openLogins = nil, nil, nil, nil
	a.mu.Unlock()
	for _, s := range last {
		a.again.answered++
		if status, code, _, err := h.call(h.t.Context(), s); err != nil || code != counterfoil.ProofReplayed {
			h.t.Errorf("round %d: the proof of an answered call: HTTP %d %s %v", round, status, code, err)
		}
	}
	for _, s := range open {
		status, code, id, err := h.call(h.t.Context(), s)
		switch {
		case err == nil && code == counterfoil.ProofReplayed:
			a.again.used++
			a.calls[s.number].used = true
		case err == nil && code == "" && status == http.StatusOK:
			a.again.fresh++
			a.answered(s, id)
		default:
			h.t.Errorf("round %d: the proof of a call without an answer: HTTP %d %s %v", round, status, code, err)
		}
	}
	for _, assertion := range lastLogins {
		a.again.answered++
		if _, _, code, err := h.login(h.t.Context(), assertion); err != nil || code != counterfoil.AssertionReplayed {
			h.t.Errorf("round %d: the assertion of an answered login: %s %v", round, code, err)
		}
	}
	for _, assertion := range openLogins {
		_, _, code, err := h.login(h.t.Context(), assertion)
		switch {
		case err == nil && code == counterfoil.AssertionReplayed:
			a.again.used++
			a.tokens++ // it was recorded, and nobody got it
		case err == nil && code == "":
			a.again.fresh++
			a.loggedIn(assertion)
		default:
			h.t.Errorf("round %d: the assertion of a login without an answer: %s %v", round, code, err)
		}
	}
}

// TestKilledUnderLoad kills the server again and again while it works, and holds
// what clients were told against what the ledger says and what the upstream saw.
func TestKilledUnderLoad(t *testing.T) {
	t.Parallel()
	upstream := &byNumber{seen: map[int]int{}}
	v, _, signer := newVictim(t, upstream)
	facts := &told{calls: map[int]*callState{}}
	random := rand.New(rand.NewPCG(1, 2))
	rounds := killRounds(t)
	var starts []time.Duration
	var kept []string // checkpoints, the first, some and the last
	for round := range rounds {
		h := &hammer{t: t, issuer: v.issuer, signer: signer, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}, told: facts}
		h.again(round)
		token, assertion, refused, err := h.login(t.Context(), "")
		if err != nil || refused != "" {
			t.Fatalf("round %d: logging in: %v %s", round, err, refused)
		}
		facts.loggedIn(assertion)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			h.run(ctx, token)
		}()
		<-time.After(time.Duration(40+random.IntN(160)) * time.Millisecond) // when a machine dies is nobody's choice
		if round%max(1, rounds/4) == 0 || round == rounds-1 {
			kept = append(kept, v.checkpoint())
		}
		v.kill()
		stop()
		<-ended
		h.client.CloseIdleConnections()
		from := time.Now()
		v.start()
		starts = append(starts, time.Since(from))
	}
	(&hammer{t: t, issuer: v.issuer, signer: signer, client: http.DefaultClient, told: facts}).again(-1)
	export := v.export()
	for _, checkpoint := range kept {
		command(t, "", "ledger", "verify", export, "--key", filepath.Join(v.dir, daemon.LedgerKeyName), "--checkpoint", checkpoint)
	}
	upstream.mu.Lock()
	defer upstream.mu.Unlock()
	reconcile(t, export, facts, upstream.seen)
	slices.Sort(starts)
	t.Logf("%d kills; sent again: %d answered, all refused; %d not answered but recorded, all refused; %d not recorded, taken once; %d checkpoints from before a kill extended; ready after %v, p99 %v, max %v",
		rounds, facts.again.answered, facts.again.used, facts.again.fresh, len(kept), starts[len(starts)/2].Round(time.Millisecond), starts[len(starts)*99/100].Round(time.Millisecond), starts[len(starts)-1].Round(time.Millisecond))
}

// checkpoint keeps the log's checkpoint of now in a file.
func (v *victim) checkpoint() string {
	v.t.Helper()
	resp, err := http.Get(v.issuer + "/ledger/checkpoint")
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		v.t.Fatalf("reading the checkpoint: HTTP %d %v", resp.StatusCode, err)
	}
	path := filepath.Join(v.t.TempDir(), "checkpoint")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		v.t.Fatal(err)
	}
	return path
}

// reconcile holds the client's log, the ledger and the upstream's log against
// each other, call by call.
func reconcile(t *testing.T, export string, facts *told, upstream map[int]int) {
	t.Helper()
	f, err := os.Open(export)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var (
		open     = map[int64]*ledger.Entry{}  // decisions without an end
		decided  = map[string]*ledger.Entry{} // allowing decisions, by proof
		outcomes = map[string]string{}        // how they ended, by proof
		proofs   = map[string]bool{}
		tokens   int
		unknown  int
	)
	scan := bufio.NewScanner(f)
	scan.Buffer(nil, ledger.MaxEntry+1024)
	for scan.Scan() {
		e, err := ledger.Parse(scan.Bytes())
		if err != nil || e.Kind == "" {
			continue // the export's own lines, which verify has read
		}
		if e.Proof != "" && e.Kind != ledger.CallFinished {
			if proofs[e.Proof] {
				t.Errorf("entry %d has a proof that was used before", e.Index)
			}
			proofs[e.Proof] = true
		}
		switch {
		case e.Kind == ledger.TokenIssued:
			tokens++
		case e.Kind == ledger.CallDecided && e.Decision == ledger.Allow && e.Tool == "bank/get_balance":
			open[e.Index], decided[e.Proof] = e, e
		case e.Kind == ledger.CallFinished && open[e.Of] != nil:
			outcomes[open[e.Of].Proof] = e.Outcome
			if e.Outcome == ledger.OutcomeUnknown {
				unknown++
			} else if e.Outcome != "succeeded" {
				t.Errorf("entry %d says of an honest call %s", e.Index, e.Outcome)
			}
			delete(open, e.Of)
		}
	}
	if err := scan.Err(); err != nil {
		t.Fatal(err)
	}
	for index := range open {
		t.Errorf("decision %d has no end", index)
	}
	if tokens != facts.tokens {
		t.Errorf("the ledger has %d tokens, clients know of %d", tokens, facts.tokens)
	}
	answered, lost, reached := 0, 0, 0
	for number, c := range facts.calls {
		e, seen := decided[c.hash], upstream[number]
		reached += seen
		switch {
		case c.requestID != "":
			answered++
			if e == nil || e.RequestID != c.requestID || outcomes[c.hash] != "succeeded" || seen != 1 {
				t.Errorf("call %d was answered as %s; the ledger has %+v, ended %q, and %d reached the upstream", number, c.requestID, e, outcomes[c.hash], seen)
			}
		case c.used:
			lost++
			// Recorded before the kill and never answered: it may have reached
			// the upstream, once, and its end may be known.
			if e == nil || outcomes[c.hash] == "" || seen > 1 || outcomes[c.hash] == "succeeded" && seen != 1 {
				t.Errorf("call %d was not answered and its proof is used; the ledger has %+v, ended %q, and %d reached the upstream", number, e, outcomes[c.hash], seen)
			}
		default:
			t.Errorf("call %d was neither answered nor sent again", number)
		}
		delete(decided, c.hash)
	}
	for _, e := range decided {
		t.Errorf("the ledger allows a call that nobody sent: entry %d", e.Index)
	}
	if answered == 0 {
		t.Error("no call was answered")
	}
	t.Logf("%d calls answered, %d decided and not answered, %d ends unknown; %d reached the upstream; %d tokens", answered, lost, unknown, reached, tokens)
}
