package daemon

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// floodTime bounds what a test waits for. Nothing is expected to take that long.
const floodTime = 2 * time.Minute

// TestFloodsOfConnections is DO3: who sends slowly, holds connections or floods one
// with frames is cut off, and others are served all the while.
func TestFloodsOfConnections(t *testing.T) {
	t.Parallel()
	s := serveTLS(t)
	for name, flood := range map[string]func(*testing.T, *flooded){
		"heads that do not end":       slowHeads,
		"connections that say little": idleConnections,
		"streams that are reset":      rapidReset,
		"heads that go on for ever":   continuations,
		"settings without an end":     settingsFlood,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flood(t, s)
			s.serves(t)
		})
	}
}

// A flooded server has TLS and speaks HTTP/2.
type flooded struct {
	host   string
	config *tls.Config
	client *http.Client
}

func serveTLS(t *testing.T) *flooded {
	t.Helper()
	dir := t.TempDir()
	cert, key, pool := certificate(t, dir)
	cfg := Config{Dev: true, Data: filepath.Join(dir, "data"), Public: Listener{URL: "https://localhost:0", TLS: TLS{Cert: cert, Key: key}}, Management: Listener{URL: "http://localhost:0"}}
	d, err := Open(t.Context(), cfg, Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("running: %v", err)
		}
		if err := d.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	config := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	s := &flooded{host: strings.TrimPrefix(d.PublicURL(), "https://"), config: config, client: &http.Client{Transport: transport, Timeout: floodTime}}
	s.serves(t)
	return s
}

// certificate writes a certificate for localhost.
func certificate(t *testing.T, dir string) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool.AppendCertsFromPEM(text)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, b := range map[string][]byte{cert: text, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key, pool
}

// serves fails where an honest client is not served, over HTTP/2.
func (s *flooded) serves(t *testing.T) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.host+"/.well-known/oauth-authorization-server", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.client.Do(r)
	if err != nil {
		t.Fatalf("an honest request: %v", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		t.Fatalf("an honest request: HTTP/%d %d %v", resp.ProtoMajor, resp.StatusCode, err)
	}
}

// dial opens a connection that speaks the protocol.
func (s *flooded) dial(t *testing.T, protocol string) *tls.Conn {
	t.Helper()
	config := s.config.Clone()
	config.NextProtos, config.ServerName = []string{protocol}, "localhost"
	dialer := tls.Dialer{Config: config, NetDialer: &net.Dialer{Timeout: floodTime}}
	conn, err := dialer.DialContext(t.Context(), "tcp", s.host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(floodTime)); err != nil {
		t.Fatal(err)
	}
	return conn.(*tls.Conn)
}

// slowHeads begins requests whose head never ends: each is closed by the server's own
// time limit.
func slowHeads(t *testing.T, s *flooded) {
	var conns []*tls.Conn
	for range 200 {
		conn := s.dial(t, "http/1.1")
		if _, err := io.WriteString(conn, "GET /oauth/jwks HTTP/1.1\r\nHost: "+s.host+"\r\nX-A: "); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	s.serves(t)
	for i, conn := range conns {
		answer, err := io.ReadAll(conn)
		if errors.Is(err, os.ErrDeadlineExceeded) || strings.HasPrefix(string(answer), "HTTP/1.1 200") {
			t.Fatalf("connection %d is still open, or was answered: %q %v", i, answer, err)
		}
	}
}

// idleConnections holds connections, half of which have had an answer.
func idleConnections(t *testing.T, s *flooded) {
	for i := range 1000 {
		conn := s.dial(t, "http/1.1")
		if i%2 == 0 {
			continue
		}
		if _, err := io.WriteString(conn, "GET /oauth/jwks HTTP/1.1\r\nHost: "+s.host+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
}

// frames begins an HTTP/2 connection and drops what the server says until it ends.
func (s *flooded) frames(t *testing.T) (f *http2.Framer, closed <-chan struct{}) {
	t.Helper()
	conn := s.dial(t, "h2")
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f = http2.NewFramer(conn, conn)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			if _, away := frame.(*http2.GoAwayFrame); away {
				return
			}
		}
	}()
	return f, done
}

func (s *flooded) head(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", s.host}, {":path", "/oauth/jwks"}} {
		if err := e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// rapidReset opens streams and resets each at once.
func rapidReset(t *testing.T, s *flooded) {
	f, closed := s.frames(t)
	for i := range uint32(20000) {
		stream := 2*i + 1
		if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: s.head(t), EndHeaders: true, EndStream: true}); err != nil {
			break // the server has had enough
		}
		if err := f.WriteRSTStream(stream, http2.ErrCodeCancel); err != nil {
			break
		}
		if i%2000 == 0 {
			s.serves(t)
		}
		select {
		case <-closed:
			return
		default:
		}
	}
}

// continuations sends a head that has no end: the server ends the connection long
// before that is much.
func continuations(t *testing.T, s *flooded) {
	f, closed := s.frames(t)
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: s.head(t)}); err != nil {
		t.Fatal(err)
	}
	var field bytes.Buffer
	if err := hpack.NewEncoder(&field).WriteField(hpack.HeaderField{Name: "x-a", Value: strings.Repeat("a", 1000), Sensitive: true}); err != nil {
		t.Fatal(err)
	}
	const most = 64 << 20
	sent := 0
	for ; sent < most; sent += field.Len() {
		if err := f.WriteContinuation(1, false, field.Bytes()); err != nil {
			return
		}
		select {
		case <-closed:
			return
		default:
		}
	}
	t.Errorf("the server took a head of %d bytes and more", sent)
}

// settingsFlood sends settings and pings that the server has to answer, and reads
// nothing of the answers.
func settingsFlood(t *testing.T, s *flooded) {
	conn := s.dial(t, "h2")
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(conn, conn)
	if err := conn.SetWriteDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for i := range 200000 {
		if err := f.WriteSettings(); err != nil {
			return
		}
		if err := f.WritePing(false, [8]byte{byte(i)}); err != nil {
			return
		}
	}
}
