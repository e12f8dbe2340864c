package web

import (
	"context"
	"net/http"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/internal/policy"
)

// Paths of AuthZEN 1.0, below the issuer's URL.
const (
	authzenEvaluation  = counterfoil.AccessPath + "/evaluation"
	authzenEvaluations = counterfoil.AccessPath + "/evaluations"
	authzenRequests    = counterfoil.AccessPath + "/requests"

	authzenMetadataPath = "/.well-known/authzen-configuration"

	authzenTool = "counterfoil/access" // what an enforcement point's request is called in the ledger

	capabilityAccessRequest = "urn:openid:authzen:capability:access-request"
)

// An Evaluator decides what enforcement points of others ask, and records each decision.
// Safe for concurrent use. What it returns as an error is a fault, or a refusal of the
// request itself; a decided no is a Verdict.
type Evaluator interface {
	// Evaluate decides on a call of an agent's.
	Evaluate(ctx context.Context, s counterfoil.Statement) (counterfoil.Verdict, error)

	// Inquire decides on a question in words of a Vocabulary.
	Inquire(ctx context.Context, requestID string, point counterfoil.Caller, q policy.Inquiry) (counterfoil.Verdict, error)

	// RequestAccess asks people about what was refused with the Context of a Verdict, and
	// returns the approval; counterfoil.ErrDenial for any other text.
	RequestAccess(ctx context.Context, point counterfoil.Caller, requestID, denial, key string) (counterfoil.Approval, error)
}

// authzenRoutes adds the policy decision point (AuthZEN 1.0) and the access requests of
// its profile. Searching is not offered.
func (p *public) authzenRoutes(rt *router) {
	// AuthZEN 1.0, Section 9.2: the well-known string goes between host and path.
	rt.handle(http.MethodGet, authzenMetadataPath+p.base, p.authzenConfiguration)
	p.points = authority.NewLimiter(pointRate, pointBurst)
	at := func(method, path string, do func(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error)) {
		rt.handle(method, p.base+path, echoRequestID(p.withTokenAs(tokened{tool: authzenTool, rate: p.points}, do)))
	}
	at(http.MethodPost, authzenEvaluation, p.evaluation)
	at(http.MethodPost, authzenEvaluations, p.evaluations)
	at(http.MethodPost, authzenRequests, p.requestAccess)
	at(http.MethodGet, authzenRequests+"/{id}", p.accessStatus)
	at(http.MethodPost, authzenRequests+"/{id}/cancel", p.cancelAccess)
}

// authzenMetadata is the decision point's document (AuthZEN 1.0, Section 9.1).
type authzenMetadata struct {
	PDP          string   `json:"policy_decision_point"`
	Evaluation   string   `json:"access_evaluation_endpoint"`
	Evaluations  string   `json:"access_evaluations_endpoint"`
	Request      string   `json:"access_request_endpoint"`
	Capabilities []string `json:"capabilities"`
}

func (p *public) authzenConfiguration(w http.ResponseWriter, _ *http.Request) error {
	cacheable(w, 600)
	writeJSON(w, http.StatusOK, "application/json", authzenMetadata{
		PDP: p.Issuer, Evaluation: p.Issuer + authzenEvaluation, Evaluations: p.Issuer + authzenEvaluations,
		Request: p.Issuer + authzenRequests, Capabilities: []string{capabilityAccessRequest},
	})
	return nil
}

// maxEchoed bounds an X-Request-ID that is echoed, in bytes.
const maxEchoed = 128

// echoRequestID answers with the X-Request-ID of the request (AuthZEN 1.0, Section
// 10.1.3). What is not one, short and of visible ASCII is answered with ours, which is in
// the records in any case.
func echoRequestID(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if ids := r.Header.Values("X-Request-Id"); len(ids) == 1 && isVisible(ids[0], maxEchoed) {
			w.Header().Set("X-Request-Id", ids[0])
		}
		return h(w, r)
	}
}

func isVisible(s string, most int) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return s != "" && len(s) <= most
}

// An authzenDecision is the answer to one question (AuthZEN 1.0, Section 5.5).
type authzenDecision struct {
	Decision bool           `json:"decision"`
	Context  authzenContext `json:"context"`
}

type authzenContext struct {
	EvaluationID string    `json:"evaluation_id,omitzero"` // the ledger entry
	EvaluatedAt  time.Time `json:"evaluated_at"`
	RequestID    string    `json:"request_id"`

	// Of a no.
	Reason   counterfoil.Code            `json:"reason,omitzero"`
	Detail   string                      `json:"detail,omitzero"`
	Approval *counterfoil.ApprovalStatus `json:"approval,omitzero"`
	Request  *authzenRequestable         `json:"access_request,omitzero"`
}

// authzenRequestable says that people may still allow what was denied.
type authzenRequestable struct {
	Requestable bool             `json:"requestable"`
	Endpoint    string           `json:"endpoint"`
	Reason      counterfoil.Code `json:"reason"`
	ExpiresAt   time.Time        `json:"expires_at"`
	Context     string           `json:"request_context"` // opaque
}

