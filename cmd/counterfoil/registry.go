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

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/counterfoil/counterfoil"
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
}

type changed struct {
	Kind   string   `json:"kind"`
	Name   string   `json:"name"`
	Verb   string   `json:"verb"`
	Fields []string `json:"fields,omitzero"`
	Diff   string   `json:"diff,omitzero"`
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
no manifest names stays: remove it with 'counterfoil delete'.`,
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
	})
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
	return files, nil
}

// kinds maps what people type to the path of the admin API.
var kinds = map[string]string{
	"person": "people", "people": "people",
	"class": "classes", "classes": "classes",
	"resource": "resources", "resources": "resources",
	"agent": "agents", "agents": "agents",
	"policy": "policies", "policies": "policies",
}

func kindPath(word string) (string, error) {
	p, ok := kinds[strings.ToLower(word)]
	if !ok {
		return "", usage("%q is none of Person, Class, Resource, Agent, Policy", word)
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

	// Of agents only.
	Status    string `json:"status,omitzero"`
	Epoch     int64  `json:"epoch,omitzero"`
	Instances int    `json:"instances,omitzero"`

	Quarantined []string `json:"quarantined,omitzero"`
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
				fmt.Fprintln(w, d.Name)
				continue
			}
			if i > 0 {
				fmt.Fprintln(w, "---")
			}
			fmt.Fprint(w, d.Manifest)
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
			if err := a.admin(ctx, http.MethodDelete, "/api/v1/"+kind+"/"+escape(args[1]), nil, nil); err != nil {
				return err
			}
			return a.print(map[string]any{"deleted": args[1]}, func(w io.Writer) { fmt.Fprintf(w, "deleted %s %s\n", args[0], args[1]) })
		}),
	}
	return a.needsServer(c)
}
