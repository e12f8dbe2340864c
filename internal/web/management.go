package web

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authority"
)

// management is the listener of the console and its API, and of health for those
// who may see it.
type management struct {
	Config
	probes
	sessions  *sessions
	addresses *authority.Limiter // of what anyone may ask
	document  []byte             // openapi.json
	socket    *admin             // for what both can read
}

func newManagement(cfg Config, a *answers) (http.Handler, error) {
	m := &management{
		Config: cfg, probes: newProbes(cfg, isLocal), sessions: newSessions(), addresses: authority.NewLimiter(addressRate, addressBurst),
		socket: &admin{cfg},
	}
	var err error
	if m.document, err = describe(operations, cfg.ManagementURL, m.cookieName()); err != nil {
		return nil, err
	}
	rt := &router{answers: a, unrecorded: cfg.Authority.Refused}
	own := ownPages(cfg.ManagementURL, cfg.Behind, func(r *http.Request) bool { return isHealthPath(r.URL.Path) })
	rt.screen = func(w http.ResponseWriter, r *http.Request) error {
		m.securityHeaders(w.Header())
		return own(w, r)
	}
	m.probes.routes(rt)
	m.routes(rt)
	m.pages(rt)
	return rt, nil
}

// sameOrigin refuses what a browser says is another site's doing: the origin is the
// configured one, because a request's Host is whatever name led here. What changes
// something comes from a page of ours, or from what is no browser and has nobody's
// cookie; what only reads may come from the address bar too (Sec-Fetch-Site: none).
func (m *management) sameOrigin(r *http.Request) error {
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	for _, site := range r.Header.Values("Sec-Fetch-Site") {
		if site != "same-origin" && !(reads && site == "none") {
			return counterfoil.Refuse(counterfoil.OriginForbidden, "the request comes from another site")
		}
	}
	for _, origin := range r.Header.Values("Origin") {
		if origin != m.ManagementURL {
			return counterfoil.Refuse(counterfoil.OriginForbidden, "the request comes from another origin")
		}
	}
	return nil
}

// probes are what a listener says about the server's health.
type probes struct {
	ready   func() []string
	sees    func(*http.Request) bool // whether a request may see it
	metrics http.Handler
}

func newProbes(cfg Config, sees func(*http.Request) bool) probes {
	return probes{cfg.Ready, sees, promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{})}
}

// newMetrics is the listener of health alone, for whoever reaches it.
func newMetrics(cfg Config, a *answers) http.Handler {
	rt := &router{answers: a, unrecorded: cfg.Authority.Refused}
	newProbes(cfg, func(*http.Request) bool { return true }).routes(rt)
	return rt
}

const (
	healthzPath = "/healthz"
	readyzPath  = "/readyz"
	metricsPath = "/metrics"
)

func isHealthPath(path string) bool {
	return path == healthzPath || path == readyzPath || path == metricsPath
}

func (p probes) routes(rt *router) {
	rt.handle(http.MethodGet, healthzPath, p.healthz)
	rt.handle(http.MethodGet, readyzPath, p.readyz)
	rt.handle(http.MethodGet, metricsPath, p.serveMetrics)
}

func (p probes) healthz(w http.ResponseWriter, r *http.Request) error {
	if !p.sees(r) {
		return notHere()
	}
	return writeText(w, http.StatusOK, "ok\n")
}

type readiness struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons,omitzero"`
}

func (p probes) readyz(w http.ResponseWriter, r *http.Request) error {
	if !p.sees(r) {
		return notHere()
	}
	reasons := p.ready()
	status := http.StatusOK
	if len(reasons) > 0 {
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, status, "application/json", readiness{len(reasons) == 0, reasons})
	return nil
}

func (p probes) serveMetrics(w http.ResponseWriter, r *http.Request) error {
	if !p.sees(r) {
		return notHere()
	}
	p.metrics.ServeHTTP(w, r)
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
