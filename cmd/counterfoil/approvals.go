package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/approval"
)

func (a *app) approvalCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "approval",
		Short: "What waits for people and what they decided: list, show, open",
		Long: `Shows approvals. No command decides one: that takes the passkey of a person whom the
class's rule names, over exactly what the console's page shows.`,
		Example: "  counterfoil approval list\n  counterfoil approval open apr_4f2k7q",
	}
	group(c, "approval needs a subcommand: list, show or open",
		a.approvalListCommand(), a.approvalShowCommand(), a.approvalOpenCommand())
	return a.needsServer(c)
}

func (a *app) approvalListCommand() *cobra.Command {
	var state, agent string
	c := &cobra.Command{
		Use: "list [--state STATE] [--agent NAME]", Short: "List approvals, the newest first",
		Example: "  counterfoil approval list --state pending\n  counterfoil approval list --agent payroll --json", Args: cobra.NoArgs,
		RunE: a.does(func(ctx context.Context, _ []string) error {
			if state != "" && !slices.Contains(approvalStates, state) {
				return usage("--state: %q is none of %s", state, strings.Join(approvalStates, ", "))
			}
			q := url.Values{}
			for name, v := range map[string]string{"state": state, "agent": agent} {
				if v != "" {
					q.Set(name, v)
				}
			}
			var answer struct {
				Approvals []jsontext.Value `json:"approvals"`
			}
			if err := a.admin(ctx, http.MethodGet, "/api/v1/approvals?"+q.Encode(), nil, &answer); err != nil {
				return err
			}
			rows := [][]string{{"ID", "STATE", "SIGNED", "AGENT", "TOOL", "UNTIL", "WHAT"}}
			for _, raw := range answer.Approvals {
				v, err := readView(raw)
				if err != nil {
					return err
				}
				rows = append(rows, []string{v.ID, string(v.State), signedOf(v), asker(v), visible(v.Tool), v.Expires.Local().Format(time.DateTime), shown(v.Sentence)})
			}
			return a.print(map[string]any{"approvals": append([]jsontext.Value{}, answer.Approvals...)}, func(w io.Writer) {
				if len(answer.Approvals) == 0 {
					fmt.Fprintln(w, "no approvals")
					return
				}
				table(w, rows...)
			})
		}),
	}
	c.Flags().StringVar(&state, "state", "", "only those in this `state`, such as pending")
	c.Flags().StringVar(&agent, "agent", "", "only those that this agent asked for")
	return c
}

var approvalStates = []string{
	string(counterfoil.StatePending), string(counterfoil.StateApproved), string(counterfoil.StateSpent), string(counterfoil.StateSucceeded),
	string(counterfoil.StateFailed), string(counterfoil.StateIndeterminate), string(counterfoil.StateDenied), string(counterfoil.StateExpired),
	string(counterfoil.StateCancelled), string(counterfoil.StateSuperseded), string(counterfoil.StateRevoked),
}

func readView(raw []byte) (approval.View, error) {
	var v approval.View
	if err := ijson.UnmarshalLax(raw, &v); err != nil {
		return v, fmt.Errorf("reading an approval: %w", err)
	}
	return v, nil
}

// asker is who asked: an agent, or whoever administers.
func asker(v approval.View) string {
	if v.Agent != "" {
		return v.Agent
	}
	return visible(v.Asked)
}

// signedOf says how many of the signatures that are needed are there.
func signedOf(v approval.View) string {
	n := 0
	for _, s := range v.Signatures {
		if s.Decision == counterfoil.DecisionApprove {
			n++
		}
	}
	return fmt.Sprintf("%d of %d", n, v.Rule.Required)
}

// shown is a text of others for a terminal: what would not be seen is named.
func shown(segments []approval.Segment) string {
	var b strings.Builder
	for _, s := range segments {
		switch {
		case s.Code != "":
			b.WriteString("⟨" + s.Code + "⟩")
		case s.Lookalike:
			b.WriteString(s.Text + "⟨look-alike⟩")
		default:
			b.WriteString(s.Text)
		}
	}
	return visible(b.String())
}

// approval asks for one approval.
func (a *app) approval(ctx context.Context, id string) (jsontext.Value, approval.View, error) {
	var raw jsontext.Value
	if err := a.admin(ctx, http.MethodGet, "/api/v1/approvals/"+escape(id), nil, &raw); err != nil {
		return nil, approval.View{}, err
	}
	v, err := readView(raw)
	return raw, v, err
}

