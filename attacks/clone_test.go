package attacks

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/daemon"
	"github.com/counterfoil/counterfoil/ledger"
)

// A key in two places: CK1, and the alarm of DT12. Who is where is said by a
// trusted proxy, which the test is.

// Two places, and how far apart two sightings in them are no clone.
const (
	here, there = "192.0.2.1", "198.51.100.7"
	cloneWindow = credential.ProofWindow + 2*credential.Ahead
)

const cloneManifest = `kind: Agent
name: roamer
owner: ana
environment: prod
clones: record
grants: [{tools: [bank/get_balance]}]
---
kind: Agent
name: bell
owner: ana
environment: prod
`

func newCloneWorld(t *testing.T, options ...counterfoiltest.Option) *world {
	t.Helper()
	w := newWorld(t, options...)
	w.Apply(cloneManifest)
	return w
}

func behindProxy(c *daemon.Config) { c.TrustedProxies = []string{"127.0.0.0/8", "::1/128"} }

// tokenFrom asks for a token, from an address.
func (w *world) tokenFrom(a *actor, address string) answer {
	w.T.Helper()
	q := w.tokenRequest(a)
	q.Header.Set("X-Forwarded-For", address)
	return w.sendToken(q)
}

// callFrom makes an honest call, from an address. Its token was got from nowhere.
func (w *world) callFrom(a *actor, address string) answer {
	w.T.Helper()
	q := w.call(a)
	q.header.Set("X-Forwarded-For", address)
	return w.sendCall(q)
}

// suspicions returns what was suspected since the log had that size. Nothing that
// happened before is still to come: sightings are looked at in their order, and
// the bell, a key that another agent proves with, is rung after them.
func (w *world) suspicions(from int64) []*ledger.Entry {
	w.T.Helper()
	bell := w.actor("bell")
	badProof(counterfoil.KeyInUse).check(w.T.(*testing.T), w.sendToken(w.proveWith(w.auditor, bell.signer)))
	for deadline := time.Now().Add(counterfoiltest.Timeout); time.Now().Before(deadline); {
		var found []*ledger.Entry
		for _, e := range w.since(from) {
			switch {
			case e.Kind != ledger.CloneSuspected:
			case e.Instance == bell.instance:
				return found
			case e.Agent != "bell":
				found = append(found, e)
			}
		}
	}
	w.T.Fatal("a key that another agent proved with raised no alarm")
	return nil
}

// proveWith is a token request of an agent whose proof is by another key.
func (w *world) proveWith(a *actor, key *credential.Signer) *tokenRequest {
	w.T.Helper()
	q := w.tokenRequest(a)
	q.Proof = counterfoiltest.ForgeProof(w.T, key, http.MethodPost, w.Issuer()+"/oauth/token", w.Clock.Now())
	return q
}

// quiet fails the test when anything was suspected since.
func (w *world) quiet(what string, from int64) {
	w.T.Helper()
	for _, e := range w.suspicions(from) {
		w.T.Errorf("%s: suspected is %s of %s: %v", what, e.Instance, e.Agent, e.Detail)
	}
}

// suspected fails the test unless just that instance was suspected since, once.
func (w *world) suspected(what string, from int64, a *actor) *ledger.Entry {
	w.T.Helper()
	found := w.suspicions(from)
	if len(found) != 1 || found[0].Instance != a.instance || found[0].Agent != a.name || found[0].Owner != "ana" ||
		found[0].JKT != a.signer.Public().Thumbprint() {
		w.T.Fatalf("%s: suspected are %+v, want %s of %s alone", what, found, a.instance, a.name)
	}
	return found[0]
}

// detail returns a text in the detail of an entry.
func detail(e *ledger.Entry, sighting, name string) string {
	m, _ := e.Detail[sighting].(map[string]any)
	return fmt.Sprint(m[name])
}

// quarantined returns the quarantined instances of an agent, as an administrator
// is shown them.
func (w *world) quarantined(agent string) []string {
	w.T.Helper()
	var shown struct {
		Quarantined []string `json:"quarantined"`
	}
	status, body := w.Admin(http.MethodGet, "/api/v1/agents/"+agent, nil)
	if err := json.Unmarshal(body, &shown); err != nil || status != http.StatusOK {
		w.T.Fatalf("showing %s: HTTP %d %s %v", agent, status, body, err)
	}
	return shown.Quarantined
}

