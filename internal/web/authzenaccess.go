package web

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// Types of the problems of access requests (AuthZEN Access Request and Approval Profile).
const (
	accessProblems = "urn:openid:authzen:access-request:error:"

	problemBinding   = accessProblems + "invalid_denial_binding"
	problemDuplicate = accessProblems + "duplicate_request"
	problemState     = accessProblems + "invalid_task_state"
	problemUnknown   = accessProblems + "unknown_task"
)

// An accessProblem is a refusal whose problem (RFC 9457) has a type and a status of its
// own.
type accessProblem struct {
	error
	kind   string
	status int
}

func (a accessProblem) Unwrap() error { return a.error }

// accessTask is an approval as an access request's task.
type accessTask struct {
	Task   accessHandle  `json:"task"`
	Result *accessResult `json:"result,omitzero"`
}

type accessHandle struct {
	ID        string       `json:"id"`
	Status    string       `json:"status"`
	Endpoint  string       `json:"status_endpoint"`
	ExpiresAt time.Time    `json:"expires_at"`
	Interval  int          `json:"interval,omitzero"` // seconds between two looks, while it is pending
	Links     *accessLinks `json:"links,omitzero"`
}

type accessLinks struct {
	Cancel string `json:"cancel"`
}

// accessResult says how what was approved is used: by asking again.
type accessResult struct {
	Mode     string           `json:"mode"`
	Approval accessApproval   `json:"approval"`
	Context  accessApprovalID `json:"approval_context"` // comes back as a member of the context
}

type accessApproval struct {
	ID    string    `json:"id"`
	Until time.Time `json:"approved_until"`
}

type accessApprovalID struct {
	ID string `json:"id"`
}

// States of a task. A point takes any other for one that is not approved.
const (
	taskPending   = "pending"
	taskApproved  = "approved"
	taskDenied    = "denied"
	taskExpired   = "expired"
	taskCancelled = "cancelled"
	taskFailed    = "failed"
)

func (p *public) newAccessTask(a *counterfoil.Approval) accessTask {
	at := p.Issuer + authzenRequests + "/" + a.ID
	t := accessTask{Task: accessHandle{ID: a.ID, Endpoint: at, ExpiresAt: a.Expires.UTC()}}
	switch {
	case a.State == counterfoil.StatePending:
		t.Task.Status, t.Task.Interval, t.Task.Links = taskPending, int(counterfoil.ApprovalPoll/time.Second), &accessLinks{at + "/cancel"}
	case a.State == counterfoil.StateApproved:
		t.Task.Status, t.Task.ExpiresAt, t.Task.Links = taskApproved, a.UseUntil.UTC(), &accessLinks{at + "/cancel"}
		t.Result = &accessResult{Mode: "reevaluate", Approval: accessApproval{a.ID, a.UseUntil.UTC()}, Context: accessApprovalID{a.ID}}
	case a.State.Ran():
		// It was approved and is used up: an evaluation says so. There is no result that
		// could be enforced.
		t.Task.Status = taskApproved
	case a.State == counterfoil.StateDenied:
		t.Task.Status = taskDenied
	case a.State == counterfoil.StateExpired:
		t.Task.Status = taskExpired
	case a.State == counterfoil.StateCancelled:
		t.Task.Status = taskCancelled
	default:
		t.Task.Status = taskFailed
	}
	return t
}

// requestAccess has people asked about what was denied. What counts of the body is the
// request_context of the denial, at its top or where the denial has it: it says what was
// denied, whatever else the body says.
func (p *public) requestAccess(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
	m, err := readAuthZEN(r)
	if err != nil {
		return 0, nil, err
	}
	denial, err := denialOf(m)
	if err != nil {
		return 0, nil, err
	}
	keys := r.Header.Values("Idempotency-Key")
	if len(keys) > 1 || len(keys) == 1 && keys[0] == "" {
		return 0, nil, counterfoil.Refuse(counterfoil.RequestMalformed, "one Idempotency-Key, or none")
	}
	key := ""
	if len(keys) == 1 {
		key = keys[0]
	}
	a, err := p.Evaluator.RequestAccess(ctx, c, RequestID(ctx), denial, key)
	switch {
	case errors.Is(err, counterfoil.ErrDenial):
		return 0, nil, accessProblem{counterfoil.Refuse(counterfoil.RequestMalformed, "%v", err), problemBinding, http.StatusBadRequest}
	case err != nil && counterfoil.CodeOf(err) == counterfoil.IdempotencyMismatch:
		return 0, nil, accessProblem{err, problemDuplicate, http.StatusConflict}
	case err != nil:
		return 0, nil, err
	}
	return http.StatusCreated, p.newAccessTask(&a), nil
}

// denialOf finds the request_context.
func denialOf(m authzenMembers) (string, error) {
	none := accessProblem{
		counterfoil.Refuse(counterfoil.RequestMalformed, "there is no request_context of a denial"), problemBinding, http.StatusBadRequest,
	}
	v, ok := m["request_context"]
	if !ok {
		d, err := m.object("denial")
		if err != nil {
			return "", err
		}
		request, err := d.object("access_request")
		if err != nil {
			return "", err
		}
		v = request["request_context"]
	}
	var s string
	if v.Kind() != '"' || ijson.Unmarshal(v, &s) != nil || s == "" {
		return "", none
	}
	return s, nil
}

// accessOf returns an approval that the enforcement point asked for.
func (p *public) accessOf(ctx context.Context, r *http.Request, c counterfoil.Caller) (counterfoil.Approval, counterfoil.Caller, error) {
	c.Task = "" // an enforcement point asks for others, in no task of its own
	unknown := accessProblem{counterfoil.Refuse(counterfoil.ToolUnknown, "there is no such access request of this enforcement point"), problemUnknown, http.StatusNotFound}
	id := r.PathValue("id")
	if !approvalID.MatchString(id) {
		return counterfoil.Approval{}, c, unknown
	}
	a, err := p.Approvals.Status(ctx, id, c)
	if err != nil && counterfoil.CodeOf(err) == counterfoil.ToolUnknown {
		err = unknown
	}
	return a, c, err
}

func (p *public) accessStatus(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
	if err := noQuery(r); err != nil {
		return 0, nil, err
	}
	a, _, err := p.accessOf(ctx, r, c)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, p.newAccessTask(&a), nil
}

func (p *public) cancelAccess(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
	if err := noQuery(r); err != nil {
		return 0, nil, err
	}
	a, c, err := p.accessOf(ctx, r, c)
	if err != nil {
		return 0, nil, err
	}
	if err := p.Approvals.Cancel(ctx, a.ID, c); err != nil {
		if _, refused := counterfoil.AsRefusal(err); refused {
			err = accessProblem{err, problemState, http.StatusConflict}
		}
		return 0, nil, err
	}
	if a, _, err = p.accessOf(ctx, r, c); err != nil {
		return 0, nil, err
	}
	return http.StatusOK, p.newAccessTask(&a), nil
}
