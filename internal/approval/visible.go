package approval

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Segment is a piece of text as it is shown. Text stands for itself; Code stands
// for a character that nobody would see, or that turns or moves what is around it.
type Segment struct {
	Text string `json:"text,omitzero"`
	Code string `json:"code,omitzero"` // such as U+202E
	Name string `json:"name,omitzero"` // what Code is

	// Lookalike marks a word that may not be what it looks like: letters of several
	// scripts, or of one that passes for Latin.
	Lookalike bool `json:"lookalike,omitzero"`

	// Value marks what the caller sent, in a sentence of the operator's.
	Value bool `json:"value,omitzero"`
}

// Visible divides a text so that what is hidden in it can be shown: bidirectional
// controls, zero-width and other characters without a face, controls, line ends,
// spaces that are not the space, tags. Put together again, the segments are the text,
// bytes that are no UTF-8 apart, which become U+FFFD.
func Visible(s string) []Segment {
	var out []Segment
	latin := hasLatin(s)
	text := func(t string, odd bool) {
		if t == "" {
			return
		}
		if n := len(out); n > 0 && !odd && out[n-1].Code == "" && !out[n-1].Lookalike {
			out[n-1].Text += t
			return
		}
		out = append(out, Segment{Text: t, Lookalike: odd})
	}
	start, word := 0, -1 // of the text and of the word that are under way
	flush := func(end int) {
		if word >= 0 && lookalike(s[word:end], latin) {
			text(s[start:word], false)
			text(s[word:end], true)
		} else {
			text(s[start:end], false)
		}
		start, word = end, -1
	}
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch name := hidden(r); {
		case r == utf8.RuneError && n == 1:
			flush(i)
			out = append(out, Segment{Code: "U+FFFD", Name: "bytes that are no text"})
			start = i + n
		case name != "":
			flush(i)
			out = append(out, Segment{Code: fmt.Sprintf("U+%04X", r), Name: name})
			start = i + n
		case unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsNumber(r) || styled(r):
			if word < 0 {
				flush(i)
				word = i
			}
		default:
			flush(i)
		}
		i += n
	}
	flush(len(s))
	return out
}

// hiddenNames are the characters that are met most; the others are named by kind.
var hiddenNames = map[rune]string{
	'\t': "tab", '\n': "line feed", '\r': "carriage return", 0: "null", 0x1b: "escape", 0x7f: "delete", 0x85: "next line",
	0xa0: "no-break space", 0xad: "soft hyphen", 0x34f: "combining grapheme joiner", 0x61c: "Arabic letter mark",
	0x115f: "Hangul filler", 0x1160: "Hangul filler", 0x3164: "Hangul filler", 0xffa0: "Hangul filler", 0x180e: "Mongolian vowel separator",
	0x200b: "zero width space", 0x200c: "zero width non-joiner", 0x200d: "zero width joiner",
	0x200e: "left-to-right mark", 0x200f: "right-to-left mark", 0x2028: "line separator", 0x2029: "paragraph separator",
	0x202a: "left-to-right embedding", 0x202b: "right-to-left embedding", 0x202c: "pop directional formatting",
	0x202d: "left-to-right override", 0x202e: "right-to-left override", 0x202f: "narrow no-break space",
	0x2060: "word joiner", 0x2066: "left-to-right isolate", 0x2067: "right-to-left isolate", 0x2068: "first strong isolate",
	0x2069: "pop directional isolate", 0x2800: "blank Braille pattern", 0x3000: "ideographic space", 0xfeff: "byte order mark", 0xfffd: "replacement character",
}

// hidden returns what a character is that must not be shown as itself; empty for all
// others.
func hidden(r rune) string {
	if name := hiddenNames[r]; name != "" {
		return name
	}
	switch {
	case r == ' ':
		return ""
	case r >= 0xe0000 && r <= 0xe007f:
		return "tag"
	case r >= 0xfe00 && r <= 0xfe0f, r >= 0xe0100 && r <= 0xe01ef, r >= 0x180b && r <= 0x180f:
		return "variation selector"
	case unicode.Is(unicode.Cc, r):
		return "control"
	case unicode.Is(unicode.Cf, r):
		return "format character"
	case unicode.Is(unicode.Co, r):
		return "private use"
	case unicode.Is(unicode.Z, r):
		return "space"
	case !unicode.IsPrint(r):
		return "unassigned"
	}
	return ""
}

// styled reports whether a character is a Latin letter or a digit in another dress:
// full width, mathematical, enclosed.
func styled(r rune) bool {
	return r >= 0xff01 && r <= 0xff5e || r >= 0x1d400 && r <= 0x1d7ff || r >= 0x2460 && r <= 0x24ff || r >= 0x1f100 && r <= 0x1f1ff
}

// scripts that share letter forms with Latin. A word of one of these and of Latin is
// no word of any language.
var scripts = []*unicode.RangeTable{
	unicode.Latin, unicode.Cyrillic, unicode.Greek, unicode.Armenian, unicode.Cherokee, unicode.Coptic, unicode.Lisu,
	unicode.Georgian, unicode.Hebrew, unicode.Arabic, unicode.Thai, unicode.Deseret, unicode.Osage,
}

// passes are letters of other scripts, and odd ones of Latin, that pass for the
// letters of ASCII (after Unicode Technical Standard 39, confusables).
const passes = "аАВеЕсСԁһНіІјЈКМоОрРѕЅТуУхХԛԜԝӏӀгкпвтьѵѴҮүЗз" + // Cyrillic
	"αΑΒΕΖΗΙικΚΜΝνοΟρΡΤυΥΧχγϲϹϳ" + // Greek
	"ıɑɡɩʟʏɪɴʀ" + // Latin
	"օՕսՍցոհղԼՏ" + // Armenian
	"ᎪᏴᏟᎠᎬᎻᎫᏦᏞᎷᏢᎡᏚᎢᏙᎳᏃ" // Cherokee

func hasLatin(s string) bool {
	for _, r := range s {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return true
		}
	}
	return false
}

// lookalike reports whether a word may not be what it looks like. latin says that the
// text around it is in Latin letters, where a foreign word that could be written with
// them stands out.
func lookalike(word string, latin bool) bool {
	seen, letters, passing := 0, 0, 0
	asciiDigit, otherDigit, ascii := false, false, true
	for _, r := range word {
		if r < utf8.RuneSelf {
			asciiDigit = asciiDigit || r >= '0' && r <= '9'
			if r >= 'A' {
				seen |= 1
				letters++
			}
			continue
		}
		ascii = false
		if styled(r) {
			return true
		}
		otherDigit = otherDigit || unicode.IsDigit(r)
		if !unicode.IsLetter(r) {
			continue
		}
		letters++
		for i, script := range scripts {
			if unicode.Is(script, r) {
				seen |= 1 << i
				break
			}
		}
		if strings.ContainsRune(passes, r) {
			passing++
		}
	}
	switch {
	case ascii:
		return false
	case seen&(seen-1) != 0, asciiDigit && otherDigit:
		return true
	case passing == 0:
		return false
	}
	// All of one script. Latin with an odd letter; or another, of which every letter
	// passes for Latin, beside Latin text or digits.
	return seen == 1 || passing == letters && (latin || asciiDigit)
}
