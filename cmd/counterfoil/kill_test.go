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
// payroll.
func newVictim(t *testing.T) (*victim, *counterfoiltest.Recorder, *credential.Signer) {
	t.Helper()
	dir := t.TempDir()
	bank, err := bankserver.Open(filepath.Join(dir, "bank.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bank.Close() })
	upstream := counterfoiltest.NewRecorder(bank.Handler())
	server := httptest.NewServer(upstream)
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

// acknowledged is what a client was told, and what it would take to do it again.
type acknowledged struct {
	mu     sync.Mutex
	calls  map[string]bool // request ids of calls that were answered with a result
	last   []sent          // the newest calls
	logins []sent          // the newest token requests
}

type sent struct {
	token, proof string // of a call
	assertion    string // of a token request
}

func (a *acknowledged) call(id string, s sent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls[id] = true
	a.last = append(a.last, s)
	if len(a.last) > 8 {
		a.last = a.last[1:]
	}
}

func (a *acknowledged) login(s sent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.logins = append(a.logins, s)
	if len(a.logins) > 4 {
		a.logins = a.logins[1:]
	}
}

// hammer is the load: what an instance sends as fast as it is answered.
type hammer struct {
	t      *testing.T
	issuer string
	signer *credential.Signer
	client *http.Client
	acked  *acknowledged
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

// call makes one call of get_balance with a proof, and reports its code.
func (h *hammer) call(ctx context.Context, s sent) (status int, code counterfoil.Code, id string, err error) {
	status, header, body, err := h.post(ctx, h.issuer+"/r/bank", counterfoiltest.Body("get_balance", `{"account":"operating"}`), map[string]string{
		"Authorization": "DPoP " + s.token, "DPoP": s.proof, "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
		"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "get_balance",
	})
	if err != nil {
		return 0, "", "", err
	}
	return status, counterfoiltest.CodeOf(body), header.Get("X-Request-Id"), nil
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
		return "", "", "", err
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
				s := sent{token: token, proof: h.proof(h.issuer+"/r/bank", token)}
				status, code, id, err := h.call(ctx, s)
				if err != nil {
					return // killed
				}
				if status != http.StatusOK || code != "" {
					h.t.Errorf("an honest call: HTTP %d %s", status, code)
					return
				}
				h.acked.call(id, s)
			}
		})
	}
	all.Go(func() {
		for ctx.Err() == nil {
			_, assertion, code, err := h.login(ctx, "")
			if err != nil {
				return // killed
			}
			if code != "" && code != counterfoil.RateLimited {
				h.t.Errorf("an honest login: %s", code)
				return
			}
			if code == "" {
				h.acked.login(sent{assertion: assertion})
			}
		}
	})
	all.Wait()
}

// TestKilledUnderLoad kills the server again and again while it works, and holds
// what clients were told against what the ledger says and what the upstream saw.
func TestKilledUnderLoad(t *testing.T) {
	t.Parallel()
	v, upstream, signer := newVictim(t)
	acked := &acknowledged{calls: map[string]bool{}}
	random := rand.New(rand.NewPCG(1, 2))
	for round := range killRounds(t) {
		h := &hammer{t: t, issuer: v.issuer, signer: signer, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}, acked: acked}
		token, _, refused, err := h.login(t.Context(), "")
		if err != nil || refused != "" {
			t.Fatalf("round %d: logging in: %v %s", round, err, refused)
		}
		h.again(round)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			h.run(ctx, token)
		}()
		<-time.After(time.Duration(40+random.IntN(160)) * time.Millisecond) // when a machine dies is nobody's choice
		v.kill()
		stop()
		<-ended
		h.client.CloseIdleConnections()
		v.start()
	}
	(&hammer{t: t, issuer: v.issuer, signer: signer, client: http.DefaultClient, acked: acked}).again(-1)
	calls, _ := upstream.Seen()
	reconcile(t, v.export(), acked.calls, len(calls))
}

// again repeats what was acknowledged before the last kill: everything must be
// refused as a repetition.
func (h *hammer) again(round int) {
	h.acked.mu.Lock()
	last, logins := h.acked.last, h.acked.logins
	h.acked.last, h.acked.logins = nil, nil
	h.acked.mu.Unlock()
	for _, s := range last {
		if status, code, _, err := h.call(h.t.Context(), s); err != nil || code != counterfoil.ProofReplayed {
			h.t.Errorf("round %d: a proof from before the kill: HTTP %d %s %v", round, status, code, err)
		}
	}
	for _, s := range logins {
		if _, _, code, err := h.login(h.t.Context(), s.assertion); err != nil || code != counterfoil.AssertionReplayed {
			h.t.Errorf("round %d: an assertion from before the kill: %s %v", round, code, err)
		}
	}
}

// reconcile holds the client's log, the ledger and the upstream's log against
// each other.
func reconcile(t *testing.T, export string, acked map[string]bool, upstream int) {
	t.Helper()
	f, err := os.Open(export)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	decided := map[int64]*ledger.Entry{}
	proofs := map[string]bool{}
	sure, unsure := 0, 0
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
		case e.Kind == ledger.CallDecided && e.Decision == ledger.Allow && e.Tool == "bank/get_balance":
			decided[e.Index] = e
		case e.Kind == ledger.CallFinished && decided[e.Of] != nil:
			id := decided[e.Of].RequestID
			switch e.Outcome {
			case "succeeded", "failed":
				sure++
				delete(acked, id)
			default:
				unsure++
				if acked[id] {
					t.Errorf("call %s was answered, and the ledger says %s", id, e.Outcome)
				}
			}
			delete(decided, e.Of)
		}
	}
	if err := scan.Err(); err != nil {
		t.Fatal(err)
	}
	for id := range acked {
		t.Errorf("call %s was acknowledged and is not in the ledger", id)
	}
	for index := range decided {
		t.Errorf("decision %d has no end", index)
	}
	if sure == 0 || upstream < sure || upstream > sure+unsure {
		t.Errorf("the upstream saw %d calls; the ledger knows the end of %d and not of %d", upstream, sure, unsure)
	}
	t.Logf("%d calls ended, %d unknown, %d reached the upstream", sure, unsure, upstream)
}
