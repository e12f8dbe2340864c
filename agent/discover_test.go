package agent_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/counterfoil/counterfoil/agent"
)

// A place is a server that knows nothing but a resource and its metadata.
type place struct {
	*httptest.Server
	challenge string // of the resource's 401; without one it answers 405
	documents map[string]string

	mu    sync.Mutex
	asked []string
}

// newPlace serves what set makes of its own URL.
func newPlace(t *testing.T, set func(p *place, base string)) *place {
	p := &place{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asked = append(p.asked, r.Method+" "+r.URL.Path)
		if len(r.Header["Authorization"])+len(r.Header["Dpop"]) > 0 {
			t.Errorf("%s has credentials", r.URL)
		}
		document, known := p.documents[r.URL.Path]
		switch {
		case known && strings.HasPrefix(document, "http://"):
			http.Redirect(w, r, document, http.StatusFound)
		case known:
			fmt.Fprint(w, document)
		case r.URL.Path == "/r/bank" && p.challenge != "":
			w.Header().Set("WWW-Authenticate", p.challenge)
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/r/bank":
			w.WriteHeader(http.StatusMethodNotAllowed)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(p.Close)
	set(p, p.URL)
	return p
}

func describes(resource string, issuers ...string) string {
	return fmt.Sprintf(`{"resource":%q,"authorization_servers":["%s"],"scopes_supported":["pay"],"bearer_methods_supported":["header"]}`,
		resource, strings.Join(issuers, `","`))
}

// TestDiscover: where a resource's metadata is found, and that other metadata
// than the resource's own is not used, each beside the same without the wrong.
func TestDiscover(t *testing.T) {
	t.Parallel()
	const wellKnown = "/.well-known/oauth-protected-resource"
	const issuer = "https://id.example.com"
	challenged := func(param string) string { return `Bearer, DPoP algs="ES256", resource_metadata="` + param + `"` }
	for _, tt := range []struct {
		name string
		set  func(p *place, base string)
		want string // in the error; empty when it is found
	}{
		{"at the resource's path", func(p *place, base string) {
			p.documents = map[string]string{wellKnown + "/r/bank": describes(base+"/r/bank", issuer)}
		}, ""},
		{"at the host's root", func(p *place, base string) {
			p.documents = map[string]string{wellKnown: describes(base+"/r/bank", issuer)}
		}, ""},
		{"where the challenge says", func(p *place, base string) {
			p.challenge = challenged(base + "/elsewhere")
			p.documents = map[string]string{"/elsewhere": describes(base+"/r/bank", issuer)}
		}, ""},
		{"where a Bearer challenge says", func(p *place, base string) {
			p.challenge = `Bearer resource_metadata="` + base + `/elsewhere"`
			p.documents = map[string]string{"/elsewhere": describes(base+"/r/bank", issuer)}
		}, ""},
		{"a challenge that says nothing of it", func(p *place, base string) {
			p.challenge = `DPoP algs="ES256"`
			p.documents = map[string]string{wellKnown + "/r/bank": describes(base+"/r/bank", issuer)}
		}, ""},

		{"nowhere", func(*place, string) {}, "404"},
		{"not where the challenge says, but at the path", func(p *place, base string) {
			p.challenge = challenged(base + "/elsewhere")
			p.documents = map[string]string{wellKnown + "/r/bank": describes(base+"/r/bank", issuer)}
		}, "404"},
		{"of another resource", func(p *place, base string) {
			p.documents = map[string]string{wellKnown + "/r/bank": describes(base+"/r/crm", issuer)}
		}, "is of the resource"},
		{"of the resource with a slash", func(p *place, base string) {
			p.documents = map[string]string{wellKnown + "/r/bank": describes(base+"/r/bank/", issuer)}
		}, "is of the resource"},
		{"of another resource, where the challenge says", func(p *place, base string) {
			p.challenge = challenged(base + wellKnown + "/r/crm")
			p.documents = map[string]string{wellKnown + "/r/crm": describes(base+"/r/crm", issuer)}
		}, "is of the resource"},
		{"on another host, says the challenge", func(p *place, base string) {
			p.challenge = challenged("http://127.0.0.1:1/elsewhere")
			p.documents = map[string]string{wellKnown + "/r/bank": describes(base+"/r/bank", issuer)}
		}, "not its own host"},
		{"without TLS, says the challenge", func(p *place, _ string) {
			p.challenge = challenged("http://169.254.169.254/latest")
		}, "not its own host"},
		{"a redirect", func(p *place, base string) {
			p.documents = map[string]string{
				wellKnown + "/r/bank": base + "/elsewhere", "/elsewhere": describes(base+"/r/bank", issuer),
			}
		}, "404"},
		{"no issuer", func(p *place, base string) {
			p.documents = map[string]string{wellKnown + "/r/bank": fmt.Sprintf(`{"resource":%q}`, base+"/r/bank")}
		}, "no issuer"},
		{"an issuer without TLS", func(p *place, base string) {
			p.documents = map[string]string{wellKnown + "/r/bank": describes(base+"/r/bank", issuer, "http://id.example.com")}
		}, "https"},
		{"two resources", func(p *place, base string) {
			p.documents = map[string]string{wellKnown + "/r/bank": `{"resource":"x",` + describes(base+"/r/bank", issuer)[1:]}
		}, "resource"},
		{"no JSON", func(p *place, _ string) {
			p.documents = map[string]string{wellKnown + "/r/bank": "<html>"}
		}, "reading its metadata"},
		{"too much of it", func(p *place, base string) {
			p.documents = map[string]string{wellKnown + "/r/bank": strings.Repeat(" ", 1<<20) + describes(base+"/r/bank", issuer)}
		}, "larger"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, tt.set)
			info, err := agent.Discover(t.Context(), p.URL+"/r/bank", p.Client())
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) || info.Resource != "" || info.Issuers != nil {
					t.Errorf("%+v, %v; want %q", info, err, tt.want)
				}
				return
			}
			if err != nil || info.Resource != p.URL+"/r/bank" || len(info.Issuers) != 1 || info.Issuers[0] != issuer || len(info.Scopes) != 1 {
				t.Errorf("%+v, %v after %q", info, err, p.asked)
			}
			for _, a := range p.asked {
				if !strings.HasPrefix(a, "GET ") {
					t.Errorf("%s may have an effect", a)
				}
			}
		})
	}
	for _, resource := range []string{"", "/r/bank", "http://gateway.example.com/r/bank", "https://a/r?x", "https://u@a/r"} {
		if _, err := agent.Discover(t.Context(), resource, nil); err == nil {
			t.Errorf("%q was asked", resource)
		}
	}
}
