package counterfoil

import "log/slog"

// A Secret holds its value behind a pointer, where fmt, slog and encoding/json
// do not look. The zero Secret is empty. Only Reveal gives the value, so that a
// search for that word finds every place where a secret is used.
type Secret struct{ p *string }

// NewSecret wraps a value.
func NewSecret(value string) Secret { return Secret{&value} }

// Reveal returns the value.
func (s Secret) Reveal() string {
	if s.p == nil {
		return ""
	}
	return *s.p
}

// Empty reports whether there is no value.
func (s Secret) Empty() bool { return s.p == nil || *s.p == "" }

const redacted = "[secret]"

// String never prints the value.
func (Secret) String() string { return redacted }

// GoString never prints the value.
func (Secret) GoString() string { return redacted }

// MarshalText never writes the value.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue never logs the value.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
