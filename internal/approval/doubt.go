package approval

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/ledger"
)

// doubt verifies everything that an approved approval rests on once more, at the moment
// when it is to be used, and returns why it does not hold; empty when it does. It
// believes the record no more than its digests say and nobody's eligibility of before.
func (e *Engine) doubt(ctx context.Context, reg crowd, a *counterfoil.Approval) (why string, err error) {
	if _, err := stated(a); err != nil {
		return err.Error(), nil
	}
	if counterfoil.CallDigest(a.Call) != a.CallDigest {
		return "the call is not the one of its digest", nil
	}
	previous := make([]string, 0, len(a.Signatures))
	var groups [][]string
	for i := range a.Signatures {
		s := &a.Signatures[i]
		k, ok, err := e.store.PasskeyByID(ctx, s.Passkey)
		if err != nil {
			return "", fmt.Errorf("reading a signer's passkey: %w", err)
		}
		if !ok || k.Person != s.Person {
			return fmt.Sprintf("the passkey of %s is not known", s.Person), nil
		}
		if s.Decision != counterfoil.DecisionApprove {
			return s.Person + " said no", nil
		}
		if err := e.onRecord(ctx, &k); err != nil {
			if f := (*counterfoil.Fault)(nil); errors.As(err, &f) {
				return "", err
			}
			return fmt.Sprintf("the passkey of %s: %s", s.Person, plainError(err)), nil
		}
		if err := e.party.verifyRecord(s, &k, a.Digest, previous); err != nil {
			return fmt.Sprintf("the signature of %s does not verify: %s", s.Person, plainError(err)), nil
		}
		if err := usable(&a.Rule, &k, s.At); err != nil {
			return fmt.Sprintf("the passkey of %s: %s", s.Person, plainError(err)), nil
		}
		now, err := eligible(reg, a, s.Person)
		if err != nil {
			return plainError(err), nil
		}
		mailbox := reg.People[s.Person].Mailbox()
		for j := range a.Signatures[:i] {
			o := &a.Signatures[j]
			if o.Person == s.Person || bytes.Equal(o.Passkey, s.Passkey) || reg.People[o.Person].Mailbox() == mailbox {
				return fmt.Sprintf("%s and %s are one human", o.Person, s.Person), nil
			}
		}
		previous, groups = append(previous, s.Digest), append(groups, now)
	}
	// A rule that asks for nobody lets nothing through here.
	if len(a.Signatures) < max(a.Rule.Required, a.Rule.Tier.People(), 1) || missing(&a.Rule, groups) > 0 {
		return "there are not enough signatures for the rule", nil
	}
	return "", nil
}

// onRecord holds a passkey against the entry that enrolled it: the log is what cannot be
// changed, the table is not.
func (e *Engine) onRecord(ctx context.Context, k *counterfoil.Passkey) error {
	b, err := e.store.Entry(ctx, k.Entry)
	if err != nil {
		return counterfoil.NewFault(counterfoil.StoreUnavailable, fmt.Errorf("reading the entry of a passkey: %w", err))
	}
	entry, err := ledger.Parse(b)
	if err != nil {
		return counterfoil.NewFault(counterfoil.StoreUnavailable, fmt.Errorf("reading entry %d: %w", k.Entry, err))
	}
	was, err := readEnrolled(entry)
	if err != nil {
		return fmt.Errorf("the log does not have it: %w", err)
	}
	if !bytes.Equal(was.ID, k.ID) || was.Person != k.Person || !bytes.Equal(was.PublicKey, k.PublicKey) || !bytes.Equal(was.Handle, k.Handle) ||
		was.AAGUID != k.AAGUID || was.Attested != k.Attested || was.Eligible != k.Eligible || was.How != k.How {
		return errors.New("it is not what the log has of it")
	}
	return nil
}

// verifyRecord verifies a kept signature: that its record is the one of its digest and
// says what the signature says, and that the assertion in it is over exactly that.
func (p party) verifyRecord(s *counterfoil.Signature, k *counterfoil.Passkey, approval string, previous []string) error {
	var r record
	if err := ijson.Unmarshal(s.Record, &r); err != nil {
		return fmt.Errorf("its record cannot be read: %w", err)
	}
	return p.verifySignature(&r, signedBy{
		person: s.Person, decision: s.Decision, reason: s.Reason, approval: approval, previous: previous, digest: s.Digest,
	}, k)
}

// signedBy is what a signature has to say.
type signedBy struct {
	person, decision, reason string
	approval                 string // its digest
	previous                 []string
	digest                   string // of the record; empty where nobody has told
}

func (p party) verifySignature(r *record, want signedBy, k *counterfoil.Passkey) error {
	_, sum, err := r.write()
	if err != nil {
		return err
	}
	c := &r.Challenge
	switch {
	case want.digest != "" && sum != want.digest:
		return fmt.Errorf("the record is not the one of its digest")
	case c.Digest != want.approval:
		return fmt.Errorf("it is of another approval")
	case c.Approver != want.person || c.Decision != want.decision || c.ReasonDigest != digest(prefixReason, []byte(want.reason)):
		return fmt.Errorf("it is of another person, decision or reason")
	case !slices.Equal(c.Previous, want.previous):
		return fmt.Errorf("it is over other signatures than those before it")
	}
	b, err := c.bytes()
	if err != nil {
		return err
	}
	in, err := r.Assertion.parse()
	if err != nil {
		return err
	}
	_, err = p.verify(in, k, b)
	return err
}

// plainError is an error's text for records and logs.
func plainError(err error) string {
	if r, ok := counterfoil.AsRefusal(err); ok {
		return r.Reason()
	}
	return err.Error()
}
