package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/ledger"
)

// TestAnHTTPCallWaitsForPeople: refused with 403, or 202 for who takes it; made once it is
// allowed, once; and what is made is what was allowed.
func TestAnHTTPCallWaitsForPeople(t *testing.T) {
	t.Parallel()
	o, c := newCRM(t, nil, nil)
	reset := func(body string, change func(*http.Request)) reply {
		return c.send("POST", "/customers/7/password", body, change)
	}
	r := reset(`{"reason":"lost"}`, nil)
	wantHTTP(t, r, 403, counterfoil.ApprovalRequired)
	var p struct {
		Approval counterfoil.ApprovalStatus `json:"approval"`
		Details  []map[string]any           `json:"authorization_details"`
	}
	if err := json.Unmarshal([]byte(r.body), &p); err != nil || p.Approval.ID == "" || len(p.Details) != 1 || p.Details[0]["tool"] != "reset_password" {
		t.Fatalf("%s, %v", r.body, err)
	}
	if v := r.header.Get("WWW-Authenticate"); !strings.Contains(v, `error="insufficient_authorization_details"`) || r.header.Get("Retry-After") == "" {
		t.Errorf("the headers are %v", r.header)
	}
	id := p.Approval.ID
	async := reset(`{ "reason": "lost" }`, func(r *http.Request) { r.Header.Set("Prefer", "respond-async") })
	if async.status != 202 || !strings.HasSuffix(async.header.Get("Location"), "/approvals/"+id) || async.header.Get("Preference-Applied") != "respond-async" {
		t.Errorf("with Prefer: %d %v", async.status, async.header)
	}
	call := o.state(id)
	for _, part := range []string{`"protocol":"http"`, `"target":"/customers/7/password"`, `"arguments":{"body":{"reason":"lost"},"path":{"id":"7"}}`, `"headers":{"content-type":"application/json"}`, `"method":"POST"`} {
		if !strings.Contains(string(call.Call), part) {
			t.Errorf("the call is %s, which lacks %s", call.Call, part)
		}
	}
	o.approve(id)
	// Anything else is another call.
	wantHTTP(t, reset(`{"reason":"found"}`, naming(id)), 403, counterfoil.ApprovalMismatch)
	wantHTTP(t, c.send("POST", "/customers/8/password", `{"reason":"lost"}`, naming(id)), 403, counterfoil.ApprovalMismatch)
	wantHTTP(t, reset(`{"reason":"lost"}`, func(r *http.Request) { naming(id)(r); r.Header.Set("If-Match", `"1"`) }), 403, counterfoil.ApprovalMismatch)
	wantAnswer(t, reset(`{"reason":"lost"}`, nil), 200, `{"body":"{\"reason\":\"lost\"}","line":"POST /api/customers/7/password"}`)
	wantHTTP(t, reset(`{"reason":"lost"}`, naming(id)), 403, counterfoil.ApprovalSpent)
	if got := len(o.upstream.all()); got != 1 {
		t.Errorf("the upstream got %d requests", got)
	}
	if s := o.state(id).State; s != counterfoil.StateSucceeded {
		t.Errorf("the approval is %s", s)
	}
}

// TestAnHTTPCallIsRepeated: with its key, it gets the answer that there was, header by
// header, and is not made again.
func TestAnHTTPCallIsRepeated(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	o, c := newCRM(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Count", fmt.Sprint(n.Add(1)))
		rw.Header().Set("Set-Cookie", "a=b")
		rw.WriteHeader(201)
		io.WriteString(rw, "made\x00")
	}), nil)
	note := func(body, key string) reply { return c.send("POST", "/customers/7/notes", body, keyed(key)) }
	first := note(`{"a":1}`, "k1")
	wantAnswer(t, first, 201, "made\x00")
	again := note(`{"a":1.0}`, "k1")
	wantAnswer(t, again, 201, "made\x00")
	entry := o.log.of(ledger.CallDecided)[0].Index
	if again.header.Get("Counterfoil-Repeated") != fmt.Sprint(entry) || again.header.Get("X-Count") != "1" || first.header.Get("Counterfoil-Repeated") != "" || again.header.Get("Set-Cookie") != "" {
		t.Errorf("the repetition has %v", again.header)
	}
	wantHTTP(t, note(`{"a":2}`, "k1"), 409, counterfoil.IdempotencyMismatch)
	wantAnswer(t, note(`{"a":2}`, "k2"), 201, "made\x00")
	if got := o.upstream.all(); len(got) != 2 || len(got[0].header.Get("Idempotency-Key")) != 43 {
		t.Errorf("the upstream got %+v", got)
	}
	// The same of a call that people allowed.
	reset := func() reply { return c.send("POST", "/customers/7/password", `{"reason":"lost"}`, keyed("k3")) }
	var p struct {
		Approval counterfoil.ApprovalStatus `json:"approval"`
	}
	if err := json.Unmarshal([]byte(reset().body), &p); err != nil {
		t.Fatal(err)
	}
	o.approve(p.Approval.ID)
	wantAnswer(t, reset(), 201, "made\x00")
	if again := reset(); again.status != 201 || again.body != "made\x00" || again.header.Get("Counterfoil-Repeated") == "" || again.header.Get("X-Count") != "3" {
		t.Errorf("the repetition is %d %v", again.status, again.header)
	}
	if got := len(o.upstream.all()); got != 3 {
		t.Errorf("the upstream got %d requests", got)
	}
}

