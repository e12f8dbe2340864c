package attacks

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// TestAnUpstreamThatEchoesInParts is LC1 for an agent that asks for parts: no two answers
// hold a half of the secret each, where no mask would find it. Without a credential
// there is nothing to be found, and parts are what they are.
func TestAnUpstreamThatEchoesInParts(t *testing.T) {
	t.Parallel()
	w := newWebWorld(t)
	unasked := false
	upstream := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		secret := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if unasked {
			r.Header.Set("Range", r.URL.Query().Get("part"))
		}
		rw.Header().Set("Etag", `"1"`)
		http.ServeContent(rw, r, "debug.txt", time.Time{}, strings.NewReader(fmt.Sprintf("begin [%32s] end", secret)))
	}))
	t.Cleanup(upstream.Close)
	manifest := strings.Replace(fmt.Sprintf(webManifest, upstream.URL), "/api", "", 1)
	get := func(query string, header ...string) (answer, string) {
		w.T.Helper()
		w.Clock.Advance(time.Second)
		q := w.callWeb(http.MethodGet, "/things/7"+query, "")
		for i := 0; i < len(header); i += 2 {
			q.header[header[i]] = []string{header[i+1]}
		}
		got := w.sendCall(q)
		return got, string(got.body)
	}
	const first, second = "bytes=0-19", "bytes=20-60"

	w.Apply(manifest)
	for _, headers := range [][]string{{"Range"}, {"range"}, {"Request-Range"}, {"Range", "If-Range"}} {
		var whole strings.Builder
		for _, part := range []string{first, second, "bytes=0-9,20-29"} {
			var set []string
			for _, name := range headers {
				set = append(set, name, map[bool]string{true: `"1"`, false: part}[name == "If-Range"])
			}
			got, body := get("", set...)
			if got.status != 200 || !strings.Contains(body, "begin [") || !strings.Contains(body, "] end") {
				t.Errorf("LC1 %v %s: answered %s: %q", headers, part, got, body)
			}
			if got.header.Get("Accept-Ranges") != "" {
				t.Errorf("LC1 the answer says that there are parts: %v", got.header)
			}
			whole.WriteString(body)
		}
		if found := secretInside(whole.String(), webSecret); found != "" || strings.Contains(whole.String(), webSecret[:8]) || strings.Contains(whole.String(), webSecret[len(webSecret)-8:]) {
			t.Errorf("LC1 %v: the agent has the secret, or a part of it: %q", headers, whole.String())
		}
	}
	// An upstream that is asked for a part in another way gives none away either.
	unasked = true
	for _, part := range []string{first, "bytes=0-9,20-29"} {
		got, body := get("?part=" + strings.NewReplacer("=", "%3D", ",", "%2C").Replace(part))
		if got.status != 502 || got.code != counterfoil.UpstreamUnavailable || strings.Contains(body, webSecret[:4]) {
			t.Errorf("LC1 a part that nobody asked for: %s: %q", got, body)
		}
	}
	unasked = false

	line := "credential: {header: Authorization, prefix: \"Bearer \", file: web-token}\n"
	if !strings.Contains(manifest, line) {
		t.Fatal("the manifest has another credential")
	}
	w.Apply(strings.Replace(manifest, line, "", 1))
	if got, body := get("", "Range", first); got.status != 206 || body != fmt.Sprintf("begin [%32s] end", "")[:20] {
		t.Errorf("the control: a part of what holds no secret: %s: %q", got, body)
	}
	w.CheckLedger()
}

