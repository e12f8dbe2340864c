package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A standing is of a person or a resource from whom authority was taken once. Nobody
// who has none was ever revoked. It outlives the document: a name that is declared
// again is as it was.
type standing struct {
	kind   counterfoil.TargetKind
	name   string
	status counterfoil.Status
	before time.Time // of a resource: tokens issued then or earlier are void, for ever

	audience string // of a resource
}

// PersonStatus returns counterfoil.Suspended for a person who was revoked and is not
// back, and counterfoil.Active for any other name: who is a person at all, the registry
// says.
func (s *Store) PersonStatus(name string) counterfoil.Status {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if st, ok := s.views.people[name]; ok {
		return st.status
	}
	return counterfoil.Active
}

// ResourceStatus returns counterfoil.Suspended for a resource that was revoked and is
// not back, counterfoil.Active otherwise, and when it was revoked last: tokens for it
// that were issued then or earlier are void. Zero: never.
func (s *Store) ResourceStatus(name string) (counterfoil.Status, time.Time) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if st, ok := s.views.resources[name]; ok {
		return st.status, st.before
	}
	return counterfoil.Active, time.Time{}
}

// wantInForce refuses what was revoked and is not back.
func wantInForce(w writer, kind counterfoil.TargetKind, name string, code counterfoil.Code) error {
	if name == "" {
		return nil
	}
	status := counterfoil.Active
	err := w.query(standingOf, func(r []driver.Value) error { status = counterfoil.Status(r[0].(string)); return nil }, string(kind), name)
	if err != nil {
		return fmt.Errorf("reading whether %s %q is in force: %w", kind, name, err)
	}
	if status != counterfoil.Active {
		return counterfoil.Refuse(code, "%s %q is suspended", kind, name)
	}
	return nil
}

// suspendStanding suspends a person or a resource, and reports whether it was in force.
func (l *losses) suspendStanding(w writer, s standing) (bool, error) {
	n, err := w.exec(putStanding, string(s.kind), s.name, millis(s.before))
	if err != nil {
		return false, fmt.Errorf("suspending %s %q: %w", s.kind, s.name, err)
	}
	s.status = counterfoil.Suspended
	if n == 1 {
		l.standing = append(l.standing, s)
	}
	return n == 1, nil
}

// Restore commits with e, a restored, that a person or a resource is back in force.
// Nothing of before comes back with it. It is refused (request_malformed) where it is
// in force.
func (s *Store) Restore(ctx context.Context, t counterfoil.Target, e *ledger.Entry) error {
	if t.Kind != counterfoil.TargetPerson && t.Kind != counterfoil.TargetResource || e.Kind != ledger.Restored {
		return fmt.Errorf("restoring %s with a %s entry", t, e.Kind)
	}
	return s.record(ctx, e, &decision{
		effect: func(w writer) error {
			n, err := w.exec(restoreStanding, string(t.Kind), t.ID)
			if err != nil {
				return fmt.Errorf("restoring %s: %w", t, err)
			}
			if n != 1 {
				return counterfoil.Refuse(counterfoil.RequestMalformed, "%s %.80q is not suspended", t.Kind, t.ID)
			}
			return nil
		},
		learn: func(v *views) {
			st := v.standingOf(t.Kind, t.ID)
			st.status = counterfoil.Active
			v.setStanding(st)
		},
	})
}

// setStanding learns of a person or a resource.
func (v *views) setStanding(s standing) {
	switch s.kind {
	case counterfoil.TargetPerson:
		v.people[s.name] = s
	case counterfoil.TargetResource:
		v.resources[s.name] = s
		v.findAudiences()
	}
}

func (v *views) standingOf(kind counterfoil.TargetKind, name string) standing {
	if kind == counterfoil.TargetPerson {
		return v.people[name]
	}
	return v.resources[name]
}

// findAudiences files the resources that were ever revoked under what tokens call
// them, which a change of the registry may change.
func (v *views) findAudiences() {
	v.audiences = make(map[string]standing, len(v.resources))
	file := func(audience string, s standing) {
		if other, ok := v.audiences[audience]; ok { // what both say counts
			s.before = later(s.before, other.before)
			if other.status != counterfoil.Active {
				s.status = other.status
			}
		}
		v.audiences[audience] = s
	}
	for name, s := range v.resources {
		file(s.audience, s) // as it was called when it was revoked
		if r := v.registry.Resources[name]; r != nil {
			file(r.ID(v.issuer), s)
		}
	}
}
