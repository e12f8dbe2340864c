package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/counterfoil/counterfoil"
)

// What the kinds of target are, and what revoking one does.
var targets = []struct {
	kind            counterfoil.TargetKind
	id, what, about string
}{
	{counterfoil.TargetToken, "tok_4f2k7q", "One access token, by its id (jti)",
		"Other tokens of its agent stay. With -\ninstead of the id the whole token is read from standard input: on the command line every\nlocal user could read it."},
	{counterfoil.TargetKey, "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U", "One key, by its thumbprint",
		"The key is dead for ever. With an instance's present\nkey the instance ends; with the old one, after a rotation, only that key."},
	{counterfoil.TargetInstance, "ins_4f2k7q", "One instance of an agent",
		"The instance ends, with its keys and the approvals that it asked for. Other instances\nof the agent work on."},
	{counterfoil.TargetTask, "tsk_4f2k7q", "One task, and those below it",
		"Their tokens, open approvals and streams end."},
	{counterfoil.TargetAgent, "payroll", "Everything that an agent has",
		"As agent suspend: its tokens, tasks, approvals and streams end, and it gets nothing\nuntil 'counterfoil agent resume', which revives none of them."},
	{counterfoil.TargetPerson, "bo", "A person, in every role",
		"The person's passkeys, sessions, codes and signatures end, and the agents that the\nperson owns are suspended. 'counterfoil person resume' lets the person enrol anew."},
	{counterfoil.TargetResource, "bank", "A resource: nothing calls it any more",
		"Its tokens are void for good, no new ones are given, and its streams end, until\n'counterfoil resource resume'."},
	{counterfoil.TargetOwner, "ana", "All agents of a person",
		"Every agent that the person owns is suspended; the person's own rights stay."},
}

func (a *app) revokeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "revoke (token|key|instance|task|agent|person|resource|owner) ID --reason TEXT [--wait 10s]",
		Short: "Take authority away, everywhere and at once, with a receipt",
		Long: `Takes authority away in one step and prints what that voided. With the server's answer
nothing is accepted any more that hung on it. Then, for as long as --wait says, prints
the receipt: when each enforcement point (the gateway, resource servers, receivers of
shared signals) stopped, as the ledger has it. 'revoke show' prints it again.`,
		Example: "  counterfoil revoke agent payroll --reason 'laptop stolen'\n  counterfoil revoke show 812",
	}
	group(c, "revoke needs a kind and an id, as in 'counterfoil revoke agent payroll --reason TEXT'; the kinds are token, key, instance, task, agent, person, resource and owner; or show and an index",
		a.revokeShowCommand())
	for _, t := range targets {
		c.AddCommand(a.revokeTargetCommand(t.kind, t.id, t.what, t.about))
	}
	return a.needsServer(c)
}

func (a *app) revokeTargetCommand(kind counterfoil.TargetKind, id, what, about string) *cobra.Command {
	var reason string
	var wait time.Duration
	c := &cobra.Command{
		Use: string(kind) + " ID --reason TEXT [--wait 10s]", Short: what, Long: what + ". " + about,
		Example: fmt.Sprintf("  counterfoil revoke %s %s --reason 'laptop stolen'", kind, id), Args: cobra.ExactArgs(1),
		RunE: a.does(func(ctx context.Context, args []string) error {
			t := counterfoil.Target{Kind: kind, ID: args[0]}
			if kind == counterfoil.TargetToken {
				var err error
				if t.ID, err = a.tokenNamed(args[0]); err != nil {
					return err
				}
			}
			if strings.TrimSpace(reason) == "" {
				return usage("--reason: say why; it is what the ledger has of this")
			}
			return a.revoke(ctx, t, reason, wait)
		}),
	}
	if kind == counterfoil.TargetPerson {
		c.SuggestFor = []string{"people"}
	}
	c.Flags().StringVar(&reason, "reason", "", "`text` that says why, for the ledger")
	c.Flags().DurationVar(&wait, "wait", 10*time.Second, "the `time` to wait for the receipt; 0s prints what is known at once")
	must(c.MarkFlagRequired("reason"))
	return c
}

