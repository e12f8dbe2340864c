package attacks

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/testkit/passkey"
	"github.com/counterfoil/counterfoil/ledger"
)

// Who may sign, and what is a signature. AP4, AP5, AP7, AP8, AP9, AP10.

// A forgery is something that looks like a signature of bo's. The control is bo's own
// over the same approval, right after it.
type forgery struct {
	row, name string

	// One of these: lies is an otherwise honest ceremony of bo's with changes; send is
	// anything else.
	lies func(*passkey.Ceremony)
	send func(o *office, id string) answer

	before func(o *office) // optional
	want   want
}

// run forges a signature on an approval of its own, wants it refused without effect,
// then lets bo sign honestly and the call run.
func (f forgery) run(t *testing.T, o *office) {
	t.Run(f.row+" "+f.name, func(t *testing.T) {
		defer o.inPart(t)()
		o.Clock.Advance(time.Second)
		o.awake()
		arguments := o.payment()
		id := o.ask(o.clerk, atTill, arguments)
		if f.before != nil {
			f.before(o)
		}
		o.wantNot("the forgery", f.want, func() answer {
			if f.send != nil {
				return f.send(o, id)
			}
			options := o.challenge(o.bo, id, counterfoil.DecisionApprove, "")
			return o.sign(o.bo, id, counterfoil.DecisionApprove, "", o.bo.Device.Get(options, f.lies))
		})
		if a := o.Approval(id); a.State != counterfoil.StatePending || len(a.Signatures) > 0 {
			t.Fatalf("after the forgery the approval is %s with %v", a.State, a.Signatures)
		}
		if state := o.bo.Countersign(id); state != counterfoil.StateApproved {
			t.Fatalf("after bo's own signature the approval is %s", state)
		}
		o.wantRun("the call", func() answer { return o.send(o.clerk, atTill, arguments) })
	})
}

var noPasskey = want{status: http.StatusBadRequest, code: counterfoil.PasskeyRefused}

