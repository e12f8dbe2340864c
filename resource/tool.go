package resource

import (
	"net/http"
	"slices"

	"github.com/counterfoil/counterfoil"
)

// Tool lets through to next only what Middleware verified and whose token allows the
// tool: its name is in the token's scope. Others are answered with tool_not_granted, and
// insufficient_scope where a token that allows it would do (RFC 6750, Section 3.1).
//
// A token whose authorization details (RFC 9396) say more about the tool is refused,
// because nothing here reads them: a service that does looks at CallerFrom itself.
func (v *Verifier) Tool(tool string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := toolGranted(r, tool); err != nil {
			v.refuse(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func toolGranted(r *http.Request, tool string) error {
	caller, ok := CallerFrom(r.Context())
	if !ok {
		return counterfoil.Refuse(counterfoil.ProofMissing, "the request came past the check of its token")
	}
	refused := func(text string) error {
		return &counterfoil.Refusal{Code: counterfoil.ToolNotGranted, Detail: text, Scope: tool}
	}
	if !slices.Contains(caller.Scope, tool) {
		return refused("the token's scope does not have the tool")
	}
	for i := range caller.Details {
		if caller.Details[i].Tool == tool {
			return refused("the token's authorization details bound the tool, and this service does not read them")
		}
	}
	return nil
}
