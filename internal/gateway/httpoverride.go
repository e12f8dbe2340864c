package gateway

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/textproto"
	"net/url"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// overrides are names by which common frameworks take another method than the request's,
// in lower case, with "_" for "-".
var overrides = map[string]bool{
	"_method": true, "$httpmethod": true, "x_http_method": true, "x_http_method_override": true, "x_method_override": true,
}

// isMethodOverride reports whether a parameter or a field of that name changes the method
// in the eyes of common frameworks. One makes "_" of a dot, a space and a bracket that
// does not close (PHP), another leaves brackets at the beginning out (Rack), and most
// take what follows a bracket for a place within the value.
func isMethodOverride(name string) bool {
	name = strings.ToLower(strings.Trim(name, " \t\r\n\v\f\x00"))
	for _, plain := range []string{name, strings.TrimLeft(name, "[]")} {
		if plain == "" {
			continue
		}
		// A bracket at the beginning opens nothing.
		if i := strings.IndexAny(plain[1:], "[]"); i >= 0 {
			plain = plain[:i+1]
		}
		plain = strings.TrimRight(plain, " ")
		if overrides[strings.NewReplacer(".", "_", " ", "_", "[", "_", "-", "_").Replace(plain)] {
			return true
		}
	}
	return false
}

// jsonOverride reports whether a body, in canonical JSON, has such a member.
func jsonOverride(text []byte) bool {
	for _, m := range split(text) {
		if overrides[strings.ReplaceAll(strings.ToLower(m.name), "-", "_")] {
			return true
		}
	}
	return false
}

func badForm(why string) error {
	return counterfoil.Refuse(counterfoil.RequestMalformed, "the form %s", why)
}

// refuseOverride refuses a form that would change the method in the eyes of common
// frameworks, and one that two of them could read in two ways.
func refuseOverride(media string, raw []byte) error {
	t, params, err := mime.ParseMediaType(media)
	if err != nil {
		return badForm("has a type that cannot be read")
	}
	form := t == "application/x-www-form-urlencoded"
	if !form && !strings.HasPrefix(t, "multipart/") {
		return nil
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return badForm("is not in UTF-8")
	}
	if !form {
		return refuseParts(multipart.NewReader(bytes.NewReader(raw), params["boundary"]), t == "multipart/form-data")
	}
	values, err := url.ParseQuery(string(raw))
	if err != nil {
		return badForm("cannot be read")
	}
	for name := range values {
		if isMethodOverride(name) {
			return badForm("would change the method")
		}
	}
	return nil
}

// refuseParts looks at the parts of a body in many. Where it is a form each is a field;
// of any other kind some frameworks take what has a name for one.
func refuseParts(parts *multipart.Reader, form bool) error {
	for {
		p, err := parts.NextRawPart()
		switch {
		case errors.Is(err, io.EOF) && errors.Unwrap(err) == nil: // wrapped, it is the end of what has none
			return nil
		case err != nil:
			return badForm("cannot be read")
		}
		names, err := namesOf(p.Header, form)
		if err != nil {
			return err
		}
		for _, name := range names {
			if isMethodOverride(name) {
				return badForm("would change the method")
			}
		}
	}
}

// namesOf returns what frameworks may take for the name of a part.
func namesOf(h textproto.MIMEHeader, form bool) ([]string, error) {
	var names []string
	switch said := h["Content-Disposition"]; {
	case len(said) == 1:
		t, params, err := mime.ParseMediaType(said[0])
		name, has := params["name"]
		switch {
		case err != nil, form && (t != "form-data" || !has):
			return nil, badForm("has a part that is no field of one name")
		case extendsName(said[0]), strings.Contains(name, "=?"):
			return nil, badForm("has a field whose name is encoded")
		}
		names = append(names, name, strings.ReplaceAll(name, `\`, ""))
		if plain, err := url.PathUnescape(name); err == nil {
			names = append(names, plain)
		}
	case form || len(said) > 0:
		return nil, badForm("has a part that is no field of one name")
	}
	if !form {
		// Rack: a part without a name has that of its Content-Id.
		for _, id := range h["Content-Id"] {
			names = append(names, id, strings.Trim(id, "<> "))
		}
	}
	return names, nil
}

// extendsName reports whether a Content-Disposition may have the name in the form of RFC
// 8187 or in pieces (RFC 2231), which forms do not have (RFC 7578, Section 4.2) and of
// which some servers take no notice.
func extendsName(said string) bool {
	for low := strings.ToLower(said); ; {
		i := strings.Index(low, "name*")
		if i < 0 {
			return false
		}
		if i < 4 || low[i-4:i] != "file" {
			return true
		}
		low = low[i+len("name*"):]
	}
}
