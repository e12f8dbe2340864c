package gateway

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/counterfoil/counterfoil"
)

// contested refuses a request that a server might take for another operation than the
// tool whose template it fits: one in the place of whose text the template has a
// variable. Servers differ in what they make of a segment's case and of what follows a
// name in it, as a format (export.json), an action (7:cancel) or a parameter (export,1),
// and many take the slash at the end, or a HEAD for a GET. A tool without a class gives
// way to nobody.
func (t *webTable) contested(best *webTool, p *webPath) error {
	for i := range t.unlisted {
		if tool := &t.unlisted[i]; tool.contests(best) && tool.mayBe(p) {
			return counterfoil.Refuse(counterfoil.ToolUnknown, "no tool of %s has this path", t.resource.Name)
		}
	}
	var allow []string
	for i := range t.tools {
		tool := &t.tools[i]
		switch {
		case tool == best || !tool.before(best) || !tool.mayBe(p):
		case tool.fits(p, func(a, b string) bool { return a == b }):
			allow = append(allow, tool.Method)
		default:
			return notCanonical("some servers take it for " + tool.Path)
		}
	}
	if allow != nil {
		slices.Sort(allow)
		return &wrongMethod{counterfoil.Refuse(counterfoil.MethodForbidden, "the path is one of other methods"), slices.Compact(allow)}
	}
	for i, s := range best.segments {
		if s.variable == "" && p.sent[i] != s.sent {
			return notCanonical("it is spelled as " + best.Path)
		}
	}
	if last := len(best.core()) - 1; !best.Colons && last >= 0 && best.segments[last].variable != "" && endsInVerb(p.segments[last]) {
		return notCanonical("it ends in a colon and a word, which many servers take for an action; a tool whose values end so says colons: true")
	}
	return nil
}

// endsInVerb reports whether a segment ends as custom methods do (AIP-136), such as
// 7:cancel. Ids such as urn:x:1 and 12:30 do not.
func endsInVerb(s string) bool {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || i+1 == len(s) || !unicode.IsLetter(firstRune(s[i+1:])) {
		return false
	}
	for _, r := range s[i+1:] {
		if !isWord(r) && r != '.' && r != '~' {
			return false
		}
	}
	return true
}

func firstRune(s string) rune {
	r, _ := utf8.DecodeRuneInString(s)
	return r
}

// isWord reports whether a character after a name makes another name of it.
func isWord(r rune) bool {
	return r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r)
}

// newWebSegment reads a segment of a template. Only tools without a class have variables
// within one.
func newWebSegment(s string, within bool) webSegment {
	if name, ok := strings.CutPrefix(s, "{"); ok && strings.IndexByte(s, '}') == len(s)-1 {
		return webSegment{variable: strings.TrimSuffix(name, "}")}
	}
	if within && strings.Contains(s, "{") {
		return webSegment{text: s, sent: s, pieces: piecesOf(s)}
	}
	text, err := decodeSegment(s)
	if err != nil {
		text = s
	}
	return webSegment{text: text, sent: escapeSegment(text), stem: stemOf(text)}
}

// stemOf cuts a text before the first character, but for one at its beginning, that is
// not a part of a word: export.json is the export that a server gives as JSON, too.
func stemOf(text string) string {
	for i, r := range text {
		if i > 0 && !isWord(r) {
			return text[:i]
		}
	}
	return text
}

// piecesOf returns the texts around the variables of a segment, folded.
func piecesOf(s string) []string {
	var out []string
	for {
		text, rest, ok := strings.Cut(s, "{")
		out = append(out, fold(text))
		if !ok {
			return out
		}
		_, s, _ = strings.Cut(rest, "}")
	}
}

// fold makes equal what differs by case alone.
func fold(s string) string { return strings.ToLower(strings.ToUpper(s)) }

// core is the template without the slash at its end.
func (t *webTool) core() []webSegment {
	if n := len(t.segments); t.segments[n-1].text == "" && t.segments[n-1].variable == "" {
		return t.segments[:n-1]
	}
	return t.segments
}

// contests reports whether the template has a text somewhere where the other has a
// variable.
func (t *webTool) contests(other *webTool) bool {
	mine, theirs := t.core(), other.core()
	if len(mine) != len(theirs) {
		return false
	}
	for i := range mine {
		if mine[i].variable == "" && theirs[i].variable != "" {
			return true
		}
	}
	return false
}

// mayBe reports whether a server might take the path for the tool's, whatever it makes
// of case, of what follows a name and of a slash at the end.
func (t *webTool) mayBe(p *webPath) bool {
	segments := p.segments
	if n := len(segments); segments[n-1] == "" {
		segments = segments[:n-1]
	}
	core := t.core()
	if len(core) != len(segments) {
		return false
	}
	for i := range core {
		if !core[i].mayBe(segments[i]) {
			return false
		}
	}
	return true
}

func (s *webSegment) mayBe(sent string) bool {
	switch {
	case s.variable != "":
		return true
	case s.pieces != nil:
		return inOrder(s.pieces, fold(sent))
	}
	rest, ok := afterFold(sent, s.stem)
	return ok && (rest == "" || !isWord(firstRune(rest)))
}

// afterFold returns what follows a beginning, whose case does not count.
func afterFold(s, beginning string) (rest string, ok bool) {
	for _, want := range beginning {
		r, n := utf8.DecodeRuneInString(s)
		if n == 0 || r != want && !strings.EqualFold(string(r), string(want)) {
			return "", false
		}
		s = s[n:]
	}
	return s, true
}

// inOrder reports whether a text begins with the first of the pieces, ends with the last
// and has the others in between, in their order.
func inOrder(pieces []string, s string) bool {
	s, ok := strings.CutPrefix(s, pieces[0])
	if !ok {
		return false
	}
	last := len(pieces) - 1
	for _, piece := range pieces[1:last] {
		i := strings.Index(s, piece)
		if i < 0 {
			return false
		}
		s = s[i+len(piece):]
	}
	return strings.HasSuffix(s, pieces[last])
}
