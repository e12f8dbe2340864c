package gateway

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
)

// TestPlainHTTPIsToldToWait: 403 with what a token would need, and 202 for those
// alone that say they take it (standards 5.8 a).
func TestPlainHTTPIsToldToWait(t *testing.T) {
	t.Parallel()
	status := func(state counterfoil.ApprovalState) *counterfoil.ApprovalStatus {
		return &counterfoil.ApprovalStatus{
			ID: "apr_1", Status: string(state), StatusEndpoint: "https://gw.example/approvals/apr_1", Interval: 5,
			ExpiresAt: time.Date(2026, 11, 21, 12, 15, 0, 0, time.UTC), ApprovalsRequired: 2, Digest: "sha-256:x",
		}
	}
	call := counterfoil.GuardedCall{
		Tool: counterfoil.ToolID{Resource: "crm", Tool: "reset_password"}, ToolDigest: "sha-256:t", Class: "credential-reset", Call: []byte(`{"v":1}`),
	}
	for _, tc := range []struct {
		name   string
		code   counterfoil.Code
		state  counterfoil.ApprovalState
		prefer []string
		status int
		open   bool
	}{
		{"asked", counterfoil.ApprovalRequired, counterfoil.StatePending, nil, 403, true},
		{"asked before", counterfoil.ApprovalPending, counterfoil.StatePending, nil, 403, true},
		{"prefers something else", counterfoil.ApprovalRequired, counterfoil.StatePending, []string{"return=minimal, wait=100", "respond-asynchronously"}, 403, true},
		{"prefers 202", counterfoil.ApprovalRequired, counterfoil.StatePending, []string{"wait=10", "return=minimal, Respond-Async; x=y"}, 202, true},
		{"denied", counterfoil.ApprovalDenied, counterfoil.StateDenied, []string{"respond-async"}, 403, false},
		{"used", counterfoil.ApprovalSpent, counterfoil.StateSucceeded, nil, 403, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := counterfoil.Refuse(tc.code, "two people have to say yes to \"secret\"")
			r.Approval = status(tc.state)
			w := waitingCall{refusal: r, requestID: "req_1", resource: "https://gw.example/r/crm", call: call}
			h := http.Header{}
			got, body, err := w.answer(h, http.Header{"Prefer": tc.prefer})
			if err != nil || got != tc.status || h.Get("Content-Type") != "application/problem+json" || h.Get("Cache-Control") != "no-store" {
				t.Fatalf("%d %v %s, %v", got, h, body, err)
			}
			var p struct {
				counterfoil.Problem
				Details []map[string]any `json:"authorization_details"`
			}
			if err := json.Unmarshal(body, &p); err != nil || p.Code != tc.code || p.RequestID != "req_1" || p.Approval == nil || *p.Approval != *r.Approval {
				t.Fatalf("%s, %v", body, err)
			}
			challenges := h["Www-Authenticate"]
			if !tc.open {
				if len(p.Details) > 0 || len(challenges) > 0 || h.Get("Retry-After") != "" {
					t.Errorf("%v %s", h, body)
				}
				return
			}
			if h.Get("Retry-After") != "5" {
				t.Errorf("Retry-After is %q", h.Get("Retry-After"))
			}
			d := p.Details[0]
			want := map[string]any{
				"type": counterfoil.DetailType, "tool": "reset_password", "tool_digest": "sha-256:t", "action_class": "credential-reset",
				"call_digest": counterfoil.CallDigest(call.Call), "max_uses": 1.0, "approval_id": "apr_1", "not_after": "2026-11-21T12:15:00Z",
			}
			for name, v := range want {
				if d[name] != v {
					t.Errorf("%s is %v, want %v", name, d[name], v)
				}
			}
			if _, bounds := d["constraints"]; bounds || len(p.Details) != 1 {
				t.Errorf("the details are %v", p.Details)
			}
			if tc.status == 202 {
				if len(challenges) > 0 || h.Get("Location") != r.Approval.StatusEndpoint || h.Get("Preference-Applied") != "respond-async" {
					t.Errorf("the headers are %v", h)
				}
				return
			}
			if len(challenges) != 1 || !strings.HasPrefix(challenges[0], `DPoP error="insufficient_authorization_details", error_description="human approval required", algs="`) ||
				!strings.Contains(challenges[0], `resource_metadata="https://gw.example/.well-known/oauth-protected-resource/r/crm"`) || h.Get("Location") != "" {
				t.Errorf("the headers are %v", h)
			}
		})
	}
}
