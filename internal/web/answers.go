package web

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/resource"
)

// A Tally counts answers by code. Its label is a code out of the closed table,
// so that no caller can make a series of their own.
type Tally struct{ refusals, faults *prometheus.CounterVec }

// NewTally makes the counters and registers them.
func NewTally(reg prometheus.Registerer) *Tally {
	t := &Tally{
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "counterfoil_refusals_total", Help: "Requests that were refused, by code.",
		}, []string{"code"}),
		faults: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "counterfoil_faults_total", Help: "Requests that met a fault of the server, by code.",
		}, []string{"code"}),
	}
	reg.MustRegister(t.refusals, t.faults)
	return t
}

// Count adds one answer. A code that is not in the table counts as internal.
func (t *Tally) Count(code counterfoil.Code) {
	w := code.Wire()
	if w.Fault {
		t.faults.WithLabelValues(string(w.Code)).Inc()
		return
	}
	t.refusals.WithLabelValues(string(w.Code)).Inc()
}

// answers is the one place that renders, logs and counts errors of this room.
type answers struct {
	log   *slog.Logger
	tally *Tally
}

// fail answers with an error: in the form of RFC 6749, Section 5.2, at an OAuth
// endpoint and as a problem (RFC 9457) everywhere else. Both have the code and
// the request id.
func (a *answers) fail(w http.ResponseWriter, r *http.Request, err error, oauth bool) {
	p := problem{Problem: counterfoil.ProblemOf(err, RequestID(r.Context()))}
	wire := p.Code.Wire()
	a.tally.Count(p.Code)
	a.note(r.Context(), err, wire, p.RequestID)

	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if wire.Retry {
		h.Set("Retry-After", "1")
	}
	if oauth {
		status, name := wire.AtToken()
		if tried := r.Header.Get("Authorization"); status == http.StatusUnauthorized && tried != "" {
			h.Set("WWW-Authenticate", attempted(tried)+` realm="counterfoil"`)
		}
		writeJSON(w, status, "application/json", oauthError{
			Error: name, Description: plain(p.Detail), Code: p.Code, RequestID: p.RequestID,
		})
		return
	}
	if errors.As(err, new(conflict)) {
		p.Status = http.StatusConflict
	} else {
		for _, c := range resource.Challenge(err, "", "") {
			h.Add("WWW-Authenticate", c)
		}
	}
	if own := (accessProblem{}); errors.As(err, &own) {
		p.Type, p.Status = own.kind, own.status
	}
	if u := (unapplied{}); errors.As(err, &u) {
		p.Problems, p.Changes = u.Problems, u.Changes
	}
	if o := (overtaken{}); errors.As(err, &o) {
		p.Status, p.PublicKey = http.StatusConflict, o.publicKey
	}
	writeJSON(w, p.Status, counterfoil.ProblemMedia, p)
}

// attempted is the scheme that a client attempted to authenticate by, which the answer
// names to it (RFC 6749, Section 5.2), although none is taken; a word of its own is not
// repeated to it.
func attempted(authorization string) string {
	scheme, _, _ := strings.Cut(authorization, " ")
	for _, known := range []string{"Basic", "Bearer", "DPoP"} {
		if strings.EqualFold(scheme, known) {
			return known
		}
	}
	return "Basic"
}

// note logs an answer and records nothing: a fault with its cause for the operator, a refusal only
// when debugging, because the ledger has it and a flood must not fill the disk.
func (a *answers) note(ctx context.Context, err error, wire counterfoil.Wire, id string) {
	if wire.Fault {
		a.log.ErrorContext(ctx, "request met a fault", "code", wire.Code, "request_id", id, "err", err)
		return
	}
	reason := ""
	if r, ok := counterfoil.AsRefusal(err); ok {
		reason = r.Reason()
	}
	a.log.DebugContext(ctx, "request refused", "code", wire.Code, "request_id", id, "reason", reason)
}

// crashed answers a request whose handler panicked, if nothing was written yet.
// What was half written is cut off, so that nobody takes it for whole.
func (a *answers) crashed(w *writer, r *http.Request, cause any, oauth bool) {
	if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler)
	}
	a.log.ErrorContext(r.Context(), "handler panicked",
		"request_id", RequestID(r.Context()), "cause", cause, "stack", string(debug.Stack()))
	if w.wrote {
		a.tally.Count(counterfoil.Internal)
		panic(http.ErrAbortHandler)
	}
	a.fail(w, r, errPanic, oauth)
}

var errPanic = errors.New("a handler panicked")

type problem struct {
	counterfoil.Problem

	// Of manifests that were not applied.
	Problems []string                  `json:"problems,omitzero"`
	Changes  []authority.AppliedChange `json:"changes,omitzero"`

	// Of a signature that another one overtook: what to sign instead.
	PublicKey jsontext.Value `json:"publicKey,omitzero"`
}

type oauthError struct {
	Error       string           `json:"error"`
	Description string           `json:"error_description,omitzero"`
	Code        counterfoil.Code `json:"code"`
	RequestID   string           `json:"request_id"`
}

// plain keeps the characters that error_description may have (RFC 6749, Section
// 5.2) and writes something readable for the others.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case r == '\\':
			return '/'
		case r < 0x20 || r > 0x7e:
			return '?'
		}
		return r
	}, s)
}

// writeJSON answers with one JSON value. An error of the connection is the
// peer's loss and nobody's to handle.
func writeJSON(w http.ResponseWriter, status int, mediaType string, v any) {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		panic(err) // a value of ours that cannot be written: the request ends with 500
	}
	b = append(b, '\n')
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	w.Write(b)
}
