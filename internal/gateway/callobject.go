package gateway

import (
	"fmt"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// protocolMCP is the protocol of a canonical call that came over MCP.
const protocolMCP = "mcp"

// A callObject is one call as people allow it: everything that makes it this call
// and no other. Its canonical JSON (RFC 8785) is what digests are over. An optional
// member that is absent is left out and listed by its name, so that nothing absent
// is taken for something empty.
type callObject struct {
	Aud        string `json:"aud"` // the resource's identifier
	Env        string `json:"env"`
	Resource   string `json:"resource"` // its name
	Protocol   string `json:"protocol"`
	Method     string `json:"method"`
	Target     string `json:"target"` // what Mcp-Name mirrors: a tool's or prompt's name, a resource's URI
	Tool       string `json:"tool"`   // resource/tool
	ToolDigest string `json:"tool_digest,omitzero"`
	Agent      string `json:"agent"`
	Subject    string `json:"subject"`
	Task       string `json:"task,omitzero"`

	arguments []byte // canonical; nil when the client sent none
	headers   []byte // canonical; of HTTP alone
}

// encode writes the object.
func (o *callObject) encode() ([]byte, error) {
	var absent []byte
	optional := func(name string, there bool) {
		if there {
			return
		}
		if absent != nil {
			absent = append(absent, ',')
		}
		absent = append(absent, quote(name)...)
	}
	optional("arguments", o.arguments != nil)
	if o.Protocol == protocolHTTP {
		optional("headers", o.headers != nil)
	}
	optional("task", o.Task != "")
	optional("tool_digest", o.ToolDigest != "")

	// In the order of RFC 8785, Section 3.2.3.
	b := append(make([]byte, 0, len(o.arguments)+512), '{')
	b = appendMember(b, "absent", append(append([]byte{'['}, absent...), ']'))
	b = appendMember(b, "agent", quote(o.Agent))
	if o.arguments != nil {
		b = appendMember(b, "arguments", o.arguments)
	}
	for _, m := range []struct{ name, value string }{
		{"aud", o.Aud}, {"env", o.Env}, {"headers", ""}, {"method", o.Method}, {"protocol", o.Protocol}, {"resource", o.Resource},
		{"subject", o.Subject}, {"target", o.Target}, {"task", o.Task}, {"tool", o.Tool}, {"tool_digest", o.ToolDigest},
	} {
		switch {
		case m.name == "headers" && o.headers != nil:
			b = appendMember(b, m.name, o.headers)
		case m.name != "headers" && (m.value != "" || m.name != "task" && m.name != "tool_digest"):
			b = appendMember(b, m.name, quote(m.value))
		}
	}
	b = append(appendMember(b, "v", []byte("1")), '}')
	// What is written by hand above is held against the one encoder of canonical
	// JSON: people sign its digest.
	canonical, err := ijson.Canonical(b)
	if err != nil {
		return nil, fmt.Errorf("writing the canonical call: %w", err)
	}
	if string(canonical) != string(b) {
		return nil, fmt.Errorf("writing the canonical call: it is not canonical")
	}
	return b, nil
}

// readCallObject reads what encode wrote, as it is kept.
func readCallObject(b []byte) (*callObject, error) {
	var o struct {
		Absent []string `json:"absent"`
		V      int      `json:"v"`
		callObject
		Arguments any `json:"arguments,omitzero"`
	}
	if err := ijson.Unmarshal(b, &o); err != nil {
		return nil, fmt.Errorf("reading a kept call: %w", err)
	}
	if o.V != 1 || o.Protocol != protocolMCP {
		return nil, fmt.Errorf("reading a kept call: version %d of protocol %q is not known", o.V, o.Protocol)
	}
	o.arguments = find(split(b), "arguments")
	return &o.callObject, nil
}

// object returns the call as people would allow it.
func (c *mcpCall) object() *callObject {
	o := &callObject{
		Aud: c.url, Env: c.resource.Environment, Resource: c.resource.Name, Protocol: protocolMCP,
		Method: c.message.name, Target: c.message.target(), Tool: c.toolID().String(),
		Agent: c.caller.Agent, Subject: c.caller.Subject, Task: c.caller.Task,
	}
	if c.def != nil {
		o.ToolDigest = c.def.digest
	}
	if c.message.method.tool == theNamedTool {
		o.arguments = find(c.message.params, "arguments")
	} else {
		o.arguments = c.payload
	}
	return o
}

// toolID names what is called: a tool, or the resource's resources or prompts.
func (c *mcpCall) toolID() counterfoil.ToolID {
	id := counterfoil.ToolID{Resource: c.resource.Name, Tool: c.message.method.tool}
	if id.Tool == theNamedTool {
		id.Tool = c.message.target()
	}
	return id
}
