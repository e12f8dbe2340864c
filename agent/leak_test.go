package agent_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
)

// TestAReportOfALeakIsSentUntilItArrives: an issuer that takes no more for now is asked
// again when it says, a few times; whoever is refused all the same knows when to.
func TestAReportOfALeakIsSentUntilItArrives(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		statuses []int  // one after the other, the last one again and again
		after    string // Retry-After
		sent     int
		took     time.Duration
		code     counterfoil.Code // empty: it arrived
		says     string
	}{
		"at once":              {statuses: []int{202}, sent: 1},
		"the third time":       {statuses: []int{429, 429, 202}, after: "3", sent: 3, took: 6 * time.Second},
		"nothing says when":    {statuses: []int{429, 202}, sent: 2, took: time.Second},
		"a date":               {statuses: []int{429, 202}, after: "Fri, 31 Dec 2027 23:59:59 GMT", sent: 2, took: time.Second},
		"never":                {statuses: []int{429}, after: "2", sent: 5, took: 8 * time.Second, code: counterfoil.RateLimited, says: "report it again in 2s"},
		"in an hour":           {statuses: []int{429, 202}, after: "3600", sent: 1, code: counterfoil.RateLimited, says: "report it again in 1h0m0s"},
		"a fault, not a limit": {statuses: []int{503, 202}, after: "1", sent: 1, code: counterfoil.Internal, says: "503"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var sent int
				begun := time.Now()
				err := agent.ReportLeak(t.Context(), "https://id.example.com", counterfoil.NewSecret("found"), answeringReports(func(r *http.Request) *http.Response {
					if b, _ := io.ReadAll(r.Body); string(b) != "found" || r.URL.Path != counterfoil.LeakedPath {
						t.Errorf("%s: it sent %q", r.URL, b)
					}
					status := tc.statuses[min(sent, len(tc.statuses)-1)]
					sent++
					h := http.Header{}
					if tc.after != "" {
						h.Set("Retry-After", tc.after)
					}
					return &http.Response{StatusCode: status, Header: h, Body: http.NoBody}
				}))
				if took := time.Since(begun); sent != tc.sent || took != tc.took {
					t.Errorf("sent %d times in %v, want %d in %v", sent, took, tc.sent, tc.took)
				}
				if tc.code == "" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				wantCode(t, err, tc.code)
				if !strings.Contains(err.Error(), tc.says) {
					t.Errorf("it does not say %s: %v", tc.says, err)
				}
			})
		})
	}
}

// TestAReportIsBrokenOff: by whoever waits for it.
func TestAReportIsBrokenOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := agent.ReportLeak(ctx, "https://id.example.com", counterfoil.NewSecret("found"), answeringReports(func(*http.Request) *http.Response {
			return &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"5"}}, Body: http.NoBody}
		}))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}

func answeringReports(answer func(*http.Request) *http.Response) *http.Client {
	return &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) { return answer(r), nil })}
}
