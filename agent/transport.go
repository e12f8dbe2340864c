package agent

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
)

// A Config says who the agent is and what it talks to.
type Config struct {
	Issuer string // the issuer's identifier, exactly as its metadata has it; Discover finds it
	Agent  string // the agent's name
	Signer *credential.Signer

	// Resource is the URL of the one resource that tokens are for and proofs
	// go to: its identifier (RFC 8707).
	Resource string

	Scope   []string                 // tools to ask for; none asks for all that are granted
	Details []counterfoil.ToolDetail // authorization_details to ask for (RFC 9396); usually none

	// Task is the id of the task that tokens are for; Tasks opens one. Empty: none,
	// which an agent's limits may forbid. A token of a task ends with it.
	Task string

	// Grant replaces client_credentials with an assertion by Signer, which every
	// agent of Counterfoil has, where another issuer wants another grant. The
	// proof is Signer's in any case. Usually nil.
	Grant Grant

	// InsecureBearer also takes tokens that are not bound to the key, where the
	// issuer's metadata does not offer to bind them, and sends them as Bearer
	// (RFC 6750): whoever reads one can use it until it expires. An issuer that
	// does offer it is held to it all the same. Counterfoil's always does; this
	// is for a resource of others that knows nothing better.
	InsecureBearer bool

	// HTTP is what requests are sent with; of it only the transport is used.
	// When nil, a transport of its own with the standard library's defaults.
	HTTP *http.Client

	Now func() time.Time // time.Now when nil
}

// A Grant makes what a token request asks with (RFC 6749, Section 4):
// grant_type with the parameters that belong to it, those that authenticate the
// client included. It is called once for each attempt, so that nothing single
// use is sent twice; resource, scope and authorization_details are added to it.
// It may be called from several goroutines.
type Grant func(context.Context) (url.Values, error)

// A Transport is an http.RoundTripper that sends requests to one resource with
// a token and a fresh proof. It is safe for concurrent use. It has nothing to
// close; CloseIdleConnections lets connections go.
type Transport struct {
	issuer   *issuer
	agent    string
	resource string
	url      *url.URL // of resource
	scope    []string
	details  []byte // JSON; nil for none
	task     string
	grant    Grant
	base     http.RoundTripper
	now      func() time.Time
	nonce    nonce // the resource's
	source   *source

	// working ends, with the refusal as its cause, when the issuer says that the
	// task is closed.
	working context.Context
	closed  context.CancelCauseFunc
}

// NewTransport checks the configuration. It sends nothing; the first request or
// Token does.
func NewTransport(c Config) (*Transport, error) {
	if err := counterfoil.CheckName(c.Agent); err != nil {
		return nil, fmt.Errorf("the agent's name: %w", err)
	}
	i, err := newIssuer(c.Issuer, c.Signer, c.HTTP, c.Now)
	if err != nil {
		return nil, err
	}
	u, err := checkURL(c.Resource)
	if err != nil {
		return nil, fmt.Errorf("the resource %q: %w", c.Resource, err)
	}
	for _, s := range c.Scope {
		if err := counterfoil.CheckToolName(s); err != nil {
			return nil, fmt.Errorf("the scope: %w", err)
		}
	}
	if c.Task != "" && !isTaskID(c.Task) {
		return nil, fmt.Errorf("the task %q: a task's id begins with tsk_ and has letters and digits after it", c.Task)
	}
	t := &Transport{
		issuer: i, agent: c.Agent, resource: c.Resource, url: u, scope: slices.Clone(c.Scope),
		task: c.Task, grant: c.Grant, base: i.http.Transport, now: i.now,
	}
	t.working, t.closed = context.WithCancelCause(context.Background())
	i.insecureBearer = c.InsecureBearer
	if t.grant == nil {
		t.grant = t.clientCredentials
	} else {
		i.asserts = false
	}
	if len(c.Details) > 0 {
		if t.details, err = ijson.Marshal(c.Details); err != nil {
			return nil, fmt.Errorf("the authorization details: %w", err)
		}
	}
	t.source = &source{mint: t.mint, now: t.now}
	return t, nil
}

