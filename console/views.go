package console

import (
	"strings"
	"time"
)

// A Page is what every page has. Body is the value of the page's own type, which
// Render's names say.
type Page struct {
	Title   string
	Section string  // which item of the navigation is current; empty for none
	Viewer  *Viewer // nil where nobody is logged in
	Now     time.Time
	Error   string // what went wrong with what was asked for; nothing of it was done
	Said    string // what was done
	Body    any
}

// A Viewer is the person who is logged in.
type Viewer struct {
	Name    string
	Sees    bool   // the agents, the people, the ledger: an administrator or an auditor
	Admin   bool   // may suspend, offboard, cancel and reconcile
	Waiting int    // approvals that the person may sign now
	Token   string // of the session; every form sends it back
}

// A Span is a piece of a Text: what to show, or the one code point that is shown by
// its number and name because it would not be seen, or would mislead.
type Span struct {
	Text      string
	Code      string // such as U+202E
	Name      string // of the code point
	Lookalike bool
	Value     bool // what the caller sent, in a sentence of the operator's
}

// A Text is text that came from an agent, an upstream or a person.
type Text []Span

// Plain is text of our own, or of an operator's manifest, that has nothing to mark.
func Plain(s string) Text {
	if s == "" {
		return nil
	}
	return Text{{Text: s}}
}

// Flat writes a text as one string, with its marks as U+….
func Flat(t Text) string {
	var b strings.Builder
	for _, s := range t {
		if s.Code != "" {
			b.WriteString("⟨" + s.Code + "⟩")
			continue
		}
		b.WriteString(s.Text)
	}
	return b.String()
}

// An Inbox is the body of "inbox".
type Inbox struct {
	Waiting []Ask
	Nobody  bool // no class asks for anybody's approval yet
}

// An Ask is an approval in a list.
type Ask struct {
	ID       string
	Sentence Text
	Agent    string
	Tool     string
	Class    string
	Tier     string
	State    string
	Outcome  string // of a closed one, in words
	Change   bool
	Signed   int
	Required int
	Created  time.Time
	Expires  time.Time
	Closed   time.Time
	Mine     string // how the viewer decided; empty when they did not
}

// Decided is the body of "decided".
type Decided struct {
	States []Choice // the filter
	All    []Ask
}

// A Choice is a link that chooses.
type Choice struct {
	Label, URL string
	Current    bool
}

// An Approval is the body of "approval": the page on which people sign, and on which
// they look later at what was signed.
type Approval struct {
	ID     string
	State  string
	Change bool // of who may approve, or of what needs approval
	Tier   string

	Sentence    Text
	Template    bool // the operator wrote the sentence; without, the payload is all there is
	Irrevocable string

	Agent    string
	Owner    string
	OnBehalf string
	Asserted string // what of this is somebody's word, in a sentence
	Task     string
	TaskFor  Text   // what the task is for, in the agent's words
	OpenedBy string // the agent that opened the task, where it is another
	Does     Text   // the agent's purpose
	Seen     bool   // the viewer may open the agent's page

	Class  string
	Rule   string // how many people, of which groups, in words
	Limits []LimitUse

	Earlier *Earlier
	Repeats string // id of an approval of an equal call that ran before

	Payload []Row
	Bytes   int // of all of it
	Erased  bool

	// What of the payload is not shown: the first places, and how many more there are.
	// Where there are any, Fields has what class and template go by, and Whole is where
	// all of it is downloaded.
	Hidden     []Hidden
	MoreHidden int
	Fields     []Field
	Whole      string

	Tool        string
	Resource    string
	Environment string
	Upstream    string // where the gateway sends it
	Audience    string
	Target      Text // method and path of an HTTP call

	Created, Expires, UseUntil, Closed time.Time

	Signatures []Signature
	Empty      []string // a line for each signature that is missing
	Eligible   []string // who may still sign

	Words Text // the agent's own

	Digest, CallDigest string

	MaySign  bool
	MayDeny  bool   // the viewer's no would end it
	WhyNot   string // why the viewer may not sign
	OwnAgent bool   // the viewer owns the agent, and may sign all the same
	Mine     *Signature

	Outcome    string // in words, once it is closed
	Reason     Text   // of a no, or why it was closed
	Entries    []EntryLink
	Proof      string // where the proof is downloaded
	MayCancel  bool
	Reconcile  bool
	NeedsAdmin bool // it is indeterminate and the viewer is no administrator
}

// Open reports whether something may still come of the approval.
func (a Approval) Open() bool { return a.State == "pending" || a.State == "approved" }

// A LimitUse is a cumulative limit, what of it is used, and what this call takes.
type LimitUse struct {
	Field, Window   string
	Used, This, Max string // Used is empty where it is not known
	Percent, More   int    // of Max: used, and used by this call
	Over            bool
}

