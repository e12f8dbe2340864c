package counterfoiltest_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	. "github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/daemon"
	"github.com/counterfoil/counterfoil/ledger"
)

type m = map[string]any

var operating = m{"account": "operating"}

func TestAgentCallsWhatItIsGrantedAndNothingElse(t *testing.T) {
	t.Parallel()
	sys := New(t)
	payroll := sys.Agent("payroll")

	WantDone(t, payroll.Call("get_balance", operating))
	WantRefused(t, payroll.Call("list_payees", m{}), counterfoil.ToolNotGranted)
	WantRefused(t, payroll.Call("no_such_tool", m{}), counterfoil.ToolUnknown)
	WantRefused(t, payroll.Call("pay", m{"to": "acme", "amount": 100, "currency": "EUR"}), counterfoil.ApprovalRequired)
	WantDone(t, sys.Agent("auditor").Call("list_payees", m{})) // the control: the tool works for who is granted it

	if paid, err := sys.Bank.Payments(t.Context()); err != nil || len(paid) != 0 {
		t.Errorf("payments %v, %v", paid, err)
	}
	if tools := payroll.Tools(); !slices.Equal(slices.Sorted(slices.Values(tools)), []string{"get_balance", "pay"}) {
		t.Errorf("payroll is shown %v", tools)
	}
	if sys.UpstreamCalls() != 2 {
		t.Errorf("%d calls reached the bank, want 2", sys.UpstreamCalls())
	}
	sys.CheckLedger()
}

func TestNothingOfTheAgentGoesUpstream(t *testing.T) {
	t.Parallel()
	sys := New(t)
	payroll := sys.Agent("payroll")
	WantDone(t, payroll.Call("get_balance", operating))
	if a := payroll.Send(Wire{Header: map[string]string{"X-Canary": "canary", "Cookie": "canary", "X-Forwarded-For": "10.9.8.7", "Traceparent": "canary"}}); a.Status != http.StatusOK {
		t.Fatalf("HTTP %d %s", a.Status, a.Body)
	}
	token := payroll.Token()
	headers := sys.UpstreamHeaders()
	if len(headers) == 0 {
		t.Fatal("nothing reached the bank")
	}
	for _, h := range headers {
		for name, values := range h {
			for _, v := range values {
				if strings.Contains(v, token) || strings.Contains(v, "canary") || strings.Contains(v, "10.9.8.7") {
					t.Errorf("the bank saw %s: %s", name, v)
				}
			}
			if name == "Authorization" || name == "Dpop" {
				t.Errorf("the bank saw a header %s", name)
			}
		}
	}
	for _, e := range sys.Entries() {
		b, err := ledger.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), token) {
			t.Errorf("entry %d has the token", e.Index)
		}
	}
	if strings.Contains(sys.Log.String(), token) {
		t.Error("the log has the token")
	}
	sys.CheckLedger()
}

func TestOffboardingStopsLiveTokens(t *testing.T) {
	t.Parallel()
	sys := New(t)
	payroll, twin, auditor := sys.Agent("payroll"), sys.Agent("payroll"), sys.Agent("auditor")
	for _, a := range []*Agent{payroll, twin, auditor} {
		if got := a.Send(Wire{}); got.Status != http.StatusOK || got.Code != "" {
			t.Fatalf("%s before: HTTP %d %s", a.Name, got.Status, got.Body)
		}
	}
	token := payroll.Token()
	proof := payroll.Proof()
	sys.Offboard("payroll")
	if got := payroll.Send(Wire{Token: token, Proof: proof}); got.Status != http.StatusUnauthorized || got.Code != counterfoil.TokenRevoked {
		t.Errorf("the live token after: HTTP %d %s", got.Status, got.Body)
	}
	if _, err := twin.For(sys.BankURL()).Token(t.Context()); counterfoil.CodeOf(orNil(err)) != counterfoil.ClientRefused {
		t.Errorf("a new token for another instance after: %v", err)
	}
	if got := auditor.Send(Wire{}); got.Status != http.StatusOK || got.Code != "" {
		t.Errorf("another agent after: HTTP %d %s", got.Status, got.Body)
	}
	if problems := sys.TryApply("kind: Agent\nname: payroll\nowner: ana\nenvironment: prod\n"); len(problems) == 0 {
		t.Error("the name of an offboarded agent came back")
	}
	sys.CheckLedger()
}

func orNil(err error) error {
	if err == nil {
		return fmt.Errorf("no error")
	}
	return err
}

