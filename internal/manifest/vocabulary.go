package manifest

import (
	"fmt"
	"maps"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/counterfoil/counterfoil"
)

// vocabulary reads what an enforcement point of somebody else's asks about in words of
// its own (AuthZEN 1.0). What the text says is for package policy to judge.
func (d *doc) vocabulary(n *yaml.Node, m members, name string) *counterfoil.Vocabulary {
	v := &counterfoil.Vocabulary{Name: name}
	servers := d.words(&v.Servers, counterfoil.CheckName)
	m["servers"] = func(n *yaml.Node, at string) {
		if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
			d.fail(n, at, "is empty; name the agents that may ask")
			return
		}
		servers(n, at)
	}
	m["class"] = d.text(&v.Class, counterfoil.CheckName)
	m["cedar"] = d.cedar(&v.Cedar)
	d.object(n, "", m, "name", "servers", "class", "cedar")
	return v
}

// vocabulary checks what a Vocabulary refers to. Its class is routine: whoever asks in
// words of its own cannot be told to wait for people, who would not know the words.
func (e *examiner) vocabulary(v *counterfoil.Vocabulary) {
	for i, name := range v.Servers {
		e.agentNamed(KindVocabulary, v.Name, fmt.Sprintf("servers[%d]", i), name)
	}
	switch class := e.reg.Classes[v.Class]; {
	case class == nil:
		e.missing(finding{kind: KindVocabulary, name: v.Name, at: "class", text: fmt.Sprintf("there is no Class %q", v.Class)}, v.Class, slices.Collect(maps.Keys(e.reg.Classes)))
	case class.Tier != counterfoil.Routine:
		e.add(KindVocabulary, v.Name, "class", "Class %s is %s; what a vocabulary allows is routine, as people cannot be asked in its words", v.Class, class.Tier)
	}
}

func (w *writer) vocabulary(v *counterfoil.Vocabulary) []entry {
	return []entry{{"servers", w.words(v.Servers)}, {"class", w.text(v.Class)}, {"cedar", w.text(v.Cedar)}}
}
