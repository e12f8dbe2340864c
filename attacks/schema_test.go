package attacks

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/daemon"
)

// wrong are values of every type, and of none that an honest client sends.
var wrong = []json.RawMessage{
	json.RawMessage(`null`), json.RawMessage(`true`), json.RawMessage(`0`), json.RawMessage(`-1`), json.RawMessage(`1.5`), json.RawMessage(`1e400`),
	json.RawMessage(`9223372036854775808`), json.RawMessage(`""`), json.RawMessage(`"x"`), json.RawMessage(`"\u0000"`), json.RawMessage(`[]`), json.RawMessage(`[null]`),
	json.RawMessage(`{}`), json.RawMessage(`{"":null}`), json.RawMessage(`[[[[[[[[[[[[]]]]]]]]]]]]`),
	json.RawMessage(`"` + strings.Repeat("long ", 400) + `"`),
}

// A mutant is a document with one thing wrong.
type mutant struct {
	what string
	text string
}

// mutants returns a JSON document with each of its values, itself included, in
// turn left out and replaced by everything that is wrong.
func mutants(t *testing.T, document string) []mutant {
	t.Helper()
	var doc any
	if err := json.Unmarshal([]byte(document), &doc); err != nil {
		t.Fatalf("%s: %v", document, err)
	}
	var all []mutant
	write := func(what string) {
		b, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, mutant{what, string(b)})
	}
	var walk func(at string, value any, put func(any))
	walk = func(at string, value any, put func(any)) {
		for _, w := range wrong {
			put(w)
			write(fmt.Sprintf("%s: %.20s", at, w))
		}
		put(value)
		switch value := value.(type) {
		case map[string]any:
			for name, member := range value {
				walk(at+"/"+name, member, func(v any) { value[name] = v })
				delete(value, name)
				write(at + "/" + name + ": left out")
				value[strings.ToUpper(name)] = member
				write(at + "/" + name + ": in upper case")
				delete(value, strings.ToUpper(name))
				value[name] = member
			}
		case []any:
			for i, item := range value {
				walk(fmt.Sprintf("%s/%d", at, i), item, func(v any) { value[i] = v })
			}
		}
	}
	walk("", doc, func(v any) { doc = v })
	return all
}

// asItIs marks the document that nothing is wrong with: the control.
const asItIs = "as it is"

// A fuzzed world counts what became of mutants.
type fuzzed struct {
	*tapWorld
	t *testing.T

	mu     sync.Mutex
	passed map[string]int
	sent   int
}

// send sends every mutant at a few at a time, and wants a refusal or an answer of
// each, never a fault.
func (f *fuzzed) send(endpoint string, all []mutant, send func(m mutant) answer) {
	f.t.Helper()
	const atOnce = 8
	for some := range slices.Chunk(all, 200) {
		f.Clock.Advance(time.Second) // no rate is reached
		f.tapWorld.token = ""        // no token expires
		f.callTap("echo", `{}`)
		var group sync.WaitGroup
		for worker := range atOnce {
			group.Go(func() {
				for i := worker; i < len(some); i += atOnce {
					got := send(some[i])
					if got.status < 200 || got.status >= 500 {
						f.t.Errorf("%s, %s\n%.400s\n%.600s", endpoint, some[i].what, some[i].text, got)
					}
					f.mu.Lock()
					f.sent++
					if some[i].what == asItIs && !got.passed() && !strings.Contains(some[i].text, `"result":`) && !strings.Contains(some[i].text, `"error":`) {
						f.t.Errorf("%s, %s: %.600s", endpoint, some[i].what, got) // but a client's answer, which belongs to a session
					}
					if got.passed() {
						f.passed[endpoint]++
					}
					f.mu.Unlock()
				}
			})
		}
		group.Wait()
	}
	if got := f.sendCall(f.callTap("echo", `{}`)); !got.passed() { // alive, and at work
		f.t.Fatalf("after %s an honest call: %s", endpoint, got)
	}
}

