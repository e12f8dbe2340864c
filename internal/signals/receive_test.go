package signals_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/signals"
	"github.com/counterfoil/counterfoil/ledger"
)

const idp = "https://idp.example"

// idpKey is the transmitter's key, and thief another of the same kind.
var (
	idpKey = sync.OnceValue(rs256)
	thief  = sync.OnceValue(rs256)
)

func publicJWK(s *credential.Signer, kid string) string {
	return strings.Replace(string(s.Public().JWK()), "{", `{"alg":"RS256","kid":"`+kid+`",`, 1)
}

// hears makes a world with a transmitter whose keys are in the manifest.
func hears(t *testing.T, change func(*counterfoil.Transmitter)) *world {
	t.Helper()
	w := newWorld(t)
	w.declare(func(r *counterfoil.Registry) {
		tr := &counterfoil.Transmitter{Name: "idp", Issuer: idp, Keys: []string{publicJWK(idpKey(), "k1")}}
		if change != nil {
			change(tr)
		}
		r.Transmitters["idp"] = tr
	})
	return w
}

// A said is an event of the transmitter, as JSON.
type said map[string]any

func event(id string) said {
	return said{
		"iss": idp, "aud": issuer, "jti": id, "iat": began.Unix(), "sub_id": said{"format": "email", "email": "ana@example.com"},
		"events": said{signals.SessionRevoked: said{"event_timestamp": began.Unix()}},
	}
}

func (s said) with(name string, v any) said {
	s[name] = v
	return s
}

func (s said) about(subject said) said { return s.with("sub_id", subject) }

func (s said) that(kind string, payload said) said { return s.with("events", said{kind: payload}) }

// signed makes the token. It is put together here, so that it can be wrong in any way.
func signed(t *testing.T, s *credential.Signer, header, claims said) string {
	t.Helper()
	head := said{"typ": "secevent+jwt", "alg": "RS256", "kid": "k1"}
	for name, v := range header {
		head[name] = v
	}
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	input := part(head) + "." + part(claims)
	sig, err := s.Sign([]byte(input))
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// Whatever is wrong with an event, it is refused with the code of RFC 8935, records
// nothing and revokes nobody; beside it is the event as it should be.
func TestReceiveRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		header said
		claims said
		by     *credential.Signer
		mangle func(string) string
		code   string
	}{
		{name: "control", claims: event("e")},
		{name: "control: several audiences", claims: event("e").with("aud", []string{"https://other.example", issuer})},
		{name: "control: no kid", header: said{"kid": ""}, claims: event("e")},
		{name: "control: sub as well", claims: event("e").with("sub", "ana")},
		{name: "another key", claims: event("e"), by: thief(), code: signals.InvalidKey},
		{name: "another key, without a kid", header: said{"kid": ""}, claims: event("e"), by: thief(), code: signals.InvalidKey},
		{name: "a kid that is not known", header: said{"kid": "k2"}, claims: event("e"), code: signals.InvalidKey},
		{name: "alg none", header: said{"alg": "none"}, claims: event("e"), mangle: func(s string) string { return s[:strings.LastIndexByte(s, '.')+1] }, code: signals.InvalidRequest},
		{name: "alg HS256", header: said{"alg": "HS256"}, claims: event("e"), code: signals.InvalidRequest},
		{name: "alg PS256", header: said{"alg": "PS256"}, claims: event("e"), code: signals.InvalidKey},
		{name: "a key in the header", header: said{"jwk": said{"kty": "oct"}}, claims: event("e"), code: signals.InvalidRequest},
		{name: "a typ of an access token", header: said{"typ": "at+jwt"}, claims: event("e"), code: signals.InvalidRequest},
		{name: "no typ", header: said{"typ": ""}, claims: event("e"), code: signals.InvalidRequest},
		{name: "an ID token", header: said{"typ": "JWT"}, claims: event("e"), code: signals.InvalidRequest},
		{name: "another issuer", claims: event("e").with("iss", idp+"/"), code: signals.InvalidIssuer},
		{name: "another audience", claims: event("e").with("aud", "https://other.example"), code: signals.InvalidAudience},
		{name: "no jti", claims: event(""), code: signals.InvalidRequest},
		{name: "of tomorrow", claims: event("e").with("iat", began.Unix()+86400), code: signals.InvalidRequest},
		{name: "of last year", claims: event("e").with("iat", began.Unix()-365*86400), code: signals.InvalidRequest},
		{name: "expired", claims: event("e").with("exp", began.Unix()-60), code: signals.InvalidRequest},
		{name: "two events", claims: event("e").with("events", said{signals.SessionRevoked: said{}, signals.AccountDisabled: said{}}), code: signals.InvalidRequest},
		{name: "no events", claims: event("e").with("events", said{}), code: signals.InvalidRequest},
		{name: "not a JWT", claims: event("e"), mangle: func(string) string { return "{}" }, code: signals.InvalidRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := hears(t, nil)
			by := c.by
			if by == nil {
				by = idpKey()
			}
			set := signed(t, by, c.header, c.claims)
			if c.mangle != nil {
				set = c.mangle(set)
			}
			err := w.Receive(t.Context(), "idp", set, nowhere)
			if c.code == "" {
				if err != nil || len(w.revoked) != 1 || len(w.of(ledger.SignalReceived)) != 1 {
					t.Errorf("%v; %d revocations, %d entries", err, len(w.revoked), len(w.of(ledger.SignalReceived)))
				}
				return
			}
			if err == nil || signals.ErrorCode(err) != c.code {
				t.Errorf("%v, which is %q; want %q", err, signals.ErrorCode(err), c.code)
			}
			if len(w.revoked) != 0 || w.Size() != 0 {
				t.Errorf("%d revocations, %d entries", len(w.revoked), w.Size())
			}
		})
	}
	w := hears(t, nil)
	wantCode(t, "an unknown transmitter", w.Receive(t.Context(), "other", signed(t, idpKey(), nil, event("e")), nowhere), counterfoil.ToolUnknown)
	polled := hears(t, func(tr *counterfoil.Transmitter) { tr.Poll = "https://idp.example/poll" })
	if err := polled.Receive(t.Context(), "idp", signed(t, idpKey(), nil, event("e")), nowhere); signals.ErrorCode(err) != signals.AccessDenied {
		t.Errorf("a push by one who is polled: %v", err)
	}
}

