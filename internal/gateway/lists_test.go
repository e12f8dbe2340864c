package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestNobodyIsToldThatAnAnswerIsPublic: what an agent is shown depends on its
// grants, in every revision. A member that a revision does not know is not added
// to it.
func TestNobodyIsToldThatAnAnswerIsPublic(t *testing.T) {
	t.Parallel()
	for _, method := range []struct{ name, params, result string }{
		{"tools/list", "", `"tools":[]`},
		{"prompts/list", "", `"prompts":[]`},
		{"resources/list", "", `"resources":[]`},
		{"resources/templates/list", "", `"resourceTemplates":[]`},
		{"resources/read", `,"params":{"uri":"file:///a"}`, `"contents":[]`},
	} {
		for _, sent := range []string{"public", ""} {
			t.Run(method.name+" "+sent, func(t *testing.T) {
				t.Parallel()
				result := `{` + method.result + `}`
				if sent != "" {
					result = `{` + method.result + `,"cacheScope":"` + sent + `"}`
				}
				w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
					rw.Header().Set("Content-Type", "application/json")
					io.WriteString(rw, `{"jsonrpc":"2.0","id":1,"result":`+result+`}`)
				}), nil)
				r := w.actor("payroll").post(`{"jsonrpc":"2.0","id":1,"method":"`+method.name+`"`+method.params+`}`, nil)
				wantDone(t, r)
				if strings.Contains(r.body, "public") || strings.Contains(r.body, `"cacheScope":"private"`) != (sent != "") || !strings.Contains(r.body, method.result) {
					t.Errorf("the client is told %s", r.body)
				}
			})
		}
	}
}
