package attacks

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// get makes a request without a body.
func (w *world) get(method, url string) *http.Request {
	w.T.Helper()
	r, err := http.NewRequestWithContext(w.T.Context(), method, url, nil)
	if err != nil {
		w.T.Fatal(err)
	}
	return r
}

// post makes a request with a body.
func (w *world) post(url, contentType, body string) *http.Request {
	w.T.Helper()
	r, err := http.NewRequestWithContext(w.T.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		w.T.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return r
}

// TestRefusalsAreRecorded, AU4, holds every refusal that a client was told against the
// record: one entry each once it is known who asked, a count before.
func TestRefusalsAreRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	refused := map[string]counterfoil.Code{} // by request id
	// Who cannot be authenticated is not told why. The record says it.
	precise := map[string]counterfoil.Code{"an agent that there is not": counterfoil.KeyUnknown, "a signature by somebody else": counterfoil.AssertionMalformed}
	note := func(name string, got answer) {
		t.Helper()
		if got.code == "" || got.requestID == "" || got.status < 400 && got.status != 200 {
			t.Errorf("%s: not refused by us: %s", name, got)
			return
		}
		if _, twice := refused[got.requestID]; twice {
			t.Errorf("%s: the id %s was another request's", name, got.requestID)
		}
		refused[got.requestID] = got.code
		if code, ok := precise[name]; ok {
			if got.code != counterfoil.ClientRefused {
				t.Errorf("%s: %s", name, got)
			}
			refused[got.requestID] = code
		}
	}
	bank := w.BankURL()
	// Nobody knows who asks: these are counted.
	strangers := map[string]func() answer{
		"404": func() answer { return w.do(w.get("GET", w.Issuer()+"/nothing")) },
		"404 below the gateway": func() answer {
			return w.do(w.get("GET", w.Issuer()+"/r/nothing"))
		},
		"404 on the management listener": func() answer { return w.do(w.get("GET", w.ManagementURL()+"/nothing")) },
		"no session":                     func() answer { return w.do(w.get("GET", w.ManagementURL()+"/api/v1/agents")) },
		"405":                            func() answer { return w.do(w.get("GET", w.Issuer()+"/oauth/token")) },
		"405 at the gateway":             func() answer { return w.do(w.get("PUT", bank)) },
		"a query":                        func() answer { return w.do(w.get("GET", bank+"?x")) },
		"no credentials":                 func() answer { return w.do(w.post(bank, "application/json", "{}")) },
		"another type":                   func() answer { return w.do(w.post(bank, "text/plain", "{}")) },
		"a token request that is JSON":   func() answer { return w.do(w.post(w.Issuer()+"/oauth/token", "application/json", "{}")) },
		"a token request that is empty":  func() answer { return w.do(w.post(w.Issuer()+"/oauth/token", "application/x-www-form-urlencoded", "")) },
		"a token request that is large": func() answer {
			return w.do(w.post(w.Issuer()+"/oauth/token", "application/x-www-form-urlencoded", strings.Repeat("x", 1<<17)))
		},
		"an enrolment that is no JSON": func() answer { return w.do(w.post(w.Issuer()+"/enroll", "application/json", "x")) },
		"an enrolment without a code": func() answer {
			return w.do(w.post(w.Issuer()+"/enroll", "application/json", `{"agent":"payroll","code":""}`))
		},
		"another origin": func() answer {
			q := w.call(w.payroll)
			q.header["Origin"] = []string{"https://evil.example"}
			return w.sendCall(q)
		},
		"a token that is none": func() answer { q := w.call(w.payroll); q.token = "a.b.c"; return w.sendCall(q) },
		"a proof that is none": func() answer { q := w.call(w.payroll); q.proofs = []string{"a.b.c"}; return w.sendCall(q) },
		"somebody else's key": func() answer {
			q := w.call(w.payroll)
			q.proof.Signer = w.stranger
			q.proof.Header["jwk"] = counterfoiltest.PublicJWK(t, w.stranger)
			return w.sendCall(q)
		},
		"an agent that there is not": func() answer {
			q := w.tokenRequest(w.payroll)
			q.Assertion.Claims["iss"], q.Assertion.Claims["sub"] = "nobody", "nobody"
			return w.sendToken(q)
		},
		"a signature by somebody else": func() answer { q := w.tokenRequest(w.payroll); q.Assertion.Signer = w.stranger; return w.sendToken(q) },
		"an assertion that is no JWT": func() answer {
			q := w.tokenRequest(w.payroll)
			q.Form.Set("client_assertion", "x")
			return w.sendToken(q)
		},
		"a manifest with a problem": func() answer {
			return w.admin("POST", "/api/v1/apply", map[string]any{"files": []any{map[string]any{"name": "x", "data": "kind: Nothing"}}})
		},
		"an agent that there is not, administration": func() answer { return w.admin("GET", "/api/v1/agents/nobody", nil) },
	}
	// It is known who asks: these have an entry each.
	known := map[string]func() answer{
		"a tool that is not granted": func() answer { return w.sendCall(w.callOf(w.payroll, "list_payees", `{}`)) },
		"a tool that there is not":   func() answer { return w.sendCall(w.callOf(w.payroll, "nothing", `{}`)) },
		"an approval that is needed": func() answer {
			return w.sendCall(w.callOf(w.payroll, "pay", `{"to":"acme","amount":1,"currency":"EUR"}`))
		},
		"no JSON": func() answer { q := w.call(w.payroll); q.body = "x"; return w.sendCall(q) },
		"too large": func() answer {
			q := w.call(w.payroll)
			q.body = counterfoiltest.Body("get_balance", `{"account":"`+strings.Repeat("x", 5<<20)+`"}`)
			q.late = append(q.late, func(*call) {})
			return w.sendLong(q)
		},
		"another header": func() answer { q := w.call(w.payroll); q.header["Mcp-Method"] = []string{"ping"}; return w.sendCall(q) },
		"a session that is none": func() answer {
			q := w.call(w.payroll)
			q.method, q.body, q.proof.Claims["htm"] = "GET", "", "GET"
			q.header = http.Header{"Mcp-Session-Id": {"x"}}
			return w.sendCall(q)
		},
		"a scope that is not granted": func() answer {
			q := w.tokenRequest(w.payroll)
			q.Form.Set("scope", "list_payees")
			return w.sendToken(q)
		},
		"a target that there is not": func() answer {
			q := w.tokenRequest(w.payroll)
			q.Form.Set("resource", w.Issuer()+"/r/nothing")
			return w.sendToken(q)
		},
		"no proof": func() answer { q := w.tokenRequest(w.payroll); q.Proofs = []string{}; return w.sendToken(q) },
	}
	from := w.size()
	const rounds = 3
	for range rounds {
		w.Clock.Advance(time.Second)
		if got := honestCall(t, w); !got.passed() { // the control: what passes is in neither
			t.Fatalf("an honest call: %s", got)
		}
		for _, kinds := range []map[string]func() answer{strangers, known} {
			for name, send := range kinds {
				note(name, send())
			}
		}
	}
	w.Restart() // a minute passes, or the server ends: then what was counted is written
	counted, own := map[counterfoil.Code]int{}, map[string]counterfoil.Code{}
	for _, e := range w.since(from) {
		switch {
		case e.Kind == ledger.RefusedAggregate:
			codes, _ := e.Detail["codes"].(map[string]any)
			for code, n := range codes {
				counted[counterfoil.Code(code)] += int(n.(float64))
			}
		case e.Decision == ledger.Refuse:
			own[e.RequestID] = e.Code
		}
	}
	if want := rounds * len(known); len(own) != want {
		t.Errorf("%d refusals have an entry, want %d", len(own), want)
	}
	for id, code := range own {
		if told, ok := refused[id]; !ok || told != code {
			t.Errorf("the entry of %s says %s, its client was told %q", id, code, told)
		}
		delete(refused, id)
	}
	told := map[counterfoil.Code]int{}
	for _, code := range refused {
		told[code]++
	}
	for code, n := range told {
		if counted[code] != n {
			t.Errorf("%s was told %d times and counted %d times", code, n, counted[code])
		}
		delete(counted, code)
	}
	if len(counted) > 0 {
		t.Errorf("nobody was told %v", counted)
	}
	w.CheckLedger()
}

