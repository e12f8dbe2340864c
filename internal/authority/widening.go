package authority

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// A Widening is one way in which a change of the registry lets somebody approve who
// could not, or lets something happen with less than people had to say before.
type Widening struct {
	What    string   `json:"what"`    // the document, such as "Class payout"
	Why     string   `json:"why"`     // one clause
	Classes []string `json:"classes"` // whose calls it concerns, sorted
}

// String returns "what: why".
func (w Widening) String() string { return w.What + ": " + w.Why }

// widening says what in a change of the registry widens who may approve actions
// that cannot be undone, or lessens what they need. It is pure, and in the order of
// kinds and names.
//
// A class is protected when it is irreversible or forbidden before the change. A
// forbidden one is, because otherwise two steps that nobody waits for would do what
// one may not: forbidden, and from there to routine.
//
// What narrows is not in it, and neither are grants: they say what an agent may ask
// for, not who says yes.
func widening(before, after *counterfoil.Registry) []Widening {
	w := &widener{before: before, after: after, protected: map[string]bool{}}
	for name, c := range before.Classes {
		if protects(c) {
			w.protected[name] = true
		}
	}
	if len(w.protected) == 0 {
		return nil
	}
	w.people()
	for _, name := range slices.Sorted(maps.Keys(w.protected)) {
		if c := after.Classes[name]; c != nil {
			for _, why := range looser(before.Classes[name], c) {
				w.add(counterfoil.KindClass, name, why, name)
			}
		}
	}
	w.tools()
	w.agents()
	w.policies()
	return w.found
}

// protects reports whether a class needs what may not be lessened by one
// administrator at once.
func protects(c *counterfoil.Class) bool { return c != nil && c.Tier <= counterfoil.Irreversible }

type widener struct {
	before, after *counterfoil.Registry
	protected     map[string]bool // classes
	found         []Widening
}

func (w *widener) add(kind, name, why string, classes ...string) {
	slices.Sort(classes)
	w.found = append(w.found, Widening{What: kind + " " + name, Why: why, Classes: slices.Compact(classes)})
}

// people looks at who is in a group that approves, and at whose mailbox tells
// people apart.
func (w *widener) people() {
	before, after := changeSigners(w.before), changeSigners(w.after)
	for _, name := range slices.Sorted(maps.Keys(w.after.People)) {
		old, p := w.before.People[name], w.after.People[name]
		if old == nil {
			old = &counterfoil.Person{Name: name, Email: p.Email}
		}
		found := len(w.found)
		for _, g := range p.Groups {
			if classes := w.approvedBy(g); len(classes) > 0 && !slices.Contains(old.Groups, g) {
				w.add(counterfoil.KindPerson, name, fmt.Sprintf("joins %s, whose people approve %s", g, strings.Join(classes, ", ")), classes...)
			}
		}
		if old.Mailbox() != p.Mailbox() {
			// Whoever reads the mail of an approver is somebody else now, and two
			// records that were one human may be two. The same for an owner, whose
			// other record may not approve either.
			classes := append(w.approvedByPerson(old), w.ownedBy(name)...)
			if len(classes) > 0 {
				w.add(counterfoil.KindPerson, name, "gets another mailbox, by which one human is told from another", classes...)
			}
		}
		// Whoever approves one irreversible class can sign for changes of another:
		// a class of one's own, with people of one's own, must not be a way round.
		if len(w.found) == found && after[name] != nil && before[name] == nil {
			classes := groupsApprove(w.after, p.Groups, protects)
			w.add(counterfoil.KindPerson, name, fmt.Sprintf("becomes an approver of %s, and so of changes like this one", strings.Join(classes, ", ")), classes...)
		}
	}
	w.signers(before, after)
}

// signers looks at whether two people are left who could sign for changes, and say no
// to them. Otherwise whoever takes the others away first, which narrows, would then
// change what they please without anybody who is asked.
func (w *widener) signers(before, after map[string]*counterfoil.Person) {
	left := counterfoil.Humans(slices.Collect(maps.Values(after)))
	if left >= 2 || left >= counterfoil.Humans(slices.Collect(maps.Values(before))) {
		return
	}
	who := "nobody"
	if left > 0 {
		who = "only " + strings.Join(slices.Sorted(maps.Keys(after)), ", ")
	}
	w.found = append(w.found, Widening{
		What: "The change", Why: fmt.Sprintf("leaves %s to sign for changes, or to say no to them", who), Classes: slices.Sorted(maps.Keys(w.protected)),
	})
}

// changeSigners returns who may sign for a change.
func changeSigners(r *counterfoil.Registry) map[string]*counterfoil.Person {
	out := map[string]*counterfoil.Person{}
	for _, p := range r.Members(r.ChangeGroups()) {
		out[p.Name] = p
	}
	return out
}

// groupsApprove returns the classes of that kind which name one of the groups.
func groupsApprove(r *counterfoil.Registry, groups []string, which func(*counterfoil.Class) bool) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(r.Classes)) {
		c := r.Classes[name]
		if which(c) && slices.ContainsFunc(slices.Concat(c.Approvers...), func(g string) bool { return slices.Contains(groups, g) }) {
			out = append(out, name)
		}
	}
	return out
}

