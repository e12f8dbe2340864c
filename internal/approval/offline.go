package approval

import (
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/ledger"
)

// Offline verifies the human proofs of a log with nothing but the log: feed it every
// entry in order. It keeps the public keys of person.enrolled entries, verifies each
// assertion against them and against every member of its challenge, and holds each
// call that was allowed above routine against the rule that was recorded when people
// were asked.
//
// A call that was allowed in a task after it was closed, and a signature of somebody
// who was suspended, are found too, and so is what a revocation between the signature
// and the call took.
//
// It does not need, and does not see, what was signed about: that an approval's digest
// is of this call is shown by whoever keeps the call. Nor does it know who was in which
// group: it takes the groups that each signature was recorded with, and sees that no
// agent's owner is among the signers. The zero Offline is ready.
type Offline struct {
	keys      map[string]*offlineKey // by credential id, base64url
	approvals map[string]*offlineApproval
	proposals map[string]offlineProposal // by the id of a change that waits
	closed    map[string]bool            // tasks
	suspended map[string]bool            // people
	report    OfflineReport
}

// An OfflineReport counts what was verified.
type OfflineReport struct {
	Passkeys   int // that were enrolled
	Signatures int // that verified
	Calls      int // that were allowed with an approval, each with the people that its rule asks for
}

type offlineKey struct {
	counterfoil.Passkey
	party party
}

// An offlineApproval is an approval as the log has it.
type offlineApproval struct {
	asked   *ledger.Entry // of whom and what: its approval.requested
	at      time.Time     // when that was
	kind    string
	digest  string
	rule    counterfoil.ApprovalRule
	expires time.Time

	classDigest, templateDigest string

	releases string   // the credential id of the passkey that it releases; empty of any other
	excluded []string // people whose yes does not count

	signed []offlineSignature
	last   time.Time // of the signatures
	over   bool      // it came to its end
	spent  bool
}

type offlineSignature struct {
	person, digest, decision string
	groups                   []string
}

// Report returns what was verified so far.
func (o *Offline) Report() OfflineReport { return o.report }

// Add takes the next entry. An error says what in it does not hold; whoever goes on
// after one verifies the rest.
func (o *Offline) Add(e *ledger.Entry) error {
	if o.keys == nil {
		o.keys, o.approvals, o.proposals = map[string]*offlineKey{}, map[string]*offlineApproval{}, map[string]offlineProposal{}
		o.closed, o.suspended = map[string]bool{}, map[string]bool{}
	}
	err := o.take(e)
	o.lost(e)
	if err != nil {
		return fmt.Errorf("entry %d (%s): %w", e.Index, e.Kind, err)
	}
	return nil
}

func (o *Offline) take(e *ledger.Entry) error {
	switch e.Kind {
	case ledger.PersonEnrolled:
		return o.enrolled(e)
	case ledger.EnrolmentCodeIssued, ledger.PasskeyEnded:
		return o.ended(e)
	case ledger.ChangeProposed:
		return o.proposed(e)
	case ledger.ChangeClosed:
		return o.changed(e)
	case ledger.ApprovalRequested:
		return o.requested(e)
	case ledger.ApprovalSigned:
		return o.signature(e)
	case ledger.ApprovalClosed:
		if a := o.approvals[e.Approval.ID]; a != nil {
			a.over = true
		}
	case ledger.CallDecided:
		return o.decided(e)
	}
	return nil
}

// lost takes in what an entry, of whatever kind, says that it took beside what it is
// about: approvals that are over, passkeys that count no more, tasks that are closed
// and people who may do nothing.
func (o *Offline) lost(e *ledger.Entry) {
	for _, id := range texts(e.Detail["approvals"]) {
		if a := o.approvals[id]; a != nil {
			a.over = true
		}
	}
	for _, id := range texts(e.Detail["passkeys"]) {
		if k := o.keys[id]; k != nil {
			k.Status = counterfoil.Ended
		}
	}
	for _, id := range texts(e.Detail["tasks"]) {
		o.closed[id] = true
	}
	kind, _ := e.Detail["kind"].(string)
	id, _ := e.Detail["id"].(string)
	switch person := kind == string(counterfoil.TargetPerson) && id != ""; {
	case e.Kind == ledger.TaskClosed && e.Task != "":
		o.closed[e.Task] = true
	case e.Kind == ledger.Revoked && person:
		o.suspended[id] = true
	case e.Kind == ledger.Restored && person:
		delete(o.suspended, id)
	}
}

