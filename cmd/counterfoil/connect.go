package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterfoil/counterfoil/agent"
)

func (a *app) connectCommand() *cobra.Command {
	var id identity
	var how connecting
	c := &cobra.Command{
		Use:   "connect --issuer URL --agent NAME --key FILE --resource NAME [--task PURPOSE | --task-id ID] [--wait 50s] (--listen 127.0.0.1:PORT | --unix PATH | --stdio)",
		Short: "Let an unmodified MCP client or HTTP program use a resource as the agent",
		Long: `Runs the local connector: an MCP client or HTTP program that knows nothing of tokens
and proofs talks to it, and every request leaves with a bound token and a fresh
proof by the instance's key.

--listen takes a loopback address only (port 0 picks a free one) and serves under
a random path, printed as "ready url=…": keep that URL as you would a password,
for without it every local user would be the agent.

A call that people have to approve is refused at once with the approval's id, and
the same call, repeated after they signed, runs once. With --wait the connector does
the repeating: it holds the client's call for that long, tells progress to a client
that asked for it, and sends the call again once people decided. When the time is
over the client gets the refusal; the approval stays.

Of an HTTP API everything below the printed URL is the API: its paths, its answers and
its streams. Of a request's headers those that belong to a call are passed on, and with
--header those that the tool takes beside; cookies and logins of the program stay here.

With --task the connector opens a task, works in it, and completes it when it ends as
it should; when it dies instead the task stays open until its deadline, and --task-id
goes on with it, on any machine that has a key of the agent. A task that is closed
meanwhile ends the connector with 1 and task_closed.`,
		Example: `  counterfoil connect --issuer http://localhost:8420 --agent payroll --key payroll.key --resource bank --listen 127.0.0.1:0 --wait 50s
  claude mcp add bank -- counterfoil connect --issuer http://localhost:8420 --agent payroll --key payroll.key --resource bank --stdio
  counterfoil connect --issuer http://localhost:8420 --agent payroll --key payroll.key --resource crm --listen 127.0.0.1:0`,
		Args: cobra.NoArgs,
	}
	id.flags(c)
	c.Flags().StringVar(&how.resource, "resource", "", "the resource's `name` or URL")
	c.Flags().StringVar(&how.listen, "listen", "", "serve on this loopback `address`")
	c.Flags().StringVar(&how.unix, "unix", "", "serve on a new unix socket at this `path` (mode 0600)")
	c.Flags().StringArrayVar(&how.headers, "header", nil, "of an HTTP API: also pass on this request header, by `name`")
	c.Flags().BoolVar(&how.stdio, "stdio", false, "speak MCP on standard input and output")
	c.Flags().StringVar(&how.purpose, "task", "", "open a task for this `PURPOSE`, work in it, and complete it at the end")
	c.Flags().StringVar(&id.task, "task-id", "", "work in the open task with this `ID`, and leave it open at the end")
	c.Flags().DurationVar(&how.life, "expires-in", 0, "with --task: how long it may take, an hour when left out")
	waitFlag(c, &how.wait)
	c.MarkFlagsMutuallyExclusive("task", "task-id")
	must(c.MarkFlagRequired("resource"))
	c.MarkFlagsMutuallyExclusive("listen", "unix", "stdio")
	c.MarkFlagsOneRequired("listen", "unix", "stdio")
	c.RunE = a.does(func(ctx context.Context, _ []string) error {
		if err := a.checkWait(how.wait); err != nil {
			return err
		}
		if how.life != 0 && how.purpose == "" {
			return usage("--expires-in goes with --task: it is for a task that is opened")
		}
		work, err := a.enter(ctx, &id, how.purpose, how.life)
		if err != nil {
			return err
		}
		began, err := a.connect(ctx, &id, how)
		return work.leave(ctx, began, err)
	})
	return c
}

// connecting is how a connector serves, beside as whom.
type connecting struct {
	resource, listen, unix string
	stdio                  bool
	headers                []string // that are passed on beside the usual ones
	wait                   time.Duration
	purpose                string // of the task to open; empty for none
	life                   time.Duration
}

// connect serves until ctx or the client ends it. It reports whether it began to.
func (a *app) connect(ctx context.Context, id *identity, how connecting) (began bool, err error) {
	t, _, err := a.transport(id, how.resource, nil)
	if err != nil {
		return false, err
	}
	connector, err := agent.NewConnector(agent.ConnectorConfig{
		Transport: t, Wait: how.wait, Headers: how.headers,
		Log: slog.New(slog.NewTextHandler(a.streams.err, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return false, err
	}
	if how.stdio {
		return true, connector.Stdio(ctx, a.in, a.out)
	}
	var ln net.Listener
	if how.unix != "" {
		ln, err = agent.ListenUnix(how.unix)
	} else {
		ln, err = agent.Listen(how.listen)
	}
	if err != nil {
		return false, err
	}
	// The first token shows at once what an operator would otherwise find
	// out from a client's error.
	if _, err := t.Token(ctx); err != nil {
		ln.Close()
		return false, err
	}
	if how.unix != "" {
		fmt.Fprintf(a.out, "ready unix=%s\n", how.unix)
	} else {
		fmt.Fprintf(a.out, "ready url=%s\n", connector.URL(ln))
	}
	return true, connector.Serve(ctx, ln)
}

// mostWait is the longest wait that leaves an MCP client's 60 seconds alone.
const mostWait = 55 * time.Second

// waitFlag adds --wait.
func waitFlag(c *cobra.Command, wait *time.Duration) {
	c.Flags().DurationVar(wait, "wait", 0, "hold a call that people have to approve for this `time` (50s suits MCP clients); 0 gives the refusal at once")
}

// checkWait refuses what is no wait and warns of one that outlasts clients.
func (a *app) checkWait(wait time.Duration) error {
	if wait < 0 {
		return usage("--wait: %v is less than nothing", wait)
	}
	if wait > mostWait {
		a.note("warning: most MCP clients give a call up after 60 seconds; with --wait %v they do so before the answer", wait)
	}
	return nil
}
