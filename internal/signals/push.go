package signals

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

const (
	maxRefusal  = 8 << 10 // bytes of a receiver's answer that are read
	maxRefusals = 3       // of one event, before it counts as refused for good
	maxBurst    = 100     // events of one round
)

// Deliver pushes what is due, once to each stream, and returns when that is done.
func (e *Engine) Deliver(ctx context.Context) {
	var all sync.WaitGroup
	e.deliver(ctx, &all)
	all.Wait()
}

// deliver starts what is due. A receiver that is slow keeps nobody else waiting.
func (e *Engine) deliver(ctx context.Context, all *sync.WaitGroup) {
	if err := e.follow(ctx); err != nil {
		e.cfg.Logger.WarnContext(ctx, "following the ledger for shared signals", "err", err)
		return
	}
	err := e.sweep(ctx)
	var streams []counterfoil.SignalStream
	if err == nil {
		streams, err = e.streams(ctx, counterfoil.DeliveryPush)
	}
	if err != nil {
		if ctx.Err() == nil {
			e.cfg.Logger.WarnContext(ctx, "pushing shared signals", "err", err)
		}
		return
	}
	for _, s := range streams {
		if !e.begin(e.pushes, s.ID) {
			continue
		}
		all.Go(func() {
			err := e.pushAll(ctx, s)
			if err != nil && ctx.Err() == nil {
				e.cfg.Logger.WarnContext(ctx, "pushing shared signals", "agent", s.Agent, "stream", s.ID, "err", err)
			}
			e.end(e.pushes, s.ID, 0, err)
		})
	}
}

// pushAll pushes what a receiver has not got, in order, one event a request (RFC 8935,
// Section 2). The first that fails ends the round.
func (e *Engine) pushAll(ctx context.Context, s counterfoil.SignalStream) error {
	for range maxBurst {
		var next *placed
		_, err := e.waiting(ctx, &s, func(p placed) bool {
			if held(&s, p.event) {
				return true
			}
			next = &p
			return false
		})
		if err != nil || next == nil {
			return err
		}
		why, err := e.push(ctx, &s, *next)
		if err != nil {
			return err
		}
		refused := map[string]any{}
		if why != "" {
			refused[next.id] = why
		}
		if err := e.took(ctx, &s, *next, refused); err != nil {
			return err
		}
		if !e.open(&s) {
			return nil // its signals were taken back meanwhile
		}
	}
	return nil
}

// took records one event that was pushed, upon what the stream is now.
func (e *Engine) took(ctx context.Context, s *counterfoil.SignalStream, p placed, refused map[string]any) error {
	e.changes.Lock()
	defer e.changes.Unlock()
	all, err := e.streams(ctx, counterfoil.DeliveryPush)
	if err != nil {
		return err
	}
	for i := range all {
		if all[i].ID == s.ID {
			err := e.take(ctx, &all[i], []placed{p}, refused)
			*s = all[i]
			return err
		}
	}
	return fmt.Errorf("stream %s was deleted or closed while an event was on its way", s.ID)
}

// push sends one event. An event that the receiver refuses again and again is refused
// for good, with the receiver's code: whatever else fails is tried again, for as long
// as it takes.
func (e *Engine) push(ctx context.Context, s *counterfoil.SignalStream, p placed) (refused string, err error) {
	set, err := e.sign(ctx, s, p)
	if err != nil {
		return "", err
	}
	header := http.Header{"Content-Type": {"application/secevent+jwt"}, "Accept": {"application/json"}}
	if s.Sealed != nil {
		secret, err := e.cfg.Open(s.ID, s.Sealed)
		if err != nil {
			return "", err
		}
		header.Set("Authorization", string(secret))
	}
	status, body, err := e.exchange(ctx, http.MethodPost, s.Endpoint, []byte(set), header, maxRefusal)
	switch {
	case err != nil && status != http.StatusBadRequest:
		return "", err
	case status == http.StatusAccepted, status == http.StatusOK, status == http.StatusNoContent:
		return "", nil
	case status != http.StatusBadRequest:
		return "", fmt.Errorf("the receiver answers with status %d", status)
	}
	// RFC 8935, Section 2.3 and 2.4: what is wrong with the event, in its view.
	var said struct {
		Err string `json:"err"`
	}
	_ = ijson.UnmarshalLax(body, &said)
	if said.Err = word(said.Err); said.Err == "" {
		said.Err = "invalid_request"
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	a := e.pushes[s.ID]
	if a.what != p.place {
		a.what, a.refused = p.place, 0
	}
	if a.refused++; a.refused < maxRefusals {
		return "", fmt.Errorf("the receiver refuses an event (%s), for the %d. time", said.Err, a.refused)
	}
	a.refused = 0
	return said.Err, nil
}