// TestForgedChallenges is AP7: a signature is good for the one challenge that was made
// for it, once, and nobody brings a challenge of their own.
func TestForgedChallenges(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	yes := counterfoil.DecisionApprove
	other := func(o *office) string { return o.ask(o.clerk, atTill, o.payment()) }
	var used []byte // an assertion
	for _, f := range []forgery{
		{name: "no challenge was asked for", want: noPasskey, send: func(o *office, id string) answer {
			return o.sign(o.bo, id, yes, "", o.bo.Device.Get([]byte(`{"challenge":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","rpId":"localhost"}`)))
		}},
		{name: "a challenge of the client's", want: noPasskey, lies: func(c *passkey.Ceremony) {
			c.Challenge = base64.RawURLEncoding.EncodeToString(make([]byte, 32))
		}},
		{name: "a challenge in the body", want: want{status: 400, code: counterfoil.PayloadMalformed}, send: func(o *office, id string) answer {
			credential := o.bo.Device.Get(o.challenge(o.bo, id, yes, ""))
			body := strings.TrimSuffix(decisionBody(yes, "", credential), "}") + `,"challenge":"AAAA"}`
			return o.visit(visit{http.MethodPost, "/api/v1/approvals/" + id + "/signatures", body, o.bo})
		}},
		{name: "the challenge in another spelling", want: noPasskey, lies: func(c *passkey.Ceremony) { c.Challenge += "=" }},
		{name: "no challenge at all", want: noPasskey, lies: func(c *passkey.Ceremony) { c.Challenge = "" }},
		{name: "the digest for a challenge", want: noPasskey, send: func(o *office, id string) answer {
			o.challenge(o.bo, id, yes, "")
			digest := strings.TrimPrefix(o.Approval(id).Digest, "sha-256:")
			return o.sign(o.bo, id, yes, "", o.bo.Device.Get(fmt.Appendf(nil, `{"challenge":%q,"rpId":"localhost"}`, digest)))
		}},
		{name: "the challenge of another approval", want: noPasskey, send: func(o *office, id string) answer {
			credential := o.bo.Device.Get(o.challenge(o.bo, other(o), yes, ""))
			o.challenge(o.bo, id, yes, "")
			return o.sign(o.bo, id, yes, "", credential)
		}},
		{name: "an assertion that approved another", want: noPasskey, before: func(o *office) {
			one := other(o)
			used = o.bo.Device.Get(o.challenge(o.bo, one, yes, ""))
			if a := o.sign(o.bo, one, yes, "", used); !a.passed() {
				o.T.Fatalf("the one that it approved: %s", a)
			}
		}, send: func(o *office, id string) answer {
			o.challenge(o.bo, id, yes, "")
			return o.sign(o.bo, id, yes, "", used)
		}},
		{name: "a challenge that a later one replaced", want: noPasskey, send: func(o *office, id string) answer {
			credential := o.bo.Device.Get(o.challenge(o.bo, id, yes, ""))
			o.challenge(o.bo, id, yes, "")
			return o.sign(o.bo, id, yes, "", credential)
		}},
		{name: "a challenge that a refused signature used", want: noPasskey, send: func(o *office, id string) answer {
			options := o.challenge(o.bo, id, yes, "")
			noPasskey.check(o.T.(*testing.T), o.sign(o.bo, id, yes, "", o.bo.Device.Get(options, func(c *passkey.Ceremony) { c.UV = false })))
			return o.sign(o.bo, id, yes, "", o.bo.Device.Get(options))
		}},
		{name: "a challenge of five minutes ago", want: noPasskey, send: func(o *office, id string) answer {
			options := o.challenge(o.bo, id, yes, "")
			o.Clock.Advance(5 * time.Minute)
			return o.sign(o.bo, id, yes, "", o.bo.Device.Get(options))
		}},
		{name: "a challenge of before a restart", want: noPasskey, send: func(o *office, id string) answer {
			options := o.challenge(o.bo, id, yes, "")
			o.restart()
			o.again()
			return o.sign(o.bo, id, yes, "", o.bo.Device.Get(options))
		}},
		{name: "the challenge of a no", want: noPasskey, send: func(o *office, id string) answer {
			return o.sign(o.bo, id, yes, "", o.bo.Device.Get(o.challenge(o.bo, id, counterfoil.DecisionDeny, "")))
		}},
		{name: "the challenge of another reason", want: noPasskey, send: func(o *office, id string) answer {
			return o.sign(o.bo, id, yes, "no harm", o.bo.Device.Get(o.challenge(o.bo, id, yes, "")))
		}},
		{name: "the challenge of another person", want: noPasskey, send: func(o *office, id string) answer {
			theirs := bareChallenge(o.T, o.challenge(o.cy, id, yes, ""))
			o.challenge(o.bo, id, yes, "")
			return o.sign(o.bo, id, yes, "", o.bo.Device.Get(theirs))
		}},
		{name: "an assertion of a login", want: noPasskey, send: func(o *office, id string) answer {
			options := o.visit(visit{http.MethodPost, "/api/v1/sessions/options", `{}`, o.bo})
			credential := o.bo.Device.Get(options.body)
			o.challenge(o.bo, id, yes, "")
			return o.sign(o.bo, id, yes, "", credential)
		}},
		{name: "the session alone", want: noPasskey, send: func(o *office, id string) answer {
			o.challenge(o.bo, id, yes, "")
			return o.visit(visit{http.MethodPost, "/api/v1/approvals/" + id + "/signatures", `{"decision":"approve"}`, o.bo})
		}},
	} {
		f.row = "AP7"
		f.run(t, o)
	}
	// And no assertion over an approval's challenge opens a session.
	id := o.ask(o.clerk, atTill, o.payment())
	credential := o.bo.Device.Get(o.challenge(o.bo, id, yes, ""))
	noPasskey.check(t, o.visit(visit{http.MethodPost, "/api/v1/sessions", fmt.Sprintf(`{"credential":%s}`, credential), nil}))
	o.reconcile()
}

