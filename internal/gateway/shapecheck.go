package gateway

import (
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
)

// check refuses arguments, canonical, that are of another shape.
func (s *shape) check(tool string, arguments []byte) error {
	var v any
	if err := json.Unmarshal(arguments, &v); err != nil {
		return counterfoil.Refuse(counterfoil.PayloadMalformed, "the arguments are not one strict JSON value")
	}
	c := shapeCheck{steps: maxSteps}
	at, why := c.value(v, []reach{{shape: s}})
	switch {
	case why == "":
		return nil
	case at == "":
		return counterfoil.Refuse(counterfoil.PayloadMalformed, "the arguments of %s are not what its inputSchema takes: %s", tool, why)
	}
	return counterfoil.Refuse(counterfoil.PayloadMalformed, "the arguments of %s are not what its inputSchema takes: at %.200q %s", tool, at, why)
}

// A role is how a shape came to speak of a value. The zero role is the strictest.
type role uint8

const (
	must role = iota
	alternative
	conditional
)

// A reach is a shape that speaks of a value.
type reach struct {
	shape *shape
	role  role
	whole bool // of an alternative: it is all that is said of the value
}

// A shapeCheck is one check on its way. Its steps bound what an agent and an
// upstream together can make it do.
type shapeCheck struct{ steps int }

const (
	tooIntricate = "there are too many values for so intricate a schema"
	otherKind    = "there is a value of another kind"
	otherMember  = "there is a member that it does not have"
)

// value returns where a value is not what the shapes take, as a JSON Pointer, and
// why; why is empty where it is.
func (c *shapeCheck) value(v any, shapes []reach) (at, why string) {
	if !c.kind(kindOf(v), shapes) {
		if c.steps <= 0 {
			return "", tooIntricate
		}
		return "", otherKind
	}
	switch v := v.(type) {
	case map[string]any:
		return c.object(v, c.follow(shapes))
	case []any:
		return c.array(v, c.follow(shapes))
	}
	return "", ""
}

// kind reports whether values of a kind are taken: by everything that must be met
// and, where there is no such thing, by one of the others.
func (c *shapeCheck) kind(k kinds, shapes []reach) bool {
	musts, taken := 0, false
	for _, r := range shapes {
		takes := c.takes(r.shape, k, 0)
		switch {
		case r.role != must:
			taken = taken || takes
		case !takes:
			return false
		default:
			musts++
		}
	}
	return c.steps > 0 && (musts > 0 || taken)
}

// takes reports whether a shape takes values of a kind.
func (c *shapeCheck) takes(s *shape, k kinds, depth int) bool {
	if c.steps--; c.steps <= 0 || depth > maxParts || s.never || s.kinds != 0 && s.kinds&k == 0 {
		return false
	}
	for _, p := range s.parts {
		if !c.takes(p, k, depth+1) {
			return false
		}
	}
	for _, group := range s.alternatives {
		if !slices.ContainsFunc(group, func(p *shape) bool { return c.takes(p, k, depth+1) }) {
			return false
		}
	}
	return true
}

// A saying is everything that is said of one value.
type saying struct {
	shapes []reach
	listed bool // members are listed somewhere
	open   bool // others are welcome somewhere
}

// follow adds to shapes what they are composed of, each once, as the strictest that
// it is reached as.
func (c *shapeCheck) follow(shapes []reach) saying {
	f := follower{check: c, seen: map[*shape]role{}}
	for _, r := range shapes {
		f.add(r, 0)
	}
	w := saying{shapes: make([]reach, 0, len(f.order)), open: f.open}
	for _, s := range f.order {
		r := reach{shape: s, role: f.seen[s]}
		w.shapes = append(w.shapes, r)
		w.listed = w.listed || s.names != nil || s.patterns != nil || s.others != nil || s.allowed != nil
		w.open = w.open || r.role != conditional && s.others != nil && !s.others.never
	}
	return w
}

