package gateway

// A member is one member of an object in canonical JSON: its name as written,
// without the quotes, and its value. Both are parts of the text they were read
// from.
//
// A name that needs an escape keeps it. No name that we know has one, so such
// a name equals none of them.
type member struct {
	name  string
	value []byte
}

// split returns the members of an object. The text must come from
// ijson.Canonical: without white space, checked, its names distinct. Of any
// other text the result means nothing, but it does not panic.
func split(object []byte) []member {
	if len(object) < 2 || object[0] != '{' {
		return nil
	}
	var out []member
	for i := 1; i < len(object) && object[i] == '"'; {
		n := skipString(object, i)
		if n+1 >= len(object) {
			return nil
		}
		v := skipValue(object, n+1) // object[n] is the colon
		out = append(out, member{string(object[i+1 : n-1]), object[n+1 : v]})
		i = v + 1 // past the comma or the closing brace
	}
	return out
}

// skipString returns the index behind the string that begins at i.
func skipString(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// skipValue returns the index behind the value that begins at i.
func skipValue(b []byte, i int) int {
	for depth := 0; i < len(b); {
		switch b[i] {
		case '"':
			i = skipString(b, i)
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
			if depth == 0 {
				return i + 1
			}
		case ',':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return len(b)
}

// find returns the value of the member of that name, or nil.
func find(members []member, name string) []byte {
	for i := range members {
		if members[i].name == name {
			return members[i].value
		}
	}
	return nil
}

// appendMember adds a member to an object that is being written: b ends in the
// opening brace or in the member before.
func appendMember(b []byte, name string, value []byte) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return append(b, value...)
}

// join writes members as an object. Members that come in canonical order make
// a canonical object.
func join(members []member) []byte {
	n := 2
	for _, m := range members {
		n += len(m.name) + len(m.value) + 4
	}
	b := append(make([]byte, 0, n), '{')
	for _, m := range members {
		b = appendMember(b, m.name, m.value)
	}
	return append(b, '}')
}

var emptyObject = []byte("{}")
