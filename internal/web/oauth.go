package web

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authority"
)

// rotateTool is what the rotation of an instance's key is called in the ledger.
const rotateTool = "counterfoil/keys/rotate"

// oauthRoutes are what is asked and said about tokens and keys: by those who show a
// client assertion, by an instance about its own key, and by anyone who found one.
func (p *public) oauthRoutes(rt *router) {
	rt.handleOAuth(http.MethodPost, p.base+counterfoil.IntrospectPath, p.introspect)
	rt.handleOAuth(http.MethodPost, p.base+counterfoil.RevokePath, p.revoke)
	rt.handleOAuth(http.MethodPost, p.base+counterfoil.LeakedPath, p.leaked)
	rt.handle(http.MethodPost, p.base+counterfoil.RotatePath, p.withToken(rotateTool, p.rotateKey))
}

// clientRequest reads a request of RFC 7009 or RFC 7662: a form with a client
// assertion and one token.
func (p *public) clientRequest(w http.ResponseWriter, r *http.Request) (authority.ClientRequest, error) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
	form, err := readForm(w, r)
	if err != nil {
		return authority.ClientRequest{}, err
	}
	return authority.ClientRequest{
		Form: form, Authorization: r.Header.Values("Authorization"), Source: p.Source(r), RequestID: RequestID(r.Context()),
	}, nil
}

func (p *public) introspect(w http.ResponseWriter, r *http.Request) error {
	req, err := p.clientRequest(w, r)
	if err != nil {
		return err
	}
	req.JWT = wantsJWT(r.Header.Values("Accept"))
	answer, err := p.Authority.Introspect(r.Context(), req)
	if err != nil {
		return recorded{err}
	}
	w.Header().Set("Content-Type", answer.ContentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(answer.Body)))
	w.Write(answer.Body)
	return nil
}

// wantsJWT reports whether an answer as a JWT is asked for (RFC 9701, Section 4): by
// its name, and not less than JSON. A wildcard asks for what is ordinary.
func wantsJWT(accept []string) bool {
	weight := map[string]float64{}
	for item := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		name, params, _ := strings.Cut(item, ";")
		name = strings.ToLower(strings.TrimSpace(name))
		q := 1.0
		for param := range strings.SplitSeq(params, ";") {
			if key, value, ok := strings.Cut(param, "="); ok && strings.EqualFold(strings.TrimSpace(key), "q") {
				var err error
				if q, err = strconv.ParseFloat(strings.TrimSpace(value), 64); err != nil || !(q >= 0 && q <= 1) {
					q = 0 // RFC 9110, Section 12.4.2: no weight that there is
				}
			}
		}
		weight[name] = max(weight[name], q)
	}
	jwt := weight[authority.IntrospectionJWT]
	return jwt > 0 && jwt >= weight[authority.IntrospectionJSON]
}

// revoke takes a token from its own agent (RFC 7009). The answer is the same for every
// token there is or is not.
func (p *public) revoke(w http.ResponseWriter, r *http.Request) error {
	req, err := p.clientRequest(w, r)
	if err != nil {
		return err
	}
	if err := p.Authority.RevokeToken(r.Context(), req); err != nil {
		return recorded{err}
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// leaked takes a report of a leak from anyone, in any form: what proves itself is
// revoked, and the answer says nothing of that.
func (p *public) leaked(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cache-Control", "no-store")
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, authority.MaxLeak))
	if errors.As(err, new(*http.MaxBytesError)) {
		return counterfoil.Refuse(counterfoil.PayloadTooLarge, "a report has at most %d bytes", authority.MaxLeak)
	}
	if err == nil {
		err = p.Authority.Leaked(r.Context(), authority.LeakRequest{
			Body: body, ContentType: strings.Join(r.Header.Values("Content-Type"), ","), Source: p.Source(r), RequestID: RequestID(r.Context()),
		})
		if err != nil {
			return err
		}
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// rotateKeyBody is the wire of a rotation.
type rotateKeyBody struct {
	Proof   string       `json:"proof"`   // a DPoP proof by the new key, for this request and its token
	Overlap given[int64] `json:"overlap"` // seconds for which the present key is taken too; none when absent
}

func (p *public) rotateKey(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
	var body rotateKeyBody
	if err := noQuery(r); err != nil {
		return 0, nil, err
	}
	if err := readJSON(nil, r, maxAsk, &body); err != nil {
		return 0, nil, err
	}
	if s := body.Overlap.value; s < 0 || s > int64(authority.MaxOverlap/time.Second) {
		return 0, nil, counterfoil.Refuse(counterfoil.RequestMalformed, "overlap is 0 to %d seconds", int64(authority.MaxOverlap/time.Second))
	}
	// The Verifier took this very header, so it is a scheme and a token. What it hashes
	// to is RFC 9449's ath (Section 4.2).
	_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(strings.TrimLeft(token, " ")))
	rotated, err := p.Authority.RotateKey(ctx, c, authority.RotateRequest{
		NewProof: body.Proof, Overlap: time.Duration(body.Overlap.value) * time.Second,
		AccessTokenHash: base64.RawURLEncoding.EncodeToString(sum[:]), Source: p.Source(r), RequestID: RequestID(ctx),
	})
	return http.StatusOK, rotated, err
}
