package authz

import (
	"net/http"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// What a proxy says of the request that it asks about.
const (
	forwardedMethod = "X-Forwarded-Method"
	forwardedURI    = "X-Forwarded-Uri"
)

// forwardAuth answers nginx (auth_request), Traefik (forwardAuth) and Caddy
// (forward_auth). They ask with a request of their own, which has the headers of the
// client's but not its body; two more headers say its method and URI.
func (h *Handler) forwardAuth(w http.ResponseWriter, r *http.Request, id, name string) {
	a := h.judged(id, func() (counterfoil.Answer, error) { return h.judgeForwarded(r, id, name) })
	if !a.Allow {
		a.Status = forwardStatus(a.Status)
		h.answer(w, id, a)
		return
	}
	h.allow(w, id, a)
}

func (h *Handler) judgeForwarded(r *http.Request, id, name string) (counterfoil.Answer, error) {
	method, err := one(r.Header, forwardedMethod)
	if err != nil {
		return counterfoil.Answer{}, err
	}
	target, err := one(r.Header, forwardedURI)
	if err != nil {
		return counterfoil.Answer{}, err
	}
	q, err := h.question(id, pointForwardAuth, name, method, target, r.Header, h.cfg.Source(r))
	if err != nil {
		return counterfoil.Answer{}, err
	}
	return h.ask(r.Context(), q), nil
}

// one returns the only value of a header. A second one is a client's that the proxy
// left where it was: which of the two it means nobody knows.
func one(h http.Header, name string) (string, error) {
	switch values := h.Values(name); {
	case len(values) == 0 || len(values) == 1 && values[0] == "":
		return "", counterfoil.Refuse(counterfoil.RequestMalformed, "the proxy does not say %s", name)
	case len(values) > 1:
		return "", counterfoil.Refuse(counterfoil.RequestMalformed, "the proxy says %s more than once", name)
	default:
		return strings.TrimSpace(values[0]), nil
	}
}

// forwardStatus returns the status that refuses a request with each of the three. To
// nginx every 2xx is a yes, 401 and 403 are a no, and anything else is a failure of
// ours, which it answers with 500. The problem in the body has the status that was
// meant; a fault stays one.
func forwardStatus(status int) int {
	switch {
	case status == http.StatusUnauthorized || status >= 500:
		return status
	default:
		return http.StatusForbidden
	}
}

// allow says yes: with the headers that the request is to have upstream as headers of
// the answer. nginx, Traefik and Caddy take only those that their configuration names,
// and it is their configuration, too, that removes others.
func (h *Handler) allow(w http.ResponseWriter, id string, a counterfoil.Answer) {
	out := w.Header()
	for name, values := range a.Set {
		out[http.CanonicalHeaderKey(name)] = values
	}
	out.Set("Cache-Control", "no-store")
	out.Set("X-Request-Id", id)
	out.Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
}
