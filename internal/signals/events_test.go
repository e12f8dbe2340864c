package signals_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil/internal/signals"
	"github.com/counterfoil/counterfoil/ledger"
)

const (
	payrollPlain = `{"format":"iss_sub","iss":"https://issuer.example","sub":"payroll"}`
	payrollApp   = `{"application":` + payrollPlain + `,"format":"complex"}`
)

func session(id string) string {
	return `{"application":` + payrollPlain + `,"format":"complex","session":{"format":"opaque","id":"` + id + `"}}`
}

// What each entry tells, in order: type, subject, and the event's own members.
func TestWhatEntriesTell(t *testing.T) {
	t.Parallel()
	list := func(s ...any) []any { return s }
	gone := []string{
		"session-revoked " + payrollApp + ` {}`, "session-revoked " + payrollPlain + ` {}`, "account-disabled " + payrollPlain + ` {}`,
	}
	for _, c := range []struct {
		name  string
		entry ledger.Entry
		by    string
		want  []string
	}{
		{"a token", ledger.Entry{Kind: ledger.Revoked, Agent: "payroll", Actor: "ana", Detail: map[string]any{"kind": "token", "id": "tok_1"}}, "admin",
			[]string{`session-revoked {"format":"jwt_id","iss":"https://issuer.example","jti":"tok_1"} {}`}},
		{"a task that is done", taskClosed("tsk_1"), "system", []string{"session-revoked " + session("tsk_1") + ` {}`}},
		{"a task past its deadline", ledger.Entry{Kind: ledger.TaskClosed, Agent: "payroll", Task: "tsk_1", Detail: map[string]any{"state": "expired"}}, "policy",
			[]string{"session-revoked " + session("tsk_1") + ` {}`}},
		{"a task with another below", ledger.Entry{Kind: ledger.TaskClosed, Agent: "payroll", Task: "tsk_1", Actor: "uid:0", Detail: map[string]any{"state": "cancelled", "tasks": list("tsk_1", "tsk_2")}}, "admin",
			[]string{"session-revoked " + session("tsk_1") + ` {}`, `session-revoked {"format":"complex","session":{"format":"opaque","id":"tsk_2"}} {}`}},
		{"a task, revoked", ledger.Entry{Kind: ledger.Revoked, Agent: "payroll", Actor: "uid:0", Detail: map[string]any{"kind": "task", "id": "tsk_1"}}, "admin",
			[]string{"session-revoked " + session("tsk_1") + ` {}`}},
		{"an agent, suspended", suspended("payroll"), "admin", gone},
		{"an agent, offboarded", ledger.Entry{Kind: ledger.AgentOffboarded, Agent: "payroll", Actor: "uid:0"}, "admin", gone},
		{"an agent, revoked", ledger.Entry{Kind: ledger.Revoked, Actor: "uid:0", Detail: map[string]any{"kind": "agent", "id": "payroll"}}, "admin", gone},
		{"an owner's agents", ledger.Entry{Kind: ledger.Revoked, Actor: "uid:0", Detail: map[string]any{"kind": "owner", "id": "ana", "agents": list("payroll")}}, "admin", gone},
		{"a person, by another's word", ledger.Entry{Kind: ledger.Revoked, Actor: "transmitter:idp", Detail: map[string]any{"kind": "person", "id": "ana", "agents": list("payroll")}}, "policy",
			append([]string{`session-revoked {"email":"ana@example.com","format":"email"} {}`}, gone...)},
		{"a person with a passkey", ledger.Entry{Kind: ledger.Revoked, Actor: "uid:0", Detail: map[string]any{"kind": "person", "id": "zed", "passkeys": list("x")}}, "admin",
			[]string{`session-revoked {"format":"iss_sub","iss":"https://issuer.example","sub":"zed"} {}`,
				`credential-change {"format":"iss_sub","iss":"https://issuer.example","sub":"zed"} {"change_type":"revoke","credential_type":"fido2-roaming"}`}},
		{"a resource", ledger.Entry{Kind: ledger.Revoked, Actor: "uid:0", Detail: map[string]any{"kind": "resource", "id": "bank"}}, "admin",
			[]string{`session-revoked {"format":"uri","uri":"https://issuer.example/r/bank"} {}`}},
		{"a key", ledger.Entry{Kind: ledger.Revoked, Agent: "payroll", Actor: "uid:0", Detail: map[string]any{"kind": "key", "id": "jkt-1"}}, "admin",
			[]string{"credential-change " + payrollPlain + ` {"change_type":"revoke","credential_type":"jwk","friendly_name":"jkt-1"}`}},
		{"an instance with two keys", ledger.Entry{Kind: ledger.Revoked, Agent: "payroll", Actor: "uid:0", Detail: map[string]any{"kind": "instance", "id": "ins_1", "keys": list("a", "b")}}, "admin",
			[]string{"credential-change " + payrollPlain + ` {"change_type":"revoke","credential_type":"jwk","friendly_name":"a"}`,
				"credential-change " + payrollPlain + ` {"change_type":"revoke","credential_type":"jwk","friendly_name":"b"}`}},
		{"a key that left its manifest", ledger.Entry{Kind: ledger.Revoked, Agent: "payroll", Instance: "ins_1", JKT: "jkt-1", Actor: "uid:0", Detail: map[string]any{"kind": "instance", "id": "ins_1"}}, "admin",
			[]string{"credential-change " + payrollPlain + ` {"change_type":"revoke","credential_type":"jwk","friendly_name":"jkt-1"}`}},
		{"a key enrolled", ledger.Entry{Kind: ledger.InstanceEnrolled, Agent: "payroll", JKT: "jkt-1"}, "system",
			[]string{"credential-change " + payrollPlain + ` {"change_type":"create","credential_type":"jwk","friendly_name":"jkt-1"}`}},
		{"a key rotated", ledger.Entry{Kind: ledger.KeyRotated, Agent: "payroll", Instance: "ins_1", JKT: "jkt-2"}, "system",
			[]string{"credential-change " + payrollPlain + ` {"change_type":"update","credential_type":"jwk","friendly_name":"jkt-2"}`}},
		{"a signing key of ours rotated", ledger.Entry{Kind: ledger.KeyRotated, Detail: map[string]any{"purpose": "access-token"}}, "", nil},
		{"a key cloned", ledger.Entry{Kind: ledger.CloneSuspected, Agent: "payroll", Instance: "ins_1", Detail: map[string]any{"clones": "quarantine"}}, "system",
			[]string{"risk-level-change " + payrollPlain + ` {"current_level":"HIGH","principal":"APPLICATION","risk_reason":"a key was seen in two places at once"}`,
				"session-revoked " + session("ins_1") + ` {}`}},
		{"a key cloned, which is only recorded", ledger.Entry{Kind: ledger.CloneSuspected, Agent: "payroll", Instance: "ins_1", Detail: map[string]any{"clones": "record"}}, "system",
			[]string{"risk-level-change " + payrollPlain + ` {"current_level":"HIGH","principal":"APPLICATION","risk_reason":"a key was seen in two places at once"}`}},
		{"grants", ledger.Entry{Kind: ledger.AgentChanged, Agent: "payroll", Actor: "uid:0", Detail: map[string]any{"name": "payroll", "fields": list("grants", "purpose")}}, "admin",
			[]string{"token-claims-change " + payrollPlain + ` {"claims":{"authorization_details":[{"actions":["call"],"locations":["https://issuer.example/r/bank"],"tool":"pay","type":"https://github.com/counterfoil/counterfoil/tool-call"}],"scope":"pay"}}`}},
		{"what are no grants", ledger.Entry{Kind: ledger.AgentChanged, Agent: "payroll", Actor: "uid:0", Detail: map[string]any{"fields": list("purpose")}}, "", nil},
		{"a passkey", ledger.Entry{Kind: ledger.PersonEnrolled, Actor: "ana", Detail: map[string]any{"person": "ana", "aaguid": "g", "transports": list("internal")}}, "admin",
			[]string{`credential-change {"email":"ana@example.com","format":"email"} {"change_type":"create","credential_type":"fido2-platform","fido2_aaguid":"g"}`}},
		{"a passkey that ended", ledger.Entry{Kind: ledger.PasskeyEnded, Actor: "uid:0", Detail: map[string]any{"person": "ana"}}, "admin",
			[]string{`credential-change {"email":"ana@example.com","format":"email"} {"change_type":"revoke","credential_type":"fido2-roaming"}`}},
		{"a call", ledger.Entry{Kind: ledger.CallDecided, Agent: "payroll", Tool: "bank/pay"}, "", nil},
		{"an agent that is back", ledger.Entry{Kind: ledger.AgentResumed, Agent: "payroll", Actor: "uid:0"}, "", nil},
		{"an event that was received", ledger.Entry{Kind: ledger.SignalReceived, Actor: "transmitter:idp"}, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.create(signals.Wish{})
			index := w.happen(c.entry)
			var got []string
			for n, e := range w.read(w.poll(s.ID, signals.PollRequest{}).Sets) {
				if want := fmt.Sprintf("%s.%d.%d.%s", s.ID, index, n, strconv.FormatInt(began.UnixMicro(), 36)); e.ID != want || e.IssuedAt != began.Unix() {
					t.Errorf("jti %s at %d, want %s", e.ID, e.IssuedAt, want)
				}
				if e.Payload["initiating_entity"] != c.by || e.Payload["event_timestamp"] != float64(began.Unix()) {
					t.Errorf("payload %v, want it by %s", e.Payload, c.by)
				}
				delete(e.Payload, "initiating_entity")
				delete(e.Payload, "event_timestamp")
				own, err := json.Marshal(e.Payload)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, e.Event+" "+e.Subject+" "+string(own))
				if strings.Contains(string(own), "secret of ours") {
					t.Error("the reason that a person gave is told")
				}
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("told:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// A receiver is told what it asked for, and about its own stream whatever it asked for.
func TestRequestedEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.create(signals.Wish{Request: []string{signals.AccountDisabled, "https://example.com/not-ours"}})
	w.happen(suspended("payroll"), taskClosed("tsk_1"))
	state := "s-1"
	if err := w.Verify(t.Context(), watch, s.ID, &state); err != nil {
		t.Fatal(err)
	}
	if got := words(w.read(w.poll(s.ID, signals.PollRequest{}).Sets)); got != "account-disabled verification" {
		t.Errorf("told: %s", got)
	}
}
