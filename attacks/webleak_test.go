package attacks

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// echoes are ways in which an upstream tells what it was shown. Each returns texts
// none of which an agent may see.
var echoes = map[string]func(secret string) []string{
	"plain":                 func(s string) []string { return []string{s} },
	"in JSON":               func(s string) []string { return []string{jsonText(s, func(rune) bool { return false })} },
	"in JSON, all escaped":  func(s string) []string { return []string{jsonText(s, func(rune) bool { return true })} },
	"in JSON, half escaped": func(s string) []string { return []string{jsonText(s, func(r rune) bool { return r%2 == 0 })} },
	"in JSON, with a slash": func(s string) []string {
		return []string{strings.ReplaceAll(jsonText(s, func(rune) bool { return false }), "/", `\/`)}
	},
	"in a URL":               func(s string) []string { return []string{url.QueryEscape(s), url.PathEscape(s)} },
	"in a URL, all escaped":  func(s string) []string { return []string{percent(s, "%%%02X"), percent(s, "%%%02x")} },
	"in base64":              func(s string) []string { return inBase64(base64.StdEncoding, s) },
	"in base64 of URLs":      func(s string) []string { return inBase64(base64.URLEncoding, s) },
	"in base64, not padded":  func(s string) []string { return inBase64(base64.RawStdEncoding, s) },
	"in base64 URL, no pads": func(s string) []string { return inBase64(base64.RawURLEncoding, s) },
}

