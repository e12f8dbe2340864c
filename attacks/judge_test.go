package attacks

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// A second judge of what people sign: canonical JSON, digests and challenges as the
// documents of the project describe them, written again without any of the product's
// code. Where the two disagree, one of them is wrong.

// canonicalJSON writes a value as RFC 8785 says. Numbers are what they stand for as
// doubles.
func canonicalJSON(t testing.TB, v any) string {
	t.Helper()
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case string:
		return canonicalString(v)
	case json.Number:
		f, err := strconv.ParseFloat(v.String(), 64)
		if err != nil {
			t.Fatalf("the number %s: %v", v, err)
		}
		return canonicalNumber(f)
	case int:
		return canonicalNumber(float64(v))
	case []any:
		var parts []string
		for _, e := range v {
			parts = append(parts, canonicalJSON(t, e))
		}
		return "[" + strings.Join(parts, ",") + "]"
	case map[string]any:
		var names []string
		for name := range v {
			names = append(names, name)
		}
		slices.SortFunc(names, func(a, b string) int { return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b))) })
		var parts []string
		for _, name := range names {
			parts = append(parts, canonicalString(name)+":"+canonicalJSON(t, v[name]))
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	t.Fatalf("%T is no value of JSON", v)
	return ""
}

// canonicalString is RFC 8785, Section 3.2.2.2.
func canonicalString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteString(`\` + string(r))
		case strings.ContainsRune("\b\t\n\f\r", r):
			b.WriteString(map[rune]string{'\b': `\b`, '\t': `\t`, '\n': `\n`, '\f': `\f`, '\r': `\r`}[r])
		case r < 0x20:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// canonicalNumber is what ECMAScript makes of a number (RFC 8785, Section 3.2.2.3).
func canonicalNumber(f float64) string {
	if f == 0 {
		return "0"
	}
	if a := max(f, -f); a >= 1e-6 && a < 1e21 {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	s := strconv.FormatFloat(f, 'e', -1, 64)
	mantissa, exponent, _ := strings.Cut(s, "e")
	return mantissa + "e" + exponent[:1] + strings.TrimLeft(exponent[1:], "0")
}

// parsedJSON reads JSON with its numbers as they are written.
func parsedJSON(t testing.TB, text []byte) any {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("reading %.200s: %v", text, err)
	}
	return v
}

func hashed(prefix, text string) string {
	sum := sha256.Sum256([]byte(prefix + text))
	return "sha-256:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

func unbase64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatalf("%.80q is not base64url: %v", s, err)
	}
	return b
}

// expectedCall is the call that people are asked about, made of what was sent. The
// tool's digest is the pinned one's.
func (o *office) expectedCall(agent, tool, toolDigest, arguments string) map[string]any {
	o.T.Helper()
	resource, name, _ := strings.Cut(tool, "/")
	return map[string]any{
		"v": 1, "aud": o.Issuer() + "/r/" + resource, "env": "prod", "resource": resource, "protocol": "mcp", "method": "tools/call",
		"target": name, "tool": tool, "tool_digest": toolDigest, "arguments": parsedJSON(o.T, []byte(arguments)),
		"agent": agent, "subject": agent, "absent": []any{"task"},
	}
}

// A verdict is what the second judge needs to know of an approval.
type verdict struct {
	id, agent, tool, arguments string // what was sent
	class                      map[string]any
	reasons                    map[string]string // by person, "" when absent
}

// judge recomputes everything about an approval from what was sent, what its viewer
// was shown and what the log says, and fails the test where any two disagree. It
// returns how many signatures it verified.
func (o *office) judge(v verdict) (signatures int) {
	t := o.T
	t.Helper()
	view := o.shown(v.id)
	statement, _ := view["statement"].(map[string]any)
	entries := o.Entries()
	var requested *ledger.Entry
	var signed []*ledger.Entry
	for _, e := range entries {
		switch {
		case e.Approval.ID != v.id:
		case e.Kind == ledger.ApprovalRequested:
			requested = e
		case e.Kind == ledger.ApprovalSigned:
			signed = append(signed, e)
		}
	}
	if requested == nil || statement == nil {
		t.Fatalf("the approval %s has no entry or no statement: %v", v.id, view)
	}
	equal := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Errorf("%s of %s: %v, and by the second judge %v", what, v.id, got, want)
		}
	}
	call := canonicalJSON(t, o.expectedCall(v.agent, v.tool, requested.ToolDigest, v.arguments))
	equal("the call", canonicalJSON(t, view["call"]), call)
	equal("call_digest", statement["call_digest"], hashed("counterfoil/call/1\n", call))
	equal("class_digest", statement["class_digest"], hashed("", canonicalJSON(t, v.class)))
	equal("template_digest", statement["template_digest"], hashed("", canonicalString(v.class["template"].(string))))
	equal("rendering_digest", statement["rendering_digest"], hashed("", canonicalJSON(t, view["rendering"])))
	equal("approval_id", statement["approval_id"], v.id)
	equal("the rule", canonicalJSON(t, statement["rule"]), canonicalJSON(t, view["rule"]))
	if n := len(unbase64(t, statement["nonce"].(string))); n != 16 || len(statement) != 11 {
		t.Errorf("the statement has a nonce of %d bytes and %d members: %v", n, len(statement), statement)
	}
	digest := hashed("counterfoil/approval/1\n", canonicalJSON(t, statement))
	equal("the digest that is shown", view["digest"], digest)
	equal("the digest in the log", requested.Detail["approval_digest"], digest)
	previous := []any{}
	for _, e := range signed {
		record, _ := e.Detail["record"].(map[string]any)
		o.judgeSignature(v, e, record, digest, previous, passkeyEntry(entries, e.Actor, record))
		previous = append(previous, hashed("counterfoil/signature/1\n", canonicalJSON(t, record)))
	}
	return len(signed)
}

// judgeSignature verifies one signature with nothing but the entry, the entry of the
// passkey's enrolment and what it has to be over.
func (o *office) judgeSignature(v verdict, e *ledger.Entry, record map[string]any, digest string, previous []any, enrolled *ledger.Entry) {
	t := o.T
	t.Helper()
	challenge, _ := record["challenge"].(map[string]any)
	assertion, _ := record["assertion"].(map[string]any)
	text := func(name string) string { s, _ := assertion[name].(string); return s }
	nonce, _ := challenge["ceremony"].(string)
	decision, _ := challenge["decision"].(string)
	want := map[string]any{
		"approval_digest": digest, "decision": decision, "approver": e.Actor, "previous": previous, "ceremony": nonce,
		"reason_digest": hashed("counterfoil/reason/1\n", v.reasons[e.Actor]),
	}
	if got, want := canonicalJSON(t, challenge), canonicalJSON(t, want); got != want || len(unbase64(t, nonce)) != 16 {
		t.Errorf("entry %d: the challenge's members are\n%s\nand by the second judge\n%s", e.Index, got, want)
	}
	sum := sha256.Sum256([]byte("counterfoil/ceremony/1\n" + canonicalJSON(t, want)))
	clientJSON := unbase64(t, text("clientDataJSON"))
	client, _ := parsedJSON(t, clientJSON).(map[string]any)
	if client["challenge"] != base64.RawURLEncoding.EncodeToString(sum[:]) || client["type"] != "webauthn.get" || client["origin"] != o.ManagementURL() {
		t.Errorf("entry %d: the client data is %s, and the challenge by the second judge %x", e.Index, clientJSON, sum)
	}
	data := unbase64(t, text("authenticatorData"))
	rp := sha256.Sum256([]byte("localhost"))
	if len(data) < 37 || !bytes.Equal(data[:32], rp[:]) || data[32]&5 != 5 {
		t.Errorf("entry %d: the authenticator data is %x: it has to be for this party, with UP and UV", e.Index, data)
		return
	}
	if enrolled == nil || fmt.Sprint(e.Detail["enrolled"]) != fmt.Sprint(enrolled.Index) {
		t.Errorf("entry %d: the passkey's enrolment is %v, the log has %+v", e.Index, e.Detail["enrolled"], enrolled)
		return
	}
	if got := fmt.Sprint(e.Detail["sign_count"]); got != fmt.Sprint(binary.BigEndian.Uint32(data[33:37])) {
		t.Errorf("entry %d: the sign count is %s", e.Index, got)
	}
	key := o.keyOf(e.Actor, text("id"))
	clientHash := sha256.Sum256(clientJSON)
	message := sha256.Sum256(append(slices.Clone(data), clientHash[:]...))
	if key == nil || !ecdsa.VerifyASN1(key, message[:], unbase64(t, text("signature"))) {
		t.Errorf("entry %d: the signature of %s does not verify", e.Index, e.Actor)
		return
	}
	point, err := key.Bytes()
	if cose := unbase64(t, enrolled.Detail["public_key"].(string)); err != nil || !bytes.Contains(cose, point[1:33]) || !bytes.Contains(cose, point[33:]) {
		t.Errorf("entry %d holds another key than the device: %x", enrolled.Index, cose)
	}
}

// passkeyEntry finds the entry of the passkey that a signature is by.
func passkeyEntry(entries []*ledger.Entry, person string, record map[string]any) *ledger.Entry {
	assertion, _ := record["assertion"].(map[string]any)
	for _, e := range entries {
		if e.Kind == ledger.PersonEnrolled && e.Actor == person && e.Detail["credential"] == assertion["id"] {
			return e
		}
	}
	return nil
}

// keyOf asks the person's own device for the key, not the product.
func (o *office) keyOf(person, id string) *ecdsa.PublicKey {
	for _, p := range []*counterfoiltest.Approver{o.bo, o.cy} {
		for _, k := range p.Device.Passkeys() {
			if p.Name == person && base64.RawURLEncoding.EncodeToString(k.ID) == id {
				return &k.Key.PublicKey
			}
		}
	}
	return nil
}

// shown reads an approval as the operator is shown it, numbers as they are written.
func (o *office) shown(id string) map[string]any {
	o.T.Helper()
	status, body := o.Admin("GET", "/api/v1/approvals/"+id, nil)
	view, ok := parsedJSON(o.T, body).(map[string]any)
	if !ok || status != 200 {
		o.T.Fatalf("the approval %s: HTTP %d %.300s", id, status, body)
	}
	return view
}
