package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
)

// What `counterfoil diff` ends with, as diff(1) and kubectl do, but for 2, which
// is wrong usage everywhere.
const (
	exitChanges    = 1
	exitDiffFailed = 3
)

// maxManifest bounds one file, in bytes.
const maxManifest = 4 << 20

type manifestFile struct {
	Name string `json:"name"`
	Data string `json:"data"`
}

type applyResult struct {
	Changes  []changed    `json:"changes"`
	Pinned   []pinnedTool `json:"pinned,omitzero"`
	Warnings []string     `json:"warnings,omitzero"`
	Proposal *proposal    `json:"proposal,omitzero"`

	Suggestions []suggestion `json:"suggestions,omitzero"`
}

// A proposal is a change that has not happened yet.
type proposal struct {
	ID        string    `json:"id,omitzero"` // empty in a dry run
	Approval  string    `json:"approval,omitzero"`
	Effective time.Time `json:"effective"`
	Why       []string  `json:"why"`

	// MaySign are the people who can let it happen at once.
	MaySign []string `json:"may_sign,omitzero"`
}

type changed struct {
	Kind   string   `json:"kind"`
	Name   string   `json:"name"`
	Verb   string   `json:"verb"`
	Fields []string `json:"fields,omitzero"`
	Diff   string   `json:"diff,omitzero"`

	// Of a person who is new: for the first passkey, and the page that takes it.
	EnrolmentCode string `json:"enrolment_code,omitzero"`
	EnrolmentURL  string `json:"enrolment_url,omitzero"`
}

type pinnedTool struct {
	Resource string `json:"resource"`
	Tool     string `json:"tool"`
	Digest   string `json:"digest"`
	Changed  bool   `json:"changed,omitzero"`
}

// problems are what keeps manifests from being applied, with file and line.
type problems []string

func (p problems) Error() string {
	count := "1 problem"
	if len(p) > 1 {
		count = fmt.Sprintf("%d problems", len(p))
	}
	return fmt.Sprintf("%s\n%s; nothing was changed", strings.Join(p, "\n"), count)
}

// Unwrap gives the problems the code that the server answered with.
func (p problems) Unwrap() error {
	return counterfoil.Refuse(counterfoil.PayloadMalformed, "%d problems", len(p))
}

func (a *app) applyCommand() *cobra.Command {
	var paths []string
	c := &cobra.Command{
		Use:   "apply -f PATH…",
		Short: "Put manifests in force: all of them or none",
		Long: `Reads YAML manifests (files, folders, or - for standard input) and puts them in
force in one step, or says everything that is wrong with them, with file and
line, and changes nothing. Applying twice changes nothing the second time. What
no manifest names stays: remove it with 'counterfoil delete'. An OpenAPI
description that a resource names is read from beside its manifest, and what of it
is not callable is printed as lines that can be added.`,
		Example: "  counterfoil apply -f agents.yaml\n  counterfoil apply -f manifests/ --json",
		Args:    cobra.NoArgs,
		RunE:    a.does(func(ctx context.Context, _ []string) error { return a.apply(ctx, paths) }),
	}
	c.Flags().StringArrayVarP(&paths, "filename", "f", nil, "a manifest `file`, a folder of them, or -")
	must(c.MarkFlagRequired("filename"))
	return a.needsServer(c)
}

func (a *app) diffCommand() *cobra.Command {
	var paths []string
	c := &cobra.Command{
		Use:     "diff -f PATH…",
		Short:   "Show what apply would change",
		Long:    "Shows what apply would change, and changes nothing. Ends with 0 for no change, 1 for changes, 3 when it failed.",
		Example: "  counterfoil diff -f agents.yaml",
		Args:    cobra.NoArgs,
		RunE: a.does(func(ctx context.Context, _ []string) error {
			a.code = exitDiffFailed // until it is known to have worked
			result, err := a.submit(ctx, paths, true)
			if err != nil {
				return err
			}
			a.code = exitDone
			for _, ch := range result.Changes {
				if ch.Verb != "unchanged" {
					a.code = exitChanges
				}
			}
			return a.print(result, func(w io.Writer) {
				for _, ch := range result.Changes {
					if ch.Verb != "unchanged" {
						fmt.Fprintf(w, "%s %s %s\n%s", ch.Verb, ch.Kind, ch.Name, ch.Diff)
					}
				}
				if p := result.Proposal; p != nil {
					fmt.Fprintf(w, "all of it would wait until %s, or for two of the people who approve now, because it widens:\n", p.Effective.Local().Format(time.RFC3339))
					p.because(w)
				}
				if a.code == exitChanges {
					suggested(w, result.Suggestions)
				}
			})
		}),
	}
	c.Flags().StringArrayVarP(&paths, "filename", "f", nil, "a manifest `file`, a folder of them, or -")
	must(c.MarkFlagRequired("filename"))
	return a.needsServer(c)
}

