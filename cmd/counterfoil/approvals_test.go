package main

import (
	"bytes"
	"context"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

// saysYes are words of a command or a flag that would decide in a person's place.
var saysYes = regexp.MustCompile(`(?i)^(y|yes|approve|approved|accept|agree|allow|confirm|countersign|decide|force|grant|ok|override|sign|skip.*|no-?approval.*|auto.*|bypass.*)$`)

// every calls f with each command.
func every(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, below := range c.Commands() {
		every(below, f)
	}
}

// TestNoCommandSaysYes: there is no word with which the command line could approve,
// and the words that there are decide nothing.
func TestNoCommandSaysYes(t *testing.T) {
	t.Parallel()
	sys := counterfoiltest.New(t)
	payroll := sys.Agent("payroll")
	bo, cy := sys.Approver("bo"), sys.Approver("cy")
	id := payroll.Ask(payroll.Transport, "pay", map[string]any{"to": "acme", "amount": 100, "currency": "EUR"})

	a := &app{streams: streams{strings.NewReader(""), io.Discard, io.Discard}}
	var ran int
	every(a.root(), func(c *cobra.Command) {
		for _, name := range append([]string{c.Name()}, c.Aliases...) {
			if saysYes.MatchString(name) {
				t.Errorf("the command %s could be taken for a yes", c.CommandPath())
			}
		}
		look := func(f *pflag.Flag) {
			if saysYes.MatchString(f.Name) || f.Shorthand != "" && saysYes.MatchString(f.Shorthand) {
				t.Errorf("the flag --%s of %s could be taken for a yes", f.Name, c.CommandPath())
			}
		}
		c.LocalFlags().VisitAll(look)
		c.PersistentFlags().VisitAll(look)

		// Every word below approval, with the approval's id, a yes on standard input,
		// and each of the flags that it has.
		if c.HasSubCommands() || !c.HasParent() || c.Parent().Name() != "approval" {
			return
		}
		words := append(strings.Fields(c.CommandPath())[1:], "--data", sys.Dir)
		tries := [][]string{words, append(words, id), append(words, id, "--json"), append(words, id, "approve")}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Name == "help" || f.Name == "data" {
				return
			}
			value := "approved"
			if f.Value.Type() == "bool" {
				value = "true"
			}
			tries = append(tries, append(words, id, "--"+f.Name+"="+value), append(words, "--"+f.Name+"="+value))
		})
		for _, words := range tries {
			var out bytes.Buffer
			run(context.WithoutCancel(t.Context()), words, streams{strings.NewReader("yes\nyes\n"), &out, &out})
			ran++
			if v := sys.Approval(id); v.State != counterfoil.StatePending || len(v.Signatures) != 0 {
				t.Fatalf("counterfoil %s made the approval %s:\n%s", strings.Join(words, " "), v.State, &out)
			}
		}
	})
	if ran < 12 {
		t.Errorf("%d commands ran: there are more than that", ran)
	}

	// The control: people do.
	bo.Countersign(id)
	if s := cy.Countersign(id); s != counterfoil.StateApproved {
		t.Errorf("two people said yes, and the approval is %s", s)
	}
	counterfoiltest.WantDone(t, payroll.Call("pay", map[string]any{"to": "acme", "amount": 100, "currency": "EUR"}))
	sys.CheckLedger()
}
