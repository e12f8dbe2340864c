package counterfoil

import "testing"

// A largest matching is found where taking the first that fits finds a smaller one.
func TestMatched(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		fits [][]int // candidates of each demand
		most int
		want int
	}{
		{nil, 0, 0},
		{nil, 3, 0},
		{[][]int{{}}, 2, 0},
		{[][]int{{0}, {0}}, 2, 1},
		{[][]int{{0, 1}, {0}}, 2, 2},
		{[][]int{{0, 1}, {0, 2}, {0}}, 3, 3},
		{[][]int{{0, 1}, {0, 1}, {0, 1}, {2}}, 3, 3},
	} {
		got := Matched(len(tt.fits), tt.most, func(d, c int) bool {
			for _, fit := range tt.fits[d] {
				if fit == c {
					return true
				}
			}
			return false
		})
		if got != tt.want {
			t.Errorf("%v: %d, want %d", tt.fits, got, tt.want)
		}
	}
}

// Whoever approves what is forbidden decides on changes only where hardly anybody
// approves what cannot be undone; two records of one human are one.
func TestChangeGroups(t *testing.T) {
	t.Parallel()
	people := func(groups ...string) *Registry {
		r := NewRegistry()
		r.Classes["payout"] = &Class{Name: "payout", Tier: Irreversible, Approvers: [][]string{{"finance"}}}
		r.Classes["wipe"] = &Class{Name: "wipe", Tier: Forbidden, Approvers: [][]string{{"board"}}}
		r.Classes["reset"] = &Class{Name: "reset", Tier: Guarded, Approvers: [][]string{{"support"}}}
		for i, g := range groups {
			name := string(rune('a' + i))
			r.People[name] = &Person{Name: name, Email: name + "@example.com", Groups: []string{g}}
		}
		return r
	}
	one := people("finance", "finance", "board")
	one.People["b"].Email = "A+other@example.com"
	for name, tt := range map[string]struct {
		r       *Registry
		groups  string
		members int
	}{
		"two":       {people("finance", "finance", "board", "support"), "finance", 2},
		"one":       {people("finance", "board"), "board finance", 2},
		"one human": {one, "board finance", 3},
		"nobody":    {people("support"), "board finance", 0},
	} {
		groups := tt.r.ChangeGroups()
		text := ""
		for i, g := range groups {
			if i > 0 {
				text += " "
			}
			text += g
		}
		if members := tt.r.Members(groups); text != tt.groups || len(members) != tt.members {
			t.Errorf("%s: %q, %d people", name, text, len(members))
		}
	}
}
