package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
)

func (a *app) taskCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "task",
		Short: "Bounded units of an agent's work: open, show, list, complete, cancel",
		Long: `A task is a bounded unit of an agent's work: a purpose, a deadline, limits, and a
grant that is never more than the agent's own. Its tokens, open approvals and streams
end with it. It is no process: a job that was restarted goes on with an open task.

Two may speak here.

  The agent, on its own machine, says who it is with --issuer, --agent and --key. It
  opens tasks, and sees and ends those that it works in or has opened.

  An administrator, on the server's machine, gives no --key: list, show and cancel
  then go through the server's admin socket (--data) and reach every task.`,
		Example: `  counterfoil task open --purpose 'payroll of May' --issuer http://localhost:8420 --agent payroll --key payroll.key
  counterfoil task list`,
	}
	group(c, "task needs a subcommand: open, show, list, complete or cancel",
		a.taskOpenCommand(), a.taskShowCommand(), a.taskListCommand(),
		a.taskEndCommand("complete", "Say that a task's work is done, as its agent: everything of it ends"),
		a.taskEndCommand("cancel", "Take a task back, as its agent or as an administrator: everything of it ends"))
	return a.needsServer(c)
}

// tasks returns the agent's end of its tasks.
func (a *app) tasks(id *identity) (*agent.Tasks, error) {
	if err := id.check(); err != nil {
		return nil, err
	}
	signer, err := a.signer(id)
	if err != nil {
		return nil, err
	}
	return agent.NewTasks(agent.Config{Issuer: id.issuer, Agent: id.agent, Signer: signer, Task: id.task})
}

// taskFlag adds the flag of the commands that work in a task.
func (id *identity) taskFlag(c *cobra.Command) {
	c.Flags().StringVar(&id.task, "task", "", "work in the open task with this `ID`; counterfoil task open makes one")
}

// asTaskFlag is taskFlag of the commands about tasks, where another task is meant than
// the one that they are about.
func (id *identity) asTaskFlag(c *cobra.Command) {
	c.Flags().StringVar(&id.task, "task", "", "speak as one who works in the open task with this `ID`: only it and tasks below it are reached")
}

func (a *app) taskOpenCommand() *cobra.Command {
	var id identity
	var o agent.OpenTask
	var tools, limits []string
	c := &cobra.Command{
		Use:   "open --purpose TEXT [--tools RESOURCE/TOOL,…] [--expires-in TIME] [--max-calls N] [--limit CLASS=MAX…] --issuer URL --agent NAME --key FILE",
		Short: "Open a task, as the agent, and print its id",
		Long: `Opens a task and prints its id, which --task of other commands takes. What is asked
beyond the agent's limits, or the parent's, is cut: the answer says what was given.

--limit payout=3 is at most three calls of the class payout in this task, and
--limit payout:amount=5000 is at most 5000 in all of their field amount.`,
		Example: `  counterfoil task open --purpose 'payroll of May' --tools bank/get_balance,bank/pay --expires-in 30m --max-calls 200 \
    --limit payout:amount=50000 --issuer http://localhost:8420 --agent payroll --key payroll.key`,
		Args: cobra.NoArgs,
		RunE: a.does(func(ctx context.Context, _ []string) error {
			for _, s := range tools {
				tool, err := counterfoil.ParseToolID(s)
				if err != nil {
					return usage("--tools: %v", err)
				}
				o.Tools = append(o.Tools, tool)
			}
			for _, s := range limits {
				l, err := parseTaskLimit(s)
				if err != nil {
					return err
				}
				o.Limits = append(o.Limits, l)
			}
			tasks, err := a.tasks(&id)
			if err != nil {
				return err
			}
			task, err := tasks.Open(ctx, o)
			if err != nil {
				return err
			}
			return a.print(task, func(w io.Writer) {
				fmt.Fprintln(w, task.ID)
				a.note("the task is open until %s%s", task.Expires.Local().Format(time.DateTime), callsLeft(task))
			})
		}),
	}
	id.flags(c)
	c.Flags().StringVar(&o.Purpose, "purpose", "", "what it is for, at most 500 bytes of `text`")
	c.Flags().StringSliceVar(&tools, "tools", nil, "narrow it to these tools, each a `RESOURCE/TOOL`, with commas between; all that are granted when left out")
	c.Flags().DurationVar(&o.Life, "expires-in", 0, "the `time` that it may take, such as 30m; an hour when left out")
	c.Flags().Int64Var(&o.MaxCalls, "max-calls", 0, "the `number` of calls that may be made in it; no bound but the agent's own when left out")
	c.Flags().StringArrayVar(&limits, "limit", nil, "`CLASS=MAX` calls, or CLASS:FIELD=MAX in all (repeatable)")
	c.Flags().StringVar(&o.Parent, "parent", "", "`id` of an open task that it is a part of, and never outlives")
	c.Flags().StringVar(&o.For, "for", "", "another `agent` that is to work in it: its manifest lists this one in tasks.orchestrators")
	id.asTaskFlag(c)
	must(c.MarkFlagRequired("purpose"))
	return c
}