func TestSuspendedAgentResumesWithNewTokensOnly(t *testing.T) {
	t.Parallel()
	sys := New(t)
	payroll := sys.Agent("payroll")
	token := payroll.Token()
	send := func() WireAnswer { return payroll.Send(Wire{Token: token}) }
	if got := send(); got.Status != http.StatusOK {
		t.Fatalf("before: HTTP %d %s", got.Status, got.Body)
	}
	sys.Suspend("payroll")
	if got := send(); got.Status != http.StatusUnauthorized || got.Code != counterfoil.AgentSuspended {
		t.Errorf("suspended: HTTP %d %s", got.Status, got.Body)
	}
	sys.Resume("payroll")
	if got := send(); got.Status != http.StatusUnauthorized || got.Code != counterfoil.TokenRevoked {
		t.Errorf("the old token after resuming: HTTP %d %s", got.Status, got.Body)
	}
	WantDone(t, payroll.CallAt(payroll.For(sys.BankURL()), "get_balance", operating))
	sys.CheckLedger()
}

func TestOneProofIsGoodForOneRequestAlsoAcrossARestart(t *testing.T) {
	t.Parallel()
	sys := New(t)
	payroll := sys.Agent("payroll")
	token, proof, later := payroll.Token(), payroll.Proof(), payroll.Proof()
	if got := payroll.Send(Wire{Token: token, Proof: proof}); got.Status != http.StatusOK {
		t.Fatalf("first use: HTTP %d %s", got.Status, got.Body)
	}
	if got := payroll.Send(Wire{Token: token, Proof: proof}); got.Code != counterfoil.ProofReplayed {
		t.Errorf("second use: HTTP %d %s", got.Status, got.Body)
	}
	sys.Restart()
	sys.Clock.Advance(time.Second)
	if got := payroll.Send(Wire{Token: token, Proof: proof}); got.Code != counterfoil.ProofReplayed {
		t.Errorf("after a restart: HTTP %d %s", got.Status, got.Body)
	}
	if got := payroll.Send(Wire{Token: token, Proof: later}); got.Status != http.StatusOK || got.Code != "" {
		t.Errorf("an unused proof after a restart: HTTP %d %s", got.Status, got.Body)
	}
	sys.CheckLedger()
}

func TestTokensExpireOnTheClock(t *testing.T) {
	t.Parallel()
	sys := New(t)
	payroll := sys.Agent("payroll")
	token := payroll.Token()
	sys.Clock.Advance(4*time.Minute + 50*time.Second)
	if got := payroll.Send(Wire{Token: token, Proof: proofFor(t, sys, payroll, token)}); got.Status != http.StatusOK {
		t.Errorf("before the end: HTTP %d %s", got.Status, got.Body)
	}
	sys.Clock.Advance(time.Minute)
	if got := payroll.Send(Wire{Token: token, Proof: proofFor(t, sys, payroll, token)}); got.Code != counterfoil.TokenExpired {
		t.Errorf("after it: HTTP %d %s", got.Status, got.Body)
	}
	sys.CheckLedger()
}

func TestAMalformedManifestChangesNothing(t *testing.T) {
	t.Parallel()
	sys := New(t)
	_, before := sys.Admin(http.MethodGet, "/api/v1/agents", nil)
	problems := sys.TryApply("kind: Agent\nname: fresh\nowner: ana\nenvironment: prod\n---\nkind: Agent\nname: Bad Name\nowner: nobody\ngrants: [{tools: [bank/fly]}]\ncolour: red\n")
	if len(problems) < 3 {
		t.Errorf("only these problems were told: %q", problems)
	}
	for _, p := range problems {
		if !strings.HasPrefix(p, "test.yaml:") {
			t.Errorf("problem without file and line: %s", p)
		}
	}
	if _, after := sys.Admin(http.MethodGet, "/api/v1/agents", nil); string(after) != string(before) {
		t.Errorf("the registry changed:\n%s\n%s", before, after)
	}
	if problems := sys.TryApply("kind: Agent\nname: fresh\nowner: ana\nenvironment: prod\n"); len(problems) > 0 {
		t.Errorf("the good half alone: %q", problems)
	}
	sys.CheckLedger()
}

func TestApplyTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	sys := New(t)
	size := len(sys.Entries())
	manifest := fmt.Sprintf(Manifest, sys.BankUpstream())
	sys.Apply(manifest)
	if after := len(sys.Entries()); after != size {
		t.Errorf("the second apply made %d entries", after-size)
	}
	sys.CheckLedger()
}

