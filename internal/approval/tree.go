package approval

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
)

// A Node is a value of the call, to be shown with its type: "100" and 100 are not the
// same payment order.
type Node struct {
	Key      string    `json:"-"`             // of a member its name, of an element its index; as it is
	Name     []Segment `json:"name,omitzero"` // the same, to be shown
	Type     string    `json:"type"`          // object, array, string, number, boolean or null
	Text     []Segment `json:"text,omitzero"` // of what has no children
	Children []Node    `json:"children,omitzero"`

	// Of what is not shown whole. The digest is over the text, or over the canonical
	// JSON of the object or array.
	More   int    `json:"more,omitzero"`   // children that are left out
	Length int    `json:"length,omitzero"` // of all of it, in bytes
	Digest string `json:"digest,omitzero"`
}

// NameCut reports whether not all of the name is shown.
func (n *Node) NameCut() bool { return len(n.Key) > maxName }

// Bounds of what is shown. A call has at most 4 MiB; a page of that would show nobody
// anything. Every value costs nodeCost and a byte for each of its text, a character
// that is shown by its number hiddenCost more; all of them may cost maxCost.
const (
	maxText    = 16 << 10 // bytes of one value
	maxName    = 1000     // bytes of one name
	maxCost    = 256 << 10
	nodeCost   = 100
	hiddenCost = 32

	maxCompared = 1000 // bytes of one value where two calls are compared
	maxSame     = 50   // differences
)

// Tree returns the call's values in their canonical order: all of them, as far as they
// cost no more than may be shown. Of a call that costs more each value has an equal
// share of what the one around it has, and what the small ones leave goes to the large
// ones. So nothing that somebody adds pushes out what is small and stands beside it,
// or within what stands beside it.
func Tree(call []byte) (*Node, error) {
	s, err := newSurvey(call)
	if err != nil {
		return nil, err
	}
	n, err := s.plant(0, "", maxCost)
	if err != nil {
		return nil, fmt.Errorf("reading the call: %w", err)
	}
	return &n, nil
}

// shownWhole refuses a call of which people would be asked to sign what they cannot be
// shown. Where the operator wrote a sentence, that and the fields in it are what they
// go by, and the page says what else there is; without one they have the payload
// alone.
func shownWhole(cl *claim) error {
	if cl.class.Template != "" {
		return nil
	}
	s, err := newSurvey(cl.Call)
	if err != nil {
		return err
	}
	if int(s.values[0].cost) > maxCost || s.long {
		return counterfoil.Refuse(counterfoil.PayloadTooLarge,
			"people have to read all of this call, because its class %s has no template, and it is more than they can be shown: texts of %d bytes, %d bytes in all", cl.class.Name, maxText, maxCost)
	}
	return nil
}

// A survey is where every value of a call is, and what showing it costs.
type survey struct {
	call   []byte
	values []surveyed // each before those within it
	long   bool       // there is a text or a name that is cut wherever it is shown
}

type surveyed struct {
	name, start, end int32 // in the call; of an element name is -1
	size             int32 // how many values it is: itself and those within it
	cost             int32 // of all those
}

func newSurvey(call []byte) (*survey, error) {
	s := &survey{call: call}
	dec := jsontext.NewDecoder(bytes.NewBuffer(call), jsontext.AllowDuplicateNames(true))
	if err := s.value(dec, -1, nodeCost); err != nil {
		return nil, fmt.Errorf("reading the call: %w", err)
	}
	return s, nil
}

// next is where the token begins that the decoder reads next.
func (s *survey) next(dec *jsontext.Decoder) int32 {
	i := int(dec.InputOffset())
	for i < len(s.call) && strings.IndexByte(" \t\r\n,:", s.call[i]) >= 0 {
		i++
	}
	return int32(i)
}

// value reads a value that costs this much before anything of it is looked at.
func (s *survey) value(dec *jsontext.Decoder, name int32, cost int) error {
	i, start := len(s.values), s.next(dec)
	t, err := dec.ReadToken()
	if err != nil {
		return err
	}
	s.values = append(s.values, surveyed{})
	switch kind := t.Kind(); kind {
	case '{', '[':
		for {
			if end := dec.PeekKind(); end == '}' || end == ']' {
				break
			}
			member, price := int32(-1), nodeCost
			if kind == '{' {
				member = s.next(dec)
				if t, err = dec.ReadToken(); err != nil {
					return err
				}
				price += s.price(t.String(), maxName)
			}
			child := len(s.values)
			if err := s.value(dec, member, price); err != nil {
				return err
			}
			cost += int(s.values[child].cost)
		}
		if _, err := dec.ReadToken(); err != nil {
			return err
		}
	default:
		cost += s.price(t.String(), maxText)
	}
	s.values[i] = surveyed{name, start, int32(dec.InputOffset()), int32(len(s.values) - i), int32(min(cost, math.MaxInt32))}
	return nil
}

// price is what a text costs of which this much is shown at most.
func (s *survey) price(text string, most int) int {
	n, cost := affordable(text, most, math.MaxInt)
	s.long = s.long || n < len(text)
	return cost
}

// affordable returns how much of a text, in bytes, is no more than most and costs no
// more than room, and what it costs.
func affordable(text string, most, room int) (n, cost int) {
	for n < len(text) {
		r, size := utf8.DecodeRuneInString(text[n:])
		price := size
		if r != ' ' && (r < ' ' || r > '~') && hidden(r) != "" {
			price += hiddenCost
		}
		if n+size > most || cost+price > room {
			break
		}
		n, cost = n+size, cost+price
	}
	return n, cost
}

// text is a string of the call as it is.
func (s *survey) text(start, end int32) (string, error) {
	b, err := jsontext.AppendUnquote(nil, s.call[start:end])
	return string(b), err
}