func (a *app) apply(ctx context.Context, paths []string) error {
	result, err := a.submit(ctx, paths, false)
	if err != nil {
		return err
	}
	return a.print(result, func(w io.Writer) {
		defer suggested(w, result.Suggestions)
		if result.Proposal != nil {
			result.Proposal.tell(w)
			return
		}
		for _, ch := range result.Changes {
			line := fmt.Sprintf("%-9s  %s %s", ch.Verb, ch.Kind, ch.Name)
			if len(ch.Fields) > 0 && ch.Verb == "update" {
				line += " (" + strings.Join(ch.Fields, ", ") + ")"
			}
			fmt.Fprintln(w, line)
		}
		for _, p := range result.Pinned {
			how := "pinned"
			if p.Changed {
				how = "pinned anew"
			}
			fmt.Fprintf(w, "%-9s  %s/%s %s\n", how, p.Resource, p.Tool, p.Digest)
		}
		var codes [][]string
		for _, ch := range result.Changes {
			if ch.EnrolmentCode != "" {
				codes = append(codes, []string{"enrol", ch.Name, ch.EnrolmentURL})
			}
		}
		if len(codes) > 0 {
			table(w, codes...)
			a.note("Each of these addresses enrols one person's first passkey, once, within 24 hours: whoever has it becomes that person.")
		}
	})
}

// tell says that nothing has changed yet, and what it takes.
func (p *proposal) tell(w io.Writer) {
	fmt.Fprintf(w, "nothing has changed yet: this widens who may approve or lessens what needs approval\n")
	p.because(w)
	rows := [][]string{{"change", p.ID}, {"effective", p.Effective.Local().Format(time.RFC3339)}}
	if p.Approval != "" {
		rows = append(rows, []string{"approval", p.Approval + ": at once when two of " + listed(p.MaySign) + " sign it; one no ends it"})
	}
	table(w, rows...)
}

// because says what of it has to wait.
func (p *proposal) because(w io.Writer) {
	for _, why := range p.Why {
		fmt.Fprintf(w, "  %s\n", visible(why))
	}
}

// awaited finds out who may sign a change that waits.
func (a *app) awaited(ctx context.Context, p *proposal) error {
	if p == nil || p.Approval == "" {
		return nil
	}
	_, v, err := a.approval(ctx, p.Approval)
	if err != nil {
		return err
	}
	p.MaySign = v.Candidates
	return nil
}

// submit sends manifests to the server. What is wrong with them comes back as
// an error of type problems.
func (a *app) submit(ctx context.Context, paths []string, dryRun bool) (applyResult, error) {
	files, err := a.awaitManifests(ctx, paths)
	if err != nil {
		return applyResult{}, err
	}
	var result applyResult
	err = a.admin(ctx, http.MethodPost, "/api/v1/apply", map[string]any{"files": files, "dry_run": dryRun}, &result)
	if err != nil {
		return applyResult{}, err
	}
	if err := a.awaited(ctx, result.Proposal); err != nil {
		return applyResult{}, err
	}
	for _, warning := range result.Warnings {
		a.note("warning: %s", warning)
	}
	return result, nil
}

// awaitManifests is readManifests until the context ends: a pipe that nobody
// writes to cannot be read to its end, and must not outlive an interrupt.
func (a *app) awaitManifests(ctx context.Context, paths []string) ([]manifestFile, error) {
	type read struct {
		files []manifestFile
		err   error
	}
	done := make(chan read, 1)
	go func() {
		files, err := a.readManifests(paths)
		done <- read{files, err}
	}()
	select {
	case r := <-done:
		return r.files, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("reading %s: %w", strings.Join(paths, ", "), ctx.Err())
	}
}

// readManifests reads files, the .yaml and .yml files below folders in their
// order, and standard input for "-".
func (a *app) readManifests(paths []string) ([]manifestFile, error) {
	var files []manifestFile
	add := func(name string, r io.Reader) error {
		b, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		if len(b) > maxManifest {
			return fmt.Errorf("%s is larger than %d MiB", name, maxManifest>>20)
		}
		files = append(files, manifestFile{name, string(b)})
		return nil
	}
	addFile := func(name string) error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		return add(name, f)
	}
	for _, path := range paths {
		if path == "-" {
			if err := add("standard input", a.in); err != nil {
				return nil, err
			}
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			if err := addFile(path); err != nil {
				return nil, err
			}
			continue
		}
		err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(name)) {
				return err
			}
			return addFile(name)
		})
		if err != nil {
			return nil, err
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("there is no .yaml or .yml file in %s", strings.Join(paths, ", "))
	}
	return withReferences(files)
}

