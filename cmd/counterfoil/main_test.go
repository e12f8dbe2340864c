package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets this test binary be the command, so that scripts and stories run
// the real program in a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"counterfoil": main})
}

// command runs one command line in this process and returns what it printed.
func command(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	var out, err bytes.Buffer
	code := run(context.WithoutCancel(t.Context()), args, streams{strings.NewReader(stdin), &out, &err})
	if code != exitDone {
		t.Fatalf("counterfoil %s: exit %d\n%s%s", strings.Join(args, " "), code, out.String(), err.String())
	}
	return out.String()
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	t.Parallel()
	a := &app{streams: streams{strings.NewReader(""), io.Discard, io.Discard}}
	queue := a.root().Commands()
	for len(queue) > 0 {
		c := queue[0]
		queue = append(queue[1:], c.Commands()...)
		if c.Name() == "completion" || c.Name() == "help" || c.HasParent() && c.Parent().Name() == "completion" {
			continue
		}
		if c.Short == "" || !strings.Contains(c.Example, "counterfoil "+strings.TrimPrefix(c.CommandPath(), "counterfoil ")) {
			t.Errorf("%s: no help or no example of itself", c.CommandPath())
		}
	}
}
