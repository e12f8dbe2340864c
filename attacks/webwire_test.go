package attacks

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// webFields are what an HTTP API may see of a call beside its credential.
var webFields = []string{"host", "user-agent", "content-length", "accept", "accept-encoding", "content-type", "content-digest", "authorization"}

// TestSmugglingToAnAPI is TP13 and TP14 for HTTP resources: whatever the bytes of a
// connection are, the API sees one well-formed request or none.
func TestSmugglingToAnAPI(t *testing.T) {
	t.Parallel()
	w := newWebWorld(t)
	upstream := strings.TrimSuffix(w.tap.url, "/mcp")
	shapes := bentRequests(upstream+"/mcp", "/r/web/things/7")
	if len(shapes) < 37 {
		t.Fatalf("there are %d shapes", len(shapes))
	}
	for _, tc := range shapes {
		t.Run(tc.row+" "+tc.name, func(t *testing.T) {
			defer w.in(t)()
			w.tap.t = t
			w.Clock.Advance(time.Second)
			if got := w.sendCall(w.callWeb(http.MethodPost, "/things/7", `{"control":1}`)); !got.passed() || len(w.seen()) != 1 {
				t.Fatalf("the request without the attack: %s", got)
			}
			x := w.wire(w.callWeb(http.MethodPost, "/things/7", `{"attack":1}`))
			tc.bend(x)
			answers := w.sendWire(x)
			got := w.seen()
			if tc.reaches && (len(answers) == 0 || !answers[0].passed() || len(got) != 1) {
				t.Fatalf("answered %v, the upstream saw %q", answers, got)
			}
			if len(got) > 1 {
				t.Errorf("the upstream saw %d requests: %q", len(got), got)
			}
			for _, a := range answers {
				if len(got) == 0 && a.passed() || a.status >= 500 && a.status != http.StatusNotImplemented && a.status != http.StatusHTTPVersionNotSupported {
					t.Errorf("answered %s", a)
				}
			}
			for _, a := range answers[min(1, len(answers)):] {
				if a.status < 400 {
					t.Errorf("a second answer: %s", a)
				}
			}
			for _, r := range got {
				// Without a length the request has no body; what follows it is nobody's.
				bodyless := tc.name == "no Content-Length" && r.body == ""
				if r.line != "POST /api/things/7 HTTP/1.1" || r.body != `{"attack":1}` && !bodyless {
					t.Errorf("the upstream saw %q", r)
				}
				for _, f := range r.fields {
					name, value, _ := strings.Cut(f, ": ")
					if !slices.Contains(webFields, strings.ToLower(name)) {
						t.Errorf("the upstream saw the field %s: %s", name, value)
					}
					if strings.EqualFold(name, "authorization") && value != "Bearer "+webSecret {
						t.Errorf("the upstream saw the credential %q", value)
					}
				}
			}
		})
	}
	w.tap.t = t
	w.CheckLedger()
}

// TestPathsOfAnAPI is TP11 below an HTTP resource: a path that two servers could read
// as two is refused before anybody is asked.
func TestPathsOfAnAPI(t *testing.T) {
	t.Parallel()
	w := newWebWorld(t)
	var attacks []string
	for _, p := range paths {
		switch p.name {
		case "a suffix", "a star", "a tilde", "something below":
			continue // other things, spelled as they are
		}
		attacks = append(attacks, strings.ReplaceAll(fmt.Sprintf(p.format, "r/web/things/7"), "HOST", strings.TrimPrefix(w.Issuer(), "http://")))
	}
	for _, id := range []string{
		"", ".", "..", "...", "%2e", "%2E%2e", ".%2e", "7.", "7%20", "%207", "a/../b", "a%2fb", "a%2Fb", "a%5cb", `a\b`, "a%5Cb", "7;x=1", "7%3bx=1", "7%3B", ";", "a%00", "%00", "a%0a",
		"a%0d%0aX-A:1", "%7f", "%09", "a%25b", "%252e%252e", "%2500", "7%3fx=1", "7%3Fx", "7%23x", "7#x", "%zz", "%2", "%", "%u002f", "%c0%af", "%c0%ae%c0%ae", "%ff", "%ed%a0%80", "\u00e9", "%e9",
		"%61", "%7E", "%2D", "%c3%a9", "a b", "a\tb", "a%c2%85", "a%e2%80%ae",
	} {
		attacks = append(attacks, "/r/web/things/"+id)
	}
	if len(attacks) < 60 {
		t.Fatalf("the corpus has %d paths", len(attacks))
	}
	for _, target := range attacks {
		t.Run(fmt.Sprintf("TP11 %q", target), func(t *testing.T) {
			defer w.in(t)()
			w.tap.t = t
			w.Clock.Advance(time.Second / 10)
			if got := w.honestGet(); !got.passed() {
				t.Fatalf("the canonical path: %s", got)
			}
			w.seen()
			from := w.size()
			path, _, _ := strings.Cut(strings.TrimPrefix(target, "/r/web"), "?")
			got := w.sendTarget(w.callWeb(http.MethodGet, "/things/7", ""), target)
			// A slash at the end is spelled in one way, too, and is another URL.
			other := strings.HasSuffix(path, "/") && got.code == counterfoil.ProofTarget
			if got.status != 400 && got.status != 404 && got.status != 421 && !other {
				t.Errorf("got %s", got)
			}
			w.wantNothing(from)
			// With a proof for that very URL it is refused as well: not for the proof.
			q := w.callWeb(http.MethodGet, "/things/7", "")
			q.proof.Claims["htu"] = w.webURL() + path
			if got := w.sendTarget(q, target); got.status != 400 && got.status != 404 && got.status != 421 {
				t.Errorf("with a proof for it: %s", got)
			}
			w.wantNothing(from)
		})
	}
	// The controls: segments that say more than letters, and reach the API as they are.
	for id, want := range map[string]string{
		"7": "7", "a-b_c.d~e": "a-b_c.d~e", "a:b@c": "a:b@c", "a%40b": "a%40b", "%C3%A9": "%C3%A9", "a%20b": "a%20b", "(1)": "(1)", "$1,2": "$1,2", "a+b": "a+b", "a%2Bb": "a%2Bb", "x=y&z": "x=y&z", "'q'!*": "'q'!*",
	} {
		t.Run("TP11 control "+id, func(t *testing.T) {
			defer w.in(t)()
			w.tap.t = t
			w.Clock.Advance(time.Second)
			q := w.callWeb(http.MethodGet, "/things/7", "")
			q.proof.Claims["htu"] = w.webURL() + "/things/" + id
			got := w.sendTarget(q, "/r/web/things/"+id)
			reached := w.seen()
			if !got.passed() || len(reached) != 1 || reached[0].line != "GET /api/things/"+want+" HTTP/1.1" {
				t.Errorf("answered %s, the upstream saw %q", got, reached)
			}
		})
	}
	w.tap.t = t
	w.CheckLedger()
}
