package resource

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
)

// A Feed keeps a View current over HTTP. It asks as an agent that the resource's
// manifest lists among its servers, and each of its requests is in the issuer's
// ledger: what it asked with is what its resource enforces by then.
type Feed struct {
	// Issuer is the issuer's identifier, without a slash at its end.
	Issuer string

	// Client sends each request with a token for the issuer and a proof, such as
	// agent.Transport does whose Resource is the issuer. Redirects are not followed.
	Client *http.Client

	View *View

	Log *slog.Logger // nil: slog.Default

	gap atomic.Bool // a step is missing
}

// Bounds of a Feed.
const (
	maxFeed     = 256 << 20 // bytes of one message: a snapshot of some millions of agents
	feedTimeout = 10 * time.Second
	feedBeat    = 100 * time.Millisecond // between two requests, however much there is to tell
	feedBackoff = time.Second            // at most, after an error
)

// Run keeps the View current until ctx ends. Errors are logged; while they last the
// View grows stale, and refuses then.
func (f *Feed) Run(ctx context.Context) {
	log := f.Log
	if log == nil {
		log = slog.Default()
	}
	failed := 0
	for ctx.Err() == nil {
		pause := feedBeat
		if err := f.Poll(ctx); err == nil {
			if failed > 0 {
				log.InfoContext(ctx, "what is revoked is heard again", "seq", f.View.Seq())
			}
			failed = 0
		} else if !errors.Is(err, ErrGap) {
			if failed == 0 && ctx.Err() == nil {
				log.ErrorContext(ctx, "asking what is revoked", "err", err)
			}
			failed++
			pause = jitter(min(feedBackoff, feedBeat<<min(failed, 10)))
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// jitter returns between a half and the whole of d, so that many servers that lost one
// issuer do not come back as one.
func jitter(d time.Duration) time.Duration {
	var b [1]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return d/2 + d/2*time.Duration(b[0])/255
}

// Poll asks once: for everything while nothing is known or a step is missing, and
// otherwise for what follows, waiting for it as long as the View stays fresh. A step
// that is missing is no error beyond the next Poll, nor is another log: that is where the
// issuer was restored.
func (f *Feed) Poll(ctx context.Context) error {
	if f.Client == nil || f.View == nil {
		return errors.New("the feed lacks its client or its view")
	}
	after, wait := f.View.Seq(), time.Duration(0)
	if f.gap.Load() {
		after = -1
	}
	if after >= 0 {
		// An answer counts from when it was asked for, so that between two of them
		// there are two waits at most; a third is for what else takes time.
		wait = min(f.View.patience()/3, counterfoil.MaxFeedWait)
	}
	ctx, cancel := context.WithTimeout(ctx, wait+feedTimeout)
	defer cancel()
	asked := f.View.now()
	message, err := f.ask(ctx, after, wait)
	if err != nil {
		return err
	}
	err = f.View.Take(message, asked)
	f.gap.Store(errors.Is(err, ErrGap))
	return err
}

// patience returns how old what is known may be.
func (v *View) patience() time.Duration {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.bound()
}

func (f *Feed) ask(ctx context.Context, after int64, wait time.Duration) (counterfoil.RevocationFeed, error) {
	var none counterfoil.RevocationFeed
	at := f.Issuer + counterfoil.FeedPath + "?after=" + strconv.FormatInt(after, 10) + "&wait=" + strconv.Itoa(int(wait/time.Second))
	// Whoever has another log by now tells everything, as the index is of this one.
	if log := f.View.Log(); log != "" {
		at += "&log=" + url.QueryEscape(log)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return none, fmt.Errorf("asking what is revoked: %w", err)
	}
	client := *f.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(req)
	if err != nil {
		return none, fmt.Errorf("asking what is revoked: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return none, refusedFeed(res)
	}
	if media, _, err := mime.ParseMediaType(res.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return none, errors.New("asking what is revoked: the answer is not JSON")
	}
	return readFeed(res.Body)
}

// refusedFeed says what the issuer's refusal says.
func refusedFeed(res *http.Response) error {
	var p struct {
		Code   counterfoil.Code `json:"code"`
		Detail string           `json:"detail"`
	}
	b, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if json.Unmarshal(b, &p) != nil || p.Code == "" {
		return fmt.Errorf("asking what is revoked: HTTP status %d", res.StatusCode)
	}
	return fmt.Errorf("asking what is revoked: %.40s: %.400q", p.Code, p.Detail)
}

// readFeed reads one message and nothing after it. Names that are not known, and
// names that are there twice, are errors: what is not understood may be a revocation.
// There may be more agents in it than strict JSON of ours otherwise has names.
func readFeed(r io.Reader) (counterfoil.RevocationFeed, error) {
	var m counterfoil.RevocationFeed
	limited := &io.LimitedReader{R: r, N: maxFeed + 1}
	dec := jsontext.NewDecoder(limited)
	err := json.UnmarshalDecode(dec, &m, json.RejectUnknownMembers(true))
	if err == nil {
		if _, more := dec.ReadToken(); !errors.Is(more, io.EOF) {
			err = errors.New("there is something after it")
		}
	}
	if limited.N <= 0 {
		err = fmt.Errorf("it has more than %d bytes", maxFeed)
	}
	if err != nil {
		return counterfoil.RevocationFeed{}, fmt.Errorf("reading what is revoked: %w", err)
	}
	return m, nil
}
