package gateway

// CheckSchema reports why the arguments of a tool's calls cannot be held against a
// schema, canonical, that an operator gave: nil where they can. A call of such a tool is
// refused.
func CheckSchema(schema string) error {
	_, err := readShape([]byte(schema))
	return err
}
