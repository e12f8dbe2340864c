package approval

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// A Node is a value of the call, to be shown with its type: "100" and 100 are not the
// same payment order.
type Node struct {
	Name     []Segment `json:"name,omitzero"`   // of a member; of an element its index
	Type     string    `json:"type"`            // object, array, string, number, boolean or null
	Text     []Segment `json:"text,omitzero"`   // of what has no children
	Length   int       `json:"length,omitzero"` // of a text that was cut: of all of it, in bytes
	Digest   string    `json:"digest,omitzero"` // of a text that was cut: of all of it
	Children []Node    `json:"children,omitzero"`
	More     int       `json:"more,omitzero"` // children that are left out
}

// Bounds of what is shown. A call has at most 4 MiB; a page of that would show nobody
// anything.
const (
	maxNodes = 2000
	maxText  = 1000 // bytes of one value
	maxSame  = 50   // differences
)

// Tree returns the call's values in their canonical order.
func Tree(call []byte) (*Node, error) {
	p := planter{dec: jsontext.NewDecoder(bytes.NewReader(call)), left: maxNodes}
	n, err := p.value(nil)
	if err != nil {
		return nil, fmt.Errorf("reading the call: %w", err)
	}
	return &n, nil
}

type planter struct {
	dec  *jsontext.Decoder
	left int
}

func (p *planter) value(name []Segment) (Node, error) {
	p.left--
	n := Node{Name: name}
	switch kind := p.dec.PeekKind(); kind {
	case '{', '[':
		if _, err := p.dec.ReadToken(); err != nil {
			return n, err
		}
		n.Type = map[jsontext.Kind]string{'{': "object", '[': "array"}[kind]
		for i := 0; ; i++ {
			if end := p.dec.PeekKind(); end == '}' || end == ']' {
				_, err := p.dec.ReadToken()
				return n, err
			}
			child := strconv.Itoa(i)
			if kind == '{' {
				t, err := p.dec.ReadToken()
				if err != nil {
					return n, err
				}
				child = t.String()
			}
			if p.left <= 0 {
				n.More++
				if err := p.dec.SkipValue(); err != nil {
					return n, err
				}
				continue
			}
			c, err := p.value(Visible(cut(child, maxText)))
			if err != nil {
				return n, err
			}
			n.Children = append(n.Children, c)
		}
	}
	t, err := p.dec.ReadToken()
	if err != nil {
		return n, err
	}
	text := t.String()
	switch t.Kind() {
	case '"':
		n.Type = "string"
	case '0':
		n.Type = "number"
	case 'n':
		n.Type = "null"
	default:
		n.Type = "boolean"
	}
	if len(text) > maxText {
		n.Length, n.Digest = len(text), digest("", []byte(text))
		text = strings.ToValidUTF8(text[:maxText], "")
	}
	n.Text = Visible(text)
	return n, nil
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
		d := Difference{Path: plain(Visible(cut(p, maxText)))}
		if v, ok := a[p]; ok {
			d.Before = Visible(cut(v, maxText))
		}
		if v, ok := b[p]; ok {
			d.After = Visible(cut(v, maxText))
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
