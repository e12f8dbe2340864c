package signals

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
)

const (
	maxEvents   = 100              // of one answer
	maxAnswer   = 512 << 10        // bytes of one answer
	maxLongPoll = 25 * time.Second // below the minute after which clients and proxies give up
	maxWord     = 64               // bytes of a receiver's error that are recorded
)

// A PollRequest is what a receiver asks (RFC 8936, Section 2.2).
type PollRequest struct {
	MaxEvents         *int64
	ReturnImmediately bool
	Ack               []string
	Errors            map[string]string // by jti: the error code
}

// A PollAnswer is what it gets (RFC 8936, Section 2.3).
type PollAnswer struct {
	Sets map[string]string `json:"sets"` // by jti
	More bool              `json:"moreAvailable,omitzero"`
}

// Poll takes what the receiver has and answers with what it has not, waiting for
// something unless the receiver would not. Events are shown again until they are
// acknowledged, or refused with an error, which is recorded.
func (e *Engine) Poll(ctx context.Context, c counterfoil.Caller, id string, req PollRequest) (PollAnswer, error) {
	var none PollAnswer
	most := int64(maxEvents)
	if req.MaxEvents != nil {
		if most = min(*req.MaxEvents, maxEvents); most < 0 {
			return none, counterfoil.Refuse(counterfoil.RequestMalformed, "maxEvents is negative")
		}
	}
	if id == "" {
		return none, noStream()
	}
	if err := e.acknowledge(ctx, c, id, req); err != nil {
		return none, err
	}
	ctx, cancel := context.WithTimeout(ctx, maxLongPoll)
	defer cancel()
	for {
		grown := e.tail.grown()
		s, err := e.pollable(ctx, c, id)
		if err != nil {
			return none, err
		}
		answer, err := e.collect(ctx, &s, most)
		if err != nil {
			return none, err
		}
		// RFC 8936, Section 2.2: maxEvents of 0 is an acknowledgement alone.
		if len(answer.Sets) > 0 || req.ReturnImmediately || most == 0 {
			return answer, nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return answer, nil
		}
	}
}

// pollable returns the receiver's stream, which is one to poll.
func (e *Engine) pollable(ctx context.Context, c counterfoil.Caller, id string) (counterfoil.SignalStream, error) {
	s, err := e.StreamOf(context.WithoutCancel(ctx), c, id)
	switch {
	case err != nil:
		return s, err
	case s.Method != counterfoil.DeliveryPoll:
		return s, counterfoil.Refuse(counterfoil.RequestMalformed, "the stream's events are pushed")
	case !e.open(&s):
		return s, counterfoil.Refuse(counterfoil.AgentSuspended, "the agent is not active")
	}
	return s, nil
}

func (e *Engine) collect(ctx context.Context, s *counterfoil.SignalStream, most int64) (PollAnswer, error) {
	answer := PollAnswer{Sets: map[string]string{}}
	// What was read of the log must be all that there is: a receiver that was told of a
	// commit and polls then gets what it tells.
	if err := e.follow(context.WithoutCancel(ctx)); err != nil {
		return answer, fmt.Errorf("following the ledger: %w", err)
	}
	var failed error
	size := 0
	_, err := e.waiting(context.WithoutCancel(ctx), s, func(p placed) bool {
		if held(s, p.event) || e.crowded(s, p.place) {
			return true
		}
		if int64(len(answer.Sets)) >= most || size > maxAnswer {
			answer.More = true
			return false
		}
		set, err := e.sign(ctx, s, p)
		if err != nil {
			failed = err
			return false
		}
		answer.Sets[p.id] = set
		size += len(p.id) + len(set)
		return true
	})
	if err == nil {
		err = failed
	}
	return answer, err
}

// crowded reports whether a place is beyond what a receiver may acknowledge out of
// order: one that leaves the first event and takes all later ones would have us keep
// which they were for ever.
func (e *Engine) crowded(s *counterfoil.SignalStream, place int64) bool {
	return len(s.Acked) >= e.most.acked && place > s.Acked[len(s.Acked)-1]
}

// acknowledge takes in what a receiver says that it has.
func (e *Engine) acknowledge(ctx context.Context, c counterfoil.Caller, id string, req PollRequest) error {
	if len(req.Ack) == 0 && len(req.Errors) == 0 {
		return nil
	}
	if len(req.Ack)+len(req.Errors) > 10*maxEvents {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "more than %d events are acknowledged at once", 10*maxEvents)
	}
	e.changes.Lock()
	defer e.changes.Unlock()
	s, err := e.pollable(ctx, c, id)
	if err != nil {
		return err
	}
	if err := e.follow(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("following the ledger: %w", err)
	}
	said := map[string]string{}
	for _, jti := range req.Ack {
		said[jti] = ""
	}
	maps.Copy(said, req.Errors)
	// Only what waits can be acknowledged, so that a made-up id is nothing, and what was
	// acknowledged before is no news.
	var some []placed
	refused := map[string]any{}
	_, err = e.waiting(context.WithoutCancel(ctx), &s, func(p placed) bool {
		if code, ok := said[p.id]; ok && !held(&s, p.event) && !e.crowded(&s, p.place) {
			some = append(some, p)
			if code != "" {
				refused[p.id] = word(code)
			}
		}
		return len(some) < len(said)
	})
	if err != nil || len(some) == 0 {
		return err
	}
	return e.take(ctx, &s, some, refused)
}

// word keeps of a receiver's error code what a record may hold.
func word(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, s)
	return s[:min(len(s), maxWord)]
}

// streams returns the streams that may be sent to now.
func (e *Engine) streams(ctx context.Context, method string) ([]counterfoil.SignalStream, error) {
	all, err := e.cfg.Streams.Streams(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the streams: %w", err)
	}
	return slices.DeleteFunc(all, func(s counterfoil.SignalStream) bool { return s.Method != method || !e.open(&s) }), nil
}
