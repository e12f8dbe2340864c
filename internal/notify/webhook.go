package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// CheckURL reports why a message cannot be sent there: it goes over TLS, or stays on
// this machine.
func CheckURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("is not an http or https URL")
	case u.User != nil || u.Fragment != "":
		return errors.New("has a user or a fragment")
	case u.Scheme == "http" && !loopbackHost(u.Hostname()):
		return errors.New("is plain http, which is for loopback; use https")
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
		return checkIP(ip, ip.Unmap().IsLoopback())
	}
	return nil
}

func loopbackHost(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// checkIP refuses addresses at which no receiver is: link-local ones, among which
// clouds have their metadata services, and this machine, unless it was named.
func checkIP(ip netip.Addr, loopback bool) error {
	for _, a := range embedded(ip) {
		switch {
		case a.IsLoopback() && !loopback:
			return fmt.Errorf("%s is this machine, under a name that does not say so", ip)
		case a.IsLinkLocalUnicast(), a.IsMulticast(), a.IsUnspecified(), a == metadataAlibaba, a == metadataAWS, a == metadataOracle, a == broadcast:
			return fmt.Errorf("%s is a link-local or metadata address, or none", ip)
		}
	}
	return nil
}

var (
	metadataAlibaba = netip.MustParseAddr("100.100.100.200")
	metadataAWS     = netip.MustParseAddr("fd00:ec2::254")
	metadataOracle  = netip.MustParseAddr("192.0.0.192")
	broadcast       = netip.MustParseAddr("255.255.255.255")

	nat64  = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
	sixTo4 = netip.MustParsePrefix("2002::/16")    // RFC 3056
)

// embedded returns an address and the IPv4 address that it leads to, if it has one
// inside.
func embedded(ip netip.Addr) []netip.Addr {
	ip = ip.WithZone("").Unmap()
	out := []netip.Addr{ip}
	b := ip.As16()
	switch {
	case nat64.Contains(ip):
		out = append(out, netip.AddrFrom4([4]byte(b[12:16])))
	case sixTo4.Contains(ip):
		out = append(out, netip.AddrFrom4([4]byte(b[2:6])))
	}
	return out
}

// newDialer dials what a name resolves to only where a receiver can be.
func newDialer(host string) *net.Dialer {
	loopback := loopbackHost(host)
	return &net.Dialer{Timeout: 5 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("dialling: %w", err)
		}
		if err := checkIP(at.Addr(), loopback); err != nil {
			return final{fmt.Errorf("dialling: %w", err)}
		}
		return nil
	}}
}

// A poster posts JSON to one URL.
type poster struct {
	url    string
	client *http.Client
}

func newPoster(address string) (poster, error) {
	if err := CheckURL(address); err != nil {
		return poster{}, fmt.Errorf("its URL %w", err) // the URL itself may be a secret
	}
	u, err := url.Parse(address)
	if err != nil {
		return poster{}, errors.New("its URL is none")
	}
	return poster{url: address, client: &http.Client{
		Timeout:       maxTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		// No proxy out of the environment, and no connection that stays: the name is
		// looked up and its address judged each time.
		Transport: &http.Transport{
			DialContext: newDialer(u.Hostname()).DialContext, DisableKeepAlives: true, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: maxTime, MaxResponseHeaderBytes: 32 << 10,
		},
	}}, nil
}