// TestForgedClientData is AP8.
func TestForgedClientData(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	here := o.ManagementURL()
	yes := true
	for name, lies := range map[string]func(*passkey.Ceremony){
		"another origin":                func(c *passkey.Ceremony) { c.Origin = "https://evil.example" },
		"a subdomain":                   func(c *passkey.Ceremony) { c.Origin = strings.Replace(here, "localhost", "evil.localhost", 1) },
		"a name that begins so":         func(c *passkey.Ceremony) { c.Origin = here + ".evil.example" },
		"another scheme":                func(c *passkey.Ceremony) { c.Origin = strings.Replace(here, "http:", "https:", 1) },
		"another port":                  func(c *passkey.Ceremony) { c.Origin = "http://localhost:1" },
		"no port":                       func(c *passkey.Ceremony) { c.Origin = "http://localhost" },
		"the public listener":           func(c *passkey.Ceremony) { c.Origin = o.Issuer() },
		"another spelling":              func(c *passkey.Ceremony) { c.Origin = strings.ToUpper(here) },
		"a slash more":                  func(c *passkey.Ceremony) { c.Origin = here + "/" },
		"no origin":                     func(c *passkey.Ceremony) { c.Origin = "" },
		"the origin null":               func(c *passkey.Ceremony) { c.Origin = "null" },
		"two origins, ours last":        func(c *passkey.Ceremony) { c.Origin, c.Extra = "https://evil.example", `,"origin":"`+here+`"` },
		"two origins, ours first":       func(c *passkey.Ceremony) { c.Extra = `,"origin":"https://evil.example"` },
		"an origin in another case":     func(c *passkey.Ceremony) { c.Origin, c.Extra = "https://evil.example", `,"Origin":"`+here+`"` },
		"another party":                 func(c *passkey.Ceremony) { c.RPID = "evil.example" },
		"a party above":                 func(c *passkey.Ceremony) { c.RPID = "host" },
		"the party in another spelling": func(c *passkey.Ceremony) { c.RPID = "LOCALHOST" },
		"the origin for a party":        func(c *passkey.Ceremony) { c.RPID = here },
		"a frame of another origin":     func(c *passkey.Ceremony) { c.CrossOrigin = &yes },
		"a frame that names its page":   func(c *passkey.Ceremony) { c.CrossOrigin, c.TopOrigin = &yes, "https://evil.example" },
		"a top origin":                  func(c *passkey.Ceremony) { c.TopOrigin = "https://evil.example" },
		"our own for a top origin":      func(c *passkey.Ceremony) { c.TopOrigin = here },
		"an enrolment":                  func(c *passkey.Ceremony) { c.Type = "webauthn.create" },
		"a payment":                     func(c *passkey.Ceremony) { c.Type = "payment.get" },
		"no type":                       func(c *passkey.Ceremony) { c.Type = "" },
		"more than the client data":     func(c *passkey.Ceremony) { c.Extra = `}{` },
		"client data that is not what is signed": func(c *passkey.Ceremony) {
			c.Mangle = func(a *passkey.Answer) {
				text, _ := base64.RawURLEncoding.DecodeString(a.Response.ClientDataJSON)
				a.Response.ClientDataJSON = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(text), "}", `,"x":1}`, 1)))
			}
		},
	} {
		forgery{row: "AP8", name: name, lies: lies, want: noPasskey}.run(t, o)
	}
	o.reconcile()
}