func (w *widener) approvedBy(group string) []string {
	return groupsApprove(w.before, []string{group}, protects)
}

func (w *widener) approvedByPerson(p *counterfoil.Person) []string {
	return groupsApprove(w.before, p.Groups, protects)
}

// ownedBy returns the classes that the owner of an agent may not approve for it: every
// protected one, whatever the agent may call today. Its grants are changed at once, so
// they say nothing of tomorrow.
func (w *widener) ownedBy(owner string) []string {
	for _, a := range w.before.Agents {
		if a.Owner == owner {
			return slices.Sorted(maps.Keys(w.protected))
		}
	}
	return nil
}

// agents looks at owners: who owned an agent may not approve for it, and who owns
// it no more may.
func (w *widener) agents() {
	for _, name := range slices.Sorted(maps.Keys(w.after.Agents)) {
		if old, a := w.before.Agents[name], w.after.Agents[name]; old != nil && old.Owner != a.Owner {
			w.add(counterfoil.KindAgent, name, fmt.Sprintf("gets another owner, so that %s may approve for it", old.Owner), slices.Collect(maps.Keys(w.protected))...)
		}
	}
}

// policies looks at the texts that forbid. What is appended to one cannot take back
// what it forbids; any other change might, and is not weighed.
func (w *widener) policies() {
	all := slices.Sorted(maps.Keys(w.protected))
	for _, name := range slices.Sorted(maps.Keys(w.before.Policies)) {
		old, p := w.before.Policies[name], w.after.Policies[name]
		switch {
		case p == nil:
			w.add(counterfoil.KindPolicy, name, "is deleted, and forbids nothing any more", all...)
		case !strings.HasPrefix(p.Cedar, strings.TrimSpace(old.Cedar)):
			w.add(counterfoil.KindPolicy, name, "changes in what it forbids", all...)
		}
	}
}

// looser says in what a class asks for less than another did, which was protected.
func looser(before, after *counterfoil.Class) []string {
	var why []string
	add := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	if after.Tier == counterfoil.Forbidden {
		return nil // nothing of it runs, and from there it is looked at again
	}
	switch {
	case after.Tier == counterfoil.Routine:
		add("goes from %s to %s", before.Tier, after.Tier)
	case after.Tier > before.Tier:
		add("goes from %s to %s, approved by %s", before.Tier, after.Tier, approversText(after.Approvers))
	case after.InsecureLowerTier && !before.InsecureLowerTier:
		add("may be below its lowest tier from now on")
	}
	if !narrowedApprovers(before.Approvers, after.Approvers) {
		add("is approved by %s, not by %s", approversText(after.Approvers), approversText(before.Approvers))
	}
	if after.Template != before.Template {
		add("tells approvers in other words what they sign")
	}
	if allowed := before.Authenticators; len(allowed) > 0 {
		if len(after.Authenticators) == 0 || slices.ContainsFunc(after.Authenticators, func(a string) bool { return !slices.Contains(allowed, a) }) {
			add("takes other passkeys than before")
		}
	}
	for _, l := range before.Limits {
		if !slices.ContainsFunc(after.Limits, func(m counterfoil.Limit) bool { return keepsLimit(l, m) }) {
			add("limits the sum of %s in %s no more to %s", l.Sum, l.Window, l.Max)
		}
	}
	return why
}

// narrowedApprovers reports whether whoever satisfies the new rule would have
// satisfied the old one. Each demand of before must be one of after's own, met by
// the same groups or fewer, and no group may be new: beyond its demands, a rule
// takes a second signer out of any of its groups. Nobody is narrower than anybody.
func narrowedApprovers(before, after [][]string) bool {
	if len(after) == 0 {
		return true
	}
	known := slices.Concat(before...)
	for _, g := range slices.Concat(after...) {
		if !slices.Contains(known, g) {
			return false
		}
	}
	return counterfoil.Matched(len(before), len(after), func(was, is int) bool { return subset(after[is], before[was]) }) == len(before)
}

func subset(a, b []string) bool {
	return !slices.ContainsFunc(a, func(g string) bool { return !slices.Contains(b, g) })
}

// keepsLimit reports whether a limit bounds at least what another did.
func keepsLimit(before, after counterfoil.Limit) bool {
	was, ok1 := new(big.Rat).SetString(before.Max)
	now, ok2 := new(big.Rat).SetString(after.Max)
	return ok1 && ok2 && before.Sum == after.Sum && before.Per == after.Per &&
		after.Window >= before.Window && now.Cmp(was) <= 0
}

func approversText(demands [][]string) string {
	if len(demands) == 0 {
		return "nobody"
	}
	parts := make([]string, len(demands))
	for i, d := range demands {
		parts[i] = strings.Join(d, " or ")
	}
	return strings.Join(parts, ", and ")
}
