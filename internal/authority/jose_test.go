package authority_test

import (
	"encoding/base64"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/ijson"
)

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func stamp(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

// claimsOf reads the claims of a compact JWS, without checking it.
func claimsOf(t *testing.T, compact string) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		t.Fatalf("%q is no JWS", compact)
	}
	for i, out := range []*map[string]any{&header, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := ijson.Unmarshal(b, out); err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}

func jtiOf(t *testing.T, compact string) string {
	t.Helper()
	_, claims := claimsOf(t, compact)
	id, _ := claims["jti"].(string)
	return id
}
