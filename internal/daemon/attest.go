package daemon

import (
	"context"
	"fmt"
	"net/http"

	"github.com/counterfoil/counterfoil/internal/attest"
	"github.com/counterfoil/counterfoil/internal/outbound"
)

// issuers verify the tokens of outside issuers. Their keys are fetched as strangers'
// are: what is not on the public Internet needs the operator's list.
func (d *Daemon) issuers() (*attest.Issuers, error) {
	return attest.New(attest.Config{
		Fetch: func(ctx context.Context, url string, most int64) ([]byte, error) {
			status, _, body, err := d.guard.Fetch(ctx, outbound.Elsewhere, http.MethodGet, url, http.Header{"Accept": {"application/json"}}, nil, most)
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("the answer has status %d", status)
			}
			return body, err
		},
	})
}
