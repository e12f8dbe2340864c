// Package notify tells people outside that something waits for them: signed
// webhooks, a chat's incoming webhook, mail.
//
// A notification carries no authority. It says what is asked for, by whom and until
// when, and links to the console's page; nothing in it decides anything, and nothing
// that comes back is read. It holds the sentence that the operator's template made
// and nothing else of the payload.
//
// It is best effort: what waits is kept in memory, tried a few times over a day, and
// lost with the process. The console's inbox is what is true. Of changes of who may
// approve, which take effect by themselves, whoever makes them tells again after a start.
//
// Not checked here: who may decide. The caller names the addresses.
package notify

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/outbound"
)

// A Message is what is told.
type Message struct {
	Event    string // requested, signed, closed, change_proposed, passkey_reset
	Approval string // id
	State    string // of the approval
	Agent    string // who asks; empty for a change
	Tool     string
	Class    string
	Tier     string
	Task     string // that the call is made in, by its id; and its purpose, in the agent's words
	Purpose  string
	Digest   string // what is signed
	Sentence string // by the operator's template; may hold what a sender wrote
	Expires  time.Time
	URL      string   // of the console's page
	To       []string // mail addresses of the people who may decide
}

// Config says who is told. Log is required.
type Config struct {
	Webhooks []Webhook
	Slack    counterfoil.Secret // URL of an incoming webhook; whoever has it can post
	SMTP     *SMTP

	// Guard judges where webhooks and the chat are, as named by somebody else, and the
	// relay as an upstream of the operator's. Nil: with an empty list.
	Guard *outbound.Guard

	Now func() time.Time                           // time.Now when nil
	Log *slog.Logger                               // never has a sentence, an address or a secret
	Nap func(ctx context.Context, d time.Duration) // waits; a timer when nil
}

// A Webhook is a receiver of signed messages.
type Webhook struct {
	URL    string
	Secret counterfoil.Secret // "whsec_" and base64 of 24 to 64 bytes
}

// Bounds, for each target apart: one that does not answer keeps nobody else from being
// told. What is over them is dropped, counted and logged.
const (
	maxWaiting = 512              // deliveries that were taken and not ended
	maxAtOnce  = 4                // deliveries on the wire
	maxTime    = 10 * time.Second // of one attempt; HTTP has half of it
	maxAnswer  = 64 << 10         // bytes of an answer, which nobody reads
)

// Events of a Message that have places kept for them: what an agent asks for, and takes
// back, must not push out that somebody widens who may approve.
const (
	eventRequested      = "requested"
	eventChangeProposed = "change_proposed"
	eventPasskeyReset   = "passkey_reset"
)

// places returns how many deliveries may wait at a target for one of that event to be
// taken.
func places(event string) int64 {
	const kept = 64 // for each of the two
	switch event {
	case eventChangeProposed:
		return maxWaiting
	case eventPasskeyReset:
		return maxWaiting - kept
	}
	return maxWaiting - 2*kept
}

// pauses are the times between attempts, a little less or more: eight attempts in
// about a day, as Standard Webhooks advises.
var pauses = []time.Duration{
	5 * time.Second, time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 6 * time.Hour, 14 * time.Hour,
}

// A target is one place that messages go to.
type target interface {
	// name says which it is, for logs, without its address.
	name() string
	// send tries once. id is the same for every attempt at one message. An error
	// that is final means that trying again is of no use.
	send(ctx context.Context, id string, m *Message) error
}

// final marks an error after which nothing is tried again.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// A Notifier tells people. It is safe for concurrent use.
type Notifier struct {
	cfg     Config
	targets []*lane
	queue   chan delivery

	dropped, failed atomic.Uint64
}

// A lane is a target with what waits for it.
type lane struct {
	target
	waiting atomic.Int64
	slots   chan struct{}
}

// A delivery is one message on its way to one target.
type delivery struct {
	to      *lane
	id      string
	message *Message
}

