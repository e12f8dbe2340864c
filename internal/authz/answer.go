package authz

import (
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
)

// codeHeader says why a request was refused to proxies that drop the body of a
// refusal but can pass on a header of it.
const codeHeader = "Counterfoil-Code"

// refused is the answer of what does not reach the Judge.
func (h *Handler) refused(id string, err error) counterfoil.Answer {
	h.cfg.Refused(counterfoil.CodeOf(err))
	p := counterfoil.ProblemOf(err, id)
	if p.Code.Wire().Fault {
		h.cfg.Log.Error("answering with a fault", "request_id", id, "code", p.Code, "err", err)
	}
	body, encErr := json.Marshal(p)
	if encErr != nil {
		body = []byte(`{}`)
	}
	return counterfoil.Answer{
		Status: p.Status, Body: body,
		Header: http.Header{"Content-Type": {counterfoil.ProblemMedia}, codeHeader: {string(p.Code)}},
	}
}

// answer writes an answer that is the proxy's to give, with the status that it has.
func (h *Handler) answer(w http.ResponseWriter, id string, a counterfoil.Answer) {
	out := w.Header()
	for name, values := range explained(a) {
		out[name] = values
	}
	out.Set("Cache-Control", "no-store")
	out.Set("X-Request-Id", id)
	w.WriteHeader(a.Status)
	w.Write(a.Body) // whoever does not read it any more has gone away
}

// explained returns the headers of a refusal, with its code among them.
func explained(a counterfoil.Answer) http.Header {
	out := a.Header.Clone()
	if out == nil {
		out = http.Header{}
	}
	if out.Get(codeHeader) == "" {
		var p struct {
			Code counterfoil.Code `json:"code"`
		}
		if json.Unmarshal(a.Body, &p) == nil && p.Code.Wire().Status != 0 {
			out.Set(codeHeader, string(p.Code))
		}
	}
	for _, name := range slices.Concat(hop, framing) {
		out.Del(name)
	}
	return out
}

// removed returns the headers that the request must not have upstream, in small
// letters. Envoy removes after it has set, so what is set is not among them.
func removed(a counterfoil.Answer) []string {
	var out []string
	for _, name := range a.Remove {
		if len(a.Set.Values(name)) == 0 {
			out = append(out, strings.ToLower(name))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
