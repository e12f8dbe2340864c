package web

import (
	"context"
	"strconv"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/internal/evidence"
	"github.com/counterfoil/counterfoil/ledger"
)

// What takes authority away needs no assertion beside the session: whoever has stolen
// one can make the system refuse more, and be seen doing it. Nothing here gives any of
// it back; that is the administrator's at the machine.

type revocationBody struct {
	Kind   string `json:"kind"` // one of targetKinds
	ID     string `json:"id"`   // its name or id
	Reason string `json:"reason"`
}

// targetKinds are what can be revoked.
var targetKinds = func() []string {
	var out []string
	for _, k := range counterfoil.TargetKinds() {
		out = append(out, string(k))
	}
	return out
}()

func (m *management) revoke(ctx context.Context, a asked[revocationBody]) (authority.Revoked, error) {
	return m.Authority.Revoke(ctx, counterfoil.Revocation{
		Target: counterfoil.Target{Kind: counterfoil.TargetKind(a.in.Kind), ID: a.in.ID}, Reason: a.in.Reason,
	}, a.session.person.Name)
}

// aRevocation is a revocation in a list. Its receipt is at revocations/{index}.
type aRevocation struct {
	Index  int64              `json:"index"`
	At     time.Time          `json:"at"`
	Entry  ledger.Kind        `json:"entry"` // revoked, agent.suspended, …
	Target counterfoil.Target `json:"target"`
	Reason string             `json:"reason,omitzero"`
	Actor  string             `json:"actor,omitzero"`
	Voided counterfoil.Voided `json:"voided"`
}

type revocationList struct {
	Revocations []aRevocation `json:"revocations"`
}

// maxRevocations is how many revocations one list has at most.
const maxRevocations = 1000

func (m *management) revocations(ctx context.Context, a asked[none]) (revocationList, error) {
	limit := 100
	if a.query.Has("limit") {
		var err error
		if limit, err = strconv.Atoi(a.query.Get("limit")); err != nil || limit < 1 || limit > maxRevocations {
			return revocationList{}, counterfoil.Refuse(counterfoil.RequestMalformed, "limit is a number from 1 to %d", maxRevocations)
		}
	}
	found, err := evidence.Revocations(ctx, m.Entries, limit)
	out := revocationList{Revocations: []aRevocation{}}
	for _, r := range found {
		out.Revocations = append(out.Revocations, aRevocation{r.Index, r.At, r.Entry, r.Target, r.Reason, r.Actor, r.Voided})
	}
	return out, err
}

func (m *management) receiptOf(ctx context.Context, a asked[none]) (evidence.Receipt, error) {
	i, err := m.socket.index(call[none]{path: a.path})
	if err != nil {
		return evidence.Receipt{}, err
	}
	return evidence.ReceiptOf(ctx, m.Entries, i)
}

var taskStates = []string{
	string(counterfoil.TaskOpen), string(counterfoil.TaskCompleted), string(counterfoil.TaskCancelled), string(counterfoil.TaskExpired), string(counterfoil.TaskRevoked),
}

func (m *management) tasks(ctx context.Context, a asked[none]) (taskList, error) {
	found, err := m.Authority.Tasks(ctx, counterfoil.TaskFilter{Agent: a.query.Get("agent"), State: counterfoil.TaskState(a.query.Get("state"))})
	return newTasks(found), err
}

func (m *management) cancelTask(ctx context.Context, a asked[reasonBody]) (task, error) {
	t, err := m.Authority.CancelTask(ctx, a.path("id"), a.in.Reason, a.session.person.Name)
	if code(err) == counterfoil.TaskClosed {
		return task{}, conflict{err}
	}
	return newTask(&t), err
}