// admin sends a request to the administration socket.
func (w *world) admin(method, path string, in any) answer {
	w.T.Helper()
	status, body := w.Admin(method, path, in)
	var p struct {
		RequestID string `json:"request_id"`
	}
	_ = ijson.UnmarshalLax(body, &p) // an answer without one is seen by the caller
	return answer{status: status, header: http.Header{}, body: body, code: counterfoiltest.CodeOf(body), requestID: p.RequestID}
}

// sendLong sends a body without saying how long it is, so that it is found while
// it is read.
func (w *world) sendLong(q *call) answer {
	w.T.Helper()
	x := w.wire(q)
	x.chunked()
	answers := w.sendWire(x)
	if len(answers) == 0 {
		w.T.Fatal("no answer to a long body")
	}
	return answers[0]
}

// hostile are texts that break out of where they are written, if anything does.
var hostile = []struct{ name, text string }{
	{"a line break", "x\n" + forgedEntry + "\n"},
	{"CR LF", "x\r\nX-Forged: 1\r\n\r\n" + forgedEntry},
	{"the end of a string", `x"}` + "\n" + forgedEntry},
	{"the end of a string, escaped", `x\"},{"kind":"token.issued","agent":"forged"`},
	{"colours", "\x1b[2J\x1b[31mforged\x1b[0m\x07"},
	{"a bell and a backspace", "x\a\b\b\bforged"},
	{"C1 controls", "x\u009b31mforged\u0085"},
	{"separators of JavaScript", "x\u2028" + forgedEntry + "\u2029"},
	{"the other direction", "x\u202egnp.exe\u2066"},
	{"nothing to see", "x\u200b\u200d\ufeff"},
	{"NUL", "x\x00forged"},
	{"not UTF-8", "x\xff\xfe\xc0\xaf\xed\xa0\x80forged"},
	{"markup", `x<script>alert(1)</script>'";--`},
	{"formats", "x%s%n%00%0a${jndi:ldap://forged}{{.}}"},
	{"long", strings.Repeat("A", 7<<10)},
}

