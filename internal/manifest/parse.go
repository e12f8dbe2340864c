package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/policy"
)

const (
	maxFile     = 16 << 20 // bytes of one file
	maxText     = 4 << 10  // bytes of one text, Cedar apart
	maxCedar    = 64 << 10 // bytes of one Cedar text; package policy has closer limits
	maxProblems = 200      // reported at once
)

// Parse reads manifests. A file that another one names (References) is read as what it
// is named as, and is no manifest. Documents without a problem are returned even beside
// problems with others, so that a caller may look on; none may be applied then.
func Parse(files []File) ([]Document, []Problem) {
	p := &parser{seen: map[docKey]Position{}, beside: map[string]File{}}
	for _, ref := range References(files) {
		for _, f := range files {
			if path.Clean(f.Name) == ref.Name {
				p.beside[ref.Name] = f
			}
		}
	}
	for _, f := range files {
		if _, named := p.beside[path.Clean(f.Name)]; !named {
			p.file(f)
		}
	}
	return p.docs, p.problems
}

type docKey struct{ kind, name string }

// A parser gathers the documents of several files and all that is wrong with
// them.
type parser struct {
	docs     []Document
	problems []Problem
	seen     map[docKey]Position
	beside   map[string]File // files that manifests name, by the name of the Reference
}

func (p *parser) problem(at Position, format string, args ...any) {
	switch n := len(p.problems); {
	case n < maxProblems:
		p.problems = append(p.problems, Problem{at.File, at.Line, fmt.Sprintf(format, args...)})
	case n == maxProblems:
		p.problems = append(p.problems, Problem{at.File, at.Line, "there are more problems; these come first"})
	}
}

func (p *parser) file(f File) {
	whole := Position{File: f.Name}
	switch {
	case len(f.Data) > maxFile:
		p.problem(whole, "the file has %d bytes, more than %d; split it", len(f.Data), maxFile)
		return
	case !utf8.Valid(f.Data):
		p.problem(whole, "the file is not UTF-8")
		return
	case bytes.HasPrefix(f.Data, []byte("\xef\xbb\xbf")):
		p.problem(Position{f.Name, 1}, "the file begins with a byte order mark; save it as UTF-8 without one")
		return
	}
	dec := yaml.NewDecoder(bytes.NewReader(f.Data))
	for {
		var root yaml.Node
		err := decode(dec, &root)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			// The rest of the file cannot be found after a syntax error.
			line, text := yamlError(err)
			p.problem(Position{f.Name, line}, "this is not YAML: %s", text)
			return
		}
		if root.Kind == yaml.DocumentNode && len(root.Content) == 1 {
			p.document(f.Name, root.Content[0])
		}
	}
}

// decode keeps a panic of the YAML library from ending the process.
func decode(dec *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the text cannot be read: %v", p)
		}
	}()
	return dec.Decode(n)
}

