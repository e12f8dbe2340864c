package attacks

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/testkit"
)

// guestManifest is the bank for tokens of an outside issuer, whose keys are where %[2]s
// says; %[1]s is the resource's name and the issuer's.
const guestManifest = `kind: Resource
name: %[1]s
type: mcp
environment: prod
upstream: %[3]s
binding: observe
bearers: [{agent: guest, issuer: "https://%[1]s.example", subject: job, audience: crm, jwks_uri: %[2]q}]
tools: [{name: get_balance, class: read}]
---
`

// keptManifest is the bank behind a credential that a provider gives: %[2]s.
const keptManifest = `kind: Resource
name: %[1]s
type: mcp
environment: prod
upstream: %[3]s
credential: {header: X-Key, ttl: 1m, %[2]s}
tools: [{name: get_balance, class: read}]
---
`

// TestKeysOfOutsideIssuersAreFetchedCarefully is SS1, SS2, SS3 and SS4, and WI5, at the keys of outside issuers: for a
// token that nobody can vouch for yet the server goes where the operator opened, and
// nowhere else, wherever a name leads.
func TestKeysOfOutsideIssuersAreFetchedCarefully(t *testing.T) {
	t.Parallel()
	idp := testkit.NewOutsideIssuer(t, "k1")
	good := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, idp.JWKS()) }
	literal, named := newOutside(t, good), newOutside(t, good)
	places := map[string]string{"here": "127.0.0.1", "nowhere": "0.0.0.0", "meta": "169.254.169.254", "home": "10.0.0.7"}
	w, allow := strictly(t, "")
	manifest := "kind: Agent\nname: guest\nowner: ana\nenvironment: prod\ngrants: [{tools: [literal/*, here/*, nowhere/*, meta/*, home/*]}]\n---\n"
	manifest += fmt.Sprintf(guestManifest, "literal", literal.URL, w.BankUpstream())
	for name, at := range places {
		leads.Store(name+".guests.example", netip.MustParseAddr(at))
		manifest += fmt.Sprintf(guestManifest, name, named.named(name+".guests.example"), w.BankUpstream())
	}
	w.Apply(strings.TrimSuffix(manifest, "---\n"))
	try := func(name string) answer {
		t.Helper()
		w.Clock.Advance(11 * time.Minute) // what was fetched is forgotten, and so is what failed
		now := w.Clock.Now().Unix()
		q := w.callOf(w.payroll, "get_balance", honestArguments)
		q.url, q.scheme, q.proofs = w.Issuer()+"/r/"+name, "Bearer", []string{}
		q.token = idp.Token(map[string]any{"iss": "https://" + name + ".example", "sub": "job", "aud": "crm", "iat": now, "exp": now + 300})
		return w.sendCall(q)
	}
	fails := func(what, name string) {
		t.Helper()
		if got := try(name); got.code != counterfoil.UpstreamUnavailable || got.status != http.StatusBadGateway {
			t.Errorf("%s: %s", what, got)
		}
	}
	for _, list := range [][]string{nil, {"10.0.0.0/24"}, {"127.0.0.2/32"}} {
		allow(list...)
		fails("SS1 this machine", "literal")
		for name := range places {
			if name != "home" || list == nil {
				fails("SS2 a name that leads to "+places[name], name)
			}
		}
		if n := literal.came.Load() + named.came.Load(); n > 0 {
			t.Fatalf("with %v: %d connections", list, n)
		}
	}
	allow("127.0.0.1/32")
	if got := try("literal"); !got.passed() {
		t.Errorf("the control: %s", got)
	}
	if fails("a certificate that nobody trusts", "here"); named.came.Load() == 0 {
		t.Error("an opened place that a name leads to is not asked")
	}
	before := named.came.Load()
	leads.Store("here.guests.example", netip.MustParseAddr("0.0.0.0")) // between two lookups
	for _, name := range []string{"here", "nowhere", "meta", "home"} {
		if fails("SS2 beside what is opened: "+name, name); named.came.Load() != before {
			t.Errorf("%s is connected to", name)
		}
	}
	for name, bad := range map[string]http.HandlerFunc{
		"SS3 a redirect": func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, w.trap, http.StatusFound) },
		"SS4 large": func(rw http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(rw, `{"x":%q,%s`, strings.Repeat("x", 64<<10), idp.JWKS()[1:])
		},
		"SS4 compressed": func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Encoding", "gzip")
			io.WriteString(rw, gzipped(t, idp.JWKS()))
		},
	} {
		literal.set(bad)
		fails(name, "literal")
		literal.set(good)
		if got := try("literal"); !got.passed() {
			t.Errorf("%s, its control: %s", name, got)
		}
	}
	w.CheckLedger()
}