// Client returns a client that uses t and follows no redirect.
func (t *Transport) Client() *http.Client {
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// Resource returns the resource's URL.
func (t *Transport) Resource() string { return t.resource }

// Token returns the current token, or gets one.
func (t *Transport) Token(ctx context.Context) (TokenInfo, error) { return t.source.token(ctx) }

// TaskClosed is closed once the issuer said that the transport's task is closed:
// nothing that it sends can succeed any more. Of a transport without a task it never
// is.
func (t *Transport) TaskClosed() <-chan struct{} { return t.working.Done() }

// taskErr is the refusal that says that the task is closed, nil while it is not known
// to be.
func (t *Transport) taskErr() error { return context.Cause(t.working) }

// CloseIdleConnections closes connections that no request uses.
func (t *Transport) CloseIdleConnections() { t.issuer.http.CloseIdleConnections() }

// RoundTrip sends one request. It sends it once more, with a new proof, when
// the resource asks for a nonce, when it says that the token is expired or
// revoked or its task closed, and when a connection breaks under a request without effect; each of
// these at most once, and only where the body can be made anew. Otherwise the
// answer is returned as it came; a redirect too, of what is below the resource's URL,
// as only there it is the HTTP API's own: whoever follows it comes here with another
// request. An error of the issuer is returned as such: a *counterfoil.Refusal is in its
// tree where the issuer named a code.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	// A RoundTripper closes the body in every case; the base does so for each
	// attempt that reaches it.
	unsent := req.Body
	defer func() {
		if unsent != nil {
			_ = unsent.Close()
		}
	}()
	if got := origin(req.URL); got != origin(t.url) || req.URL.User != nil {
		return nil, fmt.Errorf("sending to %s: the token is for %s and its proofs go nowhere else", req.URL.Redacted(), t.resource)
	}
	renewable := req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
	var renonced, reminted, resent bool
	for first := true; ; first = false {
		token, err := t.Token(req.Context())
		if err != nil {
			return nil, err
		}
		out, err := t.attempt(req, token, first)
		if err != nil {
			return nil, err
		}
		if first {
			unsent = nil
		}
		resp, err := t.base.RoundTrip(out)
		if err != nil {
			if !resent && withoutEffect(req) && req.Context().Err() == nil {
				resent = true
				continue
			}
			return nil, err
		}
		fresh := t.nonce.take(resp.Header)
		if isRedirect(resp.StatusCode) && !t.below(req.URL) {
			_ = resp.Body.Close()
			return nil, counterfoil.NewFault(counterfoil.UpstreamUnavailable,
				fmt.Errorf("%s answers with a redirect; a proof is for one URL, so it is not followed", req.URL.Redacted()))
		}
		if resp.StatusCode != http.StatusUnauthorized || !renewable {
			return resp, nil
		}
		switch why := rejected(resp, token); {
		case why == useNonce && fresh && !renonced:
			renonced = true
		case why == staleToken && !reminted:
			reminted = true
			t.source.drop(token)
		default:
			return resp, nil
		}
		_ = resp.Body.Close()
	}
}

// below reports whether a URL is below the resource's, as the operations of an HTTP API
// are. An MCP server is at the resource's URL itself.
func (t *Transport) below(u *url.URL) bool {
	rest, ok := strings.CutPrefix(u.EscapedPath(), strings.TrimSuffix(t.url.EscapedPath(), "/")+"/")
	return ok && rest != ""
}

