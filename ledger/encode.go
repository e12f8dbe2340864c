package ledger

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil/ijson"
)

const (
	// MaxText is the most of one text member that is recorded, in bytes.
	// Longer text is cut and says how long it was, so that what a caller sends
	// can neither fill the log nor keep a refusal from being recorded.
	MaxText = 8 << 10

	// MaxEntry is the size of the largest entry, in bytes.
	MaxEntry = 1 << 20

	maxInteger = 1<<53 - 1 // RFC 7493, Section 2.2
)

// A Draft is an entry that is encoded but for its index and its time, which
// only the log knows: callers encode side by side, and the one goroutine that
// orders entries merely fills in the two.
type Draft struct {
	text  []byte
	index int // where the index goes
	time  int // where the time goes, within its quotes
}

// Prepare encodes an entry but for its index and its time. An entry without a
// kind, with an integer beyond ±(2^53−1), or whose detail is not I-JSON or is
// too large, is an error: what cannot be recorded must not happen.
func Prepare(e *Entry) (Draft, error) {
	if e.Kind == "" {
		return Draft{}, errors.New("encoding an entry: it has no kind")
	}
	w := encoder{b: make([]byte, 0, 1024)}
	index, at := w.entry(e)
	if w.err != nil {
		return Draft{}, fmt.Errorf("encoding a %s entry: %w", e.Kind, w.err)
	}
	if len(w.b) > MaxEntry-64 {
		return Draft{}, fmt.Errorf("encoding a %s entry: it has %d bytes, more than %d", e.Kind, len(w.b), MaxEntry)
	}
	w.b[0] = '{'
	return Draft{text: append(w.b, '}'), index: index, time: at}, nil
}

// AppendTo appends the entry's bytes to dst. The time must be of the form of
// FormatTime.
func (d Draft) AppendTo(dst []byte, index int64, time string) []byte {
	dst = append(dst, d.text[:d.index]...)
	dst = strconv.AppendInt(dst, index, 10)
	dst = append(dst, d.text[d.index:d.time]...)
	dst = append(dst, time...)
	return append(dst, d.text[d.time:]...)
}

// Encode returns the entry's one encoding (RFC 8785): the bytes that are
// hashed into the tree.
func Encode(e *Entry) ([]byte, error) {
	d, err := Prepare(e)
	if err != nil {
		return nil, err
	}
	if e.Index < 0 || e.Index > maxInteger {
		return nil, fmt.Errorf("encoding a %s entry: index %d is out of range", e.Kind, e.Index)
	}
	if _, err := ParseTime(e.Time); err != nil {
		return nil, fmt.Errorf("encoding a %s entry: %w", e.Kind, err)
	}
	return d.AppendTo(make([]byte, 0, len(d.text)+48), e.Index, e.Time), nil
}

// Parse reads an entry. Members that this version does not know are passed
// over, because a log outlives its programs. What it returns is as
// trustworthy as where b comes from: check the tree first.
func Parse(b []byte) (*Entry, error) {
	var e Entry
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, fmt.Errorf("reading an entry: %w", err)
	}
	if e.Kind == "" {
		return nil, errors.New("reading an entry: it has no kind")
	}
	return &e, nil
}

// Commitment is what an entry says of a payload that is kept beside the tree:
// the payload can be shown to be the one that was decided on, and erasing it,
// salt included, leaves nothing to guess it from.
func Commitment(salt, payload []byte) string {
	h := sha256.New()
	h.Write(salt)
	h.Write(payload)
	var sum [sha256.Size]byte
	return "sha-256:" + base64.RawURLEncoding.EncodeToString(h.Sum(sum[:0]))
}

// An encoder appends members, each with a comma before it; the first comma
// becomes the brace.
type encoder struct {
	b   []byte
	err error
}

// entry writes the members in the order of their names, as RFC 8785, Section
// 3.2.3, has it, and returns where index and time go. A test compares the
// outcome with a canonicalizer that knows nothing of this list.
func (w *encoder) entry(e *Entry) (index, at int) {
	w.text("actor", e.Actor)
	w.list("actors", e.Actors)
	w.text("agent", e.Agent)
	if !e.Approval.zero() {
		w.approval(&e.Approval)
	}
	w.text("binding", e.Binding)
	w.text("class", e.Class)
	w.text("code", string(e.Code))
	w.text("decision", e.Decision)
	w.detail(e.Detail)
	w.integer("epoch", e.Epoch)
	w.name("index")
	index = len(w.b)
	w.text("instance", e.Instance)
	w.text("jkt", e.JKT)
	w.text("kind", string(e.Kind))
	w.integer("latency_us", e.LatencyUS)
	if e.Kind == CallFinished && e.Of == 0 {
		w.name("of")
		w.b = append(w.b, '0')
	}
	w.integer("of", e.Of)
	w.text("on_behalf_of", e.OnBehalfOf)
	w.text("outcome", e.Outcome)
	w.text("owner", e.Owner)
	w.text("payload_commitment", e.PayloadCommitment)
	w.text("policy_digest", e.PolicyDigest)
	w.text("proof", e.Proof)
	w.text("reason", e.Reason)
	w.text("request_id", e.RequestID)
	w.text("resource", e.Resource)
	w.list("scope", e.Scope)
	w.list("scope_requested", e.ScopeRequested)
	if e.Source != (Source{}) {
		w.source(&e.Source)
	}
	w.text("task", e.Task)
	w.text("tier", e.Tier)
	w.name("time")
	w.b = append(w.b, '"')
	at = len(w.b)
	w.b = append(w.b, '"')
	w.text("token_jti", e.TokenJTI)
	w.text("tool", e.Tool)
	w.text("tool_digest", e.ToolDigest)
	if e.View != (View{}) {
		w.view(&e.View)
	}
	return index, at
}

