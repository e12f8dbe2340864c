package attacks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

// The matrix of what can be revoked and of what authority is used for: RV1.

// A ward is an agent with everything that a revocation can take from it: an owner of
// its own, a till and a room of its own, and something begun of each kind.
type ward struct {
	*actor
	o    *office
	task string // that all of it is in; empty: none

	call   string // its token for its till
	own    string // its token for the server
	room   *guest // its open stream
	stream io.ReadCloser

	asked  string // an approval that waits
	signed string // one that was given, and the arguments it is for
	pays   string
	by     *counterfoiltest.Approver // who is asked
}

const wardManifest = `---
kind: Person
name: owner-%[1]s
email: owner-%[1]s@example.com
---
kind: Resource
name: till-%[1]s
type: mcp
environment: prod
upstream: %[2]s
servers: [verger]
tools:
  - {name: get_balance, class: read}
  - {name: pay, class: refund, fields: {amount: /amount, currency: /currency, to: /to}}
---
kind: Resource
name: room-%[1]s
type: mcp
environment: prod
upstream: %[3]s/mcp
servers: [verger, ward-%[1]s]
tools: [{name: say, class: read}]
---
kind: Agent
name: ward-%[1]s
owner: %[4]s
environment: prod
grants: [{tools: ["till-%[1]s/*", "room-%[1]s/*", bank/get_balance]}]
`

func (v *ward) till() string { return "till-" + strings.TrimPrefix(v.name, "ward-") }
func (v *ward) at() string   { return v.o.Issuer() + counterfoil.ResourcePath + v.till() }

// A fate is what comes of a use of authority after a revocation. A fate that is untouched is one
// of a use that passes, as the revocation takes nothing from it, and says why.
type fate struct {
	want
	untouched string
}

func gone(status int, code counterfoil.Code) fate {
	return fate{want: want{status: status, code: code}}
}

// noToken is a refusal of the token endpoint.
func noToken(status int, oauth string, code counterfoil.Code) fate {
	return fate{want: want{status: status, oauth: oauth, code: code}}
}

func untouched(why string) fate { return fate{untouched: why} }

// void is an introspection's answer.
var void = fate{want: want{status: http.StatusOK}}

// A use is a column: what authority is used for.
type use struct {
	name string
	try  func(v *ward) answer
}

var uses = []use{
	{"issue", func(v *ward) answer {
		q := v.o.tokenRequest(v.actor)
		q.Form.Set("resource", v.at())
		inTask(v.task)(q)
		return v.o.sendToken(q)
	}},
	{"call", func(v *ward) answer { return v.o.sendCall(v.pay("get_balance", honestArguments)) }},
	{"stream", func(v *ward) answer { return v.o.sendCall(v.room.request(http.MethodPost, sayIt)) }},
	{"approve", func(v *ward) answer { return v.signature(v.asked) }},
	{"spend", func(v *ward) answer { return v.o.sendCall(v.pay("pay", v.pays)) }},
	{"introspect", func(v *ward) answer { return v.o.introspect(v.o.verger, v.call) }},
	{"open task", func(v *ward) answer {
		return v.o.sendCall(v.o.own(v.actor, v.own, http.MethodPost, counterfoil.TasksPath, plainTask))
	}},
	{"feed", func(v *ward) answer {
		return v.o.sendCall(v.o.own(v.actor, v.own, http.MethodGet, counterfoil.FeedPath+"?after=-1", ""))
	}},
	{"rotate key", func(v *ward) answer {
		next := counterfoiltest.NewSigner(v.o.T, credential.ES256)
		got := v.o.sendCall(v.o.rotation(v.actor, v.own, next, 0))
		if got.passed() {
			v.signer = next
		}
		return got
	}},
}

// A revocationOf is a row.
type revocationRow struct {
	kind  counterfoil.TargetKind
	ids   func(v *ward) []string
	after map[string]fate
}

// all fills the cells that are not given with one for each use of a token that there is.
func all(token fate, more map[string]fate) map[string]fate {
	cells := map[string]fate{"call": token, "stream": token, "spend": token, "open task": token, "rotate key": token, "feed": token, "introspect": void}
	for use, c := range more {
		cells[use] = c
	}
	return cells
}

