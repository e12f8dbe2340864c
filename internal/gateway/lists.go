package gateway

import (
	"context"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
)

var emptyList = jsontext.Value("[]")

// transform changes a result on its way to the client: lists lose what the
// caller may not call, and what the gateway does not speak is not offered. A
// result that it need not look into is returned as it is.
func (c *mcpCall) transform(method string, result jsontext.Value) (jsontext.Value, error) {
	switch method {
	case "initialize", "server/discover":
		return c.transformHello(result)
	case "resources/read", "tools/list", "resources/list", "resources/templates/list", "prompts/list":
	default:
		return result, nil
	}
	m, err := members(result)
	if err != nil {
		return nil, err
	}
	if err := c.filter(method, m); err != nil {
		return nil, err
	}
	if _, there := m["cacheScope"]; there || eraOf(c.revision) == modern {
		// MCP 2026-07-28, Caching: what this agent is shown is for nobody else.
		// The older revisions do not know the member; an upstream that sends it
		// all the same must not tell a cache otherwise.
		m["cacheScope"] = jsontext.Value(`"private"`)
	}
	return encodeObject(m)
}

func (c *mcpCall) filter(method string, m map[string]jsontext.Value) error {
	// A stream may be older than what was applied last: what is shown is what
	// may be called now.
	if c.reread() != nil {
		if list := methods[method].result; list != "" {
			clearList(m, list, false)
		}
		return nil
	}
	callable := c.onRung(c.coveredByTask(c.policy.Callable(c.caller, c.resource.Name)))
	switch method {
	case "tools/list":
		return c.filterTools(m, callable)
	case "prompts/list":
		clearList(m, "prompts", callable(counterfoil.ToolPrompts))
	case "resources/list":
		clearList(m, "resources", callable(counterfoil.ToolResources))
	case "resources/templates/list":
		clearList(m, "resourceTemplates", callable(counterfoil.ToolResources))
	}
	return nil
}

// clearList empties a list that the caller has no grant for.
func clearList(m map[string]jsontext.Value, name string, allowed bool) {
	if !allowed {
		m[name] = emptyList
		delete(m, "nextCursor")
	}
}

// filterTools keeps the tools that the caller may call, pins the routine ones
// that are seen for the first time, and drops what is not as it was pinned.
func (c *mcpCall) filterTools(m map[string]jsontext.Value, callable func(string) bool) error {
	var tools, kept []jsontext.Value
	if err := json.Unmarshal(m["tools"], &tools); err != nil {
		return err
	}
	now := c.gateway.cfg.Now()
	for _, raw := range tools {
		name, d, err := readDefinition(raw)
		if err != nil {
			continue
		}
		if _, classified := c.resource.Tool(name); !classified || isReserved(name) {
			continue
		}
		c.gateway.catalog(c.resource).put(name, &d, now)
		same, err := c.samePin(name, d.Digest, c.tierOf(name))
		if err != nil {
			return err
		}
		if same && callable(name) {
			kept = append(kept, raw)
		}
	}
	if kept == nil {
		m["tools"] = emptyList
		return nil
	}
	b, err := json.Marshal(kept)
	m["tools"] = b
	return err
}

// samePin reports whether a definition is the pinned one, or the first of a
// routine tool, or of a tool that nobody pinned yet: that one is shown, its
// call says that it must be pinned.
func (c *mcpCall) samePin(name, digest string, tier counterfoil.Tier) (bool, error) {
	ctx := context.WithoutCancel(c.ctx)
	pinned, ok := c.pinned(name, tier)
	if !ok && tier == counterfoil.Routine {
		var err error
		if pinned, err = c.pin(ctx, name, digest); err != nil {
			return false, err
		}
	} else if !ok {
		return true, nil
	}
	if pinned != digest {
		return false, c.reportChange(ctx, name, pinned, digest)
	}
	return true, nil
}

// transformHello changes what an upstream says of itself: the revisions and
// capabilities that the gateway does not speak are not there.
func (c *mcpCall) transformHello(result jsontext.Value) (jsontext.Value, error) {
	m, err := members(result)
	if err != nil {
		return nil, err
	}
	if v, ok := m["protocolVersion"]; ok && c.message.name == "initialize" {
		revision, _ := text(v)
		if eraOf(revision) != sessions {
			return nil, errNotAnswer
		}
		c.revision = revision
	}
	if v, ok := m["supportedVersions"]; ok {
		var all []string
		if err := json.Unmarshal(v, &all); err != nil {
			return nil, err
		}
		m["supportedVersions"], err = json.Marshal(spoken(all))
		if err != nil {
			return nil, err
		}
	}
	if v, ok := m["capabilities"]; ok {
		caps, err := members(v)
		if err != nil {
			return nil, err
		}
		for name := range caps {
			if !serverCapabilities[name] ||
				name == "prompts" && c.resource.Prompts == "" || name == "resources" && c.resource.Resources == "" {
				delete(caps, name)
			}
		}
		if c.message.name == "server/discover" && c.holds() {
			caps["extensions"] = jsontext.Value(`{"` + extensionTasks + `":{}}`)
		}
		if m["capabilities"], err = encodeObject(caps); err != nil {
			return nil, err
		}
	}
	if _, ok := m["cacheScope"]; ok {
		m["cacheScope"] = jsontext.Value(`"private"`)
	}
	return encodeObject(m)
}

// spoken returns those of an upstream's revisions that are spoken here.
func spoken(all []string) []string {
	out := []string{}
	for _, v := range supportedRevisions {
		if slices.Contains(all, v) {
			out = append(out, v)
		}
	}
	return out
}

// methodOf guesses which list a resumed stream's result is: its request was
// made on another connection. A list that is not recognised cannot be read as
// one by a client either.
func methodOf(result jsontext.Value) string {
	m, err := members(result)
	if err != nil {
		return ""
	}
	for _, name := range []string{"tools/list", "prompts/list", "resources/list", "resources/templates/list"} {
		if m[methods[name].result] != nil {
			return name
		}
	}
	return ""
}

// sealSession gives the client the upstream's session, sealed. It is called
// before the headers of an answer to initialize are written.
func (c *mcpCall) sealSession(upstream http.Header) error {
	id := upstream.Get(headerSession)
	if id == "" || c.message.name != "initialize" {
		return nil
	}
	if !isSessionID(id) {
		return errNotAnswer
	}
	sealed, err := c.gateway.sealer.seal(session{
		ID: id, Revision: c.revision, Resource: c.resource.Name, Agent: c.caller.Agent, Task: c.caller.Task,
		Elicits: c.revision == revision20251125 && declares(find(split(find(c.message.params, "capabilities")), "elicitation"), "url"),
	})
	if err != nil {
		return err
	}
	c.w.Header().Set(headerSession, sealed)
	return nil
}
