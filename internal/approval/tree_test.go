package approval

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// at finds a node by the names and indices that lead to it.
func at(n *Node, path ...string) *Node {
	for _, key := range path {
		i := slices.IndexFunc(n.Children, func(c Node) bool { return c.Key == key })
		if i < 0 {
			return nil
		}
		n = &n.Children[i]
	}
	return n
}

func count(n *Node) int {
	total := 1
	for i := range n.Children {
		total += count(&n.Children[i])
	}
	return total
}

func canonical(t *testing.T, v any) []byte {
	t.Helper()
	b, err := ijson.Marshal(v)
	wantDone(t, err)
	return b
}

// zeros are something large, whose name is the first of the canonical order.
func zeros(n int) []int { return make([]int, n) }

// What an agent adds to a call pushes nothing out that is small, wherever that is.
func TestNothingIsPushedOut(t *testing.T) {
	t.Parallel()
	payee := map[string]any{"iban": "DE02 1203", "deep": map[string]any{"er": map[string]any{"still": "here"}}}
	long := strings.Repeat("x", 3*maxText)
	many := map[string]any{}
	for i := range 100 {
		many[fmt.Sprintf("a%02d", i)] = long
	}
	for name, around := range map[string]map[string]any{
		"a list":           {"a": zeros(100_000)},
		"lists":            {"a": zeros(3000), "b": zeros(3000), "c": zeros(3000)},
		"a list of lists":  {"a": [][]int{zeros(3000), zeros(3000), zeros(3000)}},
		"long texts":       {"a": []string{long, long, long, long, long, long, long, long, long, long, long, long, long, long, long, long, long, long}},
		"many long texts":  many,
		"hidden character": {"a": strings.Repeat("\u200b", maxText)},
		"a long name":      {"a" + long: 1},
		"nothing":          {},
	} {
		around["payee"] = payee
		call := canonical(t, map[string]any{"v": 1, "arguments": around, "tool": "bank/pay"})
		n, err := Tree(call)
		wantDone(t, err)
		for text, path := range map[string][]string{
			"DE02 1203": {"arguments", "payee", "iban"}, "here": {"arguments", "payee", "deep", "er", "still"}, "bank/pay": {"tool"},
		} {
			if got := at(n, path...); got == nil || plain(got.Text) != text || got.Length != 0 {
				t.Errorf("%s: %v is shown as %+v", name, path, got)
			}
		}
		if c := count(n); c > maxCost/nodeCost {
			t.Errorf("%s: %d nodes", name, c)
		}
	}
	// A list that does not fit is shown as whole elements and not as many beginnings.
	elements := make([]map[string]any, 3000)
	for i := range elements {
		elements[i] = map[string]any{"amount": i, "to": fmt.Sprint("DE", i)}
	}
	n, err := Tree(canonical(t, map[string]any{"arguments": map[string]any{"payments": elements}}))
	wantDone(t, err)
	got := at(n, "arguments", "payments")
	if len(got.Children) < 500 || got.More+len(got.Children) != 3000 || got.Digest == "" {
		t.Fatalf("%d are shown and %d are not", len(got.Children), got.More)
	}
	for i := range got.Children[:len(got.Children)-1] {
		if c := &got.Children[i]; c.More != 0 || plain(at(c, "to").Text) != fmt.Sprint("DE", i) {
			t.Fatalf("element %d is %+v", i, c)
		}
	}
}

// What is shown whole is the call, and what is not says so with its digest.
func TestTreeIsTheCall(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("line of a letter, äöü\n", 500)
	n, err := Tree(canonical(t, map[string]any{
		"b": []any{1, "1", nil, true, map[string]any{}, []any{}, ""}, "a/b": map[string]any{"~\u202e": 2.5}, "text": text, "long": text + text,
	}))
	wantDone(t, err)
	types := ""
	for i, c := range at(n, "b").Children {
		types += c.Type + " " + plain(c.Text) + ";"
		if c.Key != fmt.Sprint(i) {
			t.Errorf("an index is %q", c.Key)
		}
	}
	if types != "number 1;string 1;null null;boolean true;object ;array ;string ;" {
		t.Errorf("types: %s", types)
	}
	if got := at(n, "a/b", "~\u202e"); got == nil || plain(got.Name) != "~⟨U+202E⟩" || plain(got.Text) != "2.5" {
		t.Errorf("a name is %+v", got)
	}
	if got := at(n, "text"); got.Length != 0 || plain(got.Text) != strings.ReplaceAll(text, "\n", "⟨U+000A⟩") {
		t.Errorf("a text of %d bytes is cut: %d", len(text), got.Length)
	}
	long := at(n, "long")
	if shown := strings.ReplaceAll(plain(long.Text), "⟨U+000A⟩", "\n"); long.Length != 2*len(text) || long.Digest != digest("", []byte(text+text)) ||
		len(shown) > maxText || len(shown) < maxText-4 || !strings.HasPrefix(text+text, shown) {
		t.Errorf("of a long text %d of %d bytes are shown, digest %s", len(shown), long.Length, long.Digest)
	}
	for _, bad := range []string{"", "{", `{"a":}`, `["a"`} {
		if _, err := Tree([]byte(bad)); err == nil {
			t.Errorf("%q has a tree", bad)
		}
	}
}

