package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/daemon"
	"github.com/counterfoil/counterfoil/ledger"
)

// stop ends the server as an operator does.
func (v *victim) stop() {
	v.t.Helper()
	if err := v.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		v.t.Fatal(err)
	}
	if err := v.cmd.Wait(); err != nil {
		v.t.Fatalf("the server ended with %v\n%s", err, v.stderr)
	}
}

// wantRefusedStart starts a server that has to refuse, with a text.
func (v *victim) wantRefusedStart(says ...string) {
	v.t.Helper()
	out, err := exec.Command("counterfoil", "serve", "--dev", "--data", v.dir, "--public", "http://localhost:0", "--management", "http://localhost:0").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitFailed {
		v.t.Fatalf("it starts: %v\n%s", err, out)
	}
	for _, s := range says {
		if !strings.Contains(string(out), s) {
			v.t.Errorf("it does not say %q: %s", s, out)
		}
	}
}

// refuses runs a command line that has to fail, and returns what it said.
func refuses(t *testing.T, args ...string) string {
	t.Helper()
	var out, err bytes.Buffer
	if code := run(t.Context(), args, streams{strings.NewReader(""), &out, &err}); code != exitFailed {
		t.Fatalf("counterfoil %s: exit %d\n%s%s", strings.Join(args, " "), code, out.String(), err.String())
	}
	return err.String()
}

// A past is what agents and people had before a database was put back.
type past struct {
	tokens     []string // of before the copy, and of after it
	requests   []tokenRequest
	approved   string // an approval that was not used
	pending    string // and one that nobody decided
	checkpoint string // file
	key        string // file of the log's public key
	database   []byte // the copy
	backup     string // file
	people     map[string]*demoPerson
	h          *hammer
	tr         *agent.Transport // of the till
}

