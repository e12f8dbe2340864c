package daemon

import (
	"fmt"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/approval"
	"github.com/counterfoil/counterfoil/internal/notify"
	"github.com/counterfoil/counterfoil/internal/outbound"
)

// maxWebhooks bounds how often one thing is told.
const maxWebhooks = 16

func (n *Notify) check(guard *outbound.Guard, bad func(string, ...any)) {
	if len(n.Webhooks) > maxWebhooks {
		bad("notify.webhooks: %d of them; %d is the limit", len(n.Webhooks), maxWebhooks)
	}
	for i, w := range n.Webhooks {
		if err := guard.CheckURL(outbound.Elsewhere, w.URL); err != nil {
			bad("notify.webhooks[%d].url: %q %v", i, shown(w.URL), err)
		}
		if w.SecretFile == "" {
			bad("notify.webhooks[%d].secret_file: receivers know a message by its signature; name the file of its secret", i)
		}
	}
	s := &n.SMTP
	if *s == (NotifySMTP{}) {
		return
	}
	relay := notify.SMTP{Host: s.Host, From: s.From}
	if err := relay.Check(); err != nil {
		bad("notify.smtp.%v", err)
	}
	if (s.User == "") != (s.PasswordFile == "") {
		bad("notify.smtp: user and password_file go together")
	}
}

// read reads the secrets that messages are sent with. Log and clock are the
// caller's.
func (n *Notify) read() (notify.Config, error) {
	var cfg notify.Config
	for i, w := range n.Webhooks {
		secret, err := readPrivate(w.SecretFile)
		if err != nil {
			return cfg, fmt.Errorf("notify.webhooks[%d].secret_file: %w", i, err)
		}
		cfg.Webhooks = append(cfg.Webhooks, notify.Webhook{URL: w.URL, Secret: counterfoil.NewSecret(string(secret))})
	}
	if n.SlackFile != "" {
		address, err := readPrivate(n.SlackFile)
		if err != nil {
			return cfg, fmt.Errorf("notify.slack_file: %w", err)
		}
		cfg.Slack = counterfoil.NewSecret(string(address))
	}
	if s := n.SMTP; s != (NotifySMTP{}) {
		cfg.SMTP = &notify.SMTP{Host: s.Host, From: s.From, User: s.User}
		if s.PasswordFile != "" {
			password, err := readPrivate(s.PasswordFile)
			if err != nil {
				return cfg, fmt.Errorf("notify.smtp.password_file: %w", err)
			}
			cfg.SMTP.Password = counterfoil.NewSecret(strings.TrimRight(string(password), "\r\n"))
		}
	}
	return cfg, nil
}

// message is a notice as it is told: without the names of people, and with the
// addresses of those who may decide.
func message(registry *counterfoil.Registry, n approval.Notice) notify.Message {
	m := notify.Message{
		Event: n.Event, Approval: n.Approval, State: n.State, Agent: n.Agent, Tool: n.Tool, Class: n.Class, Tier: n.Tier, Task: n.Task, Purpose: n.Purpose,
		Digest: n.Digest, Sentence: n.Sentence, Expires: n.Expires, URL: n.URL,
	}
	for _, name := range n.People {
		if p := registry.People[name]; p != nil && p.Email != "" {
			m.To = append(m.To, p.Email)
		}
	}
	return m
}
