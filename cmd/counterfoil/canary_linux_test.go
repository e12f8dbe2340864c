package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/examples/bank/bankserver"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/daemon"
	"github.com/counterfoil/counterfoil/internal/seal"
	"github.com/counterfoil/counterfoil/ledger"
)

const canaryManifest = `kind: Person
name: ana
email: ana@example.com
---
{kind: Person, name: bo, email: bo@example.com, groups: [finance]}
---
{kind: Person, name: cy, email: cy@example.com, groups: [finance]}
---
{kind: Class, name: asked, tier: guarded, approvers: [finance]}
---
{kind: Class, name: counted, tier: routine, payload: none}
---
{kind: Class, name: hashed, tier: routine}
---
{kind: Class, name: kept, tier: routine, payload: full}
---
{kind: Resource, name: counted, type: mcp, environment: prod, upstream: "%[1]s", credential: {header: Authorization, prefix: "Bearer ", file: bank-token}, tools: [{name: get_balance, class: counted}]}
---
{kind: Resource, name: hashed, type: mcp, environment: prod, upstream: "%[1]s", credential: {header: Authorization, prefix: "Bearer ", file: bank-token}, tools: [{name: get_balance, class: hashed}]}
---
{kind: Resource, name: kept, type: mcp, environment: prod, upstream: "%[1]s", credential: {header: Authorization, prefix: "Bearer ", file: bank-token}, tools: [{name: get_balance, class: kept}]}
---
{kind: Resource, name: asked, type: mcp, environment: prod, upstream: "%[1]s", credential: {header: Authorization, prefix: "Bearer ", file: bank-token}, tools: [{name: get_balance, class: asked}]}
---
{kind: Resource, name: gone, type: mcp, environment: prod, upstream: "http://127.0.0.1:1/mcp", credential: {header: Authorization, prefix: "Bearer ", file: bank-token}, tools: [{name: get_balance, class: hashed}]}
---
{kind: Agent, name: payroll, owner: ana, purpose: "monthly payroll run", environment: prod, grants: [{tools: [counted/get_balance, hashed/get_balance, kept/get_balance, gone/get_balance, asked/get_balance]}]}
`

// listening is the bank with what came to it and the session ids that it gave.
type listening struct {
	next http.Handler

	mu       sync.Mutex
	heard    bytes.Buffer
	sessions []string
}

func (l *listening) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "unreadable", http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	l.next.ServeHTTP(w, r)
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(&l.heard, "%s %s %v\n%s\n", r.Method, r.URL, r.Header, body)
	if id := w.Header().Get("Mcp-Session-Id"); id != "" && !slices.Contains(l.sessions, id) {
		l.sessions = append(l.sessions, id)
	}
}

// A cage is a real server with real commands around it, and all that came out of
// them.
type cage struct {
	*aviary
	dir, data, issuer string
	bank              *listening
	server            *exec.Cmd
	out, log          *counterfoiltest.Buffer
	env               []string
	outputs           map[string][]byte // of commands, by command line
	cmdlines          map[string][]byte
}

// exec runs a command of the product in a process of its own. What it prints is
// looked at in the end, unless it is for its caller alone.
func (c *cage) exec(stdin string, args ...string) (out string, ok bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), counterfoiltest.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "counterfoil", args...)
	cmd.Env = c.env
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	name := strings.Join(args, " ")
	c.outputs["stdout of "+name] = stdout.Bytes()
	c.outputs["stderr of "+name] = stderr.Bytes()
	return stdout.String(), err == nil
}

// must is exec for what has to work.
func (c *cage) must(stdin string, args ...string) string {
	c.t.Helper()
	out, ok := c.exec(stdin, args...)
	if !ok {
		c.t.Fatalf("counterfoil %s:\n%s%s", strings.Join(args, " "), out, c.outputs["stderr of "+strings.Join(args, " ")])
	}
	return out
}

// alone takes what a command printed out of what is looked at: it is the answer
// to who may have it.
func (c *cage) alone(args ...string) { delete(c.outputs, "stdout of "+strings.Join(args, " ")) }

