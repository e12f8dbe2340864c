package policy

import (
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
)

const recordWords = `permit (principal is user, action == Action::"read", resource is record);
permit (principal == user::"alice", action == Action::"write", resource is record)
when { !(resource has status && resource.status == "archived") };
permit (principal is user, action == Action::"write", resource is record)
when { principal has role && principal.role == "admin" };
forbid (principal is user, action, resource is record)
when { context has frozen && context.frozen };
permit (principal is user, action == Action::"spend", resource is record)
when { context.amount.lessThan(decimal("10.5")) };
permit (principal is user, action == Action::"own", resource is record)
when { resource.owner == principal.id };
permit (principal is user, action == Action::"soften", resource is record)
when { action has soft && action.soft };`

func words(t testing.TB, cedar string, change func(*counterfoil.Registry)) *Set {
	t.Helper()
	reg := bank()
	reg.Vocabularies["records"] = &counterfoil.Vocabulary{Name: "records", Servers: []string{"edge"}, Class: "read", Cedar: cedar}
	if change != nil {
		change(reg)
	}
	return load(t, reg)
}

func ask(subject, action, resource string) Inquiry {
	return Inquiry{Subject: Word{Type: "user", ID: subject}, Action: action, Resource: Word{Type: "record", ID: resource}}
}

func TestInquire(t *testing.T) {
	t.Parallel()
	s := words(t, recordWords, nil)
	with := func(q Inquiry, subject, action, resource, context string) Inquiry {
		for text, into := range map[string]*[]byte{subject: &q.Subject.Properties, action: &q.ActionProperties, resource: &q.Resource.Properties, context: &q.Context} {
			if text != "" {
				*into = []byte(text)
			}
		}
		return q
	}
	for name, c := range map[string]struct {
		q    Inquiry
		code counterfoil.Code // empty: allowed
	}{
		"read":                            {ask("bob", "read", "r1"), ""},
		"no permit":                       {ask("bob", "write", "r1"), counterfoil.PolicyForbids},
		"by id":                           {ask("alice", "write", "r1"), ""},
		"by a property of the resource":   {with(ask("alice", "write", "r1"), "", "", `{"status":"archived"}`, ""), counterfoil.PolicyForbids},
		"by a property of the subject":    {with(ask("bob", "write", "r1"), `{"role":"admin"}`, "", `{"status":"archived"}`, ""), ""},
		"by a property of the action":     {with(ask("bob", "soften", "r1"), "", `{"soft":true}`, "", ""), ""},
		"the property says no":            {with(ask("bob", "soften", "r1"), "", `{"soft":false}`, "", ""), counterfoil.PolicyForbids},
		"the property is of another type": {with(ask("bob", "soften", "r1"), "", `{"soft":"true"}`, "", ""), counterfoil.PolicyForbids},
		"forbidden":                       {with(ask("bob", "read", "r1"), "", "", "", `{"frozen":true}`), counterfoil.PolicyForbids},
		"not forbidden":                   {with(ask("bob", "read", "r1"), "", "", "", `{"frozen":false}`), ""},
		"a forbid errs":                   {with(ask("bob", "read", "r1"), "", "", "", `{"frozen":"no"}`), counterfoil.PolicyForbids},
		"a forbid reads null":             {with(ask("bob", "read", "r1"), "", "", "", `{"frozen":null}`), counterfoil.PolicyForbids},
		"null that nobody reads":          {with(ask("bob", "read", "r1"), `{"x":null}`, "", "", `{"y":null}`), ""},
		"a decimal":                       {with(ask("bob", "spend", "r1"), "", "", "", `{"amount":10.49}`), ""},
		"a decimal of five places":        {with(ask("bob", "spend", "r1"), "", "", "", `{"amount":10.49999}`), counterfoil.PolicyForbids},
		"a member that is absent":         {ask("bob", "spend", "r1"), counterfoil.PolicyForbids},
		"an id is an attribute":           {with(ask("bob", "own", "r1"), "", "", `{"owner":"bob"}`, ""), ""},
		"an id of another":                {with(ask("bob", "own", "r1"), "", "", `{"owner":"eve"}`, ""), counterfoil.PolicyForbids},
		"a property id is not the id":     {with(ask("bob", "own", "r1"), `{"id":"eve"}`, "", `{"owner":"eve"}`, ""), counterfoil.PolicyForbids},
		"a property id is the id":         {with(ask("bob", "own", "r1"), `{"id":"bob"}`, "", `{"owner":"bob"}`, ""), ""},
		"properties that are no object":   {with(ask("bob", "read", "r1"), `[]`, "", "", ""), counterfoil.PayloadMalformed},
		"a name twice":                    {with(ask("bob", "read", "r1"), `{"a":1,"a":2}`, "", "", ""), counterfoil.PayloadMalformed},
		"unknown action":                  {ask("bob", "burn", "r1"), counterfoil.PolicyForbids},
		"unknown type of subject":         {Inquiry{Subject: Word{Type: "robot", ID: "bob"}, Action: "read", Resource: Word{Type: "record", ID: "r1"}}, counterfoil.ToolUnknown},
		"unknown type of resource":        {Inquiry{Subject: Word{Type: "user", ID: "bob"}, Action: "read", Resource: Word{Type: "file", ID: "r1"}}, counterfoil.ToolUnknown},
		"the zero inquiry":                {Inquiry{}, counterfoil.ToolUnknown},
		"a type that is text of Cedar":    {Inquiry{Subject: Word{Type: `user::"alice" || user`, ID: "x"}, Action: "read", Resource: Word{Type: "record", ID: "r1"}}, counterfoil.ToolUnknown},
		"an id that is text of Cedar":     {ask(`" || true || "`, "write", "r1"), counterfoil.PolicyForbids},
	} {
		vocabulary, d := s.Inquire("edge", c.q)
		if d.Code != c.code || d.Allow != (c.code == "") {
			t.Errorf("%s: allow %v, code %q (%s), want %q", name, d.Allow, d.Code, d.Detail, c.code)
		}
		if (vocabulary == "") != (c.code == counterfoil.ToolUnknown) {
			t.Errorf("%s: vocabulary %q", name, vocabulary)
		}
	}
	for _, server := range []string{"", "payroll"} {
		if name, d := s.Inquire(server, ask("bob", "read", "r1")); d.Allow || d.Code != counterfoil.ToolUnknown || name != "" {
			t.Errorf("asked by %q: %+v", server, d)
		}
	}
	if _, d := (*Set)(nil).Inquire("edge", ask("bob", "read", "r1")); d.Allow || d.Code == "" {
		t.Error("a nil set allows")
	}
}

