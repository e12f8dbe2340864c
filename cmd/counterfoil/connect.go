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
	var resource, listen, unix string
	var stdio bool
	var wait time.Duration
	c := &cobra.Command{
		Use:   "connect --issuer URL --agent NAME --key FILE --resource NAME [--wait 50s] (--listen 127.0.0.1:PORT | --unix PATH | --stdio)",
		Short: "Let an unmodified MCP client use a resource as the agent",
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
over the client gets the refusal; the approval stays.`,
		Example: `  counterfoil connect --issuer http://localhost:8420 --agent payroll --key payroll.key --resource bank --listen 127.0.0.1:0 --wait 50s
  claude mcp add bank -- counterfoil connect --issuer http://localhost:8420 --agent payroll --key payroll.key --resource bank --stdio`,
		Args: cobra.NoArgs,
	}
	id.flags(c)
	c.Flags().StringVar(&resource, "resource", "", "the resource's `name` or URL")
	c.Flags().StringVar(&listen, "listen", "", "serve on this loopback `address`")
	c.Flags().StringVar(&unix, "unix", "", "serve on a new unix socket at this `path` (mode 0600)")
	c.Flags().BoolVar(&stdio, "stdio", false, "speak MCP on standard input and output")
	waitFlag(c, &wait)
	must(c.MarkFlagRequired("resource"))
	c.MarkFlagsMutuallyExclusive("listen", "unix", "stdio")
	c.MarkFlagsOneRequired("listen", "unix", "stdio")
	c.RunE = a.does(func(ctx context.Context, _ []string) error {
		if err := a.checkWait(wait); err != nil {
			return err
		}
		t, _, err := id.transport(resource, nil)
		if err != nil {
			return err
		}
		connector, err := agent.NewConnector(agent.ConnectorConfig{
			Transport: t, Wait: wait,
			Log: slog.New(slog.NewTextHandler(a.streams.err, &slog.HandlerOptions{Level: slog.LevelWarn})),
		})
		if err != nil {
			return err
		}
		if stdio {
			return connector.Stdio(ctx, a.in, a.out)
		}
		var ln net.Listener
		if unix != "" {
			ln, err = agent.ListenUnix(unix)
		} else {
			ln, err = agent.Listen(listen)
		}
		if err != nil {
			return err
		}
		// The first token shows at once what an operator would otherwise find
		// out from a client's error.
		if _, err := t.Token(ctx); err != nil {
			ln.Close()
			return err
		}
		if unix != "" {
			fmt.Fprintf(a.out, "ready unix=%s\n", unix)
		} else {
			fmt.Fprintf(a.out, "ready url=%s\n", connector.URL(ln))
		}
		return connector.Serve(ctx, ln)
	})
	return c
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
