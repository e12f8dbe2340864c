package web

import (
	"maps"
	"net/http"
	"net/netip"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/policy"
)

// Members of a request (AuthZEN 1.0, Sections 5 and 6).
const (
	memberSubject  = "subject"
	memberAction   = "action"
	memberResource = "resource"
	memberContext  = "context"

	memberProperties = "properties"
	memberArguments  = "arguments"
)

// How many of several questions are answered (AuthZEN 1.0, Section 6.1.2.2).
const (
	executeAll          = "execute_all"
	denyOnFirstDeny     = "deny_on_first_deny"
	permitOnFirstPermit = "permit_on_first_permit"
)

// maxEvaluations bounds the questions of one request.
const maxEvaluations = 100

// Words in which an agent's call is asked about.
const (
	wordCall = "call" // the action
	wordTool = "tool" // the type of the resource

	// memberApproval names in the context what the access request's profile has.
	memberApproval = "authzen_access_request_approval"
)

// authzenMembers are the members of an object, in canonical JSON. Those that are not known
// are ignored (AuthZEN 1.0, Section 10.1.1), although all of it is read strictly.
type authzenMembers map[string]jsontext.Value

func (m authzenMembers) over(defaults authzenMembers) authzenMembers {
	all := maps.Clone(defaults)
	maps.Copy(all, m)
	return all
}

func readAuthZEN(r *http.Request) (authzenMembers, error) {
	if err := noQuery(r); err != nil {
		return nil, err
	}
	body, err := readBody(nil, r, "application/json", maxAsk)
	if err != nil {
		return nil, err
	}
	if body, err = ijson.Canonical(body); err != nil {
		return nil, counterfoil.Refuse(counterfoil.PayloadMalformed, "the body: %v", err)
	}
	m, err := ijson.Members(body)
	if err != nil {
		return nil, counterfoil.Refuse(counterfoil.PayloadMalformed, "the body is no JSON object")
	}
	return m, nil
}

// object returns a member that is an object; nil where there is none.
func (m authzenMembers) object(name string) (authzenMembers, error) {
	v, ok := m[name]
	if !ok {
		return nil, nil
	}
	if v.Kind() != '{' {
		return nil, counterfoil.Refuse(counterfoil.PayloadMalformed, "%s is no object", name)
	}
	of, err := ijson.Members(v)
	if err != nil {
		return nil, counterfoil.Refuse(counterfoil.PayloadMalformed, "%s: %v", name, err)
	}
	return of, nil
}

// maxWord bounds a type, a name or an id, in bytes: it goes into the record.
const maxWord = 1 << 10

// text returns a member that is text and not empty.
func (m authzenMembers) text(of, name string) (string, error) {
	v, ok := m[name]
	if !ok {
		return "", counterfoil.Refuse(counterfoil.PayloadMalformed, "%s has no %s", of, name)
	}
	var s string
	if v.Kind() != '"' || ijson.Unmarshal(v, &s) != nil || s == "" {
		return "", counterfoil.Refuse(counterfoil.PayloadMalformed, "the %s of %s is not text, or empty", name, of)
	}
	if len(s) > maxWord {
		return "", counterfoil.Refuse(counterfoil.PayloadMalformed, "the %s of %s is longer than %d bytes", name, of, maxWord)
	}
	return s, nil
}

// raw returns a member that is an object as it is; nil where there is none.
func (m authzenMembers) raw(of, name string) ([]byte, error) {
	v, ok := m[name]
	if !ok {
		return nil, nil
	}
	if v.Kind() != '{' {
		return nil, counterfoil.Refuse(counterfoil.PayloadMalformed, "the %s of %s are no object", name, of)
	}
	return v, nil
}

// An authzenQuestion is one question.
type authzenQuestion struct {
	policy.Inquiry
	context authzenMembers
}

func parseQuestion(m authzenMembers) (q authzenQuestion, err error) {
	if q.Subject, err = parseWord(m, memberSubject); err != nil {
		return q, err
	}
	if q.Resource, err = parseWord(m, memberResource); err != nil {
		return q, err
	}
	action, err := m.object(memberAction)
	switch {
	case err != nil:
		return q, err
	case action == nil:
		return q, counterfoil.Refuse(counterfoil.PayloadMalformed, "there is no %s", memberAction)
	}
	if q.Action, err = action.text(memberAction, "name"); err != nil {
		return q, err
	}
	if q.ActionProperties, err = action.raw(memberAction, memberProperties); err != nil {
		return q, err
	}
	if q.context, err = m.object(memberContext); err != nil {
		return q, err
	}
	q.Context = m[memberContext]
	return q, nil
}