// callsLeft says how many calls a task has.
func callsLeft(t agent.Task) string {
	if t.MaxCalls == 0 {
		return ""
	}
	return fmt.Sprintf(", for %s", counted(int(t.MaxCalls), "call", "calls"))
}

// parseTaskLimit reads CLASS=MAX or CLASS:FIELD=MAX.
func parseTaskLimit(s string) (agent.TaskLimit, error) {
	what, most, ok := strings.Cut(s, "=")
	class, sum, _ := strings.Cut(what, ":")
	if !ok || class == "" || most == "" {
		return agent.TaskLimit{}, usage("--limit: %q is not of the form CLASS=MAX or CLASS:FIELD=MAX", s)
	}
	return agent.TaskLimit{Class: class, Sum: sum, Max: most}, nil
}

// asAgent reports whether the command line speaks as an agent: it names a key.
func (id *identity) asAgent() (bool, error) {
	switch {
	case id.key != "":
		return true, nil
	case id.task != "":
		return false, usage("--task says as which task an agent asks, so it needs --key")
	}
	return false, nil
}

func (a *app) taskShowCommand() *cobra.Command {
	var id identity
	c := &cobra.Command{
		Use: "show ID [--issuer URL --agent NAME --key FILE]", Short: "Show one task, as its agent with --key, else as an administrator",
		Example: "  counterfoil task show tsk_4f2k7q --issuer http://localhost:8420 --agent payroll --key payroll.key\n  counterfoil task show tsk_4f2k7q",
		Args:    cobra.ExactArgs(1),
		RunE: a.does(func(ctx context.Context, args []string) error {
			task, err := a.oneTask(ctx, &id, args[0])
			if err != nil {
				return err
			}
			return a.print(task, func(w io.Writer) { describeTask(w, task) })
		}),
	}
	id.maybe(c)
	return c
}

func (a *app) oneTask(ctx context.Context, id *identity, task string) (agent.Task, error) {
	mine, err := id.asAgent()
	if err != nil {
		return agent.Task{}, err
	}
	if !mine {
		var out agent.Task
		return out, a.admin(ctx, http.MethodGet, "/api/v1/tasks/"+escape(task), nil, &out)
	}
	tasks, err := a.tasks(id)
	if err != nil {
		return agent.Task{}, err
	}
	return tasks.Show(ctx, task)
}

// taskStates are the states of a task.
var taskStates = []string{
	string(counterfoil.TaskOpen), string(counterfoil.TaskCompleted), string(counterfoil.TaskCancelled), string(counterfoil.TaskExpired), string(counterfoil.TaskRevoked),
}