// What an event brings about: for whom, and what. Everything else is recorded and
// changes nothing.
func TestWhatFollows(t *testing.T) {
	t.Parallel()
	both := counterfoil.Suspend{Agents: true, Approvals: true}
	email := func(s string) said { return said{"format": "email", "email": s} }
	issSub := func(iss, sub string) said { return said{"format": "iss_sub", "iss": iss, "sub": sub} }
	change := func(kind string) said { return said{"credential_type": "password", "change_type": kind} }
	for _, c := range []struct {
		name   string
		claims said
		policy []string
		who    []string
		what   counterfoil.Suspend
	}{
		{"session revoked", event("e"), nil, []string{"ana"}, both},
		{"agents alone", event("e"), []string{"suspend-agents"}, []string{"ana"}, counterfoil.Suspend{Agents: true}},
		{"approvals alone", event("e"), []string{"void-approvals"}, []string{"ana"}, counterfoil.Suspend{Approvals: true}},
		{"account disabled", event("e").that(signals.AccountDisabled, said{"reason": "hijacking"}), nil, []string{"ana"}, both},
		{"credential revoked", event("e").that(signals.CredentialChange, change("revoke")), nil, []string{"ana"}, both},
		{"credential deleted", event("e").that(signals.CredentialChange, change("delete")), nil, []string{"ana"}, both},
		{"credential updated", event("e").that(signals.CredentialChange, change("update")), nil, []string{"ana"}, both},
		{"another spelling of the mailbox", event("e").about(email("A.na+x@EXAMPLE.com")), nil, []string{"ana"}, both},
		{"by the transmitter's name for it", event("e").about(issSub(idp, "bo@example.com")), nil, []string{"bo"}, both},
		{"a whole user", event("e").about(said{"format": "complex", "user": email("bo@example.com")}), nil, []string{"bo"}, both},

		{"credential added", event("e").that(signals.CredentialChange, change("create")), nil, nil, both},
		{"credential change of no kind", event("e").that(signals.CredentialChange, said{}), nil, nil, both},
		{"a policy that is not known", event("e"), []string{"nothing"}, nil, both},
		{"somebody else", event("e").about(email("eve@example.com")), nil, nil, both},
		{"a name that is no mailbox", event("e").about(email("zed")), nil, nil, both},
		{"the subject of another issuer", event("e").about(issSub("https://evil.example", "ana@example.com")), nil, nil, both},
		{"a subject that is no mailbox", event("e").about(issSub(idp, "ana")), nil, nil, both},
		{"one session of a user", event("e").about(said{"format": "complex", "user": email("ana@example.com"), "session": said{"format": "opaque", "id": "1"}}), nil, nil, both},
		{"a user in a tenant", event("e").about(said{"format": "complex", "user": email("ana@example.com"), "tenant": said{"format": "opaque", "id": "1"}}), nil, nil, both},
		{"a complex user within a complex one", event("e").about(said{"format": "complex", "user": said{"format": "complex", "user": email("ana@example.com")}}), nil, nil, both},
		{"a member that narrows the mailbox", event("e").about(said{"format": "email", "email": "ana@example.com", "device": "1"}), nil, nil, both},
		{"an unknown format", event("e").about(said{"format": "phone_number", "phone_number": "+1"}), nil, nil, both},
		{"no subject", func() said { e := event("e"); delete(e, "sub_id"); return e }(), nil, nil, both},
		{"an event that restores", event("e").that("https://schemas.openid.net/secevent/risc/event-type/account-enabled", said{}), nil, nil, both},
		{"an unknown event", event("e").that("https://example.com/x", said{}), nil, nil, both},
		{"a verification", event("e").that(signals.Verification, said{"state": "x"}), nil, nil, both},
		{"compliance", event("e").that("https://schemas.openid.net/secevent/caep/event-type/device-compliance-change", said{}), nil, nil, both},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := hears(t, func(tr *counterfoil.Transmitter) { tr.Disabled = c.policy })
			if err := w.Receive(t.Context(), "idp", signed(t, idpKey(), nil, c.claims), nowhere); err != nil {
				t.Fatal(err)
			}
			var who []string
			for i, r := range w.revoked {
				who = append(who, r.Target.ID)
				if r.Target.Kind != counterfoil.TargetPerson || r.Suspend != c.what || w.actors[i] != "transmitter:idp" || !strings.HasPrefix(r.Reason, "transmitter idp: ") {
					t.Errorf("revocation %+v by %s", r, w.actors[i])
				}
			}
			if !slices.Equal(who, c.who) {
				t.Errorf("revoked: %v, want %v", who, c.who)
			}
			entries := w.of(ledger.SignalReceived)
			if len(entries) != 1 || entries[0].TokenJTI != "e" || entries[0].Actor != "transmitter:idp" || (entries[0].Detail["effect"] == "none") != (c.who == nil) {
				t.Fatalf("entries %+v", entries)
			}
			if raw := string(must(ledger.Encode(entries[0]))); strings.Contains(raw, "@") {
				t.Errorf("the entry holds an address: %s", raw)
			}
		})
	}
}