// jsonText writes the inside of a JSON string.
func jsonText(s string, escape func(rune) bool) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case escape(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		case r == '"' || r == '\\':
			b.WriteString(`\` + string(r))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func percent(s, format string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, format, s[i])
	}
	return b.String()
}

// inBase64 are the three ways in which base64 can hold a text within another.
func inBase64(e *base64.Encoding, s string) []string {
	return []string{e.EncodeToString([]byte(s)), e.EncodeToString([]byte("x" + s + "y")), e.EncodeToString([]byte("xy" + s + "z")), e.EncodeToString([]byte("Bearer " + s))}
}

// secretInside reports in which way a text holds the secret, if it does: as it is, or
// after any of the encodings is undone.
func secretInside(text, secret string) string {
	for name, forms := range echoes {
		for _, f := range forms(secret) {
			// Of base64 what depends on neighbours says nothing by itself.
			if core := strings.Trim(f, "="); len(core) > 8 && strings.Contains(text, core[2:len(core)-4]) {
				return name
			}
		}
	}
	return ""
}

// TestAnUpstreamThatEchoes is LC1: whatever an upstream answers with, in whatever way it
// writes what it was shown, the agent sees none of it, and the ledger says that it
// happened.
func TestAnUpstreamThatEchoes(t *testing.T) {
	t.Parallel()
	// The control: what looks for the secret finds it, in each of the ways.
	for name, forms := range echoes {
		for _, f := range forms(webSecret) {
			if secretInside("<"+f+">", webSecret) == "" || secretInside("<"+strings.Repeat("*", len(f))+">", webSecret) != "" {
				t.Errorf("a text that holds the secret %s is not told from one that does not", name)
			}
		}
	}
	w := newWebWorld(t)
	var way, where string
	upstream := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		secret, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			http.Error(rw, "no credential", http.StatusUnauthorized)
			return
		}
		echo(rw, where, strings.Join(echoes[way](secret), " and "))
	}))
	t.Cleanup(upstream.Close)
	w.Apply(strings.Replace(fmt.Sprintf(webManifest, upstream.URL), "/api", "", 1))
	for way = range echoes {
		for _, where = range []string{"body", "chunks", "events", "header", "location", "cookie", "error", "reason", "server error", "trailer", "html"} {
			t.Run("LC1 "+way+", "+where, func(t *testing.T) {
				defer w.in(t)()
				w.Clock.Advance(time.Second)
				from := w.size()
				raw := w.rawAnswer(w.callWeb(http.MethodGet, "/things/7", ""))
				if found := secretInside(raw, webSecret); found != "" {
					t.Errorf("the agent saw the secret %s:\n%s", found, raw)
				}
				if !strings.HasPrefix(raw, "HTTP/1.1 ") || strings.HasPrefix(raw, "HTTP/1.1 401") {
					t.Fatalf("the call did not reach the upstream: %s", raw)
				}
				used, struck := 0, 0
				for _, e := range w.since(from) {
					switch e.Kind {
					case ledger.UpstreamCredentialUsed:
						used++
					case ledger.AnswerScrubbed:
						struck++
					}
				}
				// What is dropped as a whole need not be masked.
				if dropped := where == "cookie" || where == "trailer" || where == "reason" || where == "server error"; used != 1 || struck != 1 && !dropped {
					t.Errorf("%d entries of the credential's use and %d of its masking", used, struck)
				}
			})
		}
	}
	if found := secretInside(w.Log.String(), webSecret); found != "" {
		t.Errorf("the log holds the secret %s", found)
	}
	for _, e := range w.since(0) {
		b, err := ledger.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if found := secretInside(string(b), webSecret); found != "" {
			t.Errorf("entry %d (%s) holds the secret %s", e.Index, e.Kind, found)
		}
	}
	w.CheckLedger()
}

// echo answers with a text in a part of an answer.
func echo(rw http.ResponseWriter, where, text string) {
	h := rw.Header()
	oneLine := strings.NewReplacer("\r", "", "\n", "").Replace(text)
	switch where {
	case "body":
		h.Set("Content-Type", "application/json")
		fmt.Fprintf(rw, `{"debug":%q}`, text)
		io.WriteString(rw, text)
	case "chunks":
		h.Set("Content-Type", "text/plain")
		for _, b := range []byte("begin " + text + " end") {
			rw.Write([]byte{b})
			rw.(http.Flusher).Flush()
		}
	case "events":
		h.Set("Content-Type", "text/event-stream")
		fmt.Fprintf(rw, "id: 1\ndata: {\"a\":\"%s\"}\n\n", oneLine)
		rw.(http.Flusher).Flush()
		fmt.Fprintf(rw, "data: %s\n\n", oneLine)
	case "header":
		h.Set("X-Debug", oneLine)
		h.Set("Etag", `"`+oneLine+`"`)
		io.WriteString(rw, "{}")
	case "location":
		h.Set("Location", "https://elsewhere.example/?token="+oneLine)
		rw.WriteHeader(http.StatusFound)
	case "cookie":
		h.Set("Set-Cookie", "token="+oneLine)
		io.WriteString(rw, "{}")
	case "error":
		http.Error(rw, "bad request: "+text, http.StatusBadRequest)
	case "server error":
		http.Error(rw, "panic: "+text, http.StatusInternalServerError)
	case "reason":
		conn, buf, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(buf, "HTTP/1.1 400 %s\r\nContent-Length: 0\r\n\r\n", oneLine)
		buf.Flush()
	case "trailer":
		h.Set("Trailer", "X-Debug")
		io.WriteString(rw, "{}")
		h.Set("X-Debug", oneLine)
	case "html":
		h.Set("Content-Type", "text/html")
		fmt.Fprintf(rw, "<html><!-- %s --><a href=\"?t=%s\">x</a></html>", text, text)
	}
}

// rawAnswer sends a call and returns every byte that came back.
func (w *world) rawAnswer(q *call) string {
	w.T.Helper()
	x := w.wire(q)
	if q.body == "" {
		x.set("Content-Length", "-")
	}
	u, err := url.Parse(w.Issuer())
	if err != nil {
		w.T.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		w.T.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(counterfoiltest.Timeout)); err != nil {
		w.T.Fatal(err)
	}
	if _, err := io.WriteString(conn, x.bytes()); err != nil {
		w.T.Fatal(err)
	}
	all, err := io.ReadAll(conn)
	if err != nil {
		w.T.Fatal(err)
	}
	// Framing must not hide what the agent's library puts together.
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(all)), nil)
	if err != nil {
		w.T.Fatalf("%v: %q", err, all)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.T.Fatalf("%v: %q", err, all)
	}
	return string(all) + "\n" + string(body)
}

// TestACredentialStaysWithItsHost is LC3 and LC4: an upstream is shown its own secret
// and nothing of the agent's, and where it points to nobody goes.
func TestACredentialStaysWithItsHost(t *testing.T) {
	t.Parallel()
	w := newWebWorld(t)
	token := w.callWeb(http.MethodGet, "/things/7", "").token
	for _, status := range []int{301, 302, 303, 307, 308} {
		w.tap.plain = func(tapped) string {
			return fmt.Sprintf("HTTP/1.1 %d Moved\r\nLocation: %s/stolen\r\nContent-Length: 0\r\n\r\n", status, w.trap)
		}
		w.Clock.Advance(time.Second)
		for _, q := range []*call{w.callWeb(http.MethodGet, "/things/7", ""), w.callWeb(http.MethodPost, "/things/7", `{"url":"`+w.trap+`"}`)} {
			got := w.sendCall(q)
			if got.status != status || got.header.Get("Location") != w.trap+"/stolen" {
				t.Errorf("LC4 %s: a redirect of %d was answered with %s", q.method, status, got)
			}
			reached := w.seen()
			if len(reached) != 1 {
				t.Fatalf("the upstream saw %q", reached)
			}
			shown := false
			for _, f := range reached[0].fields {
				shown = shown || strings.EqualFold(f, "Authorization: Bearer "+webSecret)
				if strings.Contains(f, token) || strings.Contains(f, "DPoP") || strings.Contains(strings.ToLower(f), "dpop:") {
					t.Errorf("LC3: the upstream saw %q", f)
				}
			}
			if !shown {
				t.Errorf("the upstream was not shown its own credential: %q", reached[0].fields)
			}
		}
	}
	if n := w.visits.Load(); n != 0 {
		t.Errorf("LC4: the attacker's server had %d visits", n)
	}
	// Its own redirects lead back through the gateway.
	own := strings.TrimSuffix(w.tap.url, "/mcp") + "/api/things/8"
	w.tap.plain = func(tapped) string { return "HTTP/1.1 302 Found\r\nLocation: " + own + "\r\nContent-Length: 0\r\n\r\n" }
	if got := w.sendCall(w.callWeb(http.MethodGet, "/things/7", "")); got.header.Get("Location") != w.webURL()+"/things/8" {
		t.Errorf("a redirect of its own: %s", got)
	}
	w.seen()
	w.CheckLedger()
}
