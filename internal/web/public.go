package web

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/ledger"
)

// Paths below the issuer's URL beside those of the root package, which other
// rooms know too.
const (
	jwksPath   = counterfoil.JWKSPath
	ledgerPath = "/ledger"

	resourceMetadataPath = "/.well-known/oauth-protected-resource"
)

// public is the issuer's listener.
type public struct {
	Config
	base   string // the path of the issuer's URL
	host   string // its host
	origin string // its scheme and host
	meta   serverMetadata

	looks  *authority.Limiter // of agents, at their approvals
	asks   *authority.Limiter // of agents, at everything else of the issuer's
	points *authority.Limiter // of enforcement points, at their questions
	told   *authority.Limiter // of agents, of entries that requests were refused

	waiting waiting // at the feed
}

func newPublic(cfg Config, base string, a *answers) http.Handler {
	p := &public{
		Config: cfg, base: base, meta: newServerMetadata(cfg.Issuer, cfg.Keys.Signer().Public().Alg()), origin: strings.TrimSuffix(cfg.Issuer, base),
		looks: authority.NewLimiter(lookRate, lookBurst), asks: authority.NewLimiter(askRate, askBurst), told: authority.NewLimiter(1, 1),
	}
	if u, err := url.Parse(cfg.Issuer); err == nil {
		p.host = u.Host
	}
	rt := &router{answers: a, screen: ownHost(cfg.Issuer, cfg.Behind), gate: p.gate, unrecorded: cfg.Authority.Refused, prefix: base + counterfoil.ResourcePath, beneath: cfg.Gateway}
	for _, path := range metadataPaths(base) {
		rt.handle(http.MethodGet, path, p.metadata)
	}
	rt.handle(http.MethodGet, resourceMetadataPath+base+counterfoil.ResourcePath+"{resource}", p.resourceMetadata)
	rt.handle(http.MethodGet, resourceMetadataPath+base+counterfoil.ResourcePath+"{resource}/{below...}", p.resourceMetadata)
	rt.handleOAuth(http.MethodPost, base+counterfoil.TokenPath, p.token)
	rt.handleOAuth(http.MethodGet, base+jwksPath, p.jwks)
	rt.handle(http.MethodPost, base+counterfoil.EnrollPath, p.enroll)
	rt.handle(http.MethodGet, base+counterfoil.ApprovalPath+"{id}", p.approvalStatus)
	p.taskRoutes(rt)
	p.oauthRoutes(rt)
	p.feedRoutes(rt)
	if p.Signals != nil {
		p.meta.Signals = signalsMetadata(p.Issuer)
		p.signalRoutes(rt)
	}
	if p.Evaluator != nil {
		p.authzenRoutes(rt)
	}
	rt.handle(http.MethodGet, base+ledgerPath+"/checkpoint", p.checkpoint)
	rt.handle(http.MethodGet, base+ledgerPath+"/tile/{tile...}", p.tile)
	return rt
}

// gate refuses a request whose target is another server's (RFC 9112, Section
// 3.2.2): we are nobody's proxy. Nor does it change the protocol of a connection.
func (p *public) gate(_ http.ResponseWriter, r *http.Request) error {
	if r.URL.IsAbs() && (r.URL.User != nil || !strings.HasPrefix(r.URL.Scheme, "http") || !strings.EqualFold(r.URL.Host, p.host)) {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "the request is for another server")
	}
	return noUpgrade(r)
}

func (p *public) metadata(w http.ResponseWriter, _ *http.Request) error {
	cacheable(w, 600)
	writeJSON(w, http.StatusOK, "application/json", p.meta)
	return nil
}

// resourceMetadata serves the document of a resource at its own path and, for
// http resources, at every path below, because that is where a client that was
// refused there looks (RFC 9728, Section 3.1).
func (p *public) resourceMetadata(w http.ResponseWriter, r *http.Request) error {
	_, registry := p.Authority.Policy()
	res := registry.Resources[r.PathValue("resource")]
	if res == nil || res.PublicURL != "" || r.PathValue("below") != "" && res.Type != counterfoil.ResourceHTTP {
		return counterfoil.Refuse(counterfoil.ToolUnknown, "there is nothing at this path")
	}
	cacheable(w, 60)
	writeJSON(w, http.StatusOK, "application/json", newResourceMetadata(p.Issuer, res, p.Now()))
	return nil
}