// An event that is sent again does nothing, also after a restart and after a person
// let the other back in; and one that could not be obeyed is sent again.
func TestReceiveAgain(t *testing.T) {
	t.Parallel()
	w := hears(t, nil)
	set := signed(t, idpKey(), nil, event("e"))
	w.failRev = errors.New("the disk is full")
	if err := w.Receive(t.Context(), "idp", set, nowhere); err == nil || signals.ErrorCode(err) != "" || w.Size() != 0 {
		t.Errorf("a revocation that fails: %v, %d entries", err, w.Size())
	}
	w.failRev = nil
	for range 3 {
		wantCode(t, "taken", w.Receive(t.Context(), "idp", set, nowhere), "")
		w.start()
	}
	if len(w.revoked) != 1 || len(w.of(ledger.SignalReceived)) != 1 {
		t.Errorf("%d revocations, %d entries", len(w.revoked), len(w.of(ledger.SignalReceived)))
	}
	wantCode(t, "control: another", w.Receive(t.Context(), "idp", signed(t, idpKey(), nil, event("e2")), nowhere), "")
	if len(w.revoked) != 2 {
		t.Errorf("%d revocations", len(w.revoked))
	}
	// Its id is remembered until it would be refused by its age.
	w.mu.Lock()
	until := w.received["idp\ne"]
	w.now = until
	w.mu.Unlock()
	if err := w.Receive(t.Context(), "idp", set, nowhere); signals.ErrorCode(err) != signals.InvalidRequest {
		t.Errorf("when the id is forgotten: %v", err)
	}
}

func TestReceiveRate(t *testing.T) {
	t.Parallel()
	w := hears(t, nil)
	refused := 0
	for i := range 260 {
		if err := w.Receive(t.Context(), "idp", signed(t, idpKey(), nil, event(fmt.Sprint("e", i)).that("https://example.com/x", said{})), nowhere); err != nil {
			wantCode(t, "too many", err, counterfoil.RateLimited)
			refused++
		}
	}
	if refused != 60 {
		t.Errorf("%d of 260 refused", refused)
	}
	w.pass(time.Second)
	wantCode(t, "a second later", w.Receive(t.Context(), "idp", signed(t, idpKey(), nil, event("late")), nowhere), "")
}

