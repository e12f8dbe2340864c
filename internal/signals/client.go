package signals

import (
	"context"
	"net/http"

	"github.com/counterfoil/counterfoil/internal/outbound"
)

// exchange sends one request and returns the answer's status and at most so many bytes
// of its body. A longer one is an error. Receivers and transmitters are somebody else's:
// where they are is judged when they are dialled. Errors hold no URL.
func (e *Engine) exchange(ctx context.Context, method, to string, body []byte, header http.Header, most int64) (int, []byte, error) {
	status, _, answer, err := e.cfg.Guard.Fetch(ctx, outbound.Elsewhere, method, to, header, body, most)
	return status, answer, err
}
