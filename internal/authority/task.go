package authority

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/policy"
	"github.com/counterfoil/counterfoil/ledger"
)

// maxPurpose is how long a task's purpose, and any reason that somebody gives, may be
// in bytes; maxTaskTools how many tools a task may list.
const (
	maxPurpose   = 500
	maxTaskTools = 1000
)

// A TaskRequest asks for a task. Nothing in it is verified.
type TaskRequest struct {
	Purpose   string
	Tools     []string      // "resource/tool" each; nil: everything that is granted, of a child everything of its parent
	ExpiresIn time.Duration // counterfoil.DefaultTaskLife when zero
	MaxCalls  int64         // zero: any number
	Limits    []TaskLimitRequest
	Parent    string // empty: none, or the task that the caller's token is of
	Agent     string // who works in it; empty: the caller
	Source    netip.Addr
	RequestID string
}

// A TaskLimitRequest asks for a limit. Max is a decimal: of a sum, of at most four
// places; of calls, whole.
type TaskLimitRequest struct {
	Class string `json:"class"`
	Sum   string `json:"sum,omitzero"`
	Max   string `json:"max"`
}

// OpenTask opens a task for the caller, or for an agent whose manifest names the caller
// as an orchestrator. What goes beyond the agent's grants or its parent's tools is
// refused; a deadline and a number of calls beyond the agent's limits or its parent's
// are cut to them, as the task that is returned says.
//
// Whatever is opened lessens what the agent may do: the grants are the agent's, and
// nothing of the opener's comes with it.
func (a *Authority) OpenTask(ctx context.Context, caller counterfoil.Caller, req TaskRequest) (counterfoil.Task, error) {
	now := a.cfg.Now()
	set, registry, err := a.current()
	if err != nil {
		return counterfoil.Task{}, err
	}
	if err := checkText("purpose", req.Purpose, 1); err != nil {
		return counterfoil.Task{}, err
	}
	agent, err := a.worker(registry, caller, req.Agent)
	if err != nil {
		return counterfoil.Task{}, err
	}
	parents, err := a.parentFor(caller, agent.Name, req.Parent, now)
	if err != nil {
		return counterfoil.Task{}, err
	}
	t := counterfoil.Task{
		ID: counterfoil.NewID(taskPrefix), Agent: agent.Name, Opener: caller.Agent, Instance: caller.Instance, Parent: parents.id(),
		Purpose: req.Purpose, Opened: now.UTC().Truncate(time.Millisecond), State: counterfoil.TaskOpen,
	}
	if t.Tools, err = taskTools(registry, agent, parents, req.Tools); err != nil {
		return counterfoil.Task{}, err
	}
	if t.Deadline, err = deadline(agent, parents, req.ExpiresIn, now); err != nil {
		return counterfoil.Task{}, err
	}
	if t.MaxCalls, err = maxCalls(agent, parents, req.MaxCalls); err != nil {
		return counterfoil.Task{}, err
	}
	if t.Limits, err = taskLimits(registry, req.Limits); err != nil {
		return counterfoil.Task{}, err
	}
	e := taskEntry(ledger.TaskOpened, &t, registry)
	e.RequestID, e.Source, e.PolicyDigest = req.RequestID, source(req.Source), set.Digest()
	e.Source.Environment, e.TokenJTI = caller.Environment, caller.TokenID
	by(e, caller)
	e.Detail["purpose"], e.Detail["deadline"] = t.Purpose, ledger.FormatTime(t.Deadline)
	if len(t.Tools) > 0 {
		e.Detail["tools"] = t.Tools
	}
	if t.MaxCalls > 0 {
		e.Detail["max_calls"] = t.MaxCalls
	}
	if len(t.Limits) > 0 {
		e.Detail["limits"] = req.Limits
	}
	opener := counterfoil.Live{Agent: caller.Agent, Instance: caller.Instance, Epoch: caller.Epoch}
	if err := a.cfg.Store.OpenTask(context.WithoutCancel(ctx), t, opener, e); err != nil {
		return counterfoil.Task{}, err
	}
	return t, nil
}