var (
	suspended = gone(401, counterfoil.AgentSuspended)
	lapsed    = gone(401, counterfoil.TokenRevoked)
	withdrawn = gone(403, counterfoil.ApprovalRevoked)
)

func named(id func(v *ward) string) func(v *ward) []string {
	return func(v *ward) []string { return []string{id(v)} }
}

var revocationMatrix = []revocationRow{
	{counterfoil.TargetAgent, named(func(v *ward) string { return v.name }), all(suspended, map[string]fate{
		"issue": noToken(401, "invalid_client", counterfoil.AgentSuspended), "approve": withdrawn,
	})},
	{counterfoil.TargetOwner, named(func(v *ward) string { return "owner-owner" }), all(suspended, map[string]fate{
		"issue": noToken(401, "invalid_client", counterfoil.AgentSuspended), "approve": withdrawn,
	})},
	{counterfoil.TargetInstance, named(func(v *ward) string { return v.instance }), all(lapsed, map[string]fate{
		"issue": noToken(401, "invalid_client", counterfoil.ClientRefused), "approve": withdrawn,
	})},
	{counterfoil.TargetKey, named(func(v *ward) string { return v.signer.Public().Thumbprint() }), all(lapsed, map[string]fate{
		"issue": noToken(401, "invalid_client", counterfoil.ClientRefused), "approve": withdrawn,
	})},
	{counterfoil.TargetTask, named(func(v *ward) string { return v.task }), all(gone(401, counterfoil.TaskClosed), map[string]fate{
		"issue": noToken(400, "invalid_grant", counterfoil.TaskClosed), "approve": withdrawn,
		"open task": gone(409, counterfoil.TaskClosed),
	})},
	{counterfoil.TargetToken, func(v *ward) []string { return []string{v.o.jti(v.call), v.o.jti(v.room.token), v.o.jti(v.own)} }, all(lapsed, map[string]fate{
		"issue":   untouched("a token is no authority to get tokens: who has the key gets another"),
		"approve": untouched("people are asked about agent, task and payload, not about a token; what they say is used with a good one"),
	})},
	{counterfoil.TargetPerson, named(func(v *ward) string { return "cy" }), all(suspended, map[string]fate{
		"issue": noToken(401, "invalid_client", counterfoil.AgentSuspended), "approve": gone(401, counterfoil.SessionRequired),
	})},
	{counterfoil.TargetResource, func(v *ward) []string { return []string{v.till(), "room-resource"} }, map[string]fate{
		"issue": noToken(400, "invalid_target", counterfoil.TargetInvalid), "call": lapsed, "stream": lapsed, "spend": lapsed,
		"approve": withdrawn, "introspect": void,
		"open task":  untouched("a task gives nothing: no token for the resource comes of it"),
		"rotate key": untouched("the agent's key is not the resource's, and it works elsewhere"),
		"feed":       untouched("a server of the resource has to be told that it is suspended"),
	}},
}

// TestRevocationMatrix is RV1 and RV7 for each kind of target: what the target's authority was good
// for, just before, it is not good for with the acknowledgement, and nothing else
// stopped.
func TestRevocationMatrix(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	manifest := "kind: Agent\nname: verger\nowner: ana\nenvironment: prod\n"
	names := []string{"witness"}
	for _, row := range revocationMatrix {
		names = append(names, string(row.kind))
	}
	room := o.Upstream(counterfoiltest.NewRecorder(&streamer{}))
	for _, name := range names {
		owner := "owner-" + name
		if name == "person" {
			owner = "cy"
		}
		manifest += fmt.Sprintf(wardManifest, name, o.BankUpstream(), room, owner)
	}
	o.Apply(manifest)
	o.verger = o.actor("verger")
	witness := o.ward("witness", false)
	defer witness.stream.Close()
	for _, row := range revocationMatrix {
		t.Run("RV1 "+string(row.kind), func(t *testing.T) {
			defer o.inPart(t)()
			o.Clock.Advance(time.Second)
			o.revokeRow(row, witness)
		})
	}
	// The witness's stream was open all the time, and takes what is new.
	if got := uses[2].try(witness); !got.passed() {
		t.Errorf("the witness's session: %s", got)
	}
	o.Entries()
}