// A follower follows compositions.
type follower struct {
	check *shapeCheck
	seen  map[*shape]role
	order []*shape
	open  bool // an alternative takes any object, without a word about members
}

func (f *follower) add(r reach, depth int) {
	if f.check.steps--; f.check.steps <= 0 || depth > maxParts {
		f.check.steps = min(f.check.steps, 0) // what is deeper than can be is too intricate
		return
	}
	s := r.shape
	f.open = f.open || r.role == alternative && r.whole && s.free && !s.never && (s.kinds == 0 || s.kinds&kindObject != 0)
	before, known := f.seen[s]
	if known && before <= r.role && !(r.whole && s.bare) {
		return
	}
	if !known {
		f.order = append(f.order, s)
	}
	if !known || r.role < before {
		f.seen[s] = r.role
	}
	for _, p := range s.parts {
		f.add(reach{shape: p, role: r.role, whole: r.whole && s.bare}, depth+1)
	}
	for _, p := range s.conditional {
		f.add(reach{shape: p, role: conditional}, depth+1)
	}
	for _, group := range s.alternatives {
		for _, p := range group {
			f.add(reach{shape: p, role: max(r.role, alternative), whole: true}, depth+1)
		}
	}
}

// object holds the members of an object against what is listed.
func (c *shapeCheck) object(members map[string]any, w saying) (at, why string) {
	for name, v := range members {
		under, refused := c.member(name, w.shapes)
		switch {
		case c.steps <= 0:
			return "", tooIntricate
		case refused, len(under) == 0 && w.listed && !w.open:
			return "/" + escapePointer(name), otherMember
		case len(under) == 0:
			continue
		}
		if at, why := c.value(v, under); why != "" {
			return "/" + escapePointer(name) + at, why
		}
	}
	return "", ""
}

// member returns what the shapes say of a member, and whether one that must be met
// has no such member.
func (c *shapeCheck) member(name string, shapes []reach) (under []reach, refused bool) {
	for _, r := range shapes {
		c.steps--
		s, listed := r.shape, false
		say := func(of *shape) {
			under, listed = append(under, reach{shape: of, role: r.role, whole: true}), true
		}
		if of := s.names[name]; of != nil {
			say(of)
		}
		if len(s.patterns) > 0 && len(name) > maxMatchedName {
			return nil, true
		}
		for _, p := range s.patterns {
			// RE2 takes time in proportion to both.
			if c.steps -= 1 + len(name)*p.size/64; c.steps <= 0 {
				return nil, true
			}
			if p.name.MatchString(name) {
				say(p.shape)
			}
		}
		if r.role == must && (s.sealed && !listed || s.allowed != nil && !s.allowed[name]) {
			return nil, true
		}
		switch {
		case listed, r.role == conditional: // a condition may name members, and opens nothing
		case s.others != nil && !s.others.never:
			say(s.others)
		case s.allowed[name]:
			say(anything)
		}
	}
	return under, false
}

// anything is the schema true.
var anything = &shape{free: true}

func (c *shapeCheck) array(elements []any, w saying) (at, why string) {
	for i, v := range elements {
		var under []reach
		counted := false // somebody lists so many elements and no more
		for _, r := range w.shapes {
			c.steps--
			if i < len(r.shape.prefix) {
				under = append(under, reach{shape: r.shape.prefix[i], role: r.role, whole: true})
				continue
			}
			counted = counted || r.shape.prefix != nil && r.role != conditional
			for _, of := range r.shape.items {
				under = append(under, reach{shape: of, role: r.role, whole: true})
			}
		}
		switch {
		case c.steps <= 0:
			return "", tooIntricate
		case len(under) == 0 && counted:
			return "/" + strconv.Itoa(i), "there is an element that it does not have"
		case len(under) == 0:
			continue
		}
		if at, why := c.value(v, under); why != "" {
			return "/" + strconv.Itoa(i) + at, why
		}
	}
	return "", ""
}
