package outbound_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/internal/outbound"
)

// here opens the machine that the tests' servers are on.
var here = guard("127.0.0.0/8")

// A server counts who came.
type server struct {
	*httptest.Server
	came atomic.Int64
}

func serve(t *testing.T, h http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.came.Add(1)
		h(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func ok(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "here") }

func get(t *testing.T, g *outbound.Guard, to string) (string, error) {
	t.Helper()
	status, _, body, err := g.Fetch(t.Context(), outbound.Elsewhere, http.MethodGet, to, nil, nil, 0)
	if err == nil && status != http.StatusOK {
		t.Errorf("status %d", status)
	}
	return string(body), err
}

func TestFetch(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("User-Agent") != "counterfoil" || r.Header.Get("Accept-Encoding") != "" || r.Header.Get("X-A") != "b" {
			t.Errorf("%v, %v", r.Header, err)
		}
		w.Header().Set("X-Method", r.Method)
		w.WriteHeader(http.StatusTeapot)
		w.Write(append(b, '!'))
	})
	header := http.Header{"X-A": {"b"}}
	for method, body := range map[string]string{http.MethodGet: "", http.MethodPost: "hello"} {
		status, h, got, err := here.Fetch(t.Context(), outbound.Elsewhere, method, s.URL, header, []byte(body), int64(len(body)+1))
		if err != nil || status != http.StatusTeapot || h.Get("X-Method") != method || string(got) != body+"!" {
			t.Errorf("%s: %d %v %q, %v", method, status, h, got, err)
		}
	}
	if len(header) != 1 {
		t.Errorf("the header became %v", header)
	}
}

