package notify

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/outbound"
	"github.com/counterfoil/counterfoil/internal/testkit"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" // of the examples of Standard Webhooks

var start = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

func message() Message {
	return Message{
		Event: "requested", Approval: "apr_1", Agent: "payroll", Tool: "bank/pay", Class: "payout", Tier: "irreversible",
		Digest: "sha-256:abc", Sentence: "Pay 100 EUR to <bo> & \u202eco\x07", Expires: start.Add(15 * time.Minute),
		URL: "https://console.example/approvals/apr_1", To: []string{"bo@example.com", "cy@example.com"},
	}
}

// here lets the tests' receivers, which are on this machine, be told.
var here = outbound.New([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})

// A desk runs a notifier and gathers what it logs and how long it would have waited.
type desk struct {
	*Notifier
	clock *testkit.Clock
	mu    sync.Mutex
	naps  []time.Duration
	logs  bytes.Buffer
}

func (d *desk) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.logs.Write(p)
}

func (d *desk) said() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.logs.String()
}

func newDesk(t *testing.T, cfg Config) *desk {
	t.Helper()
	d := &desk{clock: testkit.NewClock(start)}
	cfg.Guard = here
	cfg.Now, cfg.Log = d.clock.Now, slog.New(slog.NewTextHandler(d, nil))
	cfg.Nap = func(_ context.Context, pause time.Duration) {
		d.mu.Lock()
		d.naps = append(d.naps, pause)
		d.mu.Unlock()
		d.clock.Advance(pause)
	}
	var err error
	if d.Notifier, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return d
}

// deliverAll queues a message and delivers everything that waits.
func (d *desk) deliverAll(t *testing.T, m Message) {
	t.Helper()
	d.Queue(t.Context(), m)
	for len(d.queue) > 0 {
		next := <-d.queue
		d.deliver(t.Context(), next)
		next.to.waiting.Add(-1)
	}
}

// A receiver keeps what it was sent, and answers as the test says.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	headers []http.Header
	bodies  [][]byte
	answer  func(n int, w http.ResponseWriter) // n counts from 1
}