// New makes a Notifier. Without a place to tell it takes everything and tells
// nobody.
func New(cfg Config) (*Notifier, error) {
	if cfg.Log == nil {
		return nil, errors.New("making the notifier: its log is missing")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Nap == nil {
		cfg.Nap = nap
	}
	n := &Notifier{cfg: cfg}
	add := func(t target) { n.targets = append(n.targets, &lane{target: t, slots: make(chan struct{}, maxAtOnce)}) }
	for i, w := range cfg.Webhooks {
		t, err := newWebhook(i+1, w, cfg.Guard, cfg.Now)
		if err != nil {
			return nil, fmt.Errorf("making webhook %d: %w", i+1, err)
		}
		add(t)
	}
	if !cfg.Slack.Empty() {
		t, err := newSlack(cfg.Slack, cfg.Guard)
		if err != nil {
			return nil, fmt.Errorf("making the chat's webhook: %w", err)
		}
		add(t)
	}
	if cfg.SMTP != nil {
		t, err := newMail(*cfg.SMTP, cfg.Guard, cfg.Now)
		if err != nil {
			return nil, fmt.Errorf("making the mailer: %w", err)
		}
		add(t)
	}
	n.queue = make(chan delivery, maxWaiting*len(n.targets)) // whatever the lanes let in has room
	return n, nil
}

// Queue takes a message for every target and returns at once. What does not fit is
// dropped: nobody who decides may wait for somebody who is told.
func (n *Notifier) Queue(ctx context.Context, m Message) {
	m.Sentence = visible(m.Sentence, maxSentence)
	m.To = slices.Clone(m.To)
	for _, t := range n.targets {
		if t.waiting.Add(1) <= places(m.Event) {
			n.queue <- delivery{t, counterfoil.NewID("msg_"), &m}
			continue
		}
		t.waiting.Add(-1)
		n.dropped.Add(1)
		n.cfg.Log.WarnContext(ctx, "a notification was dropped: too many wait", "target", t.name(), "event", m.Event, "approval", m.Approval)
	}
}

// Dropped returns how many deliveries were never tried.
func (n *Notifier) Dropped() uint64 { return n.dropped.Load() }

// Failed returns how many deliveries were given up.
func (n *Notifier) Failed() uint64 { return n.failed.Load() }

// Run delivers until ctx ends, and then what is being sent is given up.
func (n *Notifier) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case d := <-n.queue:
			wg.Go(func() {
				defer d.to.waiting.Add(-1)
				n.deliver(ctx, d)
			})
		case <-ctx.Done():
			return
		}
	}
}

// deliver tries a delivery until it is taken, or of no use any more.
func (n *Notifier) deliver(ctx context.Context, d delivery) {
	for attempt := 0; ; attempt++ {
		err := n.attempt(ctx, d)
		if err == nil || ctx.Err() != nil {
			return
		}
		var never final
		if errors.As(err, &never) || attempt == len(pauses) {
			n.giveUp(ctx, d, attempt+1, err)
			return
		}
		n.cfg.Log.InfoContext(ctx, "a notification was not taken", "target", d.to.name(), "approval", d.message.Approval, "attempts", attempt+1, "err", err)
		n.cfg.Nap(ctx, around(pauses[attempt]))
		if ctx.Err() != nil {
			return
		}
		if n.late(d.message) {
			n.giveUp(ctx, d, attempt+1, errors.New("it is too late to decide"))
			return
		}
	}
}

// around returns a tenth more or less, so that those that failed together do not
// come back together.
func around(d time.Duration) time.Duration {
	var b [8]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return d - d/10 + time.Duration(binary.LittleEndian.Uint64(b[:])%uint64(d/5))
}

func (n *Notifier) giveUp(ctx context.Context, d delivery, attempts int, err error) {
	n.failed.Add(1)
	n.cfg.Log.WarnContext(ctx, "a notification was given up", "target", d.to.name(), "approval", d.message.Approval, "attempts", attempts, "err", err)
}

// attempt tries once, with a few others at most.
func (n *Notifier) attempt(ctx context.Context, d delivery) error {
	select {
	case d.to.slots <- struct{}{}:
		defer func() { <-d.to.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	return d.to.send(ctx, d.id, d.message)
}

// late reports whether nobody can act on the message any more.
func (n *Notifier) late(m *Message) bool {
	return m.Event == eventRequested && !m.Expires.IsZero() && n.cfg.Now().After(m.Expires)
}

func nap(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// checkAnswer says by an answer's status whether the receiver took the message. A redirect is no answer: the address is the
// operator's, and somebody else's word does not change it.
func checkAnswer(status int) error {
	switch {
	case status >= 200 && status < 300:
		return nil
	case status >= 300 && status < 400:
		return final{fmt.Errorf("the receiver answered %d: redirects are not followed", status)}
	case status == http.StatusGone:
		return final{errors.New("the receiver answered 410: it is gone")}
	}
	return fmt.Errorf("the receiver answered %d", status)
}
