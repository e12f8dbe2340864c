package policy

import (
	"slices"

	"github.com/cedar-policy/cedar-go"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	// maxElements bounds an array that has an image. Cedar's sets resolve
	// colliding hashes by walking on, and hashes of numbers are the numbers, so
	// whoever chooses the elements chooses the walk.
	maxElements = 1000

	// maxValues bounds the values of one call that have an image.
	maxValues = 10000

	// maxWithout bounds what is noted one by one; beyond it nothing of the
	// arguments is known to have an image.
	maxWithout = 1000
)

// An imager makes Cedar values out of JSON and notes what has none.
type imager struct {
	// decimals says that integers become decimals too.
	decimals bool

	// inSet says that an array is around: what has no image in there is not
	// noted, it takes the image from the array.
	inSet bool

	values int
	path   []string
	room   [8]string

	// without are the paths, from the context on, of what has no image. The
	// empty path stands for everything.
	without [][]string
}

// member makes the image of one member of context.args or context.fields.
func (m *imager) member(parent, name string, raw []byte) (cedar.Value, bool) {
	r := newReader(raw)
	defer r.free()
	m.path = append(m.path[:0], parent, name)
	return m.value(&r.dec)
}

// none notes that the value in hand has no image.
func (m *imager) none() (cedar.Value, bool) {
	switch {
	case m.inSet:
	case len(m.without) < maxWithout:
		m.without = append(m.without, slices.Clone(m.path))
	default:
		m.without[0] = nil
	}
	return nil, false
}

// value reads one value. Whatever it returns, the value is consumed.
func (m *imager) value(dec *jsontext.Decoder) (cedar.Value, bool) {
	if m.values++; m.values > maxValues {
		_ = dec.SkipValue() // read without an error before
		return m.none()
	}
	switch dec.PeekKind() {
	case '{':
		return m.record(dec)
	case '[':
		return m.set(dec)
	}
	tok, err := dec.ReadToken()
	if err != nil {
		return m.none()
	}
	switch tok.Kind() {
	case '"':
		return cedar.String(tok.String()), true
	case 't', 'f':
		return cedar.Boolean(tok.Bool()), true
	case '0':
		return m.number(tok.String())
	}
	return m.none()
}

func (m *imager) number(lit string) (cedar.Value, bool) {
	n, ok := parseNumber(lit)
	if !ok {
		return m.none()
	}
	if n.integer() && !m.decimals {
		v, ok := n.long()
		if !ok {
			return m.none()
		}
		return cedar.Long(v), true
	}
	units, ok := n.units()
	if !ok {
		return m.none()
	}
	v, ok := cedarDecimal(units)
	if !ok {
		return m.none()
	}
	return v, true
}

func (m *imager) record(dec *jsontext.Decoder) (cedar.Value, bool) {
	if _, err := dec.ReadToken(); err != nil {
		return m.none()
	}
	rec, whole := cedar.RecordMap{}, true
	depth := len(m.path)
	for dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			break
		}
		key := name.String()
		m.path = append(m.path[:depth], key)
		v, ok := m.value(dec)
		if ok {
			rec[cedar.String(key)] = v
		}
		whole = whole && ok
	}
	m.path = m.path[:depth]
	if _, err := dec.ReadToken(); err != nil || (m.inSet && !whole) {
		return m.none()
	}
	return cedar.NewRecord(rec), true
}

func (m *imager) set(dec *jsontext.Decoder) (cedar.Value, bool) {
	if _, err := dec.ReadToken(); err != nil {
		return m.none()
	}
	outer := m.inSet
	m.inSet = true
	var elements []cedar.Value
	whole := true
	for k := dec.PeekKind(); k != ']' && k != 0; k = dec.PeekKind() {
		if !whole || len(elements) == maxElements {
			whole = false
			if dec.SkipValue() != nil {
				break
			}
			continue
		}
		v, ok := m.value(dec)
		whole = ok
		elements = append(elements, v)
	}
	m.inSet = outer
	if _, err := dec.ReadToken(); err != nil || !whole {
		return m.none()
	}
	return cedar.NewSet(elements...), true
}