// TestDamagedFilesStopTheStart shows that what is damaged is neither repaired
// silently nor replaced by something new.
func TestDamagedFilesStopTheStart(t *testing.T) {
	t.Parallel()
	overwrite := func(name string, data []byte) func(*System) error {
		return func(s *System) error { return os.WriteFile(filepath.Join(s.Dir, name), data, 0o600) }
	}
	remove := func(names ...string) func(*System) error {
		return func(s *System) error {
			var errs []error
			for _, name := range names {
				errs = append(errs, os.Remove(filepath.Join(s.Dir, name)))
			}
			return errors.Join(errs...)
		}
	}
	for _, c := range []struct {
		name   string
		damage func(*System) error
		says   string // what the operator must read
	}{
		{"nothing", func(*System) error { return nil }, ""},
		{"the KEK is another", overwrite("kek", []byte("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")), "key-encryption key"},
		{"the KEK is cut", overwrite("kek", []byte("AAAA\n")), "put back the file"},
		{"the KEK is gone", remove("kek"), "put back the file"},
		{"the ledger's key is garbage", overwrite("ledger.key", []byte("garbage")), "put back a copy"},
		{"the ledger's key is gone", remove("ledger.key"), "put back"},
		{"the database is garbage", overwrite("counterfoil.db", []byte(strings.Repeat("garbage ", 4096))), "restore"},
		{"the database is gone", remove("counterfoil.db"), "restore"},
		{"the database is gone, and every checkpoint", remove("counterfoil.db", "checkpoint"), "put back the newest copy"},
		{"the database is empty, and no checkpoint is kept", func(s *System) error {
			return errors.Join(remove("checkpoint")(s), overwrite("counterfoil.db", nil)(s))
		}, "put back the newest copy"},
		{"the database, every checkpoint and the KEK are gone", remove("counterfoil.db", "checkpoint", "kek"), "put back the file"},
		{"the folder is open to others", func(s *System) error { return os.Chmod(s.Dir, 0o755) }, "chmod 700"},
		{"the KEK is open to others", func(s *System) error { return os.Chmod(filepath.Join(s.Dir, "kek"), 0o644) }, "chmod 600"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			sys := New(t)
			WantDone(t, sys.Agent("payroll").Call("get_balance", operating))
			sys.Stop()
			if err := c.damage(sys); err != nil {
				t.Fatal(err)
			}
			err := sys.TryStart()
			switch {
			case c.says == "" && err != nil:
				t.Errorf("the undamaged folder does not start: %v", err)
			case c.says != "" && err == nil:
				t.Error("it started")
			case c.says != "" && !strings.Contains(err.Error(), c.says):
				t.Errorf("the error does not say %q: %v", c.says, err)
			}
			// A refused start makes nothing that the next would take for sound.
			if c.says != "" {
				if again := sys.TryStart(); again == nil || !strings.Contains(again.Error(), c.says) {
					t.Errorf("and then: %v", again)
				}
			}
		})
	}
}

func TestAnOldDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	sys := New(t)
	payroll := sys.Agent("payroll")
	sys.Stop()
	db := filepath.Join(sys.Dir, "counterfoil.db")
	old, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	sys.Start()
	WantDone(t, payroll.Call("get_balance", operating))
	sys.Offboard("payroll")
	sys.Stop()
	for _, suffix := range []string{"-wal", "-shm"} {
		os.Remove(db + suffix)
	}
	if err := os.WriteFile(db, old, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sys.TryStart(); err == nil || !strings.Contains(err.Error(), "counterfoil restore") {
		t.Errorf("starting on the database from before the offboarding: %v", err)
	}
}

func TestTheIssuerNeverChanges(t *testing.T) {
	t.Parallel()
	other := ""
	sys := New(t, func(c *daemon.Config) {
		if other != "" {
			c.Public.URL = other
		}
	})
	issuer := sys.Issuer()
	sys.Restart()
	if sys.Issuer() != issuer {
		t.Errorf("%s became %s", issuer, sys.Issuer())
	}
	sys.Stop()
	other = "http://localhost:1"
	if err := sys.TryStart(); err == nil || !strings.Contains(err.Error(), issuer) {
		t.Errorf("starting with another address: %v", err)
	}
}

func TestAClockBeforeTheLastEntryNeedsConfirming(t *testing.T) {
	t.Parallel()
	confirm := false
	sys := New(t, func(c *daemon.Config) { c.ConfirmClock = confirm })
	payroll := sys.Agent("payroll")
	token, proof := payroll.Token(), payroll.Proof()
	if got := payroll.Send(Wire{Token: token, Proof: proof}); got.Status != http.StatusOK {
		t.Fatalf("before: HTTP %d %s", got.Status, got.Body)
	}
	sys.Stop()
	sys.Clock.Advance(-time.Hour)
	if err := sys.TryStart(); err == nil || !strings.Contains(err.Error(), "clock") {
		t.Fatalf("starting an hour before the last entry: %v", err)
	}
	confirm = true
	sys.Start()
	sys.Clock.Advance(time.Hour)
	// It is not known what was used: a proof without a nonce of ours is asked for one.
	if got := payroll.Send(Wire{Token: token, Proof: proof}); got.Code != counterfoil.NonceRequired && got.Code != counterfoil.ProofReplayed {
		t.Errorf("a proof from before: HTTP %d %s", got.Status, got.Body)
	}
	WantDone(t, payroll.Call("get_balance", operating)) // an honest agent answers the nonce
	sys.CheckLedger()
}

