package gateway

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// Where the person who has to allow a call is the very user that the agent acts
// for, a client that can do it is asked to send that user to the approval's page
// (MCP 2026-07-28, Elicitation, URL mode). What the client says comes back from
// there is worth nothing: it makes the call again, and the approval is looked at.

// A mark is what a requestState of ours says: which approval a call waits for, and
// for whom. The client carries it and can neither read nor change it.
type mark struct {
	Approval string `json:"approval"`
	Resource string `json:"resource"`
	Agent    string `json:"agent"`
	Subject  string `json:"subject"`
	Task     string `json:"task,omitzero"`
	Digest   string `json:"digest"` // of the call
	Expires  int64  `json:"exp"`    // seconds since 1970
}

// markPrefix tells our requestState from an upstream's.
const markPrefix = "counterfoil.1."

const inputApproval = "approval" // the one thing that a client is asked for

func (s *sealer) sealMark(m *mark) (string, error) {
	b, err := ijson.Marshal(m)
	if err != nil {
		return "", err
	}
	return markPrefix + base64.RawURLEncoding.EncodeToString(s.marks.Seal(nil, nil, b, nil)), nil
}

func (s *sealer) openMark(state string) (*mark, bool) {
	if len(state) > 2*maxSession {
		return nil, false
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimPrefix(state, markPrefix))
	if err != nil {
		return nil, false
	}
	b, err := s.marks.Open(nil, nil, sealed, nil)
	if err != nil {
		return nil, false
	}
	var m mark
	if err := ijson.Unmarshal(b, &m); err != nil {
		return nil, false
	}
	return &m, true
}

// errMark is the one answer to a requestState that is not good: whose it was and
// what for is nobody's business.
func errMark() error {
	return invalidParams("requestState is not one that was made here for this call: repeat the call without it")
}

// resume takes our own requestState, and what came with it, off a call that is made
// again. An upstream's stays where it is.
func (c *mcpCall) resume() error {
	state, _ := text(find(c.message.params, requestState))
	if !strings.HasPrefix(state, markPrefix) {
		return nil
	}
	m, ok := c.gateway.sealer.openMark(state)
	if !ok || m.Resource != c.resource.Name || m.Agent != c.caller.Agent || m.Task != c.caller.Task || m.Subject != c.caller.Subject ||
		c.now.Unix() >= m.Expires {
		return errMark()
	}
	c.mark, c.answers = m, find(c.message.params, inputResponses)
	c.message.params = slices.DeleteFunc(c.message.params, func(p member) bool { return p.name == inputResponses || p.name == requestState })
	return nil
}

// resumed names the approval of the requestState. A user who declines takes the
// request back; whatever else the client says decides nothing.
func (c *mcpCall) resumed(g *counterfoil.GuardedCall) error {
	if c.mark == nil {
		return nil
	}
	if c.mark.Digest != counterfoil.CallDigest(g.Call) || g.Named != "" && g.Named != c.mark.Approval {
		return errMark()
	}
	g.Named = c.mark.Approval
	if c.action() != "decline" {
		return nil
	}
	err := c.gateway.cfg.Approvals.Cancel(c.ctx, g.Named, c.caller)
	if _, over := counterfoil.AsRefusal(err); over {
		return nil // it is closed already, and how is what is answered
	}
	return err
}

// action is what the client says that its user did.
func (c *mcpCall) action() string {
	action, _ := text(find(split(find(split(c.answers), inputApproval)), "action"))
	return action
}

// dismissed reports whether the user was sent to the page and looked away: to be
// sent there again at once would be a loop.
func (c *mcpCall) dismissed() bool { return c.mark != nil && c.action() != "accept" }

// elicits reports whether the client can send its user to a page, and that user is
// one of those who may say yes.
func (c *mcpCall) elicits() bool {
	can := c.message.elicits
	if eraOf(c.revision) == sessions {
		can = c.open != nil && c.open.Elicits
	}
	return can && c.gateway.cfg.ManagementURL != "" && c.userMayApprove()
}

// userMayApprove reports whether the user that the agent acts for may be the one
// who allows the call: only where one person does, and where those who asked may.
// It says where to send the user and no more: whether a signature counts is decided
// when it is made and when it is spent.
func (c *mcpCall) userMayApprove() bool {
	person := c.registry.People[c.caller.Subject]
	class := c.registry.Classes[c.class]
	if c.caller.Subject == c.caller.Agent || person == nil || class == nil {
		return false
	}
	rule := counterfoil.RuleOf(class)
	if rule.Required != 1 || !rule.OwnerMayApprove {
		return false
	}
	return slices.ContainsFunc(rule.Groups, func(alternatives []string) bool {
		return slices.ContainsFunc(alternatives, func(group string) bool { return slices.Contains(person.Groups, group) })
	})
}

// approvalPage is where the user looks at the call and signs.
func (c *mcpCall) approvalPage(id string) string {
	return c.gateway.cfg.ManagementURL + "/approvals/" + id
}

// elicitation answers that the user has to be sent to the approval's page.
func (c *mcpCall) elicitation(a *counterfoil.Approval, g *counterfoil.GuardedCall, why error) ([]byte, error) {
	object, err := json.Marshal(c.explain(why))
	if err != nil {
		return nil, err
	}
	page := member{"url", quote(c.approvalPage(a.ID))}
	message := member{"message", quote("Look at the call of " + g.Tool.String() + " and decide on it with your passkey.")}
	mode := member{"mode", quote("url")}
	if eraOf(c.revision) == sessions {
		// MCP 2025-11-25, Elicitation, URL Elicitation Required Error.
		one := join([]member{{"elicitationId", quote(a.ID)}, message, mode, page})
		data := join([]member{{metaRefusal, object}, {"elicitations", append(append([]byte{'['}, one...), ']')}})
		return encodeRPC(c.message.id, "error", join([]member{
			{"code", []byte("-32042")}, {"data", data}, {"message", quote(sentence(g.Tool.String(), c.explain(why)))},
		})), nil
	}
	state, err := c.gateway.sealer.sealMark(&mark{
		Approval: a.ID, Resource: c.resource.Name, Agent: c.caller.Agent, Subject: c.caller.Subject, Task: c.caller.Task,
		Digest: counterfoil.CallDigest(g.Call), Expires: a.Expires.Unix(),
	})
	if err != nil {
		return nil, err
	}
	ask := join([]member{{"method", quote("elicitation/create")}, {"params", join([]member{message, mode, page})}})
	return encodeRPC(c.message.id, "result", join([]member{
		{"_meta", join([]member{{metaRefusal, object}})},
		{"inputRequests", join([]member{{inputApproval, ask}})},
		{"requestState", quote(state)},
		{"resultType", quote("input_required")},
	})), nil
}