// TestForgedAuthenticatorData is AP9: what the authenticator says, and whose it is.
func TestForgedAuthenticatorData(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	eve := o.Approver("eve")
	stranger := o.device()
	stranger.Create([]byte(`{"challenge":"AAAA","rp":{"id":"localhost"},"user":{"id":"AAAA","name":"bo"}}`))
	mine := func() *passkey.Passkey { return o.bo.Device.Passkeys()[0] }
	mangled := func(edit func(*passkey.Answer)) func(*passkey.Ceremony) {
		return func(c *passkey.Ceremony) { c.Mangle = edit }
	}
	for name, lies := range map[string]func(*passkey.Ceremony){
		"nobody verified":                   func(c *passkey.Ceremony) { c.UV = false },
		"nobody present":                    func(c *passkey.Ceremony) { c.UP = false },
		"neither":                           func(c *passkey.Ceremony) { c.UP, c.UV = false, false },
		"a count of before":                 func(c *passkey.Ceremony) { c.Count -= 2 },
		"the count of last time":            func(c *passkey.Ceremony) { c.Count-- },
		"no count":                          func(c *passkey.Ceremony) { c.Count = 0 },
		"a passkey that may be copied now":  func(c *passkey.Ceremony) { c.BE = true },
		"one that is copied and may not be": func(c *passkey.Ceremony) { c.BS = true },
		"one that became copied":            func(c *passkey.Ceremony) { c.BE, c.BS = true, true },
		"a credential that nobody has":      func(c *passkey.Ceremony) { c.ID = []byte(strings.Repeat("x", 32)) },
		"another person's credential":       func(c *passkey.Ceremony) { c.ID = o.cy.Device.Passkeys()[0].ID },
		"another person's key and credential": func(c *passkey.Ceremony) {
			k := o.cy.Device.Passkeys()[0]
			c.ID, c.Key, c.UserHandle = k.ID, k.Key, k.Handle
		},
		"another person's under bo's handle": func(c *passkey.Ceremony) { k := o.cy.Device.Passkeys()[0]; c.ID, c.Key = k.ID, k.Key },
		"somebody's who may not sign": func(c *passkey.Ceremony) {
			k := eve.Device.Passkeys()[0]
			c.ID, c.Key, c.UserHandle = k.ID, k.Key, k.Handle
		},
		"bo's credential with another's key":    func(c *passkey.Ceremony) { c.Key = o.cy.Device.Passkeys()[0].Key },
		"bo's credential with a stranger's key": func(c *passkey.Ceremony) { c.Key = stranger.Passkeys()[0].Key },
		"a stranger's credential":               func(c *passkey.Ceremony) { k := stranger.Passkeys()[0]; c.ID, c.Key = k.ID, k.Key },
		"another's handle":                      func(c *passkey.Ceremony) { c.UserHandle = o.cy.Device.Passkeys()[0].Handle },
		"the name for a handle":                 func(c *passkey.Ceremony) { c.UserHandle = []byte("bo") },
		"no signature":                          mangled(func(a *passkey.Answer) { a.Response.Signature = "" }),
		"a signature that is zero":              mangled(func(a *passkey.Answer) { a.Response.Signature = "MAYCAQACAQA" }),
		"a signature with padding":              mangled(func(a *passkey.Answer) { a.Response.Signature += "=" }),
		"a signature with more after it":        mangled(func(a *passkey.Answer) { a.Response.Signature = appended(a.Response.Signature) }),
		"authenticator data with more after it": mangled(func(a *passkey.Answer) { a.Response.AuthenticatorData = appended(a.Response.AuthenticatorData) }),
		"authenticator data that is cut":        mangled(func(a *passkey.Answer) { a.Response.AuthenticatorData = a.Response.AuthenticatorData[:40] }),
		"no authenticator data":                 mangled(func(a *passkey.Answer) { a.Response.AuthenticatorData = "" }),
		"two ids":                               mangled(func(a *passkey.Answer) { a.RawID = base64.RawURLEncoding.EncodeToString(o.cy.Device.Passkeys()[0].ID) }),
		"another type":                          mangled(func(a *passkey.Answer) { a.Type = "password" }),
		"an id in another spelling":             mangled(func(a *passkey.Answer) { a.ID += "="; a.RawID += "=" }),
	} {
		forgery{row: "AP9", name: name, lies: lies, want: noPasskey}.run(t, o)
	}
	if n := mine().Count; n < 2 {
		t.Errorf("bo's count is %d: the counts above say nothing", n)
	}

	// A passkey that may be copied may come to be: that passes, and is recorded.
	copied := o.device()
	copied.BE = true
	owner := o.ApproverWith("cy", copied)
	id := o.ask(o.clerk, atTill, o.payment())
	from := o.size()
	if a := owner.Decide(id, counterfoil.DecisionApprove, "", func(c *passkey.Ceremony) { c.BS = true }); a.State != counterfoil.StateApproved {
		t.Errorf("AP9 a passkey that came to be copied: HTTP %d %s", a.Status, a.Body)
	}
	for _, e := range o.since(from) {
		if e.Kind == ledger.ApprovalSigned && e.Detail["backed_up"] != true {
			t.Errorf("the entry of a copied passkey says %v", e.Detail["backed_up"])
		}
	}
	o.reconcile()
}

func appended(s string) string {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(append(b, 0))
}

// TestForgedEnrolments is AP8 and AP9 where a passkey comes to be: the code alone makes
// none, and it is not used up by a ceremony that is refused.
func TestForgedEnrolments(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	eve := o.Visitor("eve", o.device())
	code := o.PersonCode("eve", false)
	yes := true
	for name, lies := range map[string]func(*passkey.Ceremony){
		"AP8 another origin":        func(c *passkey.Ceremony) { c.Origin = "https://evil.example" },
		"AP8 another party":         func(c *passkey.Ceremony) { c.RPID = "evil.example" },
		"AP8 a login":               func(c *passkey.Ceremony) { c.Type = "webauthn.get" },
		"AP8 a frame":               func(c *passkey.Ceremony) { c.CrossOrigin = &yes },
		"AP7 another challenge":     func(c *passkey.Ceremony) { c.Challenge = "AAAA" },
		"AP9 nobody verified":       func(c *passkey.Ceremony) { c.UV = false },
		"AP9 nobody present":        func(c *passkey.Ceremony) { c.UP = false },
		"AP9 bo's credential":       func(c *passkey.Ceremony) { c.ID = o.bo.Device.Passkeys()[0].ID },
		"AP9 bo's key":              func(c *passkey.Ceremony) { c.Key = o.bo.Device.Passkeys()[0].Key },
		"AP9 copied and may not be": func(c *passkey.Ceremony) { c.BS = true },
	} {
		want := counterfoil.PasskeyRefused
		if strings.HasPrefix(name, "AP9 bo's") {
			want = counterfoil.KeyInUse
		}
		if a := eve.Enrol(code, lies); a.Code != want {
			t.Errorf("%s: HTTP %d %s", name, a.Status, a.Body)
		}
	}
	for _, e := range o.since(0) {
		if e.Kind == ledger.PersonEnrolled && e.Actor == "eve" {
			t.Errorf("a passkey was enrolled: %+v", e)
		}
	}
	eve.Device = o.device()
	if a := eve.Enrol(code); a.Status != http.StatusCreated {
		t.Errorf("an honest one: HTTP %d %s", a.Status, a.Body)
	}
	if a := eve.Enrol(code); a.Code != counterfoil.EnrolmentRefused {
		t.Errorf("the code once more: HTTP %d %s", a.Status, a.Body)
	}
	o.reconcile()
}

