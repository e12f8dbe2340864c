package authority

import (
	"slices"
	"strings"

	"github.com/counterfoil/counterfoil/credential"
)

// What people report is cut out of something: a difference, a quotation, an indented
// block, an address. These undo what that does to a secret, once and in one pass, and
// guess no more: whatever comes of it has to prove itself as a whole all the same.

// unescaped returns a text with its percent-encoding undone, where it is one (RFC 3986,
// Section 2.1).
func unescaped(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && unhex(s[i+1]) >= 0 && unhex(s[i+2]) >= 0 {
			out = append(out, byte(unhex(s[i+1])<<4|unhex(s[i+2])))
			i += 2
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}

func unhex(c byte) int { return strings.IndexByte("0123456789abcdef", c|0x20) }

// margins are the characters before a line in a difference, a quotation or a block.
const margins = " \t+->"

// straight returns a PEM block as it was before each of its lines was given a margin,
// or all of them were put on one. Its margin is the one before its last line; without
// that a line that begins with "+" would lose it. In files of settings the ends of lines
// are written out.
func straight(block string) string {
	block = strings.NewReplacer(`\r`, "", `\n`, "\n").Replace(block)
	const dashes = "-----"
	end := strings.LastIndex(block, dashes+"END ")
	begin := strings.Index(block[len(dashes):], dashes) + 2*len(dashes)
	if end < begin {
		return block
	}
	lines := strings.Split(block[begin:end], "\n")
	margin := ""
	if len(lines) > 1 {
		margin = lines[len(lines)-1]
		lines = lines[:len(lines)-1]
	}
	var b strings.Builder
	b.WriteString(block[:begin] + "\n")
	for _, line := range lines {
		if rest, ok := strings.CutPrefix(line, margin); ok {
			line = rest
		} else if len(line) >= len(margin) && strings.Trim(line[:len(margin)], margins) == "" {
			line = line[len(margin):] // in a difference, of another kind of line
		}
		b.WriteString(strings.TrimSpace(line) + "\n")
	}
	b.WriteString(block[end:])
	return b.String()
}

// signatureSizes are the lengths of signatures in base64url, which say where a token
// that goes over several lines ends.
var signatureSizes = []int{86, 128, 342, 512, 683}

// minPiece is how much of a token is on a line of its own, at least, for it to begin
// there.
const minPiece = 16

// rejoined returns the tokens that go over several lines of a text.
func rejoined(s string) []string {
	var found []string
	tried := 0
	for rest := s; tried < maxParsed && len(found) < maxLeaks; {
		i := strings.Index(rest, "eyJ")
		if i < 0 {
			break
		}
		rest = rest[i:]
		piece, whole := pieceOf(rest)
		var e end
		if e.after(piece); len(piece) >= minPiece && whole && !e.may() {
			tried++
			if token := rejoin(rest, marginOf(s, len(s)-len(rest))); token != "" {
				found = append(found, token)
			}
		}
		rest = rest[len(piece):]
	}
	return found
}

// marginOf is what the line of a text begins with in which a place is.
func marginOf(s string, at int) string {
	line := s[strings.LastIndexByte(s[:at], '\n')+1 : at]
	return line[:len(line)-len(strings.TrimLeft(line, margins))]
}

// pieceOf is the part of a token that a text begins with, and whether it is all of its
// line.
func pieceOf(s string) (piece string, whole bool) {
	n := strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	})
	if n < 0 {
		return s, false // the last line
	}
	after := strings.TrimLeft(s[n:], " \t\r\\")
	return s[:n], strings.HasPrefix(after, "\n")
}

// An end says of the pieces of a token that came so far whether it may end there.
type end struct{ dots, last int }

func (e *end) after(piece string) {
	e.dots += strings.Count(piece, ".")
	if i := strings.LastIndexByte(piece, '.'); i >= 0 {
		e.last, piece = 0, piece[i+1:]
	}
	e.last += len(piece)
}

func (e *end) may() bool { return e.dots == 2 && slices.Contains(signatureSizes, e.last) }

// rejoin returns the token that s begins with, whose first line has that margin.
func rejoin(s, margin string) string {
	var b strings.Builder
	var e end
	for b.Len() <= credential.MaxToken {
		piece, whole := pieceOf(s)
		b.WriteString(piece)
		if e.after(piece); e.may() {
			return b.String()
		}
		if piece == "" || !whole {
			return ""
		}
		_, s, _ = strings.Cut(s, "\n")
		s = afterMargin(s, margin)
	}
	return ""
}

// afterMargin takes a margin off a line, as far as it is there, and what is indented
// further: "-" is a character of tokens too.
func afterMargin(line, margin string) string {
	for _, c := range []byte(margin) {
		if line != "" && (line[0] == c || c != ' ' && c != '\t' && (line[0] == '+' || line[0] == ' ')) {
			line = line[1:]
		}
	}
	return strings.TrimLeft(line, " \t")
}
