package store

import (
	"context"
	"database/sql/driver"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// PutPersonCode keeps a code with e and drops the person's earlier ones. With
// PasskeyReset, every passkey that the person has ends, and open approvals that the
// person signed are revoked; the entry says which. It is refused (tool_unknown) for
// a name that is no Person, and (request_malformed) as PasskeyFirst for somebody who
// ever had a passkey: only who has none yet enrols without a delay. Nobody who is
// suspended gets a code (request_malformed), nor enrols with one.
func (s *Store) PutPersonCode(ctx context.Context, code counterfoil.PersonCode, e *ledger.Entry) error {
	if code.Person == "" || code.Expires.IsZero() ||
		code.How != counterfoil.PasskeyFirst && code.How != counterfoil.PasskeyAdded && code.How != counterfoil.PasskeyReset {
		return fmt.Errorf("keeping a code for a passkey: its person or time is missing, or %q is no way to have one", code.How)
	}
	return s.amended(ctx, []*ledger.Entry{e}, nil, func(w writer, d *decision) error {
		now := s.opt.Now()
		if err := wantPerson(w, code.Person, counterfoil.ToolUnknown); err != nil {
			return err
		}
		if err := wantInForce(w, counterfoil.TargetPerson, code.Person, counterfoil.RequestMalformed); err != nil {
			return err
		}
		if err := wantFirst(w, code.Person, code.How); err != nil {
			return err
		}
		if code.How == counterfoil.PasskeyReset {
			l := &losses{}
			if err := l.endPasskeysOf(w, code.Person, now); err != nil {
				return err
			}
			d.tell(0, l)
		}
		if _, err := w.exec(dropPersonCode, code.Person); err != nil {
			return fmt.Errorf("dropping earlier codes: %w", err)
		}
		if _, err := w.exec(purgePersonCodes, millis(now)); err != nil {
			return fmt.Errorf("forgetting expired codes: %w", err)
		}
		if _, err := w.exec(putPersonCode, code.Person, code.Hash[:], code.How, millis(code.Expires)); err != nil {
			return fmt.Errorf("keeping a code: %w", err)
		}
		return nil
	})
}

// wantPerson refuses a name that is not declared.
func wantPerson(w writer, person string, code counterfoil.Code) error {
	found := false
	err := w.query(findDocument, func([]driver.Value) error { found = true; return nil }, counterfoil.KindPerson, person)
	if err != nil {
		return fmt.Errorf("reading person %q: %w", person, err)
	}
	if !found {
		return counterfoil.Refuse(code, "there is no person %q", person)
	}
	return nil
}

// wantFirst refuses a first passkey to somebody who ever had one.
func wantFirst(w writer, person, how string) error {
	if how != counterfoil.PasskeyFirst {
		return nil
	}
	had := false
	if err := w.query(readPasskeysOf, func([]driver.Value) error { had = true; return nil }, person); err != nil {
		return fmt.Errorf("reading the passkeys of %q: %w", person, err)
	}
	if had {
		return counterfoil.Refuse(counterfoil.RequestMalformed, "%q has, or had, a passkey: the next one is added, or resets the others", person)
	}
	return nil
}

// PersonCode returns a code that is neither spent nor expired, by its hash.
func (s *Store) PersonCode(ctx context.Context, hash [32]byte) (code counterfoil.PersonCode, ok bool, err error) {
	err = s.readRows(ctx, sqliteTexts[readPersonCode], func(r []driver.Value) error {
		code = counterfoil.PersonCode{Hash: hash, Person: r[0].(string), How: r[1].(string), Expires: fromMillis(r[2].(int64))}
		ok = true
		return nil
	}, hash[:], millis(s.opt.Now()))
	return code, ok, err
}

// EnrolPasskey spends the code and keeps the passkey with e, a person.enrolled. It
// is refused, and the code is as it was: enrolment_refused where the code is unknown,
// spent, expired or another person's, or the person is not declared any more;
// key_in_use where anybody ever had the credential id or the public key.
func (s *Store) EnrolPasskey(ctx context.Context, hash [32]byte, p counterfoil.Passkey, e *ledger.Entry) error {
	if len(p.ID) == 0 || p.Person == "" || len(p.PublicKey) == 0 || len(p.Handle) == 0 || p.Enrolled.IsZero() || p.UsableFrom.IsZero() {
		return errors.New("enrolling a passkey: its id, person, key, handle or times are missing")
	}
	if e.Kind != ledger.PersonEnrolled {
		return fmt.Errorf("enrolling a passkey with a %s entry", e.Kind)
	}
	transports, err := json.Marshal(p.Transports, json.FormatNilSliceAsNull(true))
	if err != nil {
		return fmt.Errorf("enrolling a passkey: %w", err)
	}
	d := &decision{}
	d.effect = func(w writer) error {
		n, err := w.exec(spendPersonCode, hash[:], p.Person, p.How, millis(s.opt.Now()))
		if err != nil {
			return fmt.Errorf("spending a code: %w", err)
		}
		if n != 1 {
			return counterfoil.Refuse(counterfoil.EnrolmentRefused, "the enrolment code is not valid")
		}
		if err := wantPerson(w, p.Person, counterfoil.EnrolmentRefused); err != nil {
			return err
		}
		if err := wantInForce(w, counterfoil.TargetPerson, p.Person, counterfoil.EnrolmentRefused); err != nil {
			return err
		}
		if err := wantFirst(w, p.Person, p.How); err != nil {
			return err
		}
		n, err = w.exec(insertPasskey, p.ID, p.Person, p.PublicKey, p.Handle, p.AAGUID, p.Attested, int64(p.SignCount), p.Eligible, p.BackedUp,
			string(transports), millis(p.Enrolled), millis(p.UsableFrom), p.How, d.index)
		if err != nil {
			return fmt.Errorf("keeping a passkey: %w", err)
		}
		if n != 1 {
			return counterfoil.Refuse(counterfoil.KeyInUse, "the passkey is, or once was, in use; make a new one")
		}
		return nil
	}
	return s.record(ctx, e, d)
}

func passkeyOf(v []driver.Value) (counterfoil.Passkey, error) {
	p := counterfoil.Passkey{
		ID: bytesOf(v[0]), Person: v[1].(string), PublicKey: bytesOf(v[2]), Handle: bytesOf(v[3]), AAGUID: v[4].(string), Attested: v[5].(int64) == 1,
		SignCount: uint32(v[6].(int64)), Eligible: v[7].(int64) == 1, BackedUp: v[8].(int64) == 1,
		Enrolled: fromMillis(v[10].(int64)), UsableFrom: fromMillis(v[11].(int64)), Used: fromMillis(v[12].(int64)),
		How: v[13].(string), Entry: v[14].(int64), Status: counterfoil.Status(v[15].(string)),
	}
	return p, json.Unmarshal([]byte(v[9].(string)), &p.Transports)
}

// passkeyRow returns the zero Passkey for an id that nobody ever had.
func passkeyRow(w writer, id []byte) (p counterfoil.Passkey, err error) {
	err = w.query(readPasskey, func(r []driver.Value) error {
		p, err = passkeyOf(r)
		return err
	}, id)
	if err != nil {
		return counterfoil.Passkey{}, fmt.Errorf("reading a passkey: %w", err)
	}
	return p, nil
}

// PasskeysOf returns every passkey that a person ever had, oldest first.
func (s *Store) PasskeysOf(ctx context.Context, person string) ([]counterfoil.Passkey, error) {
	var list []counterfoil.Passkey
	err := s.readRows(ctx, sqliteTexts[readPasskeysOf], func(r []driver.Value) error {
		p, err := passkeyOf(r)
		list = append(list, p)
		return err
	}, person)
	if err != nil {
		return nil, err
	}
	return list, nil
}

// PasskeyByID returns the passkey with that credential id, ended ones too.
func (s *Store) PasskeyByID(ctx context.Context, id []byte) (p counterfoil.Passkey, ok bool, err error) {
	err = s.readRows(ctx, sqliteTexts[readPasskey], func(r []driver.Value) error {
		p, err = passkeyOf(r)
		ok = err == nil
		return err
	}, id)
	return p, ok, err
}

// UsePasskey keeps a login's sign count with e, a session.opened. It is refused
// (passkey_refused) where the passkey is not active or its count went back since, and
// where its person is suspended.
func (s *Store) UsePasskey(ctx context.Context, id []byte, signCount uint32, backedUp bool, e *ledger.Entry) error {
	id = slices.Clone(id)
	return s.record(ctx, e, &decision{effect: func(w writer) error {
		p, err := passkeyRow(w, id)
		if err != nil {
			return err
		}
		if err := wantInForce(w, counterfoil.TargetPerson, p.Person, counterfoil.PasskeyRefused); err != nil {
			return err
		}
		return keepUse(w, id, signCount, backedUp, s.opt.Now())
	}})
}

// keepUse keeps what a use of a passkey said of it.
func keepUse(w writer, id []byte, signCount uint32, backedUp bool, now time.Time) error {
	n, err := w.exec(usePasskey, id, int64(signCount), backedUp, millis(now))
	if err != nil {
		return fmt.Errorf("using a passkey: %w", err)
	}
	if n != 1 {
		return counterfoil.Refuse(counterfoil.PasskeyRefused, "the passkey is not active, or its sign count did not rise: it may have been copied")
	}
	return nil
}

// EndPasskeys ends passkeys with e, all of them or, where one is not active
// (tool_unknown), none. Open approvals that one of them signed are revoked; the entry
// says which.
func (s *Store) EndPasskeys(ctx context.Context, ids [][]byte, e *ledger.Entry) error {
	if len(ids) == 0 {
		return errors.New("ending no passkey")
	}
	return s.amended(ctx, []*ledger.Entry{e}, nil, func(w writer, d *decision) error {
		now := s.opt.Now()
		l := &losses{}
		for _, id := range ids {
			if err := l.endPasskey(w, id, now); err != nil {
				return err
			}
		}
		d.tell(0, l)
		return nil
	})
}

// endPasskey ends a passkey that is active, and revokes the open approvals that it
// signed.
func (l *losses) endPasskey(w writer, id []byte, now time.Time) error {
	n, err := w.exec(endPasskey, id)
	if err != nil {
		return fmt.Errorf("ending a passkey: %w", err)
	}
	if n != 1 {
		return counterfoil.Refuse(counterfoil.ToolUnknown, "there is no active passkey %q", base64.RawURLEncoding.EncodeToString(id))
	}
	l.Passkeys = append(l.Passkeys, base64.RawURLEncoding.EncodeToString(id))
	return l.revokeOpen(w, now, "a passkey that signed it was ended", openOfPasskey, id)
}

// endPasskeysOf ends what a person has, and revokes the open approvals that the
// person signed.
func (l *losses) endPasskeysOf(w writer, person string, now time.Time) error {
	var ids [][]byte
	err := w.query(readPasskeysOf, func(r []driver.Value) error {
		p, err := passkeyOf(r)
		if p.Status == counterfoil.Active {
			ids = append(ids, p.ID)
		}
		return err
	}, person)
	if err != nil {
		return fmt.Errorf("reading the passkeys of %q: %w", person, err)
	}
	for _, id := range ids {
		if err := l.endPasskey(w, id, now); err != nil {
			return err
		}
	}
	return l.revokeOpen(w, now, "a person who signed it was revoked", openOfSigner, person)
}

// ReleasePasskey makes an active passkey usable for irreversible classes at once,
// with e, using up the approval of that change, whose call has to have the digest that
// its release has.
func (s *Store) ReleasePasskey(ctx context.Context, id []byte, approval, callDigest string, e *ledger.Entry) error {
	if approval == "" || callDigest == "" {
		return errors.New("releasing a passkey without an approval")
	}
	id = slices.Clone(id)
	return s.record(ctx, e, &decision{effect: func(w writer) error {
		now := s.opt.Now()
		a, err := approvalRow(w, readApproval, approval)
		if err != nil {
			return err
		}
		if a.ID != "" && (a.Kind != counterfoil.ApprovalOfChange || a.Tool.Tool != counterfoil.ChangeRelease ||
			a.CallDigest != callDigest && a.CallDigest != "") { // which is empty once it is erased, and closed then
			return counterfoil.Refuse(counterfoil.ApprovalMismatch, "approval %s is not of this change", a.ID)
		}
		if a.State != counterfoil.StateApproved || pastTime(&a, now) {
			return refuseState(&a, now)
		}
		p, err := passkeyRow(w, id)
		if err != nil {
			return err
		}
		if err := wantInForce(w, counterfoil.TargetPerson, p.Person, counterfoil.PasskeyRefused); err != nil {
			return err
		}
		n, err := w.exec(releasePasskey, id, millis(now))
		if err != nil {
			return fmt.Errorf("releasing a passkey: %w", err)
		}
		if n != 1 {
			return counterfoil.Refuse(counterfoil.PasskeyRefused, "the passkey is not active")
		}
		return move(w, a.ID, a.State, counterfoil.StateSucceeded, "", now)
	}})
}