// TestWhoMayNotSign is AP4.
func TestWhoMayNotSign(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	ana, ann, eve := o.Approver("ana"), o.Approver("ann"), o.Approver("eve")
	aud, adm := o.Approver("aud"), o.Approver("adm")
	notEligible := want{status: 403, code: counterfoil.ApproverNotEligible}
	unknown := want{status: 404, code: counterfoil.ToolUnknown}
	nobody := want{status: 401, code: counterfoil.SessionRequired}
	// An honest signature of somebody over the challenge that bo was given: it is all
	// that they can get hold of.
	as := func(p *counterfoiltest.Approver) func(*office, string) answer {
		return func(o *office, id string) answer {
			options := o.challenge(o.bo, id, counterfoil.DecisionApprove, "")
			if a := p.Decide(id, counterfoil.DecisionApprove, ""); a.Status == http.StatusOK {
				o.T.Errorf("%s signed: %s", p.Name, a.Body)
			}
			options = bareChallenge(o.T, options)
			return o.sign(p, id, counterfoil.DecisionApprove, "", p.Device.Get(options))
		}
	}
	agent := func(scheme string, withProof bool) func(*office, string) answer {
		return func(o *office, id string) answer {
			path := "/api/v1/approvals/" + id + "/signatures"
			body := decisionBody(counterfoil.DecisionApprove, "", o.bo.Device.Get(o.challenge(o.bo, id, counterfoil.DecisionApprove, "")))
			token := o.tokenAt(o.clerk, o.Issuer())
			return o.visit(visit{http.MethodPost, path, body, nil}, func(r *http.Request) {
				r.Header.Set("Authorization", scheme+" "+token)
				if withProof {
					proof := counterfoiltest.ForgeProof(o.T, o.clerk.signer, http.MethodPost, o.ManagementURL()+path, o.Clock.Now())
					proof.Claims["ath"] = credential.TokenHash(token)
					r.Header.Set("DPoP", proof.Compact(o.T))
				}
			})
		}
	}
	for _, f := range []forgery{
		{name: "the agent's owner", send: as(ana), want: notEligible},
		{name: "the owner's other record", send: as(ann), want: notEligible},
		{name: "somebody of another group", send: as(eve), want: unknown},
		{name: "an auditor", send: as(aud), want: notEligible},
		{name: "an administrator of no group", send: as(adm), want: notEligible},
		{name: "the agent with its token and proof", send: agent("DPoP", true), want: nobody},
		{name: "the agent with its token", send: agent("Bearer", false), want: nobody},
		{name: "nobody, with bo's assertion", want: nobody, send: func(o *office, id string) answer {
			options := o.challenge(o.bo, id, counterfoil.DecisionApprove, "")
			return o.sign(nil, id, counterfoil.DecisionApprove, "", o.bo.Device.Get(options))
		}},
		{name: "the agent at its own address of the approval", want: want{status: 405, code: counterfoil.MethodForbidden}, send: func(o *office, id string) answer {
			q := o.callWith(o.clerk, o.tokenAt(o.clerk, o.Issuer()), o.Issuer()+counterfoil.ApprovalPath+id)
			q.body = `{"decision":"approve"}`
			return o.sendCall(q)
		}},
		{name: "the administration socket", want: unknown, send: func(o *office, id string) answer {
			in := map[string]any{"decision": "approve", "credential": json.RawMessage(o.bo.Device.Get(o.challenge(o.bo, id, counterfoil.DecisionApprove, "")))}
			status, body := o.Admin(http.MethodPost, "/api/v1/approvals/"+id+"/signatures", in)
			return read(status, http.Header{}, body)
		}},
	} {
		f.row = "AP4"
		f.run(t, o)
	}
	// Who may not is offered nothing either.
	id := o.ask(o.clerk, atTill, o.payment())
	if got := o.Approval(id).Candidates; fmt.Sprint(got) != "[bo cy dan]" {
		t.Errorf("who may sign is %v", got)
	}
	o.reconcile()
}