// One entity cannot have two sets of properties.
func TestInquireAboutOneself(t *testing.T) {
	t.Parallel()
	s := words(t, `permit (principal is user, action, resource is user) when { resource has open && resource.open };`, nil)
	q := Inquiry{Subject: Word{"user", "bob", []byte(`{"open":true}`)}, Action: "see", Resource: Word{"user", "bob", []byte(`{"open":true}`)}}
	if _, d := s.Inquire("edge", q); !d.Allow {
		t.Errorf("equal properties: %+v", d)
	}
	q.Resource.Properties = nil
	if _, d := s.Inquire("edge", q); d.Allow || d.Code != counterfoil.PolicyForbids {
		t.Errorf("the subject's properties count as the resource's: %+v", d)
	}
}

func TestVocabularyIsRoutine(t *testing.T) {
	t.Parallel()
	for class, code := range map[string]counterfoil.Code{
		"read": "", "guarded": counterfoil.PolicyForbids, "final": counterfoil.PolicyForbids, "never": counterfoil.ClassForbidden, "ghost": counterfoil.ClassForbidden,
	} {
		s := words(t, recordWords, func(r *counterfoil.Registry) { r.Vocabularies["records"].Class = class })
		if _, d := s.Inquire("edge", ask("bob", "read", "r1")); d.Code != code || d.Allow != (code == "") {
			t.Errorf("class %s: %+v", class, d)
		}
	}
}

func TestVocabularyProblems(t *testing.T) {
	t.Parallel()
	const head = `permit (principal is user, action, resource is record) when { `
	for text, want := range map[string]string{
		``: "nothing is permitted",
		`forbid (principal is user, action, resource);`:                             "nothing is permitted",
		`permit (principal, action, resource);`:                                     "says what it is about",
		`permit (principal is user, action, resource);`:                             "says what it is about",
		`permit (principal, action, resource is record);`:                           "says what it is about",
		`permit (principal is agent, action, resource is tool);`:                    "grants",
		`permit (principal in group::"staff", action, resource is record);`:         "never applies",
		`permit (principal is user in group::"staff", action, resource is record);`: "never applies",
		`permit (principal is user, action, resource in folder::"x");`:              "never applies",
		`permit (principal is user, action == Verb::"read", resource is record);`:   "never applies",
		`permit (principal is user, action in [], resource is record);`:             "never applies",
		`permit (principal is Action, action, resource is record);`:                 "never applies",
		head + `principal in group::"staff" };`:                                     "never applies",
		head + `principal is user in group::"staff" };`:                             "never applies",
		head + `resource.owner == principal };`:                                     "is never equal",
		head + `resource != "r1" };`:                                                "is never equal",
		head + `resource.hasTag("x") };`:                                            "no tags",
		head + `resource.getTag("x") == 1 };`:                                       "no tags",
		head + `decimal("5") == context.amount };`:                                  "can only err",
		head + `1 };`: "not a condition",
		head + `true }; permit (principal, action, resource) when { true };`:            "says what it is about",
		strings.Repeat(`permit (principal is user, action, resource is record);`, 1500): "the limit is",
	} {
		reg := bank()
		reg.Vocabularies["records"] = &counterfoil.Vocabulary{Name: "records", Servers: []string{"edge"}, Class: "read", Cedar: text}
		s, problems := Load(reg)
		if len(problems) == 0 || !strings.Contains(problems[0].Text, want) || problems[0].Kind != "Vocabulary" || problems[0].Field != "cedar" {
			t.Errorf("%.80s: %v, want %q", text, problems, want)
		}
		if _, d := s.Inquire("edge", ask("bob", "read", "r1")); d.Allow {
			t.Errorf("%.80s: allowed", text)
		}
	}
}