func (w *encoder) approval(a *Approval) {
	start := w.open("approval")
	w.text("id", a.ID)
	w.list("signers", a.Signers)
	w.text("state", a.State)
	w.close(start)
}

func (w *encoder) source(s *Source) {
	start := w.open("source")
	w.text("address", s.Address)
	w.text("environment", s.Environment)
	w.close(start)
}

func (w *encoder) view(v *View) {
	start := w.open("view")
	w.integer("age", v.Age)
	w.integer("seq", v.Seq)
	w.close(start)
}

// open begins an object that has at least one member.
func (w *encoder) open(name string) (start int) {
	w.name(name)
	return len(w.b)
}

func (w *encoder) close(start int) {
	w.b[start] = '{'
	w.b = append(w.b, '}')
}

func (w *encoder) name(name string) {
	w.b = append(w.b, ',', '"')
	w.b = append(w.b, name...)
	w.b = append(w.b, '"', ':')
}

func (w *encoder) integer(name string, v int64) {
	if v == 0 {
		return
	}
	if v > maxInteger || v < -maxInteger {
		w.err = fmt.Errorf("%s is %d, beyond ±(2^53−1)", name, v)
		return
	}
	w.name(name)
	w.b = strconv.AppendInt(w.b, v, 10)
}

func (w *encoder) text(name, v string) {
	if v == "" {
		return
	}
	w.name(name)
	w.b = appendString(w.b, v)
}

func (w *encoder) list(name string, v []string) {
	if len(v) == 0 {
		return
	}
	w.name(name)
	start := len(w.b)
	for _, s := range v {
		w.b = append(w.b, ',')
		w.b = appendString(w.b, s)
	}
	w.b[start] = '['
	w.b = append(w.b, ']')
}

// detail is the slow way: json marshals, ijson makes it canonical. Few entries
// have one, and none on the path of a routine call.
func (w *encoder) detail(v map[string]any) {
	if len(v) == 0 || w.err != nil {
		return
	}
	b, err := json.Marshal(v, jsontext.AllowInvalidUTF8(true)) // which replaces it
	if err != nil {
		w.err = fmt.Errorf("detail: %w", err)
		return
	}
	b, err = ijson.Canonical(b)
	if err != nil {
		w.err = fmt.Errorf("detail: %w", err)
		return
	}
	w.name("detail")
	w.b = append(w.b, b...)
}

const hexDigits = "0123456789abcdef"

// plain is what stands for itself in a string: printable ASCII but for the
// quote and the backslash.
var plain = func() (t [256]bool) {
	for c := ' '; c <= '~'; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// appendString writes a string as RFC 8785, Section 3.2.2.2, has it: control
// characters are escaped, so a record has no line break and no terminal
// sequence of C0; everything else stands for itself. Invalid UTF-8 becomes
// U+FFFD.
func appendString(b []byte, s string) []byte {
	cut := 0
	if len(s) > MaxText {
		cut, s = len(s), head(s, MaxText)
	}
	b = append(b, '"')
	for i := 0; i < len(s); {
		start := i
		for i < len(s) && plain[s[i]] {
			i++
		}
		b = append(b, s[start:i]...)
		if i < len(s) {
			var n int
			b, n = appendOdd(b, s[i:])
			i += n
		}
	}
	if cut > 0 {
		b = append(b, "… ("...)
		b = strconv.AppendInt(b, int64(cut), 10)
		b = append(b, " bytes)"...)
	}
	return append(b, '"')
}

// appendOdd writes the first character of s, which is not plain, and returns
// how many bytes it has.
func appendOdd(b []byte, s string) ([]byte, int) {
	switch c := s[0]; c {
	case '"', '\\':
		return append(b, '\\', c), 1
	case '\b':
		return append(b, '\\', 'b'), 1
	case '\t':
		return append(b, '\\', 't'), 1
	case '\n':
		return append(b, '\\', 'n'), 1
	case '\f':
		return append(b, '\\', 'f'), 1
	case '\r':
		return append(b, '\\', 'r'), 1
	case 0x7f:
		return append(b, c), 1
	default:
		if c < ' ' {
			return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15]), 1
		}
	}
	r, n := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && n == 1 {
		return append(b, "\ufffd"...), 1
	}
	return append(b, s[:n]...), n
}

// head returns at most n bytes of s, cut between characters where s is UTF-8.
func head(s string, n int) string {
	for i := n; i > n-utf8.UTFMax; i-- {
		if utf8.RuneStart(s[i]) {
			return s[:i]
		}
	}
	return s[:n]
}

// AppendText appends a text as entries hold it, quotes included: what to look
// for in the bytes of entries.
func AppendText(dst []byte, s string) []byte { return appendString(dst, s) }
