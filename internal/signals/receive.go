package signals

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/ledger"
)

// actorPrefix begins the actor of what a transmitter's event brought about.
const actorPrefix = "transmitter:"

// Codes of RFC 8935, Section 2.4.
const (
	InvalidRequest  = "invalid_request"
	InvalidKey      = "invalid_key"
	InvalidIssuer   = "invalid_issuer"
	InvalidAudience = "invalid_audience"
	AccessDenied    = "access_denied"
)

// ErrorCode returns the code of RFC 8935 for why an event was not taken, empty for what
// is no such reason: our own faults, rates, and transmitters that are not known.
func ErrorCode(err error) string {
	r, ok := counterfoil.AsRefusal(err)
	if !ok {
		return ""
	}
	switch r.Code {
	case counterfoil.TokenMalformed:
		return InvalidKey
	case counterfoil.TokenIssuer:
		return InvalidIssuer
	case counterfoil.TokenAudience:
		return InvalidAudience
	case counterfoil.PolicyForbids:
		return AccessDenied
	case counterfoil.RateLimited, counterfoil.ToolUnknown:
		return ""
	}
	return InvalidRequest
}

// What a transmitter may send in a second, and at once. Each event that is taken is an
// entry of the log, for ever.
const (
	arrivalRate  = 10
	arrivalBurst = 200
)

// A budget bounds how many events are taken, by transmitter.
type budget struct {
	mu   sync.Mutex
	left map[string]float64
	at   map[string]time.Time
}

func (b *budget) take(name string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left == nil {
		b.left, b.at = map[string]float64{}, map[string]time.Time{}
	}
	left, known := b.left[name]
	if !known {
		left = arrivalBurst
	} else if past := now.Sub(b.at[name]); past > 0 {
		left = min(arrivalBurst, left+past.Seconds()*arrivalRate)
	}
	b.at[name] = now
	if left < 1 {
		b.left[name] = left
		return false
	}
	b.left[name] = left - 1
	return true
}

// Receive takes an event that a transmitter pushed. What it returns is a refusal, for
// which ErrorCode has the code, or a fault, after which the transmitter sends it again.
// An event that was received before is taken and does nothing.
func (e *Engine) Receive(ctx context.Context, transmitter, set string, source netip.Addr) error {
	t := e.cfg.Registry().Transmitters[transmitter]
	if t == nil {
		return counterfoil.Refuse(counterfoil.ToolUnknown, "there is no such transmitter")
	}
	if t.Poll != "" {
		return counterfoil.Refuse(counterfoil.PolicyForbids, "this transmitter is polled and pushes nothing")
	}
	u, err := credential.ParseSET(set)
	if err != nil {
		return err
	}
	return e.receive(ctx, t, u, source)
}

// receive checks an event and does what follows from it.
func (e *Engine) receive(ctx context.Context, t *counterfoil.Transmitter, u credential.UnverifiedSET, source netip.Addr) error {
	now := e.cfg.Now()
	// Before its key is looked for: what names another issuer is not worth a fetch.
	if u.ClaimedIssuer() != t.Issuer {
		return counterfoil.Refuse(counterfoil.TokenIssuer, "the event's iss %.128q is not %q", u.ClaimedIssuer(), t.Issuer)
	}
	set, err := e.check(ctx, t, u, now)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	seen, err := e.cfg.Inbox.SignalSeen(ctx, t.Name, set.ID)
	if err != nil {
		return fmt.Errorf("looking an event up: %w", err)
	}
	if seen {
		return nil
	}
	// What is looked at costs a signature, what is taken an entry for ever.
	if !e.arrived.take(t.Name, now) {
		return counterfoil.Refuse(counterfoil.RateLimited, "more than %d events a second", arrivalRate)
	}
	// First what follows, then that it was received: after a crash in between the
	// transmitter sends it again, and what is revoked already is no news.
	entry := &ledger.Entry{
		Kind: ledger.SignalReceived, Actor: actorPrefix + t.Name, TokenJTI: set.ID,
		Detail: map[string]any{"transmitter": t.Name, "event": set.Event, "issued": ledger.FormatTime(set.IssuedAt)},
	}
	if source.IsValid() {
		entry.Source.Address = source.String()
	}
	if err := e.obey(ctx, t, set, entry.Detail); err != nil {
		return err
	}
	if _, err := e.cfg.Inbox.ReceiveSignal(ctx, t.Name, set.ID, set.IssuedAt.Add(credential.MaxEventAge), entry); err != nil {
		return fmt.Errorf("recording an event: %w", err)
	}
	return nil
}

func (e *Engine) check(ctx context.Context, t *counterfoil.Transmitter, u credential.UnverifiedSET, now time.Time) (credential.SET, error) {
	keys, err := e.keysOf(ctx, t, u.KeyID())
	if err != nil {
		return credential.SET{}, err
	}
	audience := t.Audience
	if audience == "" {
		audience = e.cfg.Issuer
	}
	refusal := error(counterfoil.Refuse(counterfoil.TokenMalformed, "the event: it is signed by no key of its transmitter"))
	for _, key := range keys {
		set, err := u.Check(key, t.Issuer, audience, now)
		if err == nil {
			return set, nil
		}
		// Another key may have made the signature; nothing else can become right.
		if refusal = err; counterfoil.CodeOf(err) != counterfoil.TokenMalformed {
			break
		}
	}
	return credential.SET{}, refusal
}

