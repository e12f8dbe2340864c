package attacks

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/daemon"
)

// Connections outward: SS1 to SS4.

// leads maps a name to where it leads, in the order in which it is asked for; the last
// one stays.
var leads sync.Map

// The process of the tests asks a server of names of its own, in which an attacker may
// write. It is set before anything runs.
func init() {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		for buf := make([]byte, 1<<12); ; {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(nameAnswer(buf[:n]), from)
		}
	}()
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

// nameAnswer answers one question (RFC 1035, Section 4.1; RFC 3596).
func nameAnswer(q []byte) []byte {
	end, labels := 12, []string(nil)
	for q[end] != 0 {
		n := int(q[end])
		labels = append(labels, string(q[end+1:end+1+n]))
		end += n + 1
	}
	end += 5
	kind := q[end-3]
	out := append([]byte{q[0], q[1], 0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0}, q[12:end]...)
	name := strings.ToLower(strings.Join(labels, "."))
	addr := netip.MustParseAddr("127.0.0.1")
	if name != "localhost" {
		to, ok := leads.Load(name)
		if !ok {
			return out // no such name
		}
		addr = to.(netip.Addr)
	}
	out[3] = 0x80
	if addr.Is4() != (kind == 1) || kind != 1 && kind != 28 {
		return out // it has none of that kind
	}
	out[7] = 1
	b := addr.AsSlice()
	return append(append(out, 0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0, 0, byte(len(b))), b...)
}

// An outside is a server on this machine. It counts connections, so that one that broke
// off before a request counts too.
type outside struct {
	*httptest.Server
	came atomic.Int64
	told chan string // bodies of requests, as far as anybody reads them

	mu     sync.Mutex
	answer http.HandlerFunc
}

func newOutside(t *testing.T, answer http.HandlerFunc) *outside {
	t.Helper()
	o := &outside{answer: answer, told: make(chan string, 64)}
	o.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b, err := io.ReadAll(r.Body); err == nil {
			select {
			case o.told <- string(b):
			default:
			}
		}
		o.mu.Lock()
		answer := o.answer
		o.mu.Unlock()
		answer(w, r)
	}))
	o.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			o.came.Add(1)
		}
	}
	o.Start()
	t.Cleanup(func() {
		o.CloseClientConnections()
		o.Close()
	})
	return o
}

func (o *outside) set(answer http.HandlerFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answer = answer
}

// named returns a URL of the server under another name.
func (o *outside) named(name string) string {
	return "https://" + name + o.URL[strings.LastIndexByte(o.URL, ':'):]
}

// strictly is a world that was made as the tests' are, and then started again as a
// server that is not for development: nothing but the list opens this machine.
func strictly(t *testing.T, manifest string, more ...counterfoiltest.Option) (w *world, allow func(...string)) {
	t.Helper()
	dev, list := true, []string(nil)
	w = newWorld(t, append(more, func(c *daemon.Config) { c.Dev, c.Outbound.Allow = dev, list })...)
	if manifest != "" {
		w.Apply(manifest)
	}
	dev = false
	return w, func(cidrs ...string) {
		list = cidrs
		w.Restart()
	}
}

// sentOut are manifests of everything that sends the server somewhere.
var sentOut = map[string]string{
	"push":      "kind: Agent\nname: hearer\nowner: ana\nenvironment: prod\nsignals: {push: [%q]}\n",
	"jwks_uri":  "kind: Transmitter\nname: idp\nissuer: https://idp.example\njwks_uri: %q\n",
	"poll":      "kind: Transmitter\nname: idp\nissuer: https://idp.example\njwks_uri: https://idp.example/keys\npoll: %q\n",
	"url":       "kind: Resource\nname: crm\ntype: mcp\nenvironment: prod\nupstream: https://crm.example\ncredential: {header: X-Key, url: %q}\ntools: [{name: t, class: read}]\n",
	"token_url": "kind: Resource\nname: crm\ntype: mcp\nenvironment: prod\nupstream: https://crm.example\ncredential: {header: X-Key, oauth: {token_url: %q, client_id: c, client_secret: s}}\ntools: [{name: t, class: read}]\n",
	"bearer":    "kind: Resource\nname: crm\ntype: mcp\nenvironment: prod\nupstream: https://crm.example\nbinding: observe\nbearers: [{agent: payroll, issuer: https://i.example, subject: s, jwks_uri: %q}]\ntools: [{name: t, class: read}]\n",
	"upstream":  "kind: Resource\nname: crm\ntype: mcp\nenvironment: prod\nupstream: %q\ntools: [{name: t, class: read}]\n",
}

