package web

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/signals"
)

// Paths of shared signals, below the issuer's URL.
const (
	ssfStreams  = counterfoil.SignalsPath + "/streams"
	ssfStatus   = counterfoil.SignalsPath + "/status"
	ssfVerify   = counterfoil.SignalsPath + "/verify"
	ssfSubjects = counterfoil.SignalsPath + "/subjects"
	ssfPoll     = counterfoil.SignalsPath + "/poll/"
	ssfReceive  = counterfoil.SignalsPath + "/receive/"

	signalsTool = "counterfoil/signals" // what a receiver's request is called in the ledger

	mediaSET = "application/secevent+jwt"
)

// signalRoutes adds the transmitter's management (SSF 1.0, Section 8), polling (RFC
// 8936), and where other transmitters push to (RFC 8935).
func (p *public) signalRoutes(rt *router) {
	// SSF 1.0, Section 7.2: as for other metadata, the well-known string is inserted
	// between host and path.
	rt.handle(http.MethodGet, signalsMetadataPath+p.base, p.ssfConfiguration)
	at := func(method, path string, do func(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error)) {
		rt.handle(method, p.base+path, p.withToken(signalsTool, do))
	}
	at(http.MethodPost, ssfStreams, p.ssfCreate)
	at(http.MethodGet, ssfStreams, p.ssfRead)
	at(http.MethodPatch, ssfStreams, p.ssfUpdate)
	at(http.MethodPut, ssfStreams, p.ssfReplace)
	at(http.MethodDelete, ssfStreams, p.ssfDelete)
	at(http.MethodGet, ssfStatus, p.ssfGetStatus)
	at(http.MethodPost, ssfStatus, p.ssfSetStatus)
	at(http.MethodPost, ssfVerify, p.ssfVerification)
	at(http.MethodPost, ssfSubjects+":add", p.ssfSubject(http.StatusOK))
	at(http.MethodPost, ssfSubjects+":remove", p.ssfSubject(http.StatusNoContent))
	at(http.MethodPost, ssfPoll+"{stream}", p.ssfPoll)
	rt.handle(http.MethodPost, p.base+ssfReceive+"{transmitter}", p.ssfReceive)
}

// ssfMetadata is the transmitter's configuration (SSF 1.0, Section 7.1).
type ssfMetadata struct {
	SpecVersion    string      `json:"spec_version"`
	Issuer         string      `json:"issuer"`
	JWKSURI        string      `json:"jwks_uri"`
	Delivery       []string    `json:"delivery_methods_supported"`
	Configuration  string      `json:"configuration_endpoint"`
	Status         string      `json:"status_endpoint"`
	AddSubject     string      `json:"add_subject_endpoint"`
	RemoveSubject  string      `json:"remove_subject_endpoint"`
	Verification   string      `json:"verification_endpoint"`
	Critical       []string    `json:"critical_subject_members"`
	Authorization  []ssfScheme `json:"authorization_schemes"`
	DefaultSubject string      `json:"default_subjects"`
}

type ssfScheme struct {
	URN string `json:"spec_urn"`
}

func (p *public) ssfConfiguration(w http.ResponseWriter, _ *http.Request) error {
	cacheable(w, 600)
	writeJSON(w, http.StatusOK, "application/json", ssfMetadata{
		SpecVersion: "1_0", Issuer: p.Issuer, JWKSURI: p.Issuer + jwksPath,
		Delivery:      []string{counterfoil.DeliveryPush, counterfoil.DeliveryPoll},
		Configuration: p.Issuer + ssfStreams, Status: p.Issuer + ssfStatus, Verification: p.Issuer + ssfVerify,
		AddSubject: p.Issuer + ssfSubjects + ":add", RemoveSubject: p.Issuer + ssfSubjects + ":remove",
		// A receiver that overlooks the session would take the end of one task for the
		// end of its agent.
		Critical: []string{"session", "application"},
		// RFC 6749: a token of ours, bound to a key as everywhere (RFC 9449).
		Authorization:  []ssfScheme{{"urn:ietf:rfc:6749"}, {"urn:ietf:rfc:9449"}},
		DefaultSubject: "ALL",
	})
	return nil
}

// ssfStream is a stream's configuration on the wire (SSF 1.0, Section 8.1.1). The
// receiver's secret is not shown to anybody again.
type ssfStream struct {
	ID          string      `json:"stream_id"`
	Issuer      string      `json:"iss"`
	Audience    string      `json:"aud"`
	Delivery    ssfDelivery `json:"delivery"`
	Supported   []string    `json:"events_supported"`
	Requested   []string    `json:"events_requested,omitzero"`
	Delivered   []string    `json:"events_delivered"`
	MinInterval int         `json:"min_verification_interval"`
	Description string      `json:"description,omitzero"`
}

type ssfDelivery struct {
	Method   string `json:"method"`
	Endpoint string `json:"endpoint_url"`
}

