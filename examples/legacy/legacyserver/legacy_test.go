package legacyserver_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil/examples/legacy/legacyserver"
)

const token = "legacy-4f9d2c81-7b60-example"

// TestEchoes: each kind of answer holds the token that it was called with, in a body or
// in a header. What contains the API is held against this.
func TestEchoes(t *testing.T) {
	t.Parallel()
	api := legacyserver.New(token)
	srv := httptest.NewServer(api.Handler())
	t.Cleanup(srv.Close)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	do := func(method, path, with string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+with)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(b)
	}
	for path, status := range map[string]int{
		"GET /customers/7": 200, "GET /customers/7/events": 200, "POST /customers/8/password": 200,
		"GET /customers/9": 404, "GET /clients/7": 302, "GET /report": 500,
	} {
		method, path, _ := strings.Cut(path, " ")
		res, body := do(method, path, token)
		if res.StatusCode != status || !strings.Contains(body, token) || res.Header.Get("X-Echo-Authorization") != "Bearer "+token {
			t.Errorf("%s %s: %s %v %s", method, path, res.Status, res.Header, body)
		}
		if status == 302 && !strings.Contains(res.Header.Get("Location"), token) {
			t.Errorf("it redirects to %s", res.Header.Get("Location"))
		}
	}
	if got := api.Resets(); len(got) != 1 || got[0] != "8" {
		t.Errorf("passwords that were reset: %q", got)
	}
	if res, body := do("GET", "/customers/7", "another"); res.StatusCode != 401 || strings.Contains(body, "Lovelace") {
		t.Errorf("without the token: %s %s", res.Status, body)
	}
	if api.Calls() != 6 {
		t.Errorf("%d calls", api.Calls())
	}
}