func (p *poster) post(ctx context.Context, body []byte, header http.Header) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return final{errors.New("making the request")}
	}
	req.Header = header
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "counterfoil")
	resp, err := p.client.Do(req)
	if err != nil {
		var of *url.Error // it says the URL, which may be a secret
		if errors.As(err, &of) {
			err = of.Err
		}
		return fmt.Errorf("posting: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // what it says does not matter
	return checkAnswer(resp.StatusCode)
}

// A webhook is signed as Standard Webhooks 1.0.0 says, with its symmetric scheme.
type webhook struct {
	poster
	number int
	key    []byte
	now    func() time.Time
}

func newWebhook(number int, w Webhook, now func() time.Time) (*webhook, error) {
	p, err := newPoster(w.URL)
	if err != nil {
		return nil, err
	}
	key, err := parseSecret(w.Secret)
	if err != nil {
		return nil, err
	}
	return &webhook{p, number, key, now}, nil
}

// parseSecret reads a secret as Standard Webhooks serialises it: "whsec_" and the
// base64 of 24 to 64 bytes.
func parseSecret(s counterfoil.Secret) ([]byte, error) {
	text, ok := strings.CutPrefix(strings.TrimSpace(s.Reveal()), "whsec_")
	key, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(key) < 24 || len(key) > 64 {
		return nil, errors.New(`its secret is not "whsec_" and the base64 of 24 to 64 random bytes; make one: echo "whsec_$(head -c 32 /dev/urandom | base64)"`)
	}
	return key, nil
}

func (w *webhook) name() string { return fmt.Sprintf("webhook %d", w.number) }

// webhookBody is the body, in the form that Standard Webhooks advises.
type webhookBody struct {
	Type      string      `json:"type"`
	Timestamp string      `json:"timestamp"`
	Data      webhookData `json:"data"`
}

type webhookData struct {
	Approval string `json:"approval,omitzero"`
	State    string `json:"state,omitzero"`
	Agent    string `json:"agent,omitzero"`
	Tool     string `json:"tool,omitzero"`
	Class    string `json:"class,omitzero"`
	Tier     string `json:"tier,omitzero"`
	Task     string `json:"task,omitzero"`
	Purpose  string `json:"purpose,omitzero"`
	Digest   string `json:"digest,omitzero"`
	Sentence string `json:"sentence,omitzero"`
	Expires  string `json:"expires,omitzero"`
	URL      string `json:"url,omitzero"`
}

func (w *webhook) send(ctx context.Context, id string, m *Message) error {
	now := w.now()
	body := webhookBody{Type: "approval." + m.Event, Timestamp: now.UTC().Format(time.RFC3339), Data: webhookData{
		Approval: m.Approval, State: m.State, Agent: m.Agent, Tool: m.Tool, Class: m.Class, Tier: m.Tier, Task: m.Task, Purpose: m.Purpose,
		Digest: m.Digest, Sentence: m.Sentence, URL: m.URL,
	}}
	if !m.Expires.IsZero() {
		body.Data.Expires = m.Expires.UTC().Format(time.RFC3339)
	}
	b, err := ijson.Marshal(body)
	if err != nil {
		return final{fmt.Errorf("encoding: %w", err)}
	}
	at := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, w.key)
	mac.Write([]byte(id + "." + at + "."))
	mac.Write(b)
	// http.Header.Set would spell them Webhook-Id, which is the same to HTTP.
	h := http.Header{}
	h.Set("webhook-id", id) // the same for each attempt: receivers drop repeats by it
	h.Set("webhook-timestamp", at)
	h.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return w.post(ctx, b, h)
}

// slack posts what Slack, and those who imitate it, take at an incoming webhook.
type slack struct{ poster }

func newSlack(address counterfoil.Secret) (*slack, error) {
	p, err := newPoster(strings.TrimSpace(address.Reveal()))
	return &slack{p}, err
}

func (*slack) name() string { return "chat" }

type slackText struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

type slackBlock struct {
	Type     string         `json:"type"`
	Text     *slackText     `json:"text,omitzero"`
	Elements []slackElement `json:"elements,omitzero"`
}

// slackElement is a button that opens a page, and nothing else: nothing is decided
// in a chat.
type slackElement struct {
	Type string     `json:"type"`
	Text *slackText `json:"text"`
	URL  string     `json:"url"`
}

// slackEscape escapes what begins a mention, a channel or a link there.
var slackEscape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

func (s *slack) send(ctx context.Context, _ string, m *Message) error {
	facts := ""
	for _, l := range m.lines() {
		facts += l[0] + ": " + l[1] + "\n"
	}
	plain := func(text string) *slackText { return &slackText{"plain_text", slackEscape.Replace(text)} }
	body := struct {
		Text   string       `json:"text"`
		Blocks []slackBlock `json:"blocks"`
	}{Text: slackEscape.Replace(m.title() + "\n" + m.Sentence)}
	for _, text := range []string{m.title(), m.Sentence, facts} {
		if text != "" {
			body.Blocks = append(body.Blocks, slackBlock{Type: "section", Text: plain(text)})
		}
	}
	if m.URL != "" {
		body.Blocks = append(body.Blocks, slackBlock{Type: "actions", Elements: []slackElement{{"button", plain("Look at it"), m.URL}}})
	}
	b, err := ijson.Marshal(body)
	if err != nil {
		return final{fmt.Errorf("encoding: %w", err)}
	}
	return s.post(ctx, b, http.Header{})
}
