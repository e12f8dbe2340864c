package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/e2e/peers"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

const clientsManifest = `kind: Class
name: write
tier: routine
---
kind: Resource
name: notes
type: mcp
environment: prod
upstream: %s
tools:
  - {name: read_note, class: read}
  - {name: write_note, class: write}
  - {name: count, class: read}
---
kind: Resource
name: everything
type: mcp
environment: prod
upstream: %s
tools:
  - {name: echo, class: read}
  - {name: trigger-long-running-operation, class: read}
  - {name: get-env, class: read}
---
kind: Agent
name: reader
owner: ana
purpose: reads
environment: prod
grants:
  - tools: [notes/read_note, everything/trigger-long-running-operation]
  - tools: [notes/count]
    when: context.args.to <= 10
  - tools: [everything/echo]
    when: context.args.message != "what nobody may hear"
---
kind: Agent
name: author
owner: ana
purpose: reads and writes
environment: prod
grants:
  - tools: [notes/read_note, notes/write_note]
`

// standing is in the note before any client but the author's came.
const standing = "what the author wrote"

var readNote = peers.Call{Name: "read_note", Arguments: map[string]any{"title": "minutes"}}

func writeNote(text string) peers.Call {
	return peers.Call{Name: "write_note", Arguments: map[string]any{"title": "minutes", "text": text}}
}

// visits are what each client does at a resource, and what it has to find there.
var visits = map[string]struct {
	tools []string
	calls []visitCall
}{
	"notes": {
		tools: []string{"count", "read_note"},
		calls: []visitCall{
			{call: readNote, text: standing},
			{call: peers.Call{Name: "count", Arguments: map[string]any{"to": 3}}, text: "counted to 3", steps: 3},
			{call: peers.Call{Name: "count", Arguments: map[string]any{"to": 11}}, code: counterfoil.PolicyForbids},
			{call: writeNote("what the reader wrote"), code: counterfoil.ToolNotGranted, unlisted: true},
			{call: peers.Call{Name: "forget_note"}, code: counterfoil.ToolUnknown, unlisted: true},
		},
	},
	"everything": {
		tools: []string{"echo", "trigger-long-running-operation"},
		calls: []visitCall{
			{call: peers.Call{Name: "echo", Arguments: map[string]any{"message": "the two halves match"}}, text: "the two halves match"},
			{call: peers.Call{Name: "trigger-long-running-operation", Arguments: map[string]any{"duration": 0.1, "steps": 4}}, text: "completed", steps: 4},
			{call: peers.Call{Name: "echo", Arguments: map[string]any{"message": "what nobody may hear"}}, code: counterfoil.PolicyForbids},
			{call: peers.Call{Name: "get-env"}, code: counterfoil.ToolNotGranted, unlisted: true},
			{call: peers.Call{Name: "get-sum", Arguments: map[string]any{"a": 1, "b": 2}}, code: counterfoil.ToolUnknown, unlisted: true},
		},
	},
}

