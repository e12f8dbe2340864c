package signals

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ledger"
)

// Types of event: CAEP 1.0, RISC 1.0, SSF 1.0.
const (
	caep = "https://schemas.openid.net/secevent/caep/event-type/"
	risc = "https://schemas.openid.net/secevent/risc/event-type/"
	ssf  = "https://schemas.openid.net/secevent/ssf/event-type/"

	SessionRevoked    = caep + "session-revoked"
	CredentialChange  = caep + "credential-change"
	TokenClaimsChange = caep + "token-claims-change"
	RiskLevelChange   = caep + "risk-level-change"
	AccountDisabled   = risc + "account-disabled"

	// What is told to one stream about itself, whatever it asked for.
	Verification  = ssf + "verification"
	StreamUpdated = ssf + "stream-updated"
)

// Supported returns the types of event that streams may ask for.
func Supported() []string {
	return []string{SessionRevoked, CredentialChange, TokenClaimsChange, RiskLevelChange, AccountDisabled}
}

// tells are the kinds of entry that eventsOf knows.
var tells = map[ledger.Kind]bool{
	ledger.Revoked: true, ledger.TaskClosed: true, ledger.AgentSuspended: true, ledger.AgentOffboarded: true,
	ledger.InstanceEnrolled: true, ledger.ProofKeyBound: true, ledger.KeyRotated: true, ledger.CloneSuspected: true,
	ledger.AgentChanged: true, ledger.PersonEnrolled: true, ledger.PasskeyEnded: true, ledger.StreamChanged: true,
}

// An event is what one entry tells about one subject.
type event struct {
	kind    string
	subject credential.SubjectID
	payload map[string]any
	stream  string // the one stream that it is for; empty: every one
}

// Who began what an event tells (CAEP 1.0, Section 2).
const (
	byAdmin  = "admin"
	byPolicy = "policy"
	bySystem = "system"
)

// eventsOf derives the events of an entry, always the same ones in the same order. A
// kind that it does not know tells nothing.
//
// The texts of reasons are not told: they are people's words, for those who may read
// the ledger.
func (e *Engine) eventsOf(entry *ledger.Entry) []event {
	d := deriving{e: e, entry: entry, by: initiator(entry)}
	switch entry.Kind {
	case ledger.AgentSuspended, ledger.AgentOffboarded:
		d.agentGone(entry.Agent)
	case ledger.TaskClosed:
		d.taskClosed(entry.Agent, entry.Task)
	case ledger.Revoked:
		d.revoked()
	case ledger.InstanceEnrolled, ledger.ProofKeyBound:
		d.key("create", entry.Agent, entry.JKT)
	case ledger.KeyRotated:
		// Without an agent it is a signing key of ours, which is published.
		d.key("update", entry.Agent, entry.JKT)
	case ledger.CloneSuspected:
		d.add(RiskLevelChange, agentSubject(e.cfg.Issuer, entry.Agent), map[string]any{
			"principal": "APPLICATION", "current_level": "HIGH", "risk_reason": "a key was seen in two places at once",
		})
		// An agent's manifest may say that it is only recorded.
		if entry.Detail["clones"] != counterfoil.ClonesRecord {
			d.add(SessionRevoked, within(e.cfg.Issuer, entry.Agent, entry.Instance), nil)
		}
	case ledger.AgentChanged:
		if slices.Contains(texts(entry.Detail["fields"]), "grants") {
			d.add(TokenClaimsChange, agentSubject(e.cfg.Issuer, entry.Agent), map[string]any{"claims": e.claims(entry.Agent)})
		}
	case ledger.PersonEnrolled:
		d.passkey("create")
	case ledger.PasskeyEnded:
		d.passkey("revoke")
	case ledger.StreamChanged:
		d.control()
	}
	return d.events
}

func initiator(entry *ledger.Entry) string {
	switch {
	case strings.HasPrefix(entry.Actor, actorPrefix):
		return byPolicy
	case entry.Actor != "":
		return byAdmin
	case entry.Kind == ledger.TaskClosed && entry.Detail["state"] == string(counterfoil.TaskExpired):
		return byPolicy
	}
	return bySystem
}

// deriving gathers the events of one entry.
type deriving struct {
	e      *Engine
	entry  *ledger.Entry
	by     string
	events []event
}

func (d *deriving) add(kind string, subject credential.SubjectID, own map[string]any) {
	payload := map[string]any{"initiating_entity": d.by}
	if at, err := d.entry.When(); err == nil {
		payload["event_timestamp"] = at.Unix()
	}
	for name, v := range own {
		payload[name] = v
	}
	d.events = append(d.events, event{kind: kind, subject: subject, payload: payload})
}

