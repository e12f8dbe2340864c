package main

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

func (a *app) resourceCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "resource",
		Short:   "The life of resources: resume",
		Long:    "Resources are declared by manifests (counterfoil get resources) and taken out of use by\n'counterfoil revoke resource NAME'.",
		Example: "  counterfoil resource resume bank --reason 'the upstream is clean again'",
		RunE: func(*cobra.Command, []string) error {
			return usage("resource needs a subcommand: resume")
		},
	}
	c.AddCommand(a.resumeCommand("resource", "resources",
		"Let a resource be called again that was revoked; tokens of before stay void",
		"Ends a resource's suspension. Tokens that were given before it stay void; agents get\nnew ones by themselves."))
	return a.needsServer(c)
}

// resumeCommand puts a person or a resource that was revoked back in force.
func (a *app) resumeCommand(kind, plural, short, long string) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "resume NAME", Short: short, Long: long,
		Example: fmt.Sprintf("  counterfoil %s resume NAME --reason 'it was a false alarm'", kind), Args: cobra.ExactArgs(1),
		RunE: a.does(func(ctx context.Context, args []string) error {
			if err := a.admin(ctx, http.MethodPost, "/api/v1/"+plural+"/"+escape(args[0])+"/resume", map[string]any{"reason": reason}, nil); err != nil {
				return err
			}
			return a.print(map[string]any{kind: args[0], "done": "resume"}, func(w io.Writer) {
				fmt.Fprintf(w, "resumed %s %s; what was void stays void\n", kind, args[0])
			})
		}),
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the ledger")
	return c
}
