package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
)

func (a *app) leakedCommand() *cobra.Command {
	var issuer string
	c := &cobra.Command{
		Use:   "leaked --issuer URL [-]",
		Short: "Report a token, private key or enrolment code that was found where it should not be",
		Long: `Reads what was found from standard input and reports it to the issuer: a whole access
token, a private key (PEM or JWK), an enrolment code (cfe_…), or a text with some of
them, at most 64 KiB and 8 secrets. Exactly what the text holds whole is revoked, at
once. Anyone may report.

The issuer answers the same to everything, so that it tells nobody what is real. So this
command looks at the text itself and says what it recognises in it: whether that was in
force, an administrator sees. It ends with 1 when it recognises nothing, or more than 8
secrets; the text is sent all the same. A thumbprint or an id proves nothing: an
administrator revokes by those.`,
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
			to := strings.TrimSuffix(issuer, "/")
			if err := agent.ReportLeak(ctx, to, found, nil); err != nil {
				return err
			}
			return a.reported(recognise(found, to))
		}),
	}
	c.Flags().StringVar(&issuer, "issuer", os.Getenv("COUNTERFOIL_ISSUER"), "the issuer's `URL` (COUNTERFOIL_ISSUER)")
	return c
}

// mostLeaks is how many secrets of one report the server looks at.
const mostLeaks = 8

// reported says what was in a report that arrived. What became of it the server tells
// nobody who reports, so it says no more than that, and how to find out.
func (a *app) reported(r recognised) error {
	n := r.count()
	if n == 0 || n > mostLeaks {
		a.code = exitFailed
	}
	err := a.print(map[string]any{"reported": true, "recognised": r}, func(w io.Writer) {
		if r.none() {
			fmt.Fprintln(w, "reported, but nothing in it is recognised as a secret of this issuer: nothing may have been revoked")
			return
		}
		what := "whatever of it was in force is revoked"
		if n > mostLeaks {
			what = "not all of them were looked at"
		}
		fmt.Fprintf(w, "reported: %s; %s\n", r, what)
		for _, jkt := range r.Keys {
			fmt.Fprintf(w, "  private key  %s\n", jkt)
		}
	})
	if a.json {
		return err
	}
	if r.none() {
		a.note("A secret counts only whole: a token of this issuer with its signature, a private key, or an enrolment code (cfe_…); no thumbprint, and no id.")
	}
	if n > mostLeaks {
		a.note("%d secrets are more than the %d that are looked at in one report: report them in parts.", n, mostLeaks)
	}
	a.note("The issuer does not say what was in force. An administrator checks with 'counterfoil agent instances NAME' (keys) and 'counterfoil ledger tail', and takes away what is left with 'counterfoil revoke'.")
	return err
}

// recognised is what a text holds of secrets, as far as it can be seen from outside.
type recognised struct {
	Tokens int      `json:"tokens"`
	Keys   []string `json:"private_keys"` // their thumbprints, which are public
	Codes  int      `json:"enrolment_codes"`
}

func (r recognised) count() int { return r.Tokens + len(r.Keys) + r.Codes }
func (r recognised) none() bool { return r.count() == 0 }

// String lists what there is.
func (r recognised) String() string {
	var parts []string
	for _, p := range []struct {
		n         int
		one, many string
	}{{r.Tokens, "token", "tokens"}, {len(r.Keys), "private key", "private keys"}, {r.Codes, "enrolment code", "enrolment codes"}} {
		if p.n > 0 {
			parts = append(parts, counted(p.n, p.one, p.many))
		}
	}
	return strings.Join(parts, ", ")
}

// recognise finds in a report what the issuer would find, each once.
func recognise(found counterfoil.Secret, issuer string) recognised {
	s := seeker{issuer: issuer, seen: map[string]bool{}, found: recognised{Keys: []string{}}}
	s.look([]byte(found.Reveal()))
	return s.found
}
