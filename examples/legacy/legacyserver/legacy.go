// Package legacyserver is the kind of HTTP API that many tools are: it knows one static
// bearer token, and whoever has that token may do everything for as long as nobody
// changes it. And it is careless: every answer holds the headers of its request, in the
// body, in headers of its own, in the place that it redirects to and in its errors,
// written in all the ways in which programs write text.
package legacyserver

import (
	"cmp"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/counterfoil/counterfoil/ijson"
)

// A customer of whoever runs the API.
type customer struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Email string `json:"email"`
}

// An API is a customer register behind one static bearer token. It is safe for
// concurrent use.
type API struct {
	secret string

	mu        sync.Mutex
	customers map[string]customer // guarded by mu
	resets    []string            // customers whose password was reset; guarded by mu
	calls     int                 // requests that had the token; guarded by mu
}

// New returns an API that takes that token.
func New(secret string) *API {
	return &API{secret: secret, customers: map[string]customer{
		"7": {"7", "Ada Lovelace", "ada@example.com"},
		"8": {"8", "Grace Hopper", "grace@example.com"},
	}}
}

// Resets returns the customers whose password was reset, in that order.
func (a *API) Resets() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.resets)
}

// Calls returns how many requests had the token.
func (a *API) Calls() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls
}

// Handler serves the API:
//
//	GET  /customers/{id}           one customer
//	POST /customers/{id}/password  resets the password
//	GET  /customers/{id}/events    a stream of events
//	GET  /clients/{id}             has moved: a redirect
//	GET  /report                   is broken: an error
func (a *API) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /customers/{id}", a.customer)
	mux.HandleFunc("POST /customers/{id}/password", a.reset)
	mux.HandleFunc("GET /customers/{id}/events", events)
	mux.HandleFunc("GET /clients/{id}", moved)
	mux.HandleFunc("GET /report", broken)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		echo(w.Header(), r)
		got := r.Header.Get("Authorization")
		if subtle.ConstantTimeCompare([]byte(got), []byte("Bearer "+a.secret)) != 1 {
			http.Error(w, "401 this is not the token: "+got, http.StatusUnauthorized)
			return
		}
		a.mu.Lock()
		a.calls++
		a.mu.Unlock()
		mux.ServeHTTP(w, r)
	})
}

// echo writes a request's headers into the answer's.
func echo(h http.Header, r *http.Request) {
	for name, values := range r.Header {
		h.Set("X-Echo-"+name, strings.Join(values, ", "))
	}
	authorization := r.Header.Get("Authorization")
	h.Set("X-Debug-Base64", base64.StdEncoding.EncodeToString([]byte(authorization)))
	h.Set("X-Debug-Escaped", url.QueryEscape(authorization))
}

// seen is a request's headers for a body: as they are, as they are in a URL, and in
// base64.
func seen(r *http.Request) map[string]any {
	var lines strings.Builder
	_ = r.Header.Write(&lines) // to memory, which takes everything
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	return map[string]any{
		"headers": r.Header,
		"query":   url.Values(r.Header).Encode(),
		"base64":  base64.StdEncoding.EncodeToString([]byte(lines.String())),
		"url64":   base64.RawURLEncoding.EncodeToString([]byte("token=" + token)),
		"basic":   base64.StdEncoding.EncodeToString([]byte("api:" + token)),
	}
}

// escaped writes text as JSON writers do that trust no character.
func escaped(s string) string {
	var b strings.Builder
	for _, r := range s {
		fmt.Fprintf(&b, `\u%04x`, r)
	}
	return b.String()
}

// answer writes an object with what was seen of the request.
func answer(w http.ResponseWriter, r *http.Request, status int, v map[string]any) {
	v["request"] = seen(r)
	b, err := ijson.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	b = fmt.Appendf(b[:len(b)-1], `,"escaped":"%s"}`, escaped(r.Header.Get("Authorization")))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the client is gone
}

func (a *API) customer(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	c, ok := a.customers[r.PathValue("id")]
	a.mu.Unlock()
	if !ok {
		answer(w, r, http.StatusNotFound, map[string]any{"error": "no such customer"})
		return
	}
	answer(w, r, http.StatusOK, map[string]any{"customer": c})
}

func (a *API) reset(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	a.mu.Lock()
	c, ok := a.customers[id]
	if ok {
		a.resets = append(a.resets, id)
	}
	a.mu.Unlock()
	if !ok {
		answer(w, r, http.StatusNotFound, map[string]any{"error": "no such customer"})
		return
	}
	answer(w, r, http.StatusOK, map[string]any{"mailed_to": c.Email})
}

// events is three events, the last of which is sent in two pieces, with the token
// across them.
func events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	ctl := http.NewResponseController(w)
	authorization := r.Header.Get("Authorization")
	half := len(authorization) / 2
	for _, piece := range []string{
		"data: opened\n\n", "data: " + authorization + "\n\n", "data: " + authorization[:half], authorization[half:] + "\n\n",
	} {
		fmt.Fprint(w, piece)
		_ = ctl.Flush() // a server that cannot flush sends it at the end
	}
}

func moved(w http.ResponseWriter, r *http.Request) {
	at := "/customers/" + url.PathEscape(r.PathValue("id")) + "?from=" + url.QueryEscape(r.Header.Get("Authorization"))
	w.Header().Set("Location", at)
	w.WriteHeader(http.StatusFound)
	fmt.Fprintf(w, "moved to %s\n", at)
}

func broken(w http.ResponseWriter, r *http.Request) {
	var dump strings.Builder
	_ = r.Header.Write(&dump) // to memory
	http.Error(w, "500 unhandled error while serving\n"+cmp.Or(dump.String(), "a request without headers"), http.StatusInternalServerError)
}
