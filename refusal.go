package counterfoil

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

// A Refusal is a decided "no". Its code is stable and public; its detail is
// written for the developer of the agent and holds nothing secret.
type Refusal struct {
	Code   Code
	Detail string

	// Scope is the scope that would have sufficed, for insufficient_scope
	// challenges (RFC 6750, Section 3.1). Empty when there is none.
	Scope string

	// Approval is the approval that the call waits for or was refused with.
	Approval *ApprovalStatus

	// Precise is the code that the ledger records where the wire says a less
	// telling one, so that an answer is no oracle. Empty means Code.
	Precise Code
}

// ApprovalStatus is what an agent is shown of an approval: never who may
// decide, never how.
type ApprovalStatus struct {
	ID                string    `json:"id"`
	Status            string    `json:"status"`
	StatusEndpoint    string    `json:"status_endpoint"`
	Interval          int       `json:"interval"` // seconds between two looks
	ExpiresAt         time.Time `json:"expires_at"`
	ApprovalsRequired int       `json:"approvals_required"`
	Digest            string    `json:"digest"` // "sha-256:" + base64url

	Attached bool   `json:"attached,omitzero"` // an equal call asked before; this is its approval
	Entry    int64  `json:"entry,omitzero"`    // index of the call.decided that spent it
	Reason   string `json:"reason,omitzero"`   // of a no
}

// Error returns "code: detail".
func (r *Refusal) Error() string { return string(r.Code) + ": " + r.Detail }

// Recorded returns the code for the ledger.
func (r *Refusal) Recorded() Code {
	if r.Precise != "" {
		return r.Precise
	}
	return r.Code
}

// Reason returns the detail for records and logs: without what it quotes. The
// sender is told what of the request was wrong in the request's own words; these
// may be anything, a secret in the wrong place among them, and a record stays.
func (r *Refusal) Reason() string { return unquoted.ReplaceAllString(r.Detail, `"…"`) }

// unquoted matches what the verb %q writes, which is cut short by none of what
// it quotes.
var unquoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"?`)

// Refuse returns a refusal with a detail made as by fmt.Sprintf. Write what
// somebody sent with %q: Reason knows it by its quotes.
func Refuse(code Code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// RefuseAs is Refuse with a more precise code for the ledger.
func RefuseAs(code, precise Code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Precise: precise, Detail: fmt.Sprintf(format, args...)}
}

// AsRefusal returns the refusal in err's tree, if there is one.
func AsRefusal(err error) (*Refusal, bool) {
	var r *Refusal
	if errors.As(err, &r) {
		return r, true
	}
	return nil, false
}

// A Fault is our own failure under a code that tells the caller whether to try
// again. Its cause stays inside: it is logged, never sent.
type Fault struct {
	Code  Code
	Cause error
}

// NewFault wraps cause, which must not be nil, under a fault's code.
func NewFault(code Code, cause error) *Fault { return &Fault{code, cause} }

// Error returns the code and the cause, for logs.
func (f *Fault) Error() string { return string(f.Code) + ": " + f.Cause.Error() }

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Cause }

// CodeOf returns the code under which err is answered, counted and recorded:
// that of the refusal or the fault in its tree, Internal for any other error.
// It must not be called with nil.
func CodeOf(err error) Code {
	if r, ok := AsRefusal(err); ok {
		return r.Code
	}
	var f *Fault
	if errors.As(err, &f) {
		return f.Code
	}
	return Internal
}