// TestAnUpstreamOverHTTP: what its answers become.
func TestAnUpstreamOverHTTP(t *testing.T) {
	t.Parallel()
	var answer func(http.ResponseWriter, *http.Request)
	o, c := newCRM(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { answer(rw, r) }), nil)
	for _, tc := range []struct {
		name    string
		answer  func(http.ResponseWriter, *http.Request)
		keyed   bool
		status  int
		code    counterfoil.Code
		outcome string
		check   func(testing.TB, reply)
	}{
		{name: "not found", answer: func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "no", 404) }, status: 404, outcome: "failed"},
		{name: "broken", answer: func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "oops", 500) }, status: 500, outcome: "failed"},
		{name: "broken, with a key", answer: func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "oops", 500) }, keyed: true, status: 504, code: counterfoil.OutcomeUnknown, outcome: "unknown"},
		{name: "refusing the gateway", answer: func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(rw, "who", http.StatusUnauthorized)
		}, status: 502, code: counterfoil.UpstreamUnavailable, outcome: "upstream_unavailable"},
		{name: "encoded", answer: func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Encoding", "gzip")
			io.WriteString(rw, "x")
		}, status: 502, code: counterfoil.UpstreamUnavailable, outcome: "upstream_unavailable"},
		{name: "a way within", answer: func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Location", "http://"+r.Host+"/api/customers/8?a=b#c")
			rw.WriteHeader(303)
		}, status: 303, outcome: "succeeded", check: func(t testing.TB, r reply) {
			if got := r.header.Get("Location"); got != c.audience()+"/customers/8?a=b#c" {
				t.Errorf("Location is %q", got)
			}
		}},
		{name: "a way within, relative", answer: func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Location", "../customers/8")
			rw.WriteHeader(201)
		}, status: 201, outcome: "succeeded", check: func(t testing.TB, r reply) {
			if got := r.header.Get("Location"); got != c.audience()+"/customers/8" {
				t.Errorf("Location is %q", got)
			}
		}},
		{name: "a way out", answer: func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Location", "https://elsewhere.example/")
			rw.WriteHeader(302)
		}, status: 302, outcome: "succeeded", check: func(t testing.TB, r reply) {
			if got := r.header.Get("Location"); got != "https://elsewhere.example/" {
				t.Errorf("Location is %q", got)
			}
		}},
		{name: "a way beside", answer: func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Location", "/admin")
			rw.WriteHeader(302)
		}, status: 302, outcome: "succeeded", check: func(t testing.TB, r reply) {
			if got := r.header["Location"]; got != nil {
				t.Errorf("Location is %q", got)
			}
		}},
		{name: "an echo", answer: func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("X-Debug", r.Header.Get("Authorization"))
			io.WriteString(rw, `{"got":"`+r.Header.Get("Authorization")+`"}`)
		}, status: 200, outcome: "succeeded", check: func(t testing.TB, r reply) {
			if want := `{"got":"Bearer ` + strings.Repeat("*", len(crmSecret)) + `"}`; r.body != want || strings.Contains(fmt.Sprint(r.header), crmSecret) {
				t.Errorf("got %v %s", r.header, r.body)
			}
			if used := o.log.custody(t); used[len(used)-1].Kind != ledger.AnswerScrubbed {
				t.Errorf("nothing says that it was masked")
			}
		}},
		{name: "not HTTP, with the secret in it", answer: func(rw http.ResponseWriter, r *http.Request) {
			conn, _, err := rw.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			io.WriteString(conn, "ECHO "+r.Header.Get("Authorization")+"\r\n\r\n")
		}, status: 504, code: counterfoil.OutcomeUnknown, outcome: "unknown"},
		{name: "large", answer: func(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, strings.Repeat("x", 1<<20)) }, status: 200, outcome: "succeeded", check: func(t testing.TB, r reply) {
			if len(r.body) != 1<<20 {
				t.Errorf("there are %d bytes", len(r.body))
			}
		}},
		{name: "of its own connection", answer: func(rw http.ResponseWriter, _ *http.Request) {
			for _, name := range []string{"Set-Cookie", "Server", "DPoP-Nonce", "Strict-Transport-Security", "Access-Control-Allow-Origin", "X-Gone", "Cache-Control", "Counterfoil-Repeated", "Refresh"} {
				rw.Header().Set(name, "evil")
			}
			rw.Header().Set("Connection", "X-Gone")
			rw.Header().Set("Etag", `"1"`)
			io.WriteString(rw, "x")
		}, status: 200, outcome: "succeeded", check: func(t testing.TB, r reply) {
			if strings.Contains(fmt.Sprint(r.header), "evil") || r.header.Get("Etag") != `"1"` || r.header.Get("Cache-Control") != "no-store" {
				t.Errorf("the headers are %v", r.header)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o.world.t = t
			answer = tc.answer
			key := func(*http.Request) {}
			if tc.keyed {
				key = keyed("key")
			}
			r := c.send("GET", "/customers/7", "", key)
			if tc.code != "" {
				wantHTTP(t, r, tc.status, tc.code)
			} else if r.status != tc.status {
				t.Fatalf("got %d %v %s", r.status, r.header, r.body)
			}
			if strings.Contains(r.body+fmt.Sprint(r.header), crmSecret) {
				t.Fatalf("the client got the secret: %v %s", r.header, r.body)
			}
			ends := o.log.waitEnds(len(o.log.of(ledger.CallDecided)))
			if e := ends[len(ends)-1]; e.Outcome != tc.outcome {
				t.Errorf("the end is %+v", e)
			}
			if tc.check != nil {
				tc.check(t, r)
			}
		})
	}
}

