package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

func (a *app) personCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "person",
		Short:   "The people who approve and administer: list, enroll-code, resume",
		Example: "  counterfoil person list\n  counterfoil person enroll-code bo",
	}
	group(c, "person needs a subcommand: list, enroll-code or resume",
		a.personListCommand(), a.personCodeCommand(), a.resumeCommand("person", "people",
			"Let a person act again who was revoked; passkeys and signatures of before stay void",
			"Ends a person's suspension. What was void stays void: the person enrols a passkey anew,\nwith a code of 'counterfoil person enroll-code', and the agents that the person owns are\nresumed one by one."))
	return a.needsServer(c)
}

// personNoun is what is shown of a person's document.
type personNoun struct {
	Email  string   `json:"email"`
	Groups []string `json:"groups"`
	Roles  []string `json:"roles"`
}

func (a *app) personListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List people, their groups and how many passkeys they have", Example: "  counterfoil person list --json", Args: cobra.NoArgs,
		RunE: a.does(func(ctx context.Context, _ []string) error {
			var list documents
			if err := a.admin(ctx, http.MethodGet, "/api/v1/people", nil, &list); err != nil {
				return err
			}
			rows := [][]string{{"NAME", "STATUS", "PASSKEYS", "GROUPS", "ROLES", "EMAIL"}}
			for _, d := range list.Documents {
				var noun personNoun
				if err := ijson.UnmarshalLax(d.Document, &noun); err != nil {
					return fmt.Errorf("reading person %s: %w", d.Name, err)
				}
				rows = append(rows, []string{d.Name, cmp.Or(d.Status, string(counterfoil.Active)), strconv.Itoa(d.Passkeys), listed(noun.Groups), listed(noun.Roles), noun.Email})
			}
			return a.print(list, func(w io.Writer) {
				if len(list.Documents) == 0 {
					fmt.Fprintln(w, "no people; declare them in a manifest and run: counterfoil apply -f FILE")
					return
				}
				table(w, rows...)
			})
		}),
	}
}

// personCode is the server's answer: this once, anyone sees the code.
type personCode struct {
	Person  string    `json:"person"`
	Code    string    `json:"code"`
	How     string    `json:"how"` // first, added or reset
	URL     string    `json:"url"`
	Expires time.Time `json:"expires_at"`
}

func (a *app) personCodeCommand() *cobra.Command {
	var reset bool
	c := &cobra.Command{
		Use:   "enroll-code NAME [--reset]",
		Short: "Make a one-time code with which a person enrols a passkey",
		Long: `Makes a code that enrols one passkey of a person, and the address of the page that
takes it. It is good once, for 24 hours, and shown here only: whoever has it
becomes that person, so hand it over by a way on which you know them.

The first passkey of a person counts at once. One that is added, or that takes the
place of the others with --reset, counts for irreversible classes 24 hours after it
was enrolled, or as soon as two of the people who approve those now sign for it; all
of them are told. On a server that runs with --dev it counts at once.`,
		Example: "  counterfoil person enroll-code bo\n  counterfoil person enroll-code bo --reset",
		Args:    cobra.ExactArgs(1),
		RunE: a.does(func(ctx context.Context, args []string) error {
			var code personCode
			if err := a.admin(ctx, http.MethodPost, "/api/v1/people/"+escape(args[0])+"/enroll-code", map[string]any{"reset": reset}, &code); err != nil {
				return err
			}
			return a.print(code, func(w io.Writer) {
				table(w, []string{"code", code.Code}, []string{"page", code.URL})
				a.note("This code is good once, until %s: whoever has it becomes %s.", code.Expires.Local().Format(time.RFC3339), code.Person)
				if code.How == counterfoil.PasskeyFirst {
					a.note("It is for the first passkey of %s, which counts at once.", code.Person)
					return
				}
				if code.How == counterfoil.PasskeyReset {
					a.note("The passkeys that %s has end when the new one is enrolled.", code.Person)
				}
				a.note("For irreversible classes the new passkey counts 24 hours after it was enrolled, or as soon as two of the people who approve those now sign for it (with --dev: at once). They are all told.")
			})
		}),
	}
	c.Flags().BoolVar(&reset, "reset", false, "the new passkey takes the place of all that the person has")
	return c
}