// TestOneHumanCountsOnce is AP5: two passkeys, two records, two browsers, a hundred
// requests.
func TestOneHumanCountsOnce(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	dan := o.Approver("dan") // bo's other record
	again := o.ApproverWith("bo", o.device())
	notDistinct := want{status: 403, code: counterfoil.ApproverNotDistinct}
	once := func(p *counterfoiltest.Approver) func(id string) answer {
		return func(id string) answer {
			a := p.Decide(id, counterfoil.DecisionApprove, "")
			return answer{status: a.Status, body: a.Body, code: a.Code}
		}
	}
	for _, c := range []struct {
		name   string
		second func(id string) answer
	}{
		{"AP5 twice", once(o.bo)},
		{"AP5 with another passkey", once(again)},
		{"AP5 as another record of the same mailbox", once(dan)},
		{"AP5 with the challenge of before", func(id string) answer {
			return o.sign(o.bo, id, counterfoil.DecisionApprove, "", o.bo.Device.Get([]byte(`{"challenge":"AAAA","rpId":"localhost"}`)))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer o.inPart(t)()
			arguments := o.payment()
			id := o.ask(o.clerk, atBankPay, arguments)
			if state := o.bo.Countersign(id); state != counterfoil.StatePending {
				t.Fatalf("after one of two signatures the approval is %s", state)
			}
			o.wantNot("the second signature", notDistinct, func() answer { return c.second(id) })
			o.wantNot("the call", refused(counterfoil.ApprovalPending), func() answer { return o.send(o.clerk, atBankPay, arguments, naming(id)) })
			if state := o.cy.Countersign(id); state != counterfoil.StateApproved {
				t.Fatalf("with another person the approval is %s", state)
			}
			o.wantRun("the call", func() answer { return o.send(o.clerk, atBankPay, arguments, naming(id)) })
		})
	}
	// One passkey belongs to one person, whoever brings it.
	visitor := o.Visitor("eve", o.device())
	k := o.bo.Device.Passkeys()[0]
	if a := visitor.Enrol(o.PersonCode("eve", false), func(c *passkey.Ceremony) { c.ID, c.Key = k.ID, k.Key }); a.Code != counterfoil.KeyInUse {
		t.Errorf("AP5 one passkey for two people: HTTP %d %s", a.Status, a.Body)
	}
	// Many signatures of one person at once are one.
	arguments := o.payment()
	id := o.ask(o.clerk, atBankPay, arguments)
	options := o.challenge(o.bo, id, counterfoil.DecisionApprove, "")
	var requests []*http.Request
	for range 50 {
		body := decisionBody(counterfoil.DecisionApprove, "", o.bo.Device.Get(options))
		requests = append(requests, o.asking(visit{http.MethodPost, "/api/v1/approvals/" + id + "/signatures", body, o.bo}))
	}
	won := 0
	for _, a := range o.atOnce(requests) {
		if a.passed() {
			won++
		}
	}
	if got := o.signers(id); won != 1 || len(got) != 1 || o.Approval(id).State != counterfoil.StatePending {
		t.Errorf("AP5 fifty signatures of one person: %d passed, signed have %v, and it is %s", won, got, o.Approval(id).State)
	}
	o.reconcile()
}

// bareChallenge makes options that allow any passkey of those with the challenge of
// somebody else's.
func bareChallenge(t testing.TB, options []byte) []byte {
	t.Helper()
	var wire struct {
		PublicKey struct {
			Challenge string `json:"challenge"`
		} `json:"publicKey"`
	}
	if err := json.Unmarshal(options, &wire); err != nil || wire.PublicKey.Challenge == "" {
		t.Fatalf("the options %s: %v", options, err)
	}
	return fmt.Appendf(nil, `{"challenge":%q,"rpId":"localhost"}`, wire.PublicKey.Challenge)
}
