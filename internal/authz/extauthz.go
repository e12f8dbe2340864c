package authz

import (
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/counterfoil/counterfoil"
)

const (
	// partialBody is what Envoy adds to a request whose body it sends along: "true"
	// where it sent only the beginning. A client's own is dropped by it.
	partialBody = "X-Envoy-Auth-Partial-Body"

	// toRemove names headers that Envoy then removes from the request.
	toRemove = "X-Envoy-Auth-Headers-To-Remove"
)

// extAuthz answers Envoy's filter where it has an http_service. It asks with the
// request's own method and with its path behind path_prefix. rest is what follows the
// path that the filter was told; withBody says that it sends every body there is.
func (h *Handler) extAuthz(w http.ResponseWriter, r *http.Request, id, rest string, withBody bool) {
	a := h.judged(id, func() (counterfoil.Answer, error) { return h.judgeExtAuthz(r, id, rest, withBody) })
	if !a.Allow {
		a.Status = envoyStatus(a.Status)
		h.answer(w, id, a)
		return
	}
	if names := removed(a); len(names) > 0 {
		w.Header().Set(toRemove, strings.Join(names, ","))
	}
	h.allow(w, id, a)
}

func (h *Handler) judgeExtAuthz(r *http.Request, id, rest string, withBody bool) (counterfoil.Answer, error) {
	// A name has no slash, and a path begins with one: path_prefix ends behind the name.
	name, target, found := strings.Cut(rest, "/")
	if !found {
		return counterfoil.Answer{}, counterfoil.Refuse(counterfoil.ToolUnknown, "no path follows the resource's name")
	}
	q, err := h.question(id, pointExtAuthzHTTP, name, r.Method, "/"+target, r.Header, h.cfg.Source(r))
	if err != nil {
		return counterfoil.Answer{}, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, h.cfg.MaxBody))
	if err != nil {
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			return counterfoil.Answer{}, counterfoil.Refuse(counterfoil.PayloadTooLarge, "the body is larger than %d bytes", h.cfg.MaxBody)
		}
		return counterfoil.Answer{}, counterfoil.Refuse(counterfoil.PayloadMalformed, "the body ended too early")
	}
	if isWhole(r.Header[partialBody], len(body) > 0, withBody) {
		q.Body, q.BodyKnown = body, true
	}
	return h.ask(r.Context(), q), nil
}

// isWhole reports whether what came of a body is all of it. partial is what Envoy says
// of that, some that anything came, and withBody that the filter sends every body.
// Envoy says nothing where it waited for no body: there was none, or the filter does
// not send any.
func isWhole(partial []string, some, withBody bool) bool {
	switch len(partial) {
	case 0:
		return withBody && !some
	case 1:
		return partial[0] == "false"
	}
	return false
}

// envoyStatus returns the status that refuses a request. Envoy takes a 5xx for a
// failure of ours, and one whose filter says failure_mode_allow then lets the request
// through. The problem in the body has the status that was meant.
func envoyStatus(status int) int {
	if status < 400 || status >= 500 {
		return http.StatusForbidden
	}
	return status
}
