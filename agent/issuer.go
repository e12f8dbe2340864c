package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
)

const (
	// askTimeout bounds one exchange with the issuer, repetitions included.
	askTimeout = 30 * time.Second
	// metadataLife is how long the issuer's metadata is taken as read.
	metadataLife = time.Hour
	// askPause is the pause before the one repetition after a passing fault.
	askPause = 250 * time.Millisecond
)

// An issuer is the authorization server as this agent sees it. It is safe for
// concurrent use.
type issuer struct {
	id     string
	signer *credential.Signer
	http   *http.Client // follows no redirect
	now    func() time.Time
	nonce  nonce

	asserts        bool // the key logs the agent in, not only binds its tokens
	insecureBearer bool // see Config

	mu    sync.Mutex // guards meta and until
	meta  *metadata
	until time.Time
}

// metadata is what is used of RFC 8414, Section 2, and the one member of ours.
type metadata struct {
	Issuer        string   `json:"issuer"`
	TokenEndpoint string   `json:"token_endpoint"`
	AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`
	AuthAlgs      []string `json:"token_endpoint_auth_signing_alg_values_supported"`
	ProofAlgs     []string `json:"dpop_signing_alg_values_supported"`
	Enrolment     string   `json:"counterfoil_enrolment_endpoint"`

	unbound bool // the issuer does not bind tokens, and that is taken
}

// tokenType is the type that a token must have (RFC 6749, Section 7.1).
func (m *metadata) tokenType() string {
	if m.unbound {
		return "Bearer"
	}
	return "DPoP"
}

func newIssuer(id string, signer *credential.Signer, base *http.Client, now func() time.Time) (*issuer, error) {
	if _, err := checkURL(id); err != nil {
		return nil, fmt.Errorf("the issuer %q: %w", id, err)
	}
	if signer == nil {
		return nil, errors.New("there is no key to sign with")
	}
	if now == nil {
		now = time.Now
	}
	return &issuer{id: id, signer: signer, now: now, asserts: true, http: clientOf(base)}, nil
}

// clientOf returns what requests outside of the resource are sent with. It
// follows no redirect: none of the answers that it is for is one.
func clientOf(base *http.Client) *http.Client {
	return &http.Client{
		Transport:     transportOf(base),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// transportOf returns what requests are sent with. A caller's client may have a
// cookie jar and follow redirects; of it only the transport is used.
func transportOf(base *http.Client) http.RoundTripper {
	if base != nil && base.Transport != nil {
		return base.Transport
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 64  // an agent has one host and many calls at once
	t.DisableCompression = true // which would hold back a stream's pieces
	return t
}

// checkURL takes an absolute URL over TLS, or over plain HTTP on loopback,
// without query, fragment and user (RFC 8414, Section 2; RFC 8707, Section 2).
func checkURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, err
	}
	switch {
	case u.Host == "" || u.Opaque != "" || u.User != nil:
		return nil, errors.New("it must be an absolute URL without a user")
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(raw, "#"):
		return nil, errors.New("it must have neither query nor fragment")
	case u.Scheme == "https", u.Scheme == "http" && loopbackHost(u.Hostname()):
		return u, nil
	}
	return nil, errors.New("it must be an https URL; plain http is for loopback only")
}

// loopbackHost reports whether a URL's host is this machine. RFC 6761, Section
// 6.3, makes "localhost" a name that resolves to nothing else.
func loopbackHost(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback() || strings.EqualFold(host, "localhost")
}

// metadataURL inserts the well-known part before the path of an identifier (RFC
// 8414, Section 3.1; RFC 9728, Section 3.1).
func metadataURL(identifier, wellKnown string) string {
	u, err := url.Parse(identifier)
	if err != nil {
		return "" // checkURL parsed it before
	}
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	return u.Scheme + "://" + u.Host + "/.well-known/" + wellKnown + path
}

// metadata returns the issuer's metadata, read at most once in metadataLife.
func (i *issuer) metadata(ctx context.Context) (*metadata, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.now()
	if i.meta != nil && now.Before(i.until) {
		return i.meta, nil
	}
	status, body, err := i.send(ctx, true, func(string) (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, metadataURL(i.id, "oauth-authorization-server"), nil)
		if err == nil {
			req.Header.Set("Accept", "application/json")
		}
		return req, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the metadata of %s: %w", i.id, err)
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("reading the metadata of %s: %w", i.id, refusedBy("the issuer", status, body))
	}
	var m metadata
	if err := ijson.UnmarshalLax(body, &m); err != nil {
		return nil, fmt.Errorf("reading the metadata of %s: %w", i.id, err)
	}
	if err := i.check(&m); err != nil {
		return nil, fmt.Errorf("reading the metadata of %s: %w", i.id, err)
	}
	i.meta, i.until = &m, now.Add(metadataLife)
	return i.meta, nil
}

// check refuses metadata that is another issuer's or that this agent cannot
// work with, before anything is signed for it.
func (i *issuer) check(m *metadata) error {
	// RFC 8414, Section 3.3: the value must be identical, and metadata where
	// it is not must not be used. Identical is byte for byte: a slash too many
	// is another issuer.
	if m.Issuer != i.id {
		return fmt.Errorf("it names the issuer %q; ask for that one, if it is meant", printable(m.Issuer))
	}
	if _, err := checkURL(m.TokenEndpoint); err != nil {
		return fmt.Errorf("its token_endpoint %q: %w", printable(m.TokenEndpoint), err)
	}
	if m.Enrolment != "" {
		if _, err := checkURL(m.Enrolment); err != nil {
			return fmt.Errorf("its counterfoil_enrolment_endpoint %q: %w", printable(m.Enrolment), err)
		}
	}
	alg := i.signer.Public().Alg()
	if i.asserts && len(m.AuthMethods) > 0 && !slices.Contains(m.AuthMethods, "private_key_jwt") {
		return errors.New("it does not take private_key_jwt")
	}
	if i.asserts && len(m.AuthAlgs) > 0 && !slices.Contains(m.AuthAlgs, alg) {
		return fmt.Errorf("it takes no assertion signed with %s, which is what the key is for", alg)
	}
	// RFC 9449, Section 5.1: the member says that DPoP is supported at all. The
	// metadata comes from the issuer itself, over TLS, so that nobody in between
	// takes the member out to get at a token that is not bound.
	m.unbound = len(m.ProofAlgs) == 0 && i.insecureBearer
	if !m.unbound && !slices.Contains(m.ProofAlgs, alg) {
		return fmt.Errorf("it takes no DPoP proof signed with %s, which is what the key is for", alg)
	}
	return nil
}

// send sends a request to the issuer and returns the whole answer. build makes
// each attempt afresh with the nonce to use, so that no assertion and no proof
// is sent twice. Repeated is an answer that asks for a nonce, once, and, where
// again allows it, a passing fault, once.
func (i *issuer) send(ctx context.Context, again bool, build func(nonce string) (*http.Request, error)) (int, []byte, error) {
	renonced := false
	for {
		req, err := build(i.nonce.get())
		if err != nil {
			return 0, nil, err
		}
		status, header, body, err := i.once(req)
		passing := err != nil || status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
		if passing && again && ctx.Err() == nil {
			again = false
			select {
			case <-time.After(askPause):
				continue
			case <-ctx.Done():
			}
		}
		if err != nil {
			return 0, nil, err
		}
		fresh := i.nonce.take(header)
		// RFC 9449, Section 8: the error at the authorization server is in the
		// body; at an endpoint protected by a proof alone it may be in the
		// challenge.
		if fresh && !renonced && (status == http.StatusBadRequest || status == http.StatusUnauthorized) {
			a := readAnswered(body)
			if a.OAuth == useNonce || a.Code.Wire().OAuth == useNonce || challengeParam(header.Values("WWW-Authenticate"), "dpop", "error") == useNonce {
				renonced = true
				continue
			}
		}
		return status, body, nil
	}
}

// useNonce is the error that asks for a nonce (RFC 9449, Section 8).
const useNonce = "use_dpop_nonce"

func (i *issuer) once(req *http.Request) (int, http.Header, []byte, error) {
	resp, err := i.http.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	if isRedirect(resp.StatusCode) {
		_ = resp.Body.Close()
		return 0, nil, nil, fmt.Errorf("%s answers with a redirect, which is not followed", req.URL.Redacted())
	}
	body, err := readLimited(resp.Body)
	return resp.StatusCode, resp.Header, body, err
}

func isRedirect(status int) bool {
	return status >= 300 && status <= 399 && status != http.StatusNotModified
}

// origin is a URL's scheme, host and port with what they are by default.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}
