package gateway

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/resource"
)

// How a call over plain HTTP is told that people have a say. Over MCP it is a
// result: an MCP client takes 403 for a wish to log in again.

// A waitingCall is a call over plain HTTP that an approval was asked for, and what
// was said of that.
type waitingCall struct {
	refusal   *counterfoil.Refusal // with its Approval
	requestID string
	resource  string // identifier of the resource
	call      counterfoil.GuardedCall
}

// A oneShot is the authorization detail that would let exactly this call run once
// (RFC 9396). It has the call's digest and therefore no constraints.
type oneShot struct {
	Type        string   `json:"type"`
	Locations   []string `json:"locations"`
	Actions     []string `json:"actions"`
	Tool        string   `json:"tool"`
	ToolDigest  string   `json:"tool_digest,omitzero"`
	ActionClass string   `json:"action_class"`
	CallDigest  string   `json:"call_digest"`
	MaxUses     int      `json:"max_uses"`
	ApprovalID  string   `json:"approval_id"`
	NotAfter    string   `json:"not_after"`
}

type waitingProblem struct {
	counterfoil.Problem
	Details []oneShot `json:"authorization_details,omitzero"`
}

// answer sets the headers and returns status and body. It is 403, because a client
// that knows nothing of approvals must not take it for done, unless the client says
// that it takes 202 (RFC 7240, Section 4.1).
func (w *waitingCall) answer(h http.Header, request http.Header) (status int, body []byte, err error) {
	h.Set("Content-Type", counterfoil.ProblemMedia)
	h.Set("Cache-Control", "no-store")
	p := waitingProblem{Problem: counterfoil.ProblemOf(w.refusal, w.requestID)}
	a := w.refusal.Approval
	open := a != nil && (a.Status == string(counterfoil.StatePending) || a.Status == string(counterfoil.StateApproved))
	if !open {
		body, err = json.Marshal(p)
		return p.Status, body, err
	}
	p.Details = []oneShot{{
		Type: counterfoil.DetailType, Locations: []string{w.resource}, Actions: []string{"call"}, Tool: w.call.Tool.Tool,
		ToolDigest: w.call.ToolDigest, ActionClass: w.call.Class, CallDigest: counterfoil.CallDigest(w.call.Call), MaxUses: 1,
		ApprovalID: a.ID, NotAfter: a.ExpiresAt.UTC().Format(time.RFC3339),
	}}
	h.Set("Retry-After", strconv.Itoa(a.Interval))
	h.Add("Vary", "Prefer")
	status = p.Status
	if prefersAsync(request) {
		status = http.StatusAccepted
		h.Set("Location", a.StatusEndpoint)
		h.Set("Preference-Applied", "respond-async")
	} else {
		// What a token would need to let the call through (RFC 9396), and never the
		// detail, which is for the developer.
		asked := counterfoil.Refuse(counterfoil.ApprovalRequired, "human approval required")
		for _, v := range resource.Challenge(asked, metadataURL(w.resource), "") {
			h.Add("WWW-Authenticate", v)
		}
	}
	body, err = json.Marshal(p)
	return status, body, err
}

// prefersAsync reports whether the client prefers an answer now to one that is done
// (RFC 7240, Sections 2 and 4.1).
func prefersAsync(request http.Header) bool {
	for _, v := range request["Prefer"] {
		for preference := range strings.SplitSeq(v, ",") {
			name, _, _ := strings.Cut(preference, ";")
			if strings.EqualFold(strings.TrimSpace(name), "respond-async") {
				return true
			}
		}
	}
	return false
}