func (c *cage) serve() {
	c.t.Helper()
	c.server = exec.Command("counterfoil", "serve", "--dev", "--log-level", "debug", "--data", c.data, "--public", "http://localhost:0", "--management", "http://localhost:0")
	c.server.Env = c.env
	c.server.Stdout, c.server.Stderr = c.out, c.log
	if err := c.server.Start(); err != nil {
		c.t.Fatal(err)
	}
	issuer, err := awaitServer(c.data)
	if err != nil {
		c.t.Fatalf("%v\n%s", err, c.log)
	}
	c.issuer = issuer
}

// seen notes the command line of a process and looks at what of its environment
// the product could have put there.
func (c *cage) seen(name string, pid int) {
	c.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		c.t.Fatal(err)
	}
	c.cmdlines["command line of "+name] = b
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		c.t.Fatal(err)
	}
	c.cmdlines["environment of "+name] = env
}

func newCage(t *testing.T) *cage {
	t.Helper()
	c := &cage{
		aviary: &aviary{t: t}, dir: t.TempDir(), out: &counterfoiltest.Buffer{}, log: &counterfoiltest.Buffer{},
		outputs: map[string][]byte{}, cmdlines: map[string][]byte{},
	}
	c.data = filepath.Join(c.dir, "data")
	c.env = append(os.Environ(), "COUNTERFOIL_CANARY="+c.input("environment"), "AWS_SECRET_ACCESS_KEY="+c.input("foreign environment"))
	bank, err := bankserver.Open(filepath.Join(c.dir, "bank.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bank.Close() })
	c.bank = &listening{next: bank.Handler()}
	server := httptest.NewServer(c.bank)
	t.Cleanup(server.Close)

	// Secrets that an operator brings: the key-encryption key and the bank's
	// credential.
	kek := bytes.Repeat([]byte("counterfoil-kek!"), 2)
	for name, text := range map[string]string{
		"kek":                base64.StdEncoding.EncodeToString(kek) + "\n",
		"secrets/bank-token": c.secret("the bank's credential", "sk-live-51HxCanaryCredential/+=0123456789") + "\n",
	} {
		path := filepath.Join(c.data, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.add("the key-encryption key", kek, false)
	c.serve()
	t.Cleanup(func() {
		if c.server.ProcessState == nil {
			c.server.Process.Kill()
			c.server.Wait()
		}
	})
	c.sealedKeys(kek)

	manifest := filepath.Join(c.dir, "canary.yaml")
	if err := os.WriteFile(manifest, fmt.Appendf(nil, canaryManifest, server.URL+"/mcp"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.applied(manifest)
	return c
}

// sealedKeys plants the server's own keys, which are sealed where they are kept:
// here they are unsealed, so that their plain text can be looked for.
func (c *cage) sealedKeys(kek []byte) {
	c.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(c.data, "counterfoil.db")+"?mode=ro")
	if err != nil {
		c.t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(`SELECT kid, sealed FROM signing_keys`)
	if err != nil {
		c.t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var kid string
		var sealed []byte
		if err := rows.Scan(&kid, &sealed); err != nil {
			c.t.Fatal(err)
		}
		pem, err := seal.Open(kek, "signing_keys/sealed", kid, sealed)
		if err != nil {
			c.t.Fatal(err)
		}
		c.keyFile(fmt.Sprintf("signing key %d", n), pem)
		n++
	}
	if rows.Err() != nil || n == 0 {
		c.t.Fatalf("%d signing keys, %v", n, rows.Err())
	}
	text, err := os.ReadFile(filepath.Join(c.data, "ledger.key"))
	if err != nil {
		c.t.Fatal(err)
	}
	sealed, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		c.t.Fatal(err)
	}
	public, err := os.ReadFile(filepath.Join(c.data, daemon.LedgerKeyName))
	if err != nil {
		c.t.Fatal(err)
	}
	verifier, err := ledger.ParseVerifier(string(public))
	if err != nil {
		c.t.Fatal(err)
	}
	secret, err := seal.Open(kek, "ledger/signing-key", verifier.Name(), sealed)
	if err != nil {
		c.t.Fatal(err)
	}
	parts := strings.Split(strings.TrimSpace(string(secret)), "+")
	raw, err := base64.StdEncoding.DecodeString(strings.Join(parts[4:], "+")) // what is base64 may have a plus too
	if err != nil || len(raw) != 33 {
		c.t.Fatalf("the ledger's key has %d bytes: %v", len(raw), err)
	}
	c.add("the ledger's key", raw[1:], false)
}

// A parcel is a request with canaries in it.
type parcel struct {
	name, method, url, body string
	header                  map[string]string
}

// send sends a parcel and looks at its answer.
func (c *cage) send(client *http.Client, p parcel) (status int, header http.Header, body []byte) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), p.method, p.url, strings.NewReader(p.body))
	if err != nil {
		c.t.Fatal(err)
	}
	var sent bytes.Buffer
	fmt.Fprintf(&sent, "%s\n%s\n", p.url, p.body)
	for name, value := range p.header {
		req.Header.Set(name, value)
		fmt.Fprintf(&sent, "%s\n", value)
		if name == "Host" {
			req.Host = value
		}
		// What is in a JWT was sent as well.
		for part := range strings.SplitSeq(value, ".") {
			if b, err := base64.RawURLEncoding.DecodeString(part); err == nil {
				sent.Write(b)
			}
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		c.t.Fatalf("%s: %v", p.name, err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("%s: %v", p.name, err)
	}
	if resp.StatusCode >= 400 {
		var got bytes.Buffer
		fmt.Fprintf(&got, "%v\n%s", resp.Header, body)
		if nonce := resp.Header.Get("DPoP-Nonce"); nonce != "" {
			c.t.Errorf("%s: a nonce that nobody asked for", p.name)
		}
		c.wantOwn(p.name, got.Bytes(), sent.Bytes())
	}
	return resp.StatusCode, resp.Header, body
}

// TestNoSecretLeaks drives the real program with a canary in every secret and
// every input, through successes, refusals and faults, and looks for each of them
// in everything that comes out: logs, ledger, metrics, answers, command lines and
// files.
func TestNoSecretLeaks(t *testing.T) {
	t.Parallel()
	c := newCage(t)
	signer, key := c.enrolled()
	token, answers := c.called(key)
	c.connected(key)
	c.stdio(key)
	c.asked(key)
	c.refused(signer, token)
	c.misused()
	c.reported()
	c.full(signer, token)
	c.lookEverywhere(answers)
	t.Logf("%d canaries, %d places of %d KiB looked at", len(c.canaries), c.looked, c.size>>10)
}

// enrolled makes an instance, and uses its code a second time.
func (c *cage) enrolled() (*credential.Signer, string) {
	c.t.Helper()
	key := filepath.Join(c.dir, "payroll.key")
	ask := []string{"agent", "enroll-code", "payroll", "--data", c.data}
	code := strings.TrimSpace(c.must("", ask...))
	c.alone(ask...) // the code is for who asked
	c.secret("an enrolment code", code)
	c.must(code+"\n", "enroll", "--issuer", c.issuer, "--agent", "payroll", "--code", "-", "--key", key)
	if _, ok := c.exec(code+"\n", "enroll", "--issuer", c.issuer, "--agent", "payroll", "--code", "-", "--key", key+".second"); ok {
		c.t.Error("a code was good twice")
	}
	if _, ok := c.exec("", "enroll", "--issuer", c.issuer, "--agent", "payroll", "--code", c.input("code on the command line"), "--key", key+".third"); ok {
		c.t.Error("a code on the command line was taken")
	}
	text, err := os.ReadFile(key)
	if err != nil {
		c.t.Fatal(err)
	}
	c.keyFile("the agent's private key", text)
	// A second code, never used, and a key file that is none.
	code = strings.TrimSpace(c.must("", ask...))
	c.alone(ask...)
	c.secret("an unused enrolment code", code)
	broken := filepath.Join(c.dir, "broken.key")
	if err := os.WriteFile(broken, []byte("-----BEGIN PRIVATE KEY-----\n"+c.input("in a broken key file")+"\n-----END PRIVATE KEY-----\n"), 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.exec("", "token", "--issuer", c.issuer, "--agent", "payroll", "--key", broken, "--resource", "kept")
	signer, err := agent.LoadKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	return signer, key
}

// signature is the part of a JWT that makes it one.
func signature(jwt string) string { return jwt[strings.LastIndexByte(jwt, '.')+1:] }

// called makes calls through the commands: of every kind of class, one refused
// and one to an upstream that is down. It returns a token of the agent's.
func (c *cage) called(key string) (token string, answers [][]byte) {
	c.t.Helper()
	who := []string{"--issuer", c.issuer, "--agent", "payroll", "--key", key}
	call := func(tool, argument string) bool {
		args := append([]string{"call", tool, "--args", `{"account":"` + argument + `"}`}, who...)
		_, ok := c.exec("", args...)
		// The bank's own answer names the account: it is the caller's.
		answers = append(answers, c.outputs["stdout of "+strings.Join(args, " ")])
		c.alone(args...)
		return ok
	}
	for _, class := range []string{"counted", "hashed", "kept"} {
		call(class+"/get_balance", c.secret("an argument of a "+class+" class", "cnryargument"+class+"0123456789"))
	}
	if call("gone/get_balance", c.secret("an argument for an upstream that is down", "cnryargumentgone0123456789")) {
		c.t.Error("a call to an upstream that is down succeeded")
	}
	call("hashed/no_such_tool", c.secret("an argument for no tool", "cnryargumentnotool0123456789"))
	ask := append([]string{"token", "--resource", "hashed"}, who...)
	token = strings.TrimSpace(c.must("", ask...))
	c.alone(ask...) // the token is for who asked
	c.secret("an access token", signature(token))
	return token, answers
}

// connected runs the connector and lets a client of the old revision, with a
// session, speak through it.
func (c *cage) connected(key string) {
	c.t.Helper()
	cmd := exec.Command("counterfoil", "connect", "--issuer", c.issuer, "--agent", "payroll", "--key", key, "--resource", "hashed", "--listen", "127.0.0.1:0")
	cmd.Env = c.env
	var stderr counterfoiltest.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	line := make([]byte, 1024)
	n, err := out.Read(line)
	if err != nil {
		c.t.Fatalf("the connector said nothing: %v\n%s", err, &stderr)
	}
	at, ok := strings.CutPrefix(strings.TrimSpace(string(line[:n])), "ready url=")
	u, err := url.Parse(at)
	if !ok || err != nil {
		c.t.Fatalf("the connector said %q", line[:n])
	}
	c.secret("the connector's path", strings.Trim(u.Path, "/"))
	c.seen("connect", cmd.Process.Pid)

	header := map[string]string{"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Mcp-Protocol-Version": "2025-11-25"}
	post := func(body string) (http.Header, []byte) {
		_, h, b := c.send(http.DefaultClient, parcel{name: "a request to the connector", method: http.MethodPost, url: at, body: body, header: header})
		return h, b
	}
	h, b := post(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"` + c.input("client name") + `","version":"1"}}}`)
	session := h.Get("Mcp-Session-Id")
	if session == "" {
		c.t.Fatalf("no session: %v %s", h, b)
	}
	c.secret("the agent's session id", session)
	header["Mcp-Session-Id"] = session
	post(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	post(`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"get_balance","arguments":{"account":"` + c.secret("an argument in a session", "cnryargumentsession0123456789") + `"}}}`)
	post(`{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"get_balance","arguments":{"` + c.secret("a name of an argument", "cnryargumentname0123456789") + `":1}}}`)
	header["Mcp-Session-Id"] = session[:len(session)-1]
	post(`{"jsonrpc":"2.0","id":4,"method":"tools/list"}`)
	c.bank.mu.Lock()
	sessions := slices.Clone(c.bank.sessions)
	c.bank.mu.Unlock()
	if len(sessions) == 0 {
		c.t.Error("the bank gave no session id")
	}
	for i, id := range sessions {
		c.secret(fmt.Sprintf("the bank's session id %d", i), id)
		if strings.Contains(session, id) {
			c.t.Error("the agent was given the bank's session id")
		}
	}
	// A path that is not its own says nothing, and what it was is not logged.
	c.send(http.DefaultClient, parcel{name: "the connector under another path", method: http.MethodPost, url: u.Scheme + "://" + u.Host + "/" + c.input("path at the connector") + "/", body: `{}`})
	if err := cmd.Process.Signal(syscall.SIGQUIT); err != nil { // its goroutines' stacks
		c.t.Fatal(err)
	}
	rest, _ := io.ReadAll(out)
	cmd.Wait()
	c.outputs["stdout of connect after its first line"] = rest
	c.outputs["stderr of connect"] = []byte(stderr.String())
	if !strings.Contains(stderr.String(), "goroutine ") {
		c.t.Error("the connector's goroutines were not dumped")
	}
}

// stdio lets a client speak to the connector over its standard streams, a client
// that makes mistakes among what it does right.
func (c *cage) stdio(key string) {
	c.t.Helper()
	args := []string{"connect", "--issuer", c.issuer, "--agent", "payroll", "--key", key, "--resource", "hashed", "--stdio"}
	lines := []string{
		`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"stdio","version":"1"}}}`,
		`{"jsonrpc":"2.0","method":"notifications/initialized"}`,
		`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"get_balance","arguments":{"account":"` + c.secret("an argument over stdio", "cnryargumentstdio0123456789") + `"}}}`,
		`{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"get_balance","arguments":{"account":"` + c.secret("an argument beside a mistake", "cnrymistake0123456789") + `","account":"x"}}}`,
		`{"` + c.input("no JSON over stdio"),
	}
	out, ok := c.exec(strings.Join(lines, "\n")+"\n", args...)
	c.alone(args...) // what the bank answered is for who asked
	if !ok || !strings.Contains(out, "cnryargumentstdio0123456789") {
		c.t.Errorf("the connector over stdio: %v %s", ok, out)
	}
}

