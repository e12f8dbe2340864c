package web_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/web"
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
		{"a loopback name under a mapped port", "127.0.0.1:1", "", true},
		{"another port of its name", "evil.example:1", "", false},
		{"a name that begins with it", "127.0.0.1.evil.example" + port, "", false},
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

// TestOnlyAProxyThatSaysForWhom: a browser on the proxy's machine has the proxy's
// address, and cannot say for whom it asks without being taken for a proxy's
// client.
func TestOnlyAProxyThatSaysForWhom(t *testing.T) {
	t.Parallel()
	behind := web.Behind([]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")})
	for _, c := range []struct {
		name, peer, forwarded string
		want                  bool
	}{
		{"the proxy", "127.0.0.1:5000", "203.0.113.9", true},
		{"a browser on its machine", "127.0.0.1:5000", "", false},
		{"somebody else", "203.0.113.9:5000", "203.0.113.9", false},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = c.peer
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		if got := behind(r); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestABodyThatDoesNotComeHoldsNothing: also where the body is never read, the
// deadline is there, because net/http reads the rest before it answers.
func TestABodyThatDoesNotComeHoldsNothing(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	for _, c := range []struct{ name, path, body string }{
		{"an unknown path", "/nothing", "x"},
		{"a wrong type", "/oauth/token", "x"},
		{"below the gateway's prefix", "/r/bank", "x"},
	} {
		for _, body := range []string{"", c.body} {
			w := &deadlines{ResponseWriter: httptest.NewRecorder()}
			r := httptest.NewRequest(http.MethodPost, c.path, strings.NewReader(body))
			s.handlers.Public.ServeHTTP(w, r)
			if w.set != (body != "") {
				t.Errorf("%s with %d bytes: a deadline %v", c.name, len(body), w.set)
			}
		}
	}
}

// deadlines is a writer of a connection that notes its read deadline.
type deadlines struct {
	http.ResponseWriter
	set bool
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.set = !t.IsZero()
	return nil
}
