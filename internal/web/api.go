package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/approval"
)

// operations is the management API. Nothing in it approves but signatures, and what
// that takes is an assertion.
var operations = []operation{
	op(http.MethodGet, apiPath+"openapi.json", forAnyone, "This document", (*management).openapi),

	op(http.MethodPost, apiPath+"enrolments/options", forAnyone, "Begin to enrol a passkey, with a one-time code", (*management).enrolmentOptions).
		byAddress().refuses(counterfoil.EnrolmentRefused),
	op(http.MethodPost, apiPath+"enrolments", forAnyone, "Enrol a passkey", (*management).enrol).
		byAddress().answers(http.StatusCreated).refuses(counterfoil.EnrolmentRefused, counterfoil.PasskeyRefused, counterfoil.KeyInUse),
	op(http.MethodPost, apiPath+"sessions/options", forAnyone, "Begin to log in", (*management).loginOptions).
		byAddress(),
	op(http.MethodPost, apiPath+"sessions", forAnyone, "Log in with a passkey", (*management).login).
		byAddress().answers(http.StatusCreated).refuses(counterfoil.PasskeyRefused),
	op(http.MethodGet, apiPath+"session", forPeople, "Who is logged in", (*management).whoAmI),
	op(http.MethodDelete, apiPath+"session", forPeople, "Log out", (*management).logout).
		answers(http.StatusNoContent),

	op(http.MethodGet, apiPath+"approvals", forPeople, "Approvals that you may see, newest first", (*management).listApprovals).
		asks(
			parameter{"state", "only those in this state", approvalStates},
			parameter{"agent", "only those of this agent", nil},
		),
	op(http.MethodGet, apiPath+"approvals/{id}", forPeople, "One approval: canonical payload, rendering, digest, who signed", (*management).getApproval),
	op(http.MethodPost, apiPath+"approvals/{id}/challenge", forPeople, "Begin to sign a decision", (*management).challenge).
		refuses(signRefusals...),
	op(http.MethodPost, apiPath+"approvals/{id}/signatures", forPeople, "Sign a decision with a passkey", (*management).sign).
		refuses(append(signRefusals, counterfoil.PasskeyRefused, counterfoil.ApprovalPending)...),
	op(http.MethodPost, apiPath+"approvals/{id}/cancel", forAdmins, "Take an approval back", (*management).cancel).
		refuses(closedRefusals...),
	op(http.MethodPost, apiPath+"approvals/{id}/reconcile", forAdmins, "Say how a call ended of which nobody knew", (*management).reconcile).
		refuses(closedRefusals...),

	op(http.MethodGet, apiPath+"people", forReaders, "People, their passkeys and their load", (*management).people),
	op(http.MethodGet, apiPath+"agents", forReaders, "Agents", (*management).agents),
	op(http.MethodGet, apiPath+"agents/{name}", forReaders, "One agent, its document and its instances", (*management).agent),
	op(http.MethodPost, apiPath+"agents/{name}/suspend", forAdmins, "Suspend an agent: its tokens are void at once", (*management).suspend),
	op(http.MethodPost, apiPath+"agents/{name}/offboard", forAdmins, "End an agent for good", (*management).offboard),

	op(http.MethodGet, apiPath+"tasks", forReaders, "Tasks, newest first", (*management).tasks).
		asks(
			parameter{"agent", "only those that this agent works in", nil},
			parameter{"state", "only those in this state", taskStates},
		),
	op(http.MethodPost, apiPath+"tasks/{id}/cancel", forAdmins, "End a task: its tokens, its open approvals and the tasks below it are void at once", (*management).cancelTask).
		refuses(counterfoil.TaskClosed),

	op(http.MethodGet, apiPath+"revocations", forReaders, "What was taken away, newest first", (*management).revocations).
		asks(parameter{"limit", "the most revocations, 100 when absent and at most 1000", nil}),
	op(http.MethodPost, apiPath+"revocations", forAdmins, "Take authority away, at once: from a token, key, instance, task, agent, person or resource, or from the agents of an owner", (*management).revoke).
		refuses(counterfoil.ToolUnknown),
	op(http.MethodGet, apiPath+"revocations/{index}", forReaders, "One revocation, what it took, and when each enforcement point stopped accepting that", (*management).receiptOf),

	op(http.MethodGet, apiPath+"ledger/entries", forReaders, "Entries that a filter chooses, newest first, or from an index on", (*management).ledgerEntries).
		asks(entryFilter...),
	op(http.MethodGet, apiPath+"ledger/entries/{index}", forReaders, "One entry", (*management).ledgerEntry),
	op(http.MethodGet, apiPath+"ledger/receipts/{index}", forReaders, "One entry with the proof that it is in the log", (*management).ledgerReceipt),
	op(http.MethodGet, apiPath+"ledger/chain", forReaders, "One call from its token to its outcome", (*management).ledgerChain).
		asks(
			parameter{"request_id", "of any request in it", nil},
			parameter{"approval", "the approval's id", nil},
		),
	op(http.MethodGet, apiPath+"bearer", forReaders, "Who still sends bearer credentials, and what one could do that is stolen", (*management).bearer).
		asks(bearerFilter...).refuses(counterfoil.ToolUnknown),
	op(http.MethodGet, apiPath+"health", forReaders, "Whether this can be relied on", (*management).condition),
}