// Nobody is asked to read what cannot be shown: where there is no template, a call
// that would be cut is refused, and one that just is not is asked about.
func TestWhatCannotBeShownIsNotAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("bo")
	ask := func(class string, arguments any) error {
		c := w.pay("100", "DE1", of(map[string]string{"credential-reset": "reset", "payout": "pay"}[class], class))
		c.Call = canonical(t, map[string]any{"v": 1, "arguments": arguments})
		_, err := w.Claim(t.Context(), c)
		return err
	}
	full := zeros((maxCost - 4*nodeCost) / (nodeCost + 1))
	for name, a := range map[string]struct{ fits, not any }{
		"a text": {strings.Repeat("x", maxText), strings.Repeat("x", maxText+1)},
		"a name": {map[string]any{strings.Repeat("x", maxName): 1}, map[string]any{strings.Repeat("x", maxName+1): 1}},
		"a list": {full, append(full, zeros(4)...)},
	} {
		before := w.store.Size()
		r := wantRefused(t, ask("credential-reset", a.not), counterfoil.PayloadTooLarge)
		if r.Approval != nil || w.store.Size() != before {
			t.Errorf("%s: something was asked: %+v", name, r.Approval)
		}
		id := wantRefused(t, ask("credential-reset", a.fits), counterfoil.ApprovalRequired).Approval.ID
		if v, err := w.View(t.Context(), "bo", id); err != nil || !v.NoTemplate || isCut(v.Tree) {
			t.Errorf("%s: %v, or it is cut", name, err)
		}
		// With a template there is a sentence to go by.
		wantRefused(t, ask("payout", a.not), counterfoil.ApprovalRequired)
	}
}

func isCut(n *Node) bool {
	return n.More > 0 || n.Length > 0 || slices.ContainsFunc(n.Children, func(c Node) bool { return isCut(&c) })
}

// What is said to be needed is exactly whose signature is taken.
func TestNeededIsWhoMaySign(t *testing.T) {
	t.Parallel()
	groups := []string{"a", "b", "c"}
	for _, conjuncts := range [][][]string{
		{{"a"}}, {{"a"}, {"b"}}, {{"a", "b"}, {"b"}}, {{"a", "b"}, {"b", "c"}}, {{"a"}, {"a"}}, {{"a"}, {"b"}, {"c"}}, {{"a", "b"}, {"a"}, {"c"}},
	} {
		for required := 1; required <= 3; required++ {
			rule := counterfoil.ApprovalRule{Groups: conjuncts, Required: required}
			for _, signers := range [][][]string{
				nil, {{"a"}}, {{"b"}}, {{"a", "b"}}, {{"b", "c"}}, {{"a", "b", "c"}}, {{"a"}, {"b"}}, {{"a", "b"}, {"a"}}, {{"a", "c"}, {"a", "b"}},
			} {
				got := needed(&rule, signers)
				if len(got) != missing(&rule, signers) {
					t.Errorf("%v of %d, signed %v: %v are needed, %d are missing", conjuncts, required, signers, got, missing(&rule, signers))
				}
				for _, g := range groups {
					named := slices.ContainsFunc(got, func(seat []string) bool { return slices.Contains(seat, g) })
					brings := slices.ContainsFunc(conjuncts, func(c []string) bool { return slices.Contains(c, g) }) &&
						missing(&rule, append(slices.Clone(signers), []string{g})) < missing(&rule, signers)
					if named != brings {
						t.Errorf("%v of %d, signed %v: %s is named: %v, helps: %v (%v)", conjuncts, required, signers, g, named, brings, got)
					}
				}
			}
		}
	}
}
