package counterfoil_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// TestTaskChain: a task is live with all of those above it, and so deep.
func TestTaskChain(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	tasks := map[string]counterfoil.Task{}
	add := func(id, parent string, edit func(*counterfoil.Task)) {
		task := counterfoil.Task{ID: id, Parent: parent, State: counterfoil.TaskOpen, Deadline: now.Add(time.Minute)}
		if edit != nil {
			edit(&task)
		}
		tasks[id] = task
	}
	add("top", "", nil)
	add("below", "top", nil)
	add("closed", "", func(t *counterfoil.Task) { t.State = counterfoil.TaskCompleted })
	add("of closed", "closed", nil)
	add("late", "", func(t *counterfoil.Task) { t.Deadline = now })
	add("of late", "late", nil)
	add("orphan", "nobody", nil)
	add("loop", "loop", nil)
	add("d1", "", nil)
	for i := range counterfoil.MaxTaskDepth {
		add(fmt.Sprint("d", i+2), fmt.Sprint("d", i+1), nil)
	}
	live := func(id string) (counterfoil.Task, bool) { t, ok := tasks[id]; return t, ok }
	for id, want := range map[string]string{
		"top": "[top]", "below": "[below top]", fmt.Sprint("d", counterfoil.MaxTaskDepth): "[d4 d3 d2 d1]",
		"": "", "nobody": "", "closed": "", "of closed": "", "late": "", "of late": "", "orphan": "", "loop": "", fmt.Sprint("d", counterfoil.MaxTaskDepth+1): "",
	} {
		chain, ok := counterfoil.TaskChain(live, id, now)
		var ids []string
		for _, task := range chain {
			ids = append(ids, task.ID)
		}
		got := ""
		if ok {
			got = fmt.Sprint(ids)
		}
		if got != want || ok == (len(chain) == 0) {
			t.Errorf("%q: %q (%v), want %q", id, got, ok, want)
		}
	}
}
