package custody

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/outbound"
	"github.com/counterfoil/counterfoil/internal/seal"
)

// onePlace refuses a credential that does not name exactly one place.
func onePlace(c *counterfoil.UpstreamCredential) error {
	n := 0
	for _, named := range []bool{c.File != "", c.Stored != "", c.Exec != "", c.URL != "", c.OAuth != nil} {
		if named {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("its manifest names %d places for it, not one", n)
	}
	return nil
}

// read reads a file or the vault.
func (c *Custody) read(ctx context.Context, cred *counterfoil.UpstreamCredential) (*gotten, error) {
	if err := onePlace(cred); err != nil {
		return nil, err
	}
	var secret counterfoil.Secret
	var err error
	if cred.Stored != "" {
		secret, err = c.stored(ctx, cred.Stored)
	} else {
		secret, err = c.file(cred.File)
	}
	if err != nil {
		return nil, err
	}
	return &gotten{secret: secret}, nil
}

func (c *Custody) file(name string) (counterfoil.Secret, error) {
	secret, err := c.cfg.File(name)
	if err != nil {
		return counterfoil.Secret{}, err
	}
	if err := usable(secret); err != nil {
		return counterfoil.Secret{}, fmt.Errorf("file %s: %w", name, err)
	}
	return secret, nil
}

func (c *Custody) stored(ctx context.Context, name string) (counterfoil.Secret, error) {
	var none counterfoil.Secret
	sealed, err := c.cfg.Vault.SealedCredential(ctx, name)
	if err != nil {
		return none, err
	}
	if sealed == nil {
		return none, fmt.Errorf("no credential %q is stored: counterfoil credential put %s", name, name)
	}
	b, err := seal.Open(c.cfg.KEK, sealedCredentials, name, sealed)
	if err != nil {
		return none, err
	}
	secret := counterfoil.NewSecret(string(b))
	if err := usable(secret); err != nil {
		return none, fmt.Errorf("stored credential %s: %w", name, err)
	}
	return secret, nil
}

// ask asks a provider once.
func (c *Custody) ask(ctx context.Context, res *counterfoil.Resource, now time.Time) (*gotten, error) {
	cred := res.Credential
	if err := onePlace(cred); err != nil {
		return nil, err
	}
	var said answer
	var err error
	switch {
	case cred.Exec != "":
		said, err = c.run(ctx, cred.Exec, res.Name)
	case cred.URL != "":
		said, err = c.get(ctx, cred)
	default:
		said, err = c.token(ctx, cred.OAuth)
	}
	if err != nil {
		return nil, err
	}
	if err := usable(said.secret); err != nil {
		return nil, fmt.Errorf("what the provider said cannot be used: %w", err)
	}
	got := &gotten{secret: said.secret, at: now}
	got.keep(cred.TTL, said.lives)
	return got, nil
}

// An answer is what a provider said.
type answer struct {
	secret counterfoil.Secret
	lives  time.Duration // zero: it does not say
}

// maxAnswer bounds what a provider may say. A token's answer has more in it than the
// token.
const (
	maxPrinted = maxSecret
	maxAnswer  = 64 << 10
)

// readSaid reads {"secret", "expires_in"}. Other members are passed over: what answers is
// somebody else's.
func readSaid(b []byte) (answer, error) {
	var said struct {
		Secret    string   `json:"secret"`
		ExpiresIn *float64 `json:"expires_in"`
	}
	if err := readJSON(b, &said); err != nil {
		return answer{}, err
	}
	lives, err := lifetime(said.ExpiresIn)
	return answer{counterfoil.NewSecret(said.Secret), lives}, err
}

// readJSON reads an object. Its error says what is wrong and shows nothing of it.
func readJSON(b []byte, v any) error {
	if err := ijson.Check(b); err != nil {
		return errors.New("the provider's answer is not strict JSON")
	}
	if err := json.Unmarshal(b, v); err != nil {
		return errors.New("the provider's answer has members of other types than it should")
	}
	return nil
}

// lifetime reads a number of seconds.
func lifetime(seconds *float64) (time.Duration, error) {
	switch {
	case seconds == nil:
		return 0, nil
	case *seconds < 1:
		return 0, errors.New("the provider's answer is over as it comes: its expires_in is less than a second")
	}
	return time.Duration(min(*seconds, 10*365*24*3600)) * time.Second, nil
}

// get asks an address for the credential.
func (c *Custody) get(ctx context.Context, cred *counterfoil.UpstreamCredential) (answer, error) {
	h := http.Header{"Accept": {"application/json"}}
	if cred.URLToken != "" {
		token, err := c.file(cred.URLToken)
		if err != nil {
			return answer{}, err
		}
		h.Set("Authorization", "Bearer "+token.Reveal())
	}
	status, b, err := c.fetch(ctx, http.MethodGet, cred.URL, h, nil)
	if err != nil {
		return answer{}, err
	}
	if status != http.StatusOK {
		return answer{}, fmt.Errorf("the provider answered with status %d", status)
	}
	return readSaid(b)
}

// fetch goes where a manifest says.
func (c *Custody) fetch(ctx context.Context, method, address string, h http.Header, body []byte) (int, []byte, error) {
	if err := confidential(address); err != nil {
		return 0, nil, err
	}
	// A manifest names it, as it names an upstream: it may be at a private address.
	status, _, b, err := c.cfg.Guard.Fetch(ctx, outbound.Upstream, method, address, h, body, maxAnswer)
	if err != nil {
		return 0, nil, fmt.Errorf("asking the provider: %w", err)
	}
	return status, b, nil
}

// confidential refuses an address at which anybody on the way could read the secret.
func confidential(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil {
		return errors.New("the provider's address is not a plain URL")
	}
	if u.Scheme == "https" {
		return nil
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && ip.IsLoopback()) {
		return nil
	}
	return errors.New("the provider's address is not https: others could read the secret on its way")
}

// RFC 8693, Sections 2.1 and 3.
const (
	grantExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeJWT       = "urn:ietf:params:oauth:token-type:jwt"
	typeAccess    = "urn:ietf:params:oauth:token-type:access_token"
)

// token asks a token endpoint: by client credentials, or in exchange for a token of ours.
func (c *Custody) token(ctx context.Context, o *counterfoil.OAuthProvider) (answer, error) {
	secret, err := c.file(o.ClientSecret)
	if err != nil {
		return answer{}, err
	}
	form := url.Values{"grant_type": {"client_credentials"}}
	if o.SubjectToken != "" {
		subject, err := c.file(o.SubjectToken)
		if err != nil {
			return answer{}, err
		}
		form = url.Values{"grant_type": {grantExchange}, "subject_token": {subject.Reveal()}, "subject_token_type": {typeJWT}, "requested_token_type": {typeAccess}}
	}
	for name, v := range map[string]string{"scope": o.Scope, "audience": o.Audience, "resource": o.Resource} {
		if v != "" {
			form.Set(name, v)
		}
	}
	// RFC 6749, Section 2.3.1: both are encoded as in a form before they are joined.
	pair := url.QueryEscape(o.ClientID) + ":" + url.QueryEscape(secret.Reveal())
	status, b, err := c.fetch(ctx, http.MethodPost, o.TokenURL, http.Header{
		"Accept": {"application/json"}, "Content-Type": {"application/x-www-form-urlencoded"},
		"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(pair))},
	}, []byte(form.Encode()))
	if err != nil {
		return answer{}, err
	}
	return readToken(status, b)
}

// oauthErrors are the codes that an error may show: anything else could be what we sent.
var oauthErrors = map[string]bool{
	"invalid_request": true, "invalid_client": true, "invalid_grant": true, "unauthorized_client": true, "unsupported_grant_type": true,
	"invalid_scope": true, "invalid_target": true, "access_denied": true, "server_error": true, "temporarily_unavailable": true,
}

func readToken(status int, b []byte) (answer, error) {
	var said struct {
		AccessToken string   `json:"access_token"`
		TokenType   string   `json:"token_type"`
		ExpiresIn   *float64 `json:"expires_in"`
		Error       string   `json:"error"`
	}
	err := readJSON(b, &said)
	switch {
	case status != http.StatusOK && err == nil && oauthErrors[said.Error]:
		return answer{}, fmt.Errorf("the token endpoint answered with status %d and %s", status, said.Error)
	case status != http.StatusOK:
		return answer{}, fmt.Errorf("the token endpoint answered with status %d", status)
	case err != nil:
		return answer{}, err
	// RFC 6749, Section 7.1: a token of a type that is not understood is not used.
	case !strings.EqualFold(said.TokenType, "Bearer"):
		return answer{}, errors.New("the token endpoint answered with a token of another type than Bearer")
	}
	lives, err := lifetime(said.ExpiresIn)
	return answer{counterfoil.NewSecret(said.AccessToken), lives}, err
}