func (o *office) revokeRow(row revocationRow, witness *ward) {
	t := o.T
	v := o.ward(string(row.kind), row.kind == counterfoil.TargetTask)
	defer v.stream.Close()
	var signed *ward
	if row.kind == counterfoil.TargetPerson {
		// People sign for agents that they do not own: what the person is asked is the
		// witness's, and what they said yes to as well.
		signed = &ward{o: o, actor: witness.actor, call: witness.fresh().call, by: o.cy}
		signed.approvals()
		v.asked, v.by = signed.asked, o.cy
	}
	for _, use := range uses { // the controls that use nothing up
		switch use.name {
		case "approve", "spend", "rotate key":
		default:
			if got := use.try(v); !got.passed() {
				t.Fatalf("%s before the revocation: %s", use.name, got)
			}
		}
	}
	before := o.size()
	begun := time.Now()
	last := int64(-1)
	for _, id := range row.ids(v) {
		if last = o.revoke(row.kind, id); last < 0 {
			t.Errorf("nothing was revoked of %s %s", row.kind, id)
		}
	}
	from, arrived := o.size(), o.arrived()
	if _, err := io.ReadAll(v.stream); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("RV7: the stream was not cut: %v", err)
	}
	t.Logf("the stream ended %v after it was asked for", time.Since(begun))
	for _, use := range uses {
		got, want := use.try(v), row.after[use.name]
		switch {
		case want.untouched != "":
			if !got.passed() {
				t.Errorf("%s, of which nothing is taken (%s): %s", use.name, want.untouched, got)
			}
		case use.name == "introspect":
			if string(got.body) != inactive || got.status != http.StatusOK {
				t.Errorf("%s: %s", use.name, got)
			}
		case got.status != want.status || got.code != want.code || got.oauth != want.oauth:
			t.Errorf("%s: got %s\nwant %+v", use.name, got, want.want)
		}
	}
	if n, allowed := o.arrived()-arrived, o.allowedBy(from, v.name, v.till()); n != 0 || allowed != 0 {
		t.Errorf("%d calls arrived, %d decisions allow", n, allowed)
	}
	o.more(row, v, signed)
	// The receipt says when the gateway stopped.
	o.wait("the gateway's receipt", func() bool { return o.stopped(last) })
	if n := o.revocations(before); n != len(row.ids(v)) {
		t.Errorf("%d revocations were recorded", n)
	}
	// Nothing else stopped.
	if got := o.sendCall(witness.fresh().pay("get_balance", honestArguments)); !got.passed() {
		t.Errorf("the witness's call: %s", got)
	}
	if !o.active(o.introspect(o.verger, witness.call)) {
		t.Errorf("the witness's token is void")
	}
	// And what was revoked stays so: asked again it is no news.
	if row.kind != counterfoil.TargetToken {
		for _, id := range row.ids(v) {
			if index := o.revoke(row.kind, id); index >= 0 {
				t.Errorf("revoked twice: entry %d", index)
			}
		}
	}
}

// more looks at what is of one row alone.
func (o *office) more(row revocationRow, v, signed *ward) {
	t := o.T
	t.Helper()
	switch row.kind {
	case counterfoil.TargetPerson:
		o.wantNot("an approval that the person gave", refused(counterfoil.ApprovalRevoked), func() answer {
			q := signed.pay("pay", signed.pays)
			q.header.Set("Counterfoil-Approval", signed.signed)
			return o.sendCall(q)
		})
		// What they were asked, others may answer.
		if state := o.bo.Countersign(signed.asked); state != counterfoil.StateApproved {
			t.Errorf("after another's yes it is %s", state)
		}
	case counterfoil.TargetTask:
		// Outside of the task the agent goes on, and takes nothing of the task's there.
		task := v.task
		v.task = ""
		v.call = o.tokenFor(v.actor, v.at())
		if got := o.sendCall(v.pay("get_balance", honestArguments)); !got.passed() {
			t.Errorf("the agent outside of its task: %s", got)
		}
		q := v.pay("pay", v.pays)
		q.header.Set("Counterfoil-Approval", v.signed)
		if got := o.sendCall(q); got.passed() {
			t.Errorf("an approval of the task, outside of it: %s", got)
		}
		v.task = task
	case counterfoil.TargetToken:
		// With a good token what people said of the call is used, once.
		v.call = o.tokenFor(v.actor, v.at())
		if got := o.sendCall(v.pay("pay", v.pays)); !got.passed() {
			t.Errorf("the approval with a good token: %s", got)
		}
	case counterfoil.TargetResource:
		if got := o.sendCall(o.callWith(v.actor, o.tokenFor(v.actor, o.BankURL()), o.BankURL())); !got.passed() {
			t.Errorf("the agent at another resource: %s", got)
		}
	}
}