func (a *app) taskListCommand() *cobra.Command {
	var id identity
	var state string
	c := &cobra.Command{
		Use: "list [--state STATE] [--agent NAME] [--issuer URL --key FILE]", Short: "List tasks: an agent's own with --key, else everybody's as an administrator",
		Long: `With --key lists the tasks that the agent works in or has opened. Without it, as an
administrator, lists every agent's, or those that --agent works in.`,
		Example: "  counterfoil task list --state open\n  counterfoil task list --agent payroll\n  counterfoil task list --issuer http://localhost:8420 --agent payroll --key payroll.key",
		Args:    cobra.NoArgs,
		RunE: a.does(func(ctx context.Context, _ []string) error {
			if state != "" && !slices.Contains(taskStates, state) {
				return usage("--state: %q is none of %s", state, strings.Join(taskStates, ", "))
			}
			list, err := a.listTasks(ctx, &id, state)
			if err != nil {
				return err
			}
			return a.print(map[string]any{"tasks": append([]agent.Task{}, list...)}, func(w io.Writer) {
				if len(list) == 0 {
					fmt.Fprintln(w, "no tasks")
					return
				}
				rows := [][]string{{"ID", "STATE", "AGENT", "CALLS", "UNTIL", "PURPOSE"}}
				for _, t := range list {
					rows = append(rows, []string{t.ID, string(t.State), t.Agent, callsOf(t), t.Expires.Local().Format(time.DateTime), visible(t.Purpose)})
				}
				table(w, rows...)
			})
		}),
	}
	id.maybe(c)
	c.Flags().StringVar(&state, "state", "", "only those in this `state`, such as open")
	return c
}

func (a *app) listTasks(ctx context.Context, id *identity, state string) ([]agent.Task, error) {
	mine, err := id.asAgent()
	if err != nil {
		return nil, err
	}
	if !mine {
		return a.adminTasks(ctx, id.agent, state)
	}
	tasks, err := a.tasks(id)
	if err != nil {
		return nil, err
	}
	list, err := tasks.List(ctx)
	return slices.DeleteFunc(list, func(t agent.Task) bool { return state != "" && string(t.State) != state }), err
}

// adminTasks lists tasks through the admin socket.
func (a *app) adminTasks(ctx context.Context, name, state string) ([]agent.Task, error) {
	q := url.Values{}
	for k, v := range map[string]string{"agent": name, "state": state} {
		if v != "" {
			q.Set(k, v)
		}
	}
	var list struct {
		Tasks []agent.Task `json:"tasks"`
	}
	err := a.admin(ctx, http.MethodGet, "/api/v1/tasks?"+q.Encode(), nil, &list)
	return list.Tasks, err
}

// callsOf says how many calls were made, of how many.
func callsOf(t agent.Task) string {
	if t.MaxCalls == 0 {
		return strconv.FormatInt(t.Calls, 10)
	}
	return fmt.Sprintf("%d of %d", t.Calls, t.MaxCalls)
}

func describeTask(w io.Writer, t agent.Task) {
	rows := [][]string{{"task", t.ID}, {"state", string(t.State)}, {"purpose", visible(t.Purpose)}, {"agent", t.Agent}}
	if t.Opener != t.Agent {
		rows = append(rows, []string{"opened by", t.Opener})
	}
	if t.Parent != "" {
		rows = append(rows, []string{"part of", t.Parent})
	}
	tools := "all that is granted"
	if t.Parent != "" {
		tools = "all of the task that it is a part of"
	}
	if len(t.Tools) > 0 {
		var names []string
		for _, tool := range t.Tools {
			names = append(names, tool.String())
		}
		tools = strings.Join(names, ", ")
	}
	rows = append(rows, []string{"tools", tools}, []string{"calls", callsOf(t)})
	for _, l := range t.Limits {
		of := "calls of " + l.Class
		if l.Sum != "" {
			of = l.Sum + " of " + l.Class
		}
		rows = append(rows, []string{"limit", fmt.Sprintf("%s: %s of %s", visible(of), l.Used, l.Max)})
	}
	rows = append(rows, []string{"opened", t.Opened.Local().Format(time.DateTime)}, []string{"until", t.Expires.Local().Format(time.DateTime)})
	if !t.Closed.IsZero() {
		rows = append(rows, []string{"closed", t.Closed.Local().Format(time.DateTime)})
	}
	if t.Reason != "" {
		rows = append(rows, []string{"reason", visible(t.Reason)})
	}
	table(w, rows...)
}

