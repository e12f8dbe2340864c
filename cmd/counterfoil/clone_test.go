package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

// What an administrator sees of a cloned key, and does.
func TestQuarantineAndRelease(t *testing.T) {
	t.Parallel()
	sys := counterfoiltest.New(t)
	victim, thief := sys.Agent("payroll"), sys.AgentWith("auditor", counterfoiltest.NewSigner(t, credential.ES256))
	agent := func(args ...string) string {
		return command(t, "", append(append([]string{"agent"}, args...), "--data", sys.Dir)...)
	}
	if out := agent("show", "payroll"); !strings.Contains(out, "1 live instances") || strings.Contains(out, "quarantined") {
		t.Errorf("before: %s", out)
	}
	stolen := counterfoiltest.NewTokenRequest(t, sys.Issuer(), sys.BankURL(), thief.Name, thief.Signer, sys.Clock.Now())
	stolen.Proof = counterfoiltest.ForgeProof(t, victim.Signer, http.MethodPost, sys.Issuer()+"/oauth/token", sys.Clock.Now())
	resp, err := http.DefaultClient.Do(stolen.Request(t, sys.Issuer()+"/oauth/token"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()

	out := agent("show", "payroll")
	for deadline := time.Now().Add(counterfoiltest.Timeout); !strings.Contains(out, "quarantined") && time.Now().Before(deadline); {
		out = agent("show", "payroll")
	}
	if !strings.Contains(out, "0 live instances") || !strings.Contains(out, "# instance "+victim.Instance+" is quarantined: its key was seen in two places\n") {
		t.Errorf("show: %s", out)
	}
	if out := agent("list"); !strings.Contains(out, "QUARANTINED") {
		t.Errorf("list: %s", out)
	}
	if out := agent("instances", "payroll"); !strings.Contains(out, victim.Instance+"  quarantined") {
		t.Errorf("instances: %s", out)
	}
	if out := agent("show", "payroll", "--json"); !strings.Contains(out, `"quarantined":["`+victim.Instance+`"]`) {
		t.Errorf("show --json: %s", out)
	}
	// A suspension that ends frees nothing; who is named is released.
	if out := agent("suspend", "payroll", "--reason", "maintenance"); !strings.HasPrefix(out, "suspended payroll\n  tokens") {
		t.Errorf("suspend: %q", out)
	}
	if out := agent("resume", "payroll"); out != "resumed payroll\ninstance "+victim.Instance+" stays quarantined: its key was seen in two places; --release "+victim.Instance+" releases it\n" {
		t.Errorf("resume: %q", out)
	}
	if out := agent("show", "payroll"); !strings.Contains(out, "0 live instances") {
		t.Errorf("resumed: %s", out)
	}
	counterfoiltest.WantRefused(t, victim.Call("get_balance", map[string]any{"account": "operating"}), counterfoil.AgentSuspended)
	if out := agent("resume", "payroll", "--release", victim.Instance, "--reason", "a new key is on its way"); out != "resumed payroll\nreleased instance "+victim.Instance+", whose key was seen in two places\n" {
		t.Errorf("release: %q", out)
	}
	if out := agent("show", "payroll"); !strings.Contains(out, "1 live instances") || strings.Contains(out, "quarantined") {
		t.Errorf("after: %s", out)
	}
	counterfoiltest.WantDone(t, victim.Call("get_balance", map[string]any{"account": "operating"}))
	sys.CheckLedger()
}
