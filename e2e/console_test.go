package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

func paymentOrder(amount float64, to string) map[string]any {
	return map[string]any{"amount": amount, "currency": "EUR", "to": to}
}

// TestConsoleTwoPeopleSign: whoever comes first, the call runs once both have signed,
// and never by the agent's owner. Pages announce what is new and move nothing.
func TestConsoleTwoPeopleSign(t *testing.T) {
	t.Parallel()
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	ana, bo, cy := enrolled(t, sys, "ana"), enrolled(t, sys, "bo"), enrolled(t, sys, "cy")
	agent := sys.Agent("payroll")

	bo.says("main", "Nothing waits for you")
	for i, order := range [][]*tab{{bo, cy}, {cy, bo}} {
		first, second := order[0], order[1]
		first.visit("/")
		pay := paymentOrder(100.25+float64(i), "globex")
		id := agent.Ask(agent.Transport, "pay", pay)
		first.until(`document.querySelector("#live")?.textContent.startsWith("1 new")`)
		first.says("#live", "1 new", "Show")
		if n := eval[int](first, `document.querySelectorAll(".ask").length`); n != 0 {
			t.Errorf("%d rows were pushed into the page of %s", n, first.name)
		}
		first.click("#live a")
		first.until(`document.querySelectorAll(".ask").length === 1`)
		first.says(".ask", fmt.Sprintf("Pay %.2f EUR to globex", 100.25+float64(i)), "payroll", "bank/pay", "irreversible", "0 of 2 signed", "min left")

		second.visit("/approvals/" + id)
		first.approves(id)
		first.says(".mine", "You approved this", "Nothing runs yet", second.name+" may sign")
		second.until(`document.querySelector("#live")?.textContent.startsWith("This approval has changed")`)
		counterfoiltest.WantRefused(t, agent.Call("pay", pay), counterfoil.ApprovalPending)

		ana.visit("/approvals/" + id)
		ana.says("main", "owns the agent")
		if eval[bool](ana, `document.querySelector("#approve") !== null`) {
			t.Error("the agent's owner is shown a button to approve with")
		}

		second.approves(id)
		second.says("main", "Everybody who is needed has signed")
		if a := agent.Call("pay", pay); a.Err != nil || a.Refusal != nil {
			t.Fatalf("the approved call ended with %v %v", a.Refusal, a.Err)
		}
		first.visit("/approvals/" + id)
		first.until(`document.querySelector(".closed").innerText.includes("Done") || document.querySelector("#live a")?.click()`)
		first.says(".closed", "ran once")
		first.says(".stub", "bo", "cy", "Call decided", "Verify offline")
	}
	for _, b := range []*tab{ana, bo, cy} {
		b.quiet()
	}

	// What the page gives is enough without the server.
	proof := eval[string](bo, `fetch(document.querySelector("a[download]").href).then((r) => r.text())`)
	file := filepath.Join(t.TempDir(), "proof.json")
	verify := func(text string) (string, error) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), binary(t), "ledger", "verify", file, "--key", filepath.Join(sys.Dir, "ledger.pub")).CombinedOutput()
		return string(out), err
	}
	if out, err := verify(proof); err != nil || !strings.Contains(out, "2 assertions verified") {
		t.Errorf("counterfoil ledger verify: %v\n%s", err, out)
	}
	if out, err := verify(strings.ReplaceAll(proof, "globex", "initech")); err == nil {
		t.Errorf("a proof of another payee verifies:\n%s", out)
	}
	sys.CheckLedger()
}

// TestConsoleRefusal: one tap gives the reason, and the agent is told it.
func TestConsoleRefusal(t *testing.T) {
	t.Parallel()
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	bo := enrolled(t, sys, "bo")
	agent := sys.Agent("payroll")
	pay := paymentOrder(9000, "GB33BUKB20201555555555")
	id := agent.Ask(agent.Transport, "pay", pay)

	bo.visit("/approvals/" + id)
	if !eval[bool](bo, `document.querySelector("#approve").disabled && document.querySelector("#refuse").disabled`) {
		t.Error("it can be signed before the payload was on screen")
	}
	bo.says("#say", "Read the payload")
	bo.read()
	bo.says("#say", "You have had the whole payload on screen")
	bo.click("#refuse")
	bo.click(`[data-reason="Wrong amount or target"]`)
	bo.until(`document.querySelector(".closed") !== null`)
	bo.says(".closed", "Refused", "Nothing ran")
	bo.says(".seats", "bo (you) refused", "Wrong amount or target")

	answer := agent.Call("pay", pay)
	counterfoiltest.WantRefused(t, answer, counterfoil.ApprovalDenied)
	if r := answer.Refusal; r == nil || r.Approval == nil || r.Approval.Reason != "Wrong amount or target" {
		t.Errorf("the agent was told %+v", r)
	}
	bo.quiet()
	sys.CheckLedger()
}

