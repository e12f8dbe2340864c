package authz_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/go-json-experiment/json"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authz"
	"github.com/counterfoil/counterfoil/internal/web"
)

// A judge keeps what it is asked and answers what the test wants.
type judge struct {
	mu     sync.Mutex
	asked  []counterfoil.Question
	answer func(counterfoil.Question) counterfoil.Answer
}

func (j *judge) Ask(_ context.Context, q counterfoil.Question) counterfoil.Answer {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.asked = append(j.asked, q)
	return j.answer(q)
}

// take returns what was asked since the last time.
func (j *judge) take() []counterfoil.Question {
	j.mu.Lock()
	defer j.mu.Unlock()
	asked := j.asked
	j.asked = nil
	return asked
}

func allowed(counterfoil.Question) counterfoil.Answer {
	return counterfoil.Answer{
		Allow: true, Set: http.Header{"Authorization": {"Bearer upstream"}}, Remove: []string{"Authorization", "DPoP", "Dpop", "Cookie"},
	}
}

// A point is the listener that proxies ask, and the judge behind it.
type point struct {
	*judge
	t       *testing.T
	url     string
	client  auth.AuthorizationClient
	refused func() []counterfoil.Code
}

// newPoint listens for peers of those networks; the proxies behind which the source
// of a request is looked for are the same.
func newPoint(t *testing.T, trusted ...string) *point {
	t.Helper()
	p := &point{judge: &judge{answer: allowed}, t: t}
	proxies := make([]netip.Prefix, len(trusted))
	for i, s := range trusted {
		proxies[i] = netip.MustParsePrefix(s)
	}
	resources := map[string]*counterfoil.Resource{
		"crm":   {Name: "crm", Type: counterfoil.ResourceHTTP, PublicURL: "https://api.example.com/crm"},
		"crm-2": {Name: "crm-2", Type: counterfoil.ResourceHTTP, PublicURL: "https://api.example.com/crm-2"},
		"whole": {Name: "whole", Type: counterfoil.ResourceHTTP, PublicURL: "https://whole.example.com"},
		"ours":  {Name: "ours", Type: counterfoil.ResourceHTTP},
	}
	var mu sync.Mutex
	var codes []counterfoil.Code
	h, err := authz.New(authz.Config{
		Judge: p.judge, PublicURL: "https://agents.example.com",
		Resource: func(name string) *counterfoil.Resource { return resources[name] },
		Trusted: func(r *http.Request) bool {
			at := netip.MustParseAddrPort(r.RemoteAddr).Addr()
			for _, p := range proxies {
				if p.Contains(at) {
					return true
				}
			}
			return false
		},
		Source: web.Source(proxies), MaxBody: 1 << 10,
		Refused: func(c counterfoil.Code) { mu.Lock(); defer mu.Unlock(); codes = append(codes, c) },
	})
	if err != nil {
		t.Fatal(err)
	}
	p.refused = func() []counterfoil.Code {
		mu.Lock()
		defer mu.Unlock()
		out := codes
		codes = nil
		return out
	}
	s := httptest.NewUnstartedServer(h)
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s.Config.Protocols = protocols
	s.Start()
	t.Cleanup(s.Close)
	p.url = s.URL
	conn, err := grpc.NewClient(strings.TrimPrefix(s.URL, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p.client = auth.NewAuthorizationClient(conn)
	return p
}

const loopback = "127.0.0.0/8"

// A said is an answer in HTTP.
type said struct {
	status int
	header http.Header
	body   string
}

func (s said) code(t *testing.T) counterfoil.Code {
	t.Helper()
	var p counterfoil.Problem
	if err := json.Unmarshal([]byte(s.body), &p); err != nil {
		t.Fatalf("the answer is %q: %v", s.body, err)
	}
	if s.header.Get("Counterfoil-Code") != string(p.Code) || s.header.Get("Content-Type") != counterfoil.ProblemMedia {
		t.Errorf("the headers of %q are %v", s.body, s.header)
	}
	return p.Code
}

// send asks as a proxy does.
func (p *point) send(method, target, body string, headers ...string) said {
	p.t.Helper()
	return send(p.t, p.url, method, target, body, headers...)
}

// send writes a request as it is, line by line, so that what a client's library would
// not send is sent, too.
func send(t *testing.T, to, method, target, body string, headers ...string) said {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(to, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	lines := append([]string{method + " " + target + " HTTP/1.1", "Host: authz", "Connection: close"}, headers...)
	if _, err := io.WriteString(conn, strings.Join(append(lines, "", ""), "\r\n")+body); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return said{status: resp.StatusCode, header: resp.Header, body: string(answer)}
}

// http2 is a client that speaks HTTP/2 without TLS, as a proxy's cluster may.
func (p *point) http2() *http.Client {
	p.t.Helper()
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	p.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// post is a proxy's POST about a GET of a path that the judge knows.
func (p *point) post(path, media string, body []byte) *http.Request {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.url+path, bytes.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header = http.Header{"X-Forwarded-Method": {"GET"}, "X-Forwarded-Uri": {"/crm/x"}, "Te": {"trailers"}}
	if media != "" {
		r.Header.Set("Content-Type", media)
	}
	return r
}
