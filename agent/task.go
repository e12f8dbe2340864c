package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// A Task is a bounded unit of work as the issuer tells it. What an agent may do in
// it ends with it.
type Task struct {
	ID      string `json:"id"`
	Agent   string `json:"agent"`  // who works in it
	Opener  string `json:"opener"` // the agent that opened it
	Parent  string `json:"parent,omitzero"`
	Purpose string `json:"purpose"`

	Tools    []counterfoil.ToolID  `json:"tools,omitzero"` // none: all that is granted
	Opened   time.Time             `json:"opened"`
	Expires  time.Time             `json:"expires_at"`
	MaxCalls int64                 `json:"max_calls,omitzero"` // zero: any number
	Calls    int64                 `json:"calls"`
	Limits   []TaskLimit           `json:"limits,omitzero"`
	State    counterfoil.TaskState `json:"state"`
	Closed   time.Time             `json:"closed,omitzero"`
	Reason   string                `json:"reason,omitzero"`
}

// A TaskLimit bounds what the calls of a class come to in one task: their number,
// or the sum of a field.
type TaskLimit struct {
	Class string `json:"class"`
	Sum   string `json:"sum,omitzero"`  // the field; empty: the number of calls
	Max   string `json:"max"`           // a decimal
	Used  string `json:"used,omitzero"` // a decimal; the issuer's word, never sent
}

// An OpenTask is what a new task is asked for with. The issuer cuts what goes beyond
// the agent's limits or the parent's; its answer has what was given.
type OpenTask struct {
	Purpose  string
	Tools    []counterfoil.ToolID // none: all that is granted
	Life     time.Duration        // in whole seconds; zero: the issuer's own
	MaxCalls int64                // zero: as many as the agent may
	Limits   []TaskLimit
	Parent   string // a task that it is a part of
	For      string // who works in it; empty: the agent itself
}

// Tasks opens, shows and ends tasks at the issuer. With Config.Task it does so as
// that task, and reaches nothing but it and those below. It is safe for concurrent
// use.
type Tasks struct {
	transport *Transport
	http      *http.Client
	endpoint  string
}

// NewTasks checks the configuration. Its Resource and Scope do not count: the
// resource is the issuer itself. It sends nothing.
func NewTasks(c Config) (*Tasks, error) {
	c.Resource, c.Scope, c.Details = c.Issuer, nil, nil
	t, err := NewTransport(c)
	if err != nil {
		return nil, err
	}
	return &Tasks{transport: t, http: t.Client(), endpoint: strings.TrimSuffix(c.Issuer, "/") + counterfoil.TasksPath}, nil
}

// Open opens a task. After an error that is no refusal it may be open all the same,
// until its deadline: List shows it.
func (t *Tasks) Open(ctx context.Context, o OpenTask) (Task, error) {
	in := struct {
		Purpose  string               `json:"purpose"`
		Tools    []counterfoil.ToolID `json:"tools,omitzero"`
		Life     int64                `json:"expires_in,omitzero"`
		MaxCalls int64                `json:"max_calls,omitzero"`
		Limits   []TaskLimit          `json:"limits,omitzero"`
		Parent   string               `json:"parent,omitzero"`
		Agent    string               `json:"agent,omitzero"`
	}{o.Purpose, o.Tools, int64(o.Life / time.Second), o.MaxCalls, o.Limits, o.Parent, o.For}
	var out Task
	if err := t.ask(ctx, http.MethodPost, "", in, http.StatusCreated, &out); err != nil {
		return Task{}, fmt.Errorf("opening a task: %w", err)
	}
	if !isTaskID(out.ID) || out.Expires.IsZero() {
		return Task{}, errors.New("opening a task: the issuer's answer names none")
	}
	return out, nil
}

// Show returns one task: the agent's own, or one that it opened.
func (t *Tasks) Show(ctx context.Context, id string) (Task, error) {
	var out Task
	if err := t.one(ctx, http.MethodGet, id, "", nil, &out); err != nil {
		return Task{}, fmt.Errorf("looking at task %q: %w", id, err)
	}
	return out, nil
}

// List returns the agent's tasks and those that it opened, as far as the issuer
// lists them.
func (t *Tasks) List(ctx context.Context) ([]Task, error) {
	var out struct {
		Tasks []Task `json:"tasks"`
	}
	if err := t.ask(ctx, http.MethodGet, "", nil, http.StatusOK, &out); err != nil {
		return nil, fmt.Errorf("listing tasks: %w", err)
	}
	return out.Tasks, nil
}

// Complete ends a task whose work is done, and with it every token, every open
// approval and every stream of it, and the tasks below.
func (t *Tasks) Complete(ctx context.Context, id, reason string) (Task, error) {
	return t.end(ctx, id, "complete", counterfoil.TaskCompleted, reason)
}

// Cancel ends a task whose work is not wanted any more. What it ends is the same.
func (t *Tasks) Cancel(ctx context.Context, id, reason string) (Task, error) {
	return t.end(ctx, id, "cancel", counterfoil.TaskCancelled, reason)
}

// end ends a task. An answer that was lost is asked for: a task ends once, and the
// one who ended it must not be told that it was closed already.
func (t *Tasks) end(ctx context.Context, id, verb string, to counterfoil.TaskState, reason string) (Task, error) {
	in := struct {
		Reason string `json:"reason,omitzero"`
	}{reason}
	var out Task
	err := t.one(ctx, http.MethodPost, id, "/"+verb, in, &out)
	if err != nil && !final(err) && ctx.Err() == nil {
		var now Task
		switch look := t.one(ctx, http.MethodGet, id, "", nil, &now); {
		case look == nil && now.State == to:
			return now, nil
		case look == nil && now.State == counterfoil.TaskOpen:
			err = t.one(ctx, http.MethodPost, id, "/"+verb, in, &out)
		}
	}
	if err != nil {
		return Task{}, fmt.Errorf("ending task %q: %w", id, err)
	}
	return out, nil
}

// one asks about one task.
func (t *Tasks) one(ctx context.Context, method, id, verb string, in, out any) error {
	if !isTaskID(id) {
		return errors.New("a task's id begins with tsk_ and has letters and digits after it")
	}
	return t.ask(ctx, method, "/"+url.PathEscape(id)+verb, in, http.StatusOK, out)
}

// ask sends one request. The transport sends it again where that is safe; opening
// and ending are sent once.
func (t *Tasks) ask(ctx context.Context, method, path string, in any, want int, out any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var body io.Reader
	if in != nil {
		b, err := ijson.Marshal(in)
		if err != nil {
			return fmt.Errorf("encoding the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, t.endpoint+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := t.http.Do(req)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxMessage+1)) // a list may be long
	err = errors.Join(err, resp.Body.Close())
	switch {
	case err != nil:
		return fmt.Errorf("reading the answer: %w", err)
	case resp.StatusCode != want:
		return refusedBy("the issuer", resp.StatusCode, answer)
	case len(answer) > maxMessage:
		return fmt.Errorf("reading the answer: it is larger than %d bytes", maxMessage)
	}
	if err := ijson.UnmarshalLax(answer, out); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return nil
}

// isTaskID reports whether s may go into a form and a path as a task's id.
func isTaskID(s string) bool {
	rest, ok := strings.CutPrefix(s, "tsk_")
	return ok && rest != "" && len(rest) <= 64 && alphanumeric(rest)
}