// TestEveryClientSeesWhatItsAgentMayDo: each client that there is, over each
// transport and revision that it has, knows nothing of us, and finds the tools
// of its agent's grant, uses one, and reads why it may not use another.
func TestEveryClientSeesWhatItsAgentMayDo(t *testing.T) {
	t.Parallel()
	p := peers.Need(t)
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	sys.Apply(fmt.Sprintf(clientsManifest, recorded(t, sys, p.Notes(t)), recorded(t, sys, p.Everything(t))))

	author := overStdio(t, sys, "author", enroll(t, sys, "author", "ES256"), "notes")
	if s := p.MCP(t, author, writeNote(standing)); s.Calls[0].Text() != "wrote minutes" {
		t.Fatalf("the author's call answered %v", s.Calls[0])
	}

	const old, newest = "2025-11-25", "2026-07-28"
	rows := []struct {
		client    string
		converse  peers.Client
		resource  string
		transport string
		revision  string // agreed on; the inspector does not tell
	}{
		{"TypeScript SDK 1", p.MCP, "notes", "http", old},
		{"TypeScript SDK 1", p.MCP, "notes", "stdio", old},
		{"TypeScript SDK 1", p.MCP, "everything", "stdio", old},
		{"TypeScript SDK 2", p.MCP2("auto"), "notes", "http", newest},
		{"TypeScript SDK 2", p.MCP2("auto"), "notes", "stdio", newest},
		{"TypeScript SDK 2", p.MCP2("auto"), "everything", "http", old},
		{"TypeScript SDK 2", p.MCP2("auto"), "everything", "stdio", old},
		{"TypeScript SDK 2, insisting", p.MCP2(newest), "notes", "http", newest},
		{"TypeScript SDK 2, insisting", p.MCP2(newest), "notes", "stdio", newest},
		{"TypeScript SDK 2, with a handshake", p.MCP2("legacy"), "notes", "http", old},
		{"Go SDK", peers.GoSDK, "notes", "http", newest},
		{"Go SDK", peers.GoSDK, "notes", "stdio", newest},
		{"Go SDK", peers.GoSDK, "everything", "http", old},
		{"Go SDK", peers.GoSDK, "everything", "stdio", old},
		{"inspector", p.Inspector("legacy"), "everything", "http", ""},
		{"inspector", p.Inspector("legacy"), "notes", "stdio", ""},
		{"inspector, modern", p.Inspector("modern"), "notes", "http", ""},
	}
	key := enroll(t, sys, "reader", "Ed25519")
	addresses := map[string]peers.Address{}
	for resource := range visits {
		addresses[resource+" http"] = peers.Address{URL: connect(t, sys, "reader", key, resource)}
		addresses[resource+" stdio"] = overStdio(t, sys, "reader", key, resource)
	}
	t.Run("clients", func(t *testing.T) {
		for _, row := range rows {
			t.Run(fmt.Sprintf("%s, %s over %s", row.client, row.resource, row.transport), func(t *testing.T) {
				t.Parallel()
				visit := visits[row.resource]
				// The inspector calls nothing that it does not see.
				expected := slices.DeleteFunc(slices.Clone(visit.calls), func(c visitCall) bool { return c.unlisted && row.revision == "" })
				var calls []peers.Call
				for _, c := range expected {
					calls = append(calls, c.call)
				}
				s := row.converse(t, addresses[row.resource+" "+row.transport], calls...)
				if s.Refused != nil {
					t.Fatalf("the client did not connect: %+v", *s.Refused)
				}
				if s.Protocol != row.revision {
					t.Errorf("the revision is %q, want %q", s.Protocol, row.revision)
				}
				slices.Sort(s.Tools)
				if !slices.Equal(s.Tools, visit.tools) {
					t.Errorf("the tools are %q, want %q", s.Tools, visit.tools)
				}
				for i, want := range expected {
					if want.code == "" {
						wantAnswer(t, row.client, s.Calls[i], want.text)
					} else {
						wantRefusal(t, row.client, s.Calls[i], want.code)
					}
					if n := len(s.Calls[i].Progress); row.revision != "" && n != want.steps {
						t.Errorf("%s reported %d steps, want %d", want.call.Name, n, want.steps)
					}
				}
			})
		}
	})

	// A client that insists on what the server does not speak learns that it
	// does not.
	for _, transport := range []string{"http", "stdio"} {
		if s := p.MCP2(newest)(t, addresses["everything "+transport], readNote); s.Refused == nil || s.Refused.Code != "ERA_NEGOTIATION_FAILED" {
			t.Errorf("over %s a client that insists on %s got %+v (refused %+v)", transport, newest, s, s.Refused)
		}
	}

	// The refused writes wrote nothing, and the author can.
	s := p.MCP2(newest)(t, author, readNote, writeNote("what the author wrote then"), readNote)
	if before, after := s.Calls[0].Text(), s.Calls[2].Text(); before != standing || after != "what the author wrote then" {
		t.Errorf("the author read %q and then %q", before, after)
	}

	// Every call of every client is in the ledger, but what the inspector did
	// not even try.
	sent := map[string]int{}
	for _, row := range rows {
		for _, c := range visits[row.resource].calls {
			if row.revision != "" || !c.unlisted {
				sent[c.decision(row.resource)]++
			}
		}
	}
	if decided := decisions(sys, "reader"); !maps.Equal(decided, sent) {
		t.Errorf("the ledger has\n%v, want\n%v", decided, sent)
	}
	sys.CheckLedger()
}

// A visitCall is a call and what the client has to see of it.
type visitCall struct {
	call     peers.Call
	text     string           // of the answer, in part
	code     counterfoil.Code // of the refusal, if it is one
	steps    int              // of progress
	unlisted bool             // the tool is not in the agent's list
}

// decision is what the ledger says of the call.
func (v visitCall) decision(resource string) string {
	if v.code == "" {
		return resource + "/" + v.call.Name + " allow"
	}
	return fmt.Sprint(resource, "/", v.call.Name, " refuse ", v.code)
}

// decisions counts what the ledger says of an agent's tool calls.
func decisions(sys *counterfoiltest.System, agent string) map[string]int {
	n := map[string]int{}
	for _, e := range sys.Entries() {
		if e.Kind == ledger.CallDecided && e.Agent == agent && e.PayloadCommitment != "" {
			n[strings.TrimSpace(fmt.Sprint(e.Tool, " ", e.Decision, " ", e.Code))]++
		}
	}
	return n
}
