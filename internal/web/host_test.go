package web_test

import (
	"net/http"
	"strings"
	"testing"
)

// TestOnlyItsOwnHost: a page whose name was rebound to our address speaks to us
// under that name (threat: DNS rebinding), on the listeners that browsers reach.
func TestOnlyItsOwnHost(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	own := strings.TrimPrefix(s.issuer, "http://")
	port := own[strings.LastIndex(own, ":"):]
	for _, c := range []struct {
		name, host, upgrade string
		taken               bool
	}{
		{"its own", own, "", true},
		{"upper case", strings.ToUpper(own), "", true},
		{"loopback by number", "127.0.0.1" + port, "", true},
		{"localhost", "localhost" + port, "", true},
		{"another name", "evil.example" + port, "", false},
		{"another name, no port", "evil.example", "", false},
		{"another port", "127.0.0.1:1", "", false},
		{"a name that begins with it", own + ".evil.example", "", false},
		{"an upgrade", own, "h2c", false},
	} {
		req, err := http.NewRequest(http.MethodGet, s.issuer+"/.well-known/oauth-authorization-server", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		if c.upgrade != "" {
			req.Header.Set("Upgrade", c.upgrade)
			req.Header.Set("Connection", "Upgrade")
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		want := http.StatusOK
		if !c.taken {
			want = http.StatusBadRequest
		}
		if resp.StatusCode != want {
			t.Errorf("%s: HTTP %d, want %d", c.name, resp.StatusCode, want)
		}
	}
}
