package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// Of a race between getting something and taking it, nothing that can be used is left,
// whoever is first.
func suiteRevokeRaces(t *testing.T, s *subject) {
	const rounds = 1000 / 8
	change := counterfoil.Change{}
	for _, kind := range counterfoil.TargetKinds() {
		for n := range rounds {
			r := raceOf(kind, n)
			change.Put = append(change.Put, personDocument(t, r.owner), document(t, counterfoil.KindResource, r.bank, &counterfoil.Resource{Name: r.bank}),
				document(t, counterfoil.KindAgent, r.agent, &counterfoil.Agent{Name: r.agent, Owner: r.owner}))
			change.NewKeys = append(change.NewKeys, instance(r.instance, r.agent))
		}
	}
	s.wantDone(s.put(change))
	var wg sync.WaitGroup
	for _, kind := range counterfoil.TargetKinds() {
		wg.Go(func() {
			for n := range rounds {
				if err := s.race(kind, raceOf(kind, n)); err != nil {
					t.Errorf("revoking %s, round %d: %v", kind, n, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// A race is who and what one round is about.
type race struct{ n, owner, agent, instance, bank, token, task, late, approval string }

func raceOf(kind counterfoil.TargetKind, round int) race {
	n := fmt.Sprintf("%s-%d", kind, round)
	return race{n, "o-" + n, "a-" + n, "ins_" + n, "bank-" + n, "tok_" + n, "tsk_" + n, "tsk_late_" + n, "apr_" + n}
}

// race gets a token, a task and an approval while one target is revoked.
func (s *subject) race(kind counterfoil.TargetKind, r race) error {
	ctx := context.Background()
	if err := s.openTask(s.aTask(r.task, r.agent, r.instance)); err != nil {
		return err
	}
	caller, live := s.caller(r.agent, r.instance, r.task), s.live(r.agent, r.instance)
	caller.TokenID, caller.Audience = r.token, "https://issuer/r/"+r.bank
	expires := s.fixture.clock.Now().Add(15 * time.Minute)
	target := map[counterfoil.TargetKind]string{
		counterfoil.TargetToken: r.token, counterfoil.TargetKey: "jkt-" + r.instance, counterfoil.TargetInstance: r.instance, counterfoil.TargetTask: r.task,
		counterfoil.TargetAgent: r.agent, counterfoil.TargetPerson: r.owner, counterfoil.TargetOwner: r.owner, counterfoil.TargetResource: r.bank,
	}[kind]
	var errs [4]error
	var news bool
	do := []func(){
		func() {
			i := s.issuance(r.agent, r.instance, r.n)
			i.Live, i.Token, i.Task, i.Resource, i.Expires = live, r.token, r.task, r.bank, expires
			errs[0] = s.Issue(ctx, i, entry(ledger.TokenIssued, r.agent), nil)
		},
		func() {
			_, _, errs[1] = s.request(s.approval(r.agent, r.n, func(a *counterfoil.Approval) { a.ID, a.Caller, a.Tool.Resource = r.approval, caller, r.bank }))
		},
		func() {
			late := s.aTask(r.late, r.agent, r.instance)
			late.Parent = r.task
			errs[2] = s.openTask(late, live)
		},
		func() {
			_, news, errs[3] = s.tryRevoke(kind, target, func(v *counterfoil.Revocation) {
				if kind == counterfoil.TargetToken {
					v.Agent, v.Expires = r.agent, expires
				}
			})
		},
	}
	rand.Shuffle(len(do), func(i, j int) { do[i], do[j] = do[j], do[i] })
	var wg sync.WaitGroup
	for _, f := range do {
		wg.Go(f)
	}
	wg.Wait()
	if errs[3] != nil || !news {
		return fmt.Errorf("news %v: %w", news, errs[3])
	}
	for _, err := range errs[:3] {
		if _, ok := counterfoil.AsRefusal(err); err != nil && !ok {
			return err
		}
	}
	// Whether it was got or not, it is good for nothing.
	if _, ok := counterfoil.AsRefusal(s.Revoked(ctx, caller)); !ok {
		return fmt.Errorf("the token is taken (issued: %w)", errs[0])
	}
	if a, ok, err := s.Approval(ctx, r.approval); err != nil || ok && a.State.Open() && kind != counterfoil.TargetToken {
		return fmt.Errorf("the approval is %s (%w; asked: %w)", a.State, err, errs[1])
	}
	switch kind {
	case counterfoil.TargetTask, counterfoil.TargetAgent, counterfoil.TargetPerson, counterfoil.TargetOwner:
		if _, open := s.LiveTask(r.late); open {
			return fmt.Errorf("a task below is open (opened: %w)", errs[2])
		}
	}
	return nil
}
