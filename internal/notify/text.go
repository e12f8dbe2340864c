package notify

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxSentence is how many characters of a sentence are told. Whoever has to decide
// reads all of it in the console.
const maxSentence = 500

// visible writes what cannot be seen, or reorders or joins what can, as its code
// point: a sentence holds what a sender wrote, and a message must not read
// otherwise than the page does.
func visible(s string, most int) string {
	var b strings.Builder
	n := 0
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		i += size
		if n++; n > most {
			b.WriteString("…")
			break
		}
		switch {
		case r == utf8.RuneError && size == 1, r != ' ' && (unicode.IsSpace(r) || !unicode.IsPrint(r)):
			fmt.Fprintf(&b, "[U+%04X]", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// title is the first line of a message.
func (m *Message) title() string {
	what := visible(m.Tool, 300)
	switch m.Event {
	case eventRequested:
		return visible(m.Agent, 100) + " asks for " + what
	case "signed":
		return what + ": a person signed"
	case "closed":
		return what + ": " + visible(m.State, 50)
	case eventChangeProposed:
		return "A change of who may approve, or of what needs approval, waits"
	case eventPasskeyReset:
		return "A passkey is to be added or replaced"
	}
	return visible(m.Event, 50) + ": " + what
}

// lines are the facts of a message, each as name and value.
func (m *Message) lines() [][2]string {
	var out [][2]string
	add := func(name, value string) {
		if value != "" {
			out = append(out, [2]string{name, visible(value, 300)})
		}
	}
	add("Agent", m.Agent)
	add("Tool", m.Tool)
	add("Class", m.Class)
	add("Tier", m.Tier)
	add("Task", m.Task)
	add("Purpose (in the agent's words)", m.Purpose)
	add("State", m.State)
	if !m.Expires.IsZero() {
		name := "Decide by"
		if m.Event == eventChangeProposed || m.Event == eventPasskeyReset {
			name = "Takes effect by itself"
		}
		add(name, m.Expires.UTC().Format(time.RFC3339))
	}
	add("Approval", m.Approval)
	add("Digest", m.Digest)
	return out
}

// text is a message as plain text. It says what to do with it, which is to look.
func (m *Message) text() string {
	var b strings.Builder
	b.WriteString(m.title() + "\n\n")
	if m.Sentence != "" {
		b.WriteString(m.Sentence + "\n\n") // made visible when it was taken
	}
	for _, l := range m.lines() {
		fmt.Fprintf(&b, "%s: %s\n", l[0], l[1])
	}
	if m.URL != "" {
		fmt.Fprintf(&b, "\n%s\n", m.URL)
	}
	b.WriteString("\nThis message approves nothing. Whoever decides does so on that page, with a passkey.\n")
	return b.String()
}
