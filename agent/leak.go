package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// ReportLeak hands an issuer what was found where it should not be: a whole token, a
// private key, an enrolment code, or a text with some of them. What proves itself by
// that is revoked. Anyone may report, and the answer is the same for everything, so
// that a report finds nothing out: nil says that it arrived. Of base only the
// transport is used; nil is as in Config.
func ReportLeak(ctx context.Context, issuer string, found counterfoil.Secret, base *http.Client) error {
	if found.Empty() {
		return errors.New("reporting a leak: there is nothing to report")
	}
	if _, err := checkURL(issuer); err != nil {
		return fmt.Errorf("reporting a leak: the issuer %q: %w", issuer, err)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(issuer, "/")+counterfoil.LeakedPath, strings.NewReader(found.Reveal()))
	if err != nil {
		return fmt.Errorf("reporting a leak: %w", err)
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	resp, err := clientOf(base).Do(req)
	if err != nil {
		return fmt.Errorf("reporting a leak: %w", err)
	}
	defer resp.Body.Close()
	body, err := readLimited(resp.Body)
	if resp.StatusCode == http.StatusAccepted {
		return nil // whatever else came
	}
	if err != nil {
		return fmt.Errorf("reporting a leak: %w", err)
	}
	return fmt.Errorf("reporting a leak: %w", refusedBy("the issuer", resp.StatusCode, body))
}
