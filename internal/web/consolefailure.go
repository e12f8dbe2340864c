package web

import (
	"net/http"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/console"
	"github.com/counterfoil/counterfoil/internal/approval"
)

// code is the refusal's code; empty where there is none.
func code(err error) counterfoil.Code {
	if r, ok := counterfoil.AsRefusal(err); ok {
		return r.Code
	}
	return ""
}

// failed answers with a page that says what happened, that nothing was lost, and what
// to do. It is counted, logged and recorded like any error.
func (p *pages) failed(w http.ResponseWriter, r *http.Request, s *session, err error) error {
	problem := counterfoil.ProblemOf(err, RequestID(r.Context()))
	wire := problem.Code.Wire()
	p.rt.note(err)
	p.rt.answers.tally.Count(problem.Code)
	p.rt.answers.note(r.Context(), err, wire, problem.RequestID)

	f := console.Failure{
		Status: wire.Status, Code: string(problem.Code), RequestID: problem.RequestID, Back: "/",
		What: "That was refused", Lost: "Nothing was changed, and nothing was lost.", Do: wire.Remedy,
		Detail: text(problem.Detail),
	}
	switch {
	case wire.Fault:
		f.What, f.Detail = "The server met a fault of its own", nil
		f.Do = "Try again in a moment. If it stays, give the request’s id to whoever runs the server."
	case problem.Code == counterfoil.SessionRequired:
		f.What, f.Detail, f.Back = "Nobody is logged in", nil, "/login"
		f.Lost, f.Do = "What you sent was not done.", "Log in, and do it again."
	case problem.Code == counterfoil.ToolUnknown:
		f.What, f.Detail = "There is nothing here for you", nil
		f.Do = "Look in the inbox, or under Decided. What others decide is shown to those who may decide it, to administrators and to auditors."
	case problem.Code == counterfoil.RoleRequired:
		f.What = "This page is not for your role"
		f.Do = "Ask an administrator: roles are in the manifest of a person."
	case problem.Code == counterfoil.OriginForbidden:
		f.What = "That did not come from one of our pages"
		f.Do = "Open the page here, in a tab of its own, and do it from there."
	}
	got := shown{name: "failure", title: f.What, body: f, status: wire.Status}
	if err := p.write(w, r, s, got); err != nil {
		// The page needs what is broken: it is shown to nobody in particular.
		p.rt.answers.note(r.Context(), err, counterfoil.Internal.Wire(), problem.RequestID)
		return p.write(w, r, nil, got)
	}
	return nil
}

// text makes what is not ours visible.
func text(s string) console.Text { return spans(approval.Visible(s)) }

func spans(segments []approval.Segment) console.Text {
	var out console.Text
	for _, s := range segments {
		out = append(out, console.Span{Text: s.Text, Code: s.Code, Name: s.Name, Lookalike: s.Lookalike, Value: s.Value})
	}
	return out
}
