package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
)

const (
	// leakTries is how often a report is sent to an issuer that takes no more of them.
	leakTries = 5
	// leakPause is the longest pause between two of them; an issuer that wants a longer
	// one is obeyed by whoever reports.
	leakPause = 10 * time.Second
)

// ReportLeak hands an issuer what was found where it should not be: a whole token, a
// private key, an enrolment code, or a text with some of them. What proves itself by
// that is revoked. Anyone may report, and the answer is the same for everything, so
// that a report finds nothing out: nil says that it arrived. An issuer that takes no
// more reports for now is asked again, a few times, as its Retry-After says; after
// that the refusal says when to. Of base only the transport is used; nil is as in
// Config.
func ReportLeak(ctx context.Context, issuer string, found counterfoil.Secret, base *http.Client) error {
	if found.Empty() {
		return errors.New("reporting a leak: there is nothing to report")
	}
	if _, err := checkURL(issuer); err != nil {
		return fmt.Errorf("reporting a leak: the issuer %q: %w", issuer, err)
	}
	client := clientOf(base)
	for try := 1; ; try++ {
		pause, err := reportOnce(ctx, issuer, found, client)
		if err == nil {
			return nil
		}
		if pause == 0 || pause > leakPause || try == leakTries {
			return fmt.Errorf("reporting a leak: %w", err)
		}
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return fmt.Errorf("reporting a leak: %w", context.Cause(ctx))
		}
	}
}

// reportOnce sends a report. With an error it returns how long to wait before it is
// sent again, zero where that is of no use.
func reportOnce(ctx context.Context, issuer string, found counterfoil.Secret, client *http.Client) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(issuer, "/")+counterfoil.LeakedPath, strings.NewReader(found.Reveal()))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := readLimited(resp.Body)
	switch {
	case resp.StatusCode == http.StatusAccepted:
		return 0, nil // whatever else came
	case resp.StatusCode == http.StatusTooManyRequests:
		pause := retryAfter(resp.Header)
		return pause, counterfoil.Refuse(counterfoil.RateLimited, "the issuer takes no more reports for now, and this one did not arrive: report it again in %v", pause)
	case err != nil:
		return 0, err
	}
	return 0, refusedBy("the issuer", resp.StatusCode, body)
}

// retryAfter returns how long an answer asks to wait (RFC 9110, Section 10.2.3): at
// least a second, which is also what an answer gets that does not say, or not in
// seconds.
func retryAfter(h http.Header) time.Duration {
	s, err := strconv.ParseUint(h.Get("Retry-After"), 10, 31)
	if err != nil || s == 0 {
		return time.Second
	}
	return time.Duration(s) * time.Second
}
