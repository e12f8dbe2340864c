package approval

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil"
)

// Config is what an Engine needs. Fields without "optional" must be set.
type Config struct {
	Store  Store
	Issuer string // the public URL, without a slash at the end: where an approval's status is
	Origin string // the management URL: where people open the console. Its host is the rpId

	// Dev takes away the cooling time of passkeys that were added or reset.
	Dev bool

	MaxPending int                           // approvals of one agent that wait at once; 20 when zero
	Roots      *x509.CertPool                // whose attestation makes an authenticator's model believed; optional
	Notify     func(context.Context, Notice) // must not block; optional
	Now        func() time.Time              // optional
	Log        *slog.Logger                  // optional
}

// Times and bounds.
const (
	defaultMaxPending = 20
	defaultWindow     = 15 * time.Minute // to decide, where the class says nothing
	fetchWindow       = 15 * time.Minute // to fetch the answer of a call that ran, before it is erased
	ceremonyLife      = 5 * time.Minute
	coolingTime       = 24 * time.Hour // of passkeys that were added or reset, for irreversible classes
	codeLife          = 24 * time.Hour // of a person's enrolment code
	maxReason         = 500            // characters
)

// An Engine decides whether people said yes. It is safe for concurrent use.
type Engine struct {
	cfg   Config // complete
	store Store
	log   *slog.Logger
	party party

	logins     *ceremonies[loginCeremony]
	enrolments *ceremonies[enrolCeremony]
	signings   *ceremonies[signCeremony]
	looks      *looks
	told       *told

	held     chan string
	changes  chan string
	caughtUp atomic.Bool // since the start: see handOn
}

// New makes an Engine.
func New(cfg Config) (*Engine, error) {
	if cfg.Store == nil || cfg.Issuer == "" {
		return nil, errors.New("making the approval engine: a part that it needs is missing")
	}
	p, err := newParty(cfg.Origin)
	if err != nil {
		return nil, fmt.Errorf("making the approval engine: %w", err)
	}
	if cfg.MaxPending <= 0 {
		cfg.MaxPending = defaultMaxPending
	}
	if cfg.Notify == nil {
		cfg.Notify = func(context.Context, Notice) {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Engine{
		cfg: cfg, store: cfg.Store, log: cfg.Log, party: p,
		logins:     newCeremonies[loginCeremony](),
		enrolments: newCeremonies[enrolCeremony](),
		signings:   newCeremonies[signCeremony](),
		looks:      newLooks(),
		told:       newTold(millis(cfg.Now())),
		held:       make(chan string, 1024),
		changes:    make(chan string, 1024),
	}, nil
}

// now is the time in the store's resolution: what is compared later is what is kept
// now.
func (e *Engine) now() time.Time { return e.cfg.Now().UTC().Truncate(time.Millisecond) }

// A party is the relying party of every ceremony (WebAuthn Level 3, Section 4).
type party struct {
	id     string // rpId
	origin string // as browsers write it
}

// newParty makes the relying party of a management URL. Its id is the host, which
// browsers take only where it is a name.
func newParty(origin string) (party, error) {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || u.User != nil || (u.Scheme != "https" && u.Scheme != "http") {
		return party{}, fmt.Errorf("management URL %q is not an http or https URL", origin)
	}
	host := strings.ToLower(u.Hostname())
	if net.ParseIP(host) != nil {
		return party{}, fmt.Errorf("management URL %q has an IP address: passkeys belong to a name (WebAuthn Level 3, Section 5.1.3)", origin)
	}
	for i := range len(host) {
		if c := host[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return party{}, fmt.Errorf("management URL %q has a host that browsers write otherwise: use its ASCII form", origin)
		}
	}
	o := u.Scheme + "://" + host
	if port := u.Port(); port != "" && port != map[string]string{"http": "80", "https": "443"}[u.Scheme] {
		o += ":" + port
	}
	return party{id: host, origin: o}, nil
}

// Events of a Notice.
const (
	EventRequested      = "requested"
	EventSigned         = "signed"
	EventClosed         = "closed"
	EventChangeProposed = "change_proposed"
	EventPasskeyReset   = "passkey_reset"
)

// A Notice tells people outside that something waits for them or happened. It
// carries no authority: whoever reads it can open the console, and nothing else.
type Notice struct {
	Event    string `json:"event"`
	Approval string `json:"approval,omitzero"`
	State    string `json:"state,omitzero"`
	Agent    string `json:"agent,omitzero"`
	Task     string `json:"task,omitzero"`
	Purpose  string `json:"purpose,omitzero"` // of the task, in the agent's words
	Tool     string `json:"tool,omitzero"`
	Class    string `json:"class,omitzero"`
	Tier     string `json:"tier,omitzero"`
	Digest   string `json:"digest,omitzero"`
	Sentence string `json:"sentence,omitzero"`

	Expires time.Time `json:"expires,omitzero"`
	URL     string    `json:"url,omitzero"` // of the console's page
	People  []string  `json:"people,omitzero"`
}

// Held gives the ids of approvals that were approved and whose call the gateway is
// to make itself; after a start those that already are. An id may come more than
// once: of any number of attempts to spend it one succeeds.
func (e *Engine) Held() <-chan string { return e.held }

// Changes gives the ids of approvals of changes that were approved or denied. An id
// may come more than once.
func (e *Engine) Changes() <-chan string { return e.changes }

// tell hands an id over. Where nobody takes it in time, the next sweep finds it
// again.
func tell(c chan string, id string) {
	select {
	case c <- id:
	default:
	}
}

// StatusOf returns what the agent that asked is shown.
func (e *Engine) StatusOf(a counterfoil.Approval) *counterfoil.ApprovalStatus {
	state := stateAt(&a, e.now())
	s := &counterfoil.ApprovalStatus{
		ID: a.ID, Status: string(state), StatusEndpoint: e.cfg.Issuer + counterfoil.ApprovalPath + a.ID,
		Interval: int(counterfoil.ApprovalPoll / time.Second), ExpiresAt: a.Expires, ApprovalsRequired: a.Rule.Required, Digest: a.Digest,
	}
	switch {
	case state == counterfoil.StateApproved:
		s.ExpiresAt = a.UseUntil
	case state.Ran():
		s.Entry = a.Decided
	case state == counterfoil.StateDenied:
		s.Reason = shortReason(a.Reason)
	}
	return s
}

// stateAt is the state that counts at a time: what is past its time is expired,
// whether or not anybody has recorded that yet.
func stateAt(a *counterfoil.Approval, now time.Time) counterfoil.ApprovalState {
	switch {
	case a.State == counterfoil.StatePending && !now.Before(a.Expires),
		a.State == counterfoil.StateApproved && !now.Before(a.UseUntil):
		return counterfoil.StateExpired
	}
	return a.State
}

// shortReason is the form in which an agent learns why a person said no: one line,
// at most 200 characters, nothing in it that hides or turns text.
func shortReason(s string) string {
	var b strings.Builder
	n := 0
	for _, seg := range Visible(strings.Join(strings.Fields(s), " ")) {
		text := seg.Text
		if seg.Code != "" {
			text = "⟨" + seg.Code + "⟩"
		}
		for _, r := range text {
			if n == 200 {
				return b.String() + "…"
			}
			b.WriteRune(r)
			n++
		}
	}
	return b.String()
}