// TestAnHTTPStream is passed on as it comes, and cut when its caller is revoked.
func TestAnHTTPStream(t *testing.T) {
	t.Parallel()
	left := make(chan struct{})
	o, c := newCRM(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(rw, "data: one %s\n\n", r.Header.Get("Authorization"))
		rw.(http.Flusher).Flush()
		<-r.Context().Done()
		close(left)
	}), nil)
	o.gateway.LookEvery(5 * time.Millisecond)
	res, err := o.client.Do(c.call("GET", "/customers/7", "", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	line, err := lines.ReadString('\n')
	if want := "data: one Bearer " + strings.Repeat("*", len(crmSecret)) + "\n"; err != nil || line != want || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("got %q %v, %v", line, res.Header, err)
	}
	if ends := o.log.of(ledger.CallFinished); len(ends) > 0 {
		t.Fatalf("it ended: %+v", ends)
	}
	o.log.revoke("payroll")
	if _, err := io.ReadAll(lines); err == nil {
		t.Error("the stream ended as if it were whole")
	}
	<-left
	if e := o.log.waitEnds(1)[0]; e.Outcome != ledger.OutcomeUnknown || e.Code != counterfoil.TokenRevoked {
		t.Errorf("the end is %+v", e)
	}
}

// TestABodyThatIsPassedOn reaches the upstream before it is there.
func TestABodyThatIsPassedOn(t *testing.T) {
	t.Parallel()
	first := make(chan string, 1)
	o, c := newCRM(t, nil, nil)
	o.upstream.raw(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		b := make([]byte, 5)
		if _, err := io.ReadFull(r.Body, b); err != nil {
			panic(err)
		}
		first <- string(b)
		rest, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		io.WriteString(rw, r.Header.Get("Content-Type")+" "+string(rest))
	}))
	body, w := io.Pipe()
	r := c.call("POST", "/upload", "", nil)
	r.Header.Set("Content-Type", "application/octet-stream")
	r.Body, r.ContentLength = body, -1
	go func() {
		io.WriteString(w, "first")
		if got := <-first; got != "first" {
			t.Errorf("the upstream got %q", got)
		}
		io.WriteString(w, "second")
		w.Close()
	}()
	wantAnswer(t, c.do(r), 200, "application/octet-stream second")
	e := o.log.waitEnds(1)[0]
	if e.Detail["content_digest"] != "sha-256=:2zAUE9l5EStdbyfBc5c+bEfzyNKNYFp8DVjDfrDlmyQ=:" {
		t.Logf("the digest is %v", e.Detail)
	}
}

