package evidence_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/evidence"
	"github.com/counterfoil/counterfoil/ledger"
)

const (
	oldKey    = "key sha-256:old"
	unusedKey = "key sha-256:unused"
	idpJob    = "https://idp.example job"
)

func crmRegistry(mode string) *counterfoil.Registry {
	reg := counterfoil.NewRegistry()
	reg.Classes["read"] = &counterfoil.Class{Name: "read", Tier: counterfoil.Routine}
	reg.Classes["reset"] = &counterfoil.Class{Name: "reset", Tier: counterfoil.Guarded}
	reg.Classes["never"] = &counterfoil.Class{Name: "never", Tier: counterfoil.Forbidden}
	reg.Resources["crm"] = &counterfoil.Resource{
		Name: "crm", Type: counterfoil.ResourceHTTP, Environment: "prod", Binding: mode,
		Tools: []counterfoil.Tool{{Name: "get", Class: "read"}, {Name: "reset", Class: "reset"}, {Name: "wipe", Class: "never"}, {Name: "other", Class: "read"}},
		Bearers: []counterfoil.Bearer{
			{Agent: "reports", Key: "sha-256:old"}, {Agent: "reports", Key: "sha-256:unused"},
			{Agent: "reports", Issuer: "https://idp.example", Subject: "job"},
		},
	}
	tools := []counterfoil.ToolID{{Resource: "crm", Tool: "get"}, {Resource: "crm", Tool: "reset"}, {Resource: "crm", Tool: "wipe"}}
	reg.Agents["reports"] = &counterfoil.Agent{Name: "reports", Environment: "prod", Grants: []counterfoil.Grant{{Tools: tools, When: "true"}}}
	return reg
}

func (b *book) sent(resource, bearer, agent, address, decision string) {
	b.add(&ledger.Entry{
		Kind: ledger.CallDecided, Agent: agent, Resource: resource, Tool: resource + "/get", Binding: counterfoil.NotBound,
		Decision: decision, Source: ledger.Source{Address: address}, Detail: map[string]any{"bearer": bearer, "user_agent": "curl/8"},
	})
}

