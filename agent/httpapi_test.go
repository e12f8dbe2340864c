package agent_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil/agent"
)

// TestRedirectsOfAnHTTPAPI: an API below the resource's URL has redirects of its own,
// which come as answers; whoever follows one makes another request, with a proof of its
// own. At the resource's URL itself there is none.
func TestRedirectsOfAnHTTPAPI(t *testing.T) {
	t.Parallel()
	w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/r/bank/clients/7":
			http.Redirect(rw, r, "/r/bank/customers/7?from=clients", http.StatusSeeOther)
		case "/r/bank/customers/7":
			_, _ = io.WriteString(rw, "customer "+r.URL.RawQuery)
		default:
			http.Redirect(rw, r, "/r/bank/customers/7", http.StatusFound)
		}
	}))
	tr := w.transport()
	status, _, header := do(t, tr.Client(), "GET", w.resource+"/clients/7", "")
	if status != http.StatusSeeOther || header.Get("Location") != "/r/bank/customers/7?from=clients" {
		t.Errorf("%d %v", status, header)
	}
	if status, body, _ := do(t, &http.Client{Transport: tr}, "POST", w.resource+"/clients/7", "{}"); status != 200 || body != "customer from=clients" {
		t.Errorf("followed: %d %s", status, body)
	}
	for _, at := range []string{w.resource, w.resource + "/", w.resource + "?x=1", strings.Replace(w.resource, "bank", "bankers/1", 1)} {
		if _, _, _, err := try(t, tr.Client(), "GET", at, ""); err == nil || !strings.Contains(err.Error(), "redirect") {
			t.Errorf("%s: %v", at, err)
		}
	}
}

// TestConnectorServesAnHTTPAPI: places below the resource are places below the
// connector; others stay what they are.
func TestConnectorServesAnHTTPAPI(t *testing.T) {
	t.Parallel()
	w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		at, _ := io.ReadAll(r.Body)
		rw.Header().Set("Location", string(at))
		rw.Header().Set("Content-Location", string(at))
		rw.WriteHeader(http.StatusCreated)
	}))
	url := serve(t, w.connector(), listen(t))
	below := url[strings.Index(url[len("http://"):], "/")+len("http://"):] // "/SECRET/"
	for _, tt := range [][2]string{
		{"/r/bank/customers/7", below + "customers/7"},
		{w.resource + "/customers/7?a=1#b", below + "customers/7?a=1#b"},
		{"7", below + "customers/7"},
		{"/r/bank/a%20b", below + "a%20b"},
		{"/r/bankers/7", "/r/bankers/7"},
		{"/r/bank", "/r/bank"},
		{"/r/bank/../crm/7", "/r/bank/../crm/7"},
		{"https://elsewhere.example/r/bank/7", "https://elsewhere.example/r/bank/7"},
		{strings.Replace(w.resource, "http://", "http://u:p@", 1) + "/7", strings.Replace(w.resource, "http://", "http://u:p@", 1) + "/7"},
	} {
		status, _, header := do(t, client(t, nil), "POST", url+"customers/", tt[0])
		if status != http.StatusCreated || header.Get("Location") != tt[1] || header.Get("Content-Location") != tt[1] {
			t.Errorf("%s: %d %v, want %s", tt[0], status, header, tt[1])
		}
	}
}

// TestConnectorPassesNamedHeaders: beside the headers of any call those that the
// configuration names, which is never a credential or a connection's own.
func TestConnectorPassesNamedHeaders(t *testing.T) {
	t.Parallel()
	got := make(chan http.Header, 1)
	w := newWorld(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Clone() }))
	c, err := agent.NewConnector(agent.ConnectorConfig{Transport: w.transport(), Headers: []string{"x-tenant"}})
	if err != nil {
		t.Fatal(err)
	}
	passed := []string{"X-Tenant", "7", "If-Match", `"a"`, "Range", "bytes=0-9", "Prefer", "respond-async", "Accept-Language", "de", "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	held := []string{"X-Other", "8", "Cookie", "c=1", "X-Http-Method-Override", "DELETE"}
	do(t, client(t, nil), "PUT", serve(t, c, listen(t))+"customers/7", "{}", slices.Concat(passed, held)...)
	header := <-got
	for i := 0; i < len(passed); i += 2 {
		if header.Get(passed[i]) != passed[i+1] {
			t.Errorf("%s: %q", passed[i], header.Values(passed[i]))
		}
	}
	for i := 0; i < len(held); i += 2 {
		if v := header.Values(held[i]); len(v) > 0 {
			t.Errorf("%s: %q", held[i], v)
		}
	}
	for _, name := range []string{"", "a b", "a:", "ä", "authorization", "DPoP", "cookie", "Host", "X-Forwarded-For", "Transfer-Encoding", "Content-Length", "X-HTTP-Method-Override"} {
		if _, err := agent.NewConnector(agent.ConnectorConfig{Transport: w.transport(), Headers: []string{name}}); err == nil {
			t.Errorf("the header %q is taken", name)
		}
	}
}
