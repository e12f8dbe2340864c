package outbound

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Fetch sends one request and returns what came back: the status, the headers and the
// whole body, of at most so many bytes; zero is 64 KiB. The URL is checked and the
// address judged; no redirect is followed, it is an answer like others. All of it takes
// five seconds at most, or as long as ctx lives. An answer that is longer, or encoded,
// is an error; errors hold no URL, and are ErrRefused where trying again is of no use.
// The header is not kept or changed; User-Agent is set where it is absent.
func (g *Guard) Fetch(ctx context.Context, t Trust, method, to string, header http.Header, body []byte, most int64) (int, http.Header, []byte, error) {
	if most == 0 {
		most = mostDefault
	}
	if err := g.CheckURL(t, to); err != nil {
		return 0, nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, g.time())
	defer cancel()
	var sent io.Reader = http.NoBody
	if len(body) > 0 {
		sent = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, to, sent)
	if err != nil {
		return 0, nil, nil, errors.New("making the request")
	}
	if req.Header = header.Clone(); req.Header == nil {
		req.Header = http.Header{}
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "counterfoil")
	}
	// A transport of its own, which keeps nothing: a connection that another exchange
	// left behind would carry this one without its address having been judged.
	tr := g.Transport(t)
	tr.DisableKeepAlives = true
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return resp.StatusCode, resp.Header, nil, errors.New("the answer is encoded, which was not asked for")
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	switch {
	case err != nil:
		return resp.StatusCode, resp.Header, nil, fmt.Errorf("reading the answer: %w", err)
	case int64(len(answer)) > most:
		return resp.StatusCode, resp.Header, nil, fmt.Errorf("the answer is longer than %d bytes", most)
	}
	return resp.StatusCode, resp.Header, answer, nil
}