// TestConsoleByKeyboard: from the inbox to the signature without a pointer.
func TestConsoleByKeyboard(t *testing.T) {
	t.Parallel()
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	bo := enrolled(t, sys, "bo")
	agent := sys.Agent("payroll")
	till := agent.For(sys.TillURL())
	agent.Ask(till, "pay", paymentOrder(1, "first"))
	second := paymentOrder(2, "second")
	id := agent.Ask(till, "pay", second)

	bo.visit("/")
	bo.until(`document.querySelectorAll(".ask").length === 2`)
	bo.keys("j")
	bo.keys("j")
	bo.keys("k")
	bo.keys("j")
	bo.keys("\r")
	bo.until(`location.pathname === "/approvals/` + id + `"`)
	focused := func() string {
		return eval[string](bo, `document.activeElement.id || document.activeElement.textContent.trim()`)
	}
	for range 40 {
		bo.keys("\t")
		if focused() == "Show me" {
			bo.keys("\r")
		}
		if focused() == "approve" {
			break
		}
	}
	for range 40 {
		if eval[bool](bo, `!document.querySelector("#approve").disabled`) {
			break
		}
		for range 40 {
			if focused() == "Show me" {
				break
			}
			bo.keys("\t")
		}
		bo.keys("\r")
	}
	for range 60 {
		if focused() == "approve" {
			break
		}
		bo.keys("\t")
	}
	bo.keys("\r")
	bo.until(`document.querySelector(".mine") !== null`)
	bo.says(".mine", "You approved this")
	if a := agent.CallAt(till, "pay", second); a.Err != nil || a.Refusal != nil {
		t.Errorf("the approved call ended with %v %v", a.Refusal, a.Err)
	}
	bo.quiet()
	sys.CheckLedger()
}

// TestConsoleShowsWhatIsHidden: characters that would turn, hide or pass for others
// are shown by their numbers, in the very text that the digest is over.
func TestConsoleShowsWhatIsHidden(t *testing.T) {
	t.Parallel()
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	bo := enrolled(t, sys, "bo")
	agent := sys.Agent("payroll")
	id := agent.Ask(agent.For(sys.TillURL()), "pay", paymentOrder(5, "p\u0430ypal \u202egpj.exe\u200b <b>bold</b>"))

	bo.visit("/approvals/" + id)
	for _, where := range []string{"h1", ".payload"} {
		bo.says(where, "U+202E", "U+200B", "<b>bold</b>", "gpj.exe")
		if got := eval[string](bo, `document.querySelector("`+where+` .alike").firstChild.textContent`); got != "p\u0430ypal" {
			t.Errorf("%s marks %q as what it is not", where, got)
		}
	}
	if eval[bool](bo, `document.querySelector("main").textContent.match(/[\u202a-\u202e\u200b-\u200f\u2066-\u2069]/) !== null`) {
		t.Error("a character that hides is on the page as itself")
	}
	if eval[bool](bo, `document.querySelector("h1 b, .payload b b") !== null`) {
		t.Error("what the agent sent became markup")
	}
	bo.quiet()
}

// TestConsoleLargePayload: a long text scrolls in its place and is read to its end
// before anybody signs; of what is too much the page says what is missing.
func TestConsoleLargePayload(t *testing.T) {
	t.Parallel()
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	bo := enrolled(t, sys, "bo")
	agent := sys.Agent("payroll")
	long := agent.Ask(agent.Transport, "pay", paymentOrder(90, strings.Repeat("Where this goes.\n", 600)+"the end"))
	cut := agent.Ask(agent.Transport, "pay", paymentOrder(95, strings.Repeat("Where this goes. ", 1200)))

	bo.visit("/approvals/" + long)
	bo.says(".payload", "Exactly what runs", "the end")
	// Everything is read but the text's end, which is out of its window.
	eval[bool](bo, `(async () => {
		for (const mark of document.querySelectorAll("[data-seen]:not(.long *)")) {
			mark.scrollIntoView({block: "center"});
			await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
		}
		return true;
	})()`)
	bo.until(`document.querySelector("#say").textContent.includes("1 line left")`)
	if !eval[bool](bo, `document.querySelector("#approve").disabled`) {
		t.Error("approve is enabled before the long text was read")
	}
	bo.read()

	bo.visit("/approvals/" + cut)
	bo.says(".payload", "Not all of it is shown here", "/arguments/to", "the rest of a text of 20\u202f400 bytes", "What the class goes by", "95")
	if eval[bool](bo, `document.querySelector(".payload").textContent.includes("Exactly what runs")`) {
		t.Error("the page says that it is all there")
	}
	bo.read()
	bo.quiet()
}