// attempt makes one attempt of a request: a copy with token and a proof that
// was never sent before.
func (t *Transport) attempt(req *http.Request, token TokenInfo, first bool) (*http.Request, error) {
	out := req.Clone(req.Context())
	// The proof is for the URL, so the URL says where it goes.
	out.Host = ""
	// Keys of a map may be spelled in ways that Header.Del does not find.
	for name := range out.Header {
		switch strings.ToLower(name) {
		case "authorization", "dpop", "proxy-authorization":
			delete(out.Header, name)
		}
	}
	if out.Header == nil {
		out.Header = http.Header{}
	}
	target := *req.URL // SignProof takes query and fragment off (RFC 9449, Section 4.2, htu)
	if target.Path == "" {
		target.Path = "/" // as it goes over the wire
	}
	method := req.Method
	if method == "" {
		method = http.MethodGet
	}
	value := token.Token.Reveal()
	if token.Bearer {
		out.Header.Set("Authorization", "Bearer "+value)
	} else {
		proof, err := credential.SignProof(t.issuer.signer, method, target.String(), t.nonce.get(), value, t.now())
		if err != nil {
			return nil, fmt.Errorf("signing a proof: %w", err)
		}
		out.Header.Set("Authorization", "DPoP "+value)
		out.Header.Set("DPoP", proof)
	}
	if !first && out.Body != nil && out.Body != http.NoBody {
		var err error
		if out.Body, err = req.GetBody(); err != nil {
			return nil, fmt.Errorf("making the body again: %w", err)
		}
	}
	hideFromRepetition(out)
	return out, nil
}

// hideFromRepetition keeps http.Transport from sending a request a second time
// by itself. When a kept connection breaks it does so for what it takes to be
// without effect, with the very same headers: the resource, which may have seen
// the first one, would take the proof for replayed. It does not where a body
// cannot be made anew, so such a request gets a body that is empty or whose
// GetBody is gone. RoundTrip repeats with a new proof instead. Other requests
// keep GetBody: those are repeated only when nothing of them was sent.
func hideFromRepetition(out *http.Request) {
	_, key := out.Header["Idempotency-Key"]
	_, xkey := out.Header["X-Idempotency-Key"]
	if !withoutEffectMethod(out.Method) && !key && !xkey {
		return
	}
	out.GetBody = nil
	if out.Body == nil || out.Body == http.NoBody {
		out.Body = emptyBody{}
	}
}

// emptyBody is an empty body that is not http.NoBody.
type emptyBody struct{}

func (emptyBody) Read([]byte) (int, error) { return 0, io.EOF }
func (emptyBody) Close() error             { return nil }

// withoutEffect reports whether a request may be sent again although the first
// one may have arrived (RFC 9110, Section 9.2.1). A call that was answered by
// nothing is never repeated: it may have been done.
func withoutEffect(req *http.Request) bool {
	return withoutEffectMethod(req.Method) && (req.Body == nil || req.Body == http.NoBody)
}

func withoutEffectMethod(m string) bool {
	return m == "" || m == http.MethodGet || m == http.MethodHead || m == http.MethodOptions || m == http.MethodTrace
}

// staleToken says that a new token is worth a try.
const staleToken = "stale_token"

// rejected tells why a resource answered 401: useNonce, staleToken, or nothing
// that a repetition would change. The body is still there afterwards.
func rejected(resp *http.Response, token TokenInfo) string {
	scheme := "dpop"
	if token.Bearer {
		scheme = "bearer"
	}
	why := challengeParam(resp.Header.Values("WWW-Authenticate"), scheme, "error")
	if why == useNonce && !token.Bearer {
		return useNonce
	}
	switch code := readAnswered(peek(resp)).Code; {
	case code == counterfoil.TokenExpired, code == counterfoil.TokenRevoked:
		return staleToken
	case code == counterfoil.TaskClosed:
		// Asked for the next token, the issuer says so itself: whether a task is
		// over is not taken from anybody else.
		return staleToken
	case code == "" && why == "invalid_token":
		// A resource that is not ours says no more than RFC 6750, Section 3.1.
		return staleToken
	}
	return ""
}

var _ interface {
	http.RoundTripper
	CloseIdleConnections()
} = (*Transport)(nil)
