package authz_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authz"
)

// FuzzForwardedURI: what is asked about is what the proxy said, behind the resource's
// public URL: nothing is decoded, cleaned or cut off on the way to the judge.
func FuzzForwardedURI(f *testing.F) {
	for _, s := range []string{
		"/crm/customers/7?a=1", "/crm/", "/crm", "/crm/?", "/crm/a??b", "/crm/a%3fb", "//crm/a", "/crm//a/../b", "/crm-2/a", "*", "", "http://a/crm/b", "/crm/a#b", "/crm/\\", "/crm/\x00", "/crm/é",
	} {
		f.Add("GET", s)
	}
	j := &judge{answer: allowed}
	h, err := authz.New(authz.Config{
		Judge: j, PublicURL: "https://agents.example.com",
		Resource: func(name string) *counterfoil.Resource {
			return &counterfoil.Resource{Name: name, PublicURL: "https://api.example.com/crm"}
		},
		Trusted: func(*http.Request) bool { return true },
		Source:  func(*http.Request) netip.Addr { return netip.Addr{} },
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, method, uri string) {
		r := httptest.NewRequest(http.MethodGet, "/forward-auth/crm", nil)
		r.Header = http.Header{"X-Forwarded-Method": {method}, "X-Forwarded-Uri": {uri}}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		asked := j.take()
		if w.Code != http.StatusOK {
			if len(asked) > 0 || w.Code != http.StatusForbidden {
				t.Fatalf("%q: got %d with %d questions", uri, w.Code, len(asked))
			}
			return
		}
		if len(asked) != 1 {
			t.Fatalf("%q: %d questions", uri, len(asked))
		}
		q := asked[0]
		said := "/crm" + q.Path
		if q.Query != "" || strings.HasSuffix(uri, "?") {
			said += "?" + q.Query
		}
		if said != strings.TrimSpace(uri) || q.Method != strings.TrimSpace(method) || !strings.HasPrefix(q.Path, "/") {
			t.Fatalf("%s %q was asked about as %+v", method, uri, q)
		}
	})
}