func texts(v any) []string {
	list, _ := v.([]any)
	var out []string
	for _, item := range list {
		if s, ok := item.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// offlineSlack is how far the clock may have stepped back without anybody noticing:
// the entries after it have the time of the one before it.
const offlineSlack = 5 * time.Second

// past reports whether an entry is later than a deadline that was set at an earlier
// one. Where the log's time has not moved since, because a clock that was set back has
// yet to catch up, nothing can be said.
func past(at, deadline, since time.Time) bool {
	return at.After(deadline.Add(offlineSlack)) && at.After(since)
}

// details reads an entry's facts into a struct.
func details(e *ledger.Entry, v any) error {
	b, err := ijson.Marshal(e.Detail)
	if err != nil {
		return err
	}
	return ijson.Explain(json.Unmarshal(b, v))
}

func (o *Offline) enrolled(e *ledger.Entry) error {
	k, err := readEnrolled(e)
	if err != nil {
		return err
	}
	id := encode(k.ID)
	if o.keys[id] != nil {
		return fmt.Errorf("the passkey %s was enrolled before", id)
	}
	o.keys[id] = k
	o.report.Passkeys++
	return nil
}

// readEnrolled reads the passkey of a person.enrolled.
func readEnrolled(e *ledger.Entry) (*offlineKey, error) {
	var d struct {
		Person     string `json:"person"`
		Credential string `json:"credential"`
		PublicKey  string `json:"public_key"`
		Handle     string `json:"user_handle"`
		RPID       string `json:"rp_id"`
		Origin     string `json:"origin"`
		Eligible   bool   `json:"backup_eligible"`
		AAGUID     string `json:"aaguid"`
		Attested   bool   `json:"attested"`
		How        string `json:"how"`
		UsableFrom string `json:"usable_from"`
	}
	if e.Kind != ledger.PersonEnrolled {
		return nil, fmt.Errorf("a %s enrols nobody", e.Kind)
	}
	if err := details(e, &d); err != nil {
		return nil, err
	}
	id, ok1 := unbase64(d.Credential)
	key, ok2 := unbase64(d.PublicKey)
	handle, ok3 := unbase64(d.Handle)
	from, err := ledger.ParseTime(d.UsableFrom)
	if !ok1 || !ok2 || !ok3 || err != nil || d.Person == "" || d.RPID == "" || d.Origin == "" {
		return nil, fmt.Errorf("it does not say whose passkey it is, for which page, or from when")
	}
	return &offlineKey{
		Passkey: counterfoil.Passkey{
			ID: id, Person: d.Person, Handle: handle, PublicKey: key, Eligible: d.Eligible, AAGUID: d.AAGUID, Attested: d.Attested,
			How: d.How, UsableFrom: from, Status: counterfoil.Active, Entry: e.Index,
		},
		party: party{id: d.RPID, origin: d.Origin},
	}, nil
}

// ended takes in that passkeys count no more: one, or with a code for another all that
// a person had.
func (o *Offline) ended(e *ledger.Entry) error {
	var d struct {
		Person     string `json:"person"`
		How        string `json:"how"`
		Credential string `json:"credential"`
	}
	if err := details(e, &d); err != nil {
		return err
	}
	if e.Kind == ledger.EnrolmentCodeIssued && d.How != counterfoil.PasskeyReset {
		return nil
	}
	for id, k := range o.keys {
		if id == d.Credential || d.Credential == "" && d.Person != "" && k.Person == d.Person {
			k.Status = counterfoil.Ended
		}
	}
	return nil
}

// An offlineProposal is a change of what is declared that waits.
type offlineProposal struct {
	approval  string // empty where only its time lets it take effect
	effective time.Time
}

func (o *Offline) proposed(e *ledger.Entry) error {
	var d struct {
		Proposal  string `json:"proposal"`
		Effective string `json:"effective"`
	}
	if err := details(e, &d); err != nil {
		return err
	}
	at, err := ledger.ParseTime(d.Effective)
	if err != nil || d.Proposal == "" {
		return fmt.Errorf("it does not say which change it is, or when it takes effect")
	}
	o.proposals[d.Proposal] = offlineProposal{e.Approval.ID, at}
	return nil
}

// onTime verifies that a change took effect by itself: not before its time, and nobody
// said no.
func (o *Offline) onTime(e *ledger.Entry, proposal string) error {
	p, ok := o.proposals[proposal]
	at, err := e.When()
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("the change %s was not proposed", proposal)
	case at.Before(p.effective.Add(-offlineSlack)):
		return fmt.Errorf("the change %s took effect before its time", proposal)
	}
	if a := o.approvals[p.approval]; a != nil {
		for _, s := range a.signed {
			if s.decision == counterfoil.DecisionDeny {
				return fmt.Errorf("%s said no to the change %s", s.person, proposal)
			}
		}
	}
	return nil
}

// changed verifies a change that took effect: before its time people have to have let
// it be, of what is declared, or of when a passkey counts. One that was not made needs
// nobody.
func (o *Offline) changed(e *ledger.Entry) error {
	var d struct {
		Verb       string `json:"verb"`
		Credential string `json:"credential"`
		Proposal   string `json:"proposal"`
	}
	if err := details(e, &d); err != nil {
		return err
	}
	a := o.approvals[e.Approval.ID]
	switch {
	case d.Verb == counterfoil.ChangeRelease:
		return o.released(e, a, d.Credential)
	case e.Reason == counterfoil.ChangedByTime:
		return o.onTime(e, d.Proposal)
	case e.Reason != counterfoil.ChangedByPeople:
		return nil
	case a == nil:
		return fmt.Errorf("it rests on an approval that was not requested")
	case a.kind != counterfoil.ApprovalOfChange || a.asked.Tool != changeTool(counterfoil.ChangeApply) || o.proposals[d.Proposal].approval != e.Approval.ID:
		return fmt.Errorf("the approval %s is not of this change", e.Approval.ID)
	}
	return o.spend(e, a)
}

// released takes in that people let a passkey count before its time.
func (o *Offline) released(e *ledger.Entry, a *offlineApproval, credential string) error {
	k := o.keys[credential]
	switch {
	case k == nil || k.Status != counterfoil.Active:
		return fmt.Errorf("it releases a passkey that was not enrolled, or was ended")
	case a == nil:
		return fmt.Errorf("it rests on an approval that was not requested")
	case a.releases != credential:
		return fmt.Errorf("the approval %s is not of this passkey", e.Approval.ID)
	}
	if err := o.spend(e, a); err != nil {
		return err
	}
	at, err := e.When()
	if err != nil {
		return err
	}
	if at.Before(k.UsableFrom) {
		k.UsableFrom = at
	}
	return nil
}

func (o *Offline) requested(e *ledger.Entry) error {
	var d struct {
		Kind           string                   `json:"kind"`
		Digest         string                   `json:"approval_digest"`
		ClassDigest    string                   `json:"class_digest"`
		TemplateDigest string                   `json:"template_digest"`
		Rule           counterfoil.ApprovalRule `json:"rule"`
		Required       int                      `json:"required"`
		Expires        string                   `json:"expires"`
		Statement      jsontext.Value           `json:"statement"`
		Credential     string                   `json:"credential"`
		Openers        []string                 `json:"openers"`
		For            string                   `json:"for"`
	}
	if err := details(e, &d); err != nil {
		return err
	}
	at, err := e.When()
	if err != nil {
		return err
	}
	expires, err := ledger.ParseTime(d.Expires)
	if err != nil || d.Digest == "" || e.Approval.ID == "" || d.Kind != counterfoil.ApprovalOfCall && d.Kind != counterfoil.ApprovalOfChange {
		return fmt.Errorf("it does not say which approval it is, of what, or until when")
	}
	if o.approvals[e.Approval.ID] != nil {
		return fmt.Errorf("the approval %s was requested before", e.Approval.ID)
	}
	t := d.Rule.Tier
	if t != counterfoil.Guarded && t != counterfoil.Irreversible || e.Tier != t.String() ||
		d.Rule.Required != d.Required || d.Required < max(t.People(), len(d.Rule.Groups)) {
		return fmt.Errorf("its rule asks for fewer people than its tier, or is of another")
	}
	a := &offlineApproval{
		asked: e, at: at, kind: d.Kind, digest: d.Digest, rule: d.Rule, expires: expires, classDigest: d.ClassDigest, templateDigest: d.TemplateDigest,
	}
	a.over = len(d.Rule.Groups) == 0 // nobody can decide it
	// The agent itself is no person; see excluded.
	mayOwn := ownerMay(&d.Rule, d.For)
	for _, name := range slices.Concat(e.Actors, d.Openers, []string{e.OnBehalfOf}) {
		if name != "" && name != e.Agent && (!mayOwn || name != e.Owner) {
			a.excluded = append(a.excluded, name)
		}
	}
	if !mayOwn && e.Owner != "" {
		a.excluded = append(a.excluded, e.Owner)
	}
	if d.Kind == counterfoil.ApprovalOfChange && e.Tool == changeTool(counterfoil.ChangeRelease) {
		if err := o.asksRelease(a, d.Credential, d.Statement); err != nil {
			return err
		}
	}
	o.approvals[e.Approval.ID] = a
	return nil
}

// asksRelease verifies that what is signed is the release of exactly this passkey: all
// that the call says is in the entry that enrolled it.
func (o *Offline) asksRelease(a *offlineApproval, credential string, text []byte) error {
	k := o.keys[credential]
	if k == nil {
		return fmt.Errorf("it is about a passkey that was not enrolled")
	}
	s, err := a.states(text)
	if err != nil {
		return err
	}
	call, err := releaseCall(&k.Passkey)
	if err != nil {
		return err
	}
	if s.CallDigest != counterfoil.CallDigest(call) {
		return fmt.Errorf("what is signed is not the release of the passkey %s", credential)
	}
	a.releases, a.excluded = credential, append(a.excluded, k.Person)
	return nil
}

// states reads a statement and holds it against what the log says of the approval.
func (a *offlineApproval) states(text []byte) (s statement, err error) {
	text, err = ijson.Canonical(text)
	if err != nil {
		return s, fmt.Errorf("reading the statement: %w", err)
	}
	if digest(prefixApproval, text) != a.digest {
		return s, fmt.Errorf("the statement is not the one that was signed")
	}
	if err := ijson.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("reading the statement: %w", err)
	}
	signed, err := digestOf(s.Rule)
	if err != nil {
		return s, err
	}
	logged, err := digestOf(a.rule)
	switch {
	case err != nil:
		return s, err
	case s.V != 1 || s.ID != a.asked.Approval.ID:
		return s, fmt.Errorf("the statement is of another approval")
	case signed != logged || s.Class != a.asked.Class || s.ClassDigest != a.classDigest || s.TemplateDigest != a.templateDigest ||
		s.Expires != ledger.FormatTime(a.expires):
		return s, fmt.Errorf("the log has another rule, class or deadline than the one that was signed")
	}
	return s, nil
}