// resume resumes an agent, releases the instances that are named, and wants them
// and no others released, and those others quarantined still.
func (w *world) resume(agent string, release, still []string) {
	w.T.Helper()
	var resumed struct {
		Released    []string `json:"released"`
		Quarantined []string `json:"quarantined"`
	}
	status, body := w.Admin(http.MethodPost, "/api/v1/agents/"+agent+"/resume", map[string]any{"reason": "looked at it", "release": release})
	if err := json.Unmarshal(body, &resumed); err != nil || status != http.StatusOK {
		w.T.Fatalf("resuming %s: HTTP %d %s %v", agent, status, body, err)
	}
	if !slices.Equal(resumed.Released, release) || !slices.Equal(resumed.Quarantined, still) {
		w.T.Errorf("resuming %s released %q, and %q are quarantined still", agent, resumed.Released, resumed.Quarantined)
	}
}

// notResumed wants a request to resume refused, in whole, with a text that says what
// to do.
func (w *world) notResumed(agent string, release []string, advice string) {
	w.T.Helper()
	from, before := w.size(), w.quarantined(agent)
	status, body := w.Admin(http.MethodPost, "/api/v1/agents/"+agent+"/resume", map[string]any{"release": release})
	if status != http.StatusBadRequest || !strings.Contains(string(body), advice) {
		w.T.Errorf("resuming %s with %q: HTTP %d %s", agent, release, status, body)
	}
	if got := w.quarantined(agent); !slices.Equal(got, before) {
		w.T.Errorf("resuming %s with %q was refused, and quarantined are %q", agent, release, got)
	}
	for _, e := range w.since(from) {
		if e.Kind == ledger.AgentResumed {
			w.T.Errorf("resuming %s with %q was refused, and recorded: %+v", agent, release, e)
		}
	}
}

func wantPassed(t *testing.T, what string, answers ...answer) {
	t.Helper()
	for _, a := range answers {
		if !a.passed() {
			t.Fatalf("%s: %s", what, a)
		}
	}
}

// refusedEverywhere wants that an instance gets and does nothing, with nothing
// coming of it.
func (w *world) refusedEverywhere(t *testing.T, a *actor) {
	t.Helper()
	for _, address := range []string{here, there} {
		from, calls := w.size(), w.Reached()
		badToken(counterfoil.AgentSuspended).check(t, w.callFrom(a, address))
		badClient(counterfoil.AgentSuspended).check(t, w.tokenFrom(a, address))
		unproven := w.tokenRequest(a)
		unproven.Proofs = []string{}
		badClient(counterfoil.AgentSuspended).check(t, w.sendToken(unproven))
		w.wantEffects(badToken(counterfoil.AgentSuspended), from, calls)
	}
}