// TestOperationsOfAnAPI is TP11 for a server that routes what follows a name to that
// name's own action: no spelling of another operation is a call of the tool whose
// variable covers it.
func TestOperationsOfAnAPI(t *testing.T) {
	t.Parallel()
	w := newWebWorld(t)
	const tools = "  - {name: list, method: GET, path: /things, class: write}\n"
	manifest := fmt.Sprintf(webManifest, strings.TrimSuffix(w.tap.url, "/mcp")+"/api")
	if !strings.Contains(manifest, tools) {
		t.Fatal("the manifest has other tools")
	}
	w.Apply("kind: Class\nname: never\ntier: forbidden\n---\n" + strings.Replace(manifest, tools, tools+
		"  - {name: export, method: GET, path: /things/export, class: never}\n"+
		"  - {name: dump, method: GET, path: /things/dump}\n"+
		"  - {name: void, method: POST, path: \"/things/{id}:void\"}\n", 1))
	malformed, unknown, never := want{status: 400, code: counterfoil.RequestMalformed}, want{status: 404, code: counterfoil.ToolUnknown}, want{status: 403, code: counterfoil.ClassForbidden}
	for _, tc := range []struct {
		method, path string
		want         want
	}{
		{"GET", "/things/export", never}, {"GET", "/things/export.json", malformed}, {"GET", "/things/Export", malformed}, {"GET", "/things/export,1", malformed}, {"GET", "/things/export%3Arun", malformed},
		{"GET", "/things/export@1", malformed}, {"GET", "/things/dump", unknown}, {"GET", "/things/DUMP", unknown}, {"GET", "/things/dump.json", unknown}, {"POST", "/things/7:void", unknown},
		{"POST", "/things/7%3Avoid", unknown}, {"GET", "/things/7:cancel", malformed}, {"POST", "/things/7:cancel", malformed},
		{"GET", "/things/exported", passes}, {"GET", "/things/7", passes}, {"GET", "/things/urn:x:1", passes}, {"GET", "/things/dump-1", passes}, {"POST", "/things/7", passes}, {"GET", "/things/a.json", passes},
	} {
		t.Run("TP11 "+tc.method+" "+tc.path, func(t *testing.T) {
			defer w.in(t)()
			w.tap.t = t
			w.Clock.Advance(time.Second)
			body := ""
			if tc.method == http.MethodPost {
				body = "{}"
			}
			q := w.callWeb(tc.method, "/things/7", body)
			q.proof.Claims["htu"] = w.webURL() + tc.path
			from := w.size()
			tc.want.check(t, w.sendTarget(q, "/r/web"+tc.path))
			if !tc.want.passes() {
				w.wantNothing(from)
				return
			}
			if got := w.seen(); len(got) != 1 || got[0].line != tc.method+" /api"+tc.path+" HTTP/1.1" {
				t.Errorf("the upstream saw %q", got)
			}
		})
	}
	w.tap.t = t
	w.CheckLedger()
}

// TestMethodsInsideAnAPICall is TP10 in the spellings in which frameworks read a method
// out of a query or a body.
func TestMethodsInsideAnAPICall(t *testing.T) {
	t.Parallel()
	w := newWebWorld(t)
	const form = "application/x-www-form-urlencoded"
	manifest := strings.Replace(fmt.Sprintf(webManifest, strings.TrimSuffix(w.tap.url, "/mcp")+"/api"), form+"]", form+", multipart/form-data]", 1)
	w.Apply(manifest)
	part := func(disposition string) string {
		return "--x\r\nContent-Disposition: " + disposition + "\r\n\r\nDELETE\r\n--x--\r\n"
	}
	malformed := want{status: 400, code: counterfoil.RequestMalformed}
	for _, tc := range []struct {
		query, media, body string
		want               want
	}{
		{"?.method=DELETE", "application/json", "{}", malformed}, {"?+_method=DELETE", "application/json", "{}", malformed}, {"?%5Bmethod=DELETE", "application/json", "{}", malformed},
		{"?_method%5Bx%5D=DELETE", "application/json", "{}", malformed}, {"?X-HTTP-Method-Override=DELETE", "application/json", "{}", malformed}, {"?method=fax", "application/json", "{}", passes},
		{"", "application/json", `{"_method":"DELETE"}`, malformed}, {"", "application/json", `{"_METHOD":"DELETE"}`, malformed}, {"", "application/merge-patch+json", `{"_method":"DELETE"}`, malformed},
		{"", "application/json", `{"a":{"_method":"DELETE"}}`, passes},
		{"", form, ".method=DELETE", malformed}, {"", form, "_method[x]=DELETE", malformed}, {"", form, "a[x]=DELETE", passes}, {"", form + "; charset=utf-16", "a=b", malformed},
		{"", "multipart/form-data; boundary=x", part(`form-data; name="x"; name="_method"`), malformed}, {"", "multipart/form-data; boundary=x", part(`attachment; name="_method"`), malformed},
		{"", "multipart/form-data; boundary=x", part(`form-data; name="x"; name*=utf-8''_method`), malformed}, {"", "multipart/form-data; boundary=x", part(`form-data; name="x"`), passes},
	} {
		t.Run("TP10 "+tc.query+tc.media+tc.body, func(t *testing.T) {
			defer w.in(t)()
			w.tap.t = t
			w.Clock.Advance(time.Second)
			q := w.callWeb(http.MethodPost, "/things/7"+tc.query, tc.body)
			q.header["Content-Type"] = []string{tc.media}
			from := w.size()
			tc.want.check(t, w.sendCall(q))
			if !tc.want.passes() {
				w.wantNothing(from)
			} else if got := w.seen(); len(got) != 1 {
				t.Errorf("the upstream saw %q", got)
			}
		})
	}
	w.tap.t = t
	w.CheckLedger()
}
