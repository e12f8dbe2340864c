package main

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// bears KEY PATH sends a GET with a bearer credential to a path of the issuer, and leaves
// the status and the body as standard output. With ! it wants a refusal.
func bears(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: bears KEY PATH")
	}
	req, err := http.NewRequest(http.MethodGet, ts.Getenv("ISSUER")+args[1], nil)
	ts.Check(err)
	req.Header.Set("Authorization", "Bearer "+args[0])
	req.Header.Set("User-Agent", "nightly/1.0")
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if _, err := io.WriteString(ts.Stdout(), resp.Status+"\n"+strings.Join(resp.Header.Values("WWW-Authenticate"), "\n")+"\n"+string(body)+"\n"); err != nil {
		ts.Check(err)
	}
	if (resp.StatusCode >= 400) != neg {
		ts.Fatalf("bears: %s: %s", resp.Status, body)
	}
}

// TestBearerDigest: the key goes in by standard input, and nothing of it comes out.
func TestBearerDigest(t *testing.T) {
	t.Parallel()
	const key = "legacy-key-0123456789abcdef"
	for _, tc := range []struct {
		name, in string
		args     []string
		code     int
		want     string
	}{
		{"a key", key, nil, exitDone, digestOfLegacyKey + "\n"},
		{"with an end of line", key + "\r\n", []string{"-"}, exitDone, digestOfLegacyKey + "\n"},
		{"as JSON", key, []string{"--json"}, exitDone, `{"key":"` + digestOfLegacyKey + `"}` + "\n"},
		{"short", "fifteen-bytes..", nil, exitFailed, ""},
		{"empty", "", nil, exitFailed, ""},
		{"two lines", key + "\n" + key, nil, exitFailed, ""},
		{"long", strings.Repeat("a", 8<<10+1), nil, exitFailed, ""},
		{"no token68", key + `"`, nil, exitFailed, ""},
		{"on the command line", "", []string{key}, exitUsage, ""},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), append([]string{"bearer", "digest"}, tc.args...), streams{strings.NewReader(tc.in), &out, &errs})
		if code != tc.code || out.String() != tc.want {
			t.Errorf("%s: ended with %d, %q, %s", tc.name, code, &out, &errs)
		}
		if tc.in != "" && strings.Contains(errs.String(), tc.in) || strings.Contains(errs.String(), key) {
			t.Errorf("%s: the key is on standard error", tc.name)
		}
	}
}

const digestOfLegacyKey = "sha-256:yFN50eIlTJbTwoEMd8HbkUuLfh76SDfk0MPrdG3ckHo"

func TestSpans(t *testing.T) {
	t.Parallel()
	for text, hours := range map[string]float64{"30d": 720, "1d": 24, "12h": 12, "90m": 1.5, "0d": 0, "-1d": 0, "d": 0, "1.5d": 0, "-1h": 0, "0": 0, "9999999d": 0, "x": 0} {
		got, err := parseSpan(text)
		if (err != nil) != (hours == 0) || err == nil && got.Hours() != hours {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
}