// voided returns what an entry's Detail lists under a name of counterfoil.Voided.
func (d *deriving) voided(name string) []string {
	if v, ok := d.entry.Detail["voided"].(map[string]any); ok {
		return texts(v[name])
	}
	return texts(d.entry.Detail[name])
}

func texts(v any) []string {
	list, _ := v.([]any)
	var out []string
	for _, item := range list {
		if s, ok := item.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// agentGone tells that nothing of an agent counts any more: once for receivers that
// know applications, once for those that know subjects alone.
func (d *deriving) agentGone(agent string) {
	if agent == "" {
		return
	}
	plain := agentSubject(d.e.cfg.Issuer, agent)
	d.add(SessionRevoked, credential.SubjectID{Format: credential.SubjectComplex, Application: &plain}, nil)
	d.add(SessionRevoked, plain, nil)
	d.add(AccountDisabled, plain, nil)
}

// taskClosed tells that a task ended, and those below it, which may be other agents'.
func (d *deriving) taskClosed(agent, task string) {
	if task == "" {
		return
	}
	subject := credential.SubjectID{Format: credential.SubjectComplex, Session: &credential.SubjectID{Format: credential.SubjectOpaque, ID: task}}
	if agent != "" {
		subject = within(d.e.cfg.Issuer, agent, task)
	}
	d.add(SessionRevoked, subject, nil)
	for _, below := range d.voided("tasks") {
		if below != task {
			d.add(SessionRevoked, credential.SubjectID{
				Format: credential.SubjectComplex, Session: &credential.SubjectID{Format: credential.SubjectOpaque, ID: below},
			}, nil)
		}
	}
}

func (d *deriving) key(change, agent, jkt string) {
	if agent == "" || jkt == "" {
		return
	}
	d.add(CredentialChange, agentSubject(d.e.cfg.Issuer, agent), map[string]any{
		"credential_type": "jwk", "change_type": change, "friendly_name": jkt,
	})
}

func (d *deriving) passkey(change string) {
	person, _ := d.entry.Detail["person"].(string)
	if person == "" {
		return
	}
	kind := "fido2-roaming"
	if slices.Contains(texts(d.entry.Detail["transports"]), "internal") {
		kind = "fido2-platform"
	}
	own := map[string]any{"credential_type": kind, "change_type": change}
	if aaguid, _ := d.entry.Detail["aaguid"].(string); aaguid != "" {
		own["fido2_aaguid"] = aaguid
	}
	d.add(CredentialChange, d.e.personSubject(person), own)
}

// target returns what a revocation is of.
func (d *deriving) target() (kind counterfoil.TargetKind, id string) {
	text := func(name string) string { s, _ := d.entry.Detail[name].(string); return s }
	return counterfoil.TargetKind(text("kind")), text("id")
}

func (d *deriving) revoked() {
	issuer := d.e.cfg.Issuer
	switch kind, id := d.target(); kind {
	case counterfoil.TargetToken:
		d.add(SessionRevoked, credential.SubjectID{Format: credential.SubjectTokenID, Issuer: issuer, TokenID: id}, nil)
	case counterfoil.TargetKey, counterfoil.TargetInstance:
		keys := d.voided("keys")
		if kind == counterfoil.TargetKey && !slices.Contains(keys, id) {
			keys = append(keys, id)
		}
		if len(keys) == 0 && d.entry.JKT != "" {
			keys = append(keys, d.entry.JKT)
		}
		for _, jkt := range keys {
			d.key("revoke", d.entry.Agent, jkt)
		}
	case counterfoil.TargetTask:
		d.taskClosed(d.entry.Agent, id)
	case counterfoil.TargetAgent:
		d.agentGone(id)
	case counterfoil.TargetOwner:
		d.allGone()
	case counterfoil.TargetPerson:
		d.add(SessionRevoked, d.e.personSubject(id), nil)
		if len(d.voided("passkeys")) > 0 {
			d.add(CredentialChange, d.e.personSubject(id), map[string]any{"credential_type": "fido2-roaming", "change_type": "revoke"})
		}
		d.allGone()
	case counterfoil.TargetResource:
		uri := issuer + counterfoil.ResourcePath + id
		if r := d.e.cfg.Registry().Resources[id]; r != nil {
			uri = r.ID(issuer)
		}
		d.add(SessionRevoked, credential.SubjectID{Format: credential.SubjectURI, URI: uri}, nil)
	}
}

func (d *deriving) allGone() {
	for _, agent := range d.voided("agents") {
		d.agentGone(agent)
	}
}

// control tells a stream about itself.
func (d *deriving) control() {
	text := func(name string) string { s, _ := d.entry.Detail[name].(string); return s }
	stream := text(detailStream)
	if stream == "" {
		return
	}
	own := event{stream: stream, subject: credential.SubjectID{Format: credential.SubjectOpaque, ID: stream}, payload: map[string]any{}}
	switch text(detailChange) {
	case changeVerification:
		own.kind = Verification
		if state, ok := d.entry.Detail[detailState].(string); ok {
			own.payload["state"] = state
		}
	case changeStatus:
		own.kind = StreamUpdated
		own.payload["status"] = text(detailStatus)
		if d.entry.Reason != "" {
			own.payload["reason"] = d.entry.Reason // the receiver's own words
		}
	default:
		return
	}
	d.events = append(d.events, own)
}

func agentSubject(issuer, agent string) credential.SubjectID {
	return credential.SubjectID{Format: credential.SubjectIssSub, Issuer: issuer, Subject: agent}
}

// within is one session of an agent: a task, or an instance.
func within(issuer, agent, session string) credential.SubjectID {
	app := agentSubject(issuer, agent)
	return credential.SubjectID{
		Format: credential.SubjectComplex, Application: &app,
		Session: &credential.SubjectID{Format: credential.SubjectOpaque, ID: session},
	}
}

// personSubject names a person as other systems know them.
func (e *Engine) personSubject(name string) credential.SubjectID {
	if p := e.cfg.Registry().People[name]; p != nil && p.Email != "" {
		return credential.SubjectID{Format: credential.SubjectEmail, Email: p.Email}
	}
	return credential.SubjectID{Format: credential.SubjectIssSub, Issuer: e.cfg.Issuer, Subject: name}
}

// maxClaims is how many tools one event names.
const maxClaims = 200

// claims are what the agent's tokens may say now, which is not what they said when the
// entry was written: a receiver that is behind is told the newest.
func (e *Engine) claims(agent string) map[string]any {
	registry := e.cfg.Registry()
	scope, details := []string{}, []any{}
	if a := registry.Agents[agent]; a != nil {
		for i := range a.Grants {
			for _, id := range a.Grants[i].Tools {
				r := registry.Resources[id.Resource]
				if r == nil || len(details) == maxClaims {
					continue
				}
				details = append(details, map[string]any{
					"type": counterfoil.DetailType, "locations": []string{r.ID(e.cfg.Issuer)}, "actions": []string{"call"}, "tool": id.Tool,
				})
				if !slices.Contains(scope, id.Tool) {
					scope = append(scope, id.Tool)
				}
			}
		}
	}
	return map[string]any{"scope": strings.Join(scope, " "), "authorization_details": details}
}

// wants reports whether a stream is told an event as it stands.
func (e *Engine) wants(s *counterfoil.SignalStream, ev event) bool {
	if ev.stream != "" {
		return ev.stream == s.ID
	}
	return s.Status != counterfoil.StreamDisabled && (len(s.Request) == 0 || slices.Contains(s.Request, ev.kind))
}

// A placed event is one for a stream, with what it is known by.
type placed struct {
	event
	place int64
	at    time.Time
	id    string // its jti
}

// placedAt names the event at a place, for a stream. Its id has the entry's time, too:
// a log that goes on from a backup has other entries where those were that a receiver
// may know.
func placedAt(stream string, place int64, ev event, at time.Time) placed {
	return placed{ev, place, at, fmt.Sprintf("%s.%d.%d.%s", stream,
		place/counterfoil.MaxEventsOfEntry, place%counterfoil.MaxEventsOfEntry, strconv.FormatInt(at.UnixMicro(), 36))}
}

// sign makes the security event token of an event for a stream.
func (e *Engine) sign(ctx context.Context, s *counterfoil.SignalStream, p placed) (string, error) {
	signer, err := e.cfg.Signer(ctx)
	if err != nil {
		return "", fmt.Errorf("getting the key of events: %w", err)
	}
	return credential.SignSET(signer, credential.SETClaims{
		Issuer: e.cfg.Issuer, Audience: s.Audience, ID: p.id, IssuedAt: p.at, Txn: fmt.Sprint(p.place / counterfoil.MaxEventsOfEntry),
		Subject: p.subject, Event: p.kind, Payload: p.payload,
	})
}