// A published key set: fetched once, again for a key that is not known once a minute,
// and again after ten minutes, after which nothing old counts.
func TestPublishedKeys(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	asked, answer := 0, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	set := func(h http.HandlerFunc) { mu.Lock(); defer mu.Unlock(); answer = h }
	count := func() int { mu.Lock(); defer mu.Unlock(); return asked }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked++
		h := answer
		mu.Unlock()
		h(w, r)
	}))
	defer server.Close()
	keys := func(jwks ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"keys":[%s]}`, strings.Join(jwks, ",")) }
	}
	one := `{"kty":"oct","k":"AAAA"},` + publicJWK(idpKey(), "k1")
	set(keys(one))
	w := hears(t, func(tr *counterfoil.Transmitter) { tr.Keys, tr.JWKSURI = nil, server.URL+"/keys" })
	n := 0
	receive := func(by *credential.Signer, kid string) error {
		n++
		return w.Receive(t.Context(), "idp", signed(t, by, said{"kid": kid}, event(fmt.Sprint("e", n)).with("iat", w.clock().Unix())), nowhere)
	}
	want := func(what string, err error, code string, fetches int) {
		t.Helper()
		if (err == nil) != (code == "") || err != nil && signals.ErrorCode(err) != code && code != "fault" {
			t.Errorf("%s: %v, want %q", what, err, code)
		}
		if code == "fault" && counterfoil.CodeOf(err) != counterfoil.UpstreamUnavailable {
			t.Errorf("%s: %v, want a fault", what, err)
		}
		if got := count(); got != fetches {
			t.Errorf("%s: fetched %d times, want %d", what, got, fetches)
		}
	}
	// What names another issuer is not worth a fetch.
	foreign := w.Receive(t.Context(), "idp", signed(t, idpKey(), nil, event("foreign").with("iss", "https://evil.example")), nowhere)
	want("another issuer", foreign, signals.InvalidIssuer, 0)
	want("first", receive(idpKey(), "k1"), "", 1)
	want("second", receive(idpKey(), "k1"), "", 1)
	for range 5 {
		want("unknown kids at once", receive(thief(), "made-up"), signals.InvalidKey, 1)
	}
	// The transmitter rotates.
	set(keys(one, publicJWK(thief(), "k2")))
	want("a new key at once", receive(thief(), "k2"), signals.InvalidKey, 1)
	w.pass(time.Minute)
	want("a new key a minute later", receive(thief(), "k2"), "", 2)
	set(keys(publicJWK(thief(), "k2")))
	w.pass(9 * time.Minute)
	want("the old key within ten minutes", receive(idpKey(), "k1"), "", 2)
	w.pass(time.Minute)
	want("the old key after ten minutes", receive(idpKey(), "k1"), signals.InvalidKey, 3)
	// What cannot be fetched is our fault to the transmitter, and no old key counts.
	w.pass(10 * time.Minute)
	for name, h := range map[string]http.HandlerFunc{
		"an error":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"a redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"too long": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"keys":[%s],"x":"%s"}`, publicJWK(thief(), "k2"), strings.Repeat("x", 64<<10))
		},
		"not JSON": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"a member twice": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"keys":[],"keys":[%s]}`, publicJWK(thief(), "k2"))
		},
	} {
		set(h)
		fetched := count()
		w.pass(time.Minute)
		want(name, receive(thief(), "k2"), "fault", fetched+1)
		want(name+", again at once", receive(thief(), "k2"), "fault", fetched+1)
	}
	set(keys(publicJWK(thief(), "k2")))
	w.pass(time.Minute)
	before := count()
	want("at last", receive(thief(), "k2"), "", before+1)
	// Two keys of one name are neither.
	set(keys(publicJWK(thief(), "k2"), publicJWK(idpKey(), "k2")))
	w.pass(10 * time.Minute)
	want("an ambiguous name", receive(thief(), "k2"), signals.InvalidKey, before+2)
}

func TestKeysOnAMetadataService(t *testing.T) {
	t.Parallel()
	w := hears(t, func(tr *counterfoil.Transmitter) { tr.Keys, tr.JWKSURI = nil, "http://169.254.169.254/latest/keys" })
	err := w.Receive(t.Context(), "idp", signed(t, idpKey(), nil, event("e")), nowhere)
	if counterfoil.CodeOf(err) != counterfoil.UpstreamUnavailable || !strings.Contains(err.Error(), "link-local") {
		t.Errorf("%v", err)
	}
}

// Whatever a subject is, it names a mailbox only where it has one and nothing that
// narrows it, and otherwise it is said why not.
func FuzzSubject(f *testing.F) {
	for _, s := range []string{
		`{"format":"email","email":"ana@example.com"}`, `{"format":"iss_sub","iss":"https://idp.example","sub":"ana@example.com"}`,
		`{"format":"complex","user":{"format":"email","email":"ana@example.com"}}`, `{"format":"opaque","id":"1"}`, `{}`, `[]`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, subject []byte) {
		mailbox, why := signals.MailboxOf(idp, subject)
		if (mailbox == "") == (why == "") {
			t.Errorf("%q, %q", mailbox, why)
		}
		var m map[string]any
		if mailbox != "" && (json.Unmarshal(subject, &m) != nil || len(m) > 3 || !strings.Contains(mailbox, "@")) {
			t.Errorf("%s names %q", subject, mailbox)
		}
	})
}
