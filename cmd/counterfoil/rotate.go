package main

import (
	"context"
	"fmt"
	"io"
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
