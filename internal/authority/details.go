package authority

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/policy"
)

// Bounds on authorization_details. They are echoed in the token, which has to
// fit into a header of 8 KiB.
const (
	maxDetailsBytes = 4 << 10
	maxDetails      = 16
)

// parseDetails reads authorization_details (RFC 9396, Section 2) in the standing
// form: an array of objects of our one type, strict. RFC 9396, Section 5: an
// unknown type, an unknown field, a field of the wrong type or a missing one
// refuses the request.
func parseDetails(b []byte) ([]counterfoil.ToolDetail, error) {
	refuse := func(format string, args ...any) ([]counterfoil.ToolDetail, error) {
		return nil, counterfoil.Refuse(counterfoil.DetailsInvalid, format, args...)
	}
	if len(b) > maxDetailsBytes {
		return refuse("authorization_details is longer than %d bytes", maxDetailsBytes)
	}
	if err := ijson.Check(b); err != nil {
		return refuse("authorization_details is not strict JSON: %v", err)
	}
	if hasNull(b) {
		// A member that is null would read as one that is absent, and absent
		// constraints do not constrain.
		return refuse("authorization_details holds a null; leave the member out")
	}
	var details []counterfoil.ToolDetail
	if err := ijson.Unmarshal(b, &details); err != nil {
		return refuse("authorization_details is not an array of objects of type %s in the standing form: %v", counterfoil.DetailType, err)
	}
	if len(details) == 0 || len(details) > maxDetails {
		return refuse("authorization_details has %d objects; 1 to %d are taken", len(details), maxDetails)
	}
	for i, d := range details {
		if err := policy.CheckDetail(d); err != nil {
			return refuse("authorization_details[%d]: %v", i, err)
		}
		if len(d.Locations) != 1 {
			return refuse("authorization_details[%d]: locations names the one resource that the token is for", i)
		}
	}
	return details, nil
}

// hasNull reports whether JSON that passed ijson.Check holds a null anywhere.
func hasNull(b []byte) bool {
	dec := jsontext.NewDecoder(bytes.NewReader(b))
	for {
		tok, err := dec.ReadToken()
		if err != nil {
			return !errors.Is(err, io.EOF)
		}
		if tok.Kind() == 'n' {
			return true
		}
	}
}

// checkDetails compares details, whose tools are granted, with the resource, its
// manifest and the pinned definitions.
func checkDetails(details []counterfoil.ToolDetail, target target, pin func(tool string) (string, bool)) error {
	for i, d := range details {
		if d.Locations[0] != target.id {
			return counterfoil.Refuse(counterfoil.DetailsInvalid, "authorization_details[%d]: locations is not the resource that is asked for", i)
		}
		tool, ok := target.resource.Tool(d.Tool)
		if !ok {
			return counterfoil.Refuse(counterfoil.DetailsInvalid, "authorization_details[%d]: tool %q is not granted here", i, d.Tool)
		}
		if d.ActionClass != "" && d.ActionClass != tool.Class {
			return counterfoil.Refuse(counterfoil.DetailsInvalid, "authorization_details[%d]: action_class is not the tool's class", i)
		}
		if d.ToolDigest != "" {
			if digest, ok := pin(d.Tool); !ok || digest != d.ToolDigest {
				return counterfoil.Refuse(counterfoil.DetailsInvalid, "authorization_details[%d]: tool_digest is not that of the pinned definition", i)
			}
		}
	}
	return nil
}

// asDetails is the refusal of a tool that a detail names: what is not granted is
// then the details' fault, not the scope's.
func asDetails(err error) error {
	if r, ok := counterfoil.AsRefusal(err); ok && r.Code == counterfoil.ScopeInvalid {
		return counterfoil.Refuse(counterfoil.DetailsInvalid, "authorization_details: %s", r.Detail)
	}
	return err
}

// detailTools returns the tools that details name, in order, each once.
func detailTools(details []counterfoil.ToolDetail) []string {
	var tools []string
	for _, d := range details {
		if !slices.Contains(tools, d.Tool) {
			tools = append(tools, d.Tool)
		}
	}
	return tools
}