func (a *app) approvalShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show one approval: what it is for, who signed, who still may",
		Example: "  counterfoil approval show apr_4f2k7q", Args: cobra.ExactArgs(1),
		RunE: a.does(func(ctx context.Context, args []string) error {
			raw, v, err := a.approval(ctx, args[0])
			if err != nil {
				return err
			}
			if a.json {
				_, err := fmt.Fprintf(a.out, "%s\n", raw)
				return err
			}
			a.describe(v)
			return nil
		}),
	}
}

// describe prints an approval for a person.
func (a *app) describe(v approval.View) {
	rows := [][]string{
		{"approval", v.ID},
		{"state", string(v.State) + ", " + signedOf(v) + " signed"},
		{"what", shown(v.Sentence)},
		{"tool", fmt.Sprintf("%s (class %s, %s)", visible(v.Tool), v.Class, v.Tier)},
	}
	add := func(name, text string) {
		if text != "" {
			rows = append(rows, []string{name, visible(text)})
		}
	}
	if v.Agent != "" {
		add("agent", fmt.Sprintf("%s, owned by %s", v.Agent, v.Owner))
	} else {
		add("asked by", v.Asked)
	}
	add("task", v.Task)
	for _, s := range v.Signatures {
		text := fmt.Sprintf("%s: %s, %s", s.Person, s.Decision, s.At.Local().Format(time.DateTime))
		if s.Reason != "" {
			text += fmt.Sprintf(" (%s)", s.Reason)
		}
		add("signed", text)
	}
	if v.State == counterfoil.StatePending {
		add("may sign", listed(v.Candidates))
		add("until", v.Expires.Local().Format(time.DateTime))
	}
	if !v.UseUntil.IsZero() {
		add("use until", v.UseUntil.Local().Format(time.DateTime))
	}
	add("reason", v.Reason)
	if v.Entry > 0 {
		add("entry", fmt.Sprint(v.Entry))
	}
	if words := shown(v.Words); words != "" {
		add("its words", words+"   (the agent's own, and not a part of the call)")
	}
	if v.Earlier != "" {
		add("earlier", v.Earlier+" let an equal call run before")
	}
	add("digest", v.Digest)
	if len(v.Call) > 0 {
		add("call", string(v.Call))
	} else {
		add("call", "erased; its digest stays")
	}
	if page, err := a.page(v.ID); err == nil {
		add("page", page)
	}
	table(a.out, rows...)
}

// page is an approval's page in the console, at the address that the server keeps
// in its data folder.
func (a *app) page(id string) (string, error) {
	b, err := os.ReadFile(filepath.Join(a.data, "management.url"))
	if err != nil {
		return "", fmt.Errorf("reading where the console is: %w", err)
	}
	return strings.TrimSpace(string(b)) + "/approvals/" + url.PathEscape(id), nil
}

func (a *app) approvalOpenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "open ID",
		Short: "Print the address of an approval's page, and open it where a browser can be",
		Long: `Prints the address of the page on which people decide the approval. On a desktop it
also opens it. Opening decides nothing: that takes a passkey.`,
		Example: "  counterfoil approval open apr_4f2k7q", Args: cobra.ExactArgs(1),
		RunE: a.does(func(ctx context.Context, args []string) error {
			_, v, err := a.approval(ctx, args[0])
			if err != nil {
				return err
			}
			page, err := a.page(v.ID)
			if err != nil {
				return err
			}
			if err := a.print(map[string]any{"id": v.ID, "state": v.State, "url": page}, func(w io.Writer) { fmt.Fprintln(w, page) }); err != nil {
				return err
			}
			if !a.json {
				a.browse(ctx, page)
			}
			return nil
		}),
	}
}

// browse opens a page where a person sits before a desktop. A browser that does
// not start is no failure: the address is printed.
func (a *app) browse(ctx context.Context, page string) {
	if f, ok := a.out.(*os.File); !ok || !isTerminal(f) {
		return
	}
	var opener *exec.Cmd
	switch {
	case runtime.GOOS == "darwin":
		opener = exec.CommandContext(ctx, "open", page)
	case runtime.GOOS == "linux" && (os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != ""):
		opener = exec.CommandContext(ctx, "xdg-open", page)
	default:
		return
	}
	if err := opener.Run(); err != nil {
		a.note("no browser opened (%v); open the address yourself", err)
	}
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
