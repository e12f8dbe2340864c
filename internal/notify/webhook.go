package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/outbound"
)

// A poster posts JSON to one URL.
type poster struct {
	url   string
	guard *outbound.Guard
}

func newPoster(address string, guard *outbound.Guard) (poster, error) {
	if err := guard.CheckURL(outbound.Elsewhere, address); err != nil {
		return poster{}, fmt.Errorf("its URL %w", err) // the URL itself may be a secret
	}
	return poster{address, guard}, nil
}

func (p *poster) post(ctx context.Context, body []byte, header http.Header) error {
	header.Set("Content-Type", "application/json")
	status, _, _, err := p.guard.Fetch(ctx, outbound.Elsewhere, http.MethodPost, p.url, header, body, maxAnswer)
	switch {
	case status != 0:
		return checkAnswer(status) // what it says does not matter, nor how long
	case errors.Is(err, outbound.ErrRefused):
		return final{fmt.Errorf("posting: it %w", err)}
	case err != nil:
		return fmt.Errorf("posting: %w", err)
	}
	return errors.New("posting: no answer")
}

// A webhook is signed as Standard Webhooks 1.0.0 says, with its symmetric scheme.
type webhook struct {
	poster
	number int
	key    []byte
	now    func() time.Time
}

func newWebhook(number int, w Webhook, guard *outbound.Guard, now func() time.Time) (*webhook, error) {
	p, err := newPoster(w.URL, guard)
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

func newSlack(address counterfoil.Secret, guard *outbound.Guard) (*slack, error) {
	p, err := newPoster(strings.TrimSpace(address.Reveal()), guard)
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
