package gateway

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// A session id opens for its own agent, task and resource, as it was sealed,
// and nothing else opens; nor does an event of another session.
func FuzzSession(f *testing.F) {
	seal, err := newSealer(bytes.Repeat([]byte{7}, keySize))
	if err != nil {
		f.Fatal(err)
	}
	own := session{ID: "upstream", Revision: "2025-11-25", Resource: "bank", Agent: "payroll", Task: "tsk_1"}
	good, err := seal.seal(own)
	if err != nil {
		f.Fatal(err)
	}
	event := seal.sealEvent(&own, "7")
	f.Add(good, "payroll", "tsk_1", "bank", event)
	f.Add(good, "treasury", "tsk_1", "bank", event+"A")
	f.Add(good[:len(good)-1], "payroll", "tsk_1", "crm", ".")
	f.Fuzz(func(t *testing.T, id, agent, task, resource, sealed string) {
		open, err := seal.open(id, resource, &counterfoil.Caller{Agent: agent, Task: task})
		if err == nil && (*open != own || agent != own.Agent || task != own.Task || resource != own.Resource) {
			t.Errorf("%q opens as %+v for %s, %s at %s", id, open, agent, task, resource)
		}
		// Sealing twice gives two ids, so this one is not known to be the first's;
		// but of what opens no character can be changed.
		if err == nil {
			at := len(sealed) % len(id)
			bent := id[:at] + string("AB"[id[at]&1]) + id[at+1:]
			if _, err := seal.open(bent, resource, &counterfoil.Caller{Agent: agent, Task: task}); err == nil && bent != id {
				t.Errorf("%q opens, and so does %q", id, bent)
			}
		}
		if err != nil && counterfoil.CodeOf(err) != counterfoil.ToolUnknown {
			t.Errorf("%v", err)
		}
		if got, err := seal.openEvent(&own, sealed); err == nil && (sealed != event || got != "7") {
			t.Errorf("%q opens as the event %q", sealed, got)
		}
		other := session{ID: id, Revision: own.Revision, Resource: resource, Agent: agent, Task: task}
		if got, err := seal.openEvent(&other, event); err == nil && other != own {
			t.Errorf("the event %q opens in %+v", got, other)
		}
		again := seal.sealEvent(&other, sealed)
		if got, err := seal.openEvent(&other, again); err != nil || got != sealed {
			t.Errorf("the event %q comes back as %q: %v", sealed, got, err)
		}
	})
}

// A definition that is taken is pinned by the digest of one canonical text,
// whose mirrors are headers; a schema that cannot be used refuses, and what it
// refuses is said without the arguments.
func FuzzReadDefinition(f *testing.F) {
	f.Add([]byte(`{"name":"pay","inputSchema":{"type":"object","properties":{"amount":{"type":"number"},"to":{"type":"string","x-mcp-header":"To"}},"required":["to"]}}`), []byte(`{"to":"acme","amount":1}`))
	f.Add([]byte(`{"name":"pay","inputSchema":{"$ref":"#","allOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"$ref":"#/$defs/a"}}}}`), []byte(`{}`))
	f.Add([]byte(`{"name":"pay","inputSchema":{"pattern":"(a+)+$"},"outputSchema":{}}`), []byte(`{"x":"y"}`))
	f.Add([]byte(`{"name":"pay","inputSchema":true}`), []byte(`{"x":null}`))
	f.Fuzz(func(t *testing.T, raw, arguments []byte) {
		name, d, err := readDefinition(raw)
		if err != nil {
			return
		}
		if counterfoil.CheckToolName(name) != nil || !strings.HasPrefix(d.Digest, "sha-256:") {
			t.Fatalf("%q is read as %q, %s", raw, name, d.Digest)
		}
		if canonical, err := ijson.Canonical(d.JSON); err != nil || !bytes.Equal(canonical, d.JSON) {
			t.Fatalf("%q is pinned as %q: %v", raw, d.JSON, err)
		}
		again, same, err := readDefinition(d.JSON)
		if err != nil || again != name || same.Digest != d.Digest || len(same.mirrors) != len(d.mirrors) {
			t.Fatalf("%q is pinned as %q, which reads otherwise: %v", raw, d.JSON, err)
		}
		args, err := ijson.Canonical(arguments)
		if err != nil || args[0] != '{' {
			return
		}
		for _, m := range d.mirrors {
			if v, ok := m.value(args); ok {
				if back, ok := decodeHeader(encodeHeader(v)); !ok || back != v {
					t.Fatalf("%q is mirrored and read as %q", v, back)
				}
			}
		}
		if d.Unusable() != "" && d.input.check(name, args) == nil {
			t.Fatalf("%q cannot be used and allows %s", raw, args)
		}
		if err := d.input.check(name, args); err != nil {
			if _, ok := counterfoil.AsRefusal(err); !ok {
				t.Fatalf("%v is no refusal", err)
			}
		}
	})
}

// A mirroring header stands for one value, which is written as one header line.
func FuzzDecodeHeader(f *testing.F) {
	for _, s := range []string{"get_balance", "=?base64?w6Q=?=", "=?base64?w6Q?=", " a", "=?base64??=", "a\tb", "=?BASE64?eA==?=", "=?base64?w\n6Q=?="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if value, ok := decodeHeader(s); ok {
			if text, encoded := strings.CutPrefix(s, encodedPrefix); encoded && strings.HasSuffix(s, encodedSuffix) && len(s) >= len(encodedPrefix)+len(encodedSuffix) {
				if base64.StdEncoding.EncodeToString([]byte(value)) != strings.TrimSuffix(text, encodedSuffix) {
					t.Errorf("%q has a second spelling: %q", value, s)
				}
			} else if value != s {
				t.Errorf("%q is read as %q", s, value)
			}
		}
		h := encodeHeader(s)
		if strings.ContainsAny(h, "\r\n\x00") {
			t.Errorf("%q is written as %q", s, h)
		}
		if back, ok := decodeHeader(h); !ok || back != s {
			t.Errorf("%q is written as %q and read as %q", s, h, back)
		}
	})
}

// Whatever an upstream answers, one answer to the one request is found or none.
func FuzzReadAnswer(f *testing.F) {
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}`), false)
	f.Add([]byte("data: {\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"id\":9}\n\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n"), true)
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"id":2,"result":{}}`), false)
	f.Fuzz(func(t *testing.T, body []byte, stream bool) {
		r := &reply{Response: &http.Response{Header: http.Header{"Content-Type": {typeJSON}}, Body: io.NopCloser(bytes.NewReader(body))}}
		if stream {
			r.Header.Set("Content-Type", typeStream)
		}
		m, err := readAnswer(r, []byte("1"))
		if err == nil && (string(m.ID) != "1" || m.Result == nil && m.Error == nil) {
			t.Errorf("%q is taken for the answer %+v", body, m)
		}
	})
}
