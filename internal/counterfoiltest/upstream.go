package counterfoiltest

import (
	"bytes"
	"io"
	"net/http"
	"sync"

	"github.com/counterfoil/counterfoil/ijson"
)

// An UpstreamCall is one tools/call as the upstream received it.
type UpstreamCall struct {
	Tool      string
	Arguments string // canonical
}

// A Recorder stands before the real MCP server and keeps what reached it, so that
// what the ledger says can be held against what happened.
type Recorder struct {
	next http.Handler

	mu      sync.Mutex
	calls   []UpstreamCall
	headers []http.Header
}

// NewRecorder records what reaches h.
func NewRecorder(h http.Handler) *Recorder { return &Recorder{next: h} }

// ServeHTTP records a request and passes it on.
func (r *Recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		http.Error(w, "unreadable", http.StatusBadRequest)
		return
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	var msg struct {
		Method string `json:"method"`
		Params struct {
			Name      string `json:"name"`
			Arguments any    `json:"arguments"`
		} `json:"params"`
	}
	r.mu.Lock()
	r.headers = append(r.headers, req.Header.Clone())
	if ijson.UnmarshalLax(body, &msg) == nil && msg.Method == "tools/call" {
		args, err := ijson.Marshal(msg.Params.Arguments)
		if err == nil {
			r.calls = append(r.calls, UpstreamCall{msg.Params.Name, string(args)})
		}
	}
	r.mu.Unlock()
	r.next.ServeHTTP(w, req)
}

// Seen returns the tool calls, and the header of every request.
func (r *Recorder) Seen() ([]UpstreamCall, []http.Header) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]UpstreamCall(nil), r.calls...), append([]http.Header(nil), r.headers...)
}