func (o *Offline) signature(e *ledger.Entry) error {
	a := o.approvals[e.Approval.ID]
	if a == nil {
		return fmt.Errorf("it signs an approval that was not requested")
	}
	at, err := e.When()
	switch {
	case err != nil:
		return err
	case a.over || a.spent || past(at, a.expires, a.at):
		return fmt.Errorf("it signs an approval that was over")
	case !a.sameCall(e):
		return fmt.Errorf("it signs for another agent, task, tool or class than was asked")
	}
	var d struct {
		Record record   `json:"record"`
		Groups []string `json:"groups"`
	}
	if err := details(e, &d); err != nil {
		return err
	}
	c := &d.Record.Challenge
	k := o.keys[d.Record.Assertion.ID]
	switch {
	case k == nil:
		return fmt.Errorf("it is by a passkey that was not enrolled before")
	case k.Status != counterfoil.Active:
		return fmt.Errorf("it is by a passkey that was ended")
	case k.Person != e.Actor:
		return fmt.Errorf("it is by a passkey of %s and signed as %s", k.Person, e.Actor)
	case o.suspended[e.Actor]:
		return fmt.Errorf("%s was suspended", e.Actor)
	}
	previous := make([]string, 0, len(a.signed))
	for _, s := range a.signed {
		previous = append(previous, s.digest)
	}
	err = k.party.verifySignature(&d.Record, signedBy{
		person: e.Actor, decision: c.Decision, reason: e.Reason, approval: a.digest, previous: previous,
	}, &k.Passkey)
	if err != nil {
		return fmt.Errorf("the signature of %s does not verify: %s", e.Actor, plainError(err))
	}
	switch c.Decision {
	case counterfoil.DecisionApprove:
		if !slices.ContainsFunc(a.rule.Groups, func(g []string) bool { return meet(g, d.Groups) }) {
			return fmt.Errorf("%s is in no group that decides this", e.Actor)
		}
		if err := usable(&a.rule, &k.Passkey, at); err != nil {
			return fmt.Errorf("the passkey of %s: %s", e.Actor, plainError(err))
		}
	case counterfoil.DecisionDeny:
		a.over = true
	default:
		return fmt.Errorf("it is neither a yes nor a no")
	}
	_, sum, err := d.Record.write()
	if err != nil {
		return err
	}
	a.signed, a.last = append(a.signed, offlineSignature{e.Actor, sum, c.Decision, d.Groups}), at
	o.report.Signatures++
	return nil
}