// ward makes a ward with everything, each thing of which passed once.
func (o *office) ward(name string, task bool) *ward {
	o.T.Helper()
	v := &ward{o: o, actor: o.actor("ward-" + name)}
	o.rotate(v.actor, 0) // the control: the key is the agent's to change
	if task {
		v.task = o.open(v.actor, plainTask)
	}
	v.fresh()
	v.room = &guest{w: o.world, actor: v.actor, room: "room-" + name, token: o.tokenFor(v.actor, o.Issuer()+"/r/room-"+name, inTask(v.task))}
	t, ok := o.T.(*testing.T)
	if !ok {
		panic("not a test")
	}
	v.stream = v.room.enter(t)
	v.by = o.bo
	v.approvals()
	return v
}

// approvals asks for three: one is used, which is the control, one is given, one waits.
func (v *ward) approvals() {
	o := v.o
	o.T.Helper()
	for i := range 3 {
		pays := o.payment()
		got := o.sendCall(v.pay("pay", pays))
		id := got.told().ID
		if got.code != counterfoil.ApprovalRequired || id == "" {
			o.T.Fatalf("asking for an approval: %s", got)
		}
		if i < 2 {
			if state := v.by.Countersign(id); state != counterfoil.StateApproved {
				o.T.Fatalf("after the signature the approval is %s", state)
			}
		}
		switch i {
		case 0:
			if got := o.sendCall(v.pay("pay", pays)); !got.passed() {
				o.T.Fatalf("using an approval: %s", got)
			}
		case 1:
			v.signed, v.pays = id, pays
		case 2:
			v.asked = id
		}
	}
}

// fresh gets tokens anew.
func (v *ward) fresh() *ward {
	v.o.T.Helper()
	v.call = v.o.tokenFor(v.actor, v.at(), inTask(v.task))
	v.own = v.o.ownToken(v.actor, inTask(v.task))
	return v
}

// pay makes a call at the ward's till.
func (v *ward) pay(tool, arguments string) *call {
	v.o.T.Helper()
	return &call{
		method: http.MethodPost, url: v.at(), body: counterfoiltest.Body(tool, arguments),
		header: http.Header{
			"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"},
			"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"tools/call"}, "Mcp-Name": {tool},
		},
		scheme: "DPoP", token: v.call, proof: counterfoiltest.ForgeProof(v.o.T, v.signer, http.MethodPost, v.at(), v.o.Clock.Now()),
	}
}

// signature lets a person say yes, and returns the first answer that is a refusal.
func (v *ward) signature(id string) answer {
	v.o.T.Helper()
	got := v.o.visit(visit{http.MethodPost, "/api/v1/approvals/" + id + "/challenge", decisionBody("approve", "", nil), v.by})
	if !got.passed() {
		return got
	}
	return v.o.sign(v.by, id, "approve", "", v.by.Device.Get(got.body))
}

// allowedBy counts decisions that allow calls of an agent at a resource.
func (o *office) allowedBy(from int64, agent, resource string) (n int) {
	for _, e := range o.since(from) {
		if e.Kind == "call.decided" && e.Decision == "allow" && e.Agent == agent && e.Resource == resource {
			n++
		}
	}
	return n
}

// stopped reports whether the receipt of a revocation says that the gateway stopped.
func (o *office) stopped(index int64) bool {
	o.T.Helper()
	status, body := o.Admin(http.MethodGet, fmt.Sprintf("/api/v1/revocations/%d", index), nil)
	var r struct {
		Points []struct {
			Kind    string    `json:"kind"`
			Stopped time.Time `json:"stopped"`
			Seq     int64     `json:"seq"`
		} `json:"points"`
	}
	if err := json.Unmarshal(body, &r); err != nil || status != http.StatusOK {
		o.T.Fatalf("the receipt of %d: HTTP %d %s", index, status, body)
	}
	for _, p := range r.Points {
		if p.Kind == "gateway" && !p.Stopped.IsZero() && p.Seq > index {
			return true
		}
	}
	return false
}