// TestOneKeyInTwoPlaces is CK1, from the first sighting to the release.
func TestOneKeyInTwoPlaces(t *testing.T) {
	t.Parallel()
	w := newCloneWorld(t, behindProxy)
	first, second := w.payroll, w.actor("payroll")
	w.token(first)
	w.token(second)

	// What is no clone: one place, many times; an address that nobody tells; two
	// instances in two places; somebody who repeats what was seen.
	from := w.size()
	for range 3 {
		w.Clock.Advance(time.Second)
		wantPassed(t, "one place", w.tokenFrom(first, here), w.callFrom(first, here), w.callFrom(first, "::ffff:"+here), w.callFrom(second, there))
		wantPassed(t, "no place", w.callFrom(first, ""), w.sendCall(w.call(first)))
	}
	overheard := w.call(first)
	overheard.header.Set("X-Forwarded-For", here)
	wantPassed(t, "the original", w.sendCall(overheard))
	overheard.header.Set("X-Forwarded-For", there)
	unproven(counterfoil.ProofReplayed).check(t, w.sendCall(overheard))
	// An assertion that was used before says nothing of who shows it.
	asked := w.tokenRequest(first)
	wantPassed(t, "the original", w.sendToken(asked))
	borrowed := w.proveWith(first, w.stranger)
	borrowed.Form.Set("client_assertion", asked.Form.Get("client_assertion"))
	borrowed.Header.Set("X-Forwarded-For", there)
	badClient(counterfoil.AssertionReplayed).check(t, w.sendToken(borrowed))
	w.quiet("no clone", from)

	// The key is used elsewhere. That request is answered (a call might not be: the
	// alarm is as fast as its answer), the next one is not.
	from = w.size()
	w.Clock.Advance(time.Second)
	clone := w.tokenFrom(first, there)
	wantPassed(t, "the request that gives the clone away", clone)
	e := w.suspected("two places", from, first)
	if e.RequestID != clone.requestID || e.Detail["clones"] != "quarantine" ||
		detail(e, "first", "address") != here || detail(e, "second", "address") != there ||
		detail(e, "second", "request_id") != clone.requestID || detail(e, "second", "time") <= detail(e, "first", "time") {
		t.Errorf("the entry is %+v", e)
	}
	w.refusedEverywhere(t, first)
	wantPassed(t, "the other instance", w.callFrom(second, there), w.tokenFrom(second, there))
	wantPassed(t, "the other agent", w.callFrom(w.auditor, here))
	if got := w.quarantined("payroll"); !slices.Equal(got, []string{first.instance}) {
		t.Errorf("quarantined are %v", got)
	}
	if got := w.suspicions(from); len(got) != 1 {
		t.Errorf("suspected %d times", len(got))
	}
	metrics := string(w.do(w.get(http.MethodGet, w.ManagementURL()+"/metrics")).body)
	if name := "\ncounterfoil_clones_suspected_total "; !strings.Contains(metrics, name) || strings.Contains(metrics, name+"0") {
		t.Errorf("the metrics do not count suspicions")
	}

	// A restart changes nothing and tells nothing twice.
	w.Restart()
	w.refusedEverywhere(t, first)
	if got := w.suspicions(from); len(got) != 1 {
		t.Errorf("after a restart suspected %d times", len(got))
	}

	// It takes a person who names it: not the end of a suspension, nor a list with
	// anything else in it.
	w.notResumed("payroll", nil, "--release INSTANCE")
	w.notResumed("payroll", []string{first.instance, second.instance}, "not quarantined")
	w.notResumed("payroll", []string{first.instance, "ins_none"}, "has no instance")
	w.notResumed("auditor", []string{first.instance}, "has no instance")
	w.Suspend("payroll")
	w.resume("payroll", nil, []string{first.instance})
	first.compact, second.compact = "", ""
	badClient(counterfoil.AgentSuspended).check(t, w.tokenFrom(first, here))
	wantPassed(t, "the other instance", w.tokenFrom(second, there), w.callFrom(second, there))

	// A person releases it. Tokens from before stay void, and so does what was seen.
	from = w.size()
	old := w.call(second)
	w.resume("payroll", []string{first.instance}, nil)
	badToken(counterfoil.TokenRevoked).check(t, w.sendCall(old))
	first.compact, second.compact = "", ""
	w.Clock.Advance(time.Second)
	wantPassed(t, "released", w.tokenFrom(first, here), w.callFrom(first, here), w.callFrom(second, there))
	w.quiet("released", from)
	w.Restart()
	w.quiet("released and restarted", from)

	// And it is not immune.
	w.Clock.Advance(time.Second)
	wantPassed(t, "elsewhere again", w.tokenFrom(first, there))
	w.suspected("two places again", from, first)
	w.refusedEverywhere(t, first)
	w.CheckLedger()
}