var approvalStates = []string{
	string(counterfoil.StatePending), string(counterfoil.StateApproved), string(counterfoil.StateSpent), string(counterfoil.StateSucceeded),
	string(counterfoil.StateFailed), string(counterfoil.StateIndeterminate), string(counterfoil.StateDenied), string(counterfoil.StateExpired),
	string(counterfoil.StateCancelled), string(counterfoil.StateSuperseded), string(counterfoil.StateRevoked),
}

// closedRefusals are what is said of an approval that is not in the state that it
// should be in.
var closedRefusals = []counterfoil.Code{
	counterfoil.ApprovalDenied, counterfoil.ApprovalExpired, counterfoil.ApprovalCancelled, counterfoil.ApprovalSuperseded,
	counterfoil.ApprovalRevoked, counterfoil.ApprovalSpent,
}

var signRefusals = append([]counterfoil.Code{counterfoil.ApproverNotEligible, counterfoil.ApproverNotDistinct}, closedRefusals...)

type codeBody struct {
	Code string `json:"code"`
}

// ceremony is what a browser is given: WebAuthn Level 3, Section 5.1.8 and 5.1.9,
// PublicKeyCredentialCreationOptionsJSON or PublicKeyCredentialRequestOptionsJSON.
type ceremony struct {
	PublicKey jsontext.Value `json:"publicKey"`
}

// asCeremony takes the engine's options as they are: {"publicKey":…}.
func asCeremony(options []byte, err error) (ceremony, error) {
	if err != nil {
		return ceremony{}, err
	}
	members, err := ijson.Members(options)
	if err != nil {
		return ceremony{}, fmt.Errorf("reading the options: %w", err)
	}
	return ceremony{members["publicKey"]}, nil
}

func (m *management) enrolmentOptions(ctx context.Context, a asked[codeBody]) (ceremony, error) {
	return asCeremony(m.Approvals.EnrolmentOptions(ctx, a.in.Code))
}

type enrolmentBody struct {
	Code       string         `json:"code"`
	Credential jsontext.Value `json:"credential"` // RegistrationResponseJSON
}

func (m *management) enrol(ctx context.Context, a asked[enrolmentBody]) (approval.PersonView, error) {
	return m.Approvals.Enrol(ctx, a.in.Code, a.in.Credential)
}

func (m *management) loginOptions(ctx context.Context, _ asked[struct{}]) (ceremony, error) {
	return asCeremony(m.Approvals.LoginOptions(ctx))
}

type credentialBody struct {
	Credential jsontext.Value `json:"credential"` // AuthenticationResponseJSON
}

// A loggedIn is who is logged in, and for how long if nothing is asked meanwhile.
type loggedIn struct {
	Person    string    `json:"person"`
	Groups    []string  `json:"groups"`
	Roles     []string  `json:"roles"`
	ExpiresAt time.Time `json:"expires_at"`
}

func newLoggedIn(p *counterfoil.Person, expires time.Time) loggedIn {
	return loggedIn{p.Name, p.Groups, p.Roles, expires.UTC()}
}

// login begins a session. The engine has recorded it by then, and has said no to
// whoever is not declared.
func (m *management) login(ctx context.Context, a asked[credentialBody]) (loggedIn, error) {
	name, passkey, err := m.Approvals.Login(ctx, a.in.Credential)
	if err != nil {
		return loggedIn{}, err
	}
	_, registry := m.Authority.Policy()
	person := registry.People[name]
	if person == nil {
		return loggedIn{}, counterfoil.Refuse(counterfoil.PasskeyRefused, "the passkey is nobody's")
	}
	return newLoggedIn(person, m.openSession(a.w, a.r, name, passkey)), nil
}

