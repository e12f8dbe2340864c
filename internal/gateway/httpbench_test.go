package gateway_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/gateway"
)

// instantly answers every request at once, without a connection.
type instantly struct{}

func (instantly) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return nil, err
		}
	}
	const answer = `{"balance":"12.50"}`
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r, ContentLength: int64(len(answer)),
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(answer)),
	}, nil
}

// BenchmarkHTTPCall measures what a call over HTTP costs the gateway, as BenchmarkAdmit
// measures one over MCP.
//
//	get         a path and a query
//	post        a body of JSON
//	credential  get, with a credential for the upstream: an entry more, and the answer
//	            is masked
func BenchmarkHTTPCall(b *testing.B) {
	raw := rawVerifications(b, make([]byte, 600))["ES256"]
	b.Run("get", func(b *testing.B) { benchmarkHTTP(b, "GET", "/customers/search?q=acme", "", false, raw) })
	b.Run("post", func(b *testing.B) {
		benchmarkHTTP(b, "POST", "/customers/7/notes", `{"text":"called","n":1}`, false, raw)
	})
	b.Run("credential", func(b *testing.B) { benchmarkHTTP(b, "GET", "/customers/search?q=acme", "", true, raw) })
}

func benchmarkHTTP(b *testing.B, method, target, body string, credential bool, raw func()) {
	o, c := newCRM(b, nil, func(_ *office, reg *counterfoil.Registry, cfg *gateway.Config) {
		cfg.Transport = instantly{}
		cfg.Rate = 1e9 // the clock stands still
		if !credential {
			reg.Resources["crm"].Credential = nil
		}
	})
	signed := c.call(method, target, body, nil)
	token := strings.TrimPrefix(signed.Header.Get("Authorization"), "DPoP ")
	path, _, _ := strings.Cut(target, "?")
	request := func() *http.Request {
		r := httptest.NewRequest(method, "/r/crm"+target, strings.NewReader(body))
		if body != "" {
			r.Header.Set("Content-Type", "application/json")
		} else {
			r.Body, r.ContentLength = http.NoBody, 0
		}
		r.Header.Set("Authorization", "DPoP "+token)
		r.Header.Set("DPoP", c.proof(method, c.audience()+path, token))
		r.RemoteAddr = "127.0.0.1:40000" // a network of the grant
		return r
	}
	first := httptest.NewRecorder()
	o.gateway.ServeHTTP(first, request()) // fills what is kept: the token, the tools
	if first.Code != http.StatusOK || !strings.Contains(first.Body.String(), "12.50") {
		b.Fatalf("HTTP %d %s", first.Code, first.Body)
	}
	requests := make([]*http.Request, b.N)
	for i := range requests {
		requests[i] = request()
	}
	m := measured{b: b, callers: admitCallers}
	b.ReportAllocs()
	b.ResetTimer()
	const block = 2000
	for from := 0; from < b.N; from += block {
		to := min(from+block, b.N)
		m.spent += m.each(from, to, func(i int) {
			rec := httptest.NewRecorder()
			o.gateway.ServeHTTP(rec, requests[i])
			if rec.Code != http.StatusOK {
				b.Errorf("HTTP %d %s", rec.Code, rec.Body)
			}
		})
		b.StopTimer()
		m.base += m.each(from, to, func(int) { raw(); raw() })
		b.StartTimer()
	}
	b.ReportMetric(float64(m.spent)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(m.spent)/float64(m.base), "x-raw")
}
