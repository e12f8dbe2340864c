package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) changeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "change",
		Short: "Changes that wait for two people, or for their time: list, withdraw",
		Long: `What widens who may approve an irreversible class, or lessens what needs approval,
waits: for two of the present approvers, or for 24 hours. One no ends it. Applying
the manifest as it was before does not take such a change back; withdrawing does.`,
		Example: "  counterfoil change list\n  counterfoil change withdraw prp_…",
	}
	group(c, "change needs a subcommand: list or withdraw",
		a.changeListCommand(), a.changeWithdrawCommand())
	return a.needsServer(c)
}

// waitingChange is a change of the registry that is not in force yet.
type waitingChange struct {
	ID        string    `json:"id"`
	Verb      string    `json:"verb"`
	Actor     string    `json:"actor"`
	Approval  string    `json:"approval,omitzero"`
	Created   time.Time `json:"created"`
	Effective time.Time `json:"effective"`
	Why       []string  `json:"why"`
}

func (a *app) changeListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the changes that wait", Example: "  counterfoil change list --json", Args: cobra.NoArgs,
		RunE: a.does(func(ctx context.Context, _ []string) error {
			var list struct {
				Changes []waitingChange `json:"changes"`
			}
			if err := a.admin(ctx, http.MethodGet, "/api/v1/changes", nil, &list); err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) {
				if len(list.Changes) == 0 {
					fmt.Fprintln(w, "no change waits")
					return
				}
				for _, c := range list.Changes {
					fmt.Fprintf(w, "%s  %s by %s, takes effect %s", c.ID, c.Verb, c.Actor, c.Effective.UTC().Format(time.RFC3339))
					if c.Approval != "" {
						fmt.Fprintf(w, ", approval %s", c.Approval)
					}
					fmt.Fprintln(w)
					for _, why := range c.Why {
						fmt.Fprintf(w, "  %s\n", why)
					}
				}
			})
		}),
	}
}

func (a *app) changeWithdrawCommand() *cobra.Command {
	return &cobra.Command{
		Use: "withdraw ID", Short: "Take a change back that waits", Example: "  counterfoil change withdraw prp_…", Args: cobra.ExactArgs(1),
		RunE: a.does(func(ctx context.Context, args []string) error {
			var done struct {
				ID string `json:"id"`
			}
			if err := a.admin(ctx, http.MethodDelete, "/api/v1/changes/"+escape(args[0]), nil, &done); err != nil {
				return err
			}
			return a.print(done, func(w io.Writer) { fmt.Fprintf(w, "withdrew %s; it changes nothing\n", done.ID) })
		}),
	}
}
