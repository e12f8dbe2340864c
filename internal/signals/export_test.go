package signals

import "github.com/counterfoil/counterfoil"

// Tighten makes an engine keep less, so that what happens at its bounds is seen with
// few events.
func (e *Engine) Tighten(tail, backlog, acked int) { e.most = bounds{tail, backlog, acked} }

// MailboxOf is whom a subject names.
func MailboxOf(issuer string, subject []byte) (mailbox, why string) {
	return mailboxOf(&counterfoil.Transmitter{Issuer: issuer}, subject)
}