func newReceiver(t *testing.T, answer func(n int, w http.ResponseWriter)) *receiver {
	t.Helper()
	r := &receiver{answer: answer}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b, err := io.ReadAll(req.Body)
		if err != nil || req.Method != http.MethodPost {
			t.Errorf("%s: %v", req.Method, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.headers, r.bodies = append(r.headers, req.Header), append(r.bodies, b)
		if r.answer != nil {
			r.answer(len(r.bodies), w)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// wantSigned checks the signature as a receiver would, by the text of Standard
// Webhooks alone.
func wantSigned(t *testing.T, h http.Header, body []byte) {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", h.Get("webhook-id"), h.Get("webhook-timestamp"), body)
	if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); h.Get("webhook-signature") != want {
		t.Errorf("signature %s, want %s", h.Get("webhook-signature"), want)
	}
}

func TestWebhookIsSignedAndTriedAgain(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, func(n int, w http.ResponseWriter) {
		if n < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	d := newDesk(t, Config{Webhooks: []Webhook{{URL: r.URL, Secret: counterfoil.NewSecret(secret)}}})
	d.deliverAll(t, message())
	if len(r.bodies) != 3 || d.Failed() != 0 {
		t.Fatalf("%d attempts, %d given up", len(r.bodies), d.Failed())
	}
	for i, h := range r.headers {
		wantSigned(t, h, r.bodies[i])
		if h.Get("webhook-id") != r.headers[0].Get("webhook-id") || !strings.HasPrefix(h.Get("webhook-id"), "msg_") {
			t.Errorf("attempt %d has the id %q", i, h.Get("webhook-id"))
		}
	}
	if r.headers[0].Get("webhook-timestamp") == r.headers[2].Get("webhook-timestamp") {
		t.Error("a later attempt has the time of the first")
	}
	if len(d.naps) != 2 || d.naps[0] > 6*time.Second || d.naps[1] < 50*time.Second {
		t.Errorf("pauses %v", d.naps)
	}
	var body map[string]any
	if err := json.Unmarshal(r.bodies[0], &body); err != nil {
		t.Fatal(err)
	}
	data := body["data"].(map[string]any)
	if body["type"] != "approval.requested" || data["sentence"] != "Pay 100 EUR to <bo> & [U+202E]co[U+0007]" || data["url"] != message().URL || data["expires"] != "2026-11-20T10:15:00Z" {
		t.Errorf("%v", body)
	}
	if strings.Contains(string(r.bodies[0]), "@example.com") {
		t.Error("a webhook is told addresses of people")
	}
	if text := d.said(); strings.Contains(text, r.URL) || strings.Contains(text, "EUR") || strings.Contains(text, "MfKQ") {
		t.Errorf("the log has what is nobody's: %s", text)
	}
}

// What is never taken ends, and so does what nobody can act on any more.
func TestDeliveriesEnd(t *testing.T) {
	t.Parallel()
	elsewhere := newReceiver(t, nil)
	for _, tt := range []struct {
		name     string
		answer   func(int, http.ResponseWriter)
		event    string
		attempts int
	}{
		{"always busy", func(_ int, w http.ResponseWriter) { w.WriteHeader(503) }, "closed", 8},
		{"too late", func(_ int, w http.ResponseWriter) { w.WriteHeader(503) }, "requested", 4}, // 5 s, 1 m, 5 m, then 30 m
		{"gone", func(_ int, w http.ResponseWriter) { w.WriteHeader(410) }, "closed", 1},
		{"a redirect", func(_ int, w http.ResponseWriter) {
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(307)
		}, "closed", 1},
		{"an endless answer", func(_ int, w http.ResponseWriter) {
			for range 1024 {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}, "closed", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t, tt.answer)
			d := newDesk(t, Config{Webhooks: []Webhook{{URL: r.URL, Secret: counterfoil.NewSecret(secret)}}})
			m := message()
			m.Event = tt.event
			d.deliverAll(t, m)
			if len(r.bodies) != tt.attempts {
				t.Errorf("%d attempts: %v", len(r.bodies), d.naps)
			}
			var day time.Duration
			for _, n := range d.naps {
				day += n
			}
			if day > 27*time.Hour || tt.attempts == 8 && day < 20*time.Hour {
				t.Errorf("it takes %s", day)
			}
			if given := d.Failed(); (given == 1) == (tt.name == "an endless answer") {
				t.Errorf("%d given up", given)
			}
		})
	}
	if len(elsewhere.bodies) > 0 {
		t.Error("a redirect was followed")
	}
}

func TestChatGetsALinkAndNothingThatDecides(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	d := newDesk(t, Config{Slack: counterfoil.NewSecret(r.URL + "/services/T/B/x\n")})
	d.deliverAll(t, message())
	if len(r.bodies) != 1 {
		t.Fatalf("%d attempts: %s", len(r.bodies), d.said())
	}
	text := string(r.bodies[0])
	if strings.Contains(text, "<bo>") || !strings.Contains(text, "&lt;bo&gt; &amp; [U+202E]co") {
		t.Errorf("not escaped: %s", text)
	}
	var body struct {
		Text   string
		Blocks []struct {
			Type     string
			Elements []map[string]any
		}
	}
	if err := json.Unmarshal(r.bodies[0], &body, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatal(err)
	}
	last := body.Blocks[len(body.Blocks)-1]
	if last.Type != "actions" || len(last.Elements) != 1 || last.Elements[0]["url"] != message().URL {
		t.Errorf("%+v", last)
	}
	if _, has := last.Elements[0]["action_id"]; has || last.Elements[0]["value"] != nil {
		t.Errorf("the button is more than a link: %v", last.Elements[0])
	}
	if strings.Contains(d.said(), "services") {
		t.Error("the URL is in the log")
	}
}

// Nobody who decides waits for somebody who is told.
func TestQueueNeverBlocks(t *testing.T) {
	t.Parallel()
	most := int(places(eventRequested))
	all := make(chan struct{})
	r := newReceiver(t, func(n int, _ http.ResponseWriter) {
		if n == most {
			close(all)
		}
	})
	d := newDesk(t, Config{Webhooks: []Webhook{{URL: r.URL, Secret: counterfoil.NewSecret(secret)}}})
	for range most + 3 {
		d.Queue(t.Context(), message())
	}
	if d.Dropped() != 3 || strings.Count(d.said(), "dropped") != 3 {
		t.Errorf("%d dropped", d.Dropped())
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	<-all // and not one more: the queue is empty
	cancel()
	<-done
	if len(r.bodies) != most {
		t.Errorf("%d delivered", len(r.bodies))
	}
}

// What an agent asks for fills no place of what somebody changes; each of the two has
// places that the other cannot take, up to all of them for a change.
func TestChangesHavePlacesOfTheirOwn(t *testing.T) {
	t.Parallel()
	d := newDesk(t, Config{Webhooks: []Webhook{{URL: "https://example.com", Secret: counterfoil.NewSecret(secret)}}})
	taken := func(event string) int {
		m := message()
		m.Event = event
		before := len(d.queue)
		for range maxWaiting + 1 {
			d.Queue(t.Context(), m)
		}
		return len(d.queue) - before
	}
	if asked, closed, reset, changed := taken("requested"), taken("closed"), taken("passkey_reset"), taken("change_proposed"); asked != 384 || closed != 0 || reset != 64 || changed != 64 {
		t.Errorf("%d asked for, %d closed, %d reset, %d changed", asked, closed, reset, changed)
	}
	if left := d.targets[0].waiting.Load(); left != maxWaiting {
		t.Errorf("%d wait", left)
	}
}

// A target that does not answer takes neither places nor slots of another.
func TestTargetsDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	hang, told := make(chan struct{}), make(chan struct{}, 2*maxWaiting)
	dead := newReceiver(t, func(int, http.ResponseWriter) { <-hang })
	alive := newReceiver(t, func(int, http.ResponseWriter) { told <- struct{}{} })
	d := newDesk(t, Config{Webhooks: []Webhook{
		{URL: dead.URL, Secret: counterfoil.NewSecret(secret)}, {URL: alive.URL, Secret: counterfoil.NewSecret(secret)},
	}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	const many = 2 * maxWaiting
	for range many {
		d.Queue(t.Context(), message())
		<-told // the one that answers is told of each
	}
	if d.Dropped() < many-maxWaiting {
		t.Errorf("%d dropped: the other was told, too", d.Dropped())
	}
	cancel()
	close(hang)
	<-done
}

func TestWhereNothingIsSent(t *testing.T) {
	t.Parallel()
	to := func(guard *outbound.Guard, address string) error {
		_, err := New(Config{Log: slog.New(slog.DiscardHandler), Guard: guard, Webhooks: []Webhook{{URL: address, Secret: counterfoil.NewSecret(secret)}}})
		if err != nil && len(address) > 12 && strings.Contains(err.Error(), address) {
			t.Errorf("the error tells the URL: %v", err)
		}
		return err
	}
	for _, address := range []string{
		"", "ftp://example.com/x", "http://example.com/x", "https://u:p@example.com/x", "https://example.com/#x", "//example.com",
		"https://169.254.169.254/x", "https://[64:ff9b::7f00:1]/", "https://2130706433/x", "https://metadata.google.internal/x",
	} {
		if err := to(here, address); err == nil {
			t.Errorf("%q is taken", address)
		}
	}
	if err := to(nil, "https://example.com/x?y=z"); err != nil {
		t.Error(err)
	}
	for _, address := range []string{"https://10.0.0.7/x", "http://127.0.0.1:9/x", "http://localhost/x"} {
		if err := to(nil, address); err == nil {
			t.Errorf("%q is taken without a list", address)
		}
		if err := to(outbound.New([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("127.0.0.1/32")}), address); err != nil {
			t.Errorf("%q with a list: %v", address, err)
		}
	}
}

// Where a name leads is judged when it is dialled, and there is no second attempt at
// what is refused.
func TestANameThatLeadsHere(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	for name, guard := range map[string]*outbound.Guard{"on the list": here, "no list": nil} {
		h := &webhook{poster{r.URL, guard}, 1, []byte(secret), time.Now}
		err := h.send(t.Context(), "msg_1", &Message{Event: "requested"})
		var never final
		if ok := guard == here; ok != (err == nil) || ok == errors.As(err, &never) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if r.mu.Lock(); len(r.bodies) != 1 {
		t.Errorf("%d messages", len(r.bodies))
	}
	r.mu.Unlock()
}

func TestSecretsOfWebhooks(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_!", "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 65))} {
		_, err := New(Config{Log: slog.New(slog.DiscardHandler), Webhooks: []Webhook{{URL: "https://example.com", Secret: counterfoil.NewSecret(s)}}})
		if err == nil {
			t.Errorf("%q is taken", s)
		} else if len(s) > 10 && strings.Contains(err.Error(), s) {
			t.Errorf("the error tells it: %v", err)
		}
	}
	if _, err := parseSecret(counterfoil.NewSecret(secret + "\n")); err != nil {
		t.Error(err)
	}
}

// A relay speaks SMTP over TCP, as far as a mailer needs it.
type relay struct {
	ln       net.Listener
	refuse   string // an address that it does not know
	starttls *tls.Config
	mu       sync.Mutex
	mails    []string
	to       []string
	secure   []bool
}

func newRelay(t *testing.T, r *relay) *relay {
	t.Helper()
	var err error
	if r.ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.ln.Close() })
	go func() {
		for {
			c, err := r.ln.Accept()
			if err != nil {
				return
			}
			go r.serve(c)
		}
	}()
	return r
}

func (r *relay) serve(c net.Conn) {
	defer c.Close()
	in, secure := bufio.NewReader(c), false
	say := func(format string, args ...any) { fmt.Fprintf(c, format+"\r\n", args...) }
	say("220 relay.example ESMTP")
	to := ""
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			if r.starttls != nil && !secure {
				say("250-relay.example\r\n250 STARTTLS")
				continue
			}
			say("250 relay.example")
		case "STARTTLS":
			say("220 go on")
			c = tls.Server(c, r.starttls)
			in, secure = bufio.NewReader(c), true
		case "MAIL", "RSET":
			say("250 ok")
		case "RCPT":
			if r.refuse != "" && strings.Contains(rest, r.refuse) {
				say("550 nobody here")
				continue
			}
			to = rest
			say("250 ok")
		case "DATA":
			say("354 go on")
			var text strings.Builder
			for {
				line, err := in.ReadString('\n')
				if err != nil || line == ".\r\n" {
					break
				}
				text.WriteString(strings.TrimPrefix(line, "."))
			}
			r.mu.Lock()
			r.mails, r.to, r.secure = append(r.mails, text.String()), append(r.to, to), append(r.secure, secure)
			r.mu.Unlock()
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("502 what?")
		}
	}
}

