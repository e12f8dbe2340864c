package authority

import (
	"context"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// recordEvery is how often an instance whose clones are recorded only gets an entry
// for two places, which such an agent is in all day, and how often one for a use of
// its key by somebody else. Who else used it in between is in the refusals
// (key_in_use), which have an entry each.
const recordEvery = time.Hour

// Suspect records that a key was seen where it cannot honestly be and, unless the
// agent's manifest says otherwise, quarantines the instance whose key it is, with
// that entry. It reports whether this was news. An agent that was offboarded
// meanwhile has nothing left to take.
func (a *Authority) Suspect(ctx context.Context, s counterfoil.Suspicion) (news bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.reload(); err != nil {
		return false, err
	}
	_, registry := a.Policy()
	agent := registry.Agents[s.Agent]
	if agent == nil {
		return false, nil
	}
	s.Quarantine = agent.Clones != counterfoil.ClonesRecord
	switch {
	case !s.Quarantine:
		s.Since = s.Second.At.Add(-recordEvery)
	case s.Second.Foreign:
		s.Since = s.Second.At
	default:
		s.Since = s.First.At // what was seen before the last suspicion, or before its release, was judged
	}
	return a.cfg.Store.Suspect(context.WithoutCancel(ctx), s, a.suspicionEntry(agent, s))
}

func (a *Authority) suspicionEntry(agent *counterfoil.Agent, s counterfoil.Suspicion) *ledger.Entry {
	e := &ledger.Entry{
		Kind: ledger.CloneSuspected, RequestID: s.Second.RequestID, Agent: agent.Name, Owner: agent.Owner,
		Instance: s.Instance, JKT: s.Second.JKT, Epoch: a.cfg.Store.AgentState(agent.Name).Epoch,
		Source: ledger.Source{Environment: agent.Environment},
		Reason: "the key was seen in two places",
		Detail: map[string]any{"clones": counterfoil.ClonesRecord, "second": sighting(s.Second)},
	}
	if s.Quarantine {
		e.Detail["clones"] = counterfoil.ClonesQuarantine
	}
	if s.First.JKT != "" {
		e.Detail["first"] = sighting(s.First)
	}
	if s.Second.Foreign {
		e.Reason = fmt.Sprintf("the key was used by instance %s of agent %s", s.Second.Instance, s.Second.Agent)
	}
	return e
}

func sighting(s counterfoil.Sighting) map[string]any {
	return map[string]any{
		"entry": s.Entry, "time": ledger.FormatTime(s.At), "address": s.Address,
		"agent": s.Agent, "instance": s.Instance, "jkt": s.JKT, "request_id": s.RequestID,
	}
}
