package policy

import (
	"fmt"
	"maps"
	"slices"

	"github.com/counterfoil/counterfoil"
)

// actionOfDetail is the one action that a standing authorization detail names.
const actionOfDetail = "call"

// CheckDetail reports why an authorization detail is not of the standing form:
// an unknown type or action, no tool, a pointer that is none, a constraint that
// says nothing or two things. That the tool is granted and that the location is
// the resource is for the caller to see.
func CheckDetail(d counterfoil.ToolDetail) error {
	if d.Type != counterfoil.DetailType {
		return fmt.Errorf("type %.80q is unknown; it must be %s", d.Type, counterfoil.DetailType)
	}
	if err := counterfoil.CheckToolName(d.Tool); err != nil {
		return fmt.Errorf("tool: %w", err)
	}
	for _, a := range d.Actions {
		if a != actionOfDetail {
			return fmt.Errorf("action %.80q is unknown; the only one is %q", a, actionOfDetail)
		}
	}
	for _, at := range slices.Sorted(maps.Keys(d.Constraints)) {
		if _, err := ParsePointer(at); err != nil {
			return fmt.Errorf("constraints: %w", err)
		}
		if err := checkConstraint(d.Constraints[at]); err != nil {
			return fmt.Errorf("constraint of %.80q %w", at, err)
		}
	}
	return nil
}

func checkConstraint(c counterfoil.Constraint) error {
	n := 0
	if c.Max != "" {
		n++
		if _, ok := ParseUnits(c.Max); !ok {
			return fmt.Errorf("has max %.40q, which is not a decimal of at most four places", c.Max)
		}
	}
	if len(c.Enum) > 0 {
		n++
	}
	if c.Equals != "" {
		n++
	}
	if n != 1 {
		return fmt.Errorf("must have exactly one of max, enum and equals")
	}
	return nil
}

// unmet says why the detail does not cover the call, or nothing when it does.
// Whatever is not understood is not met.
func unmet(d *counterfoil.ToolDetail, c *call) string {
	if len(d.Actions) > 0 && !slices.Contains(d.Actions, actionOfDetail) {
		return "they do not allow the action call"
	}
	if len(d.Locations) > 0 && !slices.Contains(d.Locations, c.Caller.Audience) {
		return "they are for another resource"
	}
	if d.ActionClass != "" && d.ActionClass != c.tool.class {
		return fmt.Sprintf("they are for class %.80q and the tool's is %q", d.ActionClass, c.tool.class)
	}
	for _, at := range slices.Sorted(maps.Keys(d.Constraints)) {
		if why := unmetConstraint(d.Constraints[at], at, &c.args); why != "" {
			return fmt.Sprintf("argument %.80s %s", at, why)
		}
	}
	return ""
}

// unmetConstraint judges one argument. Enum and equals compare text with text: a
// number or a truth value is never equal to its spelling.
func unmetConstraint(c counterfoil.Constraint, at string, args *arguments) string {
	if err := checkConstraint(c); err != nil {
		return err.Error()
	}
	p, err := ParsePointer(at)
	if err != nil {
		return err.Error()
	}
	raw, ok := args.at(p)
	if !ok {
		return "is absent"
	}
	if c.Max != "" {
		most, _ := ParseUnits(c.Max)
		n, ok := numberOf(raw)
		if !ok {
			return "is not a JSON number"
		}
		units, ok := n.units()
		switch {
		case !ok:
			return "is not a decimal of at most four places"
		case units > most:
			return "is more than " + c.Max
		}
		return ""
	}
	s, ok := stringOf(raw)
	switch {
	case !ok:
		return "is not a string"
	case c.Equals != "" && s != c.Equals:
		return fmt.Sprintf("is not %.80q", c.Equals)
	case len(c.Enum) > 0 && !slices.Contains(c.Enum, s):
		return "is none of the values that the token allows"
	}
	return ""
}
