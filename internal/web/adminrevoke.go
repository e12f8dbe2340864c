package web

import (
	"context"
	"net/http"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/internal/evidence"
)

// What the administration socket takes away, and what it alone gives back.

func (m *admin) revokeRoutes(rt *router) {
	rt.handle(http.MethodPost, "/api/v1/revocations", typed(m, m.revoke))
	rt.handle(http.MethodGet, "/api/v1/revocations/{index}", typed(m, m.revocation))
	rt.handle(http.MethodGet, "/api/v1/tasks", typed(m, m.tasks))
	rt.handle(http.MethodGet, "/api/v1/tasks/{id}", typed(m, m.task))
	rt.handle(http.MethodPost, "/api/v1/tasks/{id}/cancel", typed(m, m.cancelTask))
	rt.handle(http.MethodPost, "/api/v1/people/{name}/resume", typed(m, m.restore(counterfoil.TargetPerson)))
	rt.handle(http.MethodPost, "/api/v1/resources/{name}/resume", typed(m, m.restore(counterfoil.TargetResource)))
	rt.handle(http.MethodGet, "/api/v1/backup", m.backup)
}

// revoke answers with the index of the entry, whose receipt is at revocations/{index};
// -1 where all of it was revoked before.
func (m *admin) revoke(ctx context.Context, c call[revocationBody]) (authority.Revoked, error) {
	return m.Authority.Revoke(ctx, counterfoil.Revocation{
		Target: counterfoil.Target{Kind: counterfoil.TargetKind(c.in.Kind), ID: c.in.ID}, Reason: c.in.Reason,
	}, c.actor)
}

func (m *admin) revocation(ctx context.Context, c call[none]) (evidence.Receipt, error) {
	i, err := m.index(c)
	if err != nil {
		return evidence.Receipt{}, err
	}
	return evidence.ReceiptOf(ctx, m.Entries, i)
}

func (m *admin) tasks(ctx context.Context, c call[none]) (taskList, error) {
	for name, values := range c.query {
		if name != "agent" && name != "state" || len(values) != 1 {
			return taskList{}, counterfoil.Refuse(counterfoil.RequestMalformed, "the filters are agent and state, once each")
		}
	}
	found, err := m.Authority.Tasks(ctx, counterfoil.TaskFilter{Agent: c.query.Get("agent"), State: counterfoil.TaskState(c.query.Get("state"))})
	return newTasks(found), err
}

func (m *admin) task(ctx context.Context, c call[none]) (task, error) {
	t, err := m.Authority.Task(ctx, c.path("id"))
	return newTask(&t), err
}

func (m *admin) cancelTask(ctx context.Context, c call[reasonBody]) (task, error) {
	t, err := m.Authority.CancelTask(ctx, c.path("id"), c.in.Reason, c.actor)
	if err != nil && counterfoil.CodeOf(err) == counterfoil.TaskClosed {
		return task{}, conflict{err}
	}
	return newTask(&t), err
}

// A restoredTarget is a person or a resource that may act again.
type restoredTarget struct {
	Kind counterfoil.TargetKind `json:"kind"`
	Name string                 `json:"name"`
}

// restore puts somebody or something back in force. It revives nothing of before.
func (m *admin) restore(kind counterfoil.TargetKind) func(context.Context, call[reasonBody]) (restoredTarget, error) {
	return func(ctx context.Context, c call[reasonBody]) (restoredTarget, error) {
		t := counterfoil.Target{Kind: kind, ID: c.path("name")}
		return restoredTarget{kind, t.ID}, m.Authority.RestoreTarget(ctx, t, c.in.Reason, c.actor)
	}
}

// backup streams a backup. What goes wrong after the first byte cuts the answer off,
// and the file's own end says so too.
func (m *admin) backup(w http.ResponseWriter, r *http.Request) error {
	if m.Backup == nil {
		return notHere()
	}
	return m.stream(w, r, "application/x-tar", "making a backup", func() error { return m.Backup(r.Context(), w) })
}
