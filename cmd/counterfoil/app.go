package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// What a command ends with.
const (
	exitDone   = 0
	exitFailed = 1 // refused or failed
	exitUsage  = 2
)

// streams are the standard ones: results go to out, everything else to err.
type streams struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

// app is what every command of one run shares.
type app struct {
	streams
	json bool   // results as JSON
	data string // the server's data folder, for the admin socket

	started bool // the command line was understood
	code    int  // what to end with when a command says so itself
}

// run executes one command line and returns what to exit with.
func run(ctx context.Context, args []string, s streams) int {
	a := &app{streams: s}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	c, err := root.ExecuteContextC(ctx)
	var wrong usageError
	switch {
	case err == nil:
		return a.code
	case !a.started, errors.As(err, &wrong):
		fmt.Fprintf(s.err, "counterfoil: %v\nSee '%s --help'.\n", err, c.CommandPath())
		return exitUsage
	}
	a.report(err)
	if a.code != exitDone {
		return a.code
	}
	return exitFailed
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "counterfoil",
		Short: "Lets AI agents near real systems: keys of their own, checks on every call, a ledger that proves it",
		Long: `Counterfoil gives every AI agent an identity with a key of its own, checks every
call it makes to MCP servers, and keeps a tamper-evident ledger of every decision
that anyone can verify offline.

Start here:  counterfoil demo`,
		Version:       versionString(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print results as JSON")
	root.AddGroup(
		&cobra.Group{ID: "start", Title: "Start:"},
		&cobra.Group{ID: "admin", Title: "Administer (on the server's machine, through its admin socket):"},
		&cobra.Group{ID: "agent", Title: "On the agent's machine:"},
		&cobra.Group{ID: "prove", Title: "Prove:"},
	)
	a.add(root, "start", a.demoCommand(), a.serveCommand())
	a.add(root, "admin", a.applyCommand(), a.diffCommand(), a.getCommand(), a.deleteCommand(), a.agentCommand(), a.personCommand(), a.resourceCommand(), a.credentialCommand(), a.approvalCommand(), a.changeCommand(), a.revokeCommand(), a.backupCommand(), a.restoreCommand())
	a.add(root, "agent", a.enrollCommand(), a.connectCommand(), a.tokenCommand(), a.callCommand(), a.taskCommand(), a.rotateCommand(), a.leakedCommand())
	a.add(root, "prove", a.ledgerCommand(), a.bearerCommand())
	root.AddCommand(a.versionCommand())
	return root
}

func (a *app) add(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = group
		root.AddCommand(c)
	}
}

// usageError is a command line that cannot be carried out as it stands.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func usage(format string, args ...any) error { return usageError{fmt.Sprintf(format, args...)} }

// group makes a command of its subcommands alone. Run without one of them it says which
// there are, in the words of needs, and which is near to what was typed.
func group(c *cobra.Command, needs string, subcommands ...*cobra.Command) {
	c.AddCommand(subcommands...)
	// A flag of the subcommand that was meant is no mistake of its own.
	c.FParseErrWhitelist.UnknownFlags = true
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usage("%s", needs)
		}
		word := args[0]
		said := "that" // a long one may be a secret in the wrong place: it is not repeated
		if len(word) <= maxWord {
			said = strconv.Quote(word)
		}
		text := fmt.Sprintf("%s is not what '%s' takes: %s", said, c.CommandPath(), needs)
		c.SuggestionsMinimumDistance = min((len(word)+1)/3, 2)
		if near := c.SuggestionsFor(word); len(near) > 0 {
			text += fmt.Sprintf("; did you mean '%s %s'?", c.CommandPath(), near[0])
		}
		return usage("%s", text)
	}
}

// maxWord is longer than the name of any subcommand, and shorter than any secret.
const maxWord = 20

// does makes a command's RunE: from there on an error is the work's, not the
// command line's.
func (a *app) does(work func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		a.started = true
		return work(c.Context(), args)
	}
}

// needsServer adds the flag of the commands that speak to the admin socket.
func (a *app) needsServer(c *cobra.Command) *cobra.Command {
	c.PersistentFlags().StringVar(&a.data, "data", envOr("COUNTERFOIL_DATA", defaultData), "the server's data `folder` (COUNTERFOIL_DATA)")
	return c
}

// defaultData is the data folder where none is named.
const defaultData = "counterfoil-data"

func envOr(name, fallback string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return fallback
}

// report writes an error where a person or a program looks for it.
func (a *app) report(err error) {
	if a.json {
		detail := err.Error()
		told := map[string]any{}
		if code, ok := codeOf(err); ok {
			told["code"] = string(code)
		}
		var list problems
		if errors.As(err, &list) {
			told["problems"] = list
		} else if r, ok := counterfoil.AsRefusal(err); ok {
			detail = r.Detail
			if r.Approval != nil {
				told["approval"] = r.Approval
			}
		}
		told["detail"] = detail
		b, jerr := ijson.Marshal(map[string]any{"error": told})
		if jerr == nil {
			fmt.Fprintf(a.streams.err, "%s\n", b)
			return
		}
	}
	text := strings.TrimRight(err.Error(), "\n")
	var list problems
	var fault *counterfoil.Fault
	if r, ok := counterfoil.AsRefusal(err); ok && !errors.As(err, &list) {
		text = r.Error() // what was decided, without the layers that it came through
	} else if errors.As(err, &fault) {
		text = fault.Error()
	}
	if strings.Contains(text, "\n") { // a list of problems says each in its own line
		fmt.Fprintln(a.streams.err, text)
		return
	}
	fmt.Fprintf(a.streams.err, "counterfoil: %s\n", text)
	if r, ok := counterfoil.AsRefusal(err); ok && r.Approval != nil {
		a.reportApproval(r.Approval)
	}
}

// codeOf returns the code that a server answered with, or that a check here refused
// with. What merely went wrong on this machine has none: it is no fault of a server's.
func codeOf(err error) (counterfoil.Code, bool) {
	var fault *counterfoil.Fault
	if _, refused := counterfoil.AsRefusal(err); !refused && !errors.As(err, &fault) {
		return "", false
	}
	return counterfoil.CodeOf(err), true
}

// reportApproval says what becomes of a refused call that people decide.
func (a *app) reportApproval(s *counterfoil.ApprovalStatus) {
	a.note("approval %s is %s", s.ID, s.Status)
	if s.Status == string(counterfoil.StatePending) {
		a.note("it needs %s until %s; the same call, repeated after that, runs once (--wait waits for it)",
			counted(s.ApprovalsRequired, "person", "people"), s.ExpiresAt.Local().Format(time.DateTime))
	}
}

// counted writes a number with its noun.
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// print writes a result: as JSON, or as text by the function.
func (a *app) print(v any, text func(w io.Writer)) error {
	if !a.json {
		text(a.out)
		return nil
	}
	b, err := ijson.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding the result: %w", err)
	}
	_, err = fmt.Fprintf(a.out, "%s\n", b)
	return err
}

// table writes rows in columns.
func table(w io.Writer, rows ...[]string) {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(tw, strings.Join(r, "\t"))
	}
	tw.Flush()
}

// note writes a line for a person, on standard error.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.streams.err, format+"\n", args...)
}