// checkText checks what somebody writes for others to read: so many bytes at least,
// maxPurpose at most, of visible characters and spaces.
func checkText(what, s string, least int) error {
	invisible := func(r rune) bool { return r == utf8.RuneError || !unicode.IsGraphic(r) }
	switch {
	case len(s) > maxPurpose || len(strings.TrimSpace(s)) < least:
		return counterfoil.Refuse(counterfoil.RequestMalformed, "%s is text of %d to %d bytes", what, least, maxPurpose)
	case strings.ContainsFunc(s, invisible):
		return counterfoil.Refuse(counterfoil.RequestMalformed, "%s has a character that cannot be seen", what)
	}
	return nil
}

// worker returns the agent that is to work in a task. An agent that the caller may not
// open tasks for is as one that is not there.
func (a *Authority) worker(registry *counterfoil.Registry, caller counterfoil.Caller, name string) (*counterfoil.Agent, error) {
	if name == "" {
		name = caller.Agent
	}
	agent := registry.Agents[name]
	if agent == nil || name != caller.Agent && !slices.Contains(agent.Tasks.Orchestrators, caller.Agent) {
		return nil, unknown(counterfoil.KindAgent, name)
	}
	if name != caller.Agent && a.cfg.Store.AgentState(name).Status != counterfoil.Active {
		return nil, unknown(counterfoil.KindAgent, name) // resuming it must not find a task that waits for it
	}
	return agent, nil
}

// parentFor returns the open task that a new one is below, with those above it; empty
// when there is none. It is of the caller's own or of the agent's, and the caller's to
// end. A caller whose token is of a task stays within it.
func (a *Authority) parentFor(caller counterfoil.Caller, agent, parent string, now time.Time) (chain, error) {
	if parent == "" {
		parent = caller.Task
	}
	if parent == "" {
		return nil, nil
	}
	above, ok := counterfoil.TaskChain(a.cfg.Store.LiveTask, parent, now)
	c := chain(above)
	switch {
	case caller.Task != "" && parent != caller.Task && !c.within(caller.Task):
		return nil, counterfoil.Refuse(counterfoil.OutsideTask, "parent is not the task that the token is of, nor below it")
	case !ok || c[0].Agent != caller.Agent && (c[0].Agent != agent || c[0].Opener != caller.Agent):
		return nil, counterfoil.Refuse(counterfoil.TaskClosed, "parent: there is no such open task")
	case len(c) >= counterfoil.MaxTaskDepth:
		return nil, counterfoil.Refuse(counterfoil.LimitExceeded, "tasks are at most %d deep", counterfoil.MaxTaskDepth)
	}
	return c, nil
}

// taskTools returns the tools of a new task. nil asks for all; a child has then what its
// parent lists, as its own list, so that reading the one is enough to know.
func taskTools(registry *counterfoil.Registry, agent *counterfoil.Agent, parents chain, asked []string) ([]counterfoil.ToolID, error) {
	if asked == nil {
		if len(parents) == 0 {
			return nil, nil
		}
		return slices.Clone(parents[0].Tools), nil
	}
	if len(asked) == 0 || len(asked) > maxTaskTools {
		return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "tools names 1 to %d tools; leave it out for all that is granted", maxTaskTools)
	}
	var tools []counterfoil.ToolID
	for _, s := range asked {
		id, err := counterfoil.ParseToolID(s)
		switch {
		case err != nil:
			return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "tools: %v", err)
		case !granted(registry, agent, id):
			return nil, counterfoil.Refuse(counterfoil.ToolNotGranted, "no grant of agent %s covers tool %.200q", agent.Name, s)
		case !parents.covers(id):
			return nil, counterfoil.Refuse(counterfoil.OutsideTask, "the parent does not include tool %.200q", s)
		case !slices.Contains(tools, id):
			tools = append(tools, id)
		}
	}
	return tools, nil
}

// granted reports whether a tool is classified, of the agent's environment and granted
// to it: whether a token for it could be had at all.
func granted(registry *counterfoil.Registry, agent *counterfoil.Agent, id counterfoil.ToolID) bool {
	r := registry.Resources[id.Resource]
	if r == nil || r.Environment != agent.Environment {
		return false
	}
	if t, ok := r.Tool(id.Tool); !ok || t.Class == "" {
		return false
	}
	return slices.ContainsFunc(agent.Grants, func(g counterfoil.Grant) bool { return g.Covers(id) })
}

