package authority

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

func tool(s string) counterfoil.ToolID {
	id, err := counterfoil.ParseToolID(s)
	if err != nil {
		panic(err)
	}
	return id
}

// smallWorld is a registry of two resources, one of another environment, and an agent.
func smallWorld() (*counterfoil.Registry, *counterfoil.Agent) {
	r := counterfoil.NewRegistry()
	r.Classes["payout"], r.Classes["read"] = &counterfoil.Class{Name: "payout"}, &counterfoil.Class{Name: "read"}
	r.Resources["bank"] = &counterfoil.Resource{Name: "bank", Environment: "prod", Tools: []counterfoil.Tool{
		{Name: "get", Class: "read"}, {Name: "pay", Class: "payout", Fields: map[string]string{"amount": "/amount"}}, {Name: "bare"},
	}}
	r.Resources["lab"] = &counterfoil.Resource{Name: "lab", Environment: "test", Tools: []counterfoil.Tool{{Name: "get", Class: "read"}}}
	agent := &counterfoil.Agent{Name: "payroll", Environment: "prod", Grants: []counterfoil.Grant{
		{Tools: []counterfoil.ToolID{{Resource: "bank", Tool: "*"}, tool("lab/get")}},
	}}
	r.Agents["payroll"] = agent
	return r, agent
}

// wantCode fails unless err is a refusal with that code; the empty code is no error.
func wantCode(t *testing.T, name string, err error, want counterfoil.Code) {
	t.Helper()
	switch {
	case want == "" && err == nil:
	case err == nil:
		t.Errorf("%s: done, want %s", name, want)
	case counterfoil.CodeOf(err) != want:
		t.Errorf("%s: %v, want %s", name, err, want)
	}
}

// A task's tools are granted, and its parents' too.
func TestTaskTools(t *testing.T) {
	t.Parallel()
	r, agent := smallWorld()
	none := chain(nil)
	narrow := chain{{Tools: []counterfoil.ToolID{tool("bank/get")}}, {}}
	below := chain{{}, {Tools: []counterfoil.ToolID{tool("bank/get")}}}
	for _, tt := range []struct {
		name    string
		parents chain
		asked   []string
		want    []string
		code    counterfoil.Code
	}{
		{"all", none, nil, nil, ""},
		{"one", none, []string{"bank/pay"}, []string{"bank/pay"}, ""},
		{"one twice", none, []string{"bank/pay", "bank/pay"}, []string{"bank/pay"}, ""},
		{"of a wide parent", chain{{}}, []string{"bank/pay"}, []string{"bank/pay"}, ""},
		{"all of a narrow parent", narrow, nil, []string{"bank/get"}, ""},
		{"its parent's", narrow, []string{"bank/get"}, []string{"bank/get"}, ""},
		{"not its parent's", narrow, []string{"bank/get", "bank/pay"}, nil, counterfoil.OutsideTask},
		{"not its parent's parent's", below, []string{"bank/pay"}, nil, counterfoil.OutsideTask},
		{"its parent's parent's", below, []string{"bank/get"}, []string{"bank/get"}, ""},
		{"none at all", none, []string{}, nil, counterfoil.RequestMalformed},
		{"every one by a star", none, []string{"bank/*"}, nil, counterfoil.RequestMalformed},
		{"no tool's name", none, []string{"bank"}, nil, counterfoil.RequestMalformed},
		{"too many", none, slices.Repeat([]string{"bank/get"}, maxTaskTools+1), nil, counterfoil.RequestMalformed},
		{"many", none, slices.Repeat([]string{"bank/get"}, maxTaskTools), []string{"bank/get"}, ""},
		{"an unknown resource's", none, []string{"moon/get"}, nil, counterfoil.ToolNotGranted},
		{"an unknown one", none, []string{"bank/fly"}, nil, counterfoil.ToolNotGranted},
		{"one without a class", none, []string{"bank/bare"}, nil, counterfoil.ToolNotGranted},
		{"one of another environment", none, []string{"lab/get"}, nil, counterfoil.ToolNotGranted},
	} {
		got, err := taskTools(r, agent, tt.parents, tt.asked)
		wantCode(t, tt.name, err, tt.code)
		var texts []string
		for _, id := range got {
			texts = append(texts, id.String())
		}
		if !slices.Equal(texts, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, texts, tt.want)
		}
	}
	agent.Grants[0].Tools = agent.Grants[0].Tools[1:]
	_, err := taskTools(r, agent, none, []string{"bank/pay"})
	wantCode(t, "no grant", err, counterfoil.ToolNotGranted)
}