// full lets the disk take no more and sees what a fault says.
func (c *cage) full(signer *credential.Signer, token string) {
	c.t.Helper()
	bank := c.issuer + "/r/hashed"
	j := counterfoiltest.ForgeProof(c.t, signer, http.MethodPost, bank, time.Now())
	j.Claims["ath"] = credential.TokenHash(token)
	compact := j.Compact(c.t)
	c.secret("a proof that met a full disk", signature(compact))
	limitFiles(c.t, c.server.Process.Pid, 1)
	status, _, _ := c.send(http.DefaultClient, parcel{
		name: "a call with a full disk", method: http.MethodPost, url: bank,
		body: counterfoiltest.Body("get_balance", `{"account":"`+c.secret("an argument with a full disk", "cnryargumentfull0123456789")+`"}`),
		header: map[string]string{
			"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Mcp-Protocol-Version": "2026-07-28",
			"Mcp-Method": "tools/call", "Mcp-Name": "get_balance", "Authorization": "DPoP " + token, "DPoP": compact,
		},
	})
	if status != http.StatusServiceUnavailable {
		c.t.Errorf("a call with a full disk: HTTP %d", status)
	}
	limitFiles(c.t, c.server.Process.Pid, ^uint64(0))
	deadline := time.Now().Add(counterfoiltest.Timeout)
	for {
		if _, ok := c.exec("", "agent", "suspend", "payroll", "--reason", "done", "--data", c.data); ok {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatal("the ledger takes no more entries")
		}
		<-time.After(20 * time.Millisecond) // another process, which probes by itself
	}
}
