package web

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/counterfoil/counterfoil"
)

// management is the listener of the console, and of health for those who may
// see it.
type management struct {
	Config
	sees    func(*http.Request) bool // whether a request may see health and metrics
	metrics http.Handler
}

func newManagement(cfg Config, a *answers, hosted bool, sees func(*http.Request) bool) http.Handler {
	m := &management{Config: cfg, sees: sees, metrics: promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{})}
	rt := &router{answers: a, unrecorded: cfg.Authority.Refused}
	if cfg.ManagementURL != "" && hosted {
		rt.screen = ownHost(cfg.ManagementURL, cfg.Behind)
	}
	rt.handle(http.MethodGet, "/", m.home)
	rt.handle(http.MethodGet, "/healthz", m.healthz)
	rt.handle(http.MethodGet, "/readyz", m.readyz)
	rt.handle(http.MethodGet, "/metrics", m.serveMetrics)
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		rt.handle(method, "/api/v1/{path...}", m.api)
	}
	return rt
}

const homeText = `Counterfoil

This is the management address. There is no console in this version: administer
with the counterfoil command on the server's machine, through its admin socket
(counterfoil --help).
`

func (m *management) home(w http.ResponseWriter, _ *http.Request) error {
	return writeText(w, http.StatusOK, homeText)
}

// api answers that nobody is logged in: nobody can be, in this version. What
// comes from a web page of another origin is refused as that.
func (m *management) api(_ http.ResponseWriter, r *http.Request) error {
	if err := m.sameOrigin(r); err != nil {
		return err
	}
	return counterfoil.Refuse(counterfoil.SessionRequired, "nobody is logged in; administer through the admin socket")
}

func (m *management) healthz(w http.ResponseWriter, r *http.Request) error {
	if !m.sees(r) {
		return notHere()
	}
	return writeText(w, http.StatusOK, "ok\n")
}

type readiness struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons,omitzero"`
}

func (m *management) readyz(w http.ResponseWriter, r *http.Request) error {
	if !m.sees(r) {
		return notHere()
	}
	reasons := m.Ready()
	status := http.StatusOK
	if len(reasons) > 0 {
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, status, "application/json", readiness{len(reasons) == 0, reasons})
	return nil
}

func (m *management) serveMetrics(w http.ResponseWriter, r *http.Request) error {
	if !m.sees(r) {
		return notHere()
	}
	m.metrics.ServeHTTP(w, r)
	return nil
}

func notHere() error {
	return counterfoil.Refuse(counterfoil.ToolUnknown, "there is nothing at this path")
}

func writeText(w http.ResponseWriter, status int, text string) error {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	w.Write([]byte(text))
	return nil
}

// sameOrigin refuses what a browser says is another site's doing: the origin
// is the configured one, because a request's Host is whatever name led here.
func (m *management) sameOrigin(r *http.Request) error {
	site := r.Header.Get("Sec-Fetch-Site")
	if site != "" && site != "same-origin" && site != "none" {
		return counterfoil.Refuse(counterfoil.OriginForbidden, "the request comes from another site")
	}
	for _, origin := range r.Header.Values("Origin") {
		if origin != m.ManagementURL {
			return counterfoil.Refuse(counterfoil.OriginForbidden, "the request comes from another origin")
		}
	}
	return nil
}
