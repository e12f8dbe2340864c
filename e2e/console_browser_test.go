package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"

	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

// A tab is one person's window of a real browser: cookies of its own, and a passkey
// on a virtual authenticator of its own.
type tab struct {
	t    *testing.T
	ctx  context.Context
	sys  *counterfoiltest.System
	name string

	mu         sync.Mutex
	complaints []string // of the browser: what a content security policy stopped, errors of scripts
}

// chromium starts the one browser of the tests, or says why there is none.
var chromium = sync.OnceValues(func() (context.Context, error) {
	path := ""
	for _, name := range []string{os.Getenv("COUNTERFOIL_CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); name != "" && err == nil {
			path = p
			break
		}
	}
	if path == "" {
		return nil, fmt.Errorf("there is no Chromium")
	}
	// The profile is the browser's own temporary folder, which goes with it.
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-sync", true), chromedp.Flag("no-first-run", true),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("hide-scrollbars", true), chromedp.WindowSize(1280, 900),
	)
	allocator, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, cancel := chromedp.NewContext(allocator)
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		return nil, fmt.Errorf("starting Chromium: %w", err)
	}
	closeBrowser = func() {
		cancel()
		stop()
	}
	return ctx, nil
})

// closeBrowser ends the browser; TestMain calls it.
var closeBrowser = func() {}

// open opens a window for a person. Without a browser it skips the test and says so,
// or fails it when the run demands one.
func open(t *testing.T, sys *counterfoiltest.System, name string) *tab {
	t.Helper()
	parent, err := chromium()
	if err != nil {
		if os.Getenv("COUNTERFOIL_E2E") == "require" {
			t.Fatalf("%v: run make deps", err)
		}
		t.Skipf("not run, %v: make deps installs what is missing", err)
	}
	b := &tab{t: t, sys: sys, name: name}
	ctx, cancel := chromedp.NewContext(parent, chromedp.WithNewBrowserContext(), chromedp.WithListener(b.listen))
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatalf("opening a window: %v", err)
	}
	b.ctx, cancel = context.WithTimeout(ctx, 10*counterfoiltest.Timeout)
	t.Cleanup(cancel)
	do(b, log.Enable, cdp.Empty{})
	do(b, page.Enable, page.EnableParams{})
	do(b, webauthn.Enable, webauthn.EnableParams{})
	do(b, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
		Protocol: "ctap2", Transport: "internal", HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
	}})
	return b
}

// listen keeps what the browser complains of. It is called by the browser's reader.
func (b *tab) listen(ev any) {
	e, ok := ev.(*log.EventEntryAdded)
	if !ok || e.Entry.Source == log.EntrySourceNetwork {
		return // a refused request is no fault of a page
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := fmt.Sprintf("%s: %s", e.Entry.Level, e.Entry.Text); !slices.Contains(b.complaints, c) {
		b.complaints = append(b.complaints, c)
	}
}

// quiet fails the test where the browser complained: a page of ours that its own
// policy stops, or whose script threw.
func (b *tab) quiet() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.complaints {
		b.t.Errorf("the browser of %s complains: %s", b.name, c)
	}
}

// enrolled opens a window for a person who enrols a passkey with an operator's link,
// and logs in with it.
func enrolled(t *testing.T, sys *counterfoiltest.System, name string) *tab {
	t.Helper()
	b := open(t, sys, name)
	b.visit("/enrol#" + sys.PersonCode(name, false))
	b.until(`!document.querySelector("#enrol-go").disabled`)
	if hash := eval[string](b, `location.hash`); hash != "" {
		t.Errorf("the code is in the address bar still: %s", hash)
	}
	b.click("#enrol-go")
	b.until(`document.querySelector("#enrol-form a.button")?.textContent === "Log in with it"`)
	b.click("#enrol-form a.button")
	b.until(`location.pathname === "/login" && !document.querySelector("#login-go").disabled`)
	b.click("#login-go")
	b.until(`location.pathname === "/" && document.querySelector("h1")?.textContent === "Inbox"`)
	return b
}

func (b *tab) url(path string) string { return b.sys.ManagementURL() + path }

// visit goes to a page of the console and waits until its script has run.
func (b *tab) visit(path string) {
	b.t.Helper()
	b.goTo(b.url(path))
}

func (b *tab) goTo(url string) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, chromedp.Navigate(url)); err != nil {
		b.t.Fatalf("%s goes to %s: %v", b.name, url, err)
	}
}

