package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

func (a *app) resourceCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "resource",
		Short:   "Resources: list them with their status, resume one that was revoked",
		Long:    "Resources are declared by manifests (counterfoil get resources) and taken out of use by\n'counterfoil revoke resource NAME'.",
		Example: "  counterfoil resource list\n  counterfoil resource resume bank --reason 'the upstream is clean again'",
	}
	group(c, "resource needs a subcommand: list or resume",
		a.resourceListCommand(), a.resumeCommand("resource", "resources",
			"Let a resource be called again that was revoked; tokens of before stay void",
			"Ends a resource's suspension. Tokens that were given before it stay void; agents get\nnew ones by themselves."))
	return a.needsServer(c)
}

func (a *app) resourceListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List resources, with what is suspended", Example: "  counterfoil resource list --json", Args: cobra.NoArgs,
		RunE: a.does(func(ctx context.Context, _ []string) error {
			var list documents
			if err := a.admin(ctx, http.MethodGet, "/api/v1/resources", nil, &list); err != nil {
				return err
			}
			rows := [][]string{{"NAME", "TYPE", "STATUS"}}
			for _, d := range list.Documents {
				var noun struct {
					Type string `json:"type"`
				}
				if err := ijson.UnmarshalLax(d.Document, &noun); err != nil {
					return fmt.Errorf("reading resource %s: %w", d.Name, err)
				}
				rows = append(rows, []string{d.Name, noun.Type, cmp.Or(d.Status, string(counterfoil.Active))})
			}
			return a.print(list, func(w io.Writer) {
				if len(list.Documents) == 0 {
					fmt.Fprintln(w, "no resources; declare them in a manifest and run: counterfoil apply -f FILE")
					return
				}
				table(w, rows...)
			})
		}),
	}
}

// resumeCommand puts a person or a resource that was revoked back in force.
func (a *app) resumeCommand(kind, plural, short, long string) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "resume NAME [--reason TEXT]", Short: short, Long: long,
		Example: fmt.Sprintf("  counterfoil %s resume %s --reason 'it was a false alarm'", kind, map[string]string{"person": "bo", "resource": "bank"}[kind]), Args: cobra.ExactArgs(1),
		RunE: a.does(func(ctx context.Context, args []string) error {
			if err := a.admin(ctx, http.MethodPost, "/api/v1/"+plural+"/"+escape(args[0])+"/resume", map[string]any{"reason": reason}, nil); err != nil {
				return err
			}
			return a.print(map[string]any{kind: args[0], "done": "resume"}, func(w io.Writer) {
				fmt.Fprintf(w, "resumed %s %s; what was void stays void\n", kind, args[0])
			})
		}),
	}
	c.Flags().StringVar(&reason, "reason", "", "`text` that says why, for the ledger")
	return c
}