// makePast works with a server, makes a copy of its database and a backup, works on,
// and stops it.
func makePast(t *testing.T, v *victim, signer *credential.Signer) *past {
	t.Helper()
	p := &past{h: &hammer{t: t, issuer: v.issuer, signer: signer, client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}}
	p.people = v.people("ana", "bo", "cy")
	var err error
	p.tr, err = agent.NewTransport(agent.Config{Issuer: v.issuer, Agent: "payroll", Signer: signer, Resource: v.issuer + "/r/till"})
	if err != nil {
		t.Fatal(err)
	}
	p.login(t)
	p.approved, p.pending = p.ask(t, 100), p.ask(t, 200)
	if r, err := p.people["bo"].decide(t.Context(), p.approved, counterfoil.DecisionApprove, ""); err != nil || r.code != allowed {
		t.Fatalf("%+v %v", r, err)
	}
	p.backup = filepath.Join(t.TempDir(), "backup")
	if out := command(t, "", "backup", "--data", v.dir, "--out", p.backup); !strings.Contains(out, "sha256") {
		t.Error(out)
	}
	v.stop()
	if p.database, err = os.ReadFile(filepath.Join(v.dir, "counterfoil.db")); err != nil {
		t.Fatal(err)
	}
	v.start()
	// What the copy does not know: new tokens, and that everything of before is void.
	p.login(t)
	command(t, "", "agent", "suspend", "payroll", "--data", v.dir, "--reason", "a lost laptop")
	command(t, "", "agent", "resume", "payroll", "--data", v.dir)
	p.login(t)
	command(t, "", "agent", "offboard", "auditor", "--data", v.dir)
	p.checkpoint = v.checkpoint()
	p.key = filepath.Join(t.TempDir(), "ledger.pub")
	b, err := os.ReadFile(filepath.Join(v.dir, daemon.LedgerKeyName))
	if err == nil {
		err = os.WriteFile(p.key, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	v.stop()
	return p
}

// login gets one more token, and uses it, which is the control.
func (p *past) login(t *testing.T) {
	t.Helper()
	assertion, err := credential.SignAssertion(p.h.signer, "payroll", p.h.issuer, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	token, proof, code := p.request(t, assertion)
	if code != "" {
		t.Fatalf("logging in: %s", code)
	}
	p.tokens, p.requests = append(p.tokens, token), append(p.requests, tokenRequest{assertion, proof})
	p.wantCall(t, token, "")
}

// A tokenRequest is one that was answered with a token.
type tokenRequest struct{ assertion, proof string }

// request asks for a token with an assertion and a proof of now, with a nonce where one
// is asked for.
func (p *past) request(t *testing.T, assertion string) (token, proof string, code counterfoil.Code) {
	t.Helper()
	target := p.h.issuer + "/oauth/token"
	nonce := ""
	for range 2 {
		var err error
		if proof, err = credential.SignProof(p.h.signer, http.MethodPost, target, nonce, "", time.Now()); err != nil {
			t.Fatal(err)
		}
		var header http.Header
		if token, header, code = p.send(t, assertion, proof); code != counterfoil.NonceRequired {
			return token, proof, code
		}
		nonce = header.Get("DPoP-Nonce")
	}
	return token, proof, code
}

// send sends a token request as it stands.
func (p *past) send(t *testing.T, assertion, proof string) (token string, header http.Header, code counterfoil.Code) {
	t.Helper()
	form := url.Values{
		"grant_type": {"client_credentials"}, "resource": {p.h.issuer + "/r/bank"}, "client_assertion": {assertion},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
	}
	_, header, body, err := p.h.post(t.Context(), p.h.issuer+"/oauth/token", form.Encode(), map[string]string{"Content-Type": "application/x-www-form-urlencoded", "DPoP": proof})
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Token string           `json:"access_token"`
		Code  counterfoil.Code `json:"code"`
	}
	if err := ijson.UnmarshalLax(body, &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Token, header, answer.Code
}

// wantCall calls with a token, and with a nonce where one is asked for.
func (p *past) wantCall(t *testing.T, token string, want counterfoil.Code) {
	t.Helper()
	nonce, target := "", p.h.issuer+"/r/bank"
	for range 2 {
		proof, err := credential.SignProof(p.h.signer, http.MethodPost, target, nonce, token, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		status, header, body, err := p.h.post(t.Context(), target, counterfoiltest.Body("get_balance", `{"account":"operating"}`), map[string]string{
			"Authorization": "DPoP " + token, "DPoP": proof, "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
			"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "get_balance",
		})
		code := counterfoiltest.CodeOf(body)
		if err == nil && code == counterfoil.NonceRequired {
			nonce = header.Get("DPoP-Nonce")
			continue
		}
		if err != nil || code != want || (want == "") != (status == http.StatusOK) {
			t.Errorf("the call: HTTP %d %q %v, want %q", status, code, err, want)
		}
		return
	}
	t.Error("nonces are asked for again and again")
}

func refund(amount int) string {
	return fmt.Sprintf(`{"to":"acme","amount":%d,"currency":"EUR"}`, amount)
}

// ask makes a call that a person has to approve.
func (p *past) ask(t *testing.T, amount int) string {
	t.Helper()
	result, err := callTool(t.Context(), p.tr, p.tr.Resource(), "pay", refund(amount))
	if err != nil {
		t.Fatal(err)
	}
	r := refusalOf(result)
	if r == nil || r.Code != counterfoil.ApprovalRequired || r.Approval == nil {
		t.Fatalf("the call got %+v", r)
	}
	return r.Approval.ID
}

// wantNothing uses everything of before, none of which may work: the tokens with fresh
// proofs, and the token requests as they were sent.
func (p *past) wantNothing(t *testing.T) {
	t.Helper()
	for _, token := range p.tokens {
		p.wantCall(t, token, counterfoil.TokenMalformed) // signed by a key that is no more
	}
	for i, r := range p.requests {
		if token, _, code := p.send(t, r.assertion, r.proof); token != "" || code == "" {
			t.Errorf("token request %d is answered again: %q", i, code)
		}
	}
}

// TestNothingOfBeforeARestorationWorks puts an older database back, by restoring a backup
// and by copying the file, and uses everything that was given out before.
func TestNothingOfBeforeARestorationWorks(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		put  func(*victim, *past)
		says []string
		args func(*past) []string
	}{
		"a copied file": {
			put:  func(v *victim, p *past) { v.write("counterfoil.db", p.database) },
			says: []string{"an old copy was put in its place", "counterfoil restore"},
			args: func(*past) []string { return nil },
		},
		"a backup": {
			put: func(v *victim, _ *past) {
				if err := os.Remove(filepath.Join(v.dir, "counterfoil.db")); err != nil {
					v.t.Fatal(err)
				}
			},
			says: []string{"the ledger is gone", "counterfoil restore"},
			args: func(p *past) []string { return []string{"--from", p.backup} },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			upstream := &byNumber{seen: map[int]int{}}
			v, _, signer := newVictim(t, upstream)
			p := makePast(t, v, signer)
			row.put(v, p)
			v.wantRefusedStart(row.says...)
			out := command(t, "", append([]string{"restore", "--data", v.dir, "--reason", "the disk died"}, row.args(p)...)...)
			for _, want := range []string{"restored-1", "lost ", "counterfoil person resume bo", "person bo, with 1 passkey: ", "suspended  resource bank", "counterfoil resource resume bank", "counterfoil agent resume payroll", "2 open approvals", "before-restored-1"} {
				if !strings.Contains(out, want) {
					t.Errorf("it does not say %q:\n%s", want, out)
				}
			}
			reached := upstream.total()
			v.start()
			p.wantNothing(t)
			for i, r := range p.requests {
				if _, _, code := p.request(t, r.assertion); code != counterfoil.AssertionExpired {
					t.Errorf("assertion %d with a new proof: %q", i, code)
				}
			}
			for _, person := range p.people {
				if err := person.login(t.Context()); err == nil {
					t.Errorf("%s, who is suspended, logs in", person.name)
				}
			}
			if n := upstream.total(); n != reached {
				t.Errorf("%d calls reached the upstream", n-reached)
			}
			for _, id := range []string{p.approved, p.pending} {
				if a := v.approval(id); a.State != counterfoil.StateRevoked {
					t.Errorf("approval %s is %s", id, a.State)
				}
			}
			p.wantBack(t, v)
			wantRestoredLog(t, v, p)
		})
	}
}

// wantBack lets agent and person in again: that works, and revives nothing.
func (p *past) wantBack(t *testing.T, v *victim) {
	t.Helper()
	for _, person := range []string{"ana", "bo"} { // its owner comes before an agent
		command(t, "", "person", "resume", person, "--data", v.dir)
	}
	command(t, "", "agent", "resume", "payroll", "--data", v.dir)
	// An assertion says its time in seconds, and none of the second of the restoration is
	// taken.
	code := counterfoil.AssertionExpired
	for deadline := time.Now().Add(10 * time.Second); code == counterfoil.AssertionExpired && time.Now().Before(deadline); {
		assertion, err := credential.SignAssertion(p.h.signer, "payroll", p.h.issuer, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, _, code = p.request(t, assertion); code == counterfoil.AssertionExpired {
			<-time.After(100 * time.Millisecond) // another process, by the machine's clock
		}
	}
	if code != counterfoil.TargetInvalid {
		t.Errorf("a token for a resource that is not back: %q", code)
	}
	command(t, "", "resource", "resume", "bank", "--data", v.dir)
	command(t, "", "resource", "resume", "till", "--data", v.dir)
	p.wantNothing(t)
	p.login(t)
	if err := p.people["bo"].login(t.Context()); err != nil {
		t.Errorf("bo, who is back: %v", err)
	}
	if err := p.people["cy"].login(t.Context()); err == nil {
		t.Error("cy, who is not back, logs in")
	}
	// The call that bo had approved asks again.
	tr, err := agent.NewTransport(agent.Config{Issuer: v.issuer, Agent: "payroll", Signer: p.h.signer, Resource: v.issuer + "/r/till"})
	if err != nil {
		t.Fatal(err)
	}
	p.tr = tr
	if id := p.ask(t, 100); id == p.approved {
		t.Error("the old approval is asked for again")
	}
	result, err := callTool(t.Context(), callHeader{tr, "Counterfoil-Approval", p.approved}, tr.Resource(), "pay", refund(100))
	if err != nil {
		t.Fatal(err)
	}
	if r := refusalOf(result); r == nil || r.Code != counterfoil.ApprovalRevoked {
		t.Errorf("with the old approval: %+v", r)
	}
}

// wantRestoredLog verifies the log with its new key, and not with what is of the old.
func wantRestoredLog(t *testing.T, v *victim, p *past) {
	t.Helper()
	export := v.export()
	key := filepath.Join(v.dir, daemon.LedgerKeyName)
	out := command(t, "", "ledger", "verify", export, "--key", key)
	for _, want := range []string{"restored   at entry", "the disk died", "are lost, which a checkpoint of it signed"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	if says := refuses(t, "ledger", "verify", export, "--key", key, "--checkpoint", p.checkpoint); !strings.Contains(says, "from before the log was restored") {
		t.Error(says)
	}
	if says := refuses(t, "ledger", "verify", export, "--key", p.key); !strings.Contains(says, "was restored since and has a new key") {
		t.Error(says)
	}
	n := 0
	for _, e := range readExport(t, export) {
		if e.Kind == ledger.ServerRestored {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d entries say that it was restored", n)
	}
	// The place that held the old log's checkpoint refuses the old log, and the new.
	v.stop()
	checkpoint, err := os.ReadFile(p.checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	v.write("checkpoint", checkpoint)
	v.wantRefusedStart("from before the log was restored")
	if err := os.Remove(filepath.Join(v.dir, "checkpoint")); err != nil {
		t.Fatal(err)
	}
	v.write("counterfoil.db", p.database)
	v.wantRefusedStart("is from before this folder was restored", "counterfoil restore")
}

func (v *victim) write(name string, b []byte) {
	v.t.Helper()
	if err := os.WriteFile(filepath.Join(v.dir, name), b, 0o600); err != nil {
		v.t.Fatal(err)
	}
}

func (b *byNumber) total() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, c := range b.seen {
		n += c
	}
	return n
}

// TestRestoreKilled kills a restoration at moments that nobody chose. The folder is as
// it was before, or restored but for the last steps; running it again finishes.
func TestRestoreKilled(t *testing.T) {
	t.Parallel()
	v, _, signer := newVictim(t)
	p := makePast(t, v, signer)
	v.write("counterfoil.db", p.database)
	random := rand.New(rand.NewPCG(16, 16))
	whole := filepath.Join(t.TempDir(), "data")
	copyFolder(t, v.dir, whole)
	from := time.Now()
	if out, err := exec.Command("counterfoil", "restore", "--data", whole, "--reason", "how long it takes").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	takes := time.Since(from)
	finished := 0
	for round := range killRounds(t) {
		dir := filepath.Join(t.TempDir(), "data")
		copyFolder(t, v.dir, dir)
		cmd := exec.Command("counterfoil", "restore", "--data", dir, "--reason", "the disk died")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Duration(random.Int64N(int64(takes)))) // when a machine dies is nobody's choice
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		if cmd.Wait() == nil {
			finished++
		}
		w := &victim{t: t, dir: dir}
		if cmd.ProcessState.Success() {
			if says := refuses(t, "restore", "--data", dir, "--reason", "again"); !strings.Contains(says, "start the server") {
				t.Error(says)
			}
		} else {
			w.wantRefusedOrRestored(round)
		}
		if round%5 > 0 {
			continue // a start makes keys, which takes a while
		}
		w.start()
		command(t, "", "ledger", "verify", w.export(), "--key", filepath.Join(dir, daemon.LedgerKeyName))
		w.stop()
	}
	t.Logf("%d of %d ended before they were killed; one takes %v", finished, killRounds(t), takes)
}

// wantRefusedOrRestored restores a folder whose restoration was killed.
func (v *victim) wantRefusedOrRestored(round int) {
	v.t.Helper()
	key, err := os.ReadFile(filepath.Join(v.dir, daemon.LedgerKeyName))
	if err != nil {
		v.t.Fatal(err)
	}
	_, planned := os.Stat(filepath.Join(v.dir, "restore.plan"))
	if planned == nil || !bytes.Contains(key, []byte("/restored-1")) {
		v.wantRefusedStart("counterfoil restore")
		command(v.t, "", "restore", "--data", v.dir, "--reason", "again")
	}
	left, err := filepath.Glob(filepath.Join(v.dir, "*.restoring*"))
	if err != nil || len(left) > 0 {
		v.t.Errorf("round %d: it left %v %v", round, left, err)
	}
}

// copyFolder copies a stopped server's folder, for its owner alone.
func copyFolder(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
