package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/daemon"
)

// maxAnswer bounds what is read of one answer of the server, in bytes.
const maxAnswer = 64 << 20

// admin sends one request over the admin socket and reads the answer into out.
// A refusal of the server comes back as a *counterfoil.Refusal.
func (a *app) admin(ctx context.Context, method, path string, in, out any) error {
	resp, err := a.adminRaw(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the server's answer: %w", err)
	}
	if err := ijson.UnmarshalLax(body, out); err != nil {
		return fmt.Errorf("reading the server's answer: %w", err)
	}
	return nil
}

// adminRaw is admin for an answer that is streamed. The caller closes the body.
func (a *app) adminRaw(ctx context.Context, method, path string, in any) (*http.Response, error) {
	socket, err := daemon.FindSocket(a.data)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}
	var body io.Reader
	if in != nil {
		b, err := ijson.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encoding the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://admin"+path, body)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("no server answers on %s: it was ended or killed; start it with counterfoil serve", socket)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("this user may not open %s: run the command as the server's user", socket)
	case err != nil:
		return nil, fmt.Errorf("asking the server: %w", err)
	case resp.StatusCode >= 400:
		defer resp.Body.Close()
		return nil, problemOf(resp)
	}
	return resp, nil
}

// problemOf reads a problem document (RFC 9457).
func problemOf(resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("reading the server's refusal: %w", err)
	}
	var p struct {
		Code      string   `json:"code"`
		Detail    string   `json:"detail"`
		RequestID string   `json:"request_id"`
		Problems  []string `json:"problems"`
	}
	err = ijson.UnmarshalLax(b, &p)
	switch {
	case err == nil && len(p.Problems) > 0:
		return problems(p.Problems)
	case err != nil || p.Code == "":
		return fmt.Errorf("the server answered %s", resp.Status)
	}
	if counterfoil.Code(p.Code).Wire().Fault {
		return counterfoil.NewFault(counterfoil.Code(p.Code), fmt.Errorf("%s (request %s; the server's log has the cause)", cmp.Or(p.Detail, counterfoil.Code(p.Code).Wire().Meaning), p.RequestID))
	}
	return counterfoil.Refuse(counterfoil.Code(p.Code), "%s", p.Detail)
}

func escape(s string) string { return url.PathEscape(s) }
