package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/counterfoil/counterfoil"
	agents "github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// screenshotsEnv names a folder for a picture of every page, at the width of a phone
// and of a desk, light and dark.
const screenshotsEnv = "COUNTERFOIL_SCREENSHOTS"

// A place is a page in a state, and who looks at it; nobody is who is not logged in.
type place struct {
	name, path string
	by         *tab
}

// lived is a system in which things have happened: every page has something on it.
func lived(t *testing.T, sys *counterfoiltest.System) []place {
	t.Helper()
	ana, bo, cy, nobody := enrolled(t, sys, "ana"), enrolled(t, sys, "bo"), enrolled(t, sys, "cy"), open(t, sys, "nobody")
	agent := sys.Agent("payroll")
	till := agent.For(sys.TillURL())

	done := paymentOrder(1250, "globex")
	first := agent.Ask(agent.Transport, "pay", done)
	bo.approves(first)
	cy.approves(first)
	if a := agent.Call("pay", done); a.Err != nil || a.Refusal != nil {
		t.Fatalf("the approved call ended with %v %v", a.Refusal, a.Err)
	}
	agent.Call("get_balance", map[string]any{})
	agent.Call("list_payees", map[string]any{})

	denied := agent.Ask(agent.Transport, "pay", paymentOrder(44000, "initech"))
	bo.visit("/approvals/" + denied)
	bo.read()
	bo.click("#refuse")
	bo.click(`[data-reason="Not expected"]`)
	bo.until(`document.querySelector(".closed") !== null`)

	waits := agent.Ask(agent.Transport, "pay", paymentOrder(9999.5, "acme"))
	hidden := agent.Ask(till, "pay", paymentOrder(12, "p\u0430ypal \u202egpj.exe\u200b"))
	half := agent.Ask(agent.Transport, "pay", paymentOrder(310, "acme"))
	bo.approves(half)
	long := agent.Ask(agent.Transport, "pay", paymentOrder(90, strings.Repeat("Where this goes, at some length.\n", 200)))
	cut := agent.Ask(agent.Transport, "pay", paymentOrder(95, strings.Repeat("Where this goes, at great length. ", 600)))

	tasks, inTask := agentTasks(t, sys, agent)
	top, err := tasks.Open(t.Context(), agents.OpenTask{Purpose: "Pay what is due in March", MaxCalls: 20, Limits: []agents.TaskLimit{{Class: "payout", Sum: "amount", Max: "5000"}}})
	must(t, err)
	_, err = tasks.Open(t.Context(), agents.OpenTask{Purpose: "Look up what is left", Parent: top.ID, Tools: []counterfoil.ToolID{{Resource: "bank", Tool: "get_balance"}}})
	must(t, err)
	over, err := tasks.Open(t.Context(), agents.OpenTask{Purpose: "Pay what was due in February"})
	must(t, err)
	_, err = tasks.Complete(t.Context(), over.ID, "all of it is paid")
	must(t, err)
	working := inTask(top.ID)
	agent.CallAt(working, "get_balance", map[string]any{})
	task := agent.Ask(working, "pay", paymentOrder(2750, "globex"))

	lost := sys.Agent("payroll") // another instance
	lost.Call("get_balance", map[string]any{})
	sys.Apply("{kind: Person, name: dee, email: dee@example.com}")
	revoked := revoke(t, sys, "instance", lost.Instance)
	revoke(t, sys, "person", "dee")
	revoke(t, sys, "agent", "auditor")

	var decided int64
	for _, e := range sys.Entries() {
		if e.Kind == ledger.CallDecided && e.Approval.ID == first && e.Decision == ledger.Allow {
			decided = e.Index
		}
	}
	return []place{
		{"login", "/login", nobody}, {"enrol", "/enrol", nobody},
		{"inbox-empty", "/", ana}, {"inbox", "/", bo}, {"approval", "/approvals/" + waits, bo}, {"approval-hidden", "/approvals/" + hidden, bo},
		{"approval-long", "/approvals/" + long, bo}, {"approval-cut", "/approvals/" + cut, bo},
		{"approval-mine", "/approvals/" + half, bo}, {"approval-owner", "/approvals/" + half, ana},
		{"approval-done", "/decided/" + first, bo}, {"approval-refused", "/decided/" + denied, ana}, {"decided", "/decided", bo},
		{"approval-task", "/approvals/" + task, bo}, {"task-end", "/revoke?kind=task&id=" + top.ID, ana}, {"revoke-person", "/revoke?kind=person&id=bo", ana},
		{"revoke-owner", "/revoke?kind=owner&id=ana", ana}, {"revocations", "/revocations", ana}, {"revocation", fmt.Sprintf("/revocations/%d", revoked), ana},
		{"resources", "/resources", ana},
		{"agents", "/agents", ana}, {"agent", "/agents/payroll", ana}, {"suspend", "/agents/payroll/suspend", ana}, {"offboard", "/agents/payroll/offboard", ana},
		{"people", "/people", ana}, {"ledger", "/ledger", ana}, {"ledger-none", "/ledger?agent=nobody", ana}, {"entry", fmt.Sprintf("/ledger/%d", decided), ana},
		{"health", "/health", ana}, {"not-found", "/nothing", bo}, {"role", "/agents", cy},
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// agentTasks is what an agent opens its tasks with, and what signs its requests in one.
func agentTasks(t *testing.T, sys *counterfoiltest.System, a *counterfoiltest.Agent) (tasks *agents.Tasks, in func(task string) *agents.Transport) {
	t.Helper()
	cfg := agents.Config{Issuer: sys.Issuer(), Agent: a.Name, Signer: a.Signer, Resource: sys.BankURL(), Now: sys.Clock.Now}
	tasks, err := agents.NewTasks(cfg)
	must(t, err)
	return tasks, func(task string) *agents.Transport {
		cfg.Task = task
		transport, err := agents.NewTransport(cfg)
		must(t, err)
		return transport
	}
}

// revoke takes authority away at the machine, and returns the index of the entry.
func revoke(t *testing.T, sys *counterfoiltest.System, kind, id string) int64 {
	t.Helper()
	status, body := sys.Admin("POST", "/api/v1/revocations", map[string]any{"kind": kind, "id": id, "reason": "a drill"})
	var done struct {
		Index int64 `json:"index"`
	}
	if err := ijson.UnmarshalLax(body, &done); status != 200 || err != nil {
		t.Fatalf("revoking %s %s: %d %s", kind, id, status, body)
	}
	return done.Index
}

// TestConsolePages: every page, light and dark, has no serious fault that axe finds,
// scrolls in one direction only, and makes no browser complain.
func TestConsolePages(t *testing.T) {
	t.Parallel()
	axe, err := os.ReadFile(filepath.Join("node_modules", "axe-core", "axe.min.js"))
	if err != nil && os.Getenv("COUNTERFOIL_E2E") == "require" {
		t.Fatalf("%v: run make deps", err)
	} else if err != nil {
		t.Skipf("not run, %v: make deps installs what is missing", err)
	}
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	places := lived(t, sys)
	pictures := os.Getenv(screenshotsEnv)
	for _, p := range places {
		for _, at := range []struct {
			width  int64
			scheme string
			audit  bool
		}{{390, "light", false}, {390, "dark", true}, {1280, "dark", false}, {1280, "light", true}} {
			if !at.audit && pictures == "" {
				continue
			}
			look(p.by, at.width, at.scheme)
			p.by.visit(p.path)
			if pictures != "" {
				picture(p.by, filepath.Join(pictures, fmt.Sprintf("%s-%d-%s.png", p.name, at.width, at.scheme)))
			}
			if !at.audit {
				continue
			}
			if wide := eval[float64](p.by, `document.documentElement.scrollWidth - innerWidth`); wide > 0 {
				t.Errorf("%s is %v px wider than a window of %d", p.name, wide, at.width)
			}
			if small := eval[string](p.by, tooSmall); at.width == 390 && small != "" {
				t.Errorf("%s has targets that are smaller than a finger: %s", p.name, small)
			}
			if found := audit(p.by, string(axe)); found != "" {
				t.Errorf("%s, %s:\n%s", p.name, at.scheme, found)
			}
			p.by.quiet()
		}
	}
}

// tooSmall lists links, buttons and fields that stand alone and are lower than 44 px.
// Links within a sentence or a row of facts are exempt (WCAG 2.2, 2.5.8, inline).
const tooSmall = `[...document.querySelectorAll("button, input, select, summary, a.button, nav a, .back a, .ask > a")]
	.filter((e) => e.checkVisibility() && e.type !== "hidden" && e.getBoundingClientRect().height < 43.5)
	.map((e) => (e.id || e.className || e.textContent.trim()) + " " + e.getBoundingClientRect().height).join(", ")`

// look sets the width of the window and the preferred scheme.
func look(b *tab, width int64, scheme string) {
	b.t.Helper()
	height := int64(844)
	if width > 700 {
		height = 900
	}
	do(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 700})
	do(b, emulation.SetTouchEmulationEnabled, emulation.SetTouchEmulationEnabledParams{Enabled: width < 700})
	do(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
}

func picture(b *tab, file string) {
	b.t.Helper()
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o755)
	}
	if err == nil {
		err = os.WriteFile(file, png, 0o644)
	}
	if err != nil {
		b.t.Fatalf("a picture of %s: %v", file, err)
	}
}

// audit returns what axe finds on the page that is serious or worse. It comes into the
// page by the debugger, to which the page's policy does not apply.
func audit(b *tab, axe string) string {
	b.t.Helper()
	eval[bool](b, axe+"; true")
	return strings.TrimSpace(eval[string](b, `axe.run(document, {resultTypes: ["violations"]}).then((r) => r.violations
		.filter((v) => v.impact === "serious" || v.impact === "critical")
		.map((v) => v.impact + " " + v.id + ": " + v.help + "\n" + v.nodes.slice(0, 4).map((n) => "    " + n.html.slice(0, 200) + "\n      " + (n.any[0]?.message ?? "")).join("\n"))
		.join("\n"))`))
}