// sameCall reports whether an entry is about what was asked.
func (a *offlineApproval) sameCall(e *ledger.Entry) bool {
	q := a.asked
	return e.Agent == q.Agent && e.Task == q.Task && e.OnBehalfOf == q.OnBehalfOf && e.Tool == q.Tool && e.Class == q.Class
}

// decided holds a call that was allowed against the approval that it used up.
func (o *Offline) decided(e *ledger.Entry) error {
	if e.Decision != ledger.Allow {
		return nil
	}
	tier := counterfoil.Routine
	if e.Tier != "" || e.Class != "" {
		var err error
		if tier, err = counterfoil.ParseTier(e.Tier); err != nil {
			return err
		}
	}
	a := o.approvals[e.Approval.ID]
	switch {
	case tier == counterfoil.Routine && (a == nil || a.asked.Tool != e.Tool):
		return nil // an agent that looks how its approval stands uses nothing up
	case e.Approval.ID == "":
		return fmt.Errorf("a call of tier %s was allowed without an approval", tier)
	case a == nil:
		return fmt.Errorf("it rests on an approval that was not requested")
	case a.kind != counterfoil.ApprovalOfCall || !a.sameCall(e) || e.ToolDigest != a.asked.ToolDigest:
		return fmt.Errorf("the approval %s is of another agent, task, tool or class", e.Approval.ID)
	case e.Task != "" && o.closed[e.Task]:
		return fmt.Errorf("the task %s was closed", e.Task)
	case tier != a.rule.Tier:
		return fmt.Errorf("a call of tier %s was allowed with an approval for tier %s", tier, a.rule.Tier)
	}
	if err := o.spend(e, a); err != nil {
		return err
	}
	o.report.Calls++
	return nil
}

