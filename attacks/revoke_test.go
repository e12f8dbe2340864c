package attacks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
	"github.com/counterfoil/counterfoil/resource"
)

// What is revoked stays so, from the acknowledgement on: RV1 to RV6.

// TestNoCallAfterARevocation is RV1: while a client calls as fast as it can, the target
// is revoked; no call that the log has after the revocation is allowed, and none that
// was sent after the acknowledgement.
func TestNoCallAfterARevocation(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	manifest := ""
	room := o.Upstream(counterfoiltest.NewRecorder(&streamer{}))
	for _, kind := range counterfoil.TargetKinds() {
		owner := "owner-" + string(kind)
		if kind == counterfoil.TargetPerson {
			owner = "cy"
		}
		manifest += fmt.Sprintf(wardManifest, kind, o.BankUpstream(), room, owner)
	}
	o.Apply("kind: Agent\nname: verger\nowner: ana\nenvironment: prod\n" + manifest)
	for _, kind := range counterfoil.TargetKinds() {
		t.Run("RV1 "+string(kind), func(t *testing.T) {
			defer o.inPart(t)()
			v := &ward{o: o, actor: o.actor("ward-" + string(kind))}
			if kind == counterfoil.TargetTask {
				v.task = o.open(v.actor, plainTask)
			}
			v.fresh()
			ids := map[counterfoil.TargetKind]string{
				counterfoil.TargetToken: o.jti(v.call), counterfoil.TargetKey: v.signer.Public().Thumbprint(), counterfoil.TargetInstance: v.instance,
				counterfoil.TargetTask: v.task, counterfoil.TargetAgent: v.name, counterfoil.TargetPerson: "cy",
				counterfoil.TargetResource: v.till(), counterfoil.TargetOwner: "owner-owner",
			}
			const calls = 120
			var requests []*http.Request
			for range calls {
				requests = append(requests, o.request(v.pay("get_balance", honestArguments)))
			}
			o.works("the control", o.sendCall(v.pay("get_balance", honestArguments)))
			from := o.size()
			var acknowledged, late atomic.Int64
			done, begun := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				for i, r := range requests {
					after := acknowledged.Load() > 0
					resp, err := o.client.Do(r)
					if err != nil {
						t.Error(err)
						return
					}
					body, err := io.ReadAll(resp.Body)
					resp.Body.Close()
					if got := read(resp.StatusCode, resp.Header, body); after && (got.passed() || err != nil) {
						late.Add(1)
					}
					if i == calls/4 {
						close(begun)
					}
				}
			}()
			<-begun
			index := o.revoke(kind, ids[kind])
			acknowledged.Store(1)
			known := o.size() // by then the answer was here
			<-done
			if n := late.Load(); n > 0 {
				t.Errorf("%d calls that were sent after the acknowledgement passed", n)
			}
			allowed, overtaken := 0, map[int64]bool{}
			for _, e := range o.since(from) {
				switch {
				case e.Kind == ledger.CallFinished && e.Outcome == "not_forwarded":
					delete(overtaken, e.Of)
				case e.Kind != ledger.CallDecided || e.Agent != v.name || e.Decision != ledger.Allow:
				default:
					if allowed++; e.Index >= known {
						t.Logf("entry %d was under way when entry %d was acknowledged", e.Index, index)
					}
					overtaken[e.Index] = e.Index > index // decided as it was revoked: then it must not have gone on
				}
			}
			for entry, so := range overtaken {
				if so {
					t.Errorf("entry %d, after the revocation in entry %d, allows a call, and the call was made", entry, index)
				}
			}
			if allowed < calls/4 || allowed >= calls {
				t.Errorf("%d of %d calls were allowed: there was no race", allowed, calls)
			}
			o.Clock.Advance(10 * time.Second) // the rates are full again
		})
	}
	o.Entries()
}

// A partition is a connection that can be lost.
type partition struct {
	http.RoundTripper
	lost atomic.Bool
}

func (p *partition) RoundTrip(r *http.Request) (*http.Response, error) {
	if p.lost.Load() {
		return nil, errors.New("no route")
	}
	return p.RoundTripper.RoundTrip(r)
}

