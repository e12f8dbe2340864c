package gateway

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// theCall is a call of bank/pay with these arguments, nil for none.
func theCall(t testing.TB, arguments []byte) *mcpCall {
	t.Helper()
	c := &mcpCall{
		call: call{
			url: "https://gw.example/r/bank", resource: &counterfoil.Resource{Name: "bank", Environment: "prod"},
			caller: counterfoil.Caller{Agent: "payroll", Subject: "payroll"},
		},
		def: &seen{digest: "sha-256:d"},
	}
	body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pay"`
	if arguments != nil {
		body += `,"arguments":` + string(arguments)
	}
	var err error
	if c.message, err = readMessage([]byte(body + `}}`)); err != nil {
		t.Fatal(err)
	}
	c.payload = c.message.arguments()
	return c
}

func TestCallObjectIsWrittenByTheBook(t *testing.T) {
	t.Parallel()
	task := theCall(t, []byte(`{"b":1.0,"a":"\u0041"}`))
	task.caller.Task, task.caller.Subject = "task_1", "ana"
	for name, tc := range map[string]struct {
		call *mcpCall
		want string
	}{
		"arguments, no task": {theCall(t, []byte(`{"to":"acme","amount":1e2}`)), `{"absent":["task"],"agent":"payroll","arguments":{"amount":100,"to":"acme"},"aud":"https://gw.example/r/bank","env":"prod","method":"tools/call","protocol":"mcp","resource":"bank","subject":"payroll","target":"pay","tool":"bank/pay","tool_digest":"sha-256:d","v":1}`},
		"no arguments":       {theCall(t, nil), `{"absent":["arguments","task"],"agent":"payroll","aud":"https://gw.example/r/bank","env":"prod","method":"tools/call","protocol":"mcp","resource":"bank","subject":"payroll","target":"pay","tool":"bank/pay","tool_digest":"sha-256:d","v":1}`},
		"empty arguments":    {theCall(t, []byte(`{}`)), `{"absent":["task"],"agent":"payroll","arguments":{},"aud":"https://gw.example/r/bank","env":"prod","method":"tools/call","protocol":"mcp","resource":"bank","subject":"payroll","target":"pay","tool":"bank/pay","tool_digest":"sha-256:d","v":1}`},
		"task and user":      {task, `{"absent":[],"agent":"payroll","arguments":{"a":"A","b":1},"aud":"https://gw.example/r/bank","env":"prod","method":"tools/call","protocol":"mcp","resource":"bank","subject":"ana","target":"pay","task":"task_1","tool":"bank/pay","tool_digest":"sha-256:d","v":1}`},
	} {
		got, err := tc.call.object().encode()
		if err != nil || string(got) != tc.want {
			t.Errorf("%s: got %s, %v\nwant %s", name, got, err, tc.want)
		}
		back, err := readCallObject(got)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if again, err := back.encode(); err != nil || string(again) != tc.want {
			t.Errorf("%s: read back it is %s, %v", name, again, err)
		}
	}
	for _, bad := range []string{`{}`, `{"v":2,"absent":[],"protocol":"mcp"}`, `{"v":1,"absent":[],"protocol":"http"}`, `{"v":1,"absent":[],"protocol":"mcp","more":1}`, `{"v":1`} {
		if _, err := readCallObject([]byte(bad)); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

// TestWhatIsDigestedIsWhatIsForwarded: over any arguments, the bytes in the call that
// people sign are the bytes that go upstream, and one that is forwarded from what was
// kept is the same again (approvals.md 2).
func TestWhatIsDigestedIsWhatIsForwarded(t *testing.T) {
	t.Parallel()
	value := rapid.Custom(func(t *rapid.T) any { return anyJSON(t, 4) })
	tried := 0
	once := func(rt *rapid.T) {
		arguments := map[string]any{}
		for range rapid.IntRange(0, 4).Draw(rt, "members") {
			arguments[rapid.StringN(0, 6, 24).Draw(rt, "name")] = value.Draw(rt, "value")
		}
		raw, err := ijson.Marshal(arguments)
		if err != nil {
			rt.Skip("not I-JSON")
		}
		if ijson.Check(raw) != nil {
			rt.Skip("not taken")
		}
		c := theCall(t, raw)
		object, err := c.object().encode()
		if err != nil {
			rt.Fatal(err)
		}
		digested := find(split(object), "arguments")
		for name, forwarded := range map[string][]byte{"modern": c.message.encode(modern, true), "sessions": c.message.encode(sessions, true)} {
			if got := find(split(find(split(forwarded), "params")), "arguments"); !bytes.Equal(got, digested) {
				rt.Fatalf("%s: %s is forwarded and %s digested", name, got, digested)
			}
		}
		kept, err := readCallObject(object)
		if err != nil || !bytes.Equal(kept.arguments, digested) {
			rt.Fatalf("%s is kept, %v", kept.arguments, err)
		}
		tried++
	}
	for tried < 200 && !t.Failed() {
		rapid.Check(t, once)
	}
}

func anyJSON(t *rapid.T, depth int) any {
	kinds := 6
	if depth == 0 {
		kinds = 4
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return nil
	case 1:
		return rapid.Bool().Draw(t, "bool")
	case 2:
		return rapid.Int64Range(-1<<53+1, 1<<53-1).Draw(t, "int")
	case 3:
		return rapid.String().Draw(t, "text")
	case 4:
		out := []any{}
		for range rapid.IntRange(0, 3).Draw(t, "length") {
			out = append(out, anyJSON(t, depth-1))
		}
		return out
	}
	out := map[string]any{}
	for range rapid.IntRange(0, 3).Draw(t, "size") {
		out[rapid.StringN(0, 5, 20).Draw(t, "name")] = anyJSON(t, depth-1)
	}
	return out
}

// FuzzReadCallObject: what is kept was written by us, and still nothing that is read
// back makes a call that is not exactly it.
func FuzzReadCallObject(f *testing.F) {
	f.Add([]byte(`{"absent":["task"],"agent":"a","arguments":{"x":1},"aud":"u","env":"e","method":"tools/call","protocol":"mcp","resource":"r","subject":"a","target":"t","tool":"r/t","tool_digest":"d","v":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		canonical, err := ijson.Canonical(b)
		if err != nil {
			return
		}
		o, err := readCallObject(canonical)
		if err != nil {
			return
		}
		again, err := o.encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := readCallObject(again)
		if err != nil {
			t.Fatal(err)
		}
		if third, err := back.encode(); err != nil || !bytes.Equal(again, third) {
			t.Fatalf("%s becomes %s, %v", again, third, err)
		}
	})
}
