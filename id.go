package counterfoil

import (
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"strings"
)

// MaxName is the longest name of a manifest document, in bytes.
const MaxName = 63

// CheckName reports why s cannot name a document: names are 1 to 63 characters
// of a-z, 0-9 and "-", so that they are the same in a URL, in a file name, in a
// policy and in a log line.
func CheckName(s string) error {
	if s == "" {
		return fmt.Errorf("a name is missing")
	}
	if len(s) > MaxName {
		return fmt.Errorf("name %.20q… is longer than %d characters", s, MaxName)
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("name %q has %q; only a-z, 0-9 and - are allowed", s, string(c))
		}
	}
	return nil
}

// CheckToolName reports why s cannot name a tool. Tools are named by the
// upstream, so the alphabet is wider than that of documents (MCP 2026-07-28,
// tool names): letters, digits, "_", "-", "." and at most 128 characters. A
// slash would make "resource/tool" ambiguous, a space would split a scope.
func CheckToolName(s string) error {
	if s == "" {
		return fmt.Errorf("a tool's name is missing")
	}
	if len(s) > 128 {
		return fmt.Errorf("tool name %.20q… is longer than 128 characters", s)
	}
	for _, c := range s {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-', c == '.':
		default:
			return fmt.Errorf("tool name %q has %q; only letters, digits, _ - and . are allowed", s, string(c))
		}
	}
	return nil
}

// A ToolID names a tool of a resource, written "resource/tool".
type ToolID struct{ Resource, Tool string }

// String writes "resource/tool".
func (t ToolID) String() string { return t.Resource + "/" + t.Tool }

// EveryTool is the tool of a grant that covers every tool that the resource's
// manifest classifies.
const EveryTool = "*"

// MarshalText writes "resource/tool".
func (t ToolID) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what MarshalText wrote: "resource/tool", or "resource/*"
// as grants have it.
func (t *ToolID) UnmarshalText(b []byte) error {
	if r, all := strings.CutSuffix(string(b), "/"+EveryTool); all {
		*t = ToolID{r, EveryTool}
		return CheckName(r)
	}
	v, err := ParseToolID(string(b))
	*t = v
	return err
}

// ParseToolID reads "resource/tool".
func ParseToolID(s string) (ToolID, error) {
	r, t, ok := strings.Cut(s, "/")
	if !ok {
		return ToolID{}, fmt.Errorf("%q is not of the form resource/tool", s)
	}
	if err := CheckName(r); err != nil {
		return ToolID{}, err
	}
	if err := CheckToolName(t); err != nil {
		return ToolID{}, err
	}
	return ToolID{r, t}, nil
}

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewID returns prefix followed by 128 random bits in 26 lower-case characters.
// Prefixes in use: req_ (request), ins_ (instance), tok_ (token id), tsk_ (task).
func NewID(prefix string) string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return prefix + idEncoding.EncodeToString(b[:])
}
