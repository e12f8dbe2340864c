package main

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// answering is an admin socket with one answer to everything.
func answering(t *testing.T, status int, body string) *app {
	a, _, _ := newSocket(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	return a
}

// TestWhatIsSuspendedIsShown: wherever a resource is, and only of those that are.
func TestWhatIsSuspendedIsShown(t *testing.T) {
	t.Parallel()
	const (
		bank = `{"kind":"Resource","name":"bank","document":{"type":"mcp"},"manifest":"kind: Resource\nname: bank\n","status":"suspended"}`
		till = `{"kind":"Resource","name":"till","document":{"type":"http"},"manifest":"kind: Resource\nname: till\n","status":"active"}`
		list = `{"documents":[` + bank + `,` + till + `]}`
	)
	for _, tc := range []struct {
		args   []string
		answer string
		want   string
	}{
		{[]string{"get", "Resource"}, list, "bank  (suspended)\ntill\n"},
		{[]string{"get", "Resource", "-o", "yaml"}, list, "# status: suspended\nkind: Resource\nname: bank\n---\nkind: Resource\nname: till\n"},
		{[]string{"get", "Resource", "bank"}, bank, "# status: suspended\nkind: Resource\nname: bank\n"},
		{[]string{"get", "Resource", "bank", "-o", "yaml"}, bank, "# status: suspended\nkind: Resource\nname: bank\n"},
		{[]string{"get", "Resource", "till"}, till, "kind: Resource\nname: till\n"},
		{[]string{"resource", "list"}, list, "NAME  TYPE  STATUS\nbank  mcp   suspended\ntill  http  active\n"},
		{[]string{"resource", "list"}, `{"documents":[]}`, "no resources; declare them in a manifest and run: counterfoil apply -f FILE\n"},
	} {
		a := answering(t, 200, tc.answer)
		var out, errs bytes.Buffer
		if code := run(t.Context(), append(tc.args, "--data", a.data), streams{strings.NewReader(""), &out, &errs}); code != exitDone || out.String() != tc.want {
			t.Errorf("%v: %d\n%s%s", tc.args, code, &out, &errs)
		}
	}
	for answer, args := range map[string][]string{
		list: {"get", "Resource", "--json"}, bank: {"get", "Resource", "bank", "-o", "json"}, list + " ": {"resource", "list", "--json"},
	} {
		a := answering(t, 200, answer)
		var out, errs bytes.Buffer
		if code := run(t.Context(), append(args, "--data", a.data), streams{strings.NewReader(""), &out, &errs}); code != exitDone || strings.Count(out.String(), `"status":"suspended"`) != 1 {
			t.Errorf("%v: %d\n%s%s", args, code, &out, &errs)
		}
	}
}