// TestAWebSocket goes both ways, and is cut when its caller is revoked.
func TestAWebSocket(t *testing.T) {
	t.Parallel()
	o, c := newCRM(t, nil, func(o *office, _ *counterfoil.Registry, _ *gateway.Config) {})
	o.upstream.raw(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Sec-Websocket-Extensions") != "" || r.Header.Get("Sec-Websocket-Key") != "dGhlIHNhbXBsZSBub25jZQ==" {
			http.Error(rw, "no", 400)
			return
		}
		conn, buf, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
		line, _ := buf.ReadString('\n')
		io.WriteString(conn, "got "+line+r.Header.Get("Authorization")+"\n")
		io.Copy(io.Discard, buf)
	}))
	o.gateway.LookEvery(5 * time.Millisecond)
	r := c.call("GET", "/chat", "", func(r *http.Request) {
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "websocket")
		r.Header.Set("Sec-Websocket-Version", "13")
		r.Header.Set("Sec-Websocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
		r.Header.Set("Sec-Websocket-Extensions", "permessage-deflate")
	})
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.URL.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := r.Write(conn); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	res, err := http.ReadResponse(in, r)
	if err != nil || res.StatusCode != 101 || res.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("%+v, %v", res, err)
	}
	io.WriteString(conn, "hello\n")
	for _, want := range []string{"got hello\n", "Bearer " + strings.Repeat("*", len(crmSecret)) + "\n"} {
		if got, err := in.ReadString('\n'); err != nil || got != want {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	o.log.revoke("payroll")
	if b, err := io.ReadAll(in); len(b) > 0 {
		t.Errorf("more came: %q, %v", b, err)
	}
	if e := o.log.waitEnds(1)[0]; e.Outcome != ledger.OutcomeUnknown || e.Code != counterfoil.TokenRevoked {
		t.Errorf("the end is %+v", e)
	}
}

// TestAskedByAProxy: a proxy is told yes with what to change, or no with what to answer.
func TestAskedByAProxy(t *testing.T) {
	t.Parallel()
	o, c := newCRM(t, nil, nil)
	ask := func(method, target, body string, change func(*counterfoil.Question)) counterfoil.Answer {
		r := c.call(method, target, body, nil)
		path, query, _ := strings.Cut(target, "?")
		q := counterfoil.Question{
			RequestID: counterfoil.NewID("req_"), Point: "forward_auth", Resource: "crm", Method: method, Path: path, Query: query, Header: r.Header,
			Source: netip.MustParseAddr("127.0.0.1"), Body: []byte(body), BodyKnown: true,
		}
		if change != nil {
			change(&q)
		}
		return o.gateway.Ask(context.WithoutCancel(t.Context()), q)
	}
	no := func(a counterfoil.Answer, status int, code counterfoil.Code) {
		t.Helper()
		var p problem
		if err := json.Unmarshal(a.Body, &p); err != nil || a.Allow || a.Status != status || p.Code != code || a.Set != nil {
			t.Errorf("got %v %d %s, want %d %s", a.Allow, a.Status, a.Body, status, code)
		}
	}
	yes := ask("GET", "/customers/7", "", nil)
	if !yes.Allow || yes.Set.Get("Authorization") != "Bearer "+crmSecret || !strings.Contains(strings.Join(yes.Remove, " "), "DPoP") {
		t.Fatalf("%+v", yes)
	}
	e := o.log.of(ledger.CallDecided)[0]
	if e.Tool != "crm/get_customer" || e.Detail["point"] != "forward_auth" || o.log.of(ledger.CallFinished)[0].Outcome != "passed_on" {
		t.Errorf("the entry is %+v", e)
	}
	no(ask("GET", "/customers//7", "", nil), 400, counterfoil.RequestMalformed)
	no(ask("DELETE", "/customers/7", "", nil), 403, counterfoil.ClassForbidden)
	no(ask("GET", "/customers/7", "", func(q *counterfoil.Question) { q.Path = "/customers/8" }), 401, counterfoil.ProofTarget)
	no(ask("GET", "/customers/7", "", func(q *counterfoil.Question) { q.Resource = "bank" }), 404, counterfoil.ToolUnknown)
	no(ask("GET", "/customers/7", "", func(q *counterfoil.Question) { q.Header.Del("Authorization") }), 401, counterfoil.ProofMissing)
	// People are asked where the body is known, and nobody is where it is not.
	no(ask("POST", "/customers/7/password", `{"reason":"lost"}`, func(q *counterfoil.Question) { q.Header.Set("Prefer", "respond-async") }), 403, counterfoil.ApprovalRequired)
	no(ask("POST", "/customers/7/password", "{}", func(q *counterfoil.Question) { q.BodyKnown = false }), 403, counterfoil.PolicyForbids)
	if a := ask("POST", "/customers/7/notes", "{}", func(q *counterfoil.Question) { q.BodyKnown = false }); !a.Allow {
		t.Errorf("%+v", a)
	}
	if got := len(o.upstream.all()); got != 0 {
		t.Errorf("the gateway itself sent %d requests", got)
	}
}
