package custody

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/outbound"
	"github.com/counterfoil/counterfoil/ledger"
)

// A desk is a custody whose secrets are files of a folder, with everything that it logs.
type desk struct {
	*Custody
	t     *testing.T
	dir   string
	vault *box

	mu  sync.Mutex
	now time.Time
	log strings.Builder
}

func (d *desk) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.Write(b)
}

func (d *desk) time() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *desk) pass(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(by)
}

// A box is a vault in memory: the store's own is tested in its room.
type box struct {
	mu      sync.Mutex
	sealed  map[string][]byte
	entries []*ledger.Entry
	fails   error
}

func (b *box) SealedCredential(_ context.Context, name string) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sealed[name], b.fails
}

func (b *box) PutCredential(_ context.Context, name string, sealed []byte, e *ledger.Entry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fails != nil {
		return b.fails
	}
	b.sealed[name], b.entries = sealed, append(b.entries, e)
	return nil
}

func (b *box) DeleteCredential(_ context.Context, name string, e *ledger.Entry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sealed[name] == nil {
		return counterfoil.Refuse(counterfoil.ToolUnknown, "none")
	}
	delete(b.sealed, name)
	b.entries = append(b.entries, e)
	return nil
}

func (b *box) Credentials(context.Context) ([]counterfoil.StoredCredential, error) { return nil, nil }

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, dir: t.TempDir(), vault: &box{sealed: map[string][]byte{}}, now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	if err := os.MkdirAll(filepath.Join(d.dir, "providers"), 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{
		File: func(name string) (counterfoil.Secret, error) {
			b, err := os.ReadFile(filepath.Join(d.dir, name))
			return counterfoil.NewSecret(strings.TrimRight(string(b), "\n")), err
		},
		Providers: filepath.Join(d.dir, "providers"), Vault: d.vault, KEK: bytes.Repeat([]byte{7}, 32),
		Guard: outbound.New([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}),
		Now:   d.time, Log: slog.New(slog.NewTextHandler(d, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	d.Custody = c
	t.Cleanup(c.Stop)
	return d
}

func (d *desk) file(name, text string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) provider(name, script string) {
	d.t.Helper()
	path := filepath.Join(d.dir, "providers", name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		d.t.Fatal(err)
	}
}

func with(c counterfoil.UpstreamCredential) *counterfoil.Resource {
	c.Header, c.Prefix = "Authorization", "Bearer "
	return &counterfoil.Resource{Name: "crm", Type: counterfoil.ResourceHTTP, Upstream: "http://127.0.0.1:1", Credential: &c}
}

func (d *desk) wantReleased(res *counterfoil.Resource, secret, from string) Released {
	d.t.Helper()
	r, err := d.Release(d.t.Context(), res)
	switch {
	case err != nil:
		d.t.Fatalf("it is not released: %v", err)
	case r.Secret.Reveal() != secret || r.From != from:
		d.t.Fatalf("released is %q from %q, want %q from %q", r.Secret.Reveal(), r.From, secret, from)
	}
	if out, struck := r.Mask.Bytes([]byte("it is " + secret)); !struck || strings.Contains(string(out), secret) {
		d.t.Fatalf("its mask does not find it: %q", out)
	}
	return r
}

// wantNot wants an error that says text and shows none of the secrets.
func (d *desk) wantNot(res *counterfoil.Resource, text string, secrets ...string) {
	d.t.Helper()
	r, err := d.Release(d.t.Context(), res)
	if err == nil || !strings.Contains(err.Error(), text) || !r.Secret.Empty() {
		d.t.Fatalf("released is %q, error %v; want one that says %q", r.Secret.Reveal(), err, text)
	}
	for _, s := range secrets {
		if strings.Contains(err.Error(), s) || strings.Contains(d.log.String(), s) {
			d.t.Fatalf("the secret %q is in the error or the log: %v\n%s", s, err, d.log.String())
		}
	}
}

func TestNoCredentialIsReleasedWhereThereIsNone(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	r, err := d.Release(t.Context(), &counterfoil.Resource{Name: "open"})
	if err != nil || !r.Secret.Empty() || r.From != "" {
		t.Fatalf("%+v, %v", r, err)
	}
	if out, struck := r.Mask.Bytes([]byte("x")); struck || string(out) != "x" {
		t.Error("the mask of nothing struck")
	}
}

// A file that is replaced counts at the next call; answers are masked of both.
func TestFilesAreReadEachTime(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	res := with(counterfoil.UpstreamCredential{File: "crm-token"})
	d.wantNot(res, "no such file")
	d.file("crm-token", "first-token-of-crm\n")
	d.wantReleased(res, "first-token-of-crm", "file crm-token")
	d.file("crm-token", "second-token-of-crm\n")
	r := d.wantReleased(res, "second-token-of-crm", "file crm-token")
	if !r.Expires.IsZero() {
		t.Error("a file's secret has an end")
	}
	if out, struck := r.Mask.Bytes([]byte("first-token-of-crm")); !struck {
		t.Errorf("the one of before is not masked any more: %s", out)
	}
	// The mask goes with the resource to another place.
	if err := d.Put(t.Context(), "crm", counterfoil.NewSecret("stored-token-of-crm"), "uid:0"); err != nil {
		t.Fatal(err)
	}
	r = d.wantReleased(with(counterfoil.UpstreamCredential{Stored: "crm"}), "stored-token-of-crm", "stored crm")
	if _, struck := r.Mask.Bytes([]byte("second-token-of-crm")); !struck {
		t.Error("the one of before, from another place, is not masked any more")
	}
}

func TestWhatCannotBeACredentialIsNotReleased(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	res := with(counterfoil.UpstreamCredential{File: "f"})
	for secret, says := range map[string]string{
		"": "empty", "seven77": "fewer than 8", "line\nbreak-in-it": "printable ASCII", "pässword-word": "printable ASCII", "tab\tin-the-middle": "printable ASCII",
		"************": "asterisks", " leading-space": "space", "trailing-space ": "space", strings.Repeat("x", maxSecret+1): "larger than",
	} {
		d.file("f", secret)
		d.wantNot(res, says, "break-in", "ssword", "in-the-middle", "leading", "trailing", "xxxx", "seven77")
		if err := d.Check(res); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q passes the check: %v", secret, err)
		}
		if err := d.Put(t.Context(), "f", counterfoil.NewSecret(secret), "uid:0"); counterfoil.CodeOf(err) != counterfoil.RequestMalformed {
			t.Errorf("%q is put: %v", secret, err)
		}
	}
	d.file("f", "eight888")
	d.wantReleased(res, "eight888", "file f")
	if err := d.Check(res); err != nil {
		t.Error(err)
	}
}

func TestCredentialOfTwoPlacesOrNone(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.file("f", "s3cr3t-token")
	for name, c := range map[string]counterfoil.UpstreamCredential{
		"none": {}, "file and stored": {File: "f", Stored: "f"}, "file and exec": {File: "f", Exec: "f"}, "url and oauth": {URL: "https://p.example", OAuth: &counterfoil.OAuthProvider{}},
	} {
		t.Log(name)
		d.wantNot(with(c), "places for it, not one")
		if d.Check(with(c)) == nil {
			t.Errorf("%s passes the check", name)
		}
	}
}

func TestStoredCredentials(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	res := with(counterfoil.UpstreamCredential{Stored: "crm"})
	d.wantNot(res, "counterfoil credential put crm")
	if err := d.Check(res); err == nil {
		t.Error("what is not stored passes the check")
	}
	put := func(name, secret string) error {
		return d.Put(t.Context(), name, counterfoil.NewSecret(secret), "uid:7")
	}
	for _, name := range []string{"", "CRM", "a/b", "../x", "-a", "a-", strings.Repeat("a", 64)} {
		if err := put(name, "s3cr3t-token"); counterfoil.CodeOf(err) != counterfoil.RequestMalformed {
			t.Errorf("the name %q is taken: %v", name, err)
		}
	}
	for _, secret := range []string{"s3cr3t-token", "another-token"} {
		if err := put("crm", secret); err != nil {
			t.Fatal(err)
		}
		d.wantReleased(res, secret, "stored crm")
		if strings.Contains(string(d.vault.sealed["crm"]), secret) {
			t.Error("it is not sealed")
		}
	}
	if err := d.Check(res); err != nil {
		t.Error(err)
	}
	// One that was moved to another name does not open.
	d.vault.sealed["moved"] = d.vault.sealed["crm"]
	d.wantNot(with(counterfoil.UpstreamCredential{Stored: "moved"}), "belongs to another row", "another-token")
	if err := d.Delete(t.Context(), "crm", "uid:7"); err != nil {
		t.Fatal(err)
	}
	d.wantNot(res, "no credential")
	if err := d.Delete(t.Context(), "crm", "uid:7"); counterfoil.CodeOf(err) != counterfoil.ToolUnknown {
		t.Errorf("deleted twice: %v", err)
	}
	kinds := ""
	for _, e := range d.vault.entries {
		b, err := ledger.Prepare(e)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b.AppendTo(nil, 0, ""))
		kinds += string(e.Kind) + " " + e.Actor + ","
		for _, s := range []string{"s3cr3t", "another-token"} {
			if strings.Contains(text, s) {
				t.Errorf("the entry has the secret: %s", text)
			}
		}
	}
	if kinds != "credential.stored uid:7,credential.stored uid:7,credential.deleted uid:7," {
		t.Errorf("the entries: %s", kinds)
	}
}

// A provider's answer serves until it is over: it is asked for again a little before, and
// one that fails then takes nothing away until the end.
func TestProviderIsKeptAndRenewed(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	var asked, status atomic.Int64
	status.Store(http.StatusOK)
	answered := make(chan struct{}, 16)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { answered <- struct{}{} }()
		n := asked.Add(1)
		if code := int(status.Load()); code != http.StatusOK {
			http.Error(w, "token-9 is broken", code)
			return
		}
		if r.Method != http.MethodGet || r.Header.Get("Authorization") != "Bearer how-we-ask" {
			t.Errorf("asked with %s, %q", r.Method, r.Header.Get("Authorization"))
		}
		fmt.Fprintf(w, `{"secret":"token-%d-of-crm","expires_in":100,"other":[1]}`, n)
	}))
	defer s.Close()
	d.file("how", "how-we-ask")
	res := with(counterfoil.UpstreamCredential{URL: s.URL + "/secret?id=1", URLToken: "how"})
	from := "url " + s.URL
	r := d.wantReleased(res, "token-1-of-crm", from)
	if got := r.Expires.Sub(d.time()); got != 100*time.Second {
		t.Errorf("it lives for %s", got)
	}
	d.pass(79 * time.Second)
	d.wantReleased(res, "token-1-of-crm", from)
	if asked.Load() != 1 {
		t.Errorf("asked %d times", asked.Load())
	}
	<-answered
	// It is asked beside the call, which gets what is there.
	status.Store(http.StatusInternalServerError)
	d.pass(2 * time.Second)
	d.wantReleased(res, "token-1-of-crm", from)
	<-answered
	d.settle(res)
	for range 3 { // it is left alone for a second
		d.wantReleased(res, "token-1-of-crm", from)
	}
	if asked.Load() != 2 {
		t.Errorf("asked %d times", asked.Load())
	}
	status.Store(http.StatusOK)
	d.pass(time.Second)
	d.wantReleased(res, "token-1-of-crm", from)
	<-answered
	d.settle(res)
	d.wantReleased(res, "token-3-of-crm", from)
	// One that fails until the end is an error then, and not before.
	status.Store(http.StatusServiceUnavailable)
	d.pass(99 * time.Second)
	d.wantReleased(res, "token-3-of-crm", from)
	<-answered
	d.settle(res)
	d.pass(2 * time.Second)
	d.wantNot(res, "status 503", "token-9", "token-3")
	<-answered
	d.wantNot(res, "a moment ago", "token-9", "token-3")
	if asked.Load() != 5 {
		t.Errorf("asked %d times", asked.Load())
	}
}

