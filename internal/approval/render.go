package approval

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// A Rendering is everything that people are shown beside the call. Its canonical JSON
// is kept, and its digest is signed: whoever reads it later can show exactly what was
// seen. An optional member that is absent is left out and listed in Absent.
type Rendering struct {
	V           int                      `json:"v"`
	Sentence    string                   `json:"sentence"` // the template with its fields
	Template    string                   `json:"template,omitzero"`
	Class       string                   `json:"class"`
	Tier        counterfoil.Tier         `json:"tier"`
	Rule        counterfoil.ApprovalRule `json:"rule"`
	Agent       string                   `json:"agent,omitzero"`
	Owner       string                   `json:"owner,omitzero"`
	OnBehalfOf  string                   `json:"on_behalf_of,omitzero"`
	Asserted    string                   `json:"asserted,omitzero"` // what of this is somebody's word and not proved
	Actors      []string                 `json:"actors,omitzero"`
	Task        string                   `json:"task,omitzero"`
	TaskPurpose string                   `json:"task_purpose,omitzero"` // in the words of the agent that opened it
	TaskOpener  string                   `json:"task_opener,omitzero"`  // that agent, where it is another
	Openers     []string                 `json:"openers,omitzero"`      // owners of the agents that opened the task and those above it
	Purpose     string                   `json:"purpose,omitzero"`      // of the agent
	Requester   string                   `json:"requester,omitzero"`    // of a change
	Tool        string                   `json:"tool"`
	Resource    string                   `json:"resource"`
	Environment string                   `json:"environment,omitzero"`
	Upstream    string                   `json:"upstream,omitzero"` // where the gateway sends it
	Fields      map[string]string        `json:"fields"`
	Why         string                   `json:"why"`                  // it waits for people
	Irrevocable string                   `json:"irrevocable,omitzero"` // what cannot be undone
	Words       string                   `json:"words,omitzero"`       // the agent's own: last, and marked as such
	Earlier     string                   `json:"earlier,omitzero"`     // the approval of an equal call that ran before
	Absent      []string                 `json:"absent"`
}

// maxShown is the most of one value that a rendering holds, in bytes. The call has all
// of it.
const maxShown = 2000

// absentField stands in a sentence for a field that the call does not have.
const absentField = "⟨absent⟩"

// render makes the rendering of a call.
func (cl *claim) render(earlier string) Rendering {
	c := &cl.GuardedCall
	r := Rendering{
		V: 1, Template: cl.class.Template, Class: c.Class, Tier: cl.class.Tier, Rule: counterfoil.RuleOf(cl.class),
		Agent: c.Caller.Agent, Owner: cl.agent.Owner, Actors: c.Caller.Actors, Task: c.Caller.Task, Purpose: cl.agent.Purpose,
		Tool: c.Tool.String(), Resource: c.Tool.Resource, Fields: map[string]string{},
		Words: cut(c.Words, counterfoil.MaxWords), Earlier: earlier,
	}
	if c.Caller.Subject != c.Caller.Agent {
		r.OnBehalfOf = c.Caller.Subject
	}
	if by := cl.reg.Agents[c.For]; c.For != "" && by != nil {
		r.Asserted = fmt.Sprintf("That agent %s, which %s owns, makes this call is the word of the enforcement point %s, and is not proved.", c.For, by.Owner, c.Caller.Agent)
	}
	if len(cl.tasks) > 0 {
		t := &cl.tasks[0]
		r.TaskPurpose, r.Openers = cut(t.Purpose, maxShown), cl.openers
		if t.Opener != c.Caller.Agent {
			r.TaskOpener = t.Opener
		}
	}
	if res := cl.reg.Resources[c.Tool.Resource]; res != nil {
		r.Environment, r.Upstream = res.Environment, res.Upstream
		if t, ok := res.Tool(c.Tool.Tool); ok {
			for name := range t.Fields {
				if _, ok := c.Fields[name]; !ok {
					r.Absent = append(r.Absent, "fields/"+name)
				}
			}
		}
	}
	for name, value := range c.Fields {
		r.Fields[name] = cut(value, maxShown)
	}
	r.Sentence = plain(sentence(r.Template, r.Fields))
	r.Why = fmt.Sprintf("%s is of class %s, which is %s: %s", r.Tool, r.Class, r.Tier, wanted(&r.Rule))
	if r.Tier <= counterfoil.Irreversible {
		r.Irrevocable = fmt.Sprintf("What class %s does cannot be undone.", r.Class)
	}
	r.absences()
	return r
}

