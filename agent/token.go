package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
)

const (
	// renewNum / renewDen of a token's life is when the next one is asked for.
	renewNum, renewDen = 4, 5
	// lastMoments of a token's life do not count: a request takes time, and the
	// resource's clock is another.
	lastMoments = 5 * time.Second
	// renewPause is the time between two attempts to renew while the old token
	// still lives.
	renewPause = 5 * time.Second
)

// A TokenInfo is an access token and what its issuer said of it.
type TokenInfo struct {
	Token   counterfoil.Secret
	Expires time.Time
	Scope   []string // the tools that were given
	Bearer  bool     // not bound to the key: only with Config.InsecureBearer
}

// tokenAnswer is a success of the token endpoint (RFC 6749, Section 5.1).
type tokenAnswer struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int64  `json:"expires_in"`
	Scope       string `json:"scope"`
}

// mint asks the issuer for a token.
func (t *Transport) mint(ctx context.Context) (TokenInfo, error) {
	meta, err := t.issuer.metadata(ctx)
	if err != nil {
		return TokenInfo{}, err
	}
	var asked time.Time
	status, body, err := t.issuer.send(ctx, true, func(nonce string) (*http.Request, error) {
		asked = t.now()
		return t.tokenRequest(ctx, meta, nonce, asked)
	})
	if err != nil {
		return TokenInfo{}, fmt.Errorf("asking %s for a token: %w", t.issuer.id, err)
	}
	if status != http.StatusOK {
		err := refusedBy("the token endpoint", status, body)
		if r, refused := counterfoil.AsRefusal(err); refused && r.Code == counterfoil.TaskClosed && t.task != "" {
			t.closed(r)
		}
		return TokenInfo{}, fmt.Errorf("asking %s for a token: %w", t.issuer.id, err)
	}
	var a tokenAnswer
	if err := ijson.UnmarshalLax(body, &a); err != nil {
		return TokenInfo{}, fmt.Errorf("asking %s for a token: reading its answer: %w", t.issuer.id, err)
	}
	switch {
	case a.AccessToken == "" || !visible(a.AccessToken):
		return TokenInfo{}, fmt.Errorf("asking %s for a token: its answer has none", t.issuer.id)
	case !strings.EqualFold(a.TokenType, meta.tokenType()):
		// RFC 9449, Section 5: another type means that the token is not bound
		// to the key. It is dropped: sent as it is, any thief could use it.
		if meta.unbound {
			return TokenInfo{}, fmt.Errorf("asking %s for a token: it gave one of type %q", t.issuer.id, printable(a.TokenType))
		}
		return TokenInfo{}, fmt.Errorf("asking %s for a token: it gave one of type %q, which is not bound to the key, and it was dropped",
			t.issuer.id, printable(a.TokenType))
	case a.ExpiresIn <= 0:
		return TokenInfo{}, fmt.Errorf("asking %s for a token: it does not say how long the token lives", t.issuer.id)
	}
	// The life is counted from before the request, so that the issuer never
	// lets it end sooner than is thought here.
	life := time.Duration(min(a.ExpiresIn, 24*60*60)) * time.Second
	return TokenInfo{Token: counterfoil.NewSecret(a.AccessToken), Expires: asked.Add(life), Scope: strings.Fields(a.Scope), Bearer: meta.unbound}, nil
}

// clientCredentials is the usual grant: RFC 6749, Section 4.4, with the assertion
// of RFC 7523, Section 2.2.
func (t *Transport) clientCredentials(context.Context) (url.Values, error) {
	assertion, err := credential.SignAssertion(t.issuer.signer, t.agent, t.issuer.id, t.now())
	if err != nil {
		return nil, fmt.Errorf("signing an assertion: %w", err)
	}
	return url.Values{
		"grant_type":            {"client_credentials"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		"client_assertion":      {assertion},
	}, nil
}

// tokenRequest makes one attempt: a grant, and a proof for this very request.
func (t *Transport) tokenRequest(ctx context.Context, meta *metadata, nonce string, now time.Time) (*http.Request, error) {
	asked, err := t.grant(ctx)
	if err != nil {
		return nil, fmt.Errorf("making the grant: %w", err)
	}
	form := maps.Clone(asked)
	if form == nil {
		form = url.Values{}
	}
	form.Set("resource", t.resource) // RFC 8707, always sent
	if len(t.scope) > 0 {
		form.Set("scope", strings.Join(t.scope, " "))
	}
	if len(t.details) > 0 {
		form.Set("authorization_details", string(t.details))
	}
	if t.task != "" {
		form.Set("task", t.task)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, meta.TokenEndpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if meta.unbound {
		return req, nil
	}
	proof, err := credential.SignProof(t.issuer.signer, http.MethodPost, meta.TokenEndpoint, nonce, "", now)
	if err != nil {
		return nil, fmt.Errorf("signing a proof: %w", err)
	}
	req.Header.Set("DPoP", proof)
	return req, nil
}

// visible reports whether s can stand in a header as it is.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// A source keeps one token and asks for the next one in time. However many
// requests wait, one asks. It is safe for concurrent use.
type source struct {
	mint func(context.Context) (TokenInfo, error)
	now  func() time.Time

	mu      sync.Mutex // guards all below
	current TokenInfo  // no token when empty
	renewAt time.Time
	flight  *flight // the request that is under way, or nil
}

// A flight is one request for a token. token and err are set before done is
// closed.
type flight struct {
	done  chan struct{}
	token TokenInfo
	err   error
}

// token returns a token that still lives for a moment. When the current one is
// due it asks for the next; as long as the current one is good nobody waits for
// that.
func (s *source) token(ctx context.Context) (TokenInfo, error) {
	s.mu.Lock()
	now := s.now()
	current, good := s.current, !s.current.Token.Empty() && now.Add(lastMoments).Before(s.current.Expires)
	if good && now.Before(s.renewAt) {
		s.mu.Unlock()
		return current, nil
	}
	f := s.flight
	if f == nil {
		f = &flight{done: make(chan struct{})}
		s.flight = f
		// The one who asks may give up while others wait, so the flight has a
		// time limit of its own and nothing of the caller's context.
		go s.fly(f)
	}
	s.mu.Unlock()
	if good {
		return current, nil
	}
	select {
	case <-f.done:
		return f.token, f.err
	case <-ctx.Done():
		return TokenInfo{}, fmt.Errorf("waiting for a token: %w", context.Cause(ctx))
	}
}

func (s *source) fly(f *flight) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	f.token, f.err = s.mint(ctx)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.flight = nil
	now := s.now()
	switch {
	case f.err == nil:
		s.current = f.token
		s.renewAt = now.Add(f.token.Expires.Sub(now) * renewNum / renewDen)
	case final(f.err):
		// The issuer said no to this agent: what it has is not used on.
		s.current = TokenInfo{}
	default:
		s.renewAt = now.Add(renewPause)
	}
	close(f.done)
}

// final reports whether an error is a decision about the agent and not a fault
// or a rate that passes.
func final(err error) bool {
	var fault *counterfoil.Fault
	r, refused := counterfoil.AsRefusal(err)
	return refused && !r.Code.Wire().Retry && !errors.As(err, &fault)
}

// drop forgets a token that a resource refused, unless it was replaced already.
func (s *source) drop(t TokenInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current.Token.Reveal() == t.Token.Reveal() {
		s.current = TokenInfo{}
	}
}
