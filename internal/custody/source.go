package custody

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
)

const (
	// defaultTTL is how long what a provider said is kept where the manifest does not
	// say.
	defaultTTL = 5 * time.Minute

	// askTimeout bounds one try to get a credential from a provider.
	askTimeout = 10 * time.Second

	// A source that failed is left alone for a second, then twice as long each time.
	firstPause = time.Second
	maxPause   = 30 * time.Second

	// refusedAfter is how old what an upstream refuses has to be, before it is got
	// anew for that: no agent makes the gateway hammer a provider.
	refusedAfter = 10 * time.Second

	// maxSeen is how many credentials of before a resource's mask still finds.
	maxSeen = 4
)

// A gotten is what a source said.
type gotten struct {
	secret counterfoil.Secret
	at     time.Time // when it was asked for
	renew  time.Time // when it is asked for again; zero: at each release
	until  time.Time // when it is over; zero: not known
}

// A source is where one resource's credential comes from.
type source struct {
	custody  *Custody
	resource counterfoil.Resource // name and credential alone
	identity string               // of the credential's place
	from     string
	provider bool // it is asked, and what it says is kept

	mu     sync.Mutex
	have   *gotten
	flight *flight
	failed error // of the last try; nil after one that did not fail
	pause  time.Duration
	again  time.Time // when it may be asked after a failure

	seen []string // the newest last
	mask *Mask    // of seen
}

// A flight is one try to get a credential, for everyone who waits.
type flight struct {
	done chan struct{}
	got  *gotten
	err  error
}

// source returns the source of a resource: a new one where its manifest names another
// place than before. What the resource had before stays in its mask.
func (c *Custody) source(res *counterfoil.Resource) *source {
	b, err := json.Marshal(res.Credential, json.Deterministic(true))
	if err != nil {
		b = nil // no credential's form can fail to be encoded; without an identity nothing is kept
	}
	identity := string(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.sources[res.Name]
	if old != nil && old.identity == identity && identity != "" {
		return old
	}
	cred := *res.Credential
	s := &source{custody: c, resource: counterfoil.Resource{Name: res.Name, Credential: &cred}, identity: identity}
	s.from, s.provider = cred.Label(), cred.Exec != "" || cred.URL != "" || cred.OAuth != nil
	if old != nil {
		old.mu.Lock()
		s.seen, s.mask = old.seen, old.mask
		old.mu.Unlock()
	}
	c.sources[res.Name] = s
	return s
}

func (s *source) release(ctx context.Context) (Released, error) {
	if !s.provider {
		got, err := s.custody.read(ctx, s.resource.Credential)
		if err != nil {
			return Released{}, err
		}
		return s.released(got), nil
	}
	got, err := s.kept(ctx)
	if err != nil {
		return Released{}, err
	}
	return s.released(got), nil
}

func (s *source) released(got *gotten) Released {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := got.secret.Reveal(); s.mask == nil || !slices.Contains(s.seen, v) {
		s.seen = append(slices.Clone(s.seen), v)
		s.seen = s.seen[max(0, len(s.seen)-maxSeen):]
		all := make([]counterfoil.Secret, len(s.seen))
		for i, v := range s.seen {
			all[i] = counterfoil.NewSecret(v)
		}
		s.mask = NewMask(all...)
	}
	return Released{Secret: got.secret, From: s.from, Expires: got.until, Mask: s.mask}
}

// kept returns what the provider said where that is in its time, and otherwise what it
// says now.
func (s *source) kept(ctx context.Context) (*gotten, error) {
	s.mu.Lock()
	now := s.custody.cfg.Now()
	have := s.have
	if have != nil && !now.Before(have.until) {
		s.have, have = nil, nil
	}
	if have != nil && now.Before(have.renew) {
		s.mu.Unlock()
		return have, nil
	}
	if s.flight == nil {
		if s.failed != nil && now.Before(s.again) {
			err := s.failed
			s.mu.Unlock()
			if have != nil {
				return have, nil
			}
			return nil, fmt.Errorf("it failed a moment ago: %w", err)
		}
		f := &flight{done: make(chan struct{})}
		if !s.custody.start(func() { s.ask(f, now) }) {
			s.mu.Unlock()
			if have != nil {
				return have, nil
			}
			return nil, errStopped
		}
		s.flight = f
	}
	f := s.flight
	s.mu.Unlock()
	if have != nil {
		return have, nil
	}
	select {
	case <-f.done:
		return f.got, f.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// ask makes one try. It goes on where who asked first has gone away: others wait.
func (s *source) ask(f *flight, now time.Time) {
	ctx, cancel := context.WithTimeout(s.custody.base, askTimeout)
	defer cancel()
	f.got, f.err = s.try(ctx, now)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flight = nil
	if f.err != nil {
		s.pause = min(max(2*s.pause, firstPause), maxPause)
		s.failed, s.again = f.err, s.custody.cfg.Now().Add(s.pause)
		s.custody.cfg.Log.Warn("getting the credential of a resource", "resource", s.resource.Name, "from", s.from, "err", f.err)
	} else {
		s.have, s.failed, s.pause = f.got, nil, 0
	}
	close(f.done)
}

// try asks once. A panic is an error: others' answers are read here, and everyone waits.
// What was panicked with is not shown, as it could hold some of an answer.
func (s *source) try(ctx context.Context, now time.Time) (got *gotten, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.custody.cfg.Log.Error("panic in asking for a credential", "resource", s.resource.Name, "type", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			got, err = nil, errors.New("asking for it failed within")
		}
	}()
	return s.custody.ask(ctx, &s.resource, now)
}

// keep sets how long what a provider said is kept: to the end that the provider says,
// and no longer than the manifest says. It is asked again when four fifths are over.
func (g *gotten) keep(ttl counterfoil.Duration, said time.Duration) {
	d := time.Duration(ttl)
	if d <= 0 {
		d = defaultTTL
	}
	if said > 0 {
		d = min(d, said)
	}
	g.until, g.renew = g.at.Add(d), g.at.Add(d/5*4)
}

// Refused says that the upstream did not take what was released. It is got anew for the
// next call, unless it was a moment ago.
func (c *Custody) Refused(res *counterfoil.Resource, r Released) {
	if res.Credential == nil {
		return
	}
	s := c.source(res)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.have != nil && s.have.secret.Reveal() == r.Secret.Reveal() && c.cfg.Now().Sub(s.have.at) >= refusedAfter {
		s.have = nil
	}
}

// usable reports why a secret cannot be an upstream's credential. It never shows it.
func usable(s counterfoil.Secret) error {
	v := s.Reveal()
	switch {
	case v == "":
		return errors.New("it is empty")
	case len(v) < minSecret:
		return fmt.Errorf("it has %d bytes; a credential of fewer than %d could be guessed, and could not be told from ordinary text in answers", len(v), minSecret)
	case len(v) > maxSecret:
		return fmt.Errorf("it is larger than %d bytes", maxSecret)
	case !visible(v):
		return errors.New("it has a line break or another character that is not printable ASCII")
	case strings.Trim(v, "*") == "":
		return errors.New("it is nothing but asterisks, which is what somebody else's mask left of it")
	case v[0] == ' ' || v[len(v)-1] == ' ':
		return errors.New("it begins or ends with a space")
	}
	return unseen(v)
}

// maxSecret bounds a credential: it becomes a header.
const maxSecret = 8 << 10
