package signals

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
)

const (
	pullPause = 5 * time.Second // between two looks at a transmitter that has nothing
	maxPulled = 4 << 20         // bytes of one answer
	maxRounds = 20              // of one look
)

// Pull polls each transmitter that is due, and returns when that is done.
func (e *Engine) Pull(ctx context.Context) {
	var all sync.WaitGroup
	e.pull(ctx, &all)
	all.Wait()
}

func (e *Engine) pull(ctx context.Context, all *sync.WaitGroup) {
	transmitters := e.cfg.Registry().Transmitters
	for _, name := range slices.Sorted(maps.Keys(transmitters)) {
		t := transmitters[name]
		if t == nil || t.Poll == "" || !e.begin(e.pulls, name) {
			continue
		}
		all.Go(func() {
			err := e.pullAll(ctx, t)
			if err != nil && ctx.Err() == nil {
				e.cfg.Logger.WarnContext(ctx, "polling a transmitter of shared signals", "transmitter", t.Name, "err", err)
			}
			e.end(e.pulls, name, pullPause, err)
		})
	}
}

type pollBody struct {
	MaxEvents         int                 `json:"maxEvents"`
	ReturnImmediately bool                `json:"returnImmediately"`
	Ack               []string            `json:"ack,omitzero"`
	Errors            map[string]setError `json:"setErrs,omitzero"`
}

type setError struct {
	Err         string `json:"err"`
	Description string `json:"description"`
}

// pullAll takes events from a transmitter until it has no more (RFC 8936, Section 2).
// What was taken is acknowledged with the next request, so that what a crash forgets is
// sent again.
func (e *Engine) pullAll(ctx context.Context, t *counterfoil.Transmitter) error {
	body := pollBody{MaxEvents: maxEvents, ReturnImmediately: true}
	for range maxRounds {
		sets, err := e.pullOnce(ctx, t, body)
		if err != nil {
			return err
		}
		body.Ack, body.Errors = nil, map[string]setError{}
		var failed error
		for _, jti := range slices.Sorted(maps.Keys(sets)) {
			switch why, err := e.pulled(ctx, t, jti, sets[jti]); {
			case err != nil:
				failed = err // it is not acknowledged, and comes again
			case why != nil:
				body.Errors[jti] = *why
			default:
				body.Ack = append(body.Ack, jti)
			}
		}
		if len(body.Ack)+len(body.Errors) == 0 {
			return failed
		}
		if failed != nil {
			body.MaxEvents = 0
			_, err := e.pullOnce(ctx, t, body)
			return errors.Join(failed, err)
		}
	}
	return nil
}

// pulled takes one event of an answer: nil and nil when it was taken, why it was not,
// or a fault.
func (e *Engine) pulled(ctx context.Context, t *counterfoil.Transmitter, jti, set string) (*setError, error) {
	u, err := credential.ParseSET(set)
	if err == nil && u.ClaimedID() != jti {
		return &setError{InvalidRequest, "the event's jti is not the one that it is listed by"}, nil
	}
	if err == nil {
		err = e.receive(ctx, t, u, netip.Addr{})
	}
	if err == nil {
		return nil, nil
	}
	code := ErrorCode(err)
	if code == "" {
		return nil, err
	}
	r, _ := counterfoil.AsRefusal(err)
	return &setError{code, r.Detail}, nil
}

func (e *Engine) pullOnce(ctx context.Context, t *counterfoil.Transmitter, body pollBody) (map[string]string, error) {
	b, err := ijson.Marshal(body)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json"}}
	if t.Token != "" {
		secret, err := e.cfg.Secret(t.Token)
		if err != nil {
			return nil, fmt.Errorf("reading its token: %w", err)
		}
		header.Set("Authorization", "Bearer "+secret.Reveal())
	}
	status, answer, err := e.exchange(ctx, http.MethodPost, t.Poll, b, header, maxPulled)
	switch {
	case err != nil:
		return nil, err
	case status != http.StatusOK:
		return nil, fmt.Errorf("the answer has status %d", status)
	}
	var got struct {
		Sets map[string]string `json:"sets"`
	}
	if err := ijson.UnmarshalLax(answer, &got); err != nil {
		return nil, fmt.Errorf("the answer: %w", err)
	}
	if len(got.Sets) > 10*maxEvents {
		return nil, fmt.Errorf("the answer has %d events", len(got.Sets))
	}
	return got.Sets, nil
}