var (
	yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?`)

	// The YAML library counts lines from 0 where its parser complains and from 1
	// where its scanner does. These are the parser's words.
	yamlParser = regexp.MustCompile(`^did not find expected (<|node content|'-' indicator|key$|',' or)`)
)

func yamlError(err error) (line int, text string) {
	s := err.Error()
	m := yamlLine.FindStringSubmatch(s)
	text = s[len(m[0]):]
	line, _ = strconv.Atoi(m[1])
	if yamlParser.MatchString(text) || line == 0 {
		line++
	}
	return line, text
}

// A doc is one document being read.
type doc struct {
	*parser
	file    string
	label   string // `Agent payroll`, for problems
	pos     map[string]Position
	literal map[string]bool

	described *expansion // of a resource
}

// A handler reads the value of a member that stands at a path.
type handler func(n *yaml.Node, at string)

type members map[string]handler

func (p *parser) document(file string, n *yaml.Node) {
	d := &doc{parser: p, file: file, label: "document", pos: map[string]Position{}, literal: map[string]bool{}}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return // nothing between two separators
	}
	if !d.plain(n, "", yaml.MappingNode) {
		return
	}
	before := len(p.problems)
	d.pos[""] = Position{file, n.Line}
	kind, name := d.identity(n)
	if kind == "" {
		return
	}
	noun := d.noun(kind, name, n)
	if name == "" || len(p.problems) > before {
		return
	}
	p.docs = append(p.docs, Document{Kind: kind, Name: name, Noun: noun, Pos: d.pos, literal: d.literal, described: d.described})
}

// identity reads kind and name, and refuses a document that is there twice.
func (d *doc) identity(n *yaml.Node) (kind, name string) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch v := n.Content[i+1]; n.Content[i].Value {
		case "kind":
			if kind == "" && v.Kind == yaml.ScalarNode {
				kind = v.Value
			}
		case "name":
			if name == "" && v.Kind == yaml.ScalarNode && v.ShortTag() == "!!str" {
				name = v.Value
			}
		}
	}
	switch {
	case kind == "":
		d.fail(n, "", "there is no kind; write one of %s", strings.Join(Kinds(), ", "))
		return "", ""
	case !slices.Contains(Kinds(), kind):
		d.fail(n, "", "kind %.40q is unknown%s; the kinds are %s", kind, hint(kind, Kinds()), strings.Join(Kinds(), ", "))
		return "", ""
	}
	d.label = kind
	if name == "" {
		return kind, "" // reported as a missing member
	}
	if counterfoil.CheckName(name) == nil {
		d.label = kind + " " + name
	}
	key := docKey{kind, name}
	if first, ok := d.seen[key]; ok {
		d.fail(n, "", "is declared twice; the first time at %s:%d", first.File, first.Line)
	} else {
		d.seen[key] = Position{d.file, n.Line}
	}
	return kind, name
}

// fail notes a problem with the value at a path.
func (d *doc) fail(n *yaml.Node, at, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if at != "" {
		text = at + ": " + text
	}
	d.problem(Position{d.file, n.Line}, "%s: %s", d.label, text)
}

var kindNames = map[yaml.Kind]string{
	yaml.MappingNode:  "a mapping (name: value)",
	yaml.SequenceNode: "a list",
	yaml.ScalarNode:   "one value",
}

// plain refuses what would make one text mean another, and a value of another
// kind than the one wanted.
func (d *doc) plain(n *yaml.Node, at string, kind yaml.Kind) bool {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.fail(n, at, "anchors and aliases are not taken; write the value out")
	case n.Style&yaml.TaggedStyle != 0:
		d.fail(n, at, "the tag %s is not taken; write the plain value", n.Tag)
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		d.fail(n, at, "there is no value; write one or leave the member out")
	case n.Kind != kind:
		d.fail(n, at, "must be %s, not %s", kindNames[kind], kindNames[n.Kind])
	default:
		return true
	}
	return false
}

// object reads a mapping: each member by its handler, unknown ones and
// duplicates refused, required ones missed. Whoever reads a document has seen
// that it is a mapping.
func (d *doc) object(n *yaml.Node, at string, m members, required ...string) {
	if !d.plain(n, at, yaml.MappingNode) {
		return
	}
	have := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || k.Anchor != "" || k.Style&yaml.TaggedStyle != 0 {
			d.fail(k, at, "a member's name must be plain text")
			continue
		}
		name := k.Value
		place := join(at, name)
		read, known := m[name]
		switch {
		case k.ShortTag() == "!!merge":
			d.fail(k, at, "merge keys (<<) are not taken; write the members out")
		case have[name]:
			d.fail(k, at, "member %.80q is there twice", name)
		case !known:
			names := slices.Sorted(maps.Keys(m))
			d.fail(k, at, "member %.80q is unknown%s; known are %s", name, hint(name, names), strings.Join(names, ", "))
		default:
			d.pos[place] = Position{d.file, v.Line}
			read(v, place)
		}
		have[name] = true
	}
	for _, name := range required {
		if !have[name] {
			d.fail(n, at, "member %q is missing", name)
		}
	}
}

func join(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}

func hint(word string, candidates []string) string {
	if near := policy.Nearest(word, candidates); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	for _, c := range candidates {
		if strings.EqualFold(c, word) {
			return fmt.Sprintf("; did you mean %q?", c)
		}
	}
	return ""
}

// list reads a sequence, each element by the handler.
func (d *doc) list(each handler) handler {
	return func(n *yaml.Node, at string) {
		if !d.plain(n, at, yaml.SequenceNode) {
			return
		}
		for i, e := range n.Content {
			place := fmt.Sprintf("%s[%d]", at, i)
			d.pos[place] = Position{d.file, e.Line}
			each(e, place)
		}
	}
}

// scalar returns the text of a value whose type is one of tags.
func (d *doc) scalar(n *yaml.Node, at string, want string, tags ...string) (string, bool) {
	if !d.plain(n, at, yaml.ScalarNode) {
		return "", false
	}
	if !slices.Contains(tags, n.ShortTag()) {
		if slices.Contains(tags, "!!str") {
			want += fmt.Sprintf("; YAML reads %.40s as something else, so put it in quotes", n.Value)
		}
		d.fail(n, at, "must be %s", want)
		return "", false
	}
	return n.Value, true
}

type check func(string) error

// text reads one line of text.
func (d *doc) text(dst *string, checks ...check) handler {
	return func(n *yaml.Node, at string) {
		if s, ok := d.scalar(n, at, "text", "!!str"); ok && d.checked(n, at, s, append([]check{checkLine}, checks...)) {
			*dst = s
		}
	}
}

// optional reads one line of text that may be empty.
func (d *doc) optional(dst *string) handler {
	return func(n *yaml.Node, at string) {
		if n.Kind != yaml.ScalarNode || n.Value != "" || n.ShortTag() != "!!str" {
			d.text(dst)(n, at)
		}
	}
}

func (d *doc) checked(n *yaml.Node, at, s string, checks []check) bool {
	for _, c := range checks {
		if err := c(s); err != nil {
			d.fail(n, at, "%v", err)
			return false
		}
	}
	return true
}

// cedar reads a Cedar text, which may have several lines. What it says is for
// package policy to judge.
func (d *doc) cedar(dst *string) handler {
	return func(n *yaml.Node, at string) {
		s, ok := d.scalar(n, at, "text", "!!str")
		if !ok {
			return
		}
		if strings.TrimSpace(s) == "" {
			d.fail(n, at, "is empty")
			return
		}
		if len(s) > maxCedar {
			d.fail(n, at, "has %d bytes; the limit is %d", len(s), maxCedar)
			return
		}
		if i := strings.IndexFunc(s, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }); i >= 0 {
			d.fail(n, at, "has a control character at byte %d", i)
			return
		}
		d.literal[at] = n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0
		*dst = s
	}
}

// checkLine refuses what does not belong into one line that people read:
// control characters and those that turn the direction of what follows.
func checkLine(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	if len(s) > maxText {
		return fmt.Errorf("has %d bytes; the limit is %d", len(s), maxText)
	}
	for _, r := range s {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			return fmt.Errorf("has the control character %U", r)
		}
	}
	return nil
}

// enum reads one word out of a few.
func (d *doc) enum(dst *string, values ...string) handler {
	return d.text(dst, func(s string) error {
		if slices.Contains(values, s) {
			return nil
		}
		return fmt.Errorf("%.40q is none of %s%s", s, strings.Join(values, ", "), hint(s, values))
	})
}

func (d *doc) flag(dst *bool) handler {
	return func(n *yaml.Node, at string) {
		if s, ok := d.scalar(n, at, "true or false", "!!bool"); ok {
			*dst = strings.EqualFold(s, "true")
		}
	}
}

// count reads a whole number of at least 1.
func (d *doc) count(dst *int) handler {
	return func(n *yaml.Node, at string) {
		s, ok := d.scalar(n, at, "a whole number", "!!int")
		if !ok {
			return
		}
		v, err := strconv.ParseInt(s, 10, 32)
		if err != nil || v < 1 || s != strconv.FormatInt(v, 10) {
			d.fail(n, at, "%.40s is not a whole number from 1 to 2147483647", s)
			return
		}
		*dst = int(v)
	}
}

// maxDuration is ten years, far below where durations overflow.
const maxDuration = 10 * 366 * 24 * time.Hour

func (d *doc) duration(dst *counterfoil.Duration) handler {
	const want = "a duration such as 90s, 15m or 24h"
	return func(n *yaml.Node, at string) {
		s, ok := d.scalar(n, at, want, "!!str", "!!int", "!!float")
		if !ok {
			return
		}
		v, err := time.ParseDuration(s)
		switch {
		case err != nil:
			d.fail(n, at, "%.40q is not %s", s, want)
		case v < time.Second || v > maxDuration || v%time.Second != 0:
			d.fail(n, at, "%.40q is not whole seconds, at least one, at most ten years", s)
		default:
			*dst = counterfoil.Duration(v)
		}
	}
}

// decimal reads a number without ever making it one: what is written is what is
// compared, so 100.50 without quotes is taken as it stands.
func (d *doc) decimal(dst *string) handler {
	return func(n *yaml.Node, at string) {
		s, ok := d.scalar(n, at, "a decimal such as \"100.50\"", "!!str", "!!int", "!!float")
		if !ok {
			return
		}
		if units, ok := policy.ParseUnits(s); !ok || units <= 0 {
			d.fail(n, at, "%.40q is not a decimal above zero of at most four places, such as \"100.50\"", s)
			return
		}
		*dst = s
	}
}

// words reads a list of texts without duplicates.
func (d *doc) words(dst *[]string, checks ...check) handler {
	return d.list(func(n *yaml.Node, at string) {
		var s string
		d.text(&s, checks...)(n, at)
		if s == "" {
			return
		}
		if slices.Contains(*dst, s) {
			d.fail(n, at, "%.80q is there twice", s)
			return
		}
		*dst = append(*dst, s)
	})
}