func (a *app) taskEndCommand(verb, short string) *cobra.Command {
	var id identity
	var reason string
	admin := verb == "cancel"
	use := verb + " ID [--reason TEXT] --issuer URL --agent NAME --key FILE"
	example := fmt.Sprintf("  counterfoil task %s tsk_4f2k7q --issuer http://localhost:8420 --agent payroll --key payroll.key", verb)
	if admin {
		use = verb + " ID [--reason TEXT] [--issuer URL --agent NAME --key FILE]"
		example += "\n  counterfoil task cancel tsk_4f2k7q --reason 'wrong month'"
	}
	c := &cobra.Command{
		Use: use, Short: short, Example: example, Args: cobra.ExactArgs(1),
		RunE: a.does(func(ctx context.Context, args []string) error {
			task, err := a.endTask(ctx, &id, args[0], verb, reason)
			if err != nil {
				return err
			}
			return a.print(task, func(w io.Writer) {
				fmt.Fprintf(w, "task %s is %s: its tokens, open approvals and streams are void\n", task.ID, task.State)
			})
		}),
	}
	if admin {
		id.maybe(c)
	} else {
		id.flags(c)
		id.asTaskFlag(c)
	}
	c.Flags().StringVar(&reason, "reason", "", "`text` that says why, for the ledger")
	return c
}

func (a *app) endTask(ctx context.Context, id *identity, task, verb, reason string) (agent.Task, error) {
	mine, err := id.asAgent()
	if err != nil {
		return agent.Task{}, err
	}
	if !mine {
		var out agent.Task
		return out, a.admin(ctx, http.MethodPost, "/api/v1/tasks/"+escape(task)+"/"+verb, map[string]any{"reason": reason}, &out)
	}
	tasks, err := a.tasks(id)
	switch {
	case err != nil:
		return agent.Task{}, err
	case verb == "complete":
		return tasks.Complete(ctx, task, reason)
	}
	return tasks.Cancel(ctx, task, reason)
}

// A working is the task that a connector works in.
type working struct {
	app   *app
	tasks *agent.Tasks
	task  agent.Task
	own   bool // the connector opened it, and ends it
}

// enter opens a task for a purpose, or finds the one that is to be gone on with, and
// makes the identity work in it. Without either it returns nil.
func (a *app) enter(ctx context.Context, id *identity, purpose string, life time.Duration) (*working, error) {
	if purpose == "" && id.task == "" {
		return nil, nil
	}
	if strings.HasPrefix(purpose, "tsk_") {
		return nil, usage("--task takes the purpose of a new task; --task-id %s goes on with one that is open", purpose)
	}
	outer := *id
	outer.task = ""
	tasks, err := a.tasks(&outer)
	if err != nil {
		return nil, err
	}
	w := &working{app: a, tasks: tasks, own: purpose != ""}
	if w.own {
		w.task, err = tasks.Open(ctx, agent.OpenTask{Purpose: purpose, Life: life})
	} else if w.task, err = tasks.Show(ctx, id.task); err == nil && w.task.State != counterfoil.TaskOpen {
		err = counterfoil.Refuse(counterfoil.TaskClosed, "the task is %s", w.task.State)
	}
	if err != nil {
		return nil, err
	}
	id.task = w.task.ID
	a.note("working in task %s until %s", w.task.ID, w.task.Expires.Local().Format(time.DateTime))
	return w, nil
}

// leave ends the task that the connector opened: completed when the work ended as it
// should, cancelled when it never began. Otherwise the task stays open, so that who
// comes back can go on with it. It returns what the command ends with.
func (w *working) leave(ctx context.Context, began bool, why error) error {
	if w == nil || !w.own || counterfoilCode(why) == counterfoil.TaskClosed {
		return why
	}
	// The command was interrupted, and this is a part of its end.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	var err error
	switch {
	case why == nil:
		_, err = w.tasks.Complete(ctx, w.task.ID, "")
	case !began:
		_, err = w.tasks.Cancel(ctx, w.task.ID, "the connector did not start")
	default:
		w.stays()
		return why
	}
	if counterfoilCode(err) == counterfoil.TaskClosed {
		w.app.note("task %s was closed already", w.task.ID)
		err = nil
	} else if err != nil {
		w.stays()
	}
	return errors.Join(why, err)
}

func (w *working) stays() {
	w.app.note("task %s stays open until %s; --task-id %s goes on with it", w.task.ID, w.task.Expires.Local().Format(time.DateTime), w.task.ID)
}

// counterfoilCode is the code of an error, empty for none.
func counterfoilCode(err error) counterfoil.Code {
	if err == nil {
		return ""
	}
	return counterfoil.CodeOf(err)
}