// plant makes the node of a value, of what a share pays for.
func (s *survey) plant(i int, key string, share int) (Node, error) {
	v := s.values[i]
	raw := s.call[v.start:v.end]
	n := Node{Key: key}
	if i > 0 {
		n.Name = Visible(cut(key, maxName))
	}
	switch raw[0] {
	case '{', '[':
		n.Type = map[byte]string{'{': "object", '[': "array"}[raw[0]]
		return n, s.fill(&n, i, share)
	case '"':
		n.Type = "string"
		text, err := s.text(v.start, v.end)
		if err != nil {
			return n, err
		}
		_, named := affordable(key, maxName, math.MaxInt)
		shown, _ := affordable(text, maxText, max(share-named, nodeCost)-nodeCost/2)
		if shown < len(text) {
			n.Length, n.Digest = len(text), digest("", []byte(text))
		}
		n.Text = Visible(text[:shown])
		return n, nil
	case 't', 'f':
		n.Type = "boolean"
	case 'n':
		n.Type = "null"
	default:
		n.Type = "number"
	}
	n.Text = Visible(string(raw))
	return n, nil
}

// fill plants what is within an object or an array.
func (s *survey) fill(n *Node, i, share int) error {
	v := s.values[i]
	var within []int
	var costs []int
	for j := i + 1; j < i+int(v.size); j += int(s.values[j].size) {
		within, costs = append(within, j), append(costs, int(s.values[j].cost))
	}
	for k, part := range shares(costs, share-nodeCost) {
		if part == 0 {
			n.More++
			continue
		}
		j, key := within[k], strconv.Itoa(k)
		if c := s.values[j]; c.name >= 0 {
			var err error
			// Between a name and its value is a colon.
			if key, err = s.text(c.name, c.name+int32(bytes.LastIndexByte(s.call[c.name:c.start], '"'))+1); err != nil {
				return err
			}
		}
		c, err := s.plant(j, key, part)
		if err != nil {
			return err
		}
		n.Children = append(n.Children, c)
	}
	if n.More > 0 {
		raw := s.call[v.start:v.end]
		n.Length, n.Digest = len(raw), digest("", raw)
	}
	return nil
}

// least is what a value has that is shown at all, unless it costs less: a long list is
// shown as its first elements, and not as the beginnings of all.
const least = 4 << 10

// shares divides what there is among values that cost this much. Whatever costs no
// more than an equal share of what the smaller ones leave has all of it; the others
// have that share, but no less than least, for as many of them as it lasts. What has
// nothing is not shown.
func shares(costs []int, have int) []int {
	equal := have
	if len(costs) > have/nodeCost {
		equal = 0 // nobody's part would do for anything
	} else {
		left := have
		for k, c := range slices.Sorted(slices.Values(costs)) {
			if equal = left / (len(costs) - k); c > equal {
				break
			}
			left -= c
		}
	}
	out := make([]int, len(costs))
	for i, c := range costs {
		if c <= equal {
			out[i] = c
			have -= c
		}
	}
	for i, c := range costs {
		if c <= equal {
			continue
		}
		part := min(c, max(equal, least), have)
		if part < min(c, nodeCost) {
			continue
		}
		out[i] = part
		have -= part
	}
	return out
}

// differences lists where two calls differ, by JSON pointer (RFC 6901). The task is
// left out: it nearly always differs and is shown by itself.
func differences(before, after []byte) (out []Difference, more int, err error) {
	a, err := leaves(before)
	if err != nil {
		return nil, 0, err
	}
	b, err := leaves(after)
	if err != nil {
		return nil, 0, err
	}
	var paths []string
	for p, v := range a {
		if b[p] != v {
			paths = append(paths, p)
		}
	}
	for p := range b {
		if _, ok := a[p]; !ok {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	if len(paths) > maxSame {
		more, paths = len(paths)-maxSame, paths[:maxSame]
	}
	for _, p := range paths {
		d := Difference{Path: plain(Visible(cut(p, maxCompared)))}
		if v, ok := a[p]; ok {
			d.Before = Visible(cut(v, maxCompared))
		}
		if v, ok := b[p]; ok {
			d.After = Visible(cut(v, maxCompared))
		}
		out = append(out, d)
	}
	return out, more, nil
}

// leaves returns the values of a call that hold no others, as JSON, by pointer. Empty
// objects and arrays are among them.
func leaves(call []byte) (map[string]string, error) {
	out := map[string]string{}
	dec := jsontext.NewDecoder(bytes.NewReader(call))
	for {
		kind := dec.PeekKind()
		switch kind {
		case 0:
			if _, err := dec.ReadToken(); err != nil && dec.StackDepth() == 0 && len(out) > 0 {
				return out, nil
			} else if err != nil {
				return nil, fmt.Errorf("reading a call: %w", err)
			}
		case '{', '[':
			if _, err := dec.ReadToken(); err != nil {
				return nil, fmt.Errorf("reading a call: %w", err)
			}
			if end := dec.PeekKind(); end == '}' || end == ']' {
				out[string(dec.StackPointer())] = map[jsontext.Kind]string{'{': "{}", '[': "[]"}[kind]
			}
		case '}', ']':
			if _, err := dec.ReadToken(); err != nil {
				return nil, fmt.Errorf("reading a call: %w", err)
			}
			if dec.StackDepth() == 0 {
				return out, nil
			}
		default:
			v, err := dec.ReadValue()
			if err != nil {
				return nil, fmt.Errorf("reading a call: %w", err)
			}
			if k, n := dec.StackIndex(dec.StackDepth()); k == '{' && n%2 == 1 {
				continue // a member's name
			}
			if p := string(dec.StackPointer()); p != "/task" {
				out[p] = string(v)
			}
		}
	}
}
