package policy

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/cedar-policy/cedar-go"

	"github.com/counterfoil/counterfoil"
)

// TypeAgent is the one type of subject that no Vocabulary knows: what agents may call is
// decided by their grants.
const TypeAgent = "agent"

// An Inquiry is a question of an enforcement point in the words of a Vocabulary (AuthZEN
// 1.0, Section 5). In Cedar the subject is the principal TYPE::"ID", the action
// Action::"NAME" and the resource TYPE::"ID"; the properties of each are its attributes,
// beside the attribute id, and the context is the context. All JSON becomes Cedar as a call's arguments do.
type Inquiry struct {
	Subject  Word
	Action   string
	Resource Word

	ActionProperties []byte // strict JSON object; nil: none
	Context          []byte // likewise
}

// A Word is a subject or a resource of an Inquiry.
type Word struct {
	Type, ID   string
	Properties []byte // strict JSON object; nil: none
}

// A vocabulary is a Vocabulary made ready to decide.
type vocabulary struct {
	name  string
	class string
	tier  counterfoil.Tier
	rules []*wordRule

	// broken says why everything is refused that is asked in it.
	broken string
}

// A meaning is who asks about what; one vocabulary answers.
type meaning struct{ server, subject, resource string }

// loadVocabularies compiles what enforcement points of others ask about. Two
// vocabularies that answer one server about the same types are a problem of both: what
// one of them forbids the other might permit.
func (s *Set) loadVocabularies(reg *counterfoil.Registry) []Problem {
	var problems []Problem
	s.meanings = map[meaning]*vocabulary{}
	for _, name := range slices.Sorted(maps.Keys(reg.Vocabularies)) {
		v := reg.Vocabularies[name]
		if v == nil {
			continue
		}
		out := &vocabulary{name: name, class: v.Class}
		if c := reg.Classes[v.Class]; c != nil {
			out.tier = c.Tier // without a class the zero tier, which is forbidden
		}
		rules, errs := compileVocabulary(name, v.Cedar)
		out.rules = rules
		for _, e := range errs {
			problems = append(problems, Problem{Kind: counterfoil.KindVocabulary, Name: name, Field: fieldCedar, Line: e.line, Text: e.text})
			out.broken = cmp.Or(out.broken, fmt.Sprintf("vocabulary %q cannot be compiled, so nothing can be decided in it", name))
		}
		problems = append(problems, s.file(out, v.Servers)...)
	}
	return problems
}

// file files a vocabulary under what it answers.
func (s *Set) file(v *vocabulary, servers []string) []Problem {
	var problems []Problem
	told := map[string]bool{}
	for _, server := range servers {
		for _, r := range v.rules {
			if r.policy.Effect() != cedar.Permit {
				continue
			}
			m := meaning{server, r.principal.kind, r.resource.kind}
			other, taken := s.meanings[m]
			if !taken {
				s.meanings[m] = v
			}
			if !taken || other == v {
				continue
			}
			text := fmt.Sprintf("Vocabulary %s says, too, what %s may be told about %s and %s; say it in one place", other.name, m.server, m.subject, m.resource)
			if !told[text] {
				problems = append(problems, Problem{Kind: counterfoil.KindVocabulary, Name: v.name, Field: fieldCedar, Line: r.line, Text: text})
			}
			told[text] = true
			other.broken = cmp.Or(other.broken, fmt.Sprintf("vocabularies %q and %q both answer", other.name, v.name))
			v.broken = cmp.Or(v.broken, other.broken)
		}
	}
	return problems
}

// Inquire judges an Inquiry of a server in the one Vocabulary that answers this server
// about such types, and returns that vocabulary's name; empty where there is none. A
// permit that applies is needed and no forbid; whatever errs, or names what has no Cedar
// image, refuses, as in Decide. What needs a person is never allowed here.
func (s *Set) Inquire(server string, q Inquiry) (name string, d Decision) {
	unknown := refuse(Decision{}, counterfoil.ToolUnknown, "no vocabulary of this enforcement point knows subjects of type %.80q and resources of type %.80q", q.Subject.Type, q.Resource.Type)
	if s == nil || server == "" {
		return "", unknown
	}
	v := s.meanings[meaning{server, q.Subject.Type, q.Resource.Type}]
	if v == nil {
		return "", unknown
	}
	d.Class, d.Tier = v.class, v.tier
	defer func() {
		// Inquire is total, as Decide is.
		if p := recover(); p != nil {
			d = refuse(d, counterfoil.PolicyForbids, "the inquiry cannot be evaluated")
		}
	}()
	switch {
	case v.broken != "":
		return v.name, refuse(d, counterfoil.PolicyForbids, "%s", v.broken)
	case v.tier == counterfoil.Forbidden:
		return v.name, refuse(d, counterfoil.ClassForbidden, "class %q never runs", v.class)
	case v.tier != counterfoil.Routine:
		return v.name, refuse(d, counterfoil.PolicyForbids, "class %q needs a person, and nobody can be asked in words of vocabulary %q", v.class, v.name)
	}
	i := inquiry{vocabulary: v, Inquiry: q}
	d.Allow = i.read(&d) && i.permitted(&d)
	d.Judged = true
	return v.name, d
}

