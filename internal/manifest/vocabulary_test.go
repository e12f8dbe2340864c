package manifest

import (
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
)

const vocabularyText = `kind: Person
name: ana
---
kind: Class
name: read
tier: routine
---
kind: Class
name: reset
tier: guarded
approvers: [ops]
---
kind: Agent
name: edge
owner: ana
purpose: asks for the shop's gateway
environment: prod
---
kind: Vocabulary
name: records
servers: [edge]
class: read
cedar: |
  permit (principal is user, action == Action::"read", resource is record);
  forbid (principal is user, action, resource is record)
  when { context has frozen && context.frozen };
`

func TestVocabulary(t *testing.T) {
	t.Parallel()
	docs, problems := Parse([]File{{Name: "m.yaml", Data: []byte(vocabularyText)}})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	reg, changes, problems := Merge(nil, docs)
	if len(problems) > 0 || len(changes) != 5 {
		t.Fatal(problems, changes)
	}
	v := reg.Vocabularies["records"]
	if v == nil || v.Class != "read" || len(v.Servers) != 1 || !strings.HasPrefix(v.Cedar, "permit (") || KindVocabulary != counterfoil.KindVocabulary {
		t.Fatalf("read: %+v", v)
	}
	text, err := Format(v)
	if err != nil {
		t.Fatal(err)
	}
	docs, problems = Parse([]File{{Name: "v.yaml", Data: text}})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	again, changes, problems := Merge(reg, docs)
	if len(problems) > 0 || len(changes) != 1 || changes[0].Verb != Unchanged || again.Vocabularies["records"] != v {
		t.Errorf("formatted and merged again: %v %v\n%s", changes, problems, text)
	}
}

func TestVocabularyProblems(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ old, new, want string }{
		{"servers: [edge]\n", "", `m.yaml:19: Vocabulary records: member "servers" is missing`},
		{"servers: [edge]", "servers: []", `m.yaml:21: Vocabulary records: servers: is empty; name the agents that may ask`},
		{"servers: [edge]", "servers: [egde]", `m.yaml:21: Vocabulary records: servers[0]: there is no Agent "egde"; did you mean "edge"?`},
		{"class: read", "class: raed", `m.yaml:22: Vocabulary records: class: there is no Class "raed"; did you mean "read"?`},
		{"class: read", "class: reset", `m.yaml:22: Vocabulary records: class: Class reset is guarded; what a vocabulary allows is routine, as people cannot be asked in its words`},
		{"class: read\n", "", `m.yaml:19: Vocabulary records: member "class" is missing`},
		{"permit (principal is user", "permit (principal", `m.yaml:24: Vocabulary records: cedar: a permit says what it is about`},
		{"context.frozen };", "context.frozen ;", `m.yaml:26: Vocabulary records: cedar: `},
		{"servers: [edge]", "resources: [edge]", `m.yaml:21: Vocabulary records: member "resources" is unknown; known are cedar, class, kind, name, servers`},
	} {
		text := strings.Replace(vocabularyText, c.old, c.new, 1)
		docs, problems := Parse([]File{{Name: "m.yaml", Data: []byte(text)}})
		if len(problems) == 0 {
			_, _, problems = Merge(nil, docs)
		}
		if len(problems) == 0 || !strings.HasPrefix(problems[0].String(), c.want) {
			t.Errorf("%q for %q: %v, want %s", c.new, c.old, problems, c.want)
		}
	}
}