const modernMeta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"io.modelcontextprotocol/clientCapabilities":{"roots":{}},"io.modelcontextprotocol/logLevel":"info","progressToken":1}`

// messages are honest messages of every method, of both kinds of revision.
var messages = map[string][]string{
	"2026-07-28": {
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"a":{"b":[1]}},"inputResponses":{"r":{"x":1}},"requestState":"s",` + modernMeta + `}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"c",` + modernMeta + `}}`,
		`{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{` + modernMeta + `}}`,
		`{"jsonrpc":"2.0","id":1,"method":"resources/list","params":{"cursor":"c",` + modernMeta + `}}`,
		`{"jsonrpc":"2.0","id":1,"method":"resources/templates/list","params":{` + modernMeta + `}}`,
		`{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///a",` + modernMeta + `}}`,
		`{"jsonrpc":"2.0","id":1,"method":"prompts/list","params":{` + modernMeta + `}}`,
		`{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"p","arguments":{"a":"b"},` + modernMeta + `}}`,
		`{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"a","value":"v"},"context":{"arguments":{"x":"y"}},` + modernMeta + `}}`,
		`{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["file:///a"]},` + modernMeta + `}}`,
		`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1,"reason":"r",` + modernMeta + `}}`,
	},
	"2025-11-25": {
		`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"roots":{"listChanged":true}},"clientInfo":{"name":"c","version":"1"}}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"a":1},"_meta":{"progressToken":1}}}`,
		`{"jsonrpc":"2.0","id":1,"method":"ping"}`,
		`{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":"file:///a"}}`,
		`{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"info"}}`,
		`{"jsonrpc":"2.0","method":"notifications/initialized"}`,
		`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1,"total":2,"message":"m"}}`,
		`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1,"reason":"r"}}`,
		`{"jsonrpc":"2.0","id":1,"result":{"roots":[]}}`,
		`{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m","data":{}}}`,
	},
}

// mirror sets the headers of a message as an honest client would, of whatever
// the message says.
func mirror(h http.Header, text string) {
	var m struct {
		Method any `json:"method"`
		Params any `json:"params"`
	}
	if json.Unmarshal([]byte(text), &m) != nil {
		return
	}
	if s, ok := m.Method.(string); ok {
		h["Mcp-Method"] = []string{"=?base64?" + base64.StdEncoding.EncodeToString([]byte(s)) + "?="}
		if plain := strings.Trim(s, "abcdefghijklmnopqrstuvwxyzTL/_") == "" && s != ""; plain {
			h["Mcp-Method"] = []string{s}
		}
	}
	params, _ := m.Params.(map[string]any)
	for _, name := range []string{"name", "uri"} {
		if s, ok := params[name].(string); ok {
			h["Mcp-Name"] = []string{"=?base64?" + base64.StdEncoding.EncodeToString([]byte(s)) + "?="}
		}
	}
}

