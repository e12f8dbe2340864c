package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterfoil/counterfoil/agent"
)

func (a *app) rotateCommand() *cobra.Command {
	var id identity
	var alg string
	var overlap time.Duration
	c := &cobra.Command{
		Use:   "rotate --issuer URL --agent NAME --key FILE [--overlap TIME] [--alg ALG]",
		Short: "Replace an instance's key by a new one",
		Long: `Makes a new key beside FILE, has the present key and the new one prove themselves to
the issuer together, and puts the new one in FILE's place. Instance, tasks and
approvals stay; tokens of the old key end with it. The old key is dead at once, or
after --overlap, for programs that have it loaded still.

If this is interrupted, FILE or FILE.new works, and the same command finishes it. A
key that a manifest declares is rotated in the manifest.`,
		Example: "  counterfoil rotate --issuer http://localhost:8420 --agent payroll --key payroll.key --overlap 10m",
		Args:    cobra.NoArgs,
		RunE: a.does(func(ctx context.Context, _ []string) error {
			if err := id.check(); err != nil {
				return err
			}
			if overlap < 0 || overlap > 24*time.Hour || overlap%time.Second != 0 {
				return usage("--overlap: %v is not whole seconds up to 24h", overlap)
			}
			done, err := agent.Rotate(ctx, agent.RotateConfig{Issuer: id.issuer, Agent: id.agent, Path: id.key, Alg: alg, Overlap: overlap})
			if err != nil {
				return err
			}
			return a.print(done, func(w io.Writer) {
				fmt.Fprintf(w, "rotated the key of %s\nkey      %s (thumbprint %s)\n", done.Agent, id.key, done.JKT)
				switch until := done.Previous.Until; {
				case until.IsZero():
					fmt.Fprintf(w, "before   %s; an earlier run had registered the new key\n", done.Previous.JKT)
				case overlap > 0:
					fmt.Fprintf(w, "before   %s, taken until %s\n", done.Previous.JKT, until.Local().Format(time.DateTime))
				default:
					fmt.Fprintf(w, "before   %s, dead\n", done.Previous.JKT)
				}
			})
		}),
	}
	id.flags(c)
	c.Flags().DurationVar(&overlap, "overlap", 0, "take the old key beside the new one for this `time`, up to 24h")
	c.Flags().StringVar(&alg, "alg", "", "the new key's algorithm: Ed25519, ES256, ES384; the old one's when left out")
	return c
}

func (a *app) leakedCommand() *cobra.Command {
	var issuer string
	c := &cobra.Command{
		Use:   "leaked --issuer URL [-]",
		Short: "Report a token, private key or enrolment code that was found where it should not be",
		Long: `Reads what was found from standard input and reports it to the issuer: a whole access
token, a private key (PEM or JWK), an enrolment code (cfe_…), or a text with some of
them. What proves the leak by itself is revoked, exactly that and at once. Anyone may
report; the answer is the same for everything, so it tells nobody what is real.

A thumbprint or an id proves nothing; an administrator revokes by those.`,
		Example: "  counterfoil leaked --issuer https://id.example.com < found.txt",
		RunE: a.does(func(ctx context.Context, args []string) error {
			if len(args) > 1 || len(args) == 1 && args[0] != "-" {
				// Not repeated: it may be the secret.
				return usage("leaked takes only -, and what was found on standard input: on the command line every local user could read it")
			}
			if issuer == "" {
				return usage("--issuer is needed: the URL that the server printed as public=… (or set COUNTERFOIL_ISSUER)")
			}
			found, err := a.fromInput()
			if err != nil {
				return err
			}
			if err := agent.ReportLeak(ctx, strings.TrimSuffix(issuer, "/"), found, nil); err != nil {
				return err
			}
			return a.print(map[string]any{"reported": true}, func(w io.Writer) {
				fmt.Fprintln(w, "reported: whatever of it was good is good no more")
			})
		}),
	}
	c.Flags().StringVar(&issuer, "issuer", os.Getenv("COUNTERFOIL_ISSUER"), "the issuer's `URL` (COUNTERFOIL_ISSUER)")
	return c
}