func (p *public) evaluation(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
	m, err := readAuthZEN(r)
	if err != nil {
		return 0, nil, err
	}
	q, err := parseQuestion(m)
	if err != nil {
		return 0, nil, err
	}
	d, err := p.decideAuthZEN(ctx, c, &q)
	return http.StatusOK, d, err
}

// authzenDecisions is the answer to several questions (AuthZEN 1.0, Section 6.3).
type authzenDecisions struct {
	Evaluations []authzenDecision `json:"evaluations"`
}

// evaluations answers several questions, one after the other, in their order. What is
// left out of one of them has the default of the whole, as a whole.
func (p *public) evaluations(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
	m, err := readAuthZEN(r)
	if err != nil {
		return 0, nil, err
	}
	b, err := parseBatch(m)
	if err != nil {
		return 0, nil, err
	}
	if len(b.items) == 0 {
		// AuthZEN 1.0, Section 6.1: then it is a request for one evaluation.
		q, err := parseQuestion(m)
		if err != nil {
			return 0, nil, err
		}
		d, err := p.decideAuthZEN(ctx, c, &q)
		return http.StatusOK, d, err
	}
	if !p.points.Take(c.Agent, p.Now(), len(b.items)-1) {
		return 0, nil, counterfoil.Refuse(counterfoil.RateLimited, "more than %d evaluations of the agent a second", pointRate)
	}
	out := authzenDecisions{Evaluations: []authzenDecision{}}
	room := maxContexts
	for _, item := range b.items {
		if err := ctx.Err(); err != nil {
			return 0, nil, err // nobody hears the answers: nothing more is used up for them
		}
		d := p.decideItem(ctx, c, item, b.defaults)
		room = d.fit(room)
		out.Evaluations = append(out.Evaluations, d)
		if b.semantic == denyOnFirstDeny && !d.Decision || b.semantic == permitOnFirstPermit && d.Decision {
			break
		}
	}
	return http.StatusOK, out, nil
}

// maxContexts bounds the request contexts of one answer, in bytes: each holds the
// arguments again, and many questions may have theirs from one default.
const maxContexts = 1 << 20

// fit leaves the request context out where there is no room for it, says so, and returns
// the room that is left.
func (d *authzenDecision) fit(room int) int {
	r := d.Context.Request
	switch {
	case r == nil:
		return room
	case len(r.Context) <= room:
		return room - len(r.Context)
	}
	d.Context.Request = nil
	d.Context.Detail += "; people may still be asked, and the answer has no room to say how: evaluate it by itself"
	return room
}

// decideItem answers one question of several. One that is malformed is a no, and so is
// one that could not be decided: the others have their answers, which may have used
// something up.
func (p *public) decideItem(ctx context.Context, c counterfoil.Caller, item, defaults authzenMembers) authzenDecision {
	q, err := parseQuestion(item.over(defaults))
	if err == nil {
		var d authzenDecision
		if d, err = p.decideAuthZEN(ctx, c, &q); err == nil {
			return d
		}
	}
	d := authzenDecision{Context: authzenContext{EvaluatedAt: p.Now().UTC(), RequestID: RequestID(ctx), Reason: counterfoil.CodeOf(err)}}
	if refusal, ok := counterfoil.AsRefusal(err); ok {
		d.Context.Detail = refusal.Detail
	} else {
		d.Context.Detail = d.Context.Reason.Wire().Meaning
		p.Logger.ErrorContext(ctx, "an evaluation of several could not be made", "request_id", RequestID(ctx), "agent", c.Agent, "err", err)
	}
	return d
}

// decideAuthZEN has a question decided: of a call of an agent's as the gateway's own
// calls are, of anything else in the words of who asks.
func (p *public) decideAuthZEN(ctx context.Context, c counterfoil.Caller, q *authzenQuestion) (authzenDecision, error) {
	var v counterfoil.Verdict
	if q.Subject.Type == policy.TypeAgent {
		s, err := q.statement()
		if err != nil {
			return authzenDecision{}, err
		}
		s.RequestID, s.Point = RequestID(ctx), c
		if v, err = p.Evaluator.Evaluate(ctx, s); err != nil {
			return authzenDecision{}, err
		}
	} else {
		var err error
		if v, err = p.Evaluator.Inquire(ctx, RequestID(ctx), c, q.Inquiry); err != nil {
			return authzenDecision{}, err
		}
	}
	d := authzenDecision{Decision: v.Allow && v.Code == "", Context: authzenContext{
		EvaluationID: evaluationID(v.Entry), EvaluatedAt: p.Now().UTC(), RequestID: RequestID(ctx),
		Reason: v.Code, Detail: v.Detail, Approval: v.Approval,
	}}
	if v.Requestable {
		d.Context.Request = &authzenRequestable{
			Requestable: true, Endpoint: p.Issuer + authzenRequests, Reason: v.Code, ExpiresAt: v.Until.UTC(), Context: v.Context,
		}
	}
	return d, nil
}