// spend uses an approval up and verifies that the people of its rule said yes, in time.
func (o *Offline) spend(e *ledger.Entry, a *offlineApproval) error {
	at, err := e.When()
	switch {
	case err != nil:
		return err
	case a.spent:
		return fmt.Errorf("the approval %s was used before", e.Approval.ID)
	case a.over:
		return fmt.Errorf("the approval %s was over", e.Approval.ID)
	}
	a.spent = true
	var groups [][]string
	var people []string
	for _, s := range a.signed {
		switch {
		case s.decision != counterfoil.DecisionApprove:
			return fmt.Errorf("%s said no", s.person)
		case slices.Contains(a.excluded, s.person):
			return fmt.Errorf("%[1]s owns the agent or one that opened its task, or it asks on behalf of %[1]s, or is about a passkey of %[1]s", s.person)
		case slices.Contains(people, s.person): // a passkey is one person's: one credential, one person
			return fmt.Errorf("%s signed twice", s.person)
		}
		groups, people = append(groups, s.groups), append(people, s.person)
	}
	if len(people) < max(a.rule.Required, a.rule.Tier.People(), 1) || missing(&a.rule, groups) > 0 {
		return fmt.Errorf("approval %s has %d signatures, and its rule needs more or other people", e.Approval.ID, len(a.signed))
	}
	if len(e.Approval.Signers) > 0 && !slices.Equal(e.Approval.Signers, people) {
		return fmt.Errorf("approval %s has the signatures of others than the entry says", e.Approval.ID)
	}
	until := a.last.Add(counterfoil.ApprovalUseWindow)
	if a.kind == counterfoil.ApprovalOfChange && a.expires.After(until) {
		until = a.expires
	}
	if past(at, until, a.last) {
		return fmt.Errorf("the approval %s was not used in time", e.Approval.ID)
	}
	return nil
}