// obey does what follows from an event, and notes it. Only what is named here has an
// effect, and every effect is a revocation.
func (e *Engine) obey(ctx context.Context, t *counterfoil.Transmitter, set credential.SET, detail map[string]any) error {
	nothing := func(why string) error {
		detail["effect"], detail["why"] = "none", why
		return nil
	}
	if !disables(set) {
		return nothing("events of this type change nothing here")
	}
	mailbox, why := mailboxOf(t, set.Subject)
	if mailbox == "" {
		return nothing(why)
	}
	people := e.people(mailbox)
	if len(people) == 0 {
		return nothing("the subject is no person of ours")
	}
	suspend := counterfoil.Suspend{
		Agents:    len(t.Disabled) == 0 || slices.Contains(t.Disabled, counterfoil.DisabledSuspendAgents),
		Approvals: len(t.Disabled) == 0 || slices.Contains(t.Disabled, counterfoil.DisabledVoidApprovals),
	}
	if !suspend.Agents && !suspend.Approvals {
		return nothing("the transmitter's manifest says that nothing follows") // the zero Suspend is all of it
	}
	for _, name := range people {
		err := e.cfg.Revoke(ctx, counterfoil.Revocation{
			Target:  counterfoil.Target{Kind: counterfoil.TargetPerson, ID: name},
			Reason:  "transmitter " + t.Name + ": " + set.Event[strings.LastIndexByte(set.Event, '/')+1:],
			Suspend: suspend,
		}, actorPrefix+t.Name)
		if err != nil {
			return fmt.Errorf("revoking person %s: %w", name, err)
		}
	}
	var follows []string
	if suspend.Agents {
		follows = append(follows, counterfoil.DisabledSuspendAgents)
	}
	if suspend.Approvals {
		follows = append(follows, counterfoil.DisabledVoidApprovals)
	}
	detail["effect"], detail["people"] = follows, people
	return nil
}

// disables reports whether an event says that a person's account, sessions or
// credentials are no more what they were. A credential that is added takes nothing
// away.
func disables(set credential.SET) bool {
	switch set.Event {
	case SessionRevoked, AccountDisabled:
		return true
	case CredentialChange:
		var change struct {
			Type string `json:"change_type"`
		}
		return ijson.UnmarshalLax(set.Payload, &change) == nil && (change.Type == "revoke" || change.Type == "delete" || change.Type == "update")
	}
	return false
}

// mailboxOf returns the mailbox of the person that a subject names by e-mail (RFC 9493,
// Section 3.2.2), or by an e-mail that its transmitter knows the person by (Section
// 3.2.3), and otherwise why there is none.
//
// A complex subject is one principal, narrowed by each of its members: a session of a
// user is not the user. What is not understood may narrow it too, so that a member that
// is not the user's discards the event (SSF 1.0, Section 7.1, critical_subject_members).
func mailboxOf(t *counterfoil.Transmitter, subject jsontext.Value) (mailbox, why string) {
	members, err := ijson.Members(subject)
	if err != nil {
		return "", "there is no subject that can be read"
	}
	text := func(name string) string {
		var s string
		if ijson.Unmarshal(members[name], &s) != nil {
			return ""
		}
		return s
	}
	known := func(names ...string) bool {
		return !slices.ContainsFunc(slices.Collect(maps.Keys(members)), func(name string) bool { return !slices.Contains(names, name) })
	}
	const unknown = "the subject has members that are not understood"
	address := ""
	switch text("format") {
	case credential.SubjectEmail:
		if address = text("email"); !known("format", "email") {
			return "", unknown
		}
	case credential.SubjectIssSub:
		if !known("format", "iss", "sub") {
			return "", unknown
		}
		// A transmitter speaks of its own subjects alone.
		if text("iss") != t.Issuer {
			return "", "the subject is of another issuer"
		}
		address = text("sub")
	case credential.SubjectComplex:
		if !known("format", "user") || members["user"] == nil {
			return "", "the subject is not a whole user"
		}
		if nested, err := ijson.Members(members["user"]); err != nil || string(nested["format"]) == `"complex"` {
			return "", "the subject's user cannot be read"
		}
		return mailboxOf(t, members["user"])
	default:
		return "", "the subject's format is none by which people are known"
	}
	if !strings.Contains(address, "@") || len(address) > 254 {
		return "", "the subject is no e-mail address"
	}
	return (&counterfoil.Person{Email: address}).Mailbox(), ""
}

// people returns who has a mailbox, by name.
func (e *Engine) people(mailbox string) []string {
	var names []string
	for name, p := range e.cfg.Registry().People {
		if p != nil && p.Email != "" && p.Mailbox() == mailbox {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