// tokenNamed returns how a token is named to the server: by its id, or by the whole of
// it, which comes from standard input alone.
func (a *app) tokenNamed(arg string) (string, error) {
	if strings.Contains(arg, ".") {
		return "", usage("a whole token on the command line can be read by every local user: give - and the token on standard input, or its id")
	}
	if arg != "-" {
		return arg, nil
	}
	found, err := a.fromInput()
	return strings.TrimSpace(found.Reveal()), err
}

// fromInput reads something secret from standard input.
func (a *app) fromInput() (counterfoil.Secret, error) {
	b, err := io.ReadAll(io.LimitReader(bufio.NewReader(a.in), maxSecret+1))
	switch {
	case err != nil:
		return counterfoil.Secret{}, fmt.Errorf("reading standard input: %w", err)
	case len(b) > maxSecret:
		return counterfoil.Secret{}, fmt.Errorf("reading standard input: it is larger than %d KiB", maxSecret>>10)
	case strings.TrimSpace(string(b)) == "":
		return counterfoil.Secret{}, errors.New("nothing came on standard input")
	}
	return counterfoil.NewSecret(string(b)), nil
}

// maxSecret bounds what is read of a secret, in bytes: what the server takes.
const maxSecret = 64 << 10

// A receipt is what the ledger has of one revocation.
type receipt struct {
	Index  int64              `json:"index"`
	At     time.Time          `json:"at,omitzero"`
	Target counterfoil.Target `json:"target"`
	Reason string             `json:"reason,omitzero"`
	Actor  string             `json:"actor,omitzero"`
	Voided counterfoil.Voided `json:"voided"`
	Points []point            `json:"points"`
}

// A point is an enforcement point.
type point struct {
	Name      string    `json:"name"`
	Kind      string    `json:"kind"`
	Seq       int64     `json:"seq,omitzero"`
	Stopped   time.Time `json:"stopped,omitzero"` // zero: not heard from yet
	LatencyUS int64     `json:"latency_us,omitzero"`
	Streams   int       `json:"streams,omitzero"`
}

// sentence says when the point stopped.
func (p point) sentence() string {
	name := visible(p.Name)
	if p.Kind != p.Name {
		name = visible(p.Kind) + " " + name
	}
	if p.Kind == "signals" {
		return fmt.Sprintf("%s was told after %s", name, lasted(p.LatencyUS))
	}
	s := fmt.Sprintf("%s stopped accepting after %s", name, lasted(p.LatencyUS))
	if p.Streams > 0 {
		s += ", cut " + counted(p.Streams, "stream", "streams")
	}
	return s
}

// lasted writes microseconds in the unit that a person would.
func lasted(us int64) string {
	switch d := time.Duration(us) * time.Microsecond; {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", us)
	case d < 10*time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	default:
		return d.Round(time.Second).String()
	}
}

func (a *app) revoke(ctx context.Context, t counterfoil.Target, reason string, wait time.Duration) error {
	if wait < 0 {
		return usage("--wait: %v is less than nothing", wait)
	}
	var done struct {
		Index  int64              `json:"index"`
		Voided counterfoil.Voided `json:"voided"`
	}
	if err := a.admin(ctx, http.MethodPost, "/api/v1/revocations", map[string]any{"kind": t.Kind, "id": t.ID, "reason": reason}, &done); err != nil {
		return err
	}
	named := t.String()
	if strings.Contains(t.ID, ".") {
		named, t.ID = "the token", "" // a whole token is printed nowhere
	}
	if done.Index < 0 {
		return a.print(map[string]any{"index": done.Index, "target": t, "voided": done.Voided, "points": []point{}}, func(w io.Writer) {
			fmt.Fprintf(w, "%s was revoked before; nothing was left to take\n", visible(named))
		})
	}
	if !a.json {
		fmt.Fprintf(a.out, "revoked %s, in force with entry %d\n", visible(named), done.Index)
		table(a.out, voidedRows(done.Voided)...)
	}
	r, err := a.awaitReceipt(ctx, done.Index, wait)
	if err != nil {
		return fmt.Errorf("it is revoked, but its receipt cannot be had (counterfoil revoke show %d): %w", done.Index, err)
	}
	if a.json {
		return a.print(r, nil)
	}
	if missing := r.unheard(); len(missing) > 0 {
		a.note("not heard from yet: %s; counterfoil revoke show %d tells later", strings.Join(missing, ", "), done.Index)
	}
	return nil
}

