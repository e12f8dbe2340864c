package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/custody"
	"github.com/counterfoil/counterfoil/ledger"
)

// release gets what the upstream is shown, for a call whose decision is durable, and
// records that it is: from here on what the upstream sees is a secret that whoever has it
// may use. It reports whether the call may go on; where not, it ended and is answered.
func (c *call) release() bool {
	if !c.forwards || c.resource.Credential == nil {
		return true
	}
	var err error
	if c.released, err = c.shown(c.ctx, ""); err == nil {
		c.struck = new(atomic.Bool)
		return true
	}
	err = &unsentError{err}
	o := c.outcomeOf(err)
	if f := (*counterfoil.Fault)(nil); errors.As(err, &f) {
		o.code = f.Code
	}
	c.finish(o)
	c.failUpstream(err)
	return false
}

// shown releases the credential and records its use, of the call's decision or for
// something that the gateway asks by itself. An entry that cannot be written is a fault:
// then nothing is shown.
func (c *call) shown(ctx context.Context, instead string) (custody.Released, error) {
	var none custody.Released
	r, err := c.gateway.cfg.Credentials.Release(ctx, c.resource)
	switch {
	case err != nil:
	case r.Secret.Empty():
		err = errors.New("it is empty")
	case r.Mask == nil:
		err = errors.New("nothing would take it out of answers")
	}
	if err != nil {
		return none, fmt.Errorf("releasing the credential of resource %s: %w", c.resource.Name, err)
	}
	e := &ledger.Entry{
		Kind: ledger.UpstreamCredentialUsed, RequestID: c.id, Agent: c.caller.Agent, Instance: c.caller.Instance, Resource: c.resource.Name,
		Detail: map[string]any{"host": hostOf(c.resource.Upstream), "from": r.From, "binding": "ends here"},
	}
	if c.caller.Subject != c.caller.Agent {
		e.OnBehalfOf = c.caller.Subject
	}
	if c.decided != nil {
		e.Of, e.Tool, e.Agent, e.Instance = c.decided.Index, c.decided.Tool, c.decided.Agent, c.decided.Instance
	}
	if instead != "" {
		e.Detail["for"] = instead
	}
	if err := c.gateway.cfg.Recorder.Append(context.WithoutCancel(ctx), e); err != nil {
		return none, recordFault(err)
	}
	return r, nil
}

// unshown reports whether a status says that the upstream did not take what it was shown,
// and has whoever released that know. It refused the gateway, not the agent, which can do
// nothing about it.
func (c *call) unshown(status int, shown custody.Released) bool {
	if !turnedAway(status) {
		return false
	}
	if c.resource.Credential != nil {
		c.gateway.cfg.Credentials.Refused(c.resource, shown)
	}
	return true
}

// turnedAway reports whether an upstream refused whoever called before it did anything.
func turnedAway(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusProxyAuthRequired
}

// hostOf is host and port of an upstream.
func hostOf(upstream string) string {
	u, err := url.Parse(upstream)
	if err != nil {
		return ""
	}
	return u.Host
}

// scrubbed records that an answer held what was released. The call goes on: the agent
// sees none of it.
func (c *call) scrubbed() {
	err := c.gateway.cfg.Recorder.Append(context.WithoutCancel(c.ctx), &ledger.Entry{
		Kind: ledger.AnswerScrubbed, RequestID: c.id, Agent: c.decided.Agent, Instance: c.decided.Instance,
		Resource: c.decided.Resource, Tool: c.decided.Tool, Of: c.decided.Index,
		Detail: map[string]any{"host": hostOf(c.resource.Upstream), "from": c.released.From},
	})
	if err != nil {
		c.gateway.cfg.Log.Error("recording that an answer was scrubbed", "request_id", c.id, "entry", c.decided.Index, "err", err)
		c.count(c.gateway.cfg.Answered, recordFault(err))
	}
}

// note adds a fact to the entry of the decision.
func (c *call) note(name string, value any) {
	if c.detail == nil {
		c.detail = map[string]any{}
	}
	c.detail[name] = value
}
