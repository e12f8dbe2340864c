package manifest

import (
	"fmt"
	"strings"
	"testing"
)

// Everything that is read of a description counts each time, so that no short text is
// read for long.
func TestWhatIsReadOfADescriptionCounts(t *testing.T) {
	t.Parallel()
	const many = 200
	list := func(item string) string { return strings.Repeat(item+", ", many-1) + item }
	for name, tt := range map[string]struct {
		text string
		cost int // of one operation, at least
	}{
		"an enum": {`openapi: 3.1.0
paths:
  /a:
    post: {requestBody: {content: {application/json: {schema: {enum: [` + list("x") + `]}}}}}`, many},
		"the list of a path's parameters, and each": {`openapi: 3.1.0
components: {parameters: {p: {name: p, in: query}}}
paths:
  /a:
    parameters: [` + list(`{$ref: "#/components/parameters/p"}`) + `]
    get: {}`, 6 * many},
		"the media types of a body": {`openapi: 3.1.0
paths:
  /a:
    post: {requestBody: {content: {` + mediaTypes(many) + `}}}`, many},
	} {
		s, err := readSpec([]byte(tt.text))
		if err != nil {
			t.Fatal(name, err)
		}
		ops, err := s.operations()
		if err != nil || len(ops) != 1 {
			t.Fatalf("%s: %d operations, %v", name, len(ops), err)
		}
		before := s.left
		if _, err := s.tool(ops[0], false); err != nil {
			t.Errorf("%s: control: %v", name, err)
		}
		if cost := before - s.left; cost < tt.cost {
			t.Errorf("%s: it costs %d", name, cost)
		}
		s.left = many / 2
		if _, err := s.tool(ops[0], false); err == nil || !strings.Contains(err.Error(), "there is too much") {
			t.Errorf("%s: there is no room for it: %v", name, err)
		}
	}
	// A path item that many paths refer to counts with each of them.
	text := "openapi: 3.1.0\ncomponents: {pathItems: {p: {" + mediaTypes(many) + "}}}\npaths:\n"
	for i := range 10 {
		text += fmt.Sprintf("  /p%d: {$ref: \"#/components/pathItems/p\"}\n", i)
	}
	s, err := readSpec([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	before := s.left
	if _, err := s.operations(); err != nil || before-s.left < 10*many {
		t.Errorf("it costs %d, %v", before-s.left, err)
	}
	s.left = 5 * many
	if _, err := s.operations(); err == nil {
		t.Error("there is no room for its paths")
	}
}

func mediaTypes(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "application/x-%d: {}, ", i)
	}
	return strings.TrimSuffix(b.String(), ", ")
}