const forgedEntry = `{"decision":"allow","agent":"forged","index":0,"kind":"token.issued","time":"2026-11-02T12:00:00.000000Z"}`

// TestHostileText, AU5 and HI1: whatever text goes into whichever field, entries and log
// lines stay one record each, and say nothing that a record could not say.
func TestHostileText(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	quote := func(s string) string {
		b, err := ijson.Marshal(strings.ToValidUTF8(s, "\ufffd"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	// A field that HTTP itself does not carry is sent as bytes of a connection.
	head := func(field, text string) answer {
		x := w.wire(w.call(w.payroll))
		x.set(field, "-")
		x.fields = append(x.fields, field+": "+text)
		x.ended = strings.Contains(text, "\n") // the text may end the head, and another request begins that has no end
		answers := w.sendWire(x)
		if len(answers) == 0 {
			return answer{}
		}
		return answers[0]
	}
	fields := []struct {
		name string
		send func(text string) answer
	}{
		{"the name of a tool", func(s string) answer {
			q := w.call(w.payroll)
			q.body = strings.Replace(q.body, `"name":"get_balance"`, `"name":`+quote(s), 1)
			q.header["Mcp-Name"] = []string{"=?base64?" + base64.StdEncoding.EncodeToString([]byte(strings.ToValidUTF8(s, "\ufffd"))) + "?="}
			return w.sendCall(q)
		}},
		{"a method", func(s string) answer {
			q := w.call(w.payroll)
			q.body = strings.Replace(q.body, `"tools/call"`, quote(s), 1)
			return w.sendCall(q)
		}},
		{"the name of a member", func(s string) answer {
			q := w.call(w.payroll)
			q.body = strings.Replace(q.body, `"id":1`, `"id":1,`+quote(s)+`:1`, 1)
			return w.sendCall(q)
		}},
		{"the name of an argument", func(s string) answer {
			return w.sendCall(w.callOf(w.payroll, "get_balance", `{"account":"operating",`+quote(s)+`:1}`))
		}},
		{"an argument", func(s string) answer {
			return w.sendCall(w.callOf(w.payroll, "get_balance", `{"account":`+quote(s)+`}`))
		}},
		{"raw bytes in an argument", func(s string) answer {
			return w.sendCall(w.callOf(w.payroll, "get_balance", `{"account":"`+s+`"}`))
		}},
		{"the client's name", func(s string) answer {
			q := w.call(w.payroll)
			q.body = strings.Replace(q.body, `"name":"wire"`, `"name":`+quote(s), 1)
			return w.sendCall(q)
		}},
		{"an id", func(s string) answer {
			q := w.call(w.payroll)
			q.body = strings.Replace(q.body, `"id":1`, `"id":`+quote(s), 1)
			return w.sendCall(q)
		}},
		{"jti of a proof", func(s string) answer {
			q := w.call(w.payroll)
			q.proof.Claims["jti"] = s + "-call"
			return w.sendCall(q)
		}},
		{"htu of a proof", func(s string) answer { q := w.call(w.payroll); q.proof.Claims["htu"] = s; return w.sendCall(q) }},
		{"nonce of a proof", func(s string) answer { q := w.call(w.payroll); q.proof.Claims["nonce"] = s; return w.sendCall(q) }},
		{"iss of a token", func(s string) answer {
			j := w.forgeToken()
			j.Claims["iss"] = s
			q := w.call(w.payroll)
			q.token = j.Compact(t)
			return w.sendCall(q)
		}},
		{"kid of a token", func(s string) answer {
			j := w.forgeToken()
			j.Header["kid"] = s
			q := w.call(w.payroll)
			q.token = j.Compact(t)
			return w.sendCall(q)
		}},
		{"the agent of an assertion", func(s string) answer {
			q := w.tokenRequest(w.payroll)
			q.Assertion.Claims["iss"], q.Assertion.Claims["sub"] = s, s
			return w.sendToken(q)
		}},
		{"kid of an assertion", func(s string) answer {
			q := w.tokenRequest(w.payroll)
			q.Assertion.Header["kid"] = s
			return w.sendToken(q)
		}},
		{"jti of an assertion", func(s string) answer {
			q := w.tokenRequest(w.payroll)
			q.Assertion.Claims["jti"] = s
			return w.sendToken(q)
		}},
		{"jti of a token request's proof", func(s string) answer {
			q := w.tokenRequest(w.payroll)
			q.Proof.Claims["jti"] = s
			return w.sendToken(q)
		}},
		{"aud of an assertion", func(s string) answer {
			q := w.tokenRequest(w.payroll)
			q.Assertion.Claims["aud"] = s
			return w.sendToken(q)
		}},
		{"client_id", func(s string) answer {
			q := w.tokenRequest(w.payroll)
			q.Form.Set("client_id", s)
			return w.sendToken(q)
		}},
		{"resource", func(s string) answer {
			q := w.tokenRequest(w.payroll)
			q.Form.Set("resource", s)
			return w.sendToken(q)
		}},
		{"scope", func(s string) answer { q := w.tokenRequest(w.payroll); q.Form.Set("scope", s); return w.sendToken(q) }},
		{"grant_type", func(s string) answer {
			q := w.tokenRequest(w.payroll)
			q.Form.Set("grant_type", s)
			return w.sendToken(q)
		}},
		{"authorization_details", func(s string) answer {
			q := w.tokenRequest(w.payroll)
			q.Form.Set("authorization_details", `[{"type":`+quote(s)+`}]`)
			return w.sendToken(q)
		}},
		{"the name of a parameter", func(s string) answer { q := w.tokenRequest(w.payroll); q.Form.Set(s, "1"); return w.sendToken(q) }},
		{"the agent of an enrolment", func(s string) answer {
			return w.do(w.post(w.Issuer()+"/enroll", "application/json", `{"agent":`+quote(s)+`,"code":"cfe_x"}`))
		}},
		{"the code of an enrolment", func(s string) answer {
			return w.do(w.post(w.Issuer()+"/enroll", "application/json", `{"agent":"payroll","code":`+quote(s)+`}`))
		}},
		{"User-Agent", func(s string) answer { return head("User-Agent", s) }},
		{"X-Request-Id", func(s string) answer { return head("X-Request-Id", s) }},
		{"X-Forwarded-For", func(s string) answer { return head("X-Forwarded-For", s) }},
		{"Traceparent", func(s string) answer { return head("Traceparent", s) }},
		{"Mcp-Method", func(s string) answer { return head("Mcp-Method", s) }},
		{"Mcp-Session-Id", func(s string) answer { return head("Mcp-Session-Id", s) }},
		{"Mcp-Protocol-Version", func(s string) answer { return head("Mcp-Protocol-Version", s) }},
		{"Content-Type", func(s string) answer { return head("Content-Type", s) }},
		{"Origin", func(s string) answer { return head("Origin", s) }},
		{"Host", func(s string) answer { return head("Host", s) }},
		{"Authorization", func(s string) answer { return head("Authorization", s) }},
		{"a path", func(s string) answer {
			x := w.wire(w.call(w.payroll))
			x.line, x.ended = "POST /r/"+s+" HTTP/1.1", strings.Contains(s, "\n")
			if got := w.sendWire(x); len(got) > 0 {
				return got[0]
			}
			return answer{}
		}},
		{"a verb", func(s string) answer {
			x := w.wire(w.call(w.payroll))
			x.line, x.ended = s+" /r/bank HTTP/1.1", strings.Contains(s, "\n")
			if got := w.sendWire(x); len(got) > 0 {
				return got[0]
			}
			return answer{}
		}},
		{"an administrator's reason", func(s string) answer {
			defer w.Resume("auditor")
			return w.admin("POST", "/api/v1/agents/auditor/suspend", map[string]any{"reason": strings.ToValidUTF8(s, "\ufffd")})
		}},
		{"the name of a manifest's file", func(s string) answer {
			return w.admin("POST", "/api/v1/apply", map[string]any{"files": []any{map[string]any{"name": strings.ToValidUTF8(s, "\ufffd"), "data": "kind: Nothing"}}})
		}},
		{"a manifest", func(s string) answer {
			return w.admin("POST", "/api/v1/apply", map[string]any{"files": []any{map[string]any{"name": "x", "data": "kind: Agent\nname: " + quote(s) + "\npurpose: " + quote(s)}}})
		}},
		{"a purpose", func(s string) answer {
			return w.admin("POST", "/api/v1/apply", map[string]any{"files": []any{map[string]any{"name": "x", "data": "kind: Agent\nname: talker\nowner: ana\nenvironment: prod\npurpose: " + quote(s)}}})
		}},
		{"a filter of the log", func(s string) answer {
			return w.admin("GET", "/api/v1/ledger/entries?limit=1&agent="+queryEscape(s), nil)
		}},
	}
	for _, f := range fields {
		for _, h := range hostile {
			w.Clock.Advance(time.Second)
			got := f.send(h.text)
			if got.status >= 500 {
				t.Errorf("%s, %s: %s", f.name, h.name, got)
			}
			if got.header.Get("X-Forged") != "" || strings.Contains(string(got.body), "\n"+forgedEntry) {
				t.Errorf("%s, %s: it is in the answer: %s", f.name, h.name, got)
			}
			if !utf8.Valid(got.body) || got.header.Get("Content-Type") == "application/problem+json" && ijson.Check(bytes.TrimSpace(got.body)) != nil {
				t.Errorf("%s, %s: the answer is not one JSON value: %q", f.name, h.name, got.body)
			}
		}
		if got := honestCall(t, w); !got.passed() {
			t.Fatalf("after %s an honest call: %s", f.name, got)
		}
	}

	// The record, read strictly and verified.
	issued := 0
	for _, e := range w.Entries() {
		if e.Agent == "forged" || e.Index == 0 && e.Kind != ledger.ServerStarted {
			t.Errorf("a forged entry: %+v", e)
		}
		b, err := ledger.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexFunc(b, func(r rune) bool { return r < ' ' || r == utf8.RuneError }) >= 0 && !bytes.ContainsRune(b, '\ufffd') {
			t.Errorf("entry %d has a character that is none: %q", e.Index, b)
		}
		if len(b) > 64<<10 {
			t.Errorf("entry %d has %d bytes", e.Index, len(b))
		}
		if e.Kind == ledger.TokenIssued {
			issued++
		}
	}
	if issued == 0 {
		t.Error("there is no entry of a token: this looked at nothing")
	}
	// The log for operators: one JSON object a line.
	lines := strings.Split(strings.TrimSuffix(w.Log.String(), "\n"), "\n")
	for _, line := range lines {
		m, err := ijson.Members([]byte(line))
		if err != nil || m["time"] == nil || m["level"] == nil || m["msg"] == nil {
			t.Errorf("a line that is no record: %.300q: %v", line, err)
			continue
		}
		if strings.HasPrefix(line, forgedEntry) || m["kind"] != nil {
			t.Errorf("a forged line: %s", line)
		}
	}
	if len(lines) < len(fields) {
		t.Errorf("the log has %d lines: this looked at nothing", len(lines))
	}
	// What an administrator sees in a terminal.
	for _, args := range [][]string{{"ledger", "tail", "-n", "1000"}, {"agent", "list"}, {"get", "Agent", "talker"}} {
		exit, out, log := command(t, append(args, "--data", w.Dir)...)
		if exit != 0 || len(out) == 0 {
			t.Fatalf("%v: exit %d %s", args, exit, log)
		}
		if i := strings.IndexFunc(out, func(r rune) bool {
			return r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
		}); i >= 0 {
			t.Errorf("%v prints %q", args, out[max(0, i-60):min(len(out), i+60)])
		}
	}
	w.CheckLedger()
}

func queryEscape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}