// Earlier is the last similar approval and what differs from it.
type Earlier struct {
	ID          string
	At          time.Time
	Outcome     string
	Erased      bool // there is nothing to compare with any more
	More        int  // differences beyond those
	Differences []Difference
}

// A Difference is one member that is not as it was the last time.
type Difference struct {
	Name          Text
	Before, After Text // nil: it was not there
}

// A Hidden is a place in a payload of which a part is not shown.
type Hidden struct {
	Place   Text // JSON pointer; empty is the payload itself
	Name    bool // it is a name of which the rest is not shown
	Members int  // that are left out; zero of a text
	Bytes   int  // of all that is at the place
}

// A Field is a value of the payload by the name that class and template have for it.
type Field struct {
	Name  string
	Value Text
}

// A Row is one line of a payload that is shown as a tree.
type Row struct {
	Depth  int // 0 is a member of the payload itself
	Name   Text
	Type   string // text, number, true or false, null, list, object
	Count  int    // of a list or an object
	Value  Text   // of the others
	Empty  bool   // a text, list or object with nothing in it
	Cut    int    // bytes of a text of which only the beginning is shown; zero when all is
	Digest string // of such a text, or of what members were left out of
	Left   bool   // says how many members were left out, and is no member itself
	Field  string // the name under which class and template know it
}

// Indent is the row's depth, as far as it is drawn.
func (r Row) Indent() int { return min(r.Depth, 8) }

// A Signature is one person's decision.
type Signature struct {
	Person   string
	Decision string
	Reason   Text
	Groups   []string
	At       time.Time
	Passkey  string // its kind, as far as it is known
	Owner    bool   // the agent's owner, where the class lets them
	Mine     bool
}

// An EntryLink is an entry of the ledger that belongs to something.
type EntryLink struct {
	Index int64
	What  string
	At    time.Time
	Who   string
	Code  string
}

// Agents is the body of "agents".
type Agents struct{ All []AgentRow }

// An AgentRow is an agent in a list.
type AgentRow struct {
	Name, Owner, Purpose, Environment, Status string
	Instances, Quarantined                    int
	Calls, Refusals                           int // in the last day
	More                                      bool
	Last                                      time.Time
}

// An Agent is the body of "agent".
type Agent struct {
	Name, Owner, Purpose, Environment, Status string
	Instances                                 []Instance
	Workloads                                 []string
	Grants                                    []Grant
	Tasks                                     []string // bounds, in words
	Timeline                                  Timeline
	Refusals                                  []CodeCount
	Recent                                    []Line
	Waiting                                   int // approvals that wait for people

	OpenTasks, ClosedTasks []Task // as its worker, or as the one that opened them
	MoreTasks              bool   // more were closed lately than are shown
}

// A Task is a bounded unit of an agent's work.
type Task struct {
	ID, State     string
	Agent, Opener string // who works in it, and who opened it
	Parent        string
	For           Text     // its purpose, in the words of who opened it
	Tools         []string // empty: everything that is granted
	Opened        time.Time
	Deadline      time.Time
	Closed        time.Time
	Reason        Text
	Calls, Most   int64 // made, and the most there may be; zero: any number
	Percent       int   // of Most
	Limits        []LimitUse
}

// Open reports whether work may still be done in the task.
func (t Task) Open() bool { return t.State == "open" }

// An Instance is one running process of an agent.
type Instance struct {
	ID, Key, KeyKind, Status, How, Place string
	Enrolled, Last                       time.Time

	Old      string // the key that this one replaced, while both are taken
	OldUntil time.Time
}

// Live reports whether the instance may act.
func (i Instance) Live() bool { return i.Status == "active" }

// A Grant is what one grant lets an agent call.
type Grant struct {
	Tools    []GrantedTool
	Networks []string
	When     string
}

// A GrantedTool is a tool of a grant, with its class and tier.
type GrantedTool struct{ Tool, Class, Tier string }

// A CodeCount is how often a code was answered.
type CodeCount struct {
	Code, Meaning string
	Count         int
	Percent       int // of the most frequent
	URL           string
}

// Void is the body of "void": what taking authority away voids, before anybody does it.
type Void struct {
	Question string // Suspend payroll?
	Text     string // what it means, and what brings it back
	Command  string // that brings it back, on the server's machine
	Verb     string // of the button
	Losses   []Loss
	Stays    []string // what it does not touch

	Action    string // where the form goes
	Kind, ID  string // of the target, where the form says it
	Confirm   string // to be written; empty: nothing
	Back      string
	BackLabel string
}

// A Loss is one kind of thing that is taken, each by its name.
type Loss struct {
	What  string // 3 live tokens
	Names []Name
	More  int  // beyond the names
	None  bool // there is nothing of the kind to take
}

