package web_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
)

func local(method, path string) func(edit ...string) answerer {
	return func(edit ...string) answerer {
		return func(s *system) answer {
			r := httptest.NewRequest(method, path, nil)
			r.RemoteAddr = "127.0.0.1:1"
			for i := 0; i+1 < len(edit); i += 2 {
				if edit[i] == "peer" {
					r.RemoteAddr = edit[i+1]
					continue
				}
				r.Header.Set(edit[i], edit[i+1])
			}
			return serve(s.handlers.Management, r)
		}
	}
}

type answerer func(*system) answer

func TestHealthIsForThisMachine(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		get := local("GET", path)
		if a := get()(s); a.status != 200 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		if a := get("peer", "[::1]:5")(s); a.status != 200 {
			t.Errorf("%s over IPv6: %d", path, a.status)
		}
		for _, header := range [][]string{
			{"peer", "192.0.2.1:1"}, {"peer", "@"}, {"X-Forwarded-For", "127.0.0.1"}, {"Forwarded", "for=127.0.0.1"}, {"Via", "1.1 proxy"},
		} {
			wantProblem(t, get(header...)(s), 404, counterfoil.ToolUnknown)
		}
		// Whoever reaches the metrics listener may see it.
		r := httptest.NewRequest("GET", path, nil)
		if a := serve(s.handlers.Metrics, r); a.status != 200 {
			t.Errorf("%s on the metrics listener: %d", path, a.status)
		}
	}
	s.reasons = []string{"ledger: the disk is full"}
	if a := local("GET", "/readyz")()(s); a.status != 503 || !strings.Contains(a.body, "the disk is full") || a.member("ready") != "false" {
		t.Errorf("not ready: %d %s", a.status, a.body)
	}
	if a := local("GET", "/healthz")()(s); a.status != 200 {
		t.Errorf("alive and not ready: %d", a.status)
	}
}

// TestManagementNeedsASession: whoever has none is told that and nothing else, of
// what there is and of what there is not.
func TestManagementNeedsASession(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	for _, path := range []string{"/api/v1/agents", "/api/v1/apply", "/api/v1/approvals/x/signatures"} {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			wantProblem(t, local(method, path)()(s), 401, counterfoil.SessionRequired)
		}
		wantProblem(t, local("POST", path)("Origin", "http://evil.example")(s), 403, counterfoil.OriginForbidden)
		wantProblem(t, local("POST", path)("Origin", "null")(s), 403, counterfoil.OriginForbidden)
		wantProblem(t, local("POST", path)("Sec-Fetch-Site", "cross-site")(s), 403, counterfoil.OriginForbidden)
		wantProblem(t, local("POST", path)("Origin", "http://localhost:8421", "Sec-Fetch-Site", "same-origin")(s), 401, counterfoil.SessionRequired)
	}
	// The administration API is not here, whatever the path is spelled like.
	for _, path := range []string{"/api/v1/../v1/apply", "/api//v1/apply", "/oauth/token", "/ledger/tile/0/000", "/api"} {
		wantProblem(t, local("POST", path)()(s), 404, counterfoil.ToolUnknown)
	}
}

func TestCountersHaveOneSeriesACode(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	for i := range 50 {
		s.token(k, claim("sub", strings.Repeat("x", i+1)), claim("iss", strings.Repeat("x", i+1)))
		s.get("/unknown/" + strings.Repeat("y", i+1))
	}
	a := local("GET", "/metrics")()(s)
	series := 0
	for line := range strings.Lines(a.body) {
		if strings.HasPrefix(line, "counterfoil_refusals_total{") {
			series++
		}
	}
	if series != 2 || !strings.Contains(a.body, `counterfoil_refusals_total{code="client_refused"} 50`) ||
		!strings.Contains(a.body, `counterfoil_refusals_total{code="tool_unknown"} 50`) {
		t.Errorf("metrics:\n%s", a.body)
	}
}
