package attest

import (
	"encoding/base64"
	"math"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
)

// onlyAudience reports whether aud is exactly the wanted audience: a string, or a list
// of that one. A token that is for others too can be shown here by any of them.
func onlyAudience(aud jsontext.Value, want string) bool {
	if want == "" {
		return false
	}
	var one string
	if aud.Kind() == '"' && json.Unmarshal(aud, &one) == nil {
		return one == want
	}
	var all []string
	if aud.Kind() != '[' || json.Unmarshal(aud, &all) != nil {
		return false
	}
	return len(all) == 1 && all[0] == want
}

// date reads a NumericDate (RFC 7519, Section 2), which a token must have. A date that
// is written as a string is none.
func date(name string, v jsontext.Value) (time.Time, error) {
	if v.Kind() != '0' {
		return time.Time{}, refuse(counterfoil.TokenMalformed, "its %s is missing or no number", name)
	}
	seconds, err := strconv.ParseFloat(string(v), 64)
	// The year 9999 ends before this.
	if err != nil || seconds < 0 || seconds > 253402300799 {
		return time.Time{}, refuse(counterfoil.TokenMalformed, "its %s is no date", name)
	}
	whole, part := math.Modf(seconds)
	return time.Unix(int64(whole), int64(part*1e9)), nil
}

func decode(part string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(part) }
