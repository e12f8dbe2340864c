package policy

import "github.com/counterfoil/counterfoil"

// A Decision is the verdict over one action. The zero Decision refuses.
type Decision struct {
	// Allow says that the call may go ahead without a person. It is never true
	// beside a Code.
	Allow bool

	// Code and Detail are the reason of a refusal; the detail is written for
	// the developer of the agent.
	Code   counterfoil.Code
	Detail string

	// Judged says that the arguments had a part in the decision: a rule, a limit
	// or the token's details read them, or a person is to. Then they must be
	// what the tool says that it takes.
	Judged bool

	// Class and Tier are those of the tool: empty and Forbidden when the tool
	// is unknown.
	Class string
	Tier  counterfoil.Tier

	// Fields are the tool's fields as text: strings as they are, everything
	// else as canonical JSON. They are filled only where somebody reads them
	// after the decision: when the class has limits or a tier above routine.
	Fields map[string]string

	// scope is the scope that would have sufficed.
	scope string
}

// Err returns nil when the call may go ahead and the refusal otherwise.
func (d Decision) Err() error {
	if d.Allow && d.Code == "" {
		return nil
	}
	if d.Code == "" {
		return counterfoil.Refuse(counterfoil.PolicyForbids, "nothing was decided")
	}
	r := counterfoil.Refuse(d.Code, "%s", d.Detail)
	r.Scope = d.scope
	return r
}