func (p *public) jwks(w http.ResponseWriter, _ *http.Request) error {
	// A key is published for as long as this before it signs, so a copy that
	// is not expired has every key that signs.
	cacheable(w, int(authority.JWKSLife.Seconds()))
	body := p.Keys.JWKS()
	if p.EventKeys != nil {
		var err error
		if body, err = authority.JWKSOf(p.Keys, p.EventKeys); err != nil {
			return err
		}
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
	return nil
}

func (p *public) token(w http.ResponseWriter, r *http.Request) error {
	// RFC 6749, Section 5.1; RFC 9449, Section 8: nothing here is cached.
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
	form, err := readForm(w, r)
	if err != nil {
		return err
	}
	answer, err := p.Authority.Issue(r.Context(), authority.TokenRequest{
		Form: form, Proof: r.Header.Values("DPoP"), Authorization: r.Header.Values("Authorization"),
		Source: p.Source(r), RequestID: RequestID(r.Context()),
	})
	p.nonce(w, err)
	if err != nil {
		return recorded{err}
	}
	writeJSON(w, http.StatusOK, "application/json", answer)
	return nil
}

// nonce adds a nonce to an answer that asks for one, and to every answer while
// each proof needs one, so that the next request has it (RFC 9449, Section 8.2).
func (p *public) nonce(w http.ResponseWriter, err error) {
	asked := err != nil && counterfoil.CodeOf(err) == counterfoil.NonceRequired
	if nonce, ok := p.Authority.Nonce(asked); ok {
		w.Header().Set("DPoP-Nonce", nonce)
		w.Header().Set("Cache-Control", "no-store")
	}
}

type enrolBody struct {
	Agent string `json:"agent"`
	Code  string `json:"code"`
}

type enrolled struct {
	Agent    string `json:"agent"`
	Instance string `json:"instance"`
	JKT      string `json:"jkt"`
}

func (p *public) enroll(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cache-Control", "no-store")
	var body enrolBody
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "parameters go into the body")
	}
	if err := readJSON(w, r, maxEnrol, &body); err != nil {
		return err
	}
	inst, err := p.Authority.Enroll(r.Context(), authority.EnrolRequest{
		Agent: body.Agent, Code: body.Code, Proof: r.Header.Values("DPoP"),
		Source: p.Source(r), RequestID: RequestID(r.Context()),
	})
	p.nonce(w, err)
	if err != nil {
		return recorded{err}
	}
	writeJSON(w, http.StatusCreated, "application/json", enrolled{inst.Agent, inst.ID, inst.JKT})
	return nil
}

// checkpoint serves the log's head (C2SP tlog-tiles). It is never cached: an
// old one would hide what was added.
func (p *public) checkpoint(w http.ResponseWriter, r *http.Request) error {
	note, err := p.Log.Checkpoint(r.Context())
	if err != nil {
		return counterfoil.NewFault(counterfoil.LedgerUnavailable, err)
	}
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(note)))
	w.Write(note)
	return nil
}

func (p *public) tile(w http.ResponseWriter, r *http.Request) error {
	path := "tile/" + r.PathValue("tile")
	if _, err := ledger.ParseTilePath(path); err != nil {
		return counterfoil.Refuse(counterfoil.ToolUnknown, "there is no such tile; entries are not served here")
	}
	tile, ok, err := p.Log.Tile(r.Context(), path)
	if err != nil {
		return counterfoil.NewFault(counterfoil.LedgerUnavailable, err)
	}
	if !ok {
		return counterfoil.Refuse(counterfoil.ToolUnknown, "the log has no such tile")
	}
	// A tile never changes once it is there.
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(tile)))
	w.Write(tile)
	return nil
}