// TestServersThatHearNothing is RV2, and RV3 for messages that come again: an
// enforcement point elsewhere that does not hear what is revoked refuses everything,
// and what it heard once stays so, whatever is sent again.
func TestServersThatHearNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Apply(fmt.Sprintf("kind: Agent\nname: verger\nowner: ana\nenvironment: prod\n---\n"+
		"kind: Resource\nname: far\ntype: mcp\nenvironment: prod\nupstream: %s\nservers: [verger]\ntools: [{name: get_balance, class: read}]\n", w.BankUpstream()))
	verger := w.actor("verger")
	transport, err := agent.NewTransport(agent.Config{Issuer: w.Issuer(), Agent: "verger", Signer: verger.signer, Resource: w.Issuer(), Now: w.Clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	line := &partition{RoundTripper: transport.Client().Transport}
	view := &resource.View{Now: w.Clock.Now}
	feed := &resource.Feed{Issuer: w.Issuer(), Client: &http.Client{Transport: line}, View: view}
	callerOf := func(a *actor) counterfoil.Caller {
		claims := counterfoiltest.ReadJWT(t, w.token(a)).Claims
		who, _ := claims["agent"].(map[string]any)
		epoch, err := who["epoch"].(json.Number).Int64()
		if err != nil {
			t.Fatal(err)
		}
		return counterfoil.Caller{
			Agent: a.name, Instance: a.instance, Epoch: epoch, Audience: w.BankURL(), TokenID: claims["jti"].(string),
			JKT: a.signer.Public().Thumbprint(), Issued: w.Clock.Now(), Expires: w.Clock.Now().Add(5 * time.Minute),
		}
	}
	caller, other := callerOf(w.payroll), callerOf(w.auditor)
	wants := func(what string, c counterfoil.Caller, code counterfoil.Code) {
		t.Helper()
		err := view.Revoked(t.Context(), c)
		switch {
		case code == "" && err != nil, code != "" && err == nil, code != "" && !strings.Contains(fmt.Sprint(err)+string(counterfoil.CodeOf(err)), string(code)):
			t.Errorf("%s: %v, want %q", what, err, code)
		}
	}
	poll := func() error {
		t.Helper()
		return feed.Poll(t.Context())
	}
	wants("RV2: before it heard anything", caller, counterfoil.RevocationStale)
	if err := poll(); err != nil {
		t.Fatal(err)
	}
	wants("the control: it hears", caller, "")

	line.lost.Store(true)
	w.revoke(counterfoil.TargetToken, caller.TokenID)
	if poll() == nil {
		t.Error("RV2: the line is not cut")
	}
	w.Clock.Advance(time.Minute)
	wants("RV2: it hears nothing, and the token is revoked", caller, counterfoil.RevocationStale)
	wants("RV2: it hears nothing", other, counterfoil.RevocationStale)
	line.lost.Store(false)
	if err := poll(); err != nil {
		t.Fatal(err)
	}
	wants("RV2: it hears again", caller, counterfoil.TokenRevoked)
	wants("the control: another's token", other, "")

	// Whoever sends old messages again, or leaves some out, revives nothing.
	get := func(after int64) counterfoil.RevocationFeed {
		t.Helper()
		got := w.sendOwn(verger, http.MethodGet, fmt.Sprintf("%s?after=%d", counterfoil.FeedPath, after), "")
		var f counterfoil.RevocationFeed
		if err := json.Unmarshal(got.body, &f); err != nil || got.status != http.StatusOK {
			t.Fatalf("the feed: %s", got)
		}
		return f
	}
	old := get(-1)
	w.revoke(counterfoil.TargetAgent, "auditor")
	if err := poll(); err != nil {
		t.Fatal(err)
	}
	wants("RV3: the agent is revoked", other, counterfoil.AgentSuspended)
	if err := view.Take(old, w.Clock.Now()); err == nil {
		t.Error("RV3: an old snapshot was taken")
	}
	wants("RV3: after an old snapshot", other, counterfoil.AgentSuspended)
	gap := counterfoil.RevocationFeed{Seq: view.Seq() + 9, At: w.Clock.Now(), MaxStale: 1000, Steps: []counterfoil.RevocationStep{{Seq: view.Seq() + 9, Prev: view.Seq() + 5, At: w.Clock.Now()}}}
	if err := view.Take(gap, w.Clock.Now()); !errors.Is(err, resource.ErrGap) {
		t.Errorf("RV3: a step that leaves others out: %v", err)
	}
	w.Resume("auditor")
	if err := poll(); err != nil {
		t.Fatal(err)
	}
	wants("RV3: a token of before, after resuming", other, counterfoil.TokenRevoked)
	w.auditor.compact = ""
	other = callerOf(w.auditor)
	wants("the control: a token of after", other, "")

	// And nobody follows who speaks for no resource, nor with a token for elsewhere.
	w.says("RV5: an agent that speaks for no resource", w.sendOwn(w.payroll, http.MethodGet, counterfoil.FeedPath+"?after=-1", ""), 403, counterfoil.ToolNotGranted)
	w.CheckLedger()
}

// TestNothingIsUnrevoked is RV3 and RV6: neither the same key, a new code, the agent's
// return nor a restart revives what was void; a server that starts knows all of it
// with its first answer.
func TestNothingIsUnrevoked(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	one, other := o.clerk, o.actor("clerk")
	waits := o.ask(one, atTill, o.payment())
	given := o.payment()
	signed := o.approved(one, atTill, given)
	task := o.open(one, plainTask)
	token, inTask := o.tokenAt(one, o.BankURL()), o.tokenFor(one, o.BankURL(), inTask(task))
	use := func(a *actor, compact string) answer {
		return o.sendCall(o.callBy(a, compact, o.BankURL(), "get_balance", honestArguments))
	}
	o.works("the control", use(one, token))
	o.works("the control, in a task", use(one, inTask))

	o.revoke(counterfoil.TargetAgent, "clerk")
	o.says("RV3: suspended", use(one, token), 401, counterfoil.AgentSuspended)
	o.Resume("clerk")
	o.tokens = map[string]heldToken{}
	for name, compact := range map[string]string{"its token": token, "its token of a task": inTask} {
		o.says("RV3: resumed, and "+name, use(one, compact), 401, counterfoil.TokenRevoked)
	}
	o.works("the control: a new token", use(one, o.tokenFor(one, o.BankURL())))
	o.says("RV3: resumed, and its task", o.tokenIn(one, task, o.BankURL()), 400, counterfoil.TaskClosed)
	for name, id := range map[string]string{"that waited": waits, "that was given": signed} {
		if state := o.Approval(id).State; state != counterfoil.StateRevoked {
			t.Errorf("RV3: resumed, and an approval %s is %s", name, state)
		}
	}
	o.wantNot("RV3: resumed, and what was approved", refused(counterfoil.ApprovalRevoked), func() answer { return o.send(one, atTill, given, naming(signed)) })

	// A key that is dead is dead for everybody, and its instance with it.
	held := o.tokenFor(one, o.BankURL())
	o.revoke(counterfoil.TargetKey, one.signer.Public().Thumbprint())
	again := func(name string) answer {
		target := o.Issuer() + counterfoil.EnrollPath
		proof := counterfoiltest.ForgeProof(t, one.signer, http.MethodPost, target, o.Clock.Now())
		r := o.post(target, "application/json", fmt.Sprintf(`{"agent":%q,"code":%q}`, name, o.EnrolCode(name)))
		r.Header["Dpop"] = []string{proof.Compact(t)}
		return o.do(r)
	}
	for _, name := range []string{"clerk", "rival"} {
		o.says("RV3: the dead key enrolled by "+name, again(name), 409, counterfoil.KeyInUse)
	}
	o.works("the control: the other instance", use(other, o.tokenFor(other, o.BankURL())))
	next := o.rotation(other, o.ownToken(other), one.signer, 0)
	o.says("RV3: the dead key rotated to", o.sendCall(next), 409, counterfoil.KeyInUse)

	// A resource that is back takes no token of before.
	before := o.tokenFor(other, o.BankURL())
	o.revoke(counterfoil.TargetResource, "bank")
	o.says("RV3: a suspended resource", use(other, before), 401, counterfoil.TokenRevoked)
	if status, body := o.Admin(http.MethodPost, "/api/v1/resources/bank/resume", map[string]string{"reason": "test"}); status != 200 {
		t.Fatalf("resuming a resource: HTTP %d %s", status, body)
	}
	o.says("RV3: a resource that is back", use(other, before), 401, counterfoil.TokenRevoked)
	o.Clock.Advance(2 * time.Second)
	fresh := o.tokenFor(other, o.BankURL())
	o.works("the control: a token of after", use(other, fresh))

	// A person who is back has nothing of before.
	o.revoke(counterfoil.TargetPerson, "cy")
	if status, body := o.Admin(http.MethodPost, "/api/v1/people/cy/resume", map[string]string{"reason": "test"}); status != 200 {
		t.Fatalf("resuming a person: HTTP %d %s", status, body)
	}
	if got := o.visit(visit{http.MethodGet, "/api/v1/approvals", "", o.cy}); got.status != 401 {
		t.Errorf("RV3: a session of before: %s", got)
	}
	options := o.visit(visit{http.MethodPost, "/api/v1/sessions/options", "{}", nil})
	if got := o.visit(visit{http.MethodPost, "/api/v1/sessions", `{"credential":` + string(o.cy.Device.Get(options.body)) + `}`, nil}); got.passed() {
		t.Errorf("RV3: a passkey of before: %s", got)
	}

	// RV6: many at once, and a server that has just started.
	const many = 200
	var dead []string
	for range many {
		compact := o.tokenFor(other, o.BankURL())
		o.revoke(counterfoil.TargetToken, o.jti(compact))
		dead = append(dead, compact)
		o.Clock.Advance(100 * time.Millisecond)
	}
	fresh = o.tokenFor(other, o.BankURL())
	o.restart()
	for i, compact := range append([]string{held, before}, dead[many-20:]...) {
		who := other
		if i == 0 {
			who = one
		}
		if got := use(who, compact); got.status != 401 || got.code != counterfoil.TokenRevoked {
			t.Errorf("RV6: token %d after a start: %s", i, got)
		}
	}
	o.works("the control: a token that was not revoked", use(other, fresh))
	o.says("RV3: the dead key after a restart", again("rival"), 409, counterfoil.KeyInUse)
	o.CheckLedger()
}

// TestRevokingOthers is RV5: no agent takes anything from another, or learns of it.
func TestRevokingOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	task := w.open(w.payroll, plainTask)
	token := w.token(w.payroll)
	from := w.size()
	if got := w.sendInquiry(counterfoil.RevokePath, w.inquiry(w.auditor, token)); got.status != 200 || len(got.body) != 0 {
		t.Errorf("RV5: revoking another's token: %s", got)
	}
	if w.active(w.introspect(w.auditor, token)) {
		t.Error("RV5: another's token is told")
	}
	for _, how := range []string{"complete", "cancel"} {
		w.says("RV5: ending another's task", w.sendOwn(w.auditor, http.MethodPost, counterfoil.TasksPath+"/"+task+"/"+how, ""), 404, counterfoil.ToolUnknown)
	}
	own := w.ownToken(w.payroll)
	w.says("RV5: rotating another's key", w.sendCall(w.rotation(&actor{name: "payroll", signer: w.auditor.signer}, own, counterfoiltest.NewSigner(t, credential.ES256), 0)), 401, counterfoil.ProofKeyMismatch)
	for _, at := range []string{"/api/v1/revocations", "/api/v1/tasks/" + task + "/cancel", "/api/v1/people/ana/resume", "/api/v1/agents/payroll/suspend"} {
		for _, base := range []string{w.Issuer(), w.ManagementURL()} {
			r := w.post(base+at, "application/json", `{"kind":"agent","id":"payroll","reason":"r"}`)
			r.Header["Authorization"] = []string{"DPoP " + own}
			if got := w.do(r); got.status != 401 && got.status != 403 && got.status != 404 {
				t.Errorf("RV5 %s%s: %s", base, at, got)
			}
		}
	}
	if n := w.revocations(from); n != 0 {
		t.Errorf("RV5: %d revocations were recorded", n)
	}
	w.works("the control: the token is good", w.sendCall(w.callWith(w.payroll, token, w.BankURL())))
	if !w.active(w.introspect(w.payroll, token)) {
		t.Error("the control: its own token is not told")
	}
	if got := w.sendInquiry(counterfoil.RevokePath, w.inquiry(w.payroll, token)); got.status != 200 {
		t.Errorf("the control: revoking its own token: %s", got)
	}
	w.says("the control: it is revoked", w.sendCall(w.callWith(w.payroll, token, w.BankURL())), 401, counterfoil.TokenRevoked)
	w.CheckLedger()
}
