package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

func (a *app) agentCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "agent",
		Short:   "The life of agents: list, show, suspend, resume, offboard, enroll-code, instances",
		Example: "  counterfoil agent list\n  counterfoil agent enroll-code payroll",
	}
	group(c, "agent needs a subcommand: list, show, suspend, resume, offboard, enroll-code or instances",
		a.agentListCommand(), a.agentShowCommand(), a.agentCodeCommand(), a.agentInstancesCommand(),
		a.agentVerb("suspend", "Stop an agent until it is resumed; its tokens are void at once"), a.agentResumeCommand(),
		a.agentVerb("offboard", "End an agent for good and print what that voided"))
	return a.needsServer(c)
}

// agentNoun is what is shown of an agent's document.
type agentNoun struct {
	Owner       string `json:"owner"`
	Purpose     string `json:"purpose"`
	Environment string `json:"environment"`
}

func (a *app) agentListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List agents", Example: "  counterfoil agent list --json", Args: cobra.NoArgs,
		RunE: a.does(func(ctx context.Context, _ []string) error {
			var list documents
			if err := a.admin(ctx, http.MethodGet, "/api/v1/agents", nil, &list); err != nil {
				return err
			}
			rows := [][]string{{"NAME", "STATUS", "OWNER", "ENVIRONMENT", "INSTANCES", "QUARANTINED", "PURPOSE"}}
			for _, d := range list.Documents {
				var noun agentNoun
				if err := ijson.UnmarshalLax(d.Document, &noun); err != nil {
					return fmt.Errorf("reading agent %s: %w", d.Name, err)
				}
				rows = append(rows, []string{d.Name, d.Status, noun.Owner, noun.Environment, strconv.Itoa(d.Instances), strconv.Itoa(len(d.Quarantined)), noun.Purpose})
			}
			return a.print(list, func(w io.Writer) {
				if len(list.Documents) == 0 {
					fmt.Fprintln(w, "no agents; declare one in a manifest and run: counterfoil apply -f FILE")
					return
				}
				table(w, rows...)
			})
		}),
	}
}

func (a *app) agentShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show one agent", Example: "  counterfoil agent show payroll", Args: cobra.ExactArgs(1),
		RunE: a.does(func(ctx context.Context, args []string) error {
			var d document
			if err := a.admin(ctx, http.MethodGet, "/api/v1/agents/"+escape(args[0]), nil, &d); err != nil {
				return err
			}
			var err error
			if d.Tasks, err = a.adminTasks(ctx, args[0], string(counterfoil.TaskOpen)); err != nil {
				return err
			}
			instances, err := a.instances(ctx, args[0])
			if err != nil {
				return err
			}
			for _, v := range instances {
				if v.Old != nil {
					d.Rotating = append(d.Rotating, v)
				}
			}
			return a.print(d, func(w io.Writer) {
				fmt.Fprintf(w, "# status %s, %d live instances, epoch %d\n", d.Status, d.Instances, d.Epoch)
				for _, id := range d.Quarantined {
					fmt.Fprintf(w, "# instance %s is quarantined: its key was seen in two places\n", id)
				}
				for _, v := range d.Rotating {
					fmt.Fprintf(w, "# instance %s has a new key; the old one, %s, is taken until %s\n", v.ID, v.Old.JKT, v.Old.Until.Local().Format(time.DateTime))
				}
				for _, t := range d.Tasks {
					fmt.Fprintf(w, "# task %s is open until %s, calls %s: %s\n", t.ID, t.Expires.Local().Format(time.DateTime), callsOf(t), visible(t.Purpose))
				}
				fmt.Fprint(w, d.Manifest)
			})
		}),
	}
}

type instanceView struct {
	ID       string    `json:"id"`
	JKT      string    `json:"jkt"`
	Alg      string    `json:"alg"`
	Status   string    `json:"status"`
	Enrolled time.Time `json:"enrolled"`

	// Old is the key that it had before, while both are taken.
	Old *oldKey `json:"old,omitzero"`
}

type oldKey struct {
	JKT   string    `json:"jkt"`
	Until time.Time `json:"until"`
}

func (a *app) instances(ctx context.Context, agent string) ([]instanceView, error) {
	var list struct {
		Instances []instanceView `json:"instances"`
	}
	err := a.admin(ctx, http.MethodGet, "/api/v1/agents/"+escape(agent)+"/instances", nil, &list)
	return list.Instances, err
}

func (a *app) agentInstancesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "instances NAME", Short: "List an agent's instances and their keys", Example: "  counterfoil agent instances payroll", Args: cobra.ExactArgs(1),
		RunE: a.does(func(ctx context.Context, args []string) error {
			list, err := a.instances(ctx, args[0])
			if err != nil {
				return err
			}
			return a.print(map[string]any{"instances": append([]instanceView{}, list...)}, func(w io.Writer) {
				if len(list) == 0 {
					fmt.Fprintf(w, "no instances; make a code with: counterfoil agent enroll-code %s\n", args[0])
					return
				}
				rows := [][]string{{"INSTANCE", "STATUS", "KEY", "ALGORITHM", "ENROLLED", "OLD KEY"}}
				for _, v := range list {
					old := ""
					if v.Old != nil {
						old = v.Old.JKT + " until " + v.Old.Until.UTC().Format(time.RFC3339)
					}
					rows = append(rows, []string{v.ID, v.Status, v.JKT, v.Alg, v.Enrolled.UTC().Format(time.RFC3339), old})
				}
				table(w, rows...)
			})
		}),
	}
}