func TestMail(t *testing.T) {
	t.Parallel()
	r := newRelay(t, &relay{})
	d := newDesk(t, Config{SMTP: &SMTP{Host: r.ln.Addr().String(), From: "counterfoil@example.com"}})
	m := message()
	m.Tool = "bank/pay\r\nBcc: mal@example.com"
	m.Sentence = "Pay 100 EUR to Zoë\r\n.\r\nMAIL FROM:<mal@example.com>"
	m.To = append(m.To, "x@example.com\r\nRCPT TO:<mal@example.com>", "No One <y@example.com>", "")
	d.deliverAll(t, m)
	if fmt.Sprint(r.to) != "[TO:<bo@example.com> TO:<cy@example.com>]" {
		t.Fatalf("mailed to %q; %s", r.to, d.said())
	}
	got, err := mail.ReadMessage(strings.NewReader(r.mails[0]))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(got.Header.Get("Subject"))
	if err != nil || !strings.HasPrefix(subject, "Counterfoil: payroll asks for bank/pay[U+000D][U+000A]Bcc") {
		t.Errorf("subject %q, %v", subject, err)
	}
	if len(got.Header["Bcc"]) > 0 || got.Header.Get("To") != "bo@example.com" || got.Header.Get("From") != "counterfoil@example.com" {
		t.Errorf("headers %v", got.Header)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(got.Body))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Pay 100 EUR to Zoë[U+000D][U+000A].[U+000D]", "Class: payout", "Decide by: 2026-11-20T10:15:00Z", message().URL, "approves nothing"} {
		if !strings.Contains(string(body), want) {
			t.Errorf("no %q in:\n%s", want, body)
		}
	}
}