// TestPlacesAndTimes is CK1: which addresses are two places, and for how long.
func TestPlacesAndTimes(t *testing.T) {
	t.Parallel()
	w := newCloneWorld(t, behindProxy)
	for _, c := range []struct {
		name, first, second string
		apart               time.Duration
		clone               bool
	}{
		{"two places, a second less than a window apart", here, there, cloneWindow - time.Second, true},
		{"two places, a window apart", here, there, cloneWindow, false},
		{"two places, a second more", here, there, cloneWindow + time.Second, false},
		{"one network of IPv6", "2001:db8::1", "2001:db8::abcd:1", time.Second, false},
		{"two networks of IPv6", "2001:db8::1", "2001:db8:0:1::1", time.Second, true},
		{"IPv4, and the same written as IPv6", here, "::ffff:" + here, time.Second, false},
		{"a hop that is the client's own word", here, there + ", " + here, time.Second, false},
	} {
		a := w.actor("payroll")
		from := w.size()
		wantPassed(t, c.name, w.tokenFrom(a, c.first))
		w.Clock.Advance(c.apart)
		wantPassed(t, c.name, w.tokenFrom(a, c.second))
		if c.clone {
			w.suspected(c.name, from, a)
			badClient(counterfoil.AgentSuspended).check(t, w.tokenFrom(a, c.first))
		} else {
			w.quiet(c.name, from)
			wantPassed(t, c.name, w.tokenFrom(a, c.first))
		}
	}
	w.CheckLedger()
}

// TestClonesThatAreOnlyRecorded is CK1 where the operator wants it so: the log
// says it, once an hour, and calls go on.
func TestClonesThatAreOnlyRecorded(t *testing.T) {
	t.Parallel()
	w := newCloneWorld(t, behindProxy)
	a := w.actor("roamer")
	for hour := range 2 {
		from := w.size()
		for range 5 {
			w.Clock.Advance(time.Second)
			wantPassed(t, "everywhere", w.callFrom(a, here), w.callFrom(a, there))
		}
		if e := w.suspected(fmt.Sprintf("hour %d", hour), from, a); e.Detail["clones"] != "record" {
			t.Errorf("the entry is %+v", e)
		}
		wantPassed(t, "afterwards", w.callFrom(a, here), w.tokenFrom(a, there))
		// Two places all day hide nobody who uses the key as somebody else, and who
		// does so all the time fills no log with alarms.
		from = w.size()
		for range 5 {
			w.Clock.Advance(time.Second)
			badProof(counterfoil.KeyInUse).check(t, w.sendToken(w.proveWith(w.payroll, a.signer)))
		}
		if e := w.suspected(fmt.Sprintf("somebody else in hour %d", hour), from, a); detail(e, "second", "agent") != "payroll" || e.Detail["clones"] != "record" {
			t.Errorf("the entry is %+v", e)
		}
		w.Clock.Advance(time.Hour)
		a.compact = ""
	}
	if got := w.quarantined("roamer"); len(got) != 0 {
		t.Errorf("quarantined are %v", got)
	}
	// What is declared is what counts: the next sighting is no more only recorded.
	w.Apply(strings.Replace(cloneManifest, "clones: record", "clones: quarantine", 1))
	from := w.size()
	wantPassed(t, "the last ones", w.callFrom(a, here), w.tokenFrom(a, there))
	w.suspected("quarantine", from, a)
	w.refusedEverywhere(t, a)
	w.CheckLedger()
}

// TestRestartHidesNoClone is CK1 over a stop, however long.
func TestRestartHidesNoClone(t *testing.T) {
	t.Parallel()
	w := newCloneWorld(t, behindProxy)
	before, late := w.actor("payroll"), w.actor("payroll")

	// One sighting on each side.
	from := w.size()
	wantPassed(t, "before the stop", w.tokenFrom(before, here))
	w.Restart()
	w.Clock.Advance(time.Second)
	wantPassed(t, "after it", w.tokenFrom(before, there))
	w.suspected("over a restart", from, before)

	// Both before it, and nobody looks for a day.
	from = w.size()
	wantPassed(t, "both before the stop", w.tokenFrom(late, here), w.tokenFrom(late, there))
	w.Stop()
	w.Clock.Advance(24 * time.Hour)
	w.Start()
	w.suspected("after a day", from, late)
	w.CheckLedger()
}

