package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/e2e/peers"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// A pushed event is a request as a receiver of shared signals gets it.
type pushed struct{ mediaType, authorization, set string }

// receiver is a receiver that takes events by push (RFC 8935). It verifies nothing
// itself: jose does.
func receiver(t *testing.T) (url string, events <-chan pushed) {
	t.Helper()
	got := make(chan pushed, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- pushed{r.Header.Get("Content-Type"), r.Header.Get("Authorization"), string(b)}
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(server.Close)
	return server.URL + "/events", got
}

// A viewer asks the issuer itself, as an agent whose manifest has signals.
type viewer struct {
	t   *testing.T
	sys *counterfoiltest.System
	at  *agent.Transport
}

func (v viewer) do(method, path string, in, out any) int {
	v.t.Helper()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			v.t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(v.t.Context(), method, v.sys.Issuer()+path, body)
	if err != nil {
		v.t.Fatal(err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := v.at.Client().Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	if out != nil && resp.StatusCode < 300 {
		if err := json.Unmarshal(b, out); err != nil {
			v.t.Fatalf("%s %s: %v: %s", method, path, err, b)
		}
	}
	return resp.StatusCode
}

type object = map[string]any

type streamView struct {
	ID       string `json:"stream_id"`
	Iss, Aud string
	Delivery struct {
		Method   string
		Endpoint string `json:"endpoint_url"`
	}
}

// watching declares an agent that may receive signals and returns it as a receiver.
func watching(t *testing.T, sys *counterfoiltest.System, signals string) viewer {
	t.Helper()
	sys.Apply("kind: Agent\nname: watch\nowner: ana\nenvironment: prod\nsignals: " + signals + "\n")
	return viewer{t, sys, sys.Agent("watch").For(sys.Issuer())}
}

// heard is what jose says of some tokens.
type heard struct {
	Status        int
	Configuration map[string]any
	Sets          []struct {
		Refused, Typ string
		Header       map[string]any
		Claims       map[string]any
	}
}

func (h heard) events() (out []string) {
	for _, s := range h.Sets {
		events, _ := s.Claims["events"].(map[string]any)
		for kind := range events {
			out = append(out, kind[strings.LastIndexByte(kind, '/')+1:])
		}
	}
	return out
}

func jose(t *testing.T, sys *counterfoiltest.System, sets ...string) heard {
	t.Helper()
	var out heard
	peers.Need(t).Run(t, "signals.mjs", object{"issuer": sys.Issuer(), "audience": "watch", "sets": sets}, &out)
	if len(out.Sets) != len(sets) {
		t.Fatalf("jose says something of %d tokens out of %d", len(out.Sets), len(sets))
	}
	return out
}

// From the issuer's URL alone jose verifies what is pushed and what is polled, and
// nothing else that the issuer signs.
func TestJoseVerifiesSharedSignals(t *testing.T) {
	t.Parallel()
	peers.Need(t)
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	url, events := receiver(t)
	watch := watching(t, sys, fmt.Sprintf("{push: [%q]}", url))
	var s streamView
	if status := watch.do(http.MethodPost, "/ssf/streams", object{
		"delivery": object{"method": "urn:ietf:rfc:8935", "endpoint_url": url, "authorization_header": "Bearer receiver"},
	}, &s); status != http.StatusCreated || s.Iss != sys.Issuer() || s.Aud != "watch" {
		t.Fatalf("a stream: %d, %+v", status, s)
	}
	if status := watch.do(http.MethodPost, "/ssf/verify", object{"stream_id": s.ID, "state": "abc"}, nil); status != http.StatusNoContent {
		t.Fatalf("verification: %d", status)
	}
	payroll := sys.Agent("payroll") // tells that a key was created
	token := payroll.Token()
	sys.Suspend("payroll")
	var sets []string
	for range 5 {
		select {
		case e := <-events:
			if e.mediaType != "application/secevent+jwt" || e.authorization != "Bearer receiver" {
				t.Errorf("pushed as %q with %q", e.mediaType, e.authorization)
			}
			sets = append(sets, e.set)
		case <-time.After(counterfoiltest.Timeout):
			t.Fatalf("%d events, and no more", len(sets))
		}
	}
	// Attacks: a claim changed, the signature of another event, an access token.
	parts, other := strings.Split(sets[0], "."), strings.Split(sets[1], ".")
	got := jose(t, sys, append(slices.Clone(sets), parts[0]+"."+other[1]+"."+parts[2], parts[0]+"."+parts[1]+"."+other[2], token)...)
	want := []string{"verification", "credential-change", "session-revoked", "session-revoked", "account-disabled"}
	if !slices.Equal(got.events(), want) {
		t.Errorf("told: %v, want %v", got.events(), want)
	}
	for i, s := range got.Sets {
		if i < len(sets) {
			if s.Refused != "" || s.Header["alg"] != "RS256" || s.Claims["sub"] != nil || s.Claims["exp"] != nil {
				t.Errorf("event %d: %+v", i, s)
			}
		} else if s.Refused == "" {
			t.Errorf("attack %d: jose takes %+v", i-len(sets), s)
		}
	}
	if c := got.Configuration; got.Status != http.StatusOK || c["issuer"] != sys.Issuer() || c["spec_version"] != "1_0" {
		t.Errorf("configuration: %d %v", got.Status, c)
	}
	for _, e := range sys.Entries() {
		if e.Kind == ledger.SignalDelivered && e.Agent != "watch" {
			t.Errorf("%+v", e)
		}
	}
	sys.CheckLedger()
}

// Polled events come again until they are acknowledged, also after a restart; jose
// verifies them; and no other agent gets them.
func TestPolledSignals(t *testing.T) {
	t.Parallel()
	peers.Need(t)
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	watch := watching(t, sys, "{}")
	var s streamView
	if status := watch.do(http.MethodPost, "/ssf/streams", object{"events_requested": []string{"https://schemas.openid.net/secevent/caep/event-type/session-revoked"}}, &s); status != http.StatusCreated {
		t.Fatalf("a stream: %d", status)
	}
	if s.Delivery.Method != "urn:ietf:rfc:8936" || s.Delivery.Endpoint != sys.Issuer()+"/ssf/poll/"+s.ID {
		t.Errorf("delivery %+v", s.Delivery)
	}
	for path, want := range map[string]int{"/ssf/streams": 409} {
		if status := watch.do(http.MethodPost, path, object{}, nil); status != want {
			t.Errorf("another stream: %d", status)
		}
	}
	sys.Agent("payroll")
	sys.Suspend("payroll")
	type answer struct {
		Sets map[string]string
		More bool `json:"moreAvailable"`
	}
	poll := func(v viewer, in object) (a answer, status int) {
		t.Helper()
		in["returnImmediately"] = true
		status = v.do(http.MethodPost, "/ssf/poll/"+s.ID, in, &a)
		return a, status
	}
	first, status := poll(watch, object{})
	if status != http.StatusOK || len(first.Sets) != 2 {
		t.Fatalf("poll: %d, %d events", status, len(first.Sets))
	}
	// An agent without signals, and one that has its own.
	auditor := viewer{t, sys, sys.Agent("auditor").For(sys.Issuer())}
	if _, status := poll(auditor, object{}); status != http.StatusForbidden {
		t.Errorf("an agent without signals: %d", status)
	}
	sys.Apply("kind: Agent\nname: auditor\nowner: ana\nenvironment: prod\nsignals: {}\n")
	if _, status := poll(auditor, object{}); status != http.StatusNotFound {
		t.Errorf("another agent with signals: %d", status)
	}
	if resp, err := http.Post(sys.Issuer()+"/ssf/poll/"+s.ID, "application/json", strings.NewReader("{}")); err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a token: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	sys.Restart()
	again, _ := poll(watch, object{})
	var sets, ids []string
	for id, set := range first.Sets {
		ids, sets = append(ids, id), append(sets, set)
		if again.Sets[id] != set {
			t.Errorf("%s is another token after a restart", id)
		}
	}
	if got := jose(t, sys, sets...); !slices.Equal(got.events(), []string{"session-revoked", "session-revoked"}) {
		t.Errorf("told %v", got.events())
	}
	if last, _ := poll(watch, object{"ack": ids}); len(last.Sets) != 0 {
		t.Errorf("%d events after all were acknowledged", len(last.Sets))
	}
	sys.Restart()
	if last, _ := poll(watch, object{}); len(last.Sets) != 0 {
		t.Errorf("%d events after all were acknowledged and a restart", len(last.Sets))
	}
	sys.CheckLedger()
}

// What an identity provider says of a person takes from that person's agents, once,
// and nothing that it says gives anything back.
func TestReceivedSignals(t *testing.T) {
	t.Parallel()
	sys := counterfoiltest.New(t)
	key, err := credential.GenerateKey(credential.RS256)
	if err != nil {
		t.Fatal(err)
	}
	idp, err := credential.NewSignerFor(credential.RS256, key)
	if err != nil {
		t.Fatal(err)
	}
	sys.Apply("kind: Transmitter\nname: idp\nissuer: https://idp.example\nkeys: [" + string(idp.Public().JWK()) + "]\ndisabled: [suspend-agents]\n")
	send := func(to, id, event, person string) (int, string) {
		t.Helper()
		set, err := credential.SignSET(idp, credential.SETClaims{
			Issuer: "https://idp.example", Audience: sys.Issuer(), ID: id, IssuedAt: sys.Clock.Now(),
			Subject: credential.SubjectID{Format: credential.SubjectEmail, Email: person},
			Event:   "https://schemas.openid.net/secevent/" + event, Payload: object{},
		})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.Post(sys.Issuer()+"/ssf/receive/"+to, "application/secevent+jwt", strings.NewReader(set))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var said struct{ Err string }
		_ = json.NewDecoder(resp.Body).Decode(&said)
		return resp.StatusCode, said.Err
	}
	payroll := sys.Agent("payroll")
	counterfoiltest.WantDone(t, payroll.Call("get_balance", object{"account": "operating"}))
	for _, c := range []struct {
		to, id, event, person string
		status                int
		err                   string
	}{
		{"other", "e0", "caep/event-type/session-revoked", "ana@example.com", 404, ""},
		{"idp", "e1", "caep/event-type/session-revoked", "bo@example.com", 202, ""}, // owns nothing
		{"idp", "e2", "risc/event-type/account-enabled", "ana@example.com", 202, ""},
	} {
		if status, err := send(c.to, c.id, c.event, c.person); status != c.status || err != c.err {
			t.Errorf("%s: %d %q", c.id, status, err)
		}
	}
	counterfoiltest.WantDone(t, payroll.Call("get_balance", object{"account": "operating"}))
	if status, _ := send("idp", "e3", "risc/event-type/account-disabled", "ANA@example.com"); status != 202 {
		t.Fatalf("e3: %d", status)
	}
	if a := payroll.Call("get_balance", object{"account": "operating"}); a.Refusal == nil && a.Err == nil {
		t.Error("an agent of a person who is disabled works on")
	}
	// The same event again does nothing to who was let back in, and nothing restores.
	sys.Resume("payroll")
	for _, id := range []string{"e3", "e2"} {
		if status, _ := send("idp", id, "risc/event-type/account-disabled", "ana@example.com"); status != 202 {
			t.Errorf("%s again: %d", id, status)
		}
	}
	counterfoiltest.WantDone(t, sys.Agent("payroll").Call("get_balance", object{"account": "operating"}))
	if status, _ := send("idp", "e4", "risc/event-type/account-disabled", "ana@example.com"); status != 202 {
		t.Errorf("e4: %d", status)
	}
	if status, _ := send("idp", "e5", "risc/event-type/account-enabled", "ana@example.com"); status != 202 {
		t.Errorf("e5: %d", status)
	}
	if a := payroll.Call("get_balance", object{"account": "operating"}); a.Refusal == nil && a.Err == nil {
		t.Error("an event restored what another took")
	}
	received := 0
	for _, e := range sys.Entries() {
		if e.Kind == ledger.SignalReceived {
			received++
		}
	}
	if received != 5 {
		t.Errorf("%d entries of 5 events", received)
	}
	sys.CheckLedger()
}
