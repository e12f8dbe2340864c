package gateway

import (
	"context"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/custody"
	"github.com/counterfoil/counterfoil/internal/policy"
	"github.com/counterfoil/counterfoil/ledger"
	"github.com/counterfoil/counterfoil/resource"
)

// A call is one request on its way through the gateway, as far as it is the same in
// every protocol: who asks, what decides, what was decided and what follows for the
// record. What it is in the words of its protocol is in the type that has it.
type call struct {
	gateway *Gateway
	ctx     context.Context // the request's; once an approval is spent it does not end with the client
	w       http.ResponseWriter
	r       *http.Request // nil where no request of HTTP is there to be answered
	id      string        // of the request
	words   protocol      // whose call this is a part of
	held    bool          // the gateway makes it itself, once people allowed it

	// forwards says that what is allowed goes on to the resource's upstream, and is
	// shown the credential that it takes.
	forwards bool

	// What decides, as of now: see renew.
	now      time.Time
	resource *counterfoil.Resource
	policy   *policy.Set
	registry *counterfoil.Registry

	url    string // the resource's identifier
	target string // the URL that the proof is for
	caller counterfoil.Caller
	source netip.Addr

	declared []counterfoil.Bearer // what the caller's credential was declared as, where it is bound to nothing

	payload  []byte // what is decided on: canonical JSON, or nil
	opaque   bool   // see counterfoil.Action
	unproven bool   // a refusal now concerns who asks

	class     string
	tier      counterfoil.Tier
	judged    bool              // the arguments had a part in the decision
	fields    map[string]string // see policy.Decision
	sums      bool              // a limit of the task sums a field of it
	decided   *ledger.Entry     // once the decision is durable
	decidedAt time.Time

	released custody.Released // once the decision is durable
	struck   *atomic.Bool     // an answer held what was released; nil where nothing was
	detail   map[string]any   // facts for the entry of the decision

	used    counterfoil.CallUse  // with the decision: see recordUsing
	earlier *counterfoil.Earlier // the call that this one repeats, whose answer it gets

	// Of a call that a person has to allow: see approve.
	approval ledger.Approval       // for the entry
	spent    *counterfoil.Spending // once the approval is used up
	keeps    bool                  // the answer is kept for whoever may repeat the call
	kept     []byte                // the answer, see keepAnswer
	overlong bool                  // it is too large to be kept
}

// A protocol is what admit, which is one for all of them, asks of the words that a
// call came in, and has them answer. What a call is and how it is answered differ;
// who may make it, what is recorded of it and when it may go on do not.
//
// fail, ended, renewed, judge and keyDigest have a form that most share, which is call's own.
type protocol interface {
	subject

	// renewed takes what the protocol goes by of the resource and the registry that are
	// in force now, and refuses where these leave no room for the call.
	renewed() error

	// judge asks policy once more about a call that was decided, and nobody else.
	judge() error

	// deny records a refusal of a call that was understood, and answers with it. g is
	// not nil where people have a part in it.
	deny(err error, g *counterfoil.GuardedCall)

	// fail answers with a refusal that is recorded, or with a fault.
	fail(err error)

	// again makes what the call is answered with from the answer that the earlier call
	// got.
	again(earlier *counterfoil.Earlier) (write func(), err error)

	// ended adds to the entry of the call's end what only the protocol knows.
	ended(e *ledger.Entry)

	// lost is what is kept of a call that ended with that code and without an answer.
	lost(code counterfoil.Code) []byte
}

// A subject is what is asked for, as it is decided on and recorded.
type subject interface {
	// toolID names what is called.
	toolID() counterfoil.ToolID

	// definition is the digest of what is declared of it now; empty when none is known.
	definition() string

	// describe fills in what the entry of a decision says of it.
	describe(e *ledger.Entry)

	// counts reports whether it does something: those are what a task counts and what a
	// person may have to allow.
	counts() bool

	// keyed reports whether the caller says which call this one repeats, or may be
	// repeated as.
	keyed() bool

	// keyDigest says which call an Idempotency-Key is for.
	keyDigest() (string, error)

	// object is the call as people would allow it.
	object() *callObject

	// guard adds what the protocol has to say to a call that people are asked about,
	// and refuses one that has more to it than they would see. It comes with the
	// canonical call.
	guard(g *counterfoil.GuardedCall) error
}

