package gateway

import "github.com/counterfoil/counterfoil"

// The revisions that are spoken. The two older ones frame alike.
const (
	revision20260728 = "2026-07-28"
	revision20251125 = "2025-11-25"
	revision20250618 = "2025-06-18"
)

var supportedRevisions = []string{revision20260728, revision20251125, revision20250618}

// An era says which kind of revision a method belongs to: those with sessions,
// which begin with initialize, and those where each request says everything.
type era uint8

const (
	sessions era = 1 << iota // 2025-06-18 and 2025-11-25
	modern                   // 2026-07-28
)

func eraOf(revision string) era {
	switch revision {
	case revision20260728:
		return modern
	case revision20251125, revision20250618:
		return sessions
	}
	return 0
}

// A method is what is known of an MCP method that a client may send. A method
// that is not in the table does not exist here.
type method struct {
	eras         era
	notification bool

	// params are the members that params may have beside _meta, each with the
	// kind of its value: '"' string, '{' object, '0' number, '*' any.
	params map[string]byte
	needs  string // a member that must be there

	// tool is the name under which the call is granted: "*" when it is the
	// tool that params name, empty when a token for the resource is enough.
	tool string

	// named is the member that Mcp-Name mirrors (MCP 2026-07-28, Streamable
	// HTTP, Standard Request Headers).
	named string

	// result is the member of the result that is a list to filter.
	result string

	ours bool // answered by the gateway; the upstream never sees it
}

const theNamedTool = "*"

// multi round-trip members (MCP 2026-07-28, MRTR): a retry of the same request
// with what the upstream asked for.
const (
	inputResponses = "inputResponses"
	requestState   = "requestState"
)

var cursor = map[string]byte{"cursor": '"'}

var methods = map[string]*method{
	"initialize": {eras: sessions, needs: "protocolVersion",
		params: map[string]byte{"protocolVersion": '"', "capabilities": '{', "clientInfo": '{'}},
	"server/discover": {eras: modern},
	"ping":            {eras: sessions},

	"tools/list": {eras: sessions | modern, params: cursor, result: "tools"},
	"tools/call": {eras: sessions | modern, needs: "name", named: "name", tool: theNamedTool,
		params: map[string]byte{"name": '"', "arguments": '{', inputResponses: '{', requestState: '"'}},

	"resources/list":           {eras: sessions | modern, params: cursor, result: "resources"},
	"resources/templates/list": {eras: sessions | modern, params: cursor, result: "resourceTemplates"},
	"resources/read": {eras: sessions | modern, needs: "uri", named: "uri", tool: counterfoil.ToolResources,
		params: map[string]byte{"uri": '"', inputResponses: '{', requestState: '"'}},
	"resources/subscribe":   {eras: sessions, needs: "uri", tool: counterfoil.ToolResources, params: map[string]byte{"uri": '"'}},
	"resources/unsubscribe": {eras: sessions, needs: "uri", tool: counterfoil.ToolResources, params: map[string]byte{"uri": '"'}},
	"subscriptions/listen": {eras: modern, needs: "notifications",
		params: map[string]byte{"notifications": '{'}},

	"prompts/list": {eras: sessions | modern, params: cursor, result: "prompts"},
	"prompts/get": {eras: sessions | modern, needs: "name", named: "name", tool: counterfoil.ToolPrompts,
		params: map[string]byte{"name": '"', "arguments": '{', inputResponses: '{', requestState: '"'}},

	// Tasks are held calls: io.modelcontextprotocol/tasks, 2026-07-28.
	"tasks/get": {eras: modern, needs: "taskId", named: "taskId", ours: true, params: map[string]byte{"taskId": '"'}},
	"tasks/update": {eras: modern, needs: "taskId", named: "taskId", ours: true,
		params: map[string]byte{"taskId": '"', inputResponses: '{'}},
	"tasks/cancel": {eras: modern, needs: "taskId", named: "taskId", ours: true, params: map[string]byte{"taskId": '"'}},

	"completion/complete": {eras: sessions | modern, needs: "ref",
		params: map[string]byte{"ref": '{', "argument": '{', "context": '{'}},
	"logging/setLevel": {eras: sessions, needs: "level", params: map[string]byte{"level": '"'}},

	"notifications/initialized": {eras: sessions, notification: true},
	"notifications/cancelled": {eras: sessions | modern, notification: true,
		params: map[string]byte{"requestId": '*', "reason": '"'}},
	"notifications/progress": {eras: sessions, notification: true, needs: "progressToken",
		params: map[string]byte{"progressToken": '*', "progress": '0', "total": '0', "message": '"'}},
	"notifications/roots/list_changed": {eras: sessions, notification: true},
}

// Members of _meta that go on, each with the kind of its value. Everything
// else in _meta (trace context, vendor keys) stays here: nobody decided on it.
const (
	metaVersion      = "io.modelcontextprotocol/protocolVersion"
	metaCapabilities = "io.modelcontextprotocol/clientCapabilities"
	metaClientInfo   = "io.modelcontextprotocol/clientInfo"
	metaLogLevel     = "io.modelcontextprotocol/logLevel"
	metaProgress     = "progressToken"

	// metaReason is the agent's own words to whoever has to allow the call. They
	// are no part of it and stay here.
	metaReason = "counterfoil/reason"
)

var metaKinds = map[string]byte{
	metaVersion:      '"',
	metaCapabilities: '{',
	metaClientInfo:   '{',
	metaLogLevel:     '"',
	metaProgress:     '*',
}

// extensionTasks is the one extension that the gateway speaks, to clients alone.
const extensionTasks = "io.modelcontextprotocol/tasks"

// Capabilities that the gateway lets client and upstream tell each other. What
// it does not speak (extensions, experiments) it hides, so that neither side
// relies on it; tasks are its own affair, see tasks.go.
var (
	clientCapabilities = map[string]bool{"roots": true, "sampling": true, "elicitation": true}
	serverCapabilities = map[string]bool{"tools": true, "resources": true, "prompts": true, "completions": true, "logging": true}
)
