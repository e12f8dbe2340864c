package gateway

import (
	"errors"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/google/jsonschema-go/jsonschema"

	"github.com/counterfoil/counterfoil"
)

// An inputSchema is what an upstream says that a tool's arguments are, read
// strictly: an object that lists its properties has no others, unless the schema
// itself says what others there may be. A rule over `amount` must not be passed
// by writing the amount under a name that the rule, and whoever wrote it, has
// never heard of.
//
// It is compiled when it is first needed. Safe for concurrent use.
type inputSchema struct {
	text []byte // canonical; nil when the definition has none

	once     sync.Once
	compiled *jsonschema.Resolved
	weight   int // how many schemas one value is held against, at most
	err      error
}

// check refuses arguments that the schema does not allow, and all arguments
// where there is no schema that can be used. The arguments are canonical. What a
// refusal says of them is where they do not fit: its text is recorded, and they
// may be of a class of which nothing is kept.
func (s *inputSchema) check(tool string, arguments []byte) error {
	if err := s.compile(); err != nil {
		return counterfoil.Refuse(counterfoil.PolicyForbids, "the arguments of %s decide whether it may be called, and cannot be checked: %s", tool, err.Error())
	}
	var instance any
	if err := json.Unmarshal(arguments, &instance); err != nil {
		return counterfoil.Refuse(counterfoil.PayloadMalformed, "the arguments are not one strict JSON value")
	}
	if values(instance)*s.weight > maxChecks {
		return counterfoil.Refuse(counterfoil.PayloadMalformed, "the arguments of %s have too many values to be held against its inputSchema", tool)
	}
	if err := s.validate(instance); err != nil {
		return counterfoil.Refuse(counterfoil.PayloadMalformed, "the arguments of %s do not fit its inputSchema: %s", tool, misfit(err))
	}
	return nil
}

// validate makes an error of a panic: the library is given what an upstream and
// an agent wrote.
func (s *inputSchema) validate(instance any) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("")
		}
	}()
	return s.compiled.Validate(instance)
}

// maxChecks bounds what one call can make the gateway do: about a second.
const maxChecks = 1 << 20

// values counts a value and the values in it.
func values(v any) int {
	n := 1
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			n += values(e)
		}
	case map[string]any:
		for _, e := range v {
			n += values(e)
		}
	}
	return n
}

// compile reports why the schema cannot be used, if it cannot.
func (s *inputSchema) compile() error {
	s.once.Do(func() {
		defer func() {
			if p := recover(); p != nil {
				s.err = errNoSchema
			}
		}()
		s.compiled, s.weight, s.err = compileStrictly(s.text)
	})
	return s.err
}

var errNoSchema = errors.New("its inputSchema is not a schema")

func compileStrictly(text []byte) (*jsonschema.Resolved, int, error) {
	if text == nil {
		return nil, 0, errors.New("its definition has no inputSchema")
	}
	var root map[string]any
	if err := json.Unmarshal(text, &root); err != nil || root == nil {
		return nil, 0, errNoSchema
	}
	g, err := readGraph(root)
	if err != nil {
		return nil, 0, err
	}
	weight := 0
	for at := range g.nodes {
		w, err := g.weigh(at)
		if err != nil {
			return nil, 0, err
		}
		weight = max(weight, w)
	}
	g.close("", map[string]bool{})
	closed, err := json.Marshal(root)
	if err != nil {
		return nil, 0, errNoSchema
	}
	var schema jsonschema.Schema
	if err := json.Unmarshal(closed, &schema); err != nil {
		return nil, 0, errNoSchema
	}
	// Without a loader nothing is ever fetched.
	resolved, err := schema.Resolve(nil)
	if err != nil {
		return nil, 0, errNoSchema
	}
	return resolved, weight, nil
}

// misfit says where arguments do not fit. It takes out of the library's error
// the places in the schema, which come first, and leaves out the values.
func misfit(err error) string {
	place, rest := "", err.Error()
	for {
		step, found := strings.CutPrefix(rest, "validating ")
		if !found {
			break
		}
		at, after, found := strings.Cut(step, ": ")
		if !found || at != "root" && !strings.HasPrefix(at, "/") || strings.ContainsRune(at, ' ') {
			break
		}
		place, rest = at, after
	}
	place, unknown := strings.CutSuffix(strings.TrimPrefix(place, "root"), "/unevaluatedProperties")
	unknown = unknown || strings.HasPrefix(rest, "unexpected additional properties")
	switch {
	case unknown && place == "":
		return "there is a member that it does not have"
	case unknown:
		return "at " + place + " there is a member that it does not have"
	case place == "":
		return "a member is missing or of another kind"
	}
	return "see " + place
}
