package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/netip"
	"net/smtp"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/outbound"
)

// SMTP is a relay that takes mail for people.
type SMTP struct {
	Host     string // host:port; 465 speaks TLS from the start
	From     string
	User     string // empty: no login
	Password counterfoil.Secret
}

// Check reports why the relay cannot be used.
func (s *SMTP) Check() error {
	host, port, err := net.SplitHostPort(s.Host)
	switch {
	case err != nil || host == "" || port == "":
		return fmt.Errorf("host: %q is not host:port", s.Host)
	case !plainAddress(s.From):
		return fmt.Errorf("from: %q is not a mail address", s.From)
	}
	return nil
}

// maxMails bounds whom one message is mailed to.
const maxMails = 50

type mailer struct {
	SMTP
	host  string
	guard *outbound.Guard
	now   func() time.Time
	tls   *tls.Config // for tests
}

func newMail(s SMTP, guard *outbound.Guard, now func() time.Time) (*mailer, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(s.Host)
	if err != nil {
		return nil, err
	}
	return &mailer{SMTP: s, host: host, guard: guard, now: now, tls: &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}}, nil
}

func (*mailer) name() string { return "mail" }

// plainAddress reports whether it is an address and nothing else: a line break in
// it would be a header of somebody else's.
func plainAddress(s string) bool {
	a, err := mail.ParseAddress(s)
	return err == nil && a.Address == s && a.Name == "" && len(s) <= 254 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// send mails each person apart, so that nobody reads who else was told. An address
// that is refused keeps nobody else from being told; beside others it is not tried
// again, as these would be told twice.
func (m *mailer) send(ctx context.Context, id string, msg *Message) error {
	var to []string
	for _, a := range msg.To {
		if plainAddress(a) && len(to) < maxMails {
			to = append(to, a)
		}
	}
	if len(to) == 0 {
		return nil
	}
	conn, err := m.guard.Dialer(outbound.Upstream).DialContext(ctx, "tcp", m.Host)
	if err != nil {
		if errors.Is(err, outbound.ErrRefused) {
			return final{fmt.Errorf("connecting to the relay: %w", err)}
		}
		return fmt.Errorf("connecting to the relay: %w", err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			conn.Close()
			return fmt.Errorf("connecting to the relay: %w", err)
		}
	}
	return m.session(conn, id, to, msg)
}

// session mails over a connection, which it closes.
func (m *mailer) session(conn net.Conn, id string, to []string, msg *Message) error {
	implicit := strings.HasSuffix(m.Host, ":465")
	if implicit {
		conn = tls.Client(conn, m.tls)
	}
	defer conn.Close()
	c, err := smtp.NewClient(conn, m.host)
	if err != nil {
		return fmt.Errorf("greeting the relay: %w", err)
	}
	if err := m.greet(c, implicit); err != nil {
		return fmt.Errorf("greeting the relay: %w", err)
	}
	var refused error
	for _, a := range to {
		if err := m.mail(c, a, id, msg); err != nil {
			refused = err
			if err := c.Reset(); err != nil {
				return fmt.Errorf("mailing: %w", errors.Join(refused, err))
			}
		}
	}
	_ = c.Quit() // what was taken is taken
	if refused != nil && len(to) > 1 {
		return final{fmt.Errorf("mailing one of %d people: %w", len(to), refused)}
	}
	return refused
}

// loopbackHost reports whether a host is this machine by its own word.
func loopbackHost(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// greet begins a session, encrypted unless the relay is this machine: what is asked
// for, and a password, are nobody's on the way.
func (m *mailer) greet(c *smtp.Client, encrypted bool) error {
	if err := c.Hello("localhost"); err != nil {
		return err
	}
	offered, _ := c.Extension("STARTTLS")
	switch local := loopbackHost(m.host); {
	case encrypted:
	case offered && !local:
		if err := c.StartTLS(m.tls); err != nil {
			return err
		}
	case !local:
		return final{errors.New("the relay offers no STARTTLS, and mail does not leave this machine in the clear")}
	}
	if m.User == "" {
		return nil
	}
	return c.Auth(smtp.PlainAuth("", m.User, m.Password.Reveal(), m.host))
}

func (m *mailer) mail(c *smtp.Client, to, id string, msg *Message) error {
	if err := c.Mail(m.From); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(m.compose(to, id, msg)); err != nil {
		return err
	}
	return w.Close()
}

// compose writes a message in RFC 5322's form. Every value of a header is encoded
// or checked before, so that none can begin another.
func (m *mailer) compose(to, id string, msg *Message) []byte {
	_, domain, _ := strings.Cut(m.From, "@")
	var b bytes.Buffer
	header := func(name, value string) { b.WriteString(name + ": " + value + "\r\n") }
	header("From", m.From)
	header("To", to)
	header("Subject", mime.QEncoding.Encode("utf-8", "Counterfoil: "+visible(msg.title(), 120)))
	header("Date", m.now().UTC().Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	header("Message-ID", "<"+id+"@"+domain+">")
	header("Auto-Submitted", "auto-generated") // RFC 3834: nobody's vacation answers
	header("MIME-Version", "1.0")
	header("Content-Type", "text/plain; charset=utf-8")
	header("Content-Transfer-Encoding", "quoted-printable")
	b.WriteString("\r\n")
	q := quotedprintable.NewWriter(&b)
	_, _ = q.Write([]byte(strings.ReplaceAll(msg.text(), "\n", "\r\n"))) // to memory
	_ = q.Close()
	return b.Bytes()
}
