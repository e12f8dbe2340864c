package authority

import (
	"fmt"
	"maps"
	"math/big"
	"net/url"
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
	signers := changeSigners(w.before)
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
		if before, now := old.Mailbox(), p.Mailbox(); before != now {
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
		if len(w.found) == found && !signers[name] {
			if classes := groupsApprove(w.after, p.Groups, irreversible); len(classes) > 0 {
				w.add(counterfoil.KindPerson, name, fmt.Sprintf("becomes an approver of %s, and so of changes like this one", strings.Join(classes, ", ")), classes...)
			}
		}
	}
}

// changeSigners returns who may sign for a change: everybody in a group of an
// irreversible class.
func changeSigners(r *counterfoil.Registry) map[string]bool {
	out := map[string]bool{}
	for name, p := range r.People {
		if len(groupsApprove(r, p.Groups, irreversible)) > 0 {
			out[name] = true
		}
	}
	return out
}

// changeGroups returns the groups whose people may sign for a change, sorted.
func changeGroups(r *counterfoil.Registry) []string {
	groups := map[string]bool{}
	for _, c := range r.Classes {
		if irreversible(c) {
			for _, g := range slices.Concat(c.Approvers...) {
				groups[g] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(groups))
}

func irreversible(c *counterfoil.Class) bool { return c != nil && c.Tier == counterfoil.Irreversible }

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

// ownedBy returns the protected classes that agents of an owner may call.
func (w *widener) ownedBy(owner string) []string {
	var out []string
	for _, a := range w.before.Agents {
		if a.Owner == owner {
			out = append(out, w.callable(a)...)
		}
	}
	return out
}

// callable returns the protected classes that an agent's grants reach, before or
// after the change.
func (w *widener) callable(a *counterfoil.Agent) []string {
	classes := map[string]bool{}
	for _, r := range []*counterfoil.Registry{w.before, w.after} {
		for _, t := range allTools(r) {
			if w.protected[t.Class] && slices.ContainsFunc(a.Grants, func(g counterfoil.Grant) bool { return g.Covers(t.id()) }) {
				classes[t.Class] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(classes))
}

// agents looks at owners: who owned an agent may not approve for it, and who owns
// it no more may.
func (w *widener) agents() {
	for _, name := range slices.Sorted(maps.Keys(w.after.Agents)) {
		old, a := w.before.Agents[name], w.after.Agents[name]
		if old == nil || old.Owner == a.Owner {
			continue
		}
		if classes := slices.Concat(w.callable(old), w.callable(a)); len(classes) > 0 {
			w.add(counterfoil.KindAgent, name, fmt.Sprintf("gets another owner, so that %s may approve for it", old.Owner), classes...)
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
	metBy := map[int]int{} // demand of after to demand of before
	var assign func(demand int, seen map[int]bool) bool
	assign = func(demand int, seen map[int]bool) bool {
		for i, groups := range after {
			if seen[i] || !subset(groups, before[demand]) {
				continue
			}
			seen[i] = true
			if other, taken := metBy[i]; !taken || assign(other, seen) {
				metBy[i] = demand
				return true
			}
		}
		return false
	}
	for i := range before {
		if !assign(i, map[int]bool{}) {
			return false
		}
	}
	return true
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

// A placedTool is a tool with where it is.
type placedTool struct {
	counterfoil.Tool
	resource *counterfoil.Resource
}

func (t placedTool) id() counterfoil.ToolID {
	return counterfoil.ToolID{Resource: t.resource.Name, Tool: t.Name}
}

// server says what the upstream is asked for by the tool, under whatever names a
// registry has it. Empty where nothing is asked.
func (t placedTool) server() string {
	u, err := url.Parse(t.resource.Upstream)
	if err != nil || t.resource.Upstream == "" {
		return ""
	}
	what := t.Name
	if t.Method != "" {
		what = t.Method + " " + t.Path
	}
	return strings.ToLower(u.Scheme+"://"+u.Host) + strings.TrimRight(u.Path, "/") + " " + what
}

// allTools returns every classified tool of a registry, in order.
func allTools(r *counterfoil.Registry) []placedTool {
	var out []placedTool
	for _, name := range slices.Sorted(maps.Keys(r.Resources)) {
		res := r.Resources[name]
		for _, t := range res.Tools {
			out = append(out, placedTool{t, res})
		}
		for _, special := range []string{counterfoil.ToolResources, counterfoil.ToolPrompts} {
			if t, ok := res.Tool(special); ok && !slices.ContainsFunc(res.Tools, func(o counterfoil.Tool) bool { return o.Name == special }) {
				out = append(out, placedTool{t, res})
			}
		}
	}
	return out
}

// tools looks at every tool of a protected class: what becomes of it, and whether
// the same server has it under another name and class.
func (w *widener) tools() {
	old, now := map[counterfoil.ToolID]placedTool{}, map[counterfoil.ToolID]placedTool{}
	guarded := map[string]placedTool{} // by server
	for _, t := range allTools(w.after) {
		now[t.id()] = t
	}
	for _, t := range allTools(w.before) {
		old[t.id()] = t
		if w.protected[t.Class] && t.server() != "" {
			guarded[t.server()] = t
		}
	}
	for _, t := range allTools(w.before) {
		if w.protected[t.Class] {
			w.tool(t, now)
		}
	}
	for _, t := range allTools(w.after) {
		was, is := old[t.id()]
		same, known := guarded[t.server()]
		if !known || same.id() == t.id() || is && was.Class == t.Class && was.server() == t.server() {
			continue
		}
		if why := w.moved(same.Class, t.Class); len(why) > 0 {
			w.add(counterfoil.KindResource, t.resource.Name, fmt.Sprintf("has %s, which is %s of the same server, in class %s: it %s",
				t.Name, same.id(), t.Class, strings.Join(why, ", and ")), same.Class)
		}
	}
}

// tool looks at one tool of a protected class.
func (w *widener) tool(t placedTool, now map[counterfoil.ToolID]placedTool) {
	add := func(format string, args ...any) {
		w.add(counterfoil.KindResource, t.resource.Name, t.Name+" "+fmt.Sprintf(format, args...), t.Class)
	}
	next, there := now[t.id()]
	if !there {
		// It is not callable now. But a tool that nobody knows any more could be
		// declared tomorrow in any class, which nobody would wait for.
		add("leaves class %s, after which it could be declared anew in any other", t.Class)
		return
	}
	if next.Class != t.Class {
		if why := w.moved(t.Class, next.Class); len(why) > 0 {
			add("goes from class %s to %s: it %s", t.Class, next.Class, strings.Join(why, ", and "))
		}
	}
	if next.Method != t.Method || next.Path != t.Path {
		add("is another request from now on")
	}
	limited := map[string]bool{}
	for _, l := range w.before.Classes[t.Class].Limits {
		limited[l.Sum] = true
	}
	for _, field := range slices.Sorted(maps.Keys(limited)) {
		if t.Fields[field] != next.Fields[field] {
			add("says otherwise what its %s is, which class %s limits", field, t.Class)
		}
	}
}

// moved says what a tool needs less of in another class. Cumulative limits begin
// anew there, whatever they are.
func (w *widener) moved(from, to string) []string {
	before, after := w.before.Classes[from], w.after.Classes[to]
	if after == nil {
		return nil // nothing without a class is callable
	}
	why := looser(before, after)
	if len(why) == 0 && len(before.Limits) > 0 && from != to && after.Tier != counterfoil.Forbidden {
		why = append(why, "counts towards other limits")
	}
	return why
}