func (a *app) agentCodeCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "enroll-code NAME",
		Short:   "Make a one-time code for a new instance of an agent",
		Long:    "Makes a code that enrols one instance. It is good once, for 15 minutes, and shown here only. Standard output has the code alone.",
		Example: "  counterfoil agent enroll-code payroll",
		Args:    cobra.ExactArgs(1),
		RunE: a.does(func(ctx context.Context, args []string) error {
			code, expires, err := a.makeCode(ctx, args[0])
			if err != nil {
				return err
			}
			return a.print(map[string]any{"agent": args[0], "code": code.Reveal(), "expires_at": expires}, func(w io.Writer) {
				fmt.Fprintln(w, code.Reveal())
				a.note("this enrolment code is good once, until %s", expires.Local().Format(time.RFC3339))
			})
		}),
	}
}

func (a *app) makeCode(ctx context.Context, agent string) (counterfoil.Secret, time.Time, error) {
	var answer struct {
		Code    string    `json:"code"`
		Expires time.Time `json:"expires_at"`
	}
	if err := a.admin(ctx, http.MethodPost, "/api/v1/agents/"+escape(agent)+"/enroll-code", map[string]any{}, &answer); err != nil {
		return counterfoil.Secret{}, time.Time{}, err
	}
	return counterfoil.NewSecret(answer.Code), answer.Expires, nil
}

func (a *app) agentVerb(verb, short string) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: verb + " NAME", Short: short, Example: fmt.Sprintf("  counterfoil agent %s payroll --reason 'laptop stolen'", verb), Args: cobra.ExactArgs(1),
		RunE: a.does(func(ctx context.Context, args []string) error {
			if verb == "offboard" {
				return a.offboard(ctx, args[0], reason)
			}
			var lost voided
			if err := a.admin(ctx, http.MethodPost, "/api/v1/agents/"+escape(args[0])+"/"+verb, map[string]any{"reason": reason}, &lost); err != nil {
				return err
			}
			return a.print(map[string]any{"agent": args[0], "done": verb, "voided": lost.Voided}, func(w io.Writer) {
				fmt.Fprintf(w, "%sed %s\n", verb, args[0])
				table(w, append([][]string{everyToken(lost.Voided)}, voidedRows(untold(lost.Voided))...)...)
			})
		}),
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the ledger")
	return c
}

func (a *app) agentResumeCommand() *cobra.Command {
	var reason string
	var release []string
	c := &cobra.Command{
		Use:   "resume NAME",
		Short: "Let a suspended agent work again, or release quarantined instances; older tokens stay void",
		Long: "Ends a suspension. Instances whose key was seen in two places stay quarantined, unless they are named with --release: " +
			"release one only if its key was not copied.",
		Example: "  counterfoil agent resume payroll --reason 'maintenance is over'\n" +
			"  counterfoil agent resume payroll --release ins_8f2k --reason 'its NAT address changed'",
		Args: cobra.ExactArgs(1),
		RunE: a.does(func(ctx context.Context, args []string) error {
			var answer struct {
				Released    []string `json:"released"`
				Quarantined []string `json:"quarantined"`
			}
			in := map[string]any{"reason": reason, "release": append([]string{}, release...)}
			if err := a.admin(ctx, http.MethodPost, "/api/v1/agents/"+escape(args[0])+"/resume", in, &answer); err != nil {
				return err
			}
			done := map[string]any{"agent": args[0], "done": "resume"}
			if len(answer.Released) > 0 {
				done["released"] = answer.Released
			}
			if len(answer.Quarantined) > 0 {
				done["quarantined"] = answer.Quarantined
			}
			return a.print(done, func(w io.Writer) {
				fmt.Fprintf(w, "resumed %s\n", args[0])
				for _, id := range answer.Released {
					fmt.Fprintf(w, "released instance %s, whose key was seen in two places\n", id)
				}
				for _, id := range answer.Quarantined {
					fmt.Fprintf(w, "instance %s stays quarantined: its key was seen in two places; --release %s releases it\n", id, id)
				}
			})
		}),
	}
	c.Flags().StringArrayVar(&release, "release", nil, "a quarantined instance to release (repeatable); others stay quarantined")
	c.Flags().StringVar(&reason, "reason", "", "why, for the ledger")
	return c
}

// voided is what an agent lost.
type voided struct {
	Name   string             `json:"name"`
	Voided counterfoil.Voided `json:"voided"`
}

// everyToken says that the agent's epoch rose, and whom that hits.
func everyToken(v counterfoil.Voided) []string {
	s := "every one that was issued is void"
	if len(v.Tokens) > 0 {
		s += "; not expired: " + some(v.Tokens)
	}
	return []string{"  tokens", s}
}

// untold is what is void beside the tokens.
func untold(v counterfoil.Voided) counterfoil.Voided {
	v.Tokens = nil
	return v
}

func (a *app) offboard(ctx context.Context, agent, reason string) error {
	var o voided
	if err := a.admin(ctx, http.MethodPost, "/api/v1/agents/"+escape(agent)+"/offboard", map[string]any{"reason": reason}, &o); err != nil {
		return err
	}
	return a.print(o, func(w io.Writer) {
		fmt.Fprintf(w, "offboarded %s: its name and its keys are never accepted again\n", agent)
		rest := untold(o.Voided)
		rest.Instances, rest.Keys = nil, nil
		table(w, append([][]string{
			everyToken(o.Voided),
			{"  instances", listed(o.Voided.Instances)},
			{"  keys", listed(o.Voided.Keys)},
		}, voidedRows(rest)...)...)
	})
}

func listed(items []string) string {
	if len(items) == 0 {
		return "none"
	}
	return strings.Join(items, ", ")
}