// Nothing is dialled that is refused, by Fetch, by a client and by the bare transport.
func TestNothingIsDialled(t *testing.T) {
	t.Parallel()
	s := serve(t, ok)
	for name, c := range map[string]struct {
		guard *outbound.Guard
		trust outbound.Trust
		ok    bool
	}{
		"on the list":       {here, outbound.Elsewhere, true},
		"an upstream":       {nil, outbound.Upstream, true},
		"no list":           {nil, outbound.Elsewhere, false},
		"another's list":    {guard("10.0.0.0/8"), outbound.Elsewhere, false},
		"the zero guard's":  {&outbound.Guard{}, outbound.Elsewhere, false},
		"IPv6 on the list":  {guard("::1/128"), outbound.Elsewhere, false},
		"a neighbour's own": {guard("127.0.0.2/32"), outbound.Elsewhere, false},
	} {
		before := s.came.Load()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _, _, fetched := c.guard.Fetch(t.Context(), c.trust, http.MethodGet, s.URL, nil, nil, 0)
		r1, clients := c.guard.Client(c.trust).Do(req)
		r2, bare := c.guard.Transport(c.trust).RoundTrip(req)
		for _, r := range []*http.Response{r1, r2} {
			if r != nil {
				r.Body.Close()
			}
		}
		for _, err := range []error{fetched, clients, bare} {
			if (err == nil) != c.ok || err != nil && !errors.Is(err, outbound.ErrRefused) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := s.came.Load() - before; (n == 3) != c.ok || !c.ok && n != 0 {
			t.Errorf("%s: %d requests came", name, n)
		}
	}
}

// names is a resolver that answers for every name with the next of its addresses, and
// with the last one from then on.
type names struct {
	addrs []netip.Addr
	asked atomic.Int64
}

func (n *names) resolver(t *testing.T) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		for buf := make([]byte, 1<<12); ; {
			size, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(n.answer(buf[:size]), from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

// answer answers one question (RFC 1035, Section 4.1): with an address where it is for
// one of IPv4, with none where not.
func (n *names) answer(q []byte) []byte {
	end := 12
	for q[end] != 0 {
		end += int(q[end]) + 1
	}
	end += 5
	out := append([]byte{q[0], q[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, q[12:end]...)
	if q[end-3] != 1 { // not A
		return out
	}
	i := min(int(n.asked.Add(1)), len(n.addrs)) - 1
	out[7] = 1
	out = append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
	return append(out, n.addrs[i].AsSlice()...)
}

// A name that passed once is looked up and judged anew the next time.
func TestRebinding(t *testing.T) {
	t.Parallel()
	s := serve(t, ok)
	port := s.URL[strings.LastIndexByte(s.URL, ':'):]
	loopback, metadata := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("169.254.169.254")

	steady := &names{addrs: []netip.Addr{loopback}}
	// Plain http is for loopback by its own word: names need a client of their own here.
	client := func(n *names, g *outbound.Guard, trust outbound.Trust) *http.Client {
		return &http.Client{Transport: g.Resolving(n.resolver(t)).Transport(trust)}
	}
	visit := func(c *http.Client) error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://rebind.example"+port, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	c := client(steady, here, outbound.Elsewhere)
	for range 2 {
		if err := visit(c); err != nil {
			t.Fatal(err)
		}
	}
	if s.came.Load() != 2 || steady.asked.Load() != 2 {
		t.Fatalf("%d came, %d lookups", s.came.Load(), steady.asked.Load())
	}
	for name, c := range map[string]*http.Client{
		"a name that leads here":         client(&names{addrs: []netip.Addr{loopback}}, guard(), outbound.Elsewhere),
		"a name that leads to metadata":  client(&names{addrs: []netip.Addr{metadata}}, here, outbound.Elsewhere),
		"an upstream's that leads there": client(&names{addrs: []netip.Addr{metadata}}, guard(), outbound.Upstream),
	} {
		if err := visit(c); !errors.Is(err, outbound.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	turning := client(&names{addrs: []netip.Addr{loopback, metadata}}, here, outbound.Elsewhere)
	if err := visit(turning); err != nil {
		t.Fatal(err)
	}
	if err := visit(turning); !errors.Is(err, outbound.ErrRefused) {
		t.Errorf("the second lookup: %v", err)
	}
	if s.came.Load() != 3 {
		t.Errorf("%d came", s.came.Load())
	}
}

// A redirect is an answer: nothing follows it.
func TestRedirects(t *testing.T) {
	t.Parallel()
	target := serve(t, ok)
	for _, to := range []string{target.URL, "http://169.254.169.254/latest", "file:///etc/passwd", "//" + target.Listener.Addr().String(), "/elsewhere"} {
		for _, code := range []int{301, 302, 303, 307, 308} {
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", to)
				w.WriteHeader(code)
			})
			if status, h, _, err := here.Fetch(t.Context(), outbound.Elsewhere, http.MethodPost, s.URL, nil, []byte("x"), 0); err != nil || status != code || h.Get("Location") != to {
				t.Errorf("%d to %s: %d, %v", code, to, status, err)
			}
			resp, err := here.Client(outbound.Elsewhere).Get(s.URL)
			if err != nil || resp.StatusCode != code {
				t.Errorf("%d to %s: %v", code, to, err)
				continue
			}
			resp.Body.Close()
			if s.came.Load() != 2 {
				t.Errorf("%d came", s.came.Load())
			}
		}
	}
	if n := target.came.Load(); n != 0 {
		t.Errorf("%d came where a redirect leads", n)
	}
}

// Answers that are slow, huge, compressed or endless are cut off.
func TestAnswersThatDoNotEnd(t *testing.T) {
	t.Parallel()
	const limit = 300 * time.Millisecond
	g := here.Within(limit)
	bomb := func() []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write(make([]byte, 64<<20))
		_ = z.Close()
		return b.Bytes()
	}()
	flush := func(w http.ResponseWriter) {
		if err := http.NewResponseController(w).Flush(); err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	sized := func(n int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.Write(bytes.Repeat([]byte{'x'}, n)) }
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		ok     bool
	}{
		"64 KiB":            {sized(64 << 10), true},
		"a byte more":       {sized(64<<10 + 1), false},
		"headers in bounds": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 16<<10)) }, true},
		"huge headers":      {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 64<<10)) }, false},
		"nothing":           {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, false},
		"headers alone":     {func(w http.ResponseWriter, r *http.Request) { flush(w); <-r.Context().Done() }, false},
		"chunks for ever": {func(w http.ResponseWriter, r *http.Request) {
			for tick := time.Tick(time.Millisecond); r.Context().Err() == nil; <-tick {
				w.Write([]byte("x"))
				flush(w)
			}
		}, false},
		"a length that does not come": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("x"))
			flush(w)
			<-r.Context().Done()
		}, false},
		"compressed": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(bomb[:100])
		}, false},
		"a bomb": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(bomb)
		}, false},
		"a bomb that does not say so": {func(w http.ResponseWriter, _ *http.Request) { w.Write(bomb) }, len(bomb) <= 64<<10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, c.answer)
			began := time.Now()
			body, err := get(t, g, s.URL)
			if (err == nil) != c.ok || len(body) > 64<<10 {
				t.Errorf("%d bytes, %v", len(body), err)
			}
			if errors.Is(err, outbound.ErrRefused) {
				t.Errorf("it counts as refused: %v", err)
			}
			if took := time.Since(began); took > limit+5*time.Second {
				t.Errorf("it took %s", took)
			}
			if err != nil && strings.Contains(err.Error(), s.URL) {
				t.Errorf("the error holds the URL: %v", err)
			}
		})
	}
}

// A caller that goes ends what it asked for.
func TestCallerGoes(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() })
	if _, _, _, err := here.Fetch(ctx, outbound.Elsewhere, http.MethodGet, s.URL, nil, nil, 0); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// No proxy out of the environment, and none that a name of one leads to.
func TestTransport(t *testing.T) {
	t.Parallel()
	for _, trust := range []outbound.Trust{outbound.Elsewhere, outbound.Upstream} {
		tr := here.Transport(trust)
		if tr.Proxy != nil || !tr.DisableCompression || tr.TLSHandshakeTimeout == 0 || tr.MaxResponseHeaderBytes == 0 || tr.TLSClientConfig != nil && tr.TLSClientConfig.InsecureSkipVerify {
			t.Errorf("trust %d: %+v", trust, tr)
		}
		if tr.DisableKeepAlives != (trust == outbound.Elsewhere) {
			t.Errorf("trust %d: connections stay: %v", trust, !tr.DisableKeepAlives)
		}
	}
}