// do runs one command of the browser's protocol.
func do[P, R any](b *tab, cmd cdp.Command[P, R], params P) R {
	b.t.Helper()
	r, err := chromedp.Call(b.ctx, cmd, params)
	if err != nil {
		b.t.Fatalf("%s in the window of %s: %v", cmd.Method, b.name, err)
	}
	return r
}

// eval evaluates an expression in the page.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("evaluating %s as %s: %v", expression, b.name, err)
	}
	return v
}

// until waits for an expression to be true of a page that is there to its end. While a page
// is left for another there is nothing to evaluate it in, which is not true yet.
func (b *tab) until(expression string) {
	b.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(b.ctx, counterfoiltest.Timeout)
	defer cancel()
	var last error
	whole := `document.readyState === "complete" && (` + expression + `)`
	for {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool](whole))
		if err == nil && ok {
			return
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			body, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText`))
			b.t.Fatalf("waiting for %s as %s (%v), the page is\n%s", expression, b.name, last, body)
		case <-tick.C:
		}
	}
}

func (b *tab) click(selector string) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, chromedp.Click(chromedp.CSS(selector))); err != nil {
		b.t.Fatalf("%s clicks on %s: %v", b.name, selector, err)
	}
}

// keys presses keys, one after another.
func (b *tab) keys(keys string) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, chromedp.KeyEvent(keys)); err != nil {
		b.t.Fatalf("%s presses %q: %v", b.name, keys, err)
	}
}

// text is the text of the first element that the selector matches, as it is shown.
func (b *tab) text(selector string) string {
	b.t.Helper()
	return eval[string](b, `document.querySelector(`+strconv.Quote(selector)+`)?.innerText ?? ""`)
}

// says fails the test unless the element's text holds each of these.
func (b *tab) says(selector string, parts ...string) {
	b.t.Helper()
	got := b.text(selector)
	for _, p := range parts {
		if !strings.Contains(got, p) {
			b.t.Errorf("%s at %s does not say %q to %s:\n%s", selector, eval[string](b, `location.pathname`), p, b.name, got)
		}
	}
}

// comesToSay loads a page again and again until an element of it says something.
func (b *tab) comesToSay(path, selector, want string) {
	b.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(b.ctx, counterfoiltest.Timeout)
	defer cancel()
	for {
		b.visit(path)
		if strings.Contains(b.text(selector), want) {
			return
		}
		select {
		case <-ctx.Done():
			b.t.Fatalf("%s does not come to say %q to %s:\n%s", path, want, b.name, b.text(selector))
		case <-tick.C:
		}
	}
}

// framed returns the text of what is embedded in the page, in frames of this process
// and of others.
func (b *tab) framed() string {
	b.t.Helper()
	var out strings.Builder
	for _, f := range do(b, page.GetFrameTree, cdp.Empty{}).FrameTree.ChildFrames {
		world := do(b, page.CreateIsolatedWorld, page.CreateIsolatedWorldParams{FrameID: f.Frame.ID})
		v := do(b, runtime.Evaluate, runtime.EvaluateParams{
			Expression: `document.documentElement.innerText`, ContextID: world.ExecutionContextID, ReturnByValue: new(true),
		})
		out.Write(v.Result.Value)
	}
	all, err := chromedp.CallBrowser(b.ctx, target.GetTargets, target.GetTargetsParams{Filter: target.Filter{{Type: "iframe"}}})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range all.TargetInfos {
		ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithTargetID(f.TargetID), chromedp.WithDetachOnCancel())
		text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.documentElement.innerText`))
		cancel()
		if err != nil {
			b.t.Fatalf("looking into a frame: %v", err)
		}
		out.WriteString(text)
	}
	return out.String()
}

// read goes through the page as a reader does, until the whole payload was on screen.
func (b *tab) read() {
	b.t.Helper()
	eval[bool](b, `(async () => {
		for (const mark of document.querySelectorAll("[data-seen]")) {
			mark.scrollIntoView({block: "center"});
			await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
		}
		return true;
	})()`)
	b.until(`!document.querySelector("#approve").disabled`)
}

// approves opens an approval, reads it and signs.
func (b *tab) approves(id string) {
	b.t.Helper()
	b.visit("/approvals/" + id)
	b.read()
	b.click("#approve")
	b.until(`document.querySelector(".mine, .closed") !== null`)
}