func (p *public) ssfStream(s *counterfoil.SignalStream) ssfStream {
	out := ssfStream{
		ID: s.ID, Issuer: p.Issuer, Audience: s.Audience, Delivery: ssfDelivery{s.Method, s.Endpoint},
		Supported: signals.Supported(), Requested: s.Request, Delivered: signals.Supported(),
		MinInterval: int(signals.MinVerification / time.Second), Description: s.Describe,
	}
	if s.Method == counterfoil.DeliveryPoll {
		out.Delivery.Endpoint = p.Issuer + ssfPoll + s.ID
	}
	if len(s.Request) > 0 {
		out.Delivered = slices.DeleteFunc(out.Delivered, func(kind string) bool { return !slices.Contains(s.Request, kind) })
	}
	return out
}

// ssfBody reads a receiver's JSON. What is not understood is ignored, as extensions
// are everywhere in these specifications.
func ssfBody(r *http.Request, v any) error {
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "parameters go into the body")
	}
	body, err := readBody(nil, r, "application/json", maxAsk)
	if err != nil {
		return err
	}
	if err := ijson.UnmarshalLax(body, v); err != nil {
		return counterfoil.Refuse(counterfoil.PayloadMalformed, "the body: %v", err)
	}
	return nil
}

// ssfQuery reads the one parameter that a request without a body has.
func ssfQuery(r *http.Request) (stream string, err error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || len(q) > 1 || len(q) == 1 && len(q["stream_id"]) != 1 {
		return "", counterfoil.Refuse(counterfoil.RequestMalformed, "the one parameter is stream_id")
	}
	return q.Get("stream_id"), nil
}

// ssfWish is what a receiver sends of its stream's configuration. The transmitter's
// own members may be repeated, and then have to be what they are.
type ssfWish struct {
	ID       string         `json:"stream_id"`
	Issuer   string         `json:"iss"`
	Audience jsontext.Value `json:"aud"`
	Delivery *struct {
		Method        string `json:"method"`
		Endpoint      string `json:"endpoint_url"`
		Authorization string `json:"authorization_header"`
	} `json:"delivery"`
	Requested   *[]string `json:"events_requested"`
	Description *string   `json:"description"`
}

// apply lays what is there over a wish.
func (b *ssfWish) apply(w *signals.Wish, keepSecret *bool) error {
	*keepSecret = true
	if d := b.Delivery; d != nil {
		w.Method, w.Endpoint, w.Authorization = d.Method, d.Endpoint, counterfoil.Secret{}
		if d.Authorization != "" {
			w.Authorization = counterfoil.NewSecret(d.Authorization)
		}
	}
	if b.Requested != nil {
		if w.Request = *b.Requested; len(w.Request) == 0 {
			return counterfoil.Refuse(counterfoil.RequestMalformed, "events_requested is empty; name an event, or leave it out for every one")
		}
	}
	if b.Description != nil {
		w.Describe = *b.Description
	}
	return nil
}

// same refuses a configuration whose transmitter's members are not those of the
// stream (SSF 1.0, Sections 8.1.1.3 and 8.1.1.4).
func (p *public) same(b *ssfWish, audience string) error {
	var aud string
	switch {
	case b.ID == "":
		return counterfoil.Refuse(counterfoil.RequestMalformed, "stream_id is needed")
	case b.Issuer != "" && b.Issuer != p.Issuer,
		b.Audience != nil && (ijson.Unmarshal(b.Audience, &aud) != nil || aud != audience):
		return counterfoil.Refuse(counterfoil.RequestMalformed, "iss and aud are the transmitter's to say")
	}
	return nil
}

func (p *public) ssfCreate(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
	var body ssfWish
	if err := ssfBody(r, &body); err != nil {
		return 0, nil, err
	}
	var wish signals.Wish
	if err := body.apply(&wish, new(bool)); err != nil {
		return 0, nil, err
	}
	s, err := p.Signals.Create(ctx, c, wish)
	if errors.Is(err, signals.ErrSecondStream) {
		// SSF 1.0, Section 8.1.1.1.
		return 0, nil, conflict{counterfoil.Refuse(counterfoil.RequestMalformed, "%v", err)}
	}
	if err != nil {
		return 0, nil, err
	}
	return http.StatusCreated, p.ssfStream(&s), nil
}

func (p *public) ssfRead(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
	id, err := ssfQuery(r)
	if err != nil {
		return 0, nil, err
	}
	s, err := p.Signals.StreamOf(ctx, c, id)
	switch {
	case err != nil && id == "" && counterfoil.CodeOf(err) == counterfoil.ToolUnknown:
		return http.StatusOK, []ssfStream{}, nil
	case err != nil:
		return 0, nil, err
	case id == "":
		return http.StatusOK, []ssfStream{p.ssfStream(&s)}, nil
	}
	return http.StatusOK, p.ssfStream(&s), nil
}

// ssfUpdate changes the members that are there (SSF 1.0, Section 8.1.1.3).
func (p *public) ssfUpdate(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
	return p.ssfChange(ctx, r, c, func(body *ssfWish, w *signals.Wish, keep *bool) error { return body.apply(w, keep) })
}

