package console

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, time.November, 2, 12, 0, 0, 0, time.UTC)

func before(d time.Duration) time.Time { return noon.Add(-d) }

var bo = &Viewer{Name: "bo", Sees: true, Admin: true, Waiting: 3, Token: "token"}

// samples are pages as they can be, by the name of a file.
func samples() map[string]Page {
	page := func(name, title, section string, body any) Page {
		return Page{Title: title, Section: section, Viewer: bo, Now: noon, Body: body}
	}
	asks := []Ask{
		{ID: "apr_AAAAAAAAAAAAAAAAAAAAAA", Sentence: Plain("Pay 12,500.00 EUR to Nordwind GmbH"), Agent: "payroll", Tool: "bank/pay", Class: "payout", Tier: "irreversible", State: "pending", Signed: 1, Required: 2, Created: before(11 * time.Minute), Expires: noon.Add(4 * time.Minute)},
		{ID: "apr_BBBBBBBBBBBBBBBBBBBBBB", Sentence: Text{{Text: "Reset the password of "}, {Text: "ро", Lookalike: true}, {Text: "lly"}, {Code: "U+202E", Name: "RIGHT-TO-LEFT OVERRIDE"}, {Text: "@example.com"}}, Agent: "helpdesk", Tool: "directory/reset", Class: "credential-reset", Tier: "guarded", State: "pending", Signed: 0, Required: 1, Created: before(2 * time.Minute), Expires: noon.Add(13 * time.Minute)},
		{ID: "apr_CCCCCCCCCCCCCCCCCCCCCC", Sentence: Plain("Put dora into the group finance-approvers"), Change: true, Tool: "counterfoil/apply", Class: "admin-change", Tier: "irreversible", State: "pending", Required: 2, Created: before(time.Hour), Expires: noon.Add(23 * time.Hour)},
	}
	closed := []Ask{
		{ID: "apr_DDDDDDDDDDDDDDDDDDDDDD", Sentence: Plain("Pay 900.00 EUR to Kessel & Söhne"), Agent: "payroll", Tool: "bank/pay", Class: "payout", State: "succeeded", Closed: before(3 * time.Hour), Mine: "approved"},
		{ID: "apr_EEEEEEEEEEEEEEEEEEEEEE", Sentence: Plain("Pay 44,000.00 EUR to Unknown Ltd"), Agent: "payroll", Tool: "bank/pay", Class: "payout", State: "denied", Closed: before(26 * time.Hour)},
		{ID: "apr_FFFFFFFFFFFFFFFFFFFFFF", Sentence: Plain("Pay 10.00 EUR to Nordwind GmbH"), Agent: "payroll", Tool: "bank/pay", Class: "payout", State: "indeterminate", Closed: before(72 * time.Hour)},
		{ID: "apr_GGGGGGGGGGGGGGGGGGGGGG", Sentence: Plain("bank/pay"), Agent: "payroll", Tool: "bank/pay", Class: "payout", State: "expired", Closed: before(99 * time.Hour)},
	}
	one := Approval{
		ID: asks[0].ID, State: "pending", Tier: "irreversible", Sentence: asks[0].Sentence, Template: true,
		Irrevocable: "A payment that has left the bank does not come back. Whoever has the money has it.",
		Agent:       "payroll", Owner: "ana", Task: "tsk_4Qm0v1yTq8oPnZ2kq0Xw3A", TaskFor: Plain("Pay the invoices of October that ana released"), OpenedBy: "planner", Does: Plain("monthly payroll run"), Seen: true,
		Class: "payout", Rule: "Two people have to sign: one of finance-approvers or board, and one of security.",
		Limits: []LimitUse{{Field: "amount", Window: "24 h", Used: "31,000", This: "12,500", Max: "50,000", Percent: 62, More: 25}},
		Earlier: &Earlier{ID: "apr_DDDDDDDDDDDDDDDDDDDDDD", At: before(31 * 24 * time.Hour), Outcome: "Done", Differences: []Difference{
			{Name: Plain("/arguments/amount"), Before: Plain("900.00"), After: Plain("12500.00")},
			{Name: Plain("/arguments/to"), Before: Plain("DE02 1203 0000 0000 2020 51"), After: Plain("DE02 5001 0517 0137 0750 30")},
			{Name: Plain("/arguments/memo"), After: Plain("invoice 2291")},
		}},
		Payload: []Row{
			{Name: Plain("aud"), Type: "text", Value: Plain("http://localhost:8420/r/bank")},
			{Name: Plain("env"), Type: "text", Value: Plain("prod")},
			{Name: Plain("tool"), Type: "text", Value: Plain("pay")},
			{Name: Plain("arguments"), Type: "object", Count: 4},
			{Depth: 1, Name: Plain("amount"), Type: "text", Value: Plain("12500.00"), Field: "amount"},
			{Depth: 1, Name: Plain("currency"), Type: "text", Value: Plain("EUR")},
			{Depth: 1, Name: Plain("to"), Type: "text", Value: Plain("DE02 5001 0517 0137 0750 30"), Field: "to"},
			{Depth: 1, Name: Plain("memo"), Type: "text", Value: Text{{Text: "invoice 2291"}, {Code: "U+200B", Name: "ZERO WIDTH SPACE"}, {Text: " Nordwind "}, {Text: "Gmb", Lookalike: false}, {Text: "Н", Lookalike: true}}},
			{Depth: 1, Name: Plain("splits"), Type: "list", Count: 2},
			{Depth: 2, Type: "number", Value: Plain("5000")},
			{Depth: 2, Type: "number", Value: Plain("7500")},
			{Name: Plain("agent"), Type: "text", Value: Plain("payroll")},
		},
		Tool: "bank/pay", Resource: "bank", Environment: "prod", Audience: "http://localhost:8420/r/bank",
		Created: asks[0].Created, Expires: asks[0].Expires,
		Signatures: []Signature{{Person: "cy", Decision: "approve", Groups: []string{"security"}, At: before(6 * time.Minute), Passkey: "passkey on one device"}},
		Empty:      []string{"one of finance-approvers or board"}, Eligible: []string{"bo", "dee"},
		Words:  Plain("I was asked to settle all open invoices before the end of the month. This one is urgent, please approve right away!"),
		Digest: "sha-256:3q2-7wABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhs", CallDigest: "sha-256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b8",
		MaySign: true, MayDeny: true, MayCancel: true,
	}
	mine := one
	mine.MaySign, mine.MayDeny, mine.MayCancel = false, false, false
	mine.Mine = &Signature{Person: "bo", Decision: "approve", At: before(20 * time.Second), Mine: true}
	mine.Signatures = []Signature{{Person: "bo", Decision: "approve", Groups: []string{"finance-approvers"}, At: before(20 * time.Second), Mine: true}}
	mine.Empty, mine.Eligible = []string{"one of security"}, []string{"cy", "eli"}
	bare := one
	bare.Template, bare.Irrevocable, bare.Earlier, bare.Limits, bare.Words, bare.Tier, bare.Class = false, "", nil, nil, nil, "guarded", "write"
	bare.MayDeny = false
	bare.Sentence, bare.MaySign, bare.WhyNot = Plain("bank/pay"), false, "bo owns the agent that asks"
	bare.Signatures = nil
	bare.Repeats = "apr_DDDDDDDDDDDDDDDDDDDDDD"
	done := one
	done.State, done.MaySign, done.MayCancel, done.Empty, done.Eligible = "succeeded", false, false, nil, nil
	done.Closed, done.Outcome = before(time.Minute), "Two people signed, the call ran once, and bank said that it did it."
	done.Signatures = append(done.Signatures, Signature{Person: "bo", Decision: "approve", Groups: []string{"finance-approvers"}, At: before(2 * time.Minute), Mine: true})
	done.Proof = "/approvals/x/proof.json"
	done.Entries = []EntryLink{{Index: 12041, What: "Approval asked for", At: before(11 * time.Minute)}, {Index: 12050, What: "cy approved", At: before(6 * time.Minute)}, {Index: 12066, What: "bo approved", At: before(2 * time.Minute)}, {Index: 12067, What: "Call allowed", At: before(2 * time.Minute)}, {Index: 12068, What: "Call finished", At: before(2 * time.Minute)}}
	denied := done
	denied.State, denied.Outcome, denied.Reason = "denied", "dee refused it. Nothing ran.", Plain("Wrong amount or target")
	denied.Signatures = []Signature{{Person: "dee", Decision: "deny", Reason: Plain("Wrong amount or target"), Groups: []string{"board"}, At: before(4 * time.Minute)}}
	lost := done
	lost.State, lost.Outcome, lost.Reconcile = "indeterminate", "Two people signed and the call was forwarded, but no answer came. Nobody knows whether it took effect.", true

	change := one
	change.Change, change.Agent, change.Task, change.Class, change.Tool = true, "uid:0", "", "admin-change", "counterfoil/apply"
	change.Sentence, change.Limits, change.Earlier, change.Words = Plain("Put dora into the group finance-approvers"), nil, nil, nil
	change.Irrevocable, change.Environment, change.Audience, change.Resource = "", "", "", "counterfoil"
	change.Expires = noon.Add(23 * time.Hour)
	change.Payload = []Row{{Name: Plain("changes"), Type: "list", Count: 1}, {Depth: 1, Name: Plain("0"), Type: "text", Value: Plain("Person dora: groups gains finance-approvers")}}
	var calls []Call
	for i := range 400 {
		class, tier := "read", "routine"
		switch {
		case i%31 == 0:
			class, tier = "payout", "irreversible"
		case i%11 == 0:
			class, tier = "credential-reset", "guarded"
		case i%7 == 0:
			class = "small-payment"
		}
		calls = append(calls, Call{before(time.Duration(i*i) * time.Second), class, tier, i%17 == 0})
	}
	lines := []Line{
		{Index: 12068, At: before(2 * time.Minute), What: "Call finished", Kind: "call.finished", Agent: "payroll", Tool: "bank/pay", Class: "payout", Decision: ""},
		{Index: 12067, At: before(2 * time.Minute), What: "Call decided", Kind: "call.decided", Agent: "payroll", Tool: "bank/pay", Class: "payout", Decision: "allow"},
		{Index: 12066, At: before(2 * time.Minute), What: "Approval signed", Kind: "approval.signed", Agent: "payroll", Tool: "bank/pay", Class: "payout", Person: "bo"},
		{Index: 12060, At: before(5 * time.Minute), What: "Call decided", Kind: "call.decided", Agent: "payroll", Tool: "bank/pay", Class: "payout", Decision: "refuse", Code: "policy_forbids"},
	}
	agent := Agent{
		Name: "payroll", Owner: "ana", Purpose: "monthly payroll run", Environment: "prod", Status: "active", Tasks: []string{"required", "at most 8 h", "at most 200 calls"},
		Instances: []Instance{
			{ID: "ins_8c1f0b7d2e4a4d0f", Key: "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I", KeyKind: "Ed25519", Status: "active", How: "code", Place: "10.2.0.17", Enrolled: before(90 * 24 * time.Hour), Last: before(2 * time.Minute)},
			{ID: "ins_0a44e1b2c3d4e5f6", Key: "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", KeyKind: "ES256", Status: "quarantined", How: "manifest", Enrolled: before(400 * 24 * time.Hour)},
		},
		Workloads: []string{"spiffe://prod.example/payroll"},
		Grants:    []Grant{{Tools: []GrantedTool{{"bank/get_balance", "read", "routine"}, {"bank/list_payees", "read", "routine"}}, Networks: []string{"10.2.0.0/16"}}, {Tools: []GrantedTool{{"bank/pay", "payout", "irreversible"}}, When: `context.fields.amount.lessThanOrEqual(decimal("50000.0"))`}},
		Timeline:  NewTimeline(calls, noon, time.Hour, 48, false),
		Refusals:  []CodeCount{{"policy_forbids", "A forbid of the operator's policy matched.", 14, 100, "/ledger"}, {"tool_not_granted", "No grant of the agent, or not this token's scope, covers the tool.", 6, 42, "/ledger"}},
		Recent:    lines, Waiting: 2,
		OpenTasks: []Task{
			{ID: "tsk_4Qm0v1yTq8oPnZ2kq0Xw3A", State: "open", Agent: "payroll", Opener: "payroll", For: Plain("Pay the invoices of October that ana released"), Tools: []string{"bank/get_balance", "bank/pay"}, Opened: before(20 * time.Minute), Deadline: noon.Add(40 * time.Minute), Calls: 73, Most: 200, Percent: 36, Limits: []LimitUse{{Field: "payout, sum of amount", Used: "12500", Max: "50000"}}},
			{ID: "tsk_5Rn0v1yTq8oPnZ2kq0Xw3A", State: "open", Agent: "helpdesk", Opener: "payroll", Parent: "tsk_4Qm0v1yTq8oPnZ2kq0Xw3A", For: Text{{Text: "Tell "}, {Text: "ро", Lookalike: true}, {Text: "lly"}, {Code: "U+202E", Name: "RIGHT-TO-LEFT OVERRIDE"}}, Opened: before(2 * time.Minute), Deadline: noon.Add(8 * time.Minute), Calls: 1},
		},
		ClosedTasks: []Task{
			{ID: "tsk_6Rn0v1yTq8oPnZ2kq0Xw3A", State: "completed", Agent: "payroll", Opener: "payroll", For: Plain("Payroll of September"), Opened: before(26 * time.Hour), Closed: before(25 * time.Hour), Calls: 12, Reason: Plain("done")},
			{ID: "tsk_7Rn0v1yTq8oPnZ2kq0Xw3A", State: "revoked", Agent: "payroll", Opener: "payroll", For: Plain("Payroll of August"), Opened: before(27 * time.Hour), Closed: before(27 * time.Hour), Calls: 0},
		},
	}
	losses := []Loss{
		{What: "Every token: 4 of them are in their time", Names: []Name{{ID: "tok_AAAAAAAAAAAAAAAAAAAAAA"}, {ID: "tok_BBBBBBBBBBBBBBBBBBBBBB"}, {ID: "tok_CCCCCCCCCCCCCCCCCCCCCC"}}, More: 1},
		{What: "2 open tasks", Names: []Name{{ID: "tsk_4Qm0v1yTq8oPnZ2kq0Xw3A", Text: Plain("Pay the invoices of October that ana released")}, {ID: "tsk_5Rn0v1yTq8oPnZ2kq0Xw3A", Text: Plain("Tell rolly")}}},
		{What: "1 open approval, with its signatures", Names: []Name{{ID: asks[0].ID, URL: "/approvals/" + asks[0].ID, Text: asks[0].Sentence}}},
		{What: "No enrolment code that was not used", None: true},
	}
	gone := append(losses, Loss{What: "2 keys, never to be used again by anybody", Names: []Name{{ID: "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}, {ID: "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"}}}, Loss{What: "3 granted tools", Names: []Name{{ID: "bank/get_balance"}, {ID: "bank/list_payees"}, {ID: "bank/pay"}}})
	suspend := Void{
		Question: "Suspend payroll?", Text: "Until an administrator resumes it on the server’s machine:", Command: "counterfoil agent resume payroll", Verb: "Suspend payroll",
		Losses: losses, Stays: []string{"Calls that were forwarded already: they end as they end, and the ledger says how.", "The record of what payroll did."},
		Action: "/agents/payroll/suspend", Back: "/agents/payroll", BackLabel: "payroll",
	}
	offboard := suspend
	offboard.Question, offboard.Text, offboard.Command, offboard.Verb, offboard.Losses, offboard.Confirm = "Offboard payroll?", "This is for good. The name and its keys never come back.", "", "Offboard payroll", gone, "payroll"
	person := suspend
	person.Question, person.Kind, person.ID, person.Action = "Revoke bo?", "person", "bo", "/revoke"
	revocation := Revocation{
		Index: 12070, What: "Agent suspended", Kind: "agent", ID: "payroll", URL: "/agents/payroll", At: before(3 * time.Minute), Who: "bo", Reason: Plain("its laptop was stolen"), Losses: losses[:3],
		Points: []Point{
			{Name: "gateway", What: "the gateway of this server", At: before(3 * time.Minute), After: "412 µs", Streams: 2, Entry: 12071},
			{Name: "vault-server", What: "a resource server that follows the feed", At: before(2 * time.Minute), After: "1.2 s", Entry: 12074},
			{Name: "siem", What: "a receiver of shared signals"},
		},
	}
	return map[string]Page{
		"inbox":           page("inbox", "Inbox", "inbox", Inbox{Waiting: asks}),
		"inbox-empty":     page("inbox", "Inbox", "inbox", Inbox{}),
		"inbox-nobody":    page("inbox", "Inbox", "inbox", Inbox{Nobody: true}),
		"approval":        page("approval", "Pay 12,500.00 EUR to Nordwind GmbH", "inbox", one),
		"approval-change": page("approval", "Approval", "inbox", change),
		"approval-mine":   page("approval", "Approval", "inbox", mine),
		"approval-bare":   page("approval", "Approval", "inbox", bare),
		"approval-done":   page("approval", "Approval", "decided", done),
		"approval-denied": page("approval", "Approval", "decided", denied),
		"approval-lost":   page("approval", "Approval", "decided", lost),
		"decided":         page("decided", "Decided", "decided", Decided{[]Choice{{"All", "/decided", true}, {"Done", "/decided?state=succeeded", false}, {"Refused", "/decided?state=denied", false}, {"Outcome unknown", "/decided?state=indeterminate", false}}, closed}),
		"decided-empty":   page("decided", "Decided", "decided", Decided{[]Choice{{"All", "/decided", true}}, nil}),
		"agents":          page("agents", "Agents", "agents", Agents{[]AgentRow{{Name: "payroll", Owner: "ana", Purpose: "monthly payroll run", Environment: "prod", Status: "active", Instances: 3, Calls: 12044, Refusals: 14, Last: before(2 * time.Minute), More: true}, {Name: "helpdesk", Owner: "dee", Purpose: "answers first-line tickets", Environment: "prod", Status: "suspended", Quarantined: 1}}}),
		"agents-empty":    page("agents", "Agents", "agents", Agents{}),
		"agent":           page("agent", "payroll", "agents", agent),
		"void-suspend":    page("void", "Suspend payroll", "agents", suspend),
		"void-offboard":   page("void", "Offboard payroll", "agents", offboard),
		"void-person":     page("void", "Revoke bo", "people", person),
		"revocation":      page("revocation", "Agent suspended", "revocations", revocation),
		"revocation-new":  page("revocation", "Agent suspended", "revocations", Revocation{Index: 12070, What: "Token revoked", Kind: "token", ID: "tok_AAAAAAAAAAAAAAAAAAAAAA", At: before(time.Second), Who: "bo"}),
		"revocations": page("revocations", "Revocations", "revocations", Revocations{Older: "/revocations?before=12001", Kinds: []Choice{{Label: "Token", URL: "token"}, {Label: "Key", URL: "key"}}, All: []RevocationRow{
			{Index: 12070, At: before(3 * time.Minute), What: "Agent suspended", Kind: "agent", ID: "payroll", URL: "/agents/payroll", Who: "bo", Reason: Plain("its laptop was stolen"), Took: "4 tokens, 2 tasks, 1 approval"},
			{Index: 12001, At: before(3 * time.Hour), What: "Revoked", Kind: "key", ID: "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I", Who: "uid:0"},
		}}),
		"revocations-empty": page("revocations", "Revocations", "revocations", Revocations{Kinds: []Choice{{Label: "Token", URL: "token"}}}),
		"resources": page("resources", "Resources", "resources", Resources{[]ResourceRow{
			{Name: "bank", Type: "mcp", Environment: "prod", Place: "http://127.0.0.1:9000/mcp", Status: "active", Tools: 3, Agents: []string{"payroll", "helpdesk"}},
			{Name: "crm", Type: "http", Environment: "prod", Place: "http://127.0.0.1:9001", Status: "suspended", Tools: 2, Before: before(time.Hour)},
		}}),
		"resources-empty": page("resources", "Resources", "resources", Resources{}),
		"ledger":          page("ledger", "Ledger", "ledger", Ledger{Size: 12069, Found: lines, Limited: true, Next: "/ledger?until=x", Classes: []string{"read", "payout"}, Kinds: []string{"call.decided", "call.finished"}}),
		"ledger-empty":    page("ledger", "Ledger", "ledger", Ledger{Size: 12069, Asked: true, Query: Query{Agent: "nobody"}}),
		"entry":           page("entry", "Entry 12067", "ledger", Chain{Index: 12067, Size: 12069, What: "Call decided", Kind: "call.decided", At: before(2 * time.Minute), Approval: asks[0].ID, Facts: []Row{{Name: Plain("index"), Type: "number", Value: Plain("12067")}, {Name: Plain("kind"), Type: "text", Value: Plain("call.decided")}, {Name: Plain("view"), Type: "object", Count: 2}, {Depth: 1, Name: Plain("seq"), Type: "number", Value: Plain("12066")}}, Steps: []Step{{EntryLink: EntryLink{11990, "Token issued", before(14 * time.Minute), "payroll", ""}, State: "done"}, {EntryLink: EntryLink{12040, "Call decided", before(11 * time.Minute), "payroll", "approval_required"}, State: "waits", Text: "bank/pay, class payout"}, {EntryLink: EntryLink{12066, "Approval signed", before(2 * time.Minute), "bo", ""}, State: "done", Text: "approve"}, {EntryLink: EntryLink{12067, "Call decided", before(2 * time.Minute), "payroll", ""}, State: "done", Text: "allowed", Current: true}, {EntryLink: EntryLink{12068, "Call finished", before(2 * time.Minute), "", ""}, State: "done", Text: "ok after 212 ms"}}}),
		"people":          page("people", "People", "people", People{[]Person{{Name: "bo", Email: "bo@example.com", Groups: []string{"finance-approvers"}, Roles: []string{"admin"}, Pending: 3, Approved: 41, Denied: 3, Yes: 93, Passkeys: []Passkey{{ID: "x", Kind: "iCloud Keychain", How: "first, by an operator’s code", Synced: true, Enrolled: before(200 * 24 * time.Hour), Used: before(3 * time.Hour)}, {ID: "y", Kind: "Passkey", How: "added", Enrolled: before(2 * time.Hour), From: noon.Add(22 * time.Hour)}}}, {Name: "cy", Status: "suspended", Groups: []string{"security"}, Yes: -1}, {Name: "ana", Email: "a.na+x@example.com", Yes: -1, Twin: "anna"}}}),
		"health":          page("health", "Health", "health", Health{Ready: true, Newest: 12070, At: before(3 * time.Minute), Points: []PointHealth{{Name: "gateway", What: "the gateway of this server", Seq: 12070, At: before(3 * time.Minute), Good: true}, {Name: "vault-server", What: "a resource server that follows the feed", Seq: 12001, Behind: 1, Lag: "for 3 min", At: before(4 * time.Minute)}}, Checks: []Check{{Name: "The ledger advances", Good: true, At: before(2 * time.Second), Text: "The last of 12,069 entries. Each decision appends one before anything runs."}, {Name: "Checkpoint", Good: true, At: before(2 * time.Second), Text: "Signed over all entries."}, {Name: "Clock", Good: true, At: noon, Browse: true, Text: "With scripts, this page compares it with your machine’s."}, {Name: "Store", Good: false, Value: "disk full", Text: "Nothing is allowed while this lasts."}}}),
		"login":           {Title: "Log in", Now: noon, Body: Login{Next: "/", Ended: true}},
		"login-nobody":    {Title: "Log in", Now: noon, Body: Login{Next: "/", Nobody: true, Command: "counterfoil person enroll-code NAME"}},
		"enrol":           {Title: "Enrol a passkey", Now: noon, Body: Enrol{}},
		"failure":         {Title: "Not found", Viewer: bo, Now: noon, Body: Failure{Status: 404, What: "There is nothing here", Lost: "Nothing was done, and nothing was lost.", Do: "Look in the inbox, or in Decided.", Code: "tool_unknown", RequestID: "req_AAAAAAAAAAAAAAAAAAAAAA", Back: "/"}},
	}
}

// pageOf is the page that a sample is of.
func pageOf(sample string) string {
	name, _, _ := strings.Cut(sample, "-")
	return name
}

// TestPages renders every sample, with COUNTERFOIL_PREVIEW=folder into files that a
// browser can open.
func TestPages(t *testing.T) {
	dir := os.Getenv("COUNTERFOIL_PREVIEW")
	for name, p := range samples() {
		html, err := Render(pageOf(name), p)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if dir == "" {
			continue
		}
		html = bytes.ReplaceAll(html, []byte(`="`+AssetPath), []byte(`="assets/`))
		if err := os.MkdirAll(filepath.Join(dir, "assets"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".html"), html, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, a := range assets {
			if err := os.WriteFile(filepath.Join(dir, "assets", a.Name), a.Bytes, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