// TestEveryFieldOfEveryEndpoint, DO9: whatever is null, missing or of another type,
// the answer is a refusal, never a fault, and the server lives.
func TestEveryFieldOfEveryEndpoint(t *testing.T) {
	t.Parallel()
	f := &fuzzed{tapWorld: newTapWorld(t), t: t, passed: map[string]int{}}
	f.tap.t = t
	f.callTap("echo", `{}`)

	for revision, all := range messages {
		for _, message := range all {
			endpoint := "the gateway, " + revision + ", " + message[:min(60, len(message))]
			f.send(endpoint, append(mutants(t, message), mutant{asItIs, message}), func(m mutant) answer {
				proof, err := credential.SignProof(f.tapper.signer, http.MethodPost, f.tapURL(), "", f.tapWorld.token, f.Clock.Now())
				if err != nil {
					t.Error(err)
				}
				q := &call{
					method: http.MethodPost, url: f.tapURL(), scheme: "DPoP", token: f.tapWorld.token, proofs: []string{proof}, body: m.text,
					header: http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}, "Mcp-Protocol-Version": {revision}},
				}
				if revision == "2026-07-28" {
					mirror(q.header, m.text)
				}
				return f.sendCall(q)
			})
		}
	}
	f.seen()

	form := func(name string) func(m mutant) answer {
		return func(m mutant) answer { q := f.tokenRequest(f.payroll); q.Form.Set(name, m.text); return f.sendToken(q) }
	}
	details := `[{"type":"` + counterfoil.DetailType + `","locations":["` + f.BankURL() + `"],"actions":["get_balance"],"tool":"get_balance"}]`
	f.send("authorization_details", mutants(t, details), form("authorization_details"))
	for _, name := range []string{"grant_type", "client_assertion_type", "client_assertion", "client_id", "resource", "scope", "task", "authorization_details", "audience", "subject_token", "requested_token_type"} {
		f.send(name, mutants(t, `"x"`), form(name))
	}
	// Header and claims, honestly signed.
	part := func(of func(q *tokenRequest) *jwt, claims bool) (string, func(m mutant) answer) {
		j := of(f.tokenRequest(f.payroll))
		document := j.Header
		if claims {
			document = j.Claims
		}
		b, err := json.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		return string(b), func(m mutant) answer {
			q := f.tokenRequest(f.payroll)
			text := m.text
			// Times and ids are those of the moment, where the mutant has them at all.
			if claims {
				for _, name := range []string{"iat", "exp", "jti"} {
					old, _ := json.Marshal(document[name])
					now, _ := json.Marshal(of(q).Claims[name])
					text = strings.Replace(text, `"`+name+`":`+string(old), `"`+name+`":`+string(now), 1)
				}
				of(q).RawClaims = text
			} else {
				of(q).RawHeader = text
			}
			return f.sendToken(q)
		}
	}
	assertion := func(q *tokenRequest) *jwt { return &q.Assertion }
	proof := func(q *tokenRequest) *jwt { return &q.Proof }
	for _, p := range []struct {
		name   string
		of     func(q *tokenRequest) *jwt
		claims bool
	}{{"an assertion's header", assertion, false}, {"an assertion's claims", assertion, true}, {"a proof's header", proof, false}, {"a proof's claims", proof, true}} {
		document, send := part(p.of, p.claims)
		f.send(p.name, append(mutants(t, document), mutant{asItIs, document}), send)
	}
	// A token's, signed by the issuer itself.
	for _, claims := range []bool{false, true} {
		honest := f.forgeToken()
		document := honest.Header
		if claims {
			document = honest.Claims
		}
		b, err := json.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		f.send("a token", mutants(t, string(b)), func(m mutant) answer {
			j := jwt{Header: honest.Header, Claims: honest.Claims, Signer: honest.Signer}
			if claims {
				j.RawClaims = m.text
			} else {
				j.RawHeader = m.text
			}
			compact := j.Compact(t)
			proof, err := credential.SignProof(f.payroll.signer, http.MethodPost, f.BankURL(), "", compact, f.Clock.Now())
			if err != nil {
				t.Error(err)
			}
			return f.sendCall(&call{
				method: http.MethodPost, url: f.BankURL(), scheme: "DPoP", token: compact, proofs: []string{proof}, body: counterfoiltest.Body("list_payees", `{}`),
				header: http.Header{
					"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}, "Mcp-Protocol-Version": {"2026-07-28"},
					"Mcp-Method": {"tools/call"}, "Mcp-Name": {"list_payees"},
				},
			})
		})
	}
	f.send("/enroll", mutants(t, `{"agent":"payroll","code":"cfe_x"}`), func(m mutant) answer {
		r := f.post(f.Issuer()+"/enroll", "application/json", m.text)
		proof := counterfoiltest.ForgeProof(t, f.stranger, http.MethodPost, f.Issuer()+"/enroll", f.Clock.Now())
		r.Header.Set("DPoP", proof.Compact(t))
		return f.do(r)
	})

	admin := func(method, path string) func(m mutant) answer {
		return func(m mutant) answer { return f.adminText(method, path, m.text) }
	}
	f.Apply("kind: Agent\nname: dummy\nowner: ana\nenvironment: prod\n")
	f.send("apply", mutants(t, `{"files":[{"name":"x.yaml","data":"kind: Nothing"}],"dry_run":true}`), admin("POST", "/api/v1/apply"))
	for _, document := range manifests {
		f.send("a manifest", mutants(t, document), func(m mutant) answer {
			body, err := json.Marshal(map[string]any{"files": []any{map[string]any{"name": "x.yaml", "data": m.text}}, "dry_run": true})
			if err != nil {
				t.Error(err)
			}
			return f.adminText("POST", "/api/v1/apply", string(body))
		})
	}
	for _, name := range []string{"dummy", "nobody", "Bad%20Name", "%00"} {
		for _, verb := range []string{"suspend", "resume", "enroll-code", "offboard"} {
			f.send(verb, mutants(t, `{"reason":"r"}`), admin("POST", "/api/v1/agents/"+name+"/"+verb))
		}
		for _, path := range []string{"/api/v1/agents/" + name, "/api/v1/agents/" + name + "/instances", "/api/v1/" + name, "/api/v1/policies/" + name} {
			f.send("GET "+path, []mutant{{path, "{}"}}, func(mutant) answer { return f.admin("GET", path, nil) })
		}
		f.send("DELETE", mutants(t, `{}`), admin("DELETE", "/api/v1/classes/"+name))
	}
	f.send("rotate", []mutant{{"null", `{"emergency":null}`}, {"a text", `{"emergency":"x"}`}, {"a list", `[]`}, {"another name", `{"Emergency":true}`}}, admin("POST", "/api/v1/keys/rotate"))
	for _, index := range []string{"-1", "1e3", "9223372036854775807", "9223372036854775808", "x", "%00", "0x1", "01", "+1"} {
		for _, path := range []string{"/api/v1/ledger/entries/" + index, "/api/v1/ledger/receipts/" + index} {
			f.send("GET "+path, []mutant{{path, ""}}, func(mutant) answer { return f.admin("GET", path, nil) })
		}
		for _, name := range []string{"from", "limit", "since", "kind", "agent", "tool", "code", "request_id", "nothing"} {
			path := "/api/v1/ledger/entries?" + name + "=" + index
			f.send("GET "+path, []mutant{{path, ""}}, func(mutant) answer { return f.admin("GET", path, nil) })
		}
	}
	for _, path := range []string{"/ledger/tile/0/-1", "/ledger/tile/0/x999/999", "/ledger/tile/8/000", "/ledger/tile/0/000.p/0", "/ledger/tile/0/000.p/257", "/ledger/tile/entries/000", "/ledger/tile/" + strings.Repeat("x", 4000), "/ledger/tile/0/" + strings.Repeat("x000/", 200) + "000"} {
		f.send("GET "+path, []mutant{{path, ""}}, func(mutant) answer { return f.do(f.get("GET", f.Issuer()+path)) })
	}

	t.Logf("%d mutants; passed: %v", f.sent, f.passed)
	if f.sent < 4000 {
		t.Errorf("only %d mutants were sent", f.sent)
	}
	if log := f.Log.String(); strings.Contains(log, "panic") {
		i := strings.Index(log, "panic")
		t.Errorf("something panicked: %s", log[max(0, i-200):min(len(log), i+4000)])
	}
	f.seen()
	f.Entries() // the record verifies
}