// Whoever asks for longer gets what is allowed, and is told.
func TestTaskDeadlines(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 20, 10, 0, 0, 400e6, time.FixedZone("", 3600))
	at := func(d time.Duration) time.Time { return now.UTC().Truncate(time.Second).Add(d) }
	for _, tt := range []struct {
		asked, most time.Duration
		parent      time.Duration // 0: none
		want        time.Duration // 0: refused
	}{
		{0, 0, 0, time.Hour},
		{time.Second, 0, 0, time.Second},
		{time.Second - 1, 0, 0, 0},
		{-time.Hour, 0, 0, 0},
		{23 * time.Hour, 0, 0, 23 * time.Hour},
		{1 << 62, 0, 0, counterfoil.MaxTaskLife},
		{0, 10 * time.Minute, 0, 10 * time.Minute},
		{5 * time.Minute, 10 * time.Minute, 0, 5 * time.Minute},
		{time.Hour, 10 * time.Minute, 0, 10 * time.Minute},
		{48 * time.Hour, 30 * time.Hour, 0, counterfoil.MaxTaskLife},
		{time.Hour, 0, time.Minute, time.Minute},
		{time.Second, 0, time.Minute, time.Second},
	} {
		agent := &counterfoil.Agent{Tasks: counterfoil.TaskLimits{MaxDuration: counterfoil.Duration(tt.most)}}
		var parents chain
		if tt.parent > 0 {
			parents = chain{{Deadline: at(tt.parent)}}
		}
		got, err := deadline(agent, parents, tt.asked, now)
		name := fmt.Sprint(tt.asked, " of ", tt.most, " below ", tt.parent)
		if tt.want == 0 {
			wantCode(t, name, err, counterfoil.RequestMalformed)
		} else if err != nil || !got.Equal(at(tt.want)) || got.Location() != time.UTC {
			t.Errorf("%s: %v (%v)", name, got, err)
		}
	}
}

func TestTaskCalls(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		asked   int64
		agent   int
		parents []int64
		want    int64
	}{
		{0, 0, nil, 0}, {5, 0, nil, 5}, {0, 7, nil, 7}, {5, 7, nil, 5}, {9, 7, nil, 7},
		{0, 0, []int64{3}, 3}, {9, 0, []int64{3}, 3}, {2, 7, []int64{3}, 2}, {9, 7, []int64{0, 3}, 3}, {9, 0, []int64{0, 0}, 9},
	} {
		var parents chain
		for _, n := range tt.parents {
			parents = append(parents, counterfoil.Task{MaxCalls: n})
		}
		got, err := maxCalls(&counterfoil.Agent{Tasks: counterfoil.TaskLimits{MaxCalls: tt.agent}}, parents, tt.asked)
		if err != nil || got != tt.want {
			t.Errorf("%+v: %d (%v)", tt, got, err)
		}
	}
	_, err := maxCalls(&counterfoil.Agent{}, nil, -1)
	wantCode(t, "fewer than none", err, counterfoil.RequestMalformed)
}

// A limit bounds something, or it is refused.
func TestTaskLimits(t *testing.T) {
	t.Parallel()
	r, _ := smallWorld()
	pay := TaskLimitRequest{Class: "payout", Sum: "amount", Max: "100.5"}
	for _, tt := range []struct {
		name  string
		asked []TaskLimitRequest
		want  string
	}{
		{"none", nil, "[]"},
		{"a sum", []TaskLimitRequest{pay}, "[{payout amount 1005000 0}]"},
		{"calls", []TaskLimitRequest{{Class: "payout", Max: "3"}}, "[{payout  30000 0}]"},
		{"both", []TaskLimitRequest{pay, {Class: "payout", Max: "3"}}, "[{payout amount 1005000 0} {payout  30000 0}]"},
		{"no calls", []TaskLimitRequest{{Class: "read", Max: "0"}}, "[{read  0 0}]"},
		{"half a call", []TaskLimitRequest{{Class: "payout", Max: "2.5"}}, ""},
		{"fewer than none", []TaskLimitRequest{{Class: "payout", Sum: "amount", Max: "-1"}}, ""},
		{"five places", []TaskLimitRequest{{Class: "payout", Sum: "amount", Max: "1.00001"}}, ""},
		{"no number", []TaskLimitRequest{{Class: "payout", Sum: "amount", Max: ""}}, ""},
		{"an exponent", []TaskLimitRequest{{Class: "payout", Sum: "amount", Max: "1e3"}}, ""},
		{"a class that is nowhere", []TaskLimitRequest{{Class: "launch", Max: "1"}}, ""},
		{"no class", []TaskLimitRequest{{Max: "1"}}, ""},
		{"a field that is nowhere", []TaskLimitRequest{{Class: "payout", Sum: "weight", Max: "1"}}, ""},
		{"another class's field", []TaskLimitRequest{{Class: "read", Sum: "amount", Max: "1"}}, ""},
		{"twice", []TaskLimitRequest{pay, pay}, ""},
		{"too many", slices.Repeat([]TaskLimitRequest{pay}, counterfoil.MaxTaskLimits+1), ""},
	} {
		got, err := taskLimits(r, tt.asked)
		if tt.want == "" {
			wantCode(t, tt.name, err, counterfoil.RequestMalformed)
		} else if err != nil || fmt.Sprint(got) != tt.want {
			t.Errorf("%s: %v (%v)", tt.name, got, err)
		}
	}
}

// What one writes and others read is text that can be seen.
func TestTexts(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"monthly run", "Lohnläufe für Dezember", "給与", "a"} {
		wantCode(t, s, checkText("purpose", s, 1), "")
	}
	for _, s := range []string{"", " ", "a\nb", "a\x00", "a\u202eb", "a\u200bb", "\xff", "a\tb", strings.Repeat("x", maxPurpose+1)} {
		wantCode(t, fmt.Sprintf("%.20q", s), checkText("purpose", s, 1), counterfoil.RequestMalformed)
	}
	wantCode(t, "no reason", checkText("reason", "", 0), "")
}
