package approval

import (
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
)

// A View is an approval as a person is shown it.
type View struct {
	ID       string                    `json:"id"`
	State    counterfoil.ApprovalState `json:"state"`
	Kind     string                    `json:"kind"`
	Agent    string                    `json:"agent,omitzero"`
	Instance string                    `json:"instance,omitzero"`
	Owner    string                    `json:"owner,omitzero"`
	Task     string                    `json:"task,omitzero"`
	Openers  []string                  `json:"openers,omitzero"`   // owners of the agents that opened the task and those above it
	Asked    string                    `json:"requester,omitzero"` // of a change: who
	Tool     string                    `json:"tool"`
	Class    string                    `json:"class"`
	Tier     string                    `json:"tier"`
	Held     bool                      `json:"held,omitzero"`
	Digest   string                    `json:"digest"`
	Rule     counterfoil.ApprovalRule  `json:"rule"`
	Created  time.Time                 `json:"created"`
	Expires  time.Time                 `json:"expires"`
	UseUntil time.Time                 `json:"use_until,omitzero"`
	Closed   time.Time                 `json:"closed,omitzero"`
	Reason   string                    `json:"reason,omitzero"`
	Entry    int64                     `json:"entry,omitzero"` // index of the call.decided that spent it

	// Sentence is the rendering's first line, or, once that is erased, the tool.
	Sentence []Segment `json:"sentence"`

	// TaskPurpose is what the task is for, in the words of the agent that opened it.
	TaskPurpose []Segment `json:"task_purpose,omitzero"`

	// What was shown and is signed. Nil once it is erased; in lists always.
	Rendering *Rendering     `json:"rendering,omitzero"`
	Statement jsontext.Value `json:"statement,omitzero"` // what Digest is over
	Call      jsontext.Value `json:"call,omitzero"`      // the canonical call
	Tree      *Node          `json:"tree,omitzero"`      // the call, to be shown
	Fields    []Field        `json:"fields,omitzero"`

	// NoTemplate says that the operator wrote no sentence for this class: the whole
	// payload has to be read.
	NoTemplate bool `json:"no_template,omitzero"`

	Signatures []SignatureView `json:"signatures"`
	Missing    int             `json:"missing"`             // signatures that it still needs
	Needed     [][]string      `json:"needed,omitzero"`     // a signature each that it needs, or never got, by the groups one of which it has to be of
	Candidates []string        `json:"candidates,omitzero"` // who may still sign
	MaySign    bool            `json:"may_sign"`            // whether the viewer may
	WhyNot     string          `json:"why_not,omitzero"`    // why the viewer may not
	MayDeny    bool            `json:"may_deny,omitzero"`   // whether the viewer's no would end it
	OwnAgent   bool            `json:"own_agent,omitzero"`  // the viewer owns the agent and may sign all the same
	Words      []Segment       `json:"words,omitzero"`      // the agent's own
	Earlier    string          `json:"earlier,omitzero"`    // the approval of an equal call that ran before
	Similar    *Similar        `json:"similar,omitzero"`    // the last approved call of the same agent and tool
	Limits     []LimitView     `json:"limits,omitzero"`     // cumulative limits that it would take from
}

// A Field is one of the tool's named fields, to be shown.
type Field struct {
	Name  string    `json:"name"`
	Value []Segment `json:"value"`
}

// A SignatureView is a signature as people see it.
type SignatureView struct {
	Person   string    `json:"person"`
	Decision string    `json:"decision"`
	Reason   string    `json:"reason,omitzero"`
	Groups   []string  `json:"groups"`
	At       time.Time `json:"at"`
	Digest   string    `json:"digest"`
	Passkey  string    `json:"passkey"`        // credential id, base64url
	Owner    bool      `json:"owner,omitzero"` // of the agent
}

// Similar is an earlier approval of the same agent and tool, and what is different
// now.
type Similar struct {
	ID          string                    `json:"id"`
	State       counterfoil.ApprovalState `json:"state"`
	Created     time.Time                 `json:"created"`
	Erased      bool                      `json:"erased,omitzero"` // its call is kept no more, or is not for the viewer: there is nothing to compare with
	Differences []Difference              `json:"differences,omitzero"`
	More        int                       `json:"more,omitzero"` // differences beyond those
}

// A Difference is a place of the call whose value changed.
type Difference struct {
	Path   string    `json:"path"` // JSON pointer
	Before []Segment `json:"before,omitzero"`
	After  []Segment `json:"after,omitzero"`
}

// A LimitView is a cumulative limit of the class and what this call takes of it.
type LimitView struct {
	Field  string `json:"field"`
	Window string `json:"window"`
	Used   string `json:"used"` // by calls that ran within the window
	Amount string `json:"amount"`
	Max    string `json:"max"`
}

// A PersonView is a person as administrators and auditors see them.
type PersonView struct {
	Name     string             `json:"name"`
	Status   counterfoil.Status `json:"status"` // active or suspended
	Email    string             `json:"email,omitzero"`
	Groups   []string           `json:"groups,omitzero"`
	Roles    []string           `json:"roles,omitzero"`
	Passkeys []PasskeyView      `json:"passkeys"`
	Load     int                `json:"load"`     // approvals that wait for this person among others
	Approved int                `json:"approved"` // of the last decisions
	Denied   int                `json:"denied"`

	// Seconds is the median time between opening an approval and signing it, of the
	// signatures since the last start. Zero when there is none.
	Seconds float64 `json:"median_seconds,omitzero"`
}

// A PasskeyView is a passkey as people see it.
type PasskeyView struct {
	ID         string             `json:"id"` // credential id, base64url
	How        string             `json:"how"`
	Status     counterfoil.Status `json:"status"`
	AAGUID     string             `json:"aaguid"`
	Attested   bool               `json:"attested"`
	BackedUp   bool               `json:"backed_up"`
	Enrolled   time.Time          `json:"enrolled"`
	UsableFrom time.Time          `json:"usable_from"` // for irreversible classes
	Used       time.Time          `json:"used,omitzero"`
}

// needed says of each signature that is missing which groups its signer can be of. It
// asks the matching that counts them (see missing), so that nobody is named whose
// signature would be refused, and nobody left out: where a signer could stand for
// another conjunct than the one that is empty, somebody for either helps.
func needed(rule *counterfoil.ApprovalRule, signers [][]string) [][]string {
	var all []string
	for _, any := range rule.Groups {
		all = append(all, any...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	var stood, out [][]string
	for _, any := range rule.Groups {
		with := append(slices.Clone(stood), any)
		if matched(with, signers) == len(with) {
			stood = with
			continue
		}
		var seat []string
		for _, g := range all {
			if matched(with, append(slices.Clone(signers), []string{g})) == len(with) {
				seat = append(seat, g)
			}
		}
		out = append(out, seat)
	}
	for len(out) < missing(rule, signers) {
		out = append(out, all)
	}
	return out
}