// TestConsoleWithoutScripts: everything reads, nothing can be signed, and the page
// says why.
func TestConsoleWithoutScripts(t *testing.T) {
	t.Parallel()
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	ana, bo := enrolled(t, sys, "ana"), enrolled(t, sys, "bo")
	agent := sys.Agent("payroll")
	id := agent.Ask(agent.Transport, "pay", paymentOrder(77, "acme"))
	for _, b := range []*tab{ana, bo} {
		do(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	}
	bo.visit("/")
	bo.says(".ask", "Pay 77 EUR", "payroll")
	bo.visit("/approvals/" + id)
	bo.says("main", "Pay 77 EUR to acme", "Who asks", "Why it waits for people", "The whole payload", "77", "Who has signed", "The agent’s own words")
	bo.says("#say", "Signing needs a script")
	if !eval[bool](bo, `document.querySelector("#approve").disabled && document.querySelector("#refuse").disabled`) {
		t.Error("a button that can do nothing is enabled")
	}

	// What takes authority away is a form, and needs no script.
	ana.visit("/agents/payroll/suspend")
	ana.says(".takes", "1 live token", "No open task", "1 open approval", "Pay 77 EUR to acme")
	if err := chromedp.Do(ana.ctx, chromedp.SendKeys(chromedp.CSS("#why"), "on holiday")); err != nil {
		t.Fatal(err)
	}
	ana.click("form[action$=suspend] button")
	ana.until(`document.querySelector(".notice.good") !== null`)
	ana.says("main", "Suspended. Every token of the agent is void", "suspended")
	if a := agent.Call("get_balance", map[string]any{}); a.Err == nil {
		t.Errorf("the suspended agent's call was answered: %+v", a.Result)
	}
	ana.visit("/ledger?kind=agent.suspended")
	ana.says("table", "Agent suspended", "ana")
	bo.quiet()
	ana.quiet()
	sys.CheckLedger()
}

// TestConsoleAndOtherOrigins: a page of another origin, even of another port of the
// same host, to which the browser gives the session's cookie, can neither act, nor
// read, nor embed. A link from elsewhere leads to the page it names.
func TestConsoleAndOtherOrigins(t *testing.T) {
	t.Parallel()
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	bo := enrolled(t, sys, "bo")
	agent := sys.Agent("payroll")
	id := agent.Ask(agent.Transport, "pay", paymentOrder(13, "acme"))
	at := sys.ManagementURL()

	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, `<!doctype html><title>evil</title>
			<form id="out" method="post" action="`+at+`/logout"><input name="csrf" value="guessed"></form>
			<form id="json" method="post" enctype="text/plain" action="`+at+`/api/v1/approvals/`+id+`/challenge"><input name='{"decision":"approve","x":"' value='"}'></form>
			<a id="link" href="`+at+`/approvals/`+id+`">an approval waits</a>`)
	}))
	t.Cleanup(evil.Close)
	samesite := strings.Replace(evil.URL, "127.0.0.1", "localhost", 1)

	for _, origin := range []string{samesite, evil.URL} {
		for _, form := range []string{"out", "json"} {
			bo.goTo(origin)
			eval[bool](bo, `document.querySelector("#`+form+`").submit() ?? true`)
			bo.until(`location.origin === "` + at + `" && document.body?.innerText.includes("origin_forbidden")`)
		}
		bo.goTo(origin)
		got := eval[string](bo, `(async () => {
			const seen = [];
			for (const [path, init] of [["/", {}], ["/api/v1/approvals", {}], ["/api/v1/session", {method: "DELETE"}],
				["/api/v1/approvals/`+id+`/challenge", {method: "POST", body: '{"decision":"approve"}'}]]) {
				for (const mode of ["cors", "no-cors"]) {
					try {
						const r = await fetch("`+at+`" + path, {...init, mode, credentials: "include"});
						seen.push(r.type === "opaque" ? "opaque" : "read " + r.status);
					} catch { seen.push("stopped"); }
				}
			}
			return seen.join(" ");
		})()`)
		if strings.Contains(got, "read") {
			t.Errorf("a page of %s read an answer: %s", origin, got)
		}
		// An opaque answer is one that the server gave: what it did is below.

		// Embedded, the console is not shown.
		eval[bool](bo, `new Promise((done) => {
			const frame = document.createElement("iframe");
			frame.onload = () => done(true);
			frame.src = "`+at+`/approvals/`+id+`";
			document.body.append(frame);
		})`)
		if shown := bo.framed(); shown == "" || strings.Contains(shown, "Counterfoil") || strings.Contains(shown, "globex") {
			t.Errorf("a page of %s embeds %q", origin, shown)
		}
	}
	bo.visit("/")
	bo.says("h1", "Inbox") // and is logged in still
	for _, e := range sys.Entries() {
		if e.Kind == ledger.SessionClosed || e.Kind == ledger.ApprovalSigned {
			t.Errorf("another origin brought about %s", e.Kind)
		}
	}

	for _, origin := range []string{samesite, evil.URL} {
		bo.goTo(origin)
		bo.click("#link")
		bo.until(`location.pathname === "/approvals/` + id + `" && document.querySelector("h1")?.innerText.startsWith("Pay 13 EUR")`)
	}

	// The control: our own form logs out, and what is open says so by itself.
	bo.visit("/")
	bo.click("form[action='/logout'] button")
	bo.until(`location.pathname === "/login"`)
	bo.visit("/decided")
	bo.until(`location.pathname === "/login" && document.querySelector("#login").dataset.next === "/decided"`)
	bo.click("#login-go")
	bo.until(`location.pathname === "/decided"`)
	sys.CheckLedger()
}