// awaitReceipt asks for the receipt until every point stopped or the time is over, and
// tells each point once.
func (a *app) awaitReceipt(ctx context.Context, index int64, wait time.Duration) (receipt, error) {
	over := time.NewTimer(wait)
	defer over.Stop()
	told := map[string]bool{}
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		r, err := a.receipt(ctx, index)
		if err != nil {
			return r, err
		}
		for _, p := range r.Points {
			key := p.Kind + " " + p.Name
			if p.Stopped.IsZero() || told[key] {
				continue
			}
			told[key] = true
			if !a.json {
				fmt.Fprintln(a.out, p.sentence())
			}
		}
		if len(r.unheard()) == 0 {
			return r, nil
		}
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-over.C:
			again.Stop()
			return r, nil
		case <-ctx.Done():
			again.Stop()
			return r, context.Cause(ctx)
		}
	}
}

func (a *app) receipt(ctx context.Context, index int64) (receipt, error) {
	var r receipt
	err := a.admin(ctx, http.MethodGet, "/api/v1/revocations/"+strconv.FormatInt(index, 10), nil, &r)
	if r.Points == nil {
		r.Points = []point{}
	}
	return r, err
}

// unheard names the points that have not stopped, as far as is known.
func (r *receipt) unheard() (names []string) {
	for _, p := range r.Points {
		if p.Stopped.IsZero() {
			names = append(names, visible(p.Name))
		}
	}
	return names
}

func (a *app) revokeShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show INDEX", Short: "Show a revocation's receipt: what it voided, and when each enforcement point stopped",
		Long: `Shows the receipt of the ledger entry with that index: a revocation, an agent's
suspension or offboarding, a task's end, or a key's rotation.`,
		Example: "  counterfoil revoke show 812", Args: cobra.ExactArgs(1),
		RunE: a.does(func(ctx context.Context, args []string) error {
			index, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || index < 0 {
				return usage("%q is no index of a ledger entry", args[0])
			}
			r, err := a.receipt(ctx, index)
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) {
				fmt.Fprintf(w, "revoked %s at %s, in force with entry %d\n", visible(r.Target.String()), r.At.Local().Format(time.DateTime), r.Index)
				rows := voidedRows(r.Voided)
				for _, row := range [][]string{{"  reason", r.Reason}, {"  by", r.Actor}} {
					if row[1] != "" {
						rows = append(rows, []string{row[0], visible(row[1])})
					}
				}
				table(w, rows...)
				for _, p := range r.Points {
					if !p.Stopped.IsZero() {
						fmt.Fprintln(w, p.sentence())
					}
				}
				for _, name := range r.unheard() {
					fmt.Fprintf(w, "%s was not heard from yet\n", name)
				}
			})
		}),
	}
}

// voidedRows says what was taken, one row a kind, of what there was.
func voidedRows(v counterfoil.Voided) (rows [][]string) {
	add := func(name string, items []string, after string) {
		if len(items) > 0 {
			rows = append(rows, []string{"  " + name, some(items) + after})
		}
	}
	add("agents", v.Agents, " (suspended)")
	add("tokens", v.Tokens, "")
	add("tasks", v.Tasks, "")
	add("approvals", v.Approvals, "")
	add("instances", v.Instances, "")
	add("keys", v.Keys, "")
	add("passkeys", v.Passkeys, "")
	add("grants", v.Grants, "")
	add("credentials", v.Credentials, " (of the resources that it called; they stay, and changing them is up to you)")
	if v.Codes > 0 {
		rows = append(rows, []string{"  codes", counted(v.Codes, "enrolment code", "enrolment codes") + " that nobody had used"})
	}
	return rows
}

// mostNamed is how many of a list a person is shown; --json has all.
const mostNamed = 8

// some names the first of a list.
func some(items []string) string {
	shown := make([]string, 0, mostNamed)
	for _, s := range items[:min(len(items), mostNamed)] {
		shown = append(shown, visible(s))
	}
	s := strings.Join(shown, ", ")
	if more := len(items) - mostNamed; more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s
}
