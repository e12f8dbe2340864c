package resource

import (
	"context"
	"log/slog"
	"net/http"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

type callerKey struct{}

// CallerFrom returns the verified caller of a request that came through
// Middleware.
func CallerFrom(ctx context.Context) (counterfoil.Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(counterfoil.Caller)
	return c, ok
}

// Middleware lets only verified requests through to next, which finds out who
// calls by CallerFrom. Others are answered as RFC 9457 and RFC 9449, Section
// 7.1, say.
//
// resource is the service's identifier, an absolute URL: tokens are for it, and
// the public URL of a request is its scheme and authority with the request's
// path. So Middleware goes around everything that changes paths.
func (v *Verifier) Middleware(resource string, next http.Handler) http.Handler {
	origin := originOf(resource)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := v.Check(r.Context(), Request{
			Method:   r.Method,
			URL:      origin + r.URL.EscapedPath(),
			Resource: resource,
			Header:   r.Header,
		})
		if err != nil {
			v.refuse(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, caller)))
	})
}

// originOf returns the scheme and the authority of a URL. Of what is no URL it
// returns what no proof is for.
func originOf(url string) string {
	i := strings.Index(url, "://")
	if i < 0 {
		return ""
	}
	if j := strings.IndexAny(url[i+3:], "/?#"); j >= 0 {
		return url[:i+3+j]
	}
	return url
}

// refuse answers err. The text of a fault stays here, in the log, under the
// request id that the answer has.
func (v *Verifier) refuse(w http.ResponseWriter, r *http.Request, err error) {
	problem := counterfoil.ProblemOf(err, counterfoil.NewID("req_"))
	problem.Type = "" // who runs this server may have pages of their own
	if _, ok := counterfoil.AsRefusal(err); ok {
		// A detail may hold what the sender sent, in any bytes.
		problem.Detail = strings.ToValidUTF8(problem.Detail, "?")
	} else {
		v.log().ErrorContext(r.Context(), "checking a request", "code", problem.Code, "request_id", problem.RequestID, "err", err)
	}
	v.setHeaders(w.Header(), err)
	body, merr := ijson.Marshal(problem)
	if merr != nil { // cannot be: every member is a string or a small number
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", counterfoil.ProblemMedia)
	w.WriteHeader(problem.Status)
	_, _ = w.Write(body) // the client is gone; there is nobody to tell
}

func (v *Verifier) log() *slog.Logger {
	if v.Log == nil {
		return slog.Default()
	}
	return v.Log
}