func parseWord(m authzenMembers, name string) (w policy.Word, err error) {
	of, err := m.object(name)
	switch {
	case err != nil:
		return w, err
	case of == nil:
		return w, counterfoil.Refuse(counterfoil.PayloadMalformed, "there is no %s", name)
	}
	if w.Type, err = of.text(name, "type"); err != nil {
		return w, err
	}
	if w.ID, err = of.text(name, "id"); err != nil {
		return w, err
	}
	w.Properties, err = of.raw(name, memberProperties)
	return w, err
}

// statement makes a call of an agent's out of a question. The arguments are properties of
// the action or a member of the context; whoever says both has to say the same.
func (q *authzenQuestion) statement() (counterfoil.Statement, error) {
	s := counterfoil.Statement{Agent: q.Subject.ID}
	if q.Action != wordCall || q.Resource.Type != wordTool {
		return s, counterfoil.Refuse(counterfoil.PayloadMalformed, "what an agent does is the action %q on a resource of type %q", wordCall, wordTool)
	}
	tool, err := counterfoil.ParseToolID(q.Resource.ID)
	if err != nil {
		return s, counterfoil.Refuse(counterfoil.PayloadMalformed, "the id of the resource is no RESOURCE/TOOL")
	}
	s.Tool = tool
	if s.Arguments, err = q.arguments(); err != nil {
		return s, err
	}
	if _, ok := q.context["task"]; ok {
		if s.Task, err = q.context.text(memberContext, "task"); err != nil {
			return s, err
		}
	}
	if _, ok := q.context["address"]; ok {
		text, err := q.context.text(memberContext, "address")
		if err != nil {
			return s, err
		}
		if s.Source, err = netip.ParseAddr(text); err != nil {
			return s, counterfoil.Refuse(counterfoil.PayloadMalformed, "the address of %s is no IP address", memberContext)
		}
	}
	approval, err := q.context.object(memberApproval)
	if err != nil || approval == nil {
		return s, err
	}
	if s.Approval, err = approval.text(memberApproval, "id"); err == nil && !approvalID.MatchString(s.Approval) {
		err = counterfoil.Refuse(counterfoil.PayloadMalformed, "%s names no approval", memberApproval)
	}
	return s, err
}

func (q *authzenQuestion) arguments() ([]byte, error) {
	properties := authzenMembers{}
	if q.ActionProperties != nil {
		var err error
		if properties, err = ijson.Members(q.ActionProperties); err != nil {
			return nil, counterfoil.Refuse(counterfoil.PayloadMalformed, "the properties of %s: %v", memberAction, err)
		}
	}
	of, err := properties.raw(memberAction, memberArguments)
	if err != nil {
		return nil, err
	}
	beside, err := q.context.raw(memberContext, memberArguments)
	switch {
	case err != nil:
		return nil, err
	case of == nil:
		return beside, nil
	case beside != nil && string(of) != string(beside):
		return nil, counterfoil.Refuse(counterfoil.PayloadMalformed, "the arguments of %s are not those of %s", memberAction, memberContext)
	}
	return of, nil
}

// An authzenBatch is several questions.
type authzenBatch struct {
	items    []authzenMembers
	defaults authzenMembers
	semantic string
}

func parseBatch(m authzenMembers) (b authzenBatch, err error) {
	b.defaults = authzenMembers{}
	for _, name := range []string{memberSubject, memberAction, memberResource, memberContext} {
		if _, err := m.object(name); err != nil {
			return b, err
		}
		if v, ok := m[name]; ok {
			b.defaults[name] = v
		}
	}
	options, err := m.object("options")
	if err != nil {
		return b, err
	}
	b.semantic = executeAll
	if _, ok := options["evaluations_semantic"]; ok {
		if b.semantic, err = options.text("options", "evaluations_semantic"); err != nil {
			return b, err
		}
	}
	switch b.semantic {
	case executeAll, denyOnFirstDeny, permitOnFirstPermit:
	default:
		return b, counterfoil.Refuse(counterfoil.PayloadMalformed, "evaluations_semantic %.40q is not known", b.semantic)
	}
	all, ok := m["evaluations"]
	if !ok {
		return b, nil
	}
	var items []jsontext.Value
	if all.Kind() != '[' || ijson.Unmarshal(all, &items) != nil {
		return b, counterfoil.Refuse(counterfoil.PayloadMalformed, "evaluations is no list")
	}
	if len(items) > maxEvaluations {
		return b, counterfoil.Refuse(counterfoil.PayloadTooLarge, "there are %d evaluations; the limit is %d", len(items), maxEvaluations)
	}
	for i, item := range items {
		of, err := ijson.Members(item)
		if err != nil {
			return b, counterfoil.Refuse(counterfoil.PayloadMalformed, "evaluation %d is no object", i)
		}
		b.items = append(b.items, of)
	}
	return b, nil
}

// evaluationID is the decision's entry in the ledger; empty where there is none.
func evaluationID(entry int64) string {
	if entry < 0 {
		return ""
	}
	return strconv.FormatInt(entry, 10)
}
