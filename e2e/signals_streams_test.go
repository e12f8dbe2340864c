package e2e

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// The management of a stream over HTTP, step by step, each refusal beside what is
// taken (SSF 1.0, Section 8.1).
func TestStreamsOverHTTP(t *testing.T) {
	t.Parallel()
	sys := counterfoiltest.New(t)
	watch := watching(t, sys, `{push: ["http://127.0.0.1:9/one", "http://127.0.0.1:9/two"]}`)
	stranger := viewer{t, sys, sys.Agent("payroll").For(sys.Issuer())}
	push := func(url string) object {
		return object{"delivery": object{"method": "urn:ietf:rfc:8935", "endpoint_url": url, "authorization_header": "Bearer s3cr3t"}}
	}
	const revoked = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
	var s streamView
	id := func(more object) object {
		more["stream_id"] = s.ID
		return more
	}
	step := func(v viewer, method, path string, in any, want int) {
		t.Helper()
		if got := v.do(method, path, in, nil); got != want {
			t.Errorf("%s %s %v: %d, want %d", method, path, in, got, want)
		}
	}
	step(stranger, "POST", "/ssf/streams", object{}, 403)
	step(stranger, "GET", "/ssf/streams", nil, 403)
	step(watch, "POST", "/ssf/streams", push("http://127.0.0.1:9/three"), 403)
	step(watch, "POST", "/ssf/streams", push("http://169.254.169.254/"), 403)
	step(watch, "POST", "/ssf/streams", object{"delivery": object{"method": "carrier pigeon"}}, 400)
	step(watch, "POST", "/ssf/streams", object{"events_requested": []string{}}, 400)
	step(watch, "POST", "/ssf/streams?x=1", object{}, 400)
	step(watch, "POST", "/ssf/streams", []int{}, 400)
	var none []streamView
	if status := watch.do("GET", "/ssf/streams", nil, &none); status != 200 || none == nil || len(none) != 0 {
		t.Errorf("no stream: %d, %v", status, none)
	}
	if status := watch.do("POST", "/ssf/streams", push("http://127.0.0.1:9/one"), &s); status != 201 {
		t.Fatalf("control: %d", status)
	}
	step(watch, "POST", "/ssf/streams", object{}, 409)
	again, err := http.NewRequestWithContext(t.Context(), "POST", sys.Issuer()+"/ssf/streams", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	again.Header.Set("Content-Type", "application/json")
	second, err := watch.at.Client().Do(again)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Body.Close()
	var why object
	err = json.NewDecoder(second.Body).Decode(&why)
	if id, _ := why["request_id"].(string); err != nil || second.Header.Get("Content-Type") != "application/problem+json" || second.Header.Get("WWW-Authenticate") != "" ||
		why["code"] != "request_malformed" || why["status"] != 409.0 || why["detail"] != "the agent has a stream: change it, or delete it first" || id == "" {
		t.Errorf("a second stream: %v %v (%v)", second.Header, why, err)
	}
	step(watch, "GET", "/ssf/streams?stream_id="+s.ID, nil, 200)
	step(watch, "GET", "/ssf/streams?stream_id=str_other", nil, 404)
	step(watch, "GET", "/ssf/streams?stream_id=a&stream_id=b", nil, 400)
	step(watch, "GET", "/ssf/streams?other=a", nil, 400)

	read := func() (raw object) {
		t.Helper()
		if status := watch.do("GET", "/ssf/streams?stream_id="+s.ID, nil, &raw); status != 200 {
			t.Errorf("read: %d", status)
		}
		if b, _ := json.Marshal(raw); strings.Contains(string(b), "s3cr3t") {
			t.Errorf("the secret is shown again: %s", b)
		}
		return raw
	}
	step(watch, "PATCH", "/ssf/streams", object{"description": "x"}, 400) // of which stream?
	step(watch, "PATCH", "/ssf/streams", id(object{"iss": "https://evil.example"}), 400)
	step(watch, "PATCH", "/ssf/streams", id(object{"aud": "payroll"}), 400)
	step(watch, "PATCH", "/ssf/streams", id(object{"delivery": object{"method": "urn:ietf:rfc:8935", "endpoint_url": "http://127.0.0.1:9/three"}}), 403)
	step(watch, "PATCH", "/ssf/streams", id(object{"description": "mine", "iss": sys.Issuer(), "aud": "watch", "events_requested": []string{revoked}}), 200)
	if got := read(); got["description"] != "mine" || len(got["events_delivered"].([]any)) != 1 || got["delivery"].(object)["endpoint_url"] != "http://127.0.0.1:9/one" {
		t.Errorf("after PATCH: %v", got)
	}
	step(watch, "PUT", "/ssf/streams", id(object{}), 200)
	if got := read(); got["description"] != nil || len(got["events_delivered"].([]any)) != 5 || got["delivery"].(object)["method"] != "urn:ietf:rfc:8936" {
		t.Errorf("after PUT: %v", got)
	}
	step(watch, "GET", "/ssf/status?stream_id="+s.ID, nil, 200)
	step(watch, "GET", "/ssf/status", nil, 400)
	step(watch, "GET", "/ssf/status?stream_id=str_other", nil, 404)
	step(watch, "POST", "/ssf/status", id(object{"status": "gone"}), 400)
	step(watch, "POST", "/ssf/status", object{"status": "paused"}, 400)
	step(watch, "POST", "/ssf/status", id(object{"status": "paused", "reason": "later"}), 200)
	step(watch, "POST", "/ssf/verify", id(object{"state": strings.Repeat("x", 300)}), 400)
	step(watch, "POST", "/ssf/verify", object{}, 400)
	step(watch, "POST", "/ssf/subjects:add", id(object{"subject": object{"format": "email", "email": "a@b.example"}}), 200)
	step(watch, "POST", "/ssf/subjects:remove", id(object{"subject": object{"format": "email", "email": "a@b.example"}}), 204)
	step(watch, "POST", "/ssf/subjects:add", id(object{}), 400)
	step(watch, "POST", "/ssf/poll/"+s.ID, object{"maxEvents": -1, "returnImmediately": true}, 400)
	step(watch, "POST", "/ssf/poll/str_other", object{"returnImmediately": true}, 404)
	step(watch, "DELETE", "/ssf/streams", nil, 404)
	step(watch, "DELETE", "/ssf/streams?stream_id=str_other", nil, 404)
	step(watch, "DELETE", "/ssf/streams?stream_id="+s.ID, nil, 204)
	step(watch, "DELETE", "/ssf/streams?stream_id="+s.ID, nil, 404)
	step(watch, "POST", "/ssf/streams", object{}, 201)
	for _, e := range sys.Entries() {
		if b, _ := ledger.Encode(e); strings.Contains(string(b), "s3cr3t") {
			t.Errorf("entry %d holds the secret", e.Index)
		}
	}
	if strings.Contains(sys.Log.String(), "s3cr3t") {
		t.Error("the log holds the secret")
	}
	sys.CheckLedger()
}

// What an administrator takes and what an agent does are told as the table of events
// says, from the entries as the server really writes them.
func TestRevocationsAreTold(t *testing.T) {
	t.Parallel()
	sys := counterfoiltest.New(t)
	watch := watching(t, sys, "{}")
	one, two := sys.Agent("payroll"), sys.Agent("payroll")
	var s streamView
	if status := watch.do("POST", "/ssf/streams", object{}, &s); status != 201 {
		t.Fatalf("a stream: %d", status)
	}
	take := func() []string {
		t.Helper()
		var a struct{ Sets map[string]string }
		if status := watch.do("POST", "/ssf/poll/"+s.ID, object{"returnImmediately": true}, &a); status != 200 {
			t.Fatalf("poll: %d", status)
		}
		var out, ids []string
		for id, set := range a.Sets {
			ids = append(ids, id)
			b, err := base64.RawURLEncoding.DecodeString(strings.Split(set, ".")[1])
			if err != nil {
				t.Fatal(err)
			}
			var claims struct {
				Subject json.RawMessage `json:"sub_id"`
				Events  map[string]struct {
					Change string `json:"change_type"`
				}
			}
			if err := json.Unmarshal(b, &claims); err != nil {
				t.Fatal(err)
			}
			for kind, own := range claims.Events {
				out = append(out, strings.TrimSpace(kind[strings.LastIndexByte(kind, '/')+1:]+" "+own.Change)+" "+string(claims.Subject))
			}
		}
		if status := watch.do("POST", "/ssf/poll/"+s.ID, object{"returnImmediately": true, "ack": ids}, nil); status != 200 {
			t.Fatalf("acknowledging: %d", status)
		}
		slices.Sort(out)
		return out
	}
	want := func(what string, events ...string) {
		t.Helper()
		slices.Sort(events)
		if got := take(); !slices.Equal(got, events) {
			t.Errorf("%s: told\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(events, "\n"))
		}
	}
	revoke := func(kind, id string) {
		t.Helper()
		if status, b := sys.Admin("POST", "/api/v1/revocations", object{"kind": kind, "id": id, "reason": "a test"}); status/100 != 2 {
			t.Fatalf("revoking %s: %d %s", kind, status, b)
		}
	}
	plain := `{"format":"iss_sub","iss":"` + sys.Issuer() + `","sub":"payroll"}`
	app := `{"application":` + plain + `,"format":"complex"}`
	within := func(id string) string {
		return `{"application":` + plain + `,"format":"complex","session":{"format":"opaque","id":"` + id + `"}}`
	}
	gone := []string{"session-revoked " + app, "session-revoked " + plain, "account-disabled " + plain}

	want("nothing yet")
	third := sys.Agent("payroll")
	want("a key", "credential-change create "+plain)

	claims := func(token string) (jti string) {
		b, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
		var c struct{ JTI string }
		if err != nil || json.Unmarshal(b, &c) != nil {
			t.Fatal("the token cannot be read")
		}
		return c.JTI
	}
	jti := claims(one.Token())
	revoke("token", jti)
	want("a token", `session-revoked {"format":"jwt_id","iss":"`+sys.Issuer()+`","jti":"`+jti+`"}`)
	revoke("key", two.Signer.Public().Thumbprint())
	want("a key that is revoked", "credential-change revoke "+plain)
	revoke("instance", third.Instance)
	want("an instance", "credential-change revoke "+plain)

	worker := viewer{t, sys, sys.Agent("payroll").For(sys.Issuer())}
	take()
	var task struct{ ID string }
	if status := worker.do("POST", "/tasks", object{"purpose": "a test"}, &task); status != http.StatusCreated {
		t.Fatalf("a task: %d", status)
	}
	want("a task that is open")
	if status := worker.do("POST", "/tasks/"+task.ID+"/complete", object{}, nil); status != 200 {
		t.Fatalf("completing: %d", status)
	}
	want("a task that is done", "session-revoked "+within(task.ID))
	revoke("agent", "payroll")
	want("an agent", gone...)
	sys.Resume("payroll")
	want("an agent that is back")
	revoke("resource", "bank")
	want("a resource", `session-revoked {"format":"uri","uri":"`+sys.BankURL()+`"}`)
	sys.Offboard("payroll")
	want("an agent that is offboarded", gone...)
	sys.CheckLedger()
}

// A key for events is published with its algorithm beside those of tokens as soon as
// there is a stream, and no token is signed with it.
func TestEventKeysArePublished(t *testing.T) {
	t.Parallel()
	sys := counterfoiltest.New(t)
	watch := watching(t, sys, "{}")
	if status := watch.do("POST", "/ssf/streams", object{}, nil); status != http.StatusCreated {
		t.Fatalf("a stream: %d", status)
	}
	resp, err := http.Get(sys.Issuer() + "/oauth/jwks")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var set struct{ Keys []map[string]string }
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil {
		t.Fatal(err)
	}
	algs := map[string]int{}
	kids := map[string]string{}
	for _, k := range set.Keys {
		algs[k["alg"]]++
		kids[k["kid"]] = k["alg"]
	}
	if algs[credential.ES256] == 0 || algs[credential.RS256] == 0 || len(algs) != 2 {
		t.Errorf("published: %v", algs)
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(sys.Agent("payroll").Token(), ".")[0])
	var head struct{ Kid, Alg string }
	if err != nil || json.Unmarshal(b, &head) != nil || kids[head.Kid] != credential.ES256 {
		t.Errorf("a token by %+v: %v", head, err)
	}
}
