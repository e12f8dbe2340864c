package approval

import (
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

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
// It does not need, and does not see, what was signed about: that an approval's digest
// is of this call is shown by whoever keeps the call. Nor does it know who was in which
// group: it takes the groups that each signature was recorded with, and sees that no
// agent's owner is among the signers. The zero Offline is ready.
type Offline struct {
	keys      map[string]*offlineKey // by credential id, base64url
	approvals map[string]*offlineApproval
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

type offlineApproval struct {
	digest  string
	rule    counterfoil.ApprovalRule
	owner   string
	behalf  []string
	expires time.Time
	signed  []offlineSignature
	over    bool // it came to its end
	spent   bool
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
		o.keys, o.approvals = map[string]*offlineKey{}, map[string]*offlineApproval{}
	}
	var err error
	switch e.Kind {
	case ledger.PersonEnrolled:
		err = o.enrolled(e)
	case ledger.EnrolmentCodeIssued, ledger.PasskeyEnded:
		err = o.ended(e)
	case ledger.ChangeClosed:
		err = o.released(e)
	case ledger.ApprovalRequested:
		err = o.requested(e)
	case ledger.ApprovalSigned:
		err = o.signature(e)
	case ledger.ApprovalClosed:
		if a := o.approvals[e.Approval.ID]; a != nil {
			a.over = true
		}
	case ledger.CallDecided:
		err = o.decided(e)
	}
	if err != nil {
		return fmt.Errorf("entry %d (%s): %w", e.Index, e.Kind, err)
	}
	return nil
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
	if err := details(e, &d); err != nil {
		return err
	}
	id, ok1 := unbase64(d.Credential)
	key, ok2 := unbase64(d.PublicKey)
	handle, ok3 := unbase64(d.Handle)
	from, err := ledger.ParseTime(d.UsableFrom)
	if !ok1 || !ok2 || !ok3 || err != nil || d.Person == "" || d.RPID == "" || d.Origin == "" {
		return fmt.Errorf("it does not say whose passkey it is, for which page, or from when")
	}
	if o.keys[d.Credential] != nil {
		return fmt.Errorf("the passkey %s was enrolled before", d.Credential)
	}
	o.keys[d.Credential] = &offlineKey{
		Passkey: counterfoil.Passkey{
			ID: id, Person: d.Person, Handle: handle, PublicKey: key, Eligible: d.Eligible, AAGUID: d.AAGUID, Attested: d.Attested,
			How: d.How, UsableFrom: from, Status: counterfoil.Active, Entry: e.Index,
		},
		party: party{id: d.RPID, origin: d.Origin},
	}
	o.report.Passkeys++
	return nil
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

// released takes in that two people let a passkey count before its time.
func (o *Offline) released(e *ledger.Entry) error {
	var d struct {
		Verb       string `json:"verb"`
		Credential string `json:"credential"`
	}
	if err := details(e, &d); err != nil || d.Verb != counterfoil.ChangeRelease {
		return err
	}
	k := o.keys[d.Credential]
	if k == nil {
		return fmt.Errorf("it releases a passkey that was not enrolled")
	}
	if err := o.spend(e); err != nil {
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
		Digest  string                   `json:"approval_digest"`
		Rule    counterfoil.ApprovalRule `json:"rule"`
		Expires string                   `json:"expires"`
	}
	if err := details(e, &d); err != nil {
		return err
	}
	expires, err := ledger.ParseTime(d.Expires)
	if err != nil || d.Digest == "" || e.Approval.ID == "" {
		return fmt.Errorf("it does not say which approval it is, or until when")
	}
	if o.approvals[e.Approval.ID] != nil {
		return fmt.Errorf("the approval %s was requested before", e.Approval.ID)
	}
	a := &offlineApproval{digest: d.Digest, rule: d.Rule, expires: expires}
	if !(d.Rule.OwnerMayApprove && d.Rule.Tier == counterfoil.Guarded) {
		a.owner = e.Owner
		a.behalf = append(slices.Clone(e.Actors), e.OnBehalfOf)
	}
	o.approvals[e.Approval.ID] = a
	return nil
}

func (o *Offline) signature(e *ledger.Entry) error {
	a := o.approvals[e.Approval.ID]
	if a == nil {
		return fmt.Errorf("it signs an approval that was not requested")
	}
	if a.over || a.spent {
		return fmt.Errorf("it signs an approval that was over")
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
	}
	previous := make([]string, 0, len(a.signed))
	for _, s := range a.signed {
		previous = append(previous, s.digest)
	}
	err := k.party.verifySignature(&d.Record, signedBy{
		person: e.Actor, decision: c.Decision, reason: e.Reason, approval: a.digest, previous: previous,
	}, &k.Passkey)
	if err != nil {
		return fmt.Errorf("the signature of %s does not verify: %s", e.Actor, plainError(err))
	}
	at, err := e.When()
	if err != nil {
		return err
	}
	switch c.Decision {
	case counterfoil.DecisionApprove:
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
	a.signed = append(a.signed, offlineSignature{e.Actor, sum, c.Decision, d.Groups})
	o.report.Signatures++
	return nil
}

// decided holds a call that was allowed against the approval that it used up.
func (o *Offline) decided(e *ledger.Entry) error {
	if e.Decision != ledger.Allow {
		return nil
	}
	tier, err := counterfoil.ParseTier(e.Tier)
	if err != nil && e.Tier != "" {
		return err
	}
	// An agent that looks how its approval stands is allowed to, and uses nothing up.
	if e.Approval.ID == "" || counterfoil.ApprovalState(e.Approval.State) != counterfoil.StateSpent {
		if e.Tier != "" && tier != counterfoil.Routine {
			return fmt.Errorf("a call of tier %s was allowed without an approval", tier)
		}
		return nil
	}
	if err := o.spend(e); err != nil {
		return err
	}
	o.report.Calls++
	return nil
}

// spend uses an approval up and verifies that the people of its rule said yes.
func (o *Offline) spend(e *ledger.Entry) error {
	a := o.approvals[e.Approval.ID]
	switch {
	case a == nil:
		return fmt.Errorf("it rests on an approval that was not requested")
	case a.spent:
		return fmt.Errorf("the approval %s was used before", e.Approval.ID)
	case a.over:
		return fmt.Errorf("the approval %s was over", e.Approval.ID)
	}
	a.spent = true
	var groups [][]string
	for i, s := range a.signed {
		if s.decision != counterfoil.DecisionApprove {
			return fmt.Errorf("%s said no", s.person)
		}
		if s.person == a.owner || slices.Contains(a.behalf, s.person) {
			return fmt.Errorf("%s owns the agent, or it asks on behalf of %s", s.person, s.person)
		}
		for _, other := range a.signed[:i] {
			if other.person == s.person { // a passkey is one person's: one credential, one person
				return fmt.Errorf("%s signed twice", s.person)
			}
		}
		groups = append(groups, s.groups)
	}
	if len(a.signed) < max(a.rule.Required, a.rule.Tier.People(), 1) || missing(&a.rule, groups) > 0 {
		return fmt.Errorf("approval %s has %d signatures, and its rule needs more or other people", e.Approval.ID, len(a.signed))
	}
	return nil
}
