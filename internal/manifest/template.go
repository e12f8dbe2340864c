package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/template/parse"
)

// checkTemplate takes text with fields in it, {{.amount}}, and nothing else of
// Go's template syntax. An approver reads the sentence and signs: what it says may
// depend on the call alone, never on a condition, a function or a loop that shows
// one call and hides another.
func checkTemplate(s string) error {
	_, err := templateFields(s)
	return err
}

// templateFields returns the names of the fields that a template shows, sorted.
func templateFields(s string) ([]string, error) {
	// Without a map of functions every function's name is an error, the built-in
	// ones too.
	trees, err := parse.Parse("template", s, "", "", map[string]any{})
	if err != nil {
		return nil, fmt.Errorf("is not a template: %s", strings.TrimPrefix(err.Error(), "template: template:"))
	}
	for name := range trees {
		if name != "template" {
			return nil, fmt.Errorf("defines a template %.40q of its own; %s", name, onlyFields)
		}
	}
	if trees["template"] == nil {
		return nil, errors.New("is empty")
	}
	var fields []string
	for _, n := range trees["template"].Root.Nodes {
		if _, text := n.(*parse.TextNode); text {
			continue
		}
		name := fieldOf(n)
		if name == "" {
			return nil, fmt.Errorf("has %.80q; %s", n.String(), onlyFields)
		}
		if err := checkFieldName(name); err != nil {
			return nil, err
		}
		if !slices.Contains(fields, name) {
			fields = append(fields, name)
		}
	}
	slices.Sort(fields)
	return fields, nil
}

const onlyFields = "a template is text with fields such as {{.amount}}, no condition, loop, variable or function"

// fieldOf returns the name of the field that a node shows, and nothing for any
// other node.
func fieldOf(n parse.Node) string {
	action, ok := n.(*parse.ActionNode)
	if !ok || len(action.Pipe.Decl) > 0 || len(action.Pipe.Cmds) != 1 || len(action.Pipe.Cmds[0].Args) != 1 {
		return ""
	}
	field, ok := action.Pipe.Cmds[0].Args[0].(*parse.FieldNode)
	if !ok || len(field.Ident) != 1 {
		return ""
	}
	return field.Ident[0]
}