// TestProvidersAreAskedCarefully is SS1, SS2 and SS3 at the providers of upstreams' credentials. They
// may be private, and are not metadata services, wherever a name leads.
func TestProvidersAreAskedCarefully(t *testing.T) {
	t.Parallel()
	const secret = "provided-secret-0123456789"
	good := func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"secret":%[1]q,"expires_in":60}`, secret)
	}
	token := func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":60}`, secret)
	}
	literal, endpoint, named := newOutside(t, good), newOutside(t, token), newOutside(t, good)
	w, allow := strictly(t, "")
	oauth := func(url string) string {
		return fmt.Sprintf("oauth: {token_url: %q, client_id: c, client_secret: client-secret}", url)
	}
	manifest, tools := "", []string(nil)
	add := func(name, source string) {
		manifest += fmt.Sprintf(keptManifest, name, source, w.BankUpstream())
		tools = append(tools, name+"/*")
	}
	add("literal", fmt.Sprintf("url: %q", literal.URL))
	add("endpoint", oauth(endpoint.URL))
	places := map[string]string{"here": "127.0.0.1", "nowhere": "0.0.0.0", "meta": "169.254.169.254", "link": "169.254.7.7", "alibaba": "100.100.100.200", "many": "224.0.0.1"}
	for name, at := range places {
		leads.Store(name+".providers.example", netip.MustParseAddr(at))
		add(name, fmt.Sprintf("url: %q", named.named(name+".providers.example")))
		add(name+"-oauth", oauth(named.named(name+".providers.example")))
	}
	manifest += "kind: Agent\nname: guest\nowner: ana\nenvironment: prod\ngrants: [{tools: [" + strings.Join(tools, ", ") + "]}]\n"
	w.secret("client-secret", "client-secret-value")
	w.Apply(manifest)
	guest := w.actor("guest")
	allow()
	try := func(name string) answer {
		t.Helper()
		w.Clock.Advance(2 * time.Minute) // what was given is over
		at := w.Issuer() + "/r/" + name
		return w.sendCall(w.callWith(guest, w.tokenFor(guest, at), at))
	}
	for _, name := range []string{"literal", "endpoint"} {
		got := try(name)
		saw := w.UpstreamHeaders()
		if !got.passed() || len(saw) == 0 || saw[len(saw)-1].Get("X-Key") != secret {
			t.Fatalf("%s, the control: %s, the upstream saw %q", name, got, saw)
		}
	}
	fails := func(what, name string) {
		t.Helper()
		reached := w.Reached()
		if got := try(name); got.code != counterfoil.UpstreamUnavailable || w.Reached() != reached {
			t.Errorf("%s: %s, and %d calls reached the upstream", what, got, w.Reached()-reached)
		}
	}
	for _, kind := range []string{"", "-oauth"} {
		before := named.came.Load()
		for name, at := range places {
			if name != "here" {
				fails("SS2 a name that leads to "+at, name+kind)
			}
		}
		if named.came.Load() != before {
			t.Error("SS2: a closed place is connected to")
		}
		leads.Store("here.providers.example", netip.MustParseAddr("127.0.0.1"))
		if fails("a certificate that nobody trusts", "here"+kind); named.came.Load() == before {
			t.Error("a private place that a name leads to is not asked")
		}
		before = named.came.Load()
		leads.Store("here.providers.example", netip.MustParseAddr("0.0.0.0")) // between two lookups
		if fails("SS2 a name that leads elsewhere now", "here"+kind); named.came.Load() != before {
			t.Error("it is connected to once more")
		}
	}
	literal.set(func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, w.trap, http.StatusFound) })
	endpoint.set(func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, w.trap, http.StatusTemporaryRedirect)
	})
	fails("SS3 a redirect", "literal")
	fails("SS3 a redirect of a token endpoint", "endpoint")
	w.CheckLedger()
}