// settle waits until nobody is asking.
func (d *desk) settle(res *counterfoil.Resource) {
	s := d.source(res)
	s.mu.Lock()
	f := s.flight
	s.mu.Unlock()
	if f != nil {
		<-f.done
	}
}

// Sixty-four calls at once ask once, also when who asked first has gone.
func TestProviderIsAskedOnceAtATime(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	var asked atomic.Int64
	arrived, let := make(chan struct{}), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		arrived <- struct{}{}
		<-let
		io.WriteString(w, `{"secret":"token-of-crm"}`)
	}))
	defer s.Close()
	res := with(counterfoil.UpstreamCredential{URL: s.URL})
	gone, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := d.Release(gone, res); !errors.Is(err, context.Canceled) {
			t.Errorf("who went away got %v", err)
		}
	})
	<-arrived
	for range 64 {
		all.Go(func() {
			if r, err := d.Release(t.Context(), res); err != nil || r.Secret.Reveal() != "token-of-crm" {
				t.Errorf("%v", err)
			}
		})
	}
	cancel()
	close(let)
	all.Wait()
	if asked.Load() != 1 {
		t.Errorf("asked %d times", asked.Load())
	}
}

// What the upstream refused is got anew, but not for every call.
func TestRefusedCredentialIsGotAnew(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"secret":"token-%d-of-crm"}`, asked.Add(1))
	}))
	defer s.Close()
	res := with(counterfoil.UpstreamCredential{URL: s.URL})
	first := d.wantReleased(res, "token-1-of-crm", "url "+s.URL)
	d.Refused(res, first)
	d.wantReleased(res, "token-1-of-crm", "url "+s.URL)
	d.pass(refusedAfter)
	d.Refused(res, first)
	second := d.wantReleased(res, "token-2-of-crm", "url "+s.URL)
	d.pass(refusedAfter)
	d.Refused(res, first) // it is not the one that is used
	d.wantReleased(res, "token-2-of-crm", "url "+s.URL)
	if _, struck := second.Mask.Bytes([]byte("token-1-of-crm")); !struck {
		t.Error("the one of before is not masked any more")
	}
}

func TestTTLBoundsWhatAProviderSays(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		says string
		ttl  time.Duration
		want time.Duration
	}{
		"neither": {"", 0, defaultTTL}, "the manifest less": {`,"expires_in":100`, time.Second * 30, 30 * time.Second}, "the provider less": {`,"expires_in":20`, time.Second * 30, 20 * time.Second},
		"the manifest more": {"", time.Hour, time.Hour}, "the provider much more": {`,"expires_in":1e300`, 0, defaultTTL}, "a fraction": {`,"expires_in":1.5`, 0, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			d.provider("p", `echo '{"secret":"token-of-crm"`+c.says+`}'`)
			r := d.wantReleased(with(counterfoil.UpstreamCredential{Exec: "p", TTL: counterfoil.Duration(c.ttl)}), "token-of-crm", "exec p")
			if got := r.Expires.Sub(d.time()); got != c.want {
				t.Errorf("it lives for %s, want %s", got, c.want)
			}
		})
	}
}

func TestAddressesOfProviders(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.file("secret", "client-secret-value")
	var gets atomic.Int64
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { gets.Add(1) }))
	defer target.Close()
	answers := map[string]string{
		"/ok": `{"secret":"token-of-crm"}`, "/twice": `{"secret":"token-of-crm","secret":"token-of-crm"}`, "/other": `{"token":"token-of-crm"}`, "/text": "token-of-crm",
		"/number": `{"secret":12345678}`, "/over": `{"secret":"token-of-crm","expires_in":0}`, "/negative": `{"secret":"token-of-crm","expires_in":-1}`,
		"/more": `{"secret":"token-of-crm"} {}`, "/large": `{"secret":"token-of-crm","x":"` + strings.Repeat("x", maxAnswer) + `"}`, "/array": `["token-of-crm"]`,
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, target.URL, http.StatusFound)
			return
		}
		io.WriteString(w, answers[r.URL.Path])
	}))
	defer s.Close()
	for path, says := range map[string]string{
		"/ok": "", "/twice": "strict JSON", "/other": "empty", "/text": "strict JSON", "/number": "other types", "/over": "over as it comes", "/negative": "over as it comes",
		"/more": "strict JSON", "/large": "longer than", "/array": "other types", "/redirect": "status 302",
	} {
		res := with(counterfoil.UpstreamCredential{URL: s.URL + path})
		res.Name = strings.Trim(path, "/")
		if says == "" {
			d.wantReleased(res, "token-of-crm", "url "+s.URL)
			continue
		}
		d.wantNot(res, says, "token-of-crm", path+"\"")
	}
	if gets.Load() != 0 {
		t.Error("a redirect was followed")
	}
	for address, says := range map[string]string{
		"http://p.example/": "not https", "https://user:pass-word@p.example/": "plain URL", "ftp://127.0.0.1/": "not https", "": "places",
		"https://169.254.169.254/latest": "asking the provider", "http://127.0.0.1.example/": "not https",
	} {
		res := with(counterfoil.UpstreamCredential{URL: address})
		d.wantNot(res, says, "pass-word", "/latest")
	}
}

func TestOAuthProviders(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.file("secret", "client secret+value")
	d.file("subject", "eyJhbGciOiJFUzI1NiJ9.e30.c2ln")
	var status atomic.Int64
	var body atomic.Value
	seen := make(chan url.Values, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// RFC 6749, Section 2.3.1.
		if user, password, _ := r.BasicAuth(); user != "us%3Aand" || password != "client+secret%2Bvalue" {
			t.Errorf("authenticated as %q with %q", user, password)
		}
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		seen <- r.PostForm
		w.WriteHeader(int(status.Load()))
		io.WriteString(w, body.Load().(string))
	}))
	defer s.Close()
	plain := counterfoil.OAuthProvider{TokenURL: s.URL + "/token", ClientID: "us:and", ClientSecret: "secret", Scope: "a b", Audience: "crm", Resource: "https://crm.example"}
	exchange := plain
	exchange.SubjectToken, exchange.Scope, exchange.Audience, exchange.Resource = "subject", "", "", ""
	n := 0
	try := func(o counterfoil.OAuthProvider, code int, answer string) *counterfoil.Resource {
		n++
		status.Store(int64(code))
		body.Store(answer)
		res := with(counterfoil.UpstreamCredential{OAuth: &o})
		res.Name = fmt.Sprint("crm-", n)
		return res
	}
	const good = `{"access_token":"token-of-crm","token_type":"bearer","expires_in":60,"scope":"a"}`
	r := d.wantReleased(try(plain, 200, good), "token-of-crm", "oauth "+s.URL)
	if got := r.Expires.Sub(d.time()); got != time.Minute {
		t.Errorf("it lives for %s", got)
	}
	if got := (<-seen).Encode(); got != "audience=crm&grant_type=client_credentials&resource=https%3A%2F%2Fcrm.example&scope=a+b" {
		t.Error(got)
	}
	d.wantReleased(try(exchange, 200, good), "token-of-crm", "oauth "+s.URL)
	if got := (<-seen).Encode(); got != "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token"+
		"&subject_token=eyJhbGciOiJFUzI1NiJ9.e30.c2ln&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt" {
		t.Error(got)
	}
	for answer, says := range map[string]string{
		`{"access_token":"token-of-crm","token_type":"DPoP"}`: "another type", `{"access_token":"token-of-crm"}`: "another type", `{"token_type":"Bearer"}`: "empty", `nope`: "strict JSON",
	} {
		d.wantNot(try(plain, 200, answer), says, "token-of-crm", "client secret")
		<-seen
	}
	for answer, says := range map[string]string{
		`{"error":"invalid_client"}`: "status 401 and invalid_client", `{"error":"client secret+value"}`: "status 401", `client+secret%2Bvalue`: "status 401",
	} {
		d.wantNot(try(plain, 401, answer), says, "client secret", "client+secret")
		<-seen
	}
	if err := d.Check(try(exchange, 200, good)); err != nil {
		t.Error(err)
	}
	exchange.SubjectToken = "missing"
	d.wantNot(try(exchange, 200, good), "no such file")
	if d.Check(try(exchange, 200, good)) == nil {
		t.Error("a missing file passes the check")
	}
}