func (b *book) report(reg *counterfoil.Registry, name string, since time.Time) evidence.BearerReport {
	b.t.Helper()
	r, err := evidence.Bearers(b.t.Context(), b, reg, name, since, b.clock.Now())
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func useOf(t *testing.T, r *evidence.BearerReport, resource, bearer string) *evidence.BearerUse {
	t.Helper()
	for i := range r.Resources {
		for j := range r.Resources[i].Credentials {
			if u := &r.Resources[i].Credentials[j]; r.Resources[i].Name == resource && u.Bearer == bearer {
				return u
			}
		}
	}
	t.Fatalf("the report has no %s at %s: %+v", bearer, resource, r)
	return nil
}

func TestBearers(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	long := b.clock.Now()
	b.sent("crm", oldKey, "reports", "192.0.2.9", ledger.Allow)
	b.clock.Advance(time.Hour)
	since := b.clock.Now()
	for range 3 {
		b.sent("crm", oldKey, "reports", "192.0.2.1", ledger.Allow)
		// What is bound is nobody's here.
		b.add(&ledger.Entry{Kind: ledger.CallDecided, Agent: "reports", Resource: "crm", Tool: "crm/get", Binding: counterfoil.BoundDPoP, Decision: ledger.Allow})
	}
	b.sent("crm", oldKey, "reports", "192.0.2.2", ledger.Refuse)
	b.sent("crm", "key sha-256:gone", "reports", "", ledger.Allow)
	b.sent("hr", "key sha-256:hr", "reports", "192.0.2.3", ledger.Allow)
	last := b.clock.Now()
	b.clock.Advance(time.Minute)

	r := b.report(crmRegistry(counterfoil.BindingObserve), "", since)
	if len(r.Resources) != 2 || r.Resources[0].Name != "crm" || r.Resources[1].Name != "hr" {
		t.Fatalf("the report is of %+v", r.Resources)
	}
	crm := &r.Resources[0]
	if crm.Safe || !slices.Equal(crm.Left, []string{oldKey}) || crm.Binding != counterfoil.BindingObserve {
		t.Errorf("crm: safe %v, left %v, mode %s", crm.Safe, crm.Left, crm.Binding)
	}
	used := useOf(t, &r, "crm", oldKey)
	if used.Calls != 3 || used.Refused != 1 || !used.Declared || len(used.From) != 2 || used.From[0].Text != "192.0.2.1" || used.From[0].Calls != 3 ||
		len(used.Agents) != 1 || used.Agents[0].Text != "curl/8" || !used.Last.Before(last) || used.First.Before(since) || !used.Last.After(used.First) {
		t.Errorf("the old key: %+v", used)
	}
	if unused := useOf(t, &r, "crm", unusedKey); unused.Calls != 0 || !unused.Declared || !unused.Last.IsZero() {
		t.Errorf("the unused key: %+v", unused)
	}
	if gone := useOf(t, &r, "crm", "key sha-256:gone"); gone.Declared || len(gone.Opens) != 0 || gone.From[0].Text != "unknown" {
		t.Errorf("the key that is not declared: %+v", gone)
	}
	if hr := r.Resources[1]; hr.Type != "" || hr.Binding != counterfoil.BindingRequire || !hr.Safe {
		t.Errorf("a resource that is not there: %+v", hr)
	}
	useOf(t, &r, "crm", idpJob)

	// Since before the first one, and of one resource.
	r = b.report(crmRegistry(counterfoil.BindingObserve), "crm", long)
	if used := useOf(t, &r, "crm", oldKey); used.Calls != 4 || len(r.Resources) != 1 {
		t.Errorf("since the beginning: %+v", used)
	}
}

// What a thief could call is what the mode takes now.
func TestWhatAStolenBearerOpens(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	now := b.clock.Now()
	for _, c := range []struct {
		name   string
		change func(*counterfoil.Registry)
		want   []string
	}{
		{counterfoil.BindingObserve, nil, []string{"crm/get", "crm/reset"}},
		{counterfoil.BindingPrefer, nil, []string{"crm/get"}},
		{counterfoil.BindingRequire, nil, nil},
		{counterfoil.BindingObserve, func(r *counterfoil.Registry) { r.Resources["crm"].RequireFrom = now }, nil},
		{counterfoil.BindingObserve, func(r *counterfoil.Registry) { r.Agents["reports"].Environment = "dev" }, nil},
		{counterfoil.BindingObserve, func(r *counterfoil.Registry) { r.Agents["reports"].Tasks.Required = true }, nil},
		{counterfoil.BindingObserve, func(r *counterfoil.Registry) { delete(r.Agents, "reports") }, nil},
		{counterfoil.BindingObserve, func(r *counterfoil.Registry) { delete(r.Classes, "reset") }, []string{"crm/get"}},
	} {
		reg := crmRegistry(c.name)
		if c.change != nil {
			c.change(reg)
		}
		r := b.report(reg, "crm", now)
		var got []string
		for _, o := range useOf(t, &r, "crm", oldKey).Opens {
			got = append(got, o.Tool)
			if !o.Condition || o.Networks {
				t.Errorf("%s: %+v", c.name, o)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: a thief could call %v, want %v", c.name, got, c.want)
		}
	}
}

// Whoever makes up addresses fills no report.
func TestReportsAreBounded(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	since := b.clock.Now()
	for i := range 100 {
		b.sent("crm", oldKey, "reports", fmt.Sprint("192.0.2.", i), ledger.Allow)
	}
	r := b.report(crmRegistry(counterfoil.BindingObserve), "crm", since)
	used := useOf(t, &r, "crm", oldKey)
	if used.Calls != 100 || len(used.From) != 33 || used.From[0].Text != "others" || used.From[0].Calls != 68 {
		t.Errorf("%d calls from %d places, the first %+v", used.Calls, len(used.From), used.From[0])
	}
}
