package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterfoil/counterfoil"
)

func (a *app) credentialCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "credential",
		Short:   "What upstreams are shown and the database keeps sealed: put, list, delete",
		Example: "  counterfoil credential put crm < crm-token\n  counterfoil credential list",
	}
	group(c, "credential needs a subcommand: put, list or delete", a.credentialPutCommand(), a.credentialListCommand(), a.credentialDeleteCommand())
	return a.needsServer(c)
}

// credentialDone is the server's answer to a change.
type credentialDone struct {
	Name string   `json:"name"`
	Used []string `json:"used"`
}

// maxCredential is longer than any credential that is taken, in bytes.
const maxCredential = 16 << 10

func (a *app) credentialPutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "put NAME",
		Short: "Keep an upstream's credential, read from standard input",
		Long: `Reads a secret from standard input, without the line break at its end, and keeps it
sealed in the database. A manifest names it: credential: {header: …, stored: NAME}.
It takes the place of the one of that name, from the next call on. Nobody can read
it back: the gateway alone uses it, and the ledger has who put it and when.`,
		Example: "  counterfoil credential put crm < crm-token\n  printf %s \"$TOKEN\" | counterfoil credential put crm",
		Args:    cobra.ExactArgs(1),
		RunE: a.does(func(ctx context.Context, args []string) error {
			b, err := io.ReadAll(io.LimitReader(a.in, maxCredential+1))
			switch {
			case err != nil:
				return fmt.Errorf("reading the credential from standard input: %w", err)
			case len(b) > maxCredential:
				return fmt.Errorf("the credential on standard input is longer than %d bytes", maxCredential)
			}
			secret := strings.TrimRight(string(b), "\r\n")
			if secret == "" {
				return errors.New("there is nothing on standard input, where the credential is read from")
			}
			var done credentialDone
			if err := a.admin(ctx, http.MethodPut, "/api/v1/credentials/"+escape(args[0]), map[string]string{"secret": secret}, &done); err != nil {
				return err
			}
			return a.print(done, func(w io.Writer) {
				fmt.Fprintf(w, "credential %s is stored\n", done.Name)
				if len(done.Used) == 0 {
					fmt.Fprintf(w, "no resource names it yet; in a manifest: credential: {header: Authorization, prefix: \"Bearer \", stored: %s}\n", done.Name)
					return
				}
				fmt.Fprintf(w, "shown to the upstream of %s from the next call on\n", strings.Join(done.Used, ", "))
			})
		}),
	}
}

func (a *app) credentialListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List what is stored, and which resources name it; never what it is", Example: "  counterfoil credential list --json", Args: cobra.NoArgs,
		RunE: a.does(func(ctx context.Context, _ []string) error {
			var list struct {
				Credentials []counterfoil.StoredCredential `json:"credentials"`
			}
			if err := a.admin(ctx, http.MethodGet, "/api/v1/credentials", nil, &list); err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) {
				if len(list.Credentials) == 0 {
					fmt.Fprintln(w, "no credential is stored; put one with: counterfoil credential put NAME < FILE")
					return
				}
				rows := [][]string{{"NAME", "STORED", "BY", "RESOURCES"}}
				for _, c := range list.Credentials {
					rows = append(rows, []string{c.Name, c.At.Format(time.RFC3339), c.By, listed(c.Used)})
				}
				table(w, rows...)
			})
		}),
	}
}

func (a *app) credentialDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete a stored credential", Args: cobra.ExactArgs(1),
		Long: `Deletes a stored credential at once. Calls of the resources whose manifests name it
are refused from then on, until another is put.`,
		Example: "  counterfoil credential delete crm",
		RunE: a.does(func(ctx context.Context, args []string) error {
			var done credentialDone
			if err := a.admin(ctx, http.MethodDelete, "/api/v1/credentials/"+escape(args[0]), nil, &done); err != nil {
				return err
			}
			return a.print(done, func(w io.Writer) {
				fmt.Fprintf(w, "credential %s is deleted\n", done.Name)
				if len(done.Used) > 0 {
					fmt.Fprintf(w, "calls of %s are refused until another is put\n", strings.Join(done.Used, ", "))
				}
			})
		}),
	}
}
