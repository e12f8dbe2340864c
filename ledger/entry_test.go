package ledger

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/counterfoil/counterfoil/ijson"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 123456789, time.UTC)

// full has every member.
func full() *Entry {
	return &Entry{
		Index: 41, Time: FormatTime(noon), Kind: CallFinished, RequestID: "req_1", Agent: "payroll", Owner: "ana", Instance: "ins_1",
		JKT: "jkt", Binding: "dpop", TokenJTI: "tok_1", Proof: "proof", Epoch: 1763726400000, View: View{Seq: 40, Age: 3},
		OnBehalfOf: "ana", Actors: []string{"payroll", "planner"}, Actor: "uid:0", Task: "tsk_1", Resource: "bank", Tool: "bank/pay",
		ToolDigest: "sha-256:x", Class: "payout", Tier: "irreversible", ScopeRequested: []string{"pay"}, Scope: []string{"pay", "get_balance"},
		PayloadCommitment: "sha-256:y", PolicyDigest: "sha-256:z", Decision: Allow, Code: "approval_required",
		Approval: Approval{ID: "apr_1", State: "spent", Signers: []string{"bo", "cy"}},
		Source:   Source{Address: "127.0.0.1", Environment: "prod"}, Of: 40, Outcome: "done", LatencyUS: 812, Reason: "because",
		Detail: map[string]any{"b": 1.5, "a": []any{"x", nil, true}, "n": float64(1 << 53 / 2)},
	}
}