// TestWhatIsMissingIsWarnedOf: what an operator may still bring is a warning at
// apply and a refusal at the call.
func TestWhatIsMissingIsWarnedOf(t *testing.T) {
	t.Parallel()
	sys := New(t)
	vault := fmt.Sprintf("kind: Resource\nname: vault\ntype: mcp\nenvironment: prod\nupstream: %s\ncredential: {header: Authorization, prefix: \"Bearer \", file: vault-token}\n"+
		"tools:\n  - {name: get_balance, class: read}\n---\nkind: Agent\nname: keeper\nowner: ana\nenvironment: prod\ngrants:\n  - tools: [vault/get_balance]\n", sys.BankUpstream())
	if w := strings.Join(sys.Warnings(vault), "\n"); !strings.Contains(w, "Resource vault: its credential cannot be used") {
		t.Errorf("a missing secret: %q", w)
	}
	keeper := sys.Agent("keeper")
	at := keeper.For(sys.Issuer() + "/r/vault")
	if a := keeper.CallAt(at, "get_balance", operating); a.Err == nil {
		t.Errorf("called without the credential: %+v", a.Result)
	}
	secret := filepath.Join(sys.Dir, "secrets", "vault-token")
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.WriteFile(elsewhere, []byte("s3cr3t-elsewhere\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	inside := filepath.Join(sys.Dir, "secrets", "inside")
	for _, bad := range []struct {
		says string
		make func() error
	}{
		{"is a link out of", func() error { return os.Symlink(elsewhere, secret) }},
		{"not a regular file", func() error { return syscall.Mkfifo(secret, 0o600) }},
		{"is empty", func() error { return os.WriteFile(secret, []byte("\n"), 0o600) }},
		{"line break", func() error { return os.WriteFile(secret, []byte("a\r\nX-Evil: b\n"), 0o600) }},
		{"larger than", func() error { return os.WriteFile(secret, bytes.Repeat([]byte("a"), 9<<10), 0o600) }},
	} {
		os.Remove(secret)
		if err := bad.make(); err != nil {
			t.Fatal(err)
		}
		if w := strings.Join(sys.Warnings(vault), "\n"); !strings.Contains(w, bad.says) || strings.Contains(w, "s3cr3t") {
			t.Errorf("a secret of which should be said that it %s: %q", bad.says, w)
		}
		if a := keeper.CallAt(at, "get_balance", operating); a.Err == nil {
			t.Errorf("called with a secret that %s: %+v", bad.says, a.Result)
		}
	}
	os.Remove(secret)
	if err := os.WriteFile(inside, []byte("s3cr3t-canary\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("inside", secret); err != nil { // as in a mounted volume
		t.Fatal(err)
	}
	if w := strings.Join(sys.Warnings(vault), "\n"); strings.Contains(w, "vault") {
		t.Errorf("with the secret there: %q", w)
	}
	WantDone(t, keeper.CallAt(at, "get_balance", operating))
	sent := false
	for _, h := range sys.UpstreamHeaders() {
		sent = sent || h.Get("Authorization") == "Bearer s3cr3t-canary"
	}
	if !sent {
		t.Error("the upstream did not get its credential")
	}
	if strings.Contains(string(sys.Export())+sys.Log.String(), "s3cr3t-canary") {
		t.Error("the secret is in the ledger or the log")
	}
	gone := "kind: Resource\nname: gone\ntype: mcp\nenvironment: prod\nupstream: http://127.0.0.1:1/mcp\ntools: [{name: x, class: read}]\n"
	if w := strings.Join(sys.Warnings(gone), "\n"); !strings.Contains(w, "Resource gone: its upstream did not say what its tools are") {
		t.Errorf("an upstream that is not there: %q", w)
	}
	sys.CheckLedger()
}

// TestTheExampleManifestApplies: what the README tells newcomers to apply.
func TestTheExampleManifestApplies(t *testing.T) {
	t.Parallel()
	sys := New(t)
	b, err := os.ReadFile("../../examples/bank/bank.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sys.Offboard("payroll") // the harness's own, of another environment
	text := strings.Replace(string(b), "http://127.0.0.1:9000/mcp", sys.BankUpstream(), 1)
	sys.Apply(strings.Replace(text, "name: payroll", "name: payer", 1))
	payer := sys.Agent("payer")
	WantDone(t, payer.Call("get_balance", operating))
	WantRefused(t, payer.Call("list_payees", m{}), counterfoil.ToolNotGranted)
	WantRefused(t, payer.Call("pay", m{"to": "acme", "amount": 1, "currency": "EUR"}), counterfoil.ApprovalRequired)
	WantRefused(t, payer.Call("pay", m{"to": "acme", "amount": 60000, "currency": "EUR"}), counterfoil.PolicyForbids)
	sys.CheckLedger()
}
