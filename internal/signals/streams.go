package signals

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// Members of the Detail of a stream.changed entry, and what the change was.
const (
	detailStream = "stream"
	detailChange = "change"
	detailStatus = "status"
	detailState  = "state"

	changeCreated      = "created"
	changeUpdated      = "updated"
	changeDeleted      = "deleted"
	changeStatus       = "status"
	changeVerification = "verification"
)

// Bounds on what a receiver says, in bytes.
const (
	maxDescription   = 255
	maxAuthorization = 1024
	maxState         = 256
	maxReason        = 255
	maxRequested     = 32
	maxEventType     = 512
)

// MinVerification is how long a receiver waits between two verifications.
const MinVerification = 5 * time.Second

// A Wish is what a receiver asks of its stream (SSF 1.0, Section 8.1.1).
type Wish struct {
	Method        string // empty: counterfoil.DeliveryPoll
	Endpoint      string // of push
	Authorization counterfoil.Secret
	Request       []string // event types; none: every one that is supported
	Describe      string
}

// sweep deletes the streams of agents that are offboarded: their names never return.
func (e *Engine) sweep(ctx context.Context) error {
	all, err := e.cfg.Streams.Streams(ctx)
	if err != nil {
		return fmt.Errorf("reading the streams: %w", err)
	}
	for i := range all {
		if s := &all[i]; e.cfg.AgentState(s.Agent).Status == counterfoil.Offboarded {
			entry := e.changed(counterfoil.Caller{Agent: s.Agent}, s, changeDeleted)
			entry.Reason = "its agent was offboarded"
			if err := e.cfg.Streams.DeleteStream(ctx, s.ID, entry); err != nil {
				return fmt.Errorf("deleting a stream: %w", err)
			}
			e.forget(s.ID)
		}
	}
	return nil
}

// agentOf returns the agent of a receiver, which has to be one by its manifest.
func (e *Engine) agentOf(name string) (*counterfoil.Agent, error) {
	a := e.cfg.Registry().Agents[name]
	if a == nil || a.Signals == nil {
		return nil, counterfoil.Refuse(counterfoil.PolicyForbids, "the agent's manifest has no signals: it may receive none")
	}
	return a, nil
}

func noStream() error {
	return counterfoil.Refuse(counterfoil.ToolUnknown, "there is no such stream of this agent")
}

// StreamOf returns the stream of the caller's agent. An id that is not empty has to be
// its; of an agent that may receive no signals, or has no stream, there is none.
func (e *Engine) StreamOf(ctx context.Context, c counterfoil.Caller, id string) (counterfoil.SignalStream, error) {
	if _, err := e.agentOf(c.Agent); err != nil {
		return counterfoil.SignalStream{}, err
	}
	all, err := e.cfg.Streams.Streams(ctx)
	if err != nil {
		return counterfoil.SignalStream{}, fmt.Errorf("reading the streams: %w", err)
	}
	i := slices.IndexFunc(all, func(s counterfoil.SignalStream) bool { return s.Agent == c.Agent && (id == "" || s.ID == id) })
	if i < 0 {
		return counterfoil.SignalStream{}, noStream()
	}
	return all[i], nil
}

// checkWish compares a wish with what the agent's manifest allows.
func checkWish(a *counterfoil.Agent, w *Wish) error {
	malformed := func(format string, args ...any) error {
		return counterfoil.Refuse(counterfoil.RequestMalformed, format, args...)
	}
	switch w.Method {
	case "", counterfoil.DeliveryPoll:
		w.Method = counterfoil.DeliveryPoll
		if !w.Authorization.Empty() {
			return malformed("delivery: authorization_header is for push")
		}
		w.Endpoint = "" // SSF 1.0, Section 6.1.2: it is the transmitter's to say
	case counterfoil.DeliveryPush:
		// Where we connect is for whoever writes manifests to say, never for a request:
		// it would make us anybody's way into our own network.
		if !slices.Contains(a.Signals.Push, w.Endpoint) {
			return counterfoil.Refuse(counterfoil.PolicyForbids, "delivery: endpoint_url is none of those under signals.push in the agent's manifest")
		}
		auth := w.Authorization.Reveal()
		if len(auth) > maxAuthorization || strings.ContainsFunc(auth, func(r rune) bool { return r < ' ' || r > '~' }) {
			return malformed("delivery: authorization_header is not plain text of at most %d bytes", maxAuthorization)
		}
	default:
		return malformed("delivery: method is neither %s nor %s", counterfoil.DeliveryPush, counterfoil.DeliveryPoll)
	}
	if err := checkWords("description", w.Describe, maxDescription); err != nil {
		return err
	}
	if len(w.Request) > maxRequested {
		return malformed("events_requested has more than %d", maxRequested)
	}
	for _, kind := range w.Request {
		if err := checkWords("events_requested", kind, maxEventType); err != nil || kind == "" {
			return malformed("events_requested has what is no event type")
		}
	}
	return nil
}

// checkWords takes a receiver's words: one short line.
func checkWords(name, s string, most int) error {
	if len(s) > most || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }) {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "%s is not one line of at most %d bytes", name, most)
	}
	return nil
}

