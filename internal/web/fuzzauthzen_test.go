package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/policy"
)

// Whatever a question is, it is refused, or says of each of its parts what was sent.
func FuzzAuthZENQuestion(f *testing.F) {
	f.Add(`{"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"record","id":"1"}}`)
	f.Add(`{"subject":{"type":"agent","id":"a"},"action":{"name":"call","properties":{"arguments":{}}},"resource":{"type":"tool","id":"a/b"},"context":{"task":"t","address":"::1","arguments":{}}}`)
	f.Add(`{"subject":{"type":"user","id":"a","properties":null},"evaluations":[{},1],"options":{"evaluations_semantic":"x"}}`)
	f.Add(`{"context":{"authzen_access_request_approval":{"id":"apr_"}},"denial":{"access_request":{"request_context":"x"}}}`)
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest(http.MethodPost, authzenEvaluation, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		m, err := readAuthZEN(r)
		if err != nil {
			wantRefusal(t, err)
			return
		}
		if _, err := denialOf(m); err != nil {
			wantRefusal(t, err)
		}
		if b, err := parseBatch(m); err != nil {
			wantRefusal(t, err)
		} else if len(b.items) > maxEvaluations {
			t.Errorf("%d questions", len(b.items))
		}
		q, err := parseQuestion(m)
		if err != nil {
			wantRefusal(t, err)
			return
		}
		if q.Subject.Type == "" || q.Subject.ID == "" || q.Action == "" || q.Resource.Type == "" || q.Resource.ID == "" {
			t.Errorf("%q: %+v", body, q)
		}
		for _, text := range [][]byte{q.Subject.Properties, q.ActionProperties, q.Resource.Properties, q.Context} {
			if text != nil && (text[0] != '{' || ijson.Check(text) != nil) {
				t.Errorf("%q: %q is no object", body, text)
			}
		}
		s, err := q.statement()
		if err != nil {
			wantRefusal(t, err)
			return
		}
		if s.Agent != q.Subject.ID || s.Tool.String() != q.Resource.ID || s.Arguments != nil && s.Arguments[0] != '{' {
			t.Errorf("%q: %+v", body, s)
		}
		_, d := (*policy.Set)(nil).Inquire("edge", q.Inquiry)
		if d.Allow {
			t.Error("nothing allows")
		}
	})
}

func wantRefusal(t *testing.T, err error) {
	t.Helper()
	if _, ok := counterfoil.AsRefusal(err); !ok {
		t.Errorf("%v is no refusal", err)
	}
}