func (m *management) whoAmI(_ context.Context, a asked[none]) (loggedIn, error) {
	return newLoggedIn(a.session.person, a.session.expires), nil
}

func (m *management) logout(_ context.Context, a asked[none]) (none, error) {
	return none{}, m.closeSession(a.w, a.r, a.session)
}

type approvalList struct {
	Approvals []approval.View `json:"approvals"`
}

func (m *management) listApprovals(ctx context.Context, a asked[none]) (approvalList, error) {
	views, err := m.Approvals.List(ctx, a.session.person.Name, approvalFilter(a.query.Get("state"), a.query.Get("agent")))
	return approvalList{views}, err
}

func approvalFilter(state, agent string) counterfoil.ApprovalFilter {
	f := counterfoil.ApprovalFilter{Agent: agent}
	if state != "" {
		f.States = []counterfoil.ApprovalState{counterfoil.ApprovalState(state)}
	}
	return f
}

func (m *management) getApproval(ctx context.Context, a asked[none]) (approval.View, error) {
	return m.Approvals.View(ctx, a.session.person.Name, a.path("id"))
}

type decisionBody struct {
	Decision string `json:"decision"`        // approve or deny
	Reason   string `json:"reason,omitzero"` // of a no
}

func (m *management) challenge(ctx context.Context, a asked[decisionBody]) (ceremony, error) {
	id, person := a.path("id"), a.session.person.Name
	options, err := m.Approvals.Challenge(ctx, id, person, a.in.Decision, a.in.Reason)
	return asCeremony(options, m.unseen(ctx, id, person, err))
}

// unseen tells whoever may not even see an approval that there is none, and not that
// they may not decide it: an id says nothing to them.
func (m *management) unseen(ctx context.Context, id, person string, err error) error {
	if err == nil || counterfoil.CodeOf(err) != counterfoil.ApproverNotEligible {
		return err
	}
	if _, hidden := m.Approvals.View(ctx, person, id); hidden != nil {
		return hidden
	}
	return err
}

type signatureBody struct {
	Decision   string         `json:"decision"`
	Reason     string         `json:"reason,omitzero"`
	Credential jsontext.Value `json:"credential"` // AuthenticationResponseJSON
}

type signed struct {
	State counterfoil.ApprovalState `json:"state"`
}

// sign hands an assertion to the engine. The session says whose it has to be; it
// takes the place of none of its checks.
func (m *management) sign(ctx context.Context, a asked[signatureBody]) (signed, error) {
	id, person := a.path("id"), a.session.person.Name
	state, err := m.Approvals.Sign(ctx, id, person, a.in.Decision, a.in.Reason, a.in.Credential)
	var over *approval.Overtaken
	if errors.As(err, &over) {
		fresh, err := asCeremony(over.Options, nil)
		if err != nil {
			return signed{}, err
		}
		return signed{}, overtaken{
			counterfoil.Refuse(counterfoil.ApprovalPending, "somebody else signed meanwhile: look again, and sign the new challenge"), fresh.PublicKey,
		}
	}
	return signed{state}, m.unseen(ctx, id, person, err)
}

// overtaken is the refusal of a signature that does not cover the ones that are
// there, with a challenge that does. Its status is 409: nothing was decided.
type overtaken struct {
	*counterfoil.Refusal
	publicKey jsontext.Value
}

// Unwrap returns the refusal alone.
func (o overtaken) Unwrap() error { return o.Refusal }

func (m *management) cancel(ctx context.Context, a asked[reasonBody]) (approval.View, error) {
	if err := m.Approvals.CancelBy(ctx, a.path("id"), a.session.person.Name, a.in.Reason); err != nil {
		return approval.View{}, err
	}
	return m.Approvals.View(ctx, a.session.person.Name, a.path("id"))
}

type reconcileBody struct {
	Happened *bool  `json:"happened"` // whether the upstream did it
	Reason   string `json:"reason"`   // how that is known
}

func (m *management) reconcile(ctx context.Context, a asked[reconcileBody]) (approval.View, error) {
	if a.in.Happened == nil {
		return approval.View{}, counterfoil.Refuse(counterfoil.PayloadMalformed, "the body: happened is missing: true or false")
	}
	if err := m.Approvals.Reconcile(ctx, a.path("id"), a.session.person.Name, *a.in.Happened, a.in.Reason); err != nil {
		return approval.View{}, err
	}
	return m.Approvals.View(ctx, a.session.person.Name, a.path("id"))
}