func mustEncode(t testing.TB, e *Entry) []byte {
	t.Helper()
	b, err := Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEncodingIsCanonical(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]*Entry{
		"full":    full(),
		"minimal": {Time: FormatTime(noon), Kind: ServerStarted},
	} {
		b := mustEncode(t, e)
		canonical, err := ijson.Canonical(b)
		if err != nil {
			t.Fatalf("%s: %v in %s", name, err, b)
		}
		if !bytes.Equal(b, canonical) {
			t.Errorf("%s:\n%s\nis not canonical:\n%s", name, b, canonical)
		}
		back, err := Parse(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(e, back); diff != "" {
			t.Errorf("%s: read back (-wrote +read):\n%s", name, diff)
		}
	}
}

// The hand-written list of members must be that of the type: a member that one
// has and the other has not would be lost, or break every reader.
func TestEncodingHasEveryMember(t *testing.T) {
	t.Parallel()
	plain, err := json.Marshal(full(), json.Deterministic(true))
	if err != nil {
		t.Fatal(err)
	}
	canonical, err := ijson.Canonical(plain)
	if err != nil {
		t.Fatal(err)
	}
	if b := mustEncode(t, full()); !bytes.Equal(b, canonical) {
		t.Errorf("Encode gives\n%s\njson gives\n%s", b, canonical)
	}
}

func TestOfIsAlwaysThereWhenACallEnds(t *testing.T) {
	t.Parallel()
	b := mustEncode(t, &Entry{Time: FormatTime(noon), Kind: CallFinished, Outcome: "done"})
	if !bytes.Contains(b, []byte(`"of":0`)) {
		t.Errorf("the end of call 0 does not say so: %s", b)
	}
}

// AU5: whatever a caller gets into a text, the record stays one line of
// well-formed JSON.
func TestHostileTextStaysOneRecord(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"CR LF":              "a\r\n{\"index\":7}\r\nb",
		"ANSI":               "\x1b[2J\x1b[31mred\x07",
		"quotes":             `"}` + "\n" + `{"kind":"x"}\`,
		"NUL":                "a\x00b",
		"DEL":                "a\x7fb",
		"line separators":    "a\u2028b\u2029c\u0085d",
		"noncharacter":       "\uffff\U0010ffff",
		"replacement itself": "a\ufffdb",
	} {
		e := &Entry{Time: FormatTime(noon), Kind: CallDecided, Reason: text, Agent: text, Scope: []string{text}, Detail: map[string]any{"t": text}}
		b := mustEncode(t, e)
		if i := bytes.IndexFunc(b, func(r rune) bool { return r < ' ' }); i >= 0 {
			t.Errorf("%s: a control character in %q", name, b)
		}
		back, err := Parse(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if back.Reason != text || back.Agent != text || back.Scope[0] != text || back.Detail["t"] != text {
			t.Errorf("%s: read back as %q", name, back.Reason)
		}
	}
}

func TestInvalidUTF8IsReplaced(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a\xffb":       "a\ufffdb",
		"\xc3":         "\ufffd",
		"\xed\xa0\x80": "\ufffd\ufffd\ufffd", // a lone surrogate
		"\xf0\x9f\x98": "\ufffd\ufffd\ufffd",
		"ok\u00e9":     "ok\u00e9",
	} {
		b := mustEncode(t, &Entry{Time: FormatTime(noon), Kind: CallDecided, Reason: text, Detail: map[string]any{"t": text}})
		back, err := Parse(b)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if back.Reason != want {
			t.Errorf("%q is read back as %q", text, back.Reason)
		}
		if s, _ := back.Detail["t"].(string); !strings.Contains(s, "\ufffd") && strings.Contains(want, "\ufffd") {
			t.Errorf("%q in a detail is read back as %q", text, s)
		}
	}
}

func TestLongTextIsCut(t *testing.T) {
	t.Parallel()
	exact := strings.Repeat("é", MaxText/2)
	b := mustEncode(t, &Entry{Time: FormatTime(noon), Kind: CallDecided, Reason: exact, Tool: "x" + exact + strings.Repeat("y", 1<<20)})
	back, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if back.Reason != exact {
		t.Error("a text of MaxText bytes was cut")
	}
	if want := "x" + exact[:MaxText-2] + "… (1056769 bytes)"; back.Tool != want {
		t.Errorf("a longer one ends with %q, want %q", back.Tool[len(back.Tool)-30:], want[len(want)-30:])
	}
}

func TestWhatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	good := func() *Entry { return &Entry{Time: FormatTime(noon), Kind: CallDecided, Epoch: 1<<53 - 1} }
	if _, err := Encode(good()); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Entry){
		"no kind":           func(e *Entry) { e.Kind = "" },
		"large integer":     func(e *Entry) { e.Epoch++ },
		"small integer":     func(e *Entry) { e.LatencyUS = -1 << 53 },
		"large detail":      func(e *Entry) { e.Detail = map[string]any{"t": strings.Repeat("x", MaxEntry)} },
		"inexact in detail": func(e *Entry) { e.Detail = map[string]any{"n": int64(1<<53 + 1)} },
		"channel in detail": func(e *Entry) { e.Detail = map[string]any{"c": make(chan int)} },
		"no time":           func(e *Entry) { e.Time = "" },
		"time with offset":  func(e *Entry) { e.Time = "2026-11-21T12:00:00+01:00" },
		"time in seconds":   func(e *Entry) { e.Time = "2026-11-21T12:00:00Z" },
		"negative index":    func(e *Entry) { e.Index = -1 },
	} {
		e := good()
		spoil(e)
		if b, err := Encode(e); err == nil {
			t.Errorf("%s: encoded as %.100s", name, b)
		}
	}
}

func TestTimesSortAsText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		span := rapid.Int64Range(0, 4_000_000_000_000_000)
		a, b := time.UnixMicro(span.Draw(t, "a")), time.UnixMicro(span.Draw(t, "b"))
		if (FormatTime(a) < FormatTime(b)) != a.Before(b) {
			t.Fatalf("%s and %s sort otherwise than the times", FormatTime(a), FormatTime(b))
		}
		back, err := ParseTime(FormatTime(a))
		if err != nil || !back.Equal(a) {
			t.Fatalf("%s is read as %s, %v", FormatTime(a), back, err)
		}
	})
}

func TestAnyEntryIsCanonicalAndScans(t *testing.T) {
	t.Parallel()
	text := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
	rapid.Check(t, func(t *rapid.T) {
		e := &Entry{
			Index: rapid.Int64Range(0, maxInteger).Draw(t, "index"), Time: FormatTime(noon), Kind: CallDecided,
			Agent: text.Draw(t, "agent"), Tool: text.Draw(t, "tool"), Reason: text.Draw(t, "reason"),
			Actors: rapid.SliceOf(text).Draw(t, "actors"), Epoch: rapid.Int64Range(-maxInteger, maxInteger).Draw(t, "epoch"),
			View: View{Age: rapid.Int64Range(0, 9).Draw(t, "age")}, Source: Source{Address: text.Draw(t, "address")},
		}
		if rapid.Bool().Draw(t, "detail") {
			e.Detail = map[string]any{text.Draw(t, "name"): text.Draw(t, "value"), "index": 5, "inner": map[string]any{"time": "x"}}
		}
		b, err := Encode(e)
		if err != nil {
			t.Skip(err) // a detail's name that I-JSON does not allow
		}
		canonical, err := ijson.Canonical(b)
		if err != nil || !bytes.Equal(b, canonical) {
			t.Fatalf("%s is not canonical: %v", b, err)
		}
		index, at, err := place(b)
		if err != nil || index != e.Index || string(at) != e.Time {
			t.Fatalf("the place in %s is %d %s, %v", b, index, at, err)
		}
		back, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		err = Members(b, func(name, value []byte) bool {
			if string(name) == "agent" && Text(value) != back.Agent {
				t.Fatalf("agent %q is scanned as %q", back.Agent, Text(value))
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		again, err := Encode(back)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%s is encoded again as %s, %v", b, again, err)
		}
	})
}

func TestMembersRefusesWhatEncodeDoesNotWrite(t *testing.T) {
	t.Parallel()
	if err := Members([]byte(`{"a":"\\\"","b":{"c":["}",1]},"d":null}`), func(_, _ []byte) bool { return true }); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"", "{", "}", "{}", "[]", "null", `{"a"}`, `{"a":}`, `{"a":1`, `{"a":1}}`, `{"a":1}x`, `{"a":1,}`, `{,"a":1}`, `{"a":1 "b":2}`,
		`{"a":"x}`, `{"a":"x\"}`, `{"a":1,"a":2}`, `{"b":1,"a":2}`, `{ "a":1}`, `{"a" :1}`, `{"a":{}`, `{"a":]}`, `{"a\"":1}`, `{"a":"b"c"d"}`,
	} {
		if err := Members([]byte(bad), func(_, _ []byte) bool { return true }); err == nil {
			t.Errorf("%s passes", bad)
		}
	}
}

func FuzzMembers(f *testing.F) {
	f.Add(mustEncode(f, full()))
	f.Add([]byte(`{"a":"\\","b":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var names int
		err := Members(b, func(_, value []byte) bool {
			names++
			Text(value)
			return len(value) > 0
		})
		if err == nil && names == 0 {
			t.Errorf("%q passes without a member", b)
		}
	})
}

func FuzzEncode(f *testing.F) {
	f.Add("payroll", "a\r\n\x1b[2J\xff", int64(7))
	f.Fuzz(func(t *testing.T, agent, reason string, epoch int64) {
		b, err := Encode(&Entry{Time: FormatTime(noon), Kind: CallDecided, Agent: agent, Reason: reason, Epoch: epoch % maxInteger})
		if err != nil {
			t.Fatal(err)
		}
		canonical, err := ijson.Canonical(b)
		if err != nil || !bytes.Equal(b, canonical) {
			t.Errorf("%q is not canonical: %v", b, err)
		}
	})
}

func BenchmarkPrepare(b *testing.B) {
	e := full()
	e.Detail = nil
	at := FormatTime(noon)
	buf := make([]byte, 0, 2048)
	b.ReportAllocs()
	for b.Loop() {
		d, err := Prepare(e)
		if err != nil {
			b.Fatal(err)
		}
		buf = d.AppendTo(buf[:0], 1234567, at)
	}
}
