package web

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authority"
)

// tasksTool is what an agent's dealings with its tasks are called in the ledger.
const tasksTool = "counterfoil/tasks"

// taskRoutes are an agent's own tasks, and those of agents that it orchestrates.
func (p *public) taskRoutes(rt *router) {
	at := p.base + counterfoil.TasksPath
	rt.handle(http.MethodPost, at, conflicting(p.withToken(tasksTool, p.openTask)))
	rt.handle(http.MethodGet, at, conflicting(p.withToken(tasksTool, p.listTasks)))
	rt.handle(http.MethodGet, at+"/{id}", conflicting(p.withToken(tasksTool, p.showTask)))
	rt.handle(http.MethodPost, at+"/{id}/complete", conflicting(p.withToken(tasksTool, p.endTask(true))))
	rt.handle(http.MethodPost, at+"/{id}/cancel", conflicting(p.withToken(tasksTool, p.endTask(false))))
}

// conflict is a refusal that is a conflict with the state of what the request is about
// (RFC 9110, Section 15.5.10), whatever its code is elsewhere: of a closed task, not a
// matter of who asks.
type conflict struct{ error }

func (c conflict) Unwrap() error { return c.error }

func conflicting(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		err := h(w, r)
		if err != nil && counterfoil.CodeOf(err) == counterfoil.TaskClosed {
			return conflict{err}
		}
		return err
	}
}

// A task is a task as it is shown.
type task struct {
	ID       string                `json:"id"`
	Agent    string                `json:"agent"`
	Opener   string                `json:"opener"`
	Parent   string                `json:"parent,omitzero"`
	Purpose  string                `json:"purpose"`
	Tools    []counterfoil.ToolID  `json:"tools,omitzero"`
	Opened   time.Time             `json:"opened"`
	Expires  time.Time             `json:"expires_at"`
	MaxCalls int64                 `json:"max_calls,omitzero"`
	Calls    int64                 `json:"calls"`
	Limits   []taskLimit           `json:"limits,omitzero"`
	State    counterfoil.TaskState `json:"state"`
	Closed   time.Time             `json:"closed,omitzero"`
	Reason   string                `json:"reason,omitzero"`
}

type taskLimit struct {
	Class string `json:"class"`
	Sum   string `json:"sum,omitzero"`
	Max   string `json:"max"`  // a decimal
	Used  string `json:"used"` // a decimal
}

func newTask(t *counterfoil.Task) task {
	out := task{
		ID: t.ID, Agent: t.Agent, Opener: t.Opener, Parent: t.Parent, Purpose: t.Purpose, Tools: t.Tools,
		Opened: t.Opened.UTC(), Expires: t.Deadline.UTC(), MaxCalls: t.MaxCalls, Calls: t.Calls, State: t.State, Reason: t.Reason,
	}
	if !t.Closed.IsZero() {
		out.Closed = t.Closed.UTC()
	}
	for _, l := range t.Limits {
		out.Limits = append(out.Limits, taskLimit{l.Class, l.Sum, decimal(l.Max), decimal(l.Used)})
	}
	return out
}

// decimal writes ten-thousandths without zeros that say nothing.
func decimal(units int64) string {
	sign, u := "", uint64(units)
	if units < 0 {
		sign, u = "-", -u
	}
	whole, rest := u/10_000, u%10_000
	s := sign + strconv.FormatUint(whole, 10)
	if rest == 0 {
		return s
	}
	return s + "." + strings.TrimRight(strconv.FormatUint(10_000+rest, 10)[1:], "0")
}

type taskList struct {
	Tasks []task `json:"tasks"`
}

func newTasks(all []counterfoil.Task) taskList {
	out := taskList{Tasks: []task{}}
	for i := range all {
		out.Tasks = append(out.Tasks, newTask(&all[i]))
	}
	return out
}

// openBody asks for a task. What is left out has a default; what is there has to say
// something: a null might be somebody's empty list, and no list is every tool.
type openBody struct {
	Purpose   string                       `json:"purpose"`
	Tools     given[[]string]              `json:"tools"`
	ExpiresIn given[int64]                 `json:"expires_in"` // seconds
	MaxCalls  given[int64]                 `json:"max_calls"`
	Limits    []authority.TaskLimitRequest `json:"limits"`
	Parent    given[string]                `json:"parent"`
	Agent     given[string]                `json:"agent"`
}

// given is an optional member: absent, or not null.
type given[T any] struct {
	value T
	set   bool
}

var errNull = errors.New("null is no value; leave the member out")

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (g *given[T]) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() == 'n' {
		return errNull
	}
	g.set = true
	return json.UnmarshalDecode(dec, &g.value)
}

// maxTaskSeconds is more than any task may last; what is asked for beyond it is cut to
// less than that anyway.
const maxTaskSeconds = int64(counterfoil.MaxTaskLife/time.Second) + 1

func (p *public) openTask(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
	var body openBody
	if err := noQuery(r); err != nil {
		return 0, nil, err
	}
	if err := readJSON(nil, r, maxAsk, &body); err != nil {
		return 0, nil, err
	}
	for name, n := range map[string]given[int64]{"expires_in": body.ExpiresIn, "max_calls": body.MaxCalls} {
		if n.set && n.value < 1 {
			return 0, nil, counterfoil.Refuse(counterfoil.RequestMalformed, "%s is at least 1", name)
		}
	}
	for name, s := range map[string]given[string]{"parent": body.Parent, "agent": body.Agent} {
		if s.set && s.value == "" {
			return 0, nil, counterfoil.Refuse(counterfoil.RequestMalformed, "%s is empty; leave it out", name)
		}
	}
	req := authority.TaskRequest{
		Purpose: body.Purpose, ExpiresIn: time.Duration(min(body.ExpiresIn.value, maxTaskSeconds)) * time.Second, MaxCalls: body.MaxCalls.value,
		Limits: body.Limits, Parent: body.Parent.value, Agent: body.Agent.value, Source: p.Source(r), RequestID: RequestID(ctx),
	}
	if body.Tools.set {
		req.Tools = append([]string{}, body.Tools.value...) // an empty list is not none
	}
	t, err := p.Authority.OpenTask(ctx, c, req)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusCreated, newTask(&t), nil
}

func (p *public) listTasks(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
	if err := noQuery(r); err != nil {
		return 0, nil, err
	}
	all, err := p.Authority.TasksOf(ctx, c)
	return http.StatusOK, newTasks(all), err
}

func (p *public) showTask(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
	if err := noQuery(r); err != nil {
		return 0, nil, err
	}
	t, err := p.Authority.TaskOf(ctx, c, r.PathValue("id"))
	return http.StatusOK, newTask(&t), err
}

// endTask ends a task: with the answer everything that hung on it is void.
func (p *public) endTask(completed bool) func(context.Context, *http.Request, counterfoil.Caller) (int, any, error) {
	return func(ctx context.Context, r *http.Request, c counterfoil.Caller) (int, any, error) {
		var body reasonBody
		if err := noQuery(r); err != nil {
			return 0, nil, err
		}
		if r.ContentLength != 0 {
			if err := readJSON(nil, r, maxAsk, &body); err != nil {
				return 0, nil, err
			}
		}
		t, err := p.Authority.EndTask(ctx, c, r.PathValue("id"), completed, body.Reason)
		return http.StatusOK, newTask(&t), err
	}
}

// noQuery refuses a query string where there is nothing to say in one: no proof covers
// it.
func noQuery(r *http.Request) error {
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "there is nothing to ask in a query string here")
	}
	return nil
}