// TestWhereManifestsPoint is SS1 and SS3: whatever sends the server somewhere is refused
// when it is applied, in every spelling of a place that nobody opened. Beside it the
// same manifest with a public place is taken, and with an opened one.
func TestWhereManifestsPoint(t *testing.T) {
	t.Parallel()
	w, allow := strictly(t, "")
	allow()
	try := func(manifest, url string) []string {
		t.Helper()
		status, body := w.Admin(http.MethodPost, "/api/v1/apply", map[string]any{
			"files": []map[string]string{{"name": "test.yaml", "data": fmt.Sprintf(manifest, url)}}, "dry_run": true,
		})
		if status/100 == 5 {
			t.Fatalf("%s: %d %s", url, status, body)
		}
		return problemsIn(t, body)
	}
	never := []string{
		"https://169.254.169.254/latest", "https://[::ffff:169.254.169.254]/", "https://[64:ff9b::a9fe:a9fe]/", "https://[2002:a9fe:a9fe::]/", "https://[fe80::1]/", "https://[fd00:ec2::254]/",
		"https://100.100.100.200/", "https://168.63.129.16/", "https://0.0.0.0/", "https://[::]/", "https://224.0.0.1/", "https://255.255.255.255/",
		"https://metadata.google.internal/", "https://METADATA.google.internal./", "https://metadata/", "https://localhost./",
		"https://127.1/", "https://0x7f000001/", "https://2130706433/", "https://017700000001/", "https://0x7f.1/", "https://0177.0.0.1/", "https://127.0.0.1./", "https://１２７.0.0.1/",
		"https://u@crm.example/", "https://u:p@crm.example/", "https://crm.example@127.0.0.1/", "https://crm.example/#f", `https://crm.example\@127.0.0.1/`, "https://127.0.0.1%2ecrm.example/",
		"file:///etc/passwd", "gopher://crm.example:70/_", "ftp://crm.example/", "//crm.example/", "https:crm.example", "https://[fe80::1%25eth0]/", "unix:///run/x",
	}
	elsewhere := []string{
		"https://127.0.0.1/", "http://127.0.0.1:9/x", "https://localhost/", "http://localhost:9/", "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[::127.0.0.1]/",
		"https://10.0.0.7/", "https://192.168.0.1/", "https://172.16.0.1/", "https://100.64.0.1/", "https://198.18.0.1/", "https://[fd00::1]/", "https://[fec0::1]/",
		"https://[64:ff9b::7f00:1]/", "https://[64:ff9b::a00:7]/", "https://[64:ff9b:1::a00:7]/", "https://[2002:7f00:1::]/", "https://[2001:0:a00:7::f5ff:fff8]/", "http://crm.example/x",
	}
	for member, manifest := range sentOut {
		if problems := try(manifest, "https://out.example/x"); len(problems) > 0 {
			t.Fatalf("%s at a public place: %v", member, problems)
		}
		for _, url := range never {
			if len(try(manifest, url)) == 0 {
				t.Errorf("%s: %s is taken", member, url)
			}
		}
		for _, url := range elsewhere {
			private := member == "upstream" || (member == "url" || member == "token_url") && !strings.HasPrefix(url, "http://crm")
			if got := len(try(manifest, url)) == 0; got != private {
				t.Errorf("%s: %s: taken: %v", member, url, got)
			}
		}
	}
	allow("127.0.0.0/8", "10.0.0.0/24", "169.254.169.254/32")
	for member, manifest := range sentOut {
		for _, url := range []string{"https://10.0.0.7/x", "http://127.0.0.1:9/x", "http://localhost:9/x", "https://169.254.169.254/x"} {
			if problems := try(manifest, url); len(problems) > 0 {
				t.Errorf("%s: %s, which is opened: %v", member, url, problems)
			}
		}
		for _, url := range []string{"https://169.254.169.253/x", "https://[64:ff9b::a9fe:a9fe]/x", "https://metadata.google.internal/x", "https://127.1/x"} {
			if len(try(manifest, url)) == 0 {
				t.Errorf("%s: %s is taken beside what is opened", member, url)
			}
		}
	}
}

