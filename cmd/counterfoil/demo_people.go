package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/testkit/passkey"
)

// A demoPerson is one of the demo's people: a browser with a passkey in software,
// which says to the management API what a real one would. It lives in the demo's
// process and ends with it.
type demoPerson struct {
	name    string
	console string
	device  *passkey.Authenticator
	client  *http.Client // keeps the session's cookie
}

// newDemoPerson enrols a passkey at a console with a one-time code and logs in with it.
func newDemoPerson(ctx context.Context, console, name, code string) (*demoPerson, error) {
	u, err := url.Parse(console)
	if err != nil {
		return nil, fmt.Errorf("reading the console's address: %w", err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, fmt.Errorf("making a browser: %w", err)
	}
	p := &demoPerson{name: name, console: console, device: passkey.New(u.Hostname(), console), client: &http.Client{Jar: jar}}
	options, err := p.post(ctx, "/api/v1/enrolments/options", map[string]any{"code": code})
	if err != nil {
		return nil, err
	}
	if _, err := p.post(ctx, "/api/v1/enrolments", map[string]any{"code": code, "credential": jsontext.Value(p.device.Create(options))}); err != nil {
		return nil, err
	}
	return p, p.login(ctx)
}

// login begins a session.
func (p *demoPerson) login(ctx context.Context) error {
	options, err := p.post(ctx, "/api/v1/sessions/options", map[string]any{})
	if err != nil {
		return err
	}
	_, err = p.post(ctx, "/api/v1/sessions", map[string]any{"credential": jsontext.Value(p.device.Get(options))})
	return err
}

// post sends what a page's script sends. A refusal is an error.
func (p *demoPerson) post(ctx context.Context, path string, in any) ([]byte, error) {
	b, err := ijson.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("encoding the request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.console+path, bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Origin", p.console)
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking the console: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		return nil, problemOf(resp)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("reading the console's answer: %w", err)
	}
	return body, nil
}

// decide signs a decision on an approval. A refusal is the reply, any other failure
// an error.
func (p *demoPerson) decide(ctx context.Context, id, decision, reason string) (reply, error) {
	in := map[string]any{"decision": decision}
	if reason != "" {
		in["reason"] = reason
	}
	path := "/api/v1/approvals/" + id
	options, err := p.post(ctx, path+"/challenge", in)
	if err == nil {
		in["credential"] = jsontext.Value(p.device.Get(options))
		options, err = p.post(ctx, path+"/signatures", in)
	}
	var refusal *counterfoil.Refusal
	if errors.As(err, &refusal) {
		return reply{code: refusal.Code, text: refusal.Detail}, nil
	}
	if err != nil {
		return reply{}, err
	}
	var state struct {
		State string `json:"state"`
	}
	if err := ijson.UnmarshalLax(options, &state); err != nil {
		return reply{}, fmt.Errorf("reading the console's answer: %w", err)
	}
	return reply{code: allowed, text: "the approval is " + state.State}, nil
}