// An inquiry is an Inquiry on its way to a decision. It is the getter of its own
// entities; there are no others.
type inquiry struct {
	Inquiry
	vocabulary *vocabulary

	rules    ruleList // those whose head may match
	words    []*wordRule
	request  cedar.Request
	entities [3]cedar.Entity
	im       imager
}

// Get returns the entity of that id.
func (q *inquiry) Get(uid cedar.EntityUID) (cedar.Entity, bool) {
	for i := range q.entities {
		if q.entities[i].UID == uid {
			return q.entities[i], true
		}
	}
	return cedar.Entity{}, false
}

// read makes of the question what Cedar decides on.
func (q *inquiry) read(d *Decision) bool {
	q.request.Principal = cedar.NewEntityUID(cedar.EntityType(q.Subject.Type), cedar.String(q.Subject.ID))
	q.request.Action = cedar.NewEntityUID(typeAction, cedar.String(q.Action))
	q.request.Resource = cedar.NewEntityUID(cedar.EntityType(q.Resource.Type), cedar.String(q.Resource.ID))
	if q.request.Principal == q.request.Resource && !bytes.Equal(q.Subject.Properties, q.Resource.Properties) {
		return d.refuse(counterfoil.PolicyForbids, "subject and resource are one entity, and have not the same properties")
	}
	for _, r := range q.vocabulary.rules {
		if r.concerns(&q.request) {
			q.rules, q.words = append(q.rules, &r.rule), append(q.words, r)
		}
	}
	q.im.path = q.im.room[:0]
	for i, e := range [3]struct {
		root string
		uid  cedar.EntityUID
		text []byte
	}{
		{rootPrincipal, q.request.Principal, q.Subject.Properties},
		{rootAction, q.request.Action, q.ActionProperties},
		{rootResource, q.request.Resource, q.Resource.Properties},
	} {
		id := e.uid.ID
		attributes, ok := q.record(d, e.root, e.text, &id)
		if !ok {
			return false
		}
		q.entities[i] = cedar.Entity{UID: e.uid, Attributes: attributes}
	}
	var ok bool
	if q.request.Context, ok = q.record(d, rootContext, q.Context, nil); !ok {
		return false
	}
	for _, path := range q.im.without {
		for _, r := range q.words {
			if r.reads.touches(path) {
				return d.refuse(counterfoil.PolicyForbids,
					"%s reads %s, which has a value that no rule can judge: null, a number beyond ±(2^53−1) or of more than four decimal places, or too large an array",
					r.name, rootedName(path))
			}
		}
	}
	return true
}

// attributeID is the attribute of each entity that is its id.
const attributeID = "id"

// record makes a record of those members of an object that a rule in scope names. That of
// an entity has its id, which no property of that name may gainsay.
func (q *inquiry) record(d *Decision, root string, text []byte, id *cedar.String) (cedar.Record, bool) {
	var args arguments
	if err := args.parse(text); err != nil {
		return cedar.Record{}, d.refuse(counterfoil.PayloadMalformed, "what is said of the %s is not one strict JSON object: %s", root, err.Error())
	}
	m := cedar.RecordMap{}
	if id != nil {
		m[attributeID] = *id
	}
	for i := range args.members {
		name := string(args.members[i].name)
		if id != nil && name == attributeID {
			if said, ok := stringOf(args.members[i].raw); !ok || said != string(*id) {
				return cedar.Record{}, d.refuse(counterfoil.PolicyForbids, "the %s has a property id that is not its id", root)
			}
			continue
		}
		if !q.named(root, name) {
			continue
		}
		if v, ok := q.im.member(root, name, args.members[i].raw); ok {
			m[cedar.String(name)] = v
		}
	}
	return cedar.NewRecord(m), true
}

func (q *inquiry) named(root, name string) bool {
	// Of one entity that is both, what is read of either is read.
	both := q.request.Principal == q.request.Resource && (root == rootPrincipal || root == rootResource)
	for _, r := range q.words {
		if r.reads.inner(root, name) || both && (r.reads.inner(rootPrincipal, name) || r.reads.inner(rootResource, name)) {
			return true
		}
	}
	return false
}

func (q *inquiry) permitted(d *Decision) bool {
	verdict, diag := cedar.Authorize(q.rules, q, q.request)
	switch {
	case len(diag.Errors) > 0:
		// A forbid that could not be evaluated may be the one that forbids.
		e := diag.Errors[0]
		return d.refuse(counterfoil.PolicyForbids, "%s cannot be evaluated: %s", q.rules[rulePlace(e.PolicyID)].name, e.Message)
	case verdict == cedar.Allow:
		return true
	case len(diag.Reasons) > 0:
		return d.refuse(counterfoil.PolicyForbids, "%s forbids it", q.rules[rulePlace(diag.Reasons[0].PolicyID)].name)
	}
	return d.refuse(counterfoil.PolicyForbids, "nothing in vocabulary %q permits it", q.vocabulary.name)
}
