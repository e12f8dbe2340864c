package policy

import "github.com/counterfoil/counterfoil"

// Amounts returns the tool's fields that are numbers from zero of at most four places,
// in ten-thousandths: what limits sum. Any other field is not among them, so that a
// limit on it finds nothing to sum and refuses. Of a tool that is not there, and of
// arguments that are no strict JSON object, there are none.
func (s *Set) Amounts(id counterfoil.ToolID, text []byte) map[string]int64 {
	if s == nil {
		return nil
	}
	r := s.resources[id.Resource]
	if r == nil || r.tools[id.Tool] == nil {
		return nil
	}
	var args arguments
	if err := args.parse(text); err != nil {
		return nil
	}
	fields := r.tools[id.Tool].fields
	amounts := make(map[string]int64, len(fields))
	for i := range fields {
		raw, ok := args.at(fields[i].at)
		if !ok {
			continue
		}
		if n, ok := numberOf(raw); ok {
			if units, ok := n.units(); ok && units >= 0 {
				amounts[fields[i].name] = units
			}
		}
	}
	return amounts
}