// Create makes the agent's stream. An agent has one (SSF 1.0, Section 8.1.1.1: 409 for
// another).
func (e *Engine) Create(ctx context.Context, c counterfoil.Caller, w Wish) (counterfoil.SignalStream, error) {
	var none counterfoil.SignalStream
	a, err := e.agentOf(c.Agent)
	if err != nil {
		return none, err
	}
	if err := checkWish(a, &w); err != nil {
		return none, err
	}
	e.changes.Lock()
	defer e.changes.Unlock()
	if _, err := e.StreamOf(ctx, c, ""); err == nil {
		return none, ErrSecondStream
	} else if counterfoil.CodeOf(err) != counterfoil.ToolUnknown {
		return none, err
	}
	// Its key is published by the time that the receiver looks for it.
	if _, err := e.cfg.Signer(ctx); err != nil {
		return none, fmt.Errorf("getting the key of events: %w", err)
	}
	from := e.cfg.Log.Size()
	s := counterfoil.SignalStream{
		ID: counterfoil.NewID("str_"), Agent: c.Agent, Audience: c.Agent, Status: counterfoil.StreamEnabled,
		Created: e.cfg.Now(), From: from, Cursor: from - 1,
	}
	if err := e.fill(&s, w); err != nil {
		return none, err
	}
	if err := e.cfg.Streams.PutStream(context.WithoutCancel(ctx), s, nil, e.changed(c, &s, changeCreated)); err != nil {
		if now, again := e.StreamOf(context.WithoutCancel(ctx), c, ""); again == nil && now.ID != s.ID {
			return none, ErrSecondStream // another node was first
		}
		return none, fmt.Errorf("making a stream: %w", err)
	}
	return s, nil
}

// ErrSecondStream says that the agent has a stream.
var ErrSecondStream = errors.New("the agent has a stream: change it, or delete it first")

// fill puts a wish into a stream.
func (e *Engine) fill(s *counterfoil.SignalStream, w Wish) error {
	s.Method, s.Endpoint, s.Describe, s.Request, s.Sealed = w.Method, w.Endpoint, w.Describe, w.Request, nil
	if w.Authorization.Empty() {
		return nil
	}
	sealed, err := e.cfg.Seal(s.ID, []byte(w.Authorization.Reveal()))
	if err != nil {
		return fmt.Errorf("sealing a receiver's secret: %w", err)
	}
	s.Sealed = sealed
	return nil
}

// changed makes the entry of a change, which holds nothing secret.
func (e *Engine) changed(c counterfoil.Caller, s *counterfoil.SignalStream, change string) *ledger.Entry {
	d := map[string]any{detailStream: s.ID, detailChange: change, detailStatus: string(s.Status), "method": s.Method}
	if s.Endpoint != "" {
		d["endpoint"] = s.Endpoint
	}
	if len(s.Request) > 0 {
		d["events"] = s.Request
	}
	return &ledger.Entry{
		Kind: ledger.StreamChanged, Agent: c.Agent, Instance: c.Instance, JKT: c.JKT, TokenJTI: c.TokenID, Epoch: c.Epoch, Task: c.Task, Detail: d,
	}
}

// Change replaces what a receiver wishes of its stream. Edit is given what it wishes
// now, without its secret, which is kept where the edited wish is of the same endpoint
// and has none.
func (e *Engine) Change(ctx context.Context, c counterfoil.Caller, id string, edit func(w *Wish, keepSecret *bool) error) (counterfoil.SignalStream, error) {
	var none counterfoil.SignalStream
	e.changes.Lock()
	defer e.changes.Unlock()
	old, err := e.StreamOf(ctx, c, id)
	if err != nil {
		return none, err
	}
	a, err := e.agentOf(c.Agent)
	if err != nil {
		return none, err
	}
	w := Wish{Method: old.Method, Endpoint: old.Endpoint, Request: slices.Clone(old.Request), Describe: old.Describe}
	keep := false
	if err := edit(&w, &keep); err != nil {
		return none, err
	}
	if err := checkWish(a, &w); err != nil {
		return none, err
	}
	s := old
	if err := e.fill(&s, w); err != nil {
		return none, err
	}
	// A secret is for the place that it was given for.
	if keep && s.Sealed == nil && s.Method == old.Method && s.Endpoint == old.Endpoint {
		s.Sealed = old.Sealed
	}
	if err := e.cfg.Streams.PutStream(context.WithoutCancel(ctx), s, &old, e.changed(c, &s, changeUpdated)); err != nil {
		return none, fmt.Errorf("changing a stream: %w", err)
	}
	return s, nil
}

// Delete forgets the agent's stream.
func (e *Engine) Delete(ctx context.Context, c counterfoil.Caller, id string) error {
	e.changes.Lock()
	defer e.changes.Unlock()
	if id == "" {
		return noStream()
	}
	s, err := e.StreamOf(ctx, c, id)
	if err != nil {
		return err
	}
	if err := e.cfg.Streams.DeleteStream(context.WithoutCancel(ctx), s.ID, e.changed(c, &s, changeDeleted)); err != nil {
		return fmt.Errorf("deleting a stream: %w", err)
	}
	e.forget(s.ID)
	return nil
}

