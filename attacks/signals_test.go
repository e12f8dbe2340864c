package attacks

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// Shared signals: SE1 to SE4.

const sessionRevoked = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"

// TestForgedEvents is SE1, SE2 and SE3: an event counts by its transmitter's signature,
// for us, once, about its own subject. Beside each forgery the same event about
// somebody unknown is taken.
func TestForgedEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key, other := counterfoiltest.NewSigner(t, credential.ES256), counterfoiltest.NewSigner(t, credential.ES256)
	w.Apply(fmt.Sprintf("kind: Transmitter\nname: idp\nissuer: https://idp.example\nkeys: ['%s']\n---\n"+
		"kind: Transmitter\nname: else\nissuer: https://else.example\nkeys: ['%s']\n---\n"+
		"kind: Person\nname: kim\nemail: kim@example.com\n---\n"+
		"kind: Agent\nname: kims\nowner: kim\nenvironment: prod\ngrants: [{tools: [bank/get_balance]}]\n", key.Public().JWK(), other.Public().JWK()))
	kims := w.actor("kims")
	event := func(mail string) *jwt {
		return &jwt{
			Header: map[string]any{"alg": key.Public().Alg(), "typ": "secevent+jwt", "kid": key.Public().Thumbprint()},
			Claims: map[string]any{
				"iss": "https://idp.example", "aud": w.Issuer(), "jti": counterfoil.NewID(""), "iat": w.Clock.Now().Unix(),
				"sub_id": map[string]any{"format": "email", "email": mail}, "events": map[string]any{sessionRevoked: map[string]any{"event_timestamp": w.Clock.Now().Unix()}},
			},
			Signer: key,
		}
	}
	push := func(transmitter, set string) answer {
		return w.do(w.post(w.Issuer()+"/ssf/receive/"+transmitter, "application/secevent+jwt", set))
	}
	received := func(from int64) (n int) {
		for _, e := range w.since(from) {
			if e.Kind == ledger.SignalReceived || e.Kind == ledger.Revoked {
				n++
			}
		}
		return n
	}
	claim := func(name string, value any) func(*jwt) { return func(j *jwt) { j.Claims[name] = value } }
	const kim = "kim@example.com"
	for _, tc := range []struct {
		row, name string
		edit      func(*jwt)
		err       string
	}{
		{"SE1", "alg none", func(j *jwt) { j.Header["alg"], j.Sign = "none", unsigned }, ""},
		{"SE1", "HS256 with the public key", func(j *jwt) { j.Header["alg"], j.Sign = "HS256", signedHS256(key.Public().JWK()) }, ""},
		{"SE1", "a stranger's key", func(j *jwt) { j.Signer = w.stranger }, "invalid_key"},
		{"SE1", "another transmitter's key", func(j *jwt) { j.Signer, j.Header["kid"] = other, other.Public().Thumbprint() }, "invalid_key"},
		{"SE1", "another transmitter's kid", func(j *jwt) { j.Header["kid"] = other.Public().Thumbprint() }, "invalid_key"},
		{"SE1", "a bit flipped", func(j *jwt) { j.Sign = flipped(t, j.Signer) }, "invalid_key"},
		{"SE1", "a key in the header", func(j *jwt) { j.Header["jwk"], j.Signer = counterfoiltest.PublicJWK(t, w.stranger), w.stranger }, ""},
		{"SE1", "a key at a URL", func(j *jwt) { j.Header["jku"], j.Signer = w.trap, w.stranger }, ""},
		{"SE2", "another issuer", claim("iss", "https://else.example"), "invalid_issuer"},
		{"SE2", "another audience", claim("aud", "https://as.example"), "invalid_audience"},
		{"SE2", "no audience", func(j *jwt) { delete(j.Claims, "aud") }, ""},
		{"SE2", "the type of an access token", func(j *jwt) { j.Header["typ"] = "at+jwt" }, ""},
		{"SE2", "the type of a proof", func(j *jwt) { j.Header["typ"] = "dpop+jwt" }, ""},
		{"SE2", "no type", func(j *jwt) { delete(j.Header, "typ") }, ""},
		{"SE3", "of last year", claim("iat", 1700000000), ""},
		{"SE3", "of tomorrow", func(j *jwt) { j.Claims["iat"] = w.Clock.Now().Unix() + 86400 }, ""},
		{"SE3", "no jti", func(j *jwt) { delete(j.Claims, "jti") }, ""},
		{"SE3", "no event", claim("events", map[string]any{}), ""},
		{"SE3", "two events", claim("events", map[string]any{sessionRevoked: map[string]any{}, "https://example.com/e": map[string]any{}}), ""},
	} {
		t.Run(tc.row+" "+tc.name, func(t *testing.T) {
			defer w.in(t)()
			w.Clock.Advance(time.Second)
			if got := push("idp", event("nobody@example.com").Compact(t)); got.status != http.StatusAccepted {
				t.Fatalf("the event without the attack: %s", got)
			}
			from := w.size()
			j := event(kim)
			tc.edit(j)
			got := push("idp", j.Compact(t))
			said, _ := got.member("err").(string)
			if got.status != http.StatusBadRequest || said == "" || tc.err != "" && said != tc.err {
				t.Errorf("got %s, want 400 %s", got, tc.err)
			}
			if n := received(from); n != 0 {
				t.Errorf("refused, and yet %d entries", n)
			}
		})
	}
	// A subject that is another issuer's, narrower than a person, or hidden.
	for name, sub := range map[string]any{
		"SE3 another issuer's":        map[string]any{"format": "iss_sub", "iss": "https://else.example", "sub": kim},
		"SE3 a session of hers":       map[string]any{"format": "complex", "user": map[string]any{"format": "email", "email": kim}, "session": map[string]any{"format": "opaque", "id": "s"}},
		"SE3 more than is understood": map[string]any{"format": "email", "email": kim, "tenant": "other"},
	} {
		j := event(kim)
		j.Claims["sub_id"] = sub
		from := w.size()
		if got := push("idp", j.Compact(t)); got.status/100 == 5 || w.revocations(from) != 0 {
			t.Errorf("%s: %s", name, got)
		}
	}
	// At another transmitter's place it is not one of its.
	if got := push("else", event(kim).Compact(t)); got.member("err") != "invalid_issuer" {
		t.Errorf("SE2 at another transmitter's place: %s", got)
	}
	if got := push("none", event(kim).Compact(t)); got.status != 404 {
		t.Errorf("SE2 at nobody's place: %s", got)
	}
	w.works("kim's agent goes on", w.sendCall(w.callWith(kims, w.tokenFor(kims, w.BankURL()), w.BankURL())))

	// The control: the honest event takes what it says, once.
	honest := event(kim).Compact(t)
	from := w.size()
	for range 3 {
		if got := push("idp", honest); got.status != http.StatusAccepted {
			t.Errorf("SE3 an event, and again: %s", got)
		}
	}
	if n := w.revocations(from); n != 1 {
		t.Errorf("SE3: one event is %d revocations", n)
	}
	w.says("its owner's agent", w.tokenIn(kims, "", w.BankURL()), 401, counterfoil.AgentSuspended)
	w.Restart()
	from = w.size()
	push("idp", honest)
	if n := received(from); n != 0 {
		t.Errorf("SE3: after a restart the event counts again, in %d entries", n)
	}
	w.CheckLedger()
}