// An address that is refused keeps nobody else from being told.
func TestMailThatIsRefused(t *testing.T) {
	t.Parallel()
	r := newRelay(t, &relay{refuse: "bo@"})
	d := newDesk(t, Config{SMTP: &SMTP{Host: r.ln.Addr().String(), From: "counterfoil@example.com"}})
	d.deliverAll(t, message())
	if fmt.Sprint(r.to) != "[TO:<cy@example.com>]" || d.Failed() != 1 || len(d.naps) > 0 {
		t.Errorf("mailed to %q, %d given up, %v", r.to, d.Failed(), d.naps)
	}
}

// Mail leaves this machine encrypted or not at all.
func TestMailIsEncrypted(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	trust := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	for _, tt := range []struct {
		name    string
		relay   *relay
		trusted bool
		mails   int
	}{
		{"no STARTTLS", &relay{}, true, 0},
		{"STARTTLS", &relay{starttls: server.TLS}, true, 2},
		{"STARTTLS of nobody known", &relay{starttls: server.TLS}, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRelay(t, tt.relay)
			m, err := newMail(SMTP{Host: r.ln.Addr().String(), From: "counterfoil@example.com"}, nil, func() time.Time { return start })
			if err != nil {
				t.Fatal(err)
			}
			m.tls = &tls.Config{ServerName: "example.com", MinVersion: tls.VersionTLS12}
			if tt.trusted {
				m.tls.RootCAs = trust
			}
			msg := message()
			c, err := net.Dial("tcp", m.Host)
			if err != nil {
				t.Fatal(err)
			}
			m.host = "relay.example.com" // not this machine, by its name
			err = m.session(c, "msg_1", []string{"bo@example.com", "cy@example.com"}, &msg)
			if (err == nil) != (tt.mails > 0) || len(r.mails) != tt.mails {
				t.Errorf("%d mails, %v", len(r.mails), err)
			}
			for _, s := range r.secure {
				if !s {
					t.Error("in the clear")
				}
			}
		})
	}
}
