package counterfoil

// ProblemMedia is the media type of a Problem (RFC 9457, Section 6.1).
const ProblemMedia = "application/problem+json"

// errorsPage is where each code is explained.
const errorsPage = "https://github.com/counterfoil/counterfoil/blob/main/docs/errors.md#"

// Page is the URL of what the code means and what to do about it: a problem's
// type (RFC 9457, Section 3.1.1).
func (c Code) Page() string { return errorsPage + string(c) }

// A Problem is how a refusal or a fault is answered in HTTP (RFC 9457), wherever
// no other protocol says how.
type Problem struct {
	Type      string          `json:"type,omitzero"` // empty: nothing but the status is meant
	Title     string          `json:"title"`
	Status    int             `json:"status"`
	Code      Code            `json:"code"`
	Detail    string          `json:"detail"`
	RequestID string          `json:"request_id,omitzero"` // empty where a program on the agent's side answers
	Approval  *ApprovalStatus `json:"approval,omitzero"`
}

// ProblemOf returns what may be told of err, which must not be nil: a refusal's
// detail, and of a fault what its code means. The fault's cause stays inside.
func ProblemOf(err error, requestID string) Problem {
	code := CodeOf(err)
	wire := code.Wire()
	p := Problem{
		Type: code.Page(), Title: wire.Title(), Status: wire.Status,
		Code: code, Detail: wire.Meaning, RequestID: requestID,
	}
	if r, ok := AsRefusal(err); ok {
		p.Detail, p.Approval = r.Detail, r.Approval
	}
	return p
}