// TestAnothersKeyRaisesTheAlarm is DT12: who proves with a key of another agent
// has it. Who only names it, or repeats what its owner said, does not.
func TestAnothersKeyRaisesTheAlarm(t *testing.T) {
	t.Parallel()
	w := newCloneWorld(t)
	w.Apply("kind: Agent\nname: gone\nowner: ana\nenvironment: prod\n")
	gone, sibling := w.actor("gone"), w.actor("payroll")
	w.Offboard("gone")
	w.token(w.payroll)

	from := w.size()
	named := w.tokenRequest(w.auditor)
	named.Assertion.Header["kid"] = w.payroll.signer.Public().Thumbprint()
	badClient(counterfoil.ClientRefused).check(t, w.sendToken(named))

	claimed := w.proveWith(w.auditor, w.payroll.signer)
	claimed.Proof.Signer = w.auditor.signer
	badProof(counterfoil.ProofMalformed).check(t, w.sendToken(claimed))

	original := w.tokenRequest(w.payroll)
	wantPassed(t, "the original", w.sendToken(original))
	repeated := w.tokenRequest(w.auditor)
	repeated.Proofs = original.Proofs
	badProof(counterfoil.ProofReplayed).check(t, w.sendToken(repeated))

	// Nor does who shows an assertion that was used: it is anybody's, and so its
	// instance is accused of nothing.
	asked := w.tokenRequest(w.auditor)
	wantPassed(t, "the original", w.sendToken(asked))
	borrowed := w.proveWith(w.auditor, w.payroll.signer)
	borrowed.Form.Set("client_assertion", asked.Form.Get("client_assertion"))
	badClient(counterfoil.AssertionReplayed).check(t, w.sendToken(borrowed))

	stale := w.proveWith(w.auditor, w.payroll.signer)
	stale.Proof.Claims["iat"] = w.Clock.Now().Add(-2 * credential.ProofWindow).Unix()
	badProof(counterfoil.ProofStale).check(t, w.sendToken(stale))

	// And a key of an agent that is gone opens nothing.
	badProof(counterfoil.KeyInUse).check(t, w.sendToken(w.proveWith(w.auditor, gone.signer)))
	w.quiet("no clone", from)
	wantPassed(t, "the owner", w.sendCall(w.call(w.payroll)), w.sendToken(w.tokenRequest(w.payroll)))

	for _, c := range []struct {
		name          string
		thief, victim *actor
	}{
		{"another agent's key", w.auditor, w.payroll},
		{"another instance's key", w.actor("payroll"), sibling},
	} {
		from = w.size()
		got := w.sendToken(w.proveWith(c.thief, c.victim.signer))
		badProof(counterfoil.KeyInUse).check(t, got)
		e := w.suspected(c.name, from, c.victim)
		if e.RequestID != got.requestID || detail(e, "second", "agent") != c.thief.name || detail(e, "second", "instance") != c.thief.instance {
			t.Errorf("%s: the entry is %+v", c.name, e)
		}
		badClient(counterfoil.AgentSuspended).check(t, w.sendToken(w.tokenRequest(c.victim)))
		wantPassed(t, c.name+": who showed it", w.sendToken(w.tokenRequest(c.thief)))
	}
	badToken(counterfoil.AgentSuspended).check(t, w.sendCall(w.call(w.payroll)))
	w.CheckLedger()
}

// TestPeersAreInPlaces is CK1 without a proxy: the two addresses of localhost are
// one place, another of this machine's is another, and nobody is elsewhere by
// saying so.
func TestPeersAreInPlaces(t *testing.T) {
	t.Parallel()
	w := newCloneWorld(t)
	from := w.size()
	wantPassed(t, "one's own word", w.callFrom(w.payroll, here), w.callFrom(w.payroll, there), w.tokenFrom(w.payroll, here))
	askFrom := func(local net.IP) int {
		t.Helper()
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: local}}
		client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
		req := w.tokenRequest(w.payroll).Request(t, w.Issuer()+"/oauth/token")
		req.URL.Host = strings.Replace(req.URL.Host, "localhost", "127.0.0.1", 1)
		req.Host = strings.TrimPrefix(w.Issuer(), "http://")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if status := askFrom(net.IPv4(127, 0, 0, 1)); status != http.StatusOK {
		t.Errorf("from localhost: HTTP %d", status)
	}
	w.quiet("localhost", from)
	if status := askFrom(net.IPv4(127, 0, 0, 2)); status != http.StatusOK {
		t.Errorf("the request that gives the clone away: HTTP %d", status)
	}
	if e := w.suspected("another peer", from, w.payroll); detail(e, "second", "address") != "127.0.0.2" {
		t.Errorf("the entry says %v", e.Detail)
	}
	w.refusedEverywhere(t, w.payroll)
	w.CheckLedger()
}
