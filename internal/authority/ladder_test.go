package authority_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/internal/manifest"
	"github.com/counterfoil/counterfoil/ledger"
)

const legacy = `
---
kind: Resource
name: legacy
type: http
environment: prod
upstream: http://127.0.0.1:1/legacy
binding: observe
bearers: [{agent: payroll, key: "sha-256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]
credential: {header: X-Key, stored: legacy}
tools: [{name: get, method: GET, path: "/things/{id}", class: read}]
`

// A binding that is loosened counts at once and stands in the log; nobody is asked.
func TestLoosenedIsRecorded(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a := h.authority()
	strict := strings.Replace(legacy, "binding: observe\n", "binding: require\n", 1)
	h.mustApply(a, agents+strict)
	if e := h.last(ledger.ConfigApplied); e.Detail["loosens"] != nil {
		t.Errorf("%v", e.Detail)
	}
	result := h.mustApply(a, agents+legacy)
	if result.Proposal != nil {
		t.Errorf("it waits: %+v", result.Proposal)
	}
	if w := strings.Join(result.Warnings, "\n"); !strings.Contains(w, "Resource legacy: binding goes from require to observe") || !strings.Contains(w, "so whoever steals one may the same") {
		t.Errorf("%s", w)
	}
	e := h.last(ledger.ConfigApplied)
	list, _ := e.Detail["loosens"].([]any)
	if len(list) != 2 || list[0] != "Resource legacy: binding goes from require to observe" {
		t.Errorf("%v", e.Detail)
	}
	if _, r := a.Policy(); r.Resources["legacy"].Binding != counterfoil.BindingObserve {
		t.Error("it is not in force")
	}
	// What is there already is not loosened again.
	for _, w := range h.mustApply(a, agents+legacy).Warnings {
		if strings.Contains(w, "binding goes") {
			t.Error(w)
		}
	}
}

// An http resource's tools are what its manifest says: no upstream is asked. Its
// credential is looked after like any other's.
func TestHTTPToolsArePinnedByTheirManifest(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	var asked, looked []string
	a := h.authority(func(c *authority.Config) {
		c.Definitions = func(_ context.Context, r *counterfoil.Resource) (map[string]authority.Definition, error) {
			asked = append(asked, r.Name)
			return nil, errors.New("not reachable")
		}
		c.Credential = func(r *counterfoil.Resource) error {
			looked = append(looked, r.Name+" "+r.Credential.Stored)
			return errors.New("nothing is stored under that name")
		}
	})
	result, err := a.Apply(t.Context(), authority.ApplyRequest{Files: []manifest.File{{Name: "x.yaml", Data: []byte(bank + legacy[:strings.Index(legacy, "binding:")] + "credential: {header: X-Key, stored: legacy}\n" +
		"tools: [{name: get, method: GET, path: \"/things/{id}\", class: read}]\n")}}, Actor: "uid:7"})
	if err != nil || len(result.Problems) > 0 {
		t.Fatal(err, result.Problems)
	}
	if strings.Join(asked, " ") != "bank" || strings.Join(looked, ",") != "legacy legacy" || len(result.Pinned) != 0 {
		t.Errorf("asked %v, looked %v, pinned %v", asked, looked, result.Pinned)
	}
	if w := strings.Join(result.Warnings, "\n"); !strings.Contains(w, "Resource legacy: its credential cannot be used, so its calls are refused: nothing is stored under that name") || strings.Contains(w, "Resource legacy: its upstream") {
		t.Errorf("%s", w)
	}
}

// A schema that the gateway does not speak is told of when it is applied.
func TestApplyWarnsOfSchemas(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a := h.authority(func(c *authority.Config) { c.Schema = gateway.CheckSchema })
	with := func(schema string) string {
		return strings.Join(h.mustApply(a, agents+strings.Replace(legacy, "class: read}", "class: read, schema: "+schema+"}", 1)).Warnings, "\n")
	}
	if w := with("{type: object, properties: {path: {type: object}}}"); strings.Contains(w, "cannot be checked") {
		t.Error(w)
	}
	if w := with("{type: object, properties: {path: {$dynamicRef: \"#x\"}}}"); !strings.Contains(w, "Resource legacy: calls of get are refused, because their arguments cannot be checked: ") {
		t.Error(w)
	}
}

// Operations that nobody lists are told, and are no tools.
func TestApplyDescribed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a := h.authority()
	h.mustApply(a, agents)
	const spec = `{"openapi": "3.1.0", "paths": {
  "/things/{id}": {"get": {"operationId": "get"}, "delete": {"operationId": "drop"}},
  "/payments": {"post": {"operationId": "pay"}}}}`
	manifests := func(classify string) []manifest.File {
		return []manifest.File{
			{Name: "m/legacy.yaml", Data: []byte("kind: Resource\nname: legacy\ntype: http\nenvironment: prod\nupstream: http://127.0.0.1:1/legacy\nopenapi: {file: api.json" + classify + "}\ntools: [{name: get, class: read}]\n")},
			{Name: "m/api.json", Data: []byte(spec)},
		}
	}
	apply := func(classify string) authority.ApplyResult {
		t.Helper()
		result, err := a.Apply(t.Context(), authority.ApplyRequest{Files: manifests(classify), Actor: "uid:7"})
		if err != nil || len(result.Problems) > 0 {
			t.Fatal(err, result.Problems)
		}
		return result
	}
	result := apply("")
	if len(result.Suggestions) != 2 || result.Suggestions[1].Manifest != "- {name: pay, class: payout}" {
		t.Errorf("%+v", result.Suggestions)
	}
	tools := func() (names []string) {
		_, r := a.Policy()
		for _, tool := range r.Resources["legacy"].Tools { // those without a class, too
			names = append(names, tool.Name+" "+tool.Class)
		}
		return names
	}
	if got := strings.Join(tools(), ","); got != "get read,pay ,drop " {
		t.Error(got)
	}
	if result := apply(""); len(result.Changes) != 1 || result.Changes[0].Verb != manifest.Unchanged {
		t.Errorf("again: %+v", result.Changes)
	}
	result = apply(", classify: suggested")
	if got := strings.Join(tools(), ","); got != "get read,drop ,pay payout" || len(result.Suggestions) != 1 || result.Suggestions[0].Operation != "DELETE /things/{id}" {
		t.Errorf("%s %+v", got, result.Suggestions)
	}
}