// An incoming is a protocol over HTTP.
type incoming interface {
	protocol

	// screen refuses what needs no look at who asks.
	screen() error

	// serve answers a request whose caller is verified.
	serve()
}

// ServeHTTP answers one request.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	set, reg := g.cfg.Policy()
	if res := g.web(reg, r); res != nil {
		c := &httpCall{call: g.newCall(w, r)}
		c.words = c
		c.now, c.policy, c.registry, c.resource = g.cfg.Now(), set, reg, res
		c.take(c)
		return
	}
	c := &mcpCall{call: g.newCall(w, r)}
	c.words = c
	c.take(c)
}

func (g *Gateway) newCall(w http.ResponseWriter, r *http.Request) call {
	c := call{gateway: g, ctx: r.Context(), w: w, r: r, forwards: true, source: g.cfg.Source(r), id: w.Header().Get("X-Request-Id")}
	if c.id == "" {
		c.id = counterfoil.NewID("req_")
	}
	return c
}

func (c *call) ended(*ledger.Entry) {}

func (c *call) renewed() error { return nil }

// take answers one request. The order matters: what costs nothing first, then who
// asks, then what is asked, and nothing is forwarded before all of it is decided and
// recorded.
func (c *call) take(req incoming) {
	g, r := c.gateway, c.r
	c.w.Header().Set("X-Request-Id", c.id)
	c.w.Header().Set("Cache-Control", "no-store")

	if r.ContentLength != 0 {
		c.hurry()
	}
	if err := req.screen(); err != nil {
		c.count(g.cfg.Unauthenticated, err)
		req.fail(err)
		return
	}
	c.unproven = true
	var err error
	c.caller, err = g.cfg.Verifier.Check(r.Context(), resource.Request{
		Method: r.Method, URL: c.target, Resource: c.url, Header: r.Header,
		Binding: c.resource.BindingAt(c.now), Bearers: c.resource.Bearers,
	})
	if err != nil && !c.known() {
		c.count(g.cfg.Unauthenticated, err)
		req.fail(err)
		return
	}
	if over := c.limit(); over != nil {
		c.unproven = false
		c.count(g.cfg.Answered, over)
		req.fail(over)
		return
	}
	if err == nil {
		err = c.climb()
	}
	if err != nil {
		// A caller beside the error means that the proof was used: it goes into
		// the log, so that a restart knows it.
		c.refuse(err)
		return
	}
	c.unproven = false
	req.serve()
}

// renew takes what decides as it is now. The client sends the body when it
// likes, and an upstream may be waited for: what was applied meanwhile must
// count, and the token must still be good when it is used.
func (c *call) renew() error {
	c.now = c.gateway.cfg.Now()
	// The token of a held call was good when the call was accepted.
	if !c.held && !c.now.Before(c.caller.Expires) {
		return counterfoil.Refuse(counterfoil.TokenExpired, "the access token expired before the request was decided")
	}
	return c.reread()
}

// reread takes the registry and the policy that are in force. When the resource
// is not in them any more, or is another server now, the call keeps what it had,
// for its record: what was looked at on one server must not decide what is sent
// to another, nor what another one's answer may show.
func (c *call) reread() error {
	set, reg := c.gateway.cfg.Policy()
	res := reg.Resources[c.resource.Name]
	if res == nil || res.Type != c.resource.Type || res.ID(c.gateway.cfg.PublicURL) != c.url {
		return counterfoil.Refuse(counterfoil.ToolUnknown, "resource %s is not there any more", c.resource.Name)
	}
	if res.Upstream != c.resource.Upstream {
		return counterfoil.Refuse(counterfoil.ToolChanged, "the resource moved; call again")
	}
	c.policy, c.registry, c.resource = set, reg, res
	if err := c.stillTaken(); err != nil {
		return err
	}
	return c.words.renewed()
}

// stale reports whether what was decided with may not be what decides now.
func (c *call) stale() bool {
	set, _ := c.gateway.cfg.Policy()
	return set != c.policy || c.gateway.cfg.Now().Sub(c.now) >= time.Second
}