// kinds maps what people type to the path of the admin API.
var kinds = map[string]string{
	"person": "people", "people": "people",
	"class": "classes", "classes": "classes",
	"resource": "resources", "resources": "resources",
	"agent": "agents", "agents": "agents",
	"policy": "policies", "policies": "policies",
	"transmitter": "transmitters", "transmitters": "transmitters",
	"vocabulary": "vocabularies", "vocabularies": "vocabularies",
}

func kindPath(word string) (string, error) {
	p, ok := kinds[strings.ToLower(word)]
	if !ok {
		return "", usage("%q is none of Person, Class, Resource, Agent, Policy, Transmitter, Vocabulary", word)
	}
	return p, nil
}

func (a *app) getCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:     "get KIND [NAME]",
		Short:   "Show what is declared",
		Example: "  counterfoil get agents\n  counterfoil get agent payroll -o yaml",
		Args:    cobra.RangeArgs(1, 2),
		RunE: a.does(func(ctx context.Context, args []string) error {
			kind, err := kindPath(args[0])
			if err != nil {
				return err
			}
			switch output {
			case "", "yaml":
			case "json":
				a.json = true
			default:
				return usage("-o: %q is neither yaml nor json", output)
			}
			path := "/api/v1/" + kind
			if len(args) == 2 {
				path += "/" + escape(args[1])
			}
			return a.get(ctx, path, len(args) == 2, output == "yaml")
		}),
	}
	c.Flags().StringVarP(&output, "output", "o", "", "yaml (a manifest that apply takes) or json")
	return a.needsServer(c)
}

// A document as the server tells it: the noun, and the manifest that declares
// it.
type document struct {
	Kind     string         `json:"kind"`
	Name     string         `json:"name"`
	Document jsontext.Value `json:"document"`
	Manifest string         `json:"manifest"`

	// Of agents, people and resources.
	Status string `json:"status,omitzero"`

	// Of agents only.
	Epoch     int64 `json:"epoch,omitzero"`
	Instances int   `json:"instances,omitzero"`

	Quarantined []string `json:"quarantined,omitzero"`

	// Of one agent that is shown.
	Tasks    []agent.Task   `json:"tasks,omitzero"`    // open ones
	Rotating []instanceView `json:"rotating,omitzero"` // instances whose old key is taken still

	// Of people only.
	Passkeys int `json:"passkeys,omitzero"`
}

// suspended says what of a document no manifest has: that it is not active. It is
// empty of one that is.
func (d *document) suspended(before, after string) string {
	if d.Status == "" || d.Status == string(counterfoil.Active) {
		return ""
	}
	return before + visible(d.Status) + after
}

type documents struct {
	Documents []document `json:"documents"`
}

func (a *app) get(ctx context.Context, path string, one, yaml bool) error {
	var list documents
	if one {
		list.Documents = make([]document, 1)
		if err := a.admin(ctx, http.MethodGet, path, nil, &list.Documents[0]); err != nil {
			return err
		}
	} else if err := a.admin(ctx, http.MethodGet, path, nil, &list); err != nil {
		return err
	}
	var result any = list
	if one {
		result = list.Documents[0]
	}
	return a.print(result, func(w io.Writer) {
		for i, d := range list.Documents {
			if !yaml && !one {
				fmt.Fprintln(w, d.Name+d.suspended("  (", ")"))
				continue
			}
			if i > 0 {
				fmt.Fprintln(w, "---")
			}
			fmt.Fprint(w, d.suspended("# status: ", "\n")+d.Manifest) // apply takes it, as before
		}
	})
}

func (a *app) deleteCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "delete KIND NAME",
		Short: "Remove a document; deleting an Agent offboards it",
		Long: `Removes a document that nothing else refers to. Deleting an Agent is offboarding:
its tokens, keys and instances are void at once, and its name and keys are never
accepted again.`,
		Example: "  counterfoil delete Agent payroll",
		Args:    cobra.ExactArgs(2),
		RunE: a.does(func(ctx context.Context, args []string) error {
			kind, err := kindPath(args[0])
			if err != nil {
				return err
			}
			if kind == "agents" {
				return a.offboard(ctx, args[1], "deleted")
			}
			var done struct {
				Proposal *proposal `json:"proposal"`
			}
			if err := a.admin(ctx, http.MethodDelete, "/api/v1/"+kind+"/"+escape(args[1]), nil, &done); err != nil {
				return err
			}
			if done.Proposal != nil {
				if err := a.awaited(ctx, done.Proposal); err != nil {
					return err
				}
				return a.print(done, done.Proposal.tell)
			}
			return a.print(map[string]any{"deleted": args[1]}, func(w io.Writer) { fmt.Fprintf(w, "deleted %s %s\n", args[0], args[1]) })
		}),
	}
	return a.needsServer(c)
}
