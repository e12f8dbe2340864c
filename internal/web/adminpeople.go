package web

import (
	"context"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/approval"
	"github.com/counterfoil/counterfoil/internal/authority"
)

// What the administration socket says of approvals and people. It reads, and makes
// codes; nothing on the socket approves: whoever holds it holds the machine, and an
// approval is to be worth something beyond that.

// operator is the viewer of the socket: an administrator who is nobody's person, sees
// every approval and can sign none.
const operator = ""

func (m *admin) listApprovals(ctx context.Context, c call[none]) (approvalList, error) {
	for name, values := range c.query {
		if name != "state" && name != "agent" || len(values) != 1 {
			return approvalList{}, counterfoil.Refuse(counterfoil.RequestMalformed, "the filters are state and agent, once each")
		}
	}
	views, err := m.Approvals.List(ctx, operator, approvalFilter(c.query.Get("state"), c.query.Get("agent")))
	return approvalList{views}, err
}

func (m *admin) getApproval(ctx context.Context, c call[none]) (approval.View, error) {
	return m.Approvals.View(ctx, operator, c.path("id"))
}

type personCodeBody struct {
	// Reset ends the passkeys that the person has.
	Reset bool `json:"reset"`
}

type personCode struct {
	Person    string    `json:"person"`
	Code      string    `json:"code"` // this answer is the one time that anyone sees it
	How       string    `json:"how"`  // first, added or reset
	URL       string    `json:"url"`  // the page, with the code where no server sees it
	ExpiresAt time.Time `json:"expires_at"`
}

func (m *admin) personCode(ctx context.Context, c call[personCodeBody]) (personCode, error) {
	code, kept, err := m.Approvals.MakeCode(ctx, c.path("name"), c.actor, c.in.Reset)
	if err != nil {
		return personCode{}, err
	}
	return personCode{kept.Person, code.Reveal(), kept.How, m.enrolURL(code), kept.Expires.UTC()}, nil
}

// enrolPath is the console's page on which a person enrols a passkey.
const enrolPath = "/enrol"

// enrolURL is the address of the page with a code in its fragment, which browsers
// send to nobody.
func (m *admin) enrolURL(code counterfoil.Secret) string {
	return m.ManagementURL + enrolPath + "#" + code.Reveal()
}

// An applied is what an apply did, with a code for each person that it made.
type applied struct {
	authority.ApplyResult
	Changes []appliedChange `json:"changes"`
}

type appliedChange struct {
	authority.AppliedChange

	// Of a person who is new: for the first passkey, and the page that takes it.
	// This answer is the one time that anyone sees them.
	EnrolmentCode string `json:"enrolment_code,omitzero"`
	EnrolmentURL  string `json:"enrolment_url,omitzero"`
}

// withCodes makes a code for each person that the apply made. The manifests are in
// force by now: a code that cannot be made is said, and asked for again.
func (m *admin) withCodes(ctx context.Context, result authority.ApplyResult, actor string, dryRun bool) applied {
	out := applied{ApplyResult: result, Changes: []appliedChange{}}
	_, registry := m.Authority.Policy()
	for _, ch := range result.Changes {
		c := appliedChange{AppliedChange: ch}
		if ch.Kind == counterfoil.KindPerson && ch.Verb == "create" && !dryRun && registry.People[ch.Name] != nil {
			code, _, err := m.Approvals.MakeCode(ctx, ch.Name, actor, false)
			if err != nil && m.Approvals.Suspended(ch.Name) {
				// A name that is declared again is as it was, and gets no code.
				out.Warnings = append(out.Warnings, "Person "+ch.Name+" is suspended and has no enrolment code: counterfoil person resume "+ch.Name+", and then counterfoil person enroll-code "+ch.Name)
			} else if err != nil {
				m.Logger.ErrorContext(ctx, "making an enrolment code", "request_id", RequestID(ctx), "person", ch.Name, "err", err)
				out.Warnings = append(out.Warnings, "Person "+ch.Name+" is there and has no enrolment code: counterfoil person enroll-code "+ch.Name)
			} else {
				c.EnrolmentCode, c.EnrolmentURL = code.Reveal(), m.enrolURL(code)
			}
		}
		out.Changes = append(out.Changes, c)
	}
	return out
}

// countPasskeys says of each person how many passkeys count, and whether the person is
// suspended.
func (m *admin) countPasskeys(ctx context.Context, people []document) error {
	views, err := m.Approvals.People(ctx)
	if err != nil {
		return err
	}
	active, status := map[string]int{}, map[string]counterfoil.Status{}
	for _, v := range views {
		status[v.Name] = v.Status
		for _, p := range v.Passkeys {
			if p.Status == counterfoil.Active {
				active[v.Name]++
			}
		}
	}
	for i := range people {
		people[i].Passkeys, people[i].Status = active[people[i].Name], status[people[i].Name]
	}
	return nil
}