// absences lists the optional members that are left out.
func (r *Rendering) absences() {
	for _, m := range []struct {
		name   string
		absent bool
	}{
		{"template", r.Template == ""}, {"agent", r.Agent == ""}, {"owner", r.Owner == ""}, {"on_behalf_of", r.OnBehalfOf == ""}, {"asserted", r.Asserted == ""},
		{"actors", len(r.Actors) == 0}, {"task", r.Task == ""}, {"task_purpose", r.TaskPurpose == ""}, {"task_opener", r.TaskOpener == ""}, {"openers", len(r.Openers) == 0}, {"purpose", r.Purpose == ""}, {"requester", r.Requester == ""},
		{"environment", r.Environment == ""}, {"upstream", r.Upstream == ""}, {"irrevocable", r.Irrevocable == ""}, {"words", r.Words == ""}, {"earlier", r.Earlier == ""},
	} {
		if m.absent {
			r.Absent = append(r.Absent, m.name)
		}
	}
	slices.Sort(r.Absent)
}

// write returns the rendering's canonical JSON.
func (r *Rendering) write() ([]byte, error) {
	b, err := ijson.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("writing the rendering: %w", err)
	}
	return b, nil
}

// parseRendering reads what was kept.
func parseRendering(b []byte) (*Rendering, error) {
	var r Rendering
	if err := ijson.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("reading a rendering: %w", err)
	}
	return &r, nil
}

// wanted says whose signatures a rule needs.
func wanted(rule *counterfoil.ApprovalRule) string {
	var parts []string
	for _, any := range rule.Groups {
		parts = append(parts, strings.Join(any, " or "))
	}
	n, yes := "one person", " has to say yes"
	if rule.Required > 1 {
		n, yes = fmt.Sprintf("%d people", rule.Required), " have to say yes"
	}
	switch len(parts) {
	case 0:
		return n + yes
	case 1:
		return n + " of " + parts[0] + yes
	}
	return fmt.Sprintf("%s%s, one for each of (%s)", n, yes, strings.Join(parts, ") and ("))
}

// sentence puts the fields into the operator's template: {{.name}} is the field of
// that name, and there is nothing else to a template, so no value can become a part of
// it. What the caller sent is marked.
func sentence(template string, fields map[string]string) []Segment {
	var out []Segment
	for template != "" {
		before, rest, ok := strings.Cut(template, "{{")
		out = append(out, Visible(before)...)
		if !ok {
			break
		}
		name, after, ok := strings.Cut(rest, "}}")
		name, dot := strings.CutPrefix(strings.TrimSpace(name), ".")
		if !ok || !dot || name == "" {
			// A manifest with such a template is refused; one that is here all the
			// same must not pass for a sentence.
			return append(out, Segment{Text: "⟨unreadable template⟩"})
		}
		value, there := fields[name]
		if !there {
			value = absentField
		}
		for _, s := range Visible(value) {
			s.Value = there
			out = append(out, s)
		}
		template = after
	}
	return out
}

// plain writes segments as one text, with codes for what is hidden.
func plain(segments []Segment) string {
	var b strings.Builder
	for _, s := range segments {
		if s.Code != "" {
			b.WriteString("⟨" + s.Code + "⟩")
			continue
		}
		b.WriteString(s.Text)
	}
	return b.String()
}

// cut shortens a text to a number of bytes and says so, with a digest of all of it.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	end := most
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return fmt.Sprintf("%s… ⟨%d bytes in all, %s⟩", s[:end], len(s), digest("", []byte(s)))
}