// forget drops what is in memory of a stream. It is read again.
func (e *Engine) forget(stream string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.backlogs, stream)
}

// SetStatus enables, pauses or disables the agent's stream, which is told so by an event
// of its own. What comes while it is disabled is never told.
func (e *Engine) SetStatus(ctx context.Context, c counterfoil.Caller, id string, status counterfoil.StreamStatus, reason string) (counterfoil.SignalStream, error) {
	var none counterfoil.SignalStream
	switch status {
	case counterfoil.StreamEnabled, counterfoil.StreamPaused, counterfoil.StreamDisabled:
	default:
		return none, counterfoil.Refuse(counterfoil.RequestMalformed, "status is none of enabled, paused, disabled")
	}
	if err := checkWords("reason", reason, maxReason); err != nil {
		return none, err
	}
	e.changes.Lock()
	defer e.changes.Unlock()
	old, err := e.StreamOf(ctx, c, id)
	if err != nil {
		return none, err
	}
	if old.Status == status {
		return old, nil
	}
	s := old
	s.Status, s.Reason = status, reason
	if old.Status == counterfoil.StreamDisabled {
		s.From = e.cfg.Log.Size()
	}
	entry := e.changed(c, &s, changeStatus)
	entry.Reason = reason
	if err := e.cfg.Streams.PutStream(context.WithoutCancel(ctx), s, &old, entry); err != nil {
		return none, fmt.Errorf("changing a stream: %w", err)
	}
	return s, nil
}

// Verify has the stream told a verification event with that state, so that its receiver
// sees that what is sent arrives (SSF 1.0, Section 8.1.4).
func (e *Engine) Verify(ctx context.Context, c counterfoil.Caller, id string, state *string) error {
	s, err := e.StreamOf(ctx, c, id)
	if err != nil {
		return err
	}
	if state != nil {
		if err := checkWords("state", *state, maxState); err != nil {
			return err
		}
	}
	if s.Status == counterfoil.StreamDisabled {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "the stream is disabled")
	}
	now := e.cfg.Now()
	e.mu.Lock()
	last, asked := e.verified[s.ID]
	early := asked && now.Before(last.Add(MinVerification))
	if !early {
		e.verified[s.ID] = now
	}
	e.mu.Unlock()
	if early {
		return counterfoil.Refuse(counterfoil.RateLimited, "a verification is asked for every %v at most", MinVerification)
	}
	entry := e.changed(c, &s, changeVerification)
	if state != nil {
		entry.Detail[detailState] = *state
	}
	if err := e.cfg.Log.Append(context.WithoutCancel(ctx), entry); err != nil {
		return fmt.Errorf("recording a verification: %w", err)
	}
	return nil
}

// open reports whether a stream's events may be sent now: its agent is active, and its
// manifest has signals and, for push, the very URL.
func (e *Engine) open(s *counterfoil.SignalStream) bool {
	a, err := e.agentOf(s.Agent)
	if err != nil || e.cfg.AgentState(s.Agent).Status != counterfoil.Active {
		return false
	}
	return s.Method == counterfoil.DeliveryPoll || slices.Contains(a.Signals.Push, s.Endpoint)
}

// held reports whether an event waits until the stream is enabled again. What a stream
// is told about itself never waits.
func held(s *counterfoil.SignalStream, ev event) bool {
	return ev.stream == "" && s.Status != counterfoil.StreamEnabled
}

// take records that a stream's receiver has some events: that it took
// them, or that it said why it did not.
func (e *Engine) take(ctx context.Context, s *counterfoil.SignalStream, some []placed, refused map[string]any) error {
	next := *s
	next.Acked = slices.Clone(s.Acked)
	ids := make([]string, 0, len(some))
	for _, p := range some {
		if i, there := slices.BinarySearch(next.Acked, p.place); !there {
			next.Acked = slices.Insert(next.Acked, i, p.place)
		}
		ids = append(ids, p.id)
	}
	clear, err := e.waiting(ctx, &next, func(placed) bool { return false })
	if err != nil {
		return err
	}
	next.Cursor = max(s.Cursor, clear)
	next.Acked = slices.DeleteFunc(next.Acked, func(place int64) bool { return place/counterfoil.MaxEventsOfEntry <= next.Cursor })
	entry := &ledger.Entry{
		Kind: ledger.SignalDelivered, Agent: s.Agent, View: ledger.View{Seq: next.Cursor},
		Detail: map[string]any{detailStream: s.ID, "method": s.Method, "events": ids},
	}
	if len(refused) > 0 {
		entry.Detail["refused"] = refused
	}
	if err := e.cfg.Streams.AckStream(context.WithoutCancel(ctx), s.ID, next.Cursor, next.Acked, entry); err != nil {
		e.forget(s.ID) // what was looked at as if they were taken has to be looked at again
		return fmt.Errorf("recording what a receiver has: %w", err)
	}
	*s = next
	return nil
}
