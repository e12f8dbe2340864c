package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// A cookie that is taken for a session's holds exactly a handle, spelled in one way, and
// there is no second one.
func FuzzSessionCookie(f *testing.F) {
	m := &management{Config: Config{ManagementURL: "http://localhost:8421", Dev: true, Now: time.Now}, sessions: newSessions()}
	id := counterfoil.NewHandle(counterfoil.HandleSession).Reveal()
	for _, s := range []string{
		"counterfoil_session=" + id, "counterfoil_session=" + id + "; counterfoil_session=" + id, "counterfoil_session=\"" + id + "\"",
		"counterfoil_session=" + id + "=", "counterfoil_session=", "a=b; counterfoil_session=" + id, "counterfoil_session=" + id[:36] + "7", ";;=;",
		"counterfoil_session=" + id + ";counterfoil_session", "__Host-counterfoil_session=" + id,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, cookie string) {
		r := &http.Request{Header: http.Header{"Cookie": {cookie}}}
		id, ok := m.sessionID(r)
		if !ok {
			return
		}
		text := string(id)
		same := 0
		for pair := range strings.SplitSeq(cookie, ";") {
			if strings.Trim(pair, " \t") == "counterfoil_session="+text {
				same++
			}
		}
		if !counterfoil.CheckHandle(counterfoil.HandleSession, text) || !strings.Contains(cookie, text) || same > 1 {
			t.Errorf("%q is taken for the session %q", cookie, text)
		}
		// Nobody is logged in by guessing.
		if _, err := m.session(r); counterfoil.CodeOf(err) != counterfoil.SessionRequired {
			t.Errorf("%q: %v", cookie, err)
		}
	})
}

// A body that is taken is one object of known members, none null, and its credential
// is what two readers read alike.
func FuzzCredentialBody(f *testing.F) {
	for _, s := range []string{
		`{"decision":"approve","credential":{"id":"AA","rawId":"AA","type":"public-key","response":{}}}`,
		`{"decision":"approve","reason":"x","credential":{}}`, `{"decision":null}`, `{"credential":null}`, `{"decision":"approve","decision":"deny"}`,
		`{"decision":"approve","Decision":"deny"}`, `{"credential":{"id":"a","id":"b"}}`, `[]`, `null`, `{}`, `{"__proto__":{}}`, `{"credential":[[[[]]]]}`,
		`{"credential":9007199254740993}`, "{\"decision\":\"\xff\"}",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		var v signatureBody
		if err := readInto(httptest.NewRecorder(), r, &v); err != nil {
			if refusal, ok := counterfoil.AsRefusal(err); !ok || refusal.Code.Wire().Status >= 500 {
				t.Errorf("%q: %v", body, err)
			}
			return
		}
		members, err := ijson.Members([]byte(body))
		if err != nil {
			t.Fatalf("%q is taken: %v", body, err)
		}
		for name, value := range members {
			if name != "decision" && name != "reason" && name != "credential" || jsontext.Value(value).Kind() == 'n' {
				t.Errorf("%q is taken with %q", body, name)
			}
		}
		if len(v.Credential) > 0 && ijson.Check(v.Credential) != nil {
			t.Errorf("the credential %q is handed on", v.Credential)
		}
	})
}
