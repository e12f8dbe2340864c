package gateway

import (
	"context"
	"errors"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// Approvals asks people about calls above routine, and says what became of it.
// Safe for concurrent use.
type Approvals interface {
	// Claim returns what has to be spent for the call to run now. When that is
	// not there it refuses, and the refusal's Approval is what the call waits for
	// or was refused with: a call that nobody was asked about is asked about. It
	// never waits for a person.
	Claim(ctx context.Context, g counterfoil.GuardedCall) (counterfoil.Spending, error)

	// Spend commits e, a call.decided that allows, together with the use of the
	// approval, and sets e.Index: of any number of concurrent calls one succeeds.
	// It refuses what does not hold any more. After any error nothing may follow.
	Spend(ctx context.Context, s counterfoil.Spending, e *ledger.Entry, payload []byte) error

	// Finish commits e, the call.finished of what was spent, and how it ended.
	// The result is kept for whoever may repeat the call; nil keeps none.
	Finish(ctx context.Context, id string, state counterfoil.ApprovalState, result []byte, e *ledger.Entry) error

	// Status returns an approval that this agent asked for in this task; any
	// other is tool_unknown.
	Status(ctx context.Context, id string, caller counterfoil.Caller) (counterfoil.Approval, error)

	// Cancel takes back an approval that this agent asked for in this task and
	// that is not spent. It refuses with the code of the state that it is in.
	Cancel(ctx context.Context, id string, caller counterfoil.Caller) error

	// StatusOf is what the agent that asked for an approval is shown of it now.
	StatusOf(a counterfoil.Approval) *counterfoil.ApprovalStatus

	HeldCalls
}

// HeldCalls are the calls that the gateway makes itself once they are approved.
type HeldCalls interface {
	// Held sends the id of each held call when it becomes approved, and of those
	// that are when it begins. An id may come more than once.
	Held() <-chan string

	// HeldCall returns a held call's approval; tool_unknown when there is none.
	HeldCall(ctx context.Context, id string) (counterfoil.Approval, error)

	// GiveUp closes an approved call that may not run as things are now, for a
	// reason that the agent is told.
	GiveUp(ctx context.Context, id string, why *counterfoil.Refusal) error
}

// Headers of a repeated call.
const (
	headerApproval = "Counterfoil-Approval" // the approval that it is for
	headerKey      = "Idempotency-Key"      // draft-ietf-httpapi-idempotency-key-header
)

const (
	maxKey  = 255     // bytes of an Idempotency-Key
	maxKept = 1 << 20 // bytes of an answer that is kept

	// maxRoutine is the same of a call that nobody had to allow: there are many.
	maxRoutine = 256 << 10

	// maxSpends bounds how often a call tries to spend what others try to spend too, or
	// what was verified under a registry that is changed all the time.
	maxSpends = 3
)

// waits reports whether a decision is that a person has to allow this very call,
// and there is somebody to ask.
func (c *call) waits(err error) bool {
	if c.gateway.cfg.Approvals == nil || !isCode(err, counterfoil.ApprovalRequired) {
		return false
	}
	return c.words.counts()
}

func isCode(err error, code counterfoil.Code) bool {
	return err != nil && counterfoil.CodeOf(err) == code
}

// approve uses up the call's approval, with the decision, and reports whether the
// call may be forwarded now. Where not, it is answered: with what it waits for, or
// why it does not run. Nothing is held open for a person.
func (c *call) approve() bool {
	g, err := c.guardedCall()
	if err != nil {
		c.words.deny(err, nil)
		return false
	}
	s, err := c.claim(&g)
	if err == nil {
		err = c.spend(&g, s)
	}
	if err != nil {
		c.words.deny(err, &g)
		return false
	}
	return c.goes()
}

// guardedCall is the call as people are asked about it.
func (c *call) guardedCall() (counterfoil.GuardedCall, error) {
	g := counterfoil.GuardedCall{
		RequestID: c.id, Caller: c.caller, Source: c.source, Tool: c.words.toolID(), ToolDigest: c.words.definition(),
		Class: c.class, Fields: c.fields, Amounts: c.amounts(),
	}
	var err error
	if g.Call, err = c.words.object().encode(); err != nil {
		return g, err
	}
	return g, c.words.guard(&g)
}

// guard reads two headers and a member of _meta that have a part in this and in nothing
// else.
func (c *mcpCall) guard(g *counterfoil.GuardedCall) error {
	g.Held = c.message.tasks && c.message.name == "tools/call" && eraOf(c.revision) == modern
	g.Words = c.message.words
	for _, more := range []string{inputResponses, requestState} {
		if find(c.message.params, more) != nil {
			// What is approved is what is forwarded, and these are not.
			return counterfoil.Refuse(counterfoil.PolicyForbids, "a person has to allow this call, and %s adds to it what nobody would see", more)
		}
	}
	if err := c.repeats(g); err != nil {
		return err
	}
	return c.resumed(g)
}

// repeats reads which earlier call this one repeats.
func (c *call) repeats(g *counterfoil.GuardedCall) error {
	if c.held {
		return nil
	}
	id, there, err := headerValue(c.r.Header, headerApproval)
	switch {
	case err != nil:
		return framed(err)
	case there && !isApprovalID(id):
		return framed(counterfoil.Refuse(counterfoil.RequestMalformed, "the header %s is no approval's id: %.64q", headerApproval, id))
	}
	g.Named = id
	g.Key, err = c.idempotencyKey()
	return err
}

// idempotencyKey reads the caller's; empty when there is none.
func (c *call) idempotencyKey() (string, error) {
	key, there, err := headerValue(c.r.Header, headerKey)
	switch {
	case err != nil:
		return "", framed(err)
	case there && !isKey(key):
		return "", framed(counterfoil.Refuse(counterfoil.RequestMalformed, "the header %s is 1 to %d visible ASCII characters", headerKey, maxKey))
	}
	return key, nil
}

const approvalPrefix = "apr_"

// isApprovalID reports whether s has the form of an approval's id: what NewID makes.
func isApprovalID(s string) bool {
	if len(s) != len(approvalPrefix)+26 || s[:len(approvalPrefix)] != approvalPrefix {
		return false
	}
	for _, c := range s[len(approvalPrefix):] {
		if (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}

func isKey(s string) bool {
	if s == "" || len(s) > maxKey {
		return false
	}
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// claim asks for the approval, and notes it for the record when there is one that
// cannot be spent.
func (c *call) claim(g *counterfoil.GuardedCall) (counterfoil.Spending, error) {
	s, err := c.gateway.cfg.Approvals.Claim(c.ctx, *g)
	if r, ok := counterfoil.AsRefusal(err); ok && r.Approval != nil {
		c.approval = ledger.Approval{ID: r.Approval.ID, State: r.Approval.Status}
	}
	return s, err
}

// spend commits the decision and the use of the approval at once. A crash right
// after it leaves a decision without an end: the next start ends both as unknown,
// and the call is not made again.
func (c *call) spend(g *counterfoil.GuardedCall, s counterfoil.Spending) error {
	c.approval = ledger.Approval{ID: s.Approval, State: string(counterfoil.StateApproved), Signers: s.Signers}
	if err := c.anew(); err != nil {
		return err
	}
	a, err := c.gateway.cfg.Approvals.Status(c.ctx, s.Approval, g.Caller)
	if err != nil {
		return err
	}
	e, err := c.commitSpending(g, &s)
	if err != nil {
		return err
	}
	c.decided, c.decidedAt, c.spent = e, c.gateway.cfg.Now(), &s
	c.keeps = a.Key != "" || a.Held
	if !c.held {
		c.ctx = context.WithoutCancel(c.ctx) // a client that leaves breaks nothing off
	}
	return nil
}

// commitSpending spends. A refusal says what was so at its moment, and perhaps of a
// winner whose own commit is still on its way: what became of the approval is asked
// again, and where it is still there, so is the chance to spend it. Where the registry
// is another one than it was claimed under, everything is decided and claimed again.
func (c *call) commitSpending(g *counterfoil.GuardedCall, s *counterfoil.Spending) (*ledger.Entry, error) {
	for attempt := 1; ; attempt++ {
		e := c.entry()
		e.Decision, e.Approval.State = ledger.Allow, string(counterfoil.StateSpent)
		err := c.gateway.cfg.Approvals.Spend(context.WithoutCancel(c.ctx), *s, e, c.payload)
		if err == nil {
			return e, nil
		}
		_, refused := counterfoil.AsRefusal(err)
		changed := errors.Is(err, counterfoil.ErrChanged)
		if !refused && (!changed || attempt == maxSpends) {
			return nil, recordFault(err)
		}
		again, closed := c.reclaim(g, changed)
		switch {
		case closed != nil:
			return nil, closed
		case changed && again.Approval != s.Approval:
			return nil, recordFault(err)
		case again.Approval != s.Approval, !changed && (!isCode(err, counterfoil.ApprovalSpent) || attempt == maxSpends):
			return nil, err
		}
		*s = again
	}
}

// reclaim claims again. Where something was applied it decides first, so that nobody is
// asked about what would be refused, and afterwards, so that what the claim was verified
// under is not later than what decided.
func (c *call) reclaim(g *counterfoil.GuardedCall, applied bool) (counterfoil.Spending, error) {
	if !applied {
		return c.claim(g)
	}
	if err := c.anew(); err != nil {
		return counterfoil.Spending{}, err
	}
	s, err := c.claim(g)
	if err == nil {
		err = c.anew()
	}
	return s, err
}

// anew decides once more when what decides is not what it was: a policy that was
// applied while signatures were verified counts. What was claimed is of the class and
// of the fields that were read then, so where these are others it is not for this call.
func (c *call) anew() error {
	if !c.stale() {
		return nil
	}
	return c.decideAgain(c.renew, true)
}

// unapprovedBody returns how the client is told, nil for as usual.
func (c *mcpCall) unapprovedBody(g *counterfoil.GuardedCall, why error) ([]byte, error) {
	r, ok := counterfoil.AsRefusal(why)
	if !ok || r.Approval == nil {
		return nil, nil
	}
	open := r.Approval.Status == string(counterfoil.StatePending) || r.Approval.Status == string(counterfoil.StateApproved)
	if !open && r.Code != counterfoil.ApprovalSpent || open && !g.Held && !c.elicits() {
		return nil, nil
	}
	a, err := c.gateway.cfg.Approvals.Status(c.ctx, r.Approval.ID, c.caller)
	if isCode(err, counterfoil.ToolUnknown) {
		return nil, nil // it was dropped just now
	}
	switch {
	case err != nil:
		return nil, err
	case r.Code == counterfoil.ApprovalSpent:
		if a.Result == nil || (a.Key == "" || a.Key != g.Key) && (!a.Held || g.Named != a.ID) {
			return nil, nil
		}
		return c.storedAnswer(a.Result, why)
	case g.Held && a.Held:
		return c.created(&a, why)
	case c.elicits() && !c.dismissed():
		return c.elicitation(&a, g, why)
	}
	return nil, nil
}

// keep notes the answer of a call that may be repeated: the member that it is of
// the JSON-RPC message, as the client gets it.
func (c *mcpCall) keep(name string, value []byte) {
	if !c.keeps {
		return
	}
	most := maxKept - len(`{"result":}`)
	if c.spent == nil {
		most = maxRoutine - len(`{"result":}`)
	}
	if c.kept, c.overlong = nil, len(value) > most; c.overlong {
		return
	}
	c.kept = append(appendMember([]byte{'{'}, name, value), '}')
}

// storedAnswer is the answer that an earlier call got, and says that this one did
// not run.
func (c *mcpCall) storedAnswer(kept []byte, why error) ([]byte, error) {
	object, err := json.Marshal(c.explain(why))
	if err != nil {
		return nil, err
	}
	return c.keptAnswer(kept, metaRefusal, object)
}

// keptAnswer is an answer that was kept, in the form that it had, which says in _meta,
// or in the data of an error, that it is of an earlier call.
func (c *mcpCall) keptAnswer(kept []byte, name string, object []byte) ([]byte, error) {
	m, err := members(kept)
	if err != nil {
		return nil, err
	}
	if e := m["error"]; e != nil {
		inner, err := members(e)
		if err != nil {
			return nil, err
		}
		if inner["data"] == nil {
			inner["data"] = jsontext.Value(join([]member{{name, object}}))
		}
		if e, err = encodeObject(inner); err != nil {
			return nil, err
		}
		return encodeRPC(c.message.id, "error", e), nil
	}
	result, err := withMeta(m["result"], name, object)
	if err != nil {
		return nil, err
	}
	return encodeRPC(c.message.id, "result", result), nil
}

// withMeta adds a member to a result's _meta.
func withMeta(result jsontext.Value, name string, value []byte) (jsontext.Value, error) {
	m, err := members(result)
	if err != nil {
		return nil, err
	}
	meta := map[string]jsontext.Value{}
	if old := m["_meta"]; old != nil && old.Kind() == '{' {
		if meta, err = members(old); err != nil {
			return nil, err
		}
	}
	meta[name] = value
	if m["_meta"], err = encodeObject(meta); err != nil {
		return nil, err
	}
	return encodeObject(m)
}

// stateOf is how an approval ends whose call ended so.
func stateOf(o outcome) counterfoil.ApprovalState {
	switch o.name {
	case succeeded:
		return counterfoil.StateSucceeded
	case failed, inputRequired, unavailable, notForwarded:
		// An upstream that asks for more before it acts has not acted, and nobody
		// can answer it: see judgeable.
		return counterfoil.StateFailed
	}
	return counterfoil.StateIndeterminate
}

// finishSpent ends the decision and the approval at once.
func (c *call) finishSpent(e *ledger.Entry, o outcome) error {
	state := stateOf(o)
	e.Approval = ledger.Approval{ID: c.spent.Approval, State: string(state)}
	kept := c.answerToKeep(e, o, c.held) // nobody waits for the answer of a held call; it is asked for later
	return c.gateway.cfg.Approvals.Finish(context.WithoutCancel(c.ctx), c.spent.Approval, state, kept, e)
}

// faultOf is an error under a code that says what the code means.
func (c *call) faultOf(code counterfoil.Code) error {
	if code.Wire().Fault {
		return counterfoil.NewFault(code, errors.New("a held call ended so"))
	}
	return counterfoil.Refuse(code, "%s", code.Wire().Meaning)
}

// nobody is who a held call is answered to. Its answer is kept.
type nobody struct{ header http.Header }

func (n nobody) Header() http.Header         { return n.header }
func (n nobody) Write(b []byte) (int, error) { return len(b), nil }
func (n nobody) WriteHeader(int)             {}