// A Name names something, and says a word of it.
type Name struct {
	ID   string
	URL  string // of its page; empty where there is none
	Text Text
}

// A Revocation is the body of "revocation": one revocation and its receipt.
type Revocation struct {
	Index  int64
	What   string // Agent suspended
	Kind   string // of the target
	ID     string
	URL    string // of the target's page
	At     time.Time
	Who    string
	Reason Text
	Losses []Loss
	Points []Point
}

// Stopped is at how many enforcement points it is in force.
func (r Revocation) Stopped() int {
	n := 0
	for _, p := range r.Points {
		if !p.At.IsZero() {
			n++
		}
	}
	return n
}

// A Point is an enforcement point, and when it stopped accepting what was revoked.
type Point struct {
	Name, Kind string
	What       string    // what kind of point that is
	At         time.Time // zero: not yet
	After      string    // how long after the revocation was acknowledged
	Streams    int       // that were cut
	Entry      int64     // that says so; zero where none does
}

// Revocations is the body of "revocations".
type Revocations struct {
	All   []RevocationRow
	Kinds []Choice // of targets: Label for people, URL the kind's name
	Older string   // where the older ones are
}

// A RevocationRow is a revocation in a list.
type RevocationRow struct {
	Index          int64
	At             time.Time
	What, Kind, ID string
	URL            string // of the target's page
	Who            string
	Reason         Text
	Took           string // 3 tokens, 1 task
}

// Resources is the body of "resources".
type Resources struct{ All []ResourceRow }

// A ResourceRow is a protected server in a list.
type ResourceRow struct {
	Name, Type, Environment, Place, Status string
	Tools                                  int
	Agents                                 []string  // that are granted something there
	Before                                 time.Time // tokens of then and before are void
}

// A Line is an entry of the ledger in a list.
type Line struct {
	Index                          int64
	At                             time.Time
	Kind, What                     string
	Agent, Tool, Class, Tier, Code string
	Person                         string
	Decision                       string
	Approval                       string
}

// Ledger is the body of "ledger".
type Ledger struct {
	Size    int64
	Query   Query
	Asked   bool // the query chooses
	Found   []Line
	Limited bool // there are more
	Next    string
	Classes []string
	Kinds   []string
}

// A Query is what a reader of the ledger asked for, as they wrote it.
type Query struct{ Agent, Tool, Class, Code, Person, Kind, Since, Until string }

// A Chain is the body of "entry": one entry, and everything that belongs to the same
// call.
type Chain struct {
	Index    int64
	Size     int64
	What     string
	At       time.Time
	Kind     string
	Sentence string
	Steps    []Step
	Facts    []Row
	Approval string
	Digest   string // of the leaf
}

// A Step is a link of a chain.
type Step struct {
	EntryLink
	State   string // done, refused, waits, here
	Text    string
	Current bool
}

// People is the body of "people".
type People struct {
	All []Person
}

// A Person is somebody who may sign.
type Person struct {
	Name, Email string
	Status      string // active or suspended
	Groups      []string
	Roles       []string
	Passkeys    []Passkey
	Pending     int // approvals that they may sign now
	Approved    int
	Denied      int
	Yes         int    // in a hundred decisions; -1 when there are too few
	Seconds     int    // the median time that they look at an approval before they sign; zero when not known
	Twin        string // another record of the same human
}

// A Passkey is a person's credential.
type Passkey struct {
	ID, Kind, How        string
	Synced               bool
	Ended                bool
	Enrolled, Used, From time.Time
}

// Health is the body of "health".
type Health struct {
	Ready  bool
	Checks []Check

	Newest int64 // index of the newest revocation; negative where there is none
	At     time.Time
	Points []PointHealth
}

// A PointHealth is how far an enforcement point knows what is revoked.
type PointHealth struct {
	Name, What string
	Seq        int64     // index of the newest entry that it knows of
	Behind     int       // revocations that it does not know yet
	At         time.Time // when it last said so
	Lag        string
	Good       bool
}

// A Check is one thing that a page of this console rests on.
type Check struct {
	Name   string
	Good   bool
	Value  string
	Text   string
	At     time.Time
	Browse bool // the script compares At with the browser's clock
}

// Login is the body of "login".
type Login struct {
	Next    string
	Nobody  bool   // has a passkey yet
	Dev     bool   // say how to begin on this machine
	Command string // that makes a code
	Ended   bool   // the session has ended
}

// Enrol is the body of "enrol".
type Enrol struct{}

// Failure is the body of "failure".
type Failure struct {
	Status    int
	What      string
	Lost      string // that nothing was
	Do        string
	Detail    Text
	Code      string
	RequestID string
	Back      string
}
