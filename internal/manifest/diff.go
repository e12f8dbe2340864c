package manifest

import (
	"fmt"
	"reflect"
	"strings"
)

const (
	diffContext = 3
	maxDiff     = 2000 // lines; beyond it everything counts as changed
)

// Diff compares two nouns of one kind as manifests, in the unified form; either
// may be nil. It is empty when they say the same.
func Diff(before, after any) string {
	a, nameA := diffLines(before)
	b, nameB := diffLines(after)
	ops := compareLines(a, b)
	var out strings.Builder
	for start := 0; start < len(ops); {
		for start < len(ops) && ops[start].op == ' ' {
			start++
		}
		if start == len(ops) {
			break
		}
		// A hunk goes on until there is more context than two hunks would show.
		end, same := start, 0
		for i := start; i < len(ops) && same <= 2*diffContext; i++ {
			if same++; ops[i].op != ' ' {
				same, end = 0, i+1
			}
		}
		if out.Len() == 0 {
			fmt.Fprintf(&out, "--- %s\n+++ %s\n", nameA, nameB)
		}
		writeHunk(&out, ops[max(0, start-diffContext):min(len(ops), end+diffContext)])
		start = end
	}
	return out.String()
}

// diffLines returns the lines of a noun's manifest.
func diffLines(noun any) (lines []string, name string) {
	if v := reflect.ValueOf(noun); !v.IsValid() || (v.Kind() == reflect.Pointer && v.IsNil()) {
		return nil, "/dev/null"
	}
	kind, id := NameOf(noun)
	b, err := Format(noun)
	if err != nil {
		return []string{"# " + strings.ReplaceAll(err.Error(), "\n", " ")}, kind + "/" + id
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n"), kind + "/" + id
}

// A line is one line of a comparison: op is ' ', '-' or '+'; a and b are how many
// lines of each side come before it.
type line struct {
	op   byte
	text string
	a, b int
}

func writeHunk(out *strings.Builder, hunk []line) {
	var a, b int
	for _, l := range hunk {
		if l.op != '+' {
			a++
		}
		if l.op != '-' {
			b++
		}
	}
	fmt.Fprintf(out, "@@ -%s +%s @@\n", diffRange(hunk[0].a, a), diffRange(hunk[0].b, b))
	for _, l := range hunk {
		fmt.Fprintf(out, "%c%s\n", l.op, l.text)
	}
}

func diffRange(before, n int) string {
	if n == 0 {
		return fmt.Sprintf("%d,0", before)
	}
	if n == 1 {
		return fmt.Sprint(before + 1)
	}
	return fmt.Sprintf("%d,%d", before+1, n)
}

// compareLines finds a longest common subsequence.
func compareLines(a, b []string) []line {
	if len(a) > maxDiff || len(b) > maxDiff {
		if len(a) == len(b) && strings.Join(a, "\n") == strings.Join(b, "\n") {
			return nil
		}
		return replaceAll(a, b)
	}
	common := make([][]uint16, len(a)+1)
	for i := range common {
		common[i] = make([]uint16, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out []line
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, line{' ', a[i], i, j})
			i, j = i+1, j+1
		case j == len(b) || (i < len(a) && common[i+1][j] >= common[i][j+1]):
			out = append(out, line{'-', a[i], i, j})
			i++
		default:
			out = append(out, line{'+', b[j], i, j})
			j++
		}
	}
	return out
}

func replaceAll(a, b []string) []line {
	var out []line
	for i, s := range a {
		out = append(out, line{'-', s, i, 0})
	}
	for j, s := range b {
		out = append(out, line{'+', s, len(a), j})
	}
	return out
}
