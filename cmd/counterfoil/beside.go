package main

import (
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/counterfoil/counterfoil/internal/manifest"
)

// A suggestion is an operation of an OpenAPI description that is not callable, and the
// line of a manifest that would let it be called.
type suggestion struct {
	Resource  string `json:"resource"`
	Operation string `json:"operation"`
	Class     string `json:"class"`
	Manifest  string `json:"manifest"`
}

// suggested prints what could be pasted into the manifests.
func suggested(w io.Writer, all []suggestion) {
	of := ""
	for _, s := range all {
		if s.Resource != of {
			of = s.Resource
			fmt.Fprintf(w, "not callable in Resource %s; to let one be called, list it under tools, in a class of your choice:\n", visible(of))
		}
		fmt.Fprintf(w, "  %s  # %s\n", visible(s.Manifest), visible(s.Operation))
	}
}

// withReferences adds the files that manifests name. They are below the manifest's
// folder, wherever links lead: a manifest of somebody else's is not to send what else
// is on this machine.
func withReferences(files []manifestFile) ([]manifestFile, error) {
	given := make([]manifest.File, len(files))
	have := map[string]bool{}
	for i, f := range files {
		given[i] = manifest.File{Name: f.Name, Data: []byte(f.Data)}
		have[path.Clean(f.Name)] = true
	}
	for _, ref := range manifest.References(given) {
		if have[ref.Name] {
			continue
		}
		text, err := readBelow(filepath.Dir(ref.Manifest), ref.File)
		if err != nil {
			return nil, fmt.Errorf("reading %s, which %s names: %w", ref.Name, ref.Manifest, err)
		}
		files = append(files, manifestFile{ref.Name, text})
	}
	return files, nil
}

// readBelow reads a file that is in a folder or below it, also where links are.
func readBelow(folder, name string) (string, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return "", err
	}
	defer root.Close()
	f, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err == nil && len(b) > maxManifest {
		err = fmt.Errorf("it is larger than %d MiB", maxManifest>>20)
	}
	return string(b), err
}