// What is chosen by a condition may be anything, so a value without an image counts
// wherever it is.
func TestReadsThroughAChoice(t *testing.T) {
	t.Parallel()
	s := words(t, `permit (principal is user, action, resource is record);
forbid (principal is user, action, resource is record) when { (if context has other then principal else resource).level > 5 };`, nil)
	q := ask("bob", "read", "r1")
	q.Resource.Properties = []byte(`{"level":1}`)
	if _, d := s.Inquire("edge", q); !d.Allow {
		t.Errorf("control: %+v", d)
	}
	q.Resource.Properties = []byte(`{"level":null}`)
	if _, d := s.Inquire("edge", q); d.Allow {
		t.Error("a forbid reads null and is passed")
	}
}

func TestTwoVocabulariesOfOneServer(t *testing.T) {
	t.Parallel()
	reg := bank()
	for _, name := range []string{"a", "b"} {
		reg.Vocabularies[name] = &counterfoil.Vocabulary{Name: name, Servers: []string{"edge"}, Class: "read", Cedar: `permit (principal is user, action, resource is record);`}
	}
	s, problems := Load(reg)
	if len(problems) != 1 || problems[0].Name != "b" || !strings.Contains(problems[0].Text, "Vocabulary a says, too") {
		t.Errorf("problems: %v", problems)
	}
	if _, d := s.Inquire("edge", ask("bob", "read", "r1")); d.Allow {
		t.Error("one of two that answer is chosen")
	}
	reg.Vocabularies["b"].Servers = []string{"other"}
	s = load(t, reg)
	for _, server := range []string{"edge", "other"} {
		if _, d := s.Inquire(server, ask("bob", "read", "r1")); !d.Allow {
			t.Errorf("%s: %+v", server, d)
		}
	}
}

func TestVocabularyIsInTheDigest(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{load(t, bank()).Digest(): true}
	for _, change := range []func(*counterfoil.Vocabulary){
		func(*counterfoil.Vocabulary) {},
		func(v *counterfoil.Vocabulary) { v.Class = "payout" },
		func(v *counterfoil.Vocabulary) { v.Servers = []string{"edge", "other"} },
		func(v *counterfoil.Vocabulary) { v.Cedar += "\n" },
	} {
		s := words(t, recordWords, func(r *counterfoil.Registry) { change(r.Vocabularies["records"]) })
		if seen[s.Digest()] {
			t.Errorf("two sets with the digest %s", s.Digest())
		}
		seen[s.Digest()] = true
	}
}

// FuzzInquire holds that no properties make a question pass that reads a member without an
// image, and that nothing panics.
func FuzzInquire(f *testing.F) {
	f.Add("bob", "write", `{"role":"admin"}`, `{"status":"archived"}`, `{"frozen":false}`)
	f.Add("alice", "write", `{}`, `{"status":null}`, `{"frozen":1e400}`)
	f.Add("alice", "spend", `{"id":"eve"}`, `[`, `{"amount":10.49999}`)
	s := words(f, recordWords, nil)
	f.Fuzz(func(t *testing.T, subject, action, of, resource, context string) {
		q := ask(subject, action, "r1")
		q.Subject.Properties, q.Resource.Properties, q.Context = []byte(of), []byte(resource), []byte(context)
		_, d := s.Inquire("edge", q)
		if d.Allow != (d.Code == "") {
			t.Fatalf("%+v", d)
		}
		if d.Allow && action != "read" && action != "write" && action != "spend" && action != "own" && action != "soften" {
			t.Fatalf("allowed %q", action)
		}
	})
}