// TestStreamsOfOthers is SE4: a stream is its agent's, and goes where the manifest says.
func TestStreamsOfOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Apply("kind: Agent\nname: hearer\nowner: ana\nenvironment: prod\nsignals: {}\n---\nkind: Agent\nname: pushed\nowner: ana\nenvironment: prod\nsignals: {push: [https://receiver.example/events]}\n")
	hearer, pushed := w.actor("hearer"), w.actor("pushed")
	poll := `{"delivery":{"method":"urn:ietf:rfc:8936"}}`
	made := w.sendOwn(hearer, http.MethodPost, "/ssf/streams", poll)
	id, _ := made.member("stream_id").(string)
	if made.status != http.StatusCreated || id == "" {
		t.Fatalf("making a stream: %s", made)
	}
	w.works("the control: its own stream", w.sendOwn(hearer, http.MethodPost, "/ssf/poll/"+id, `{"returnImmediately":true}`))
	for name, q := range map[string]struct{ method, path, body string }{
		"reading":   {http.MethodGet, "/ssf/streams?stream_id=" + id, ""},
		"changing":  {http.MethodPatch, "/ssf/streams", `{"stream_id":"` + id + `","description":"x"}`},
		"replacing": {http.MethodPut, "/ssf/streams", `{"stream_id":"` + id + `","delivery":{"method":"urn:ietf:rfc:8936"}}`},
		"deleting":  {http.MethodDelete, "/ssf/streams?stream_id=" + id, ""},
		"state":     {http.MethodGet, "/ssf/status?stream_id=" + id, ""},
		"pausing":   {http.MethodPost, "/ssf/status", `{"stream_id":"` + id + `","status":"disabled"}`},
		"verifying": {http.MethodPost, "/ssf/verify", `{"stream_id":"` + id + `"}`},
		"adding":    {http.MethodPost, "/ssf/subjects:add", `{"stream_id":"` + id + `","subject":{"format":"email","email":"a@example.com"}}`},
		"polling":   {http.MethodPost, "/ssf/poll/" + id, `{"returnImmediately":true}`},
	} {
		if got := w.sendOwn(pushed, q.method, q.path, q.body); got.status != 404 {
			t.Errorf("SE4 %s another's stream: %s", name, got)
		}
		if got := w.sendOwn(w.payroll, q.method, q.path, q.body); got.status != 403 && got.status != 404 {
			t.Errorf("SE4 %s by an agent that receives nothing: %s", name, got)
		}
	}
	if got := w.sendOwn(w.payroll, http.MethodPost, "/ssf/streams", poll); got.status != 403 {
		t.Errorf("SE4 a stream of an agent that receives nothing: %s", got)
	}
	for _, url := range []string{w.trap, "https://receiver.example/events/", "https://receiver.example/other", "https://receiver.example@evil.example/events", "HTTPS://receiver.example/events", ""} {
		got := w.sendOwn(pushed, http.MethodPost, "/ssf/streams", fmt.Sprintf(`{"delivery":{"method":"urn:ietf:rfc:8935","endpoint_url":%q}}`, url))
		if got.status/100 != 4 {
			t.Errorf("SE4 pushed to %q: %s", url, got)
		}
	}
	if got := w.sendOwn(hearer, http.MethodPatch, "/ssf/streams", fmt.Sprintf(`{"stream_id":%q,"delivery":{"method":"urn:ietf:rfc:8935","endpoint_url":%q}}`, id, w.trap)); got.status/100 != 4 {
		t.Errorf("SE4 changed to push: %s", got)
	}
	if got := w.sendOwn(pushed, http.MethodPost, "/ssf/streams", `{"delivery":{"method":"urn:ietf:rfc:8935","endpoint_url":"https://receiver.example/events"}}`); got.status != http.StatusCreated {
		t.Errorf("the control: where the manifest says: %s", got)
	}
	w.revoke(counterfoil.TargetAgent, "hearer")
	w.says("SE4: of a revoked agent", w.tokenIn(hearer, "", w.Issuer()), 401, counterfoil.AgentSuspended)
	w.CheckLedger()
}