// ssfReplace changes all members that are the receiver's: what is not there is no more
// (SSF 1.0, Section 8.1.1.4).
func (p *public) ssfReplace(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
	return p.ssfChange(ctx, r, c, func(body *ssfWish, w *signals.Wish, keep *bool) error {
		*w = signals.Wish{}
		err := body.apply(w, keep)
		*keep = false
		return err
	})
}

func (p *public) ssfChange(ctx context.Context, r *http.Request, c counterfoil.Caller, edit func(*ssfWish, *signals.Wish, *bool) error) (int, any, error) {
	var body ssfWish
	if err := ssfBody(r, &body); err != nil {
		return 0, nil, err
	}
	if err := p.same(&body, c.Agent); err != nil {
		return 0, nil, err
	}
	s, err := p.Signals.Change(ctx, c, body.ID, func(w *signals.Wish, keep *bool) error { return edit(&body, w, keep) })
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, p.ssfStream(&s), nil
}

func (p *public) ssfDelete(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
	id, err := ssfQuery(r)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, p.Signals.Delete(ctx, c, id)
}

type ssfState struct {
	ID     string `json:"stream_id"`
	Status string `json:"status"`
	Reason string `json:"reason,omitzero"`
}

func (p *public) ssfGetStatus(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
	id, err := ssfQuery(r)
	if err != nil {
		return 0, nil, err
	}
	if id == "" {
		return 0, nil, counterfoil.Refuse(counterfoil.RequestMalformed, "stream_id is needed")
	}
	s, err := p.Signals.StreamOf(ctx, c, id)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, ssfState{s.ID, string(s.Status), s.Reason}, nil
}

func (p *public) ssfSetStatus(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
	var body ssfState
	if err := ssfBody(r, &body); err != nil {
		return 0, nil, err
	}
	if body.ID == "" {
		return 0, nil, counterfoil.Refuse(counterfoil.RequestMalformed, "stream_id is needed")
	}
	s, err := p.Signals.SetStatus(ctx, c, body.ID, counterfoil.StreamStatus(body.Status), body.Reason)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, ssfState{s.ID, string(s.Status), s.Reason}, nil
}

func (p *public) ssfVerification(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
	var body struct {
		ID    string  `json:"stream_id"`
		State *string `json:"state"`
	}
	if err := ssfBody(r, &body); err != nil {
		return 0, nil, err
	}
	if body.ID == "" {
		return 0, nil, counterfoil.Refuse(counterfoil.RequestMalformed, "stream_id is needed")
	}
	return http.StatusNoContent, nil, p.Signals.Verify(ctx, c, body.ID, body.State)
}

// ssfSubject takes a subject and keeps none: every subject is in every stream
// (default_subjects), and what is revoked is told whoever asked for it.
func (p *public) ssfSubject(status int) func(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
	return func(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
		var body struct {
			ID      string         `json:"stream_id"`
			Subject jsontext.Value `json:"subject"`
		}
		if err := ssfBody(r, &body); err != nil {
			return 0, nil, err
		}
		if body.ID == "" || body.Subject.Kind() != '{' {
			return 0, nil, counterfoil.Refuse(counterfoil.RequestMalformed, "stream_id and subject are needed")
		}
		_, err := p.Signals.StreamOf(ctx, c, body.ID)
		return status, nil, err
	}
}

func (p *public) ssfPoll(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
	var body struct {
		MaxEvents         *int64   `json:"maxEvents"`
		ReturnImmediately bool     `json:"returnImmediately"`
		Ack               []string `json:"ack"`
		Errors            map[string]struct {
			Err string `json:"err"`
		} `json:"setErrs"`
	}
	if err := ssfBody(r, &body); err != nil {
		return 0, nil, err
	}
	req := signals.PollRequest{MaxEvents: body.MaxEvents, ReturnImmediately: body.ReturnImmediately, Ack: body.Ack, Errors: map[string]string{}}
	for jti, e := range body.Errors {
		// An error without a code is one all the same.
		if req.Errors[jti] = e.Err; e.Err == "" {
			req.Errors[jti] = signals.InvalidRequest
		}
	}
	if p.Draining != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(p.Draining, cancel)()
	}
	answer, err := p.Signals.Poll(ctx, c, r.PathValue("stream"), req)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, answer, nil
}

// ssfReceive takes one event of another transmitter. It is the event's signature that
// authenticates, so that there is no token.
func (p *public) ssfReceive(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cache-Control", "no-store")
	transmitter := r.PathValue("transmitter")
	set, err := readBody(w, r, mediaSET, maxAsk)
	if err == nil {
		err = p.Signals.Receive(r.Context(), transmitter, string(set), p.Source(r))
	}
	if err == nil {
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	code := signals.ErrorCode(err)
	if code == "" || counterfoil.CodeOf(err) == counterfoil.PayloadTooLarge {
		return err
	}
	// RFC 8935, Section 2.3. It is counted as every other refusal is.
	refusal, _ := counterfoil.AsRefusal(err)
	p.Authority.Refused(refusal.Recorded())
	p.Tally.Count(refusal.Recorded())
	w.Header().Set("Content-Language", "en")
	writeJSON(w, http.StatusBadRequest, "application/json", map[string]string{"err": code, "description": refusal.Detail})
	return nil
}