// deadline is when a new task ends: as asked, and not after what the agent's manifest
// and the parent allow. It is a whole second, as tokens say it.
func deadline(agent *counterfoil.Agent, parents chain, asked time.Duration, now time.Time) (time.Time, error) {
	switch {
	case asked == 0:
		asked = counterfoil.DefaultTaskLife
	case asked < time.Second:
		return time.Time{}, counterfoil.Refuse(counterfoil.RequestMalformed, "expires_in is at least one second")
	}
	most := time.Duration(agent.Tasks.MaxDuration)
	if most <= 0 || most > counterfoil.MaxTaskLife {
		most = counterfoil.MaxTaskLife
	}
	end := now.UTC().Truncate(time.Second).Add(min(asked, most))
	if len(parents) > 0 && parents[0].Deadline.Before(end) {
		end = parents[0].Deadline
	}
	return end, nil
}

// maxCalls is how many calls a new task may make: the least of what is asked for, what
// the agent's manifest says and what the parent may.
func maxCalls(agent *counterfoil.Agent, parents chain, asked int64) (int64, error) {
	if asked < 0 {
		return 0, counterfoil.Refuse(counterfoil.RequestMalformed, "max_calls is at least 1")
	}
	most := asked
	cut := func(n int64) {
		if n > 0 && (most == 0 || n < most) {
			most = n
		}
	}
	cut(int64(agent.Tasks.MaxCalls))
	for _, t := range parents {
		cut(t.MaxCalls)
	}
	return most, nil
}

// taskLimits checks the limits of a new task. A class or a field that is nowhere would
// be a limit that bounds nothing. Its parent's limits need not be repeated: a call uses
// up those of every task above its own.
func taskLimits(registry *counterfoil.Registry, asked []TaskLimitRequest) ([]counterfoil.TaskLimit, error) {
	refuse := func(i int, format string, args ...any) ([]counterfoil.TaskLimit, error) {
		return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "limits[%d]: %s", i, fmt.Sprintf(format, args...))
	}
	if len(asked) > counterfoil.MaxTaskLimits {
		return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "a task has at most %d limits", counterfoil.MaxTaskLimits)
	}
	var limits []counterfoil.TaskLimit
	for i, l := range asked {
		units, ok := policy.ParseUnits(l.Max)
		switch {
		case !ok || units < 0:
			return refuse(i, "max is a decimal of at most four places, and not negative")
		case l.Sum == "" && units%unitsPerCall != 0:
			return refuse(i, "max is a whole number of calls")
		case registry.Classes[l.Class] == nil:
			return refuse(i, "there is no class %.80q", l.Class)
		case l.Sum != "" && !hasField(registry, l.Class, l.Sum):
			return refuse(i, "no tool of class %s has a field %.80q", l.Class, l.Sum)
		case slices.ContainsFunc(limits, func(o counterfoil.TaskLimit) bool { return o.Class == l.Class && o.Sum == l.Sum }):
			return refuse(i, "class %s is limited so twice", l.Class)
		}
		limits = append(limits, counterfoil.TaskLimit{Class: l.Class, Sum: l.Sum, Max: units})
	}
	return limits, nil
}

// unitsPerCall is one call in the ten-thousandths that a TaskLimit counts in.
const unitsPerCall = 10_000

// hasField reports whether a tool of the class has the field.
func hasField(registry *counterfoil.Registry, class, field string) bool {
	for _, r := range registry.Resources {
		for _, t := range r.Tools {
			if _, ok := t.Fields[field]; ok && t.Class == class {
				return true
			}
		}
	}
	return false
}

// taskEntry begins an entry about a task. It is in the history of the agent that works
// in the task, whoever opened it.
func taskEntry(kind ledger.Kind, t *counterfoil.Task, registry *counterfoil.Registry) *ledger.Entry {
	e := &ledger.Entry{Kind: kind, Agent: t.Agent, Task: t.ID, Detail: map[string]any{"opener": t.Opener}}
	if agent := registry.Agents[t.Agent]; agent != nil {
		e.Owner = agent.Owner
	}
	if t.Parent != "" {
		e.Detail["parent"] = t.Parent
	}
	return e
}

// by says in an entry about a task which agent asked for it: in the entry's own words
// when it is the one that works in it, in its detail when not.
func by(e *ledger.Entry, c counterfoil.Caller) {
	if c.Agent == e.Agent {
		e.Instance, e.JKT, e.Binding, e.Epoch = c.Instance, c.JKT, c.Binding, c.Epoch
		return
	}
	e.Detail["by"] = map[string]any{"agent": c.Agent, "instance": c.Instance, "jkt": c.JKT}
}