// adminText sends a text to the administration socket, whatever it is.
func (w *world) adminText(method, path, text string) answer {
	w.T.Helper()
	socket, err := daemon.FindSocket(w.Dir)
	if err != nil {
		w.T.Error(err)
		return answer{}
	}
	r, err := http.NewRequestWithContext(w.T.Context(), method, "http://admin"+path, strings.NewReader(text))
	if err != nil {
		w.T.Error(err)
		return answer{}
	}
	r.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	resp, err := client.Do(r)
	if err != nil {
		w.T.Error(err)
		return answer{}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.T.Error(err)
	}
	return read(resp.StatusCode, resp.Header, body)
}

// manifests are documents of every kind with every member, as JSON, which YAML is
// a superset of.
var manifests = []string{
	`{"kind":"Person","name":"zoe","email":"zoe@example.com","groups":["g"],"roles":["admin"]}`,
	`{"kind":"Class","name":"wipe","tier":"irreversible","approvers":[["a"],["b"]],"window":"15m","template":"Wipe {{.a}}","limits":[{"sum":"amount","per":"agent","window":"24h","max":"100"}],"payload":"full","owner_may_approve":true,"authenticators":["00000000-0000-0000-0000-000000000001"],"insecure_lower_tier":false}`,
	`{"kind":"Resource","name":"files","type":"mcp","environment":"prod","upstream":"http://127.0.0.1:1/mcp","binding":"require","public_url":"https://files.example/mcp","credential":{"header":"Authorization","prefix":"Bearer ","file":"t"},"resources":"read","prompts":"read","tools":[{"name":"wipe","class":"read","fields":{"amount":"/amount"}}]}`,
	`{"kind":"Resource","name":"web","type":"http","environment":"prod","upstream":"http://127.0.0.1:1","tools":[{"name":"get","method":"GET","path":"/a/{id}","class":"read","fields":{"id":"/id"}}]}`,
	`{"kind":"Agent","name":"fuzz","owner":"ana","purpose":"p","environment":"prod","keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"k"}],"proof_keys":"any","workloads":[{"issuer":"https://i.example","subject":"s","audience":"a"}],"grants":[{"tools":["bank/get_balance"],"networks":["127.0.0.0/8"],"when":"context.hour > 1"}],"tasks":{"max_duration":"1h","max_calls":10,"required":false}}`,
	`{"kind":"Policy","name":"night","cedar":"forbid (principal, action == Action::\"call\", resource);"}`,
}
