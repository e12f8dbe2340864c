package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/ijson"
)

// maxShown is the largest answer that --json shows.
const maxShown = 16 << 20

// httpCall is a call of a tool of an http resource: the request that it is.
type httpCall struct {
	path    string // below the resource, with the query
	method  string
	data    string // the body, "@FILE" or "-"; empty: none
	headers []string
}

func (h *httpCall) flags(c *cobra.Command) {
	c.Flags().StringVar(&h.path, "path", "", "of an HTTP API: the request's `path` and query, such as /customers/7?fields=name")
	c.Flags().StringVar(&h.method, "method", "", "with --path: the request's `method`; GET, or POST with --data")
	c.Flags().StringVar(&h.data, "data", "", "with --path: the request's `body`; @FILE is a file's content, - standard input's")
	c.Flags().StringArrayVar(&h.headers, "header", nil, "with --path: a request header that the tool takes, as `'Name: value'`")
	c.MarkFlagsMutuallyExclusive("args", "path")
}

// check refuses flags that do not go together.
func (h *httpCall) check() error {
	switch {
	case h.path == "" && (h.method != "" || h.data != "" || len(h.headers) > 0):
		return usage("--method, --data and --header go with --path: they are of a tool of an HTTP API")
	case h.path != "" && (!strings.HasPrefix(h.path, "/") || strings.ContainsAny(h.path, "# ")):
		return usage("--path: %.80q must begin with a slash and be written as it goes over the wire", h.path)
	}
	return nil
}

// request makes the request to the tool at url.
func (h *httpCall) request(ctx context.Context, a *app, at string) (*http.Request, error) {
	body, err := a.body(h.data)
	if err != nil {
		return nil, err
	}
	method := h.method
	switch {
	case method == "" && h.data == "":
		method = http.MethodGet
	case method == "":
		method = http.MethodPost
	}
	target := strings.TrimSuffix(at, "/") + h.path
	if _, err := url.Parse(target); err != nil {
		return nil, usage("--path: %.80q cannot be read", h.path)
	}
	r, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, usage("--method: %.20q is none", method)
	}
	if h.data == "" {
		r.Body, r.GetBody, r.ContentLength = http.NoBody, func() (io.ReadCloser, error) { return http.NoBody, nil }, 0
	} else {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, line := range h.headers {
		name, value, ok := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return nil, usage("--header: %.20q… is not 'Name: value'", name)
		}
		r.Header.Set(name, strings.TrimSpace(value))
	}
	return r, nil
}

// body reads what --data names.
func (a *app) body(data string) ([]byte, error) {
	file, isFile := strings.CutPrefix(data, "@")
	switch {
	case data == "-":
		b, err := io.ReadAll(a.in)
		if err != nil {
			return nil, fmt.Errorf("reading the body: %w", err)
		}
		return b, nil
	case isFile:
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading the body: %w", err)
		}
		return b, nil
	}
	return []byte(data), nil
}

// callHTTP makes one request to a tool of an http resource, with a token for that tool
// alone: a path that is another tool's is refused.
func (a *app) callHTTP(ctx context.Context, id identity, tool counterfoil.ToolID, h *httpCall, how calling) error {
	t, at, err := a.transport(&id, tool.Resource, []string{tool.Tool})
	if err != nil {
		return err
	}
	r, err := h.request(ctx, a, at)
	if err != nil {
		return err
	}
	if how.key != "" {
		r.Header.Set("Idempotency-Key", how.key)
	}
	resp, err := agent.NewWaiter(agent.WaitConfig{Transport: t, Wait: how.wait}).RoundTrip(r)
	if err != nil {
		return fmt.Errorf("calling %s: %w", tool, err)
	}
	defer resp.Body.Close()
	if err := refusedCall(resp); err != nil {
		return err
	}
	if resp.Header.Get("Counterfoil-Repeated") != "" {
		a.note("this call was made before, and not again; this is its answer")
	}
	if resp.StatusCode >= http.StatusBadRequest {
		a.code = exitFailed
	}
	if a.json {
		return a.showAnswer(resp)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		a.note("%s answered %s", tool, resp.Status)
	}
	if at := resp.Header.Get("Location"); at != "" {
		a.note("location: %s", at)
	}
	if _, err := io.Copy(a.out, resp.Body); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return nil
}

// refusedCall returns the refusal or the fault that an answer is, with its approval. The
// body of every other answer is still there.
func refusedCall(resp *http.Response) error {
	if media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || media != counterfoil.ProblemMedia {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	var told struct {
		Code     counterfoil.Code            `json:"code"`
		Detail   string                      `json:"detail"`
		Approval *counterfoil.ApprovalStatus `json:"approval"`
	}
	rest := resp.Body
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(b), rest), rest}
	if ijson.UnmarshalLax(b, &told) != nil || told.Code == "" || told.Code.Wire().Code != told.Code {
		return nil // a problem of the API's own
	}
	if told.Code.Wire().Fault {
		return problemOf(resp)
	}
	return &counterfoil.Refusal{Code: told.Code, Detail: told.Detail, Approval: told.Approval}
}

// showAnswer prints an answer as JSON.
func (a *app) showAnswer(resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxShown+1))
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if len(b) > maxShown {
		return errors.New("the answer is too large for --json; without it every answer is passed on")
	}
	out := map[string]any{"status": resp.StatusCode, "headers": resp.Header}
	switch {
	case ijson.Check(b) == nil:
		out["body"] = jsontext.Value(b)
	case utf8.Valid(b):
		out["text"] = string(b)
	default:
		out["bytes"] = b // base64
	}
	return a.print(out, nil)
}
