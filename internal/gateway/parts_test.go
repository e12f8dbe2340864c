package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/outbound"
)

func TestSplitAndJoin(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{}`, `{"a":1}`, `{"a":{"b":[1,{"c":"}"}]},"d":"\"\\","e":[]}`, `{"":null,"\\":"{","a":-1.5e+30,"b":true}`,
	} {
		canonical, err := ijson.Canonical([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := join(split(canonical)); !bytes.Equal(got, canonical) {
			t.Errorf("%s came back as %s", canonical, got)
		}
	}
	for _, text := range []string{``, `{`, `[]`, `{"`, `{"a`, `{"a"`, `{"a":`, `{"a":"`, `{"a":[`, `{"a\`, `"a"`, `{"a":1,`} {
		split([]byte(text)) // of no use, but no panic
	}
}

func TestEventsAreReadAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	const sent = ": hello\n\nevent: message\r\nid: 1\r\nretry: 10\r\ndata: {\r\ndata: }\r\n\r\n\n\ndata\n\nevent: odd name\ndata:x\nunknown: y\nretry: 1x\nid: a\x00b\n\ndata: never ended\n"
	r := newEventReader(strings.NewReader(sent), 1<<10)
	var got []byte
	for {
		ev, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = ev.append(got)
	}
	const want = ":\n\nevent: message\nid: 1\nretry: 10\ndata: {\ndata: }\n\ndata: \n\ndata: x\n\n"
	if string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, tc := range []struct{ name, text string }{
		{"a long line", "data: " + strings.Repeat("x", 2<<10) + "\n\n"},
		{"many lines", strings.Repeat("data: xxxxxxxxxxxxxxxx\n", 100) + "\n"},
		{"a line without end", strings.Repeat("x", 1<<20)},
		{"a CR alone", "data: a\rdata: b\n\n"},
	} {
		if _, err := newEventReader(strings.NewReader(tc.text), 1<<10).next(); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestSealedSessions(t *testing.T) {
	t.Parallel()
	s, err := newSealer(bytes.Repeat([]byte{1}, keySize))
	if err != nil {
		t.Fatal(err)
	}
	caller := counterfoil.Caller{Agent: "a", Task: "t"}
	id, err := s.seal(session{ID: "x", Revision: revision20251125, Resource: "bank", Agent: "a", Task: "t"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.seal(session{ID: "x", Revision: revision20251125, Resource: "bank", Agent: "a", Task: "t"})
	if err != nil || id == again || !isSessionID(id) {
		t.Errorf("sealed as %q and %q, %v", id, again, err)
	}
	open, err := s.open(id, "bank", &caller)
	if err != nil || open.ID != "x" {
		t.Fatalf("opened as %+v, %v", open, err)
	}
	other, err := newSealer(bytes.Repeat([]byte{2}, keySize))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.open(id, "bank", &caller); err == nil {
		t.Error("another key opens it")
	}
	if _, err := s.open(id, "crm", &caller); err == nil {
		t.Error("it opens at another resource")
	}
	for i := range id {
		b := []byte(id)
		b[i] ^= 4
		if _, err := s.open(string(b), "bank", &caller); err == nil {
			t.Errorf("it opens with a change at %d", i)
		}
	}
	event := s.sealEvent(open, "e\n1")
	if got, err := s.openEvent(open, event); err != nil || got != "e\n1" || strings.ContainsAny(event, "\n") {
		t.Errorf("the event %q opens as %q, %v", event, got, err)
	}
	for _, o := range []session{
		{ID: "y", Resource: "bank", Agent: "a", Task: "t"}, {ID: "x", Resource: "bank", Agent: "at", Task: ""}, {ID: "x", Resource: "bank2", Agent: "a", Task: "t"},
	} {
		if _, err := s.openEvent(&o, event); err == nil {
			t.Errorf("the event opens in %+v", o)
		}
	}
	if _, err := newSealer(make([]byte, keySize-1)); err == nil {
		t.Error("a short key is taken")
	}
}

func TestMirroredHeaders(t *testing.T) {
	t.Parallel()
	// The examples of MCP 2026-07-28, Streamable HTTP, Value Encoding.
	for value, header := range map[string]string{
		"us-west1":              "us-west1",
		"Hello, 世界":             "=?base64?SGVsbG8sIOS4lueVjA==?=",
		" padded ":              "=?base64?IHBhZGRlZCA=?=",
		"line1\nline2":          "=?base64?bGluZTEKbGluZTI=?=",
		"=?base64?literal?=":    "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=",
		"":                      "",
		"a\r\nX-Injected: true": "=?base64?YQ0KWC1JbmplY3RlZDogdHJ1ZQ==?=",
	} {
		if got := encodeHeader(value); got != header {
			t.Errorf("%q is encoded as %q", value, got)
		}
		if got, ok := decodeHeader(header); !ok || got != value {
			t.Errorf("%q is decoded as %q", header, got)
		}
	}
	for _, bad := range []string{"=?base64?SGVsbG8?=", "=?base64?SGVsbG9=?=", "=?base64? ?=", "\u00e4", "a\x00"} {
		if _, ok := decodeHeader(bad); ok {
			t.Errorf("%q is taken", bad)
		}
	}
	if !sameNumber("42.0", "42") || !sameNumber("4.2e1", "42") || sameNumber("42.5", "42") || sameNumber("x", "x") || sameNumber("", "") {
		t.Error("numbers are compared wrongly")
	}
}

func TestDefinitionsAreReadStrictly(t *testing.T) {
	t.Parallel()
	name, d, err := readDefinition([]byte(`{"inputSchema":{"type":"object","properties":{"a\"b":{"type":"string","x-mcp-header":"A"},"bad":{"x-mcp-header":"B C"},
		"list":{"items":{"properties":{"x":{"x-mcp-header":"Lost"}}}}}}, "name":"pay","outputSchema":{}}`))
	if err != nil || name != "pay" || !d.output || len(d.mirrors) != 1 || d.mirrors[0].header != "Mcp-Param-A" {
		t.Fatalf("got %q %+v, %v", name, d, err)
	}
	if v, ok := d.mirrors[0].value([]byte(`{"a\"b":"x"}`)); !ok || v != "x" {
		t.Errorf("the value is %q", v)
	}
	for _, v := range []string{`{}`, `{"a\"b":null}`, `{"a\"b":[1]}`, `{"a\"b":1.5}`} {
		if got, ok := d.mirrors[0].value([]byte(v)); ok {
			t.Errorf("the value of %s is %q", v, got)
		}
	}
	_, same, err := readDefinition([]byte(`{"name":"pay","outputSchema":{},"inputSchema":{"properties":{"list":{"items":{"properties":{"x":{"x-mcp-header":"Lost"}}}},"bad":{"x-mcp-header":"B C"},"a\u0022b":{"x-mcp-header":"A","type":"string"}},"type":"object"}}`))
	if err != nil || same.Digest != d.Digest || !strings.HasPrefix(d.Digest, "sha-256:") {
		t.Errorf("the digest depends on how it is written: %s, %s, %v", d.Digest, same.Digest, err)
	}
	for _, bad := range []string{`{}`, `{"name":1}`, `{"name":"a b"}`, `{"name":"a","name":"b"}`, `{"name":"a","Name":"b"}`, `[]`, `{"name":""}`} {
		if name, _, err := readDefinition([]byte(bad)); err == nil {
			t.Errorf("%s is taken as %q", bad, name)
		}
	}
}

// The transport of who brings none does not dial what is never an upstream.
func TestUpstreamsAreNotLinkLocal(t *testing.T) {
	t.Parallel()
	up := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(up.Close)
	for address, ok := range map[string]bool{
		up.URL: true, "http://169.254.169.254": false, "http://[::ffff:169.254.169.254]": false, "http://[fe80::1%25lo]": false, "http://100.100.100.200": false, "http://[fd00:ec2::254]": false,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := newTransport().RoundTrip(req); errors.Is(err, outbound.ErrRefused) == ok || (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestMetadataURL(t *testing.T) {
	t.Parallel()
	for identifier, want := range map[string]string{
		"https://gw.example/r/bank":    "https://gw.example/.well-known/oauth-protected-resource/r/bank",
		"https://gw.example/cf/r/bank": "https://gw.example/.well-known/oauth-protected-resource/cf/r/bank",
		"https://bank.example:8443":    "https://bank.example:8443/.well-known/oauth-protected-resource",
		"https://bank.example/":        "https://bank.example/.well-known/oauth-protected-resource",
	} {
		if got := metadataURL(identifier); got != want {
			t.Errorf("%s: %s", identifier, got)
		}
	}
}

// FuzzReadMessage: whatever is accepted is forwarded as canonical JSON with
// nothing but known members, and reads the same again.
func FuzzReadMessage(f *testing.F) {
	for _, s := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":[1,"\u00e9"]},"_meta":{"progressToken":1,"x":2}}}`,
		`{"jsonrpc":"2.0","id":"a","method":"prompts/get","params":{"name":"a","arguments":{}}}`,
		`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`,
		`{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}`,
		`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"tasks":{},"roots":{}}}}`,
		`[{}]`, `{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := readMessage(body)
		if err != nil {
			if _, ok := counterfoil.AsRefusal(err); !ok {
				t.Fatalf("%v is no refusal", err)
			}
			return
		}
		for _, era := range []era{modern, sessions} {
			out := m.encode(era, false)
			canonical, err := ijson.Canonical(out)
			if err != nil || !bytes.Equal(canonical, out) {
				t.Fatalf("%q is forwarded as %q: %v", body, out, err)
			}
			again, err := readMessage(out)
			if err != nil {
				t.Fatalf("%q is forwarded as %q, which is refused: %v", body, out, err)
			}
			if got := again.encode(era, false); !bytes.Equal(got, out) || !bytes.Equal(again.arguments(), m.arguments()) || again.name != m.name || again.target() != m.target() {
				t.Fatalf("%q is forwarded as %q and reads as %q", body, out, got)
			}
		}
		if args := m.arguments(); args != nil {
			if canonical, err := ijson.Canonical(args); err != nil || !bytes.Equal(canonical, args) {
				t.Fatalf("%q is decided on as %q: %v", body, args, err)
			}
		}
	})
}

// FuzzEvents: whatever an upstream streams, what the client reads is what we
// wrote.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("event: message\nid: 1\ndata: {}\ndata: x\n\n: c\n\nretry: 5\n\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		read := func(b []byte) (out []byte) {
			r := newEventReader(bytes.NewReader(b), 1<<16)
			for {
				ev, err := r.next()
				if err != nil {
					return out
				}
				out = ev.append(out)
			}
		}
		once := read(stream)
		if twice := read(once); !bytes.Equal(once, twice) {
			t.Fatalf("%q is written as %q, which reads as %q", stream, once, twice)
		}
	})
}