// TestKeysOfOthersAreFetchedCarefully is SS1 to SS4 at the keys of a transmitter: they are
// fetched from where the operator opened, and nowhere else; what comes is bounded.
func TestKeysOfOthersAreFetchedCarefully(t *testing.T) {
	t.Parallel()
	key := counterfoiltest.NewSigner(t, credential.ES256)
	good := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"keys":[%s]}`, key.Public().JWK()) }
	keys := newOutside(t, good)
	named := newOutside(t, good)
	leads.Store("keys.rebind.example", netip.MustParseAddr("127.0.0.1"))
	leads.Store("meta.rebind.example", netip.MustParseAddr("169.254.169.254"))
	transmitter := "kind: Transmitter\nname: %[1]s\nissuer: https://%[1]s.example\njwks_uri: %[2]q\n---\n"
	w, allow := strictly(t, fmt.Sprintf(transmitter, "idp", keys.URL)+fmt.Sprintf(transmitter, "named", named.named("keys.rebind.example"))+
		fmt.Sprintf(transmitter, "meta", named.named("meta.rebind.example"))+"kind: Person\nname: kim\nemail: kim@example.com\n")
	receive := func(name string) answer {
		t.Helper()
		w.Clock.Advance(11 * time.Minute) // what was fetched is forgotten, and so is what failed
		set := &jwt{
			Header: map[string]any{"alg": key.Public().Alg(), "typ": "secevent+jwt", "kid": key.Public().Thumbprint()},
			Claims: map[string]any{
				"iss": "https://" + name + ".example", "aud": w.Issuer(), "jti": counterfoil.NewID(""), "iat": w.Clock.Now().Unix(),
				"sub_id": map[string]any{"format": "email", "email": "nobody@example.com"}, "events": map[string]any{sessionRevoked: map[string]any{"event_timestamp": w.Clock.Now().Unix()}},
			},
			Signer: key,
		}
		return w.do(w.post(w.Issuer()+"/ssf/receive/"+name, "application/secevent+jwt", set.Compact(t)))
	}
	taken := func(what, name string, want bool) {
		t.Helper()
		if got := receive(name); (got.status == http.StatusAccepted) != want || !want && got.code != counterfoil.UpstreamUnavailable {
			t.Errorf("%s: %s", what, got)
		}
	}

	for _, list := range [][]string{nil, {"10.0.0.0/8"}, {"127.0.0.2/32"}, {"::1/128"}} {
		allow(list...)
		taken("SS1 this machine, which is not opened", "idp", false)
		taken("SS2 a name that leads here", "named", false)
		taken("SS2 a name that leads to metadata", "meta", false)
		if n := keys.came.Load() + named.came.Load(); n > 0 {
			t.Fatalf("with %v: %d connections", list, n)
		}
	}
	allow("127.0.0.1/32")
	taken("an opened place", "idp", true)
	if receive("named"); named.came.Load() == 0 { // nobody trusts its certificate, but it is asked
		t.Error("an opened place that a name leads to is not asked")
	}
	leads.Store("keys.rebind.example", netip.MustParseAddr("127.0.0.2")) // between two lookups
	before := named.came.Load()
	if taken("SS2 a name that leads elsewhere now", "named", false); named.came.Load() != before {
		t.Error("it is connected to once more")
	}

	bomb := gzipped(t, strings.Repeat("\x00", 32<<20))
	for name, answer := range map[string]http.HandlerFunc{
		"SS3 a redirect to elsewhere": func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Location", w.trap)
			rw.WriteHeader(http.StatusFound)
		},
		"SS3 a redirect to itself": func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Location", "/again")
			rw.WriteHeader(http.StatusTemporaryRedirect)
		},
		"SS4 slow": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"SS4 large": func(rw http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(rw, `{"keys":[%s],"x":%q}`, key.Public().JWK(), bytes.Repeat([]byte("x"), 64<<10))
		},
		"SS4 compressed": func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Encoding", "gzip")
			io.WriteString(rw, bomb)
		},
		"SS4 endless": func(rw http.ResponseWriter, r *http.Request) {
			for tick := time.Tick(10 * time.Millisecond); r.Context().Err() == nil; <-tick {
				fmt.Fprint(rw, " ")
				if http.NewResponseController(rw).Flush() != nil {
					return
				}
			}
		},
		"SS4 many headers": func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("X", strings.Repeat("x", 60<<10))
			good(rw, r)
		},
	} {
		keys.set(answer)
		taken(name, "idp", false)
		keys.set(good)
		taken(name+", its control", "idp", true)
	}
}

// TestReceiversOutside is SS1 and SS2 at what the server tells others: events that are
// pushed, and messages about approvals.
func TestReceiversOutside(t *testing.T) {
	t.Parallel()
	took := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }
	closed, opened := newOutside(t, took), newOutside(t, took)
	pushed := newOutside(t, took)
	leads.Store("hooks.rebind.example", netip.MustParseAddr("127.0.0.1"))
	secret := secretFile(t, "whsec_"+strings.Repeat("A", 43)+"=")
	hooks := []daemon.NotifyWebhook{{URL: opened.URL, SecretFile: secret}, {URL: closed.named("hooks.rebind.example"), SecretFile: secret}}
	w, allow := strictly(t, fmt.Sprintf(sentOut["push"], pushed.URL), func(c *daemon.Config) { c.Notify.Webhooks = hooks })

	hearer := w.actor("hearer")
	if got := w.sendOwn(hearer, http.MethodPost, "/ssf/streams", fmt.Sprintf(`{"delivery":{"method":"urn:ietf:rfc:8935","endpoint_url":%q}}`, pushed.URL)); got.status != http.StatusCreated {
		t.Fatalf("a stream: %s", got)
	}

	// A webhook that the configuration names at a place that is not opened stops the start.
	w.Stop()
	allowNone := func() (err error) {
		defer func() {
			if err == nil {
				w.Stop()
			}
		}()
		return w.TryStart()
	}
	if err := allowNone(); err == nil || !strings.Contains(err.Error(), "notify.webhooks[0].url") || !strings.Contains(err.Error(), "outbound.allow") {
		t.Errorf("a webhook at a place that is not opened: %v", err)
	}
	// A name says nothing of where it leads: that is judged when it is dialled.
	hooks = hooks[1:]
	allow()
	w.Suspend("auditor") // is told to whoever follows
	got := w.sendCall(w.callOf(w.payroll, "pay", `{"amount":100,"currency":"EUR","to":"acme"}`))
	if got.code != counterfoil.ApprovalRequired {
		t.Fatalf("asking: %s", got)
	}
	logged(t, w, "webhook 1", "this machine")
	logged(t, w, "pushing shared signals", "this machine")
	if n := closed.came.Load() + pushed.came.Load(); n > 0 {
		t.Errorf("%d connections to places that are not opened", n)
	}
	hooks = []daemon.NotifyWebhook{{URL: opened.URL, SecretFile: secret}}
	allow("127.0.0.0/8")
	if got := w.sendCall(w.callOf(w.payroll, "pay", `{"amount":101,"currency":"EUR","to":"acme"}`)); got.code != counterfoil.ApprovalRequired {
		t.Fatalf("asking: %s", got)
	}
	for what, o := range map[string]*outside{"approval.requested": opened, "ey": pushed} {
		select {
		case body := <-o.told:
			if !strings.Contains(body, what) {
				t.Errorf("told: %s", body)
			}
		case <-time.After(counterfoiltest.Timeout):
			t.Errorf("an opened place is not told (%s)", what)
		}
	}
}

// logged waits for a line of the log with all of it.
func logged(t *testing.T, w *world, parts ...string) {
	t.Helper()
	holds := func(line string) bool {
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) })
	}
	deadline := time.After(counterfoiltest.Timeout)
	for tick := time.Tick(10 * time.Millisecond); !slices.ContainsFunc(strings.Split(w.Log.String(), "\n"), holds); {
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("no line of the log has %q", parts)
		}
	}
}

// problemsIn returns what an apply says is wrong.
func problemsIn(t *testing.T, body []byte) []string {
	t.Helper()
	var result struct {
		Problems []string `json:"problems"`
	}
	if err := json.Unmarshal(body, &result); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return result.Problems
}

// secretFile writes a secret as a configuration names it.
func secretFile(t *testing.T, secret string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
