package counterfoil

import (
	"net/http"
	"slices"
	"strings"
)

// A Code is the stable reason of a refusal or the kind of a fault: in answers,
// in the ledger, in metrics and in docs/errors.md.
type Code string

// The codes. What each looks like on the wire is in the table below.
const (
	// 400
	PayloadMalformed Code = "payload_malformed"
	HeaderMismatch   Code = "header_mismatch"
	RequestMalformed Code = "request_malformed"
	PasskeyRefused   Code = "passkey_refused"
	EnrolmentRefused Code = "enrolment_refused"
	KeyInUse         Code = "key_in_use"
	ScopeInvalid     Code = "scope_invalid"
	TargetInvalid    Code = "target_invalid"
	GrantUnsupported Code = "grant_unsupported"
	DetailsInvalid   Code = "details_invalid"
	SubjectInvalid   Code = "subject_invalid"

	// 401
	ClientRefused      Code = "client_refused"
	AssertionMalformed Code = "assertion_malformed"
	AssertionAudience  Code = "assertion_audience"
	AssertionExpired   Code = "assertion_expired"
	AssertionReplayed  Code = "assertion_replayed"
	AgentSuspended     Code = "agent_suspended"
	TokenMalformed     Code = "token_malformed"
	TokenExpired       Code = "token_expired"
	TokenAudience      Code = "token_audience"
	TokenIssuer        Code = "token_issuer"
	TokenRevoked       Code = "token_revoked"
	BearerRefused      Code = "bearer_refused"
	SessionRequired    Code = "session_required"
	TaskClosed         Code = "task_closed"
	ProofMissing       Code = "proof_missing"
	ProofMalformed     Code = "proof_malformed"
	ProofTarget        Code = "proof_target"
	ProofStale         Code = "proof_stale"
	ProofReplayed      Code = "proof_replayed"
	ProofKeyMismatch   Code = "proof_key_mismatch"
	NonceRequired      Code = "nonce_required"

	// 403
	ToolNotGranted      Code = "tool_not_granted"
	ToolChanged         Code = "tool_changed"
	ClassForbidden      Code = "class_forbidden"
	OutsideEnvironment  Code = "outside_environment"
	OutsideTask         Code = "outside_task"
	PolicyForbids       Code = "policy_forbids"
	LimitExceeded       Code = "limit_exceeded"
	ApprovalRequired    Code = "approval_required"
	ApprovalPending     Code = "approval_pending"
	ApprovalDenied      Code = "approval_denied"
	ApprovalExpired     Code = "approval_expired"
	ApprovalSuperseded  Code = "approval_superseded"
	ApprovalSpent       Code = "approval_spent"
	ApprovalMismatch    Code = "approval_mismatch"
	ApprovalCancelled   Code = "approval_cancelled"
	ApprovalRevoked     Code = "approval_revoked"
	ApproverNotEligible Code = "approver_not_eligible"
	ApproverNotDistinct Code = "approver_not_distinct"
	RoleRequired        Code = "role_required"
	OriginForbidden     Code = "origin_forbidden"

	// 404, 405, 409, 413, 429
	ToolUnknown         Code = "tool_unknown"
	MethodForbidden     Code = "method_forbidden"
	IdempotencyMismatch Code = "idempotency_mismatch"
	PayloadTooLarge     Code = "payload_too_large"
	RateLimited         Code = "rate_limited"
	TooManyPending      Code = "too_many_pending"

	// Faults
	LedgerUnavailable   Code = "ledger_unavailable"
	RevocationStale     Code = "revocation_stale"
	StoreUnavailable    Code = "store_unavailable"
	UpstreamUnavailable Code = "upstream_unavailable"
	OutcomeUnknown      Code = "outcome_unknown"
	Internal            Code = "internal"

	// In the ledger only: on the wire it is client_refused.
	KeyUnknown Code = "key_unknown"
)

// A Wire says how a code is answered.
type Wire struct {
	Code Code

	// Status is the HTTP status everywhere but at the token endpoint.
	Status int

	// TokenStatus and OAuth are the status and the error member at the token
	// endpoint (RFC 6749, Section 5.2). Zero and empty for what never happens
	// there.
	TokenStatus int
	OAuth       string

	// Challenge is the error parameter of WWW-Authenticate at a resource (RFC
	// 6750, Section 3.1; RFC 9449, Section 7.1). Empty: no error parameter.
	Challenge string

	// JSONRPC is the code of the JSON-RPC error beside the HTTP status, for
	// what concerns the framing of MCP. Zero: none.
	JSONRPC int

	// Fault marks our own failures. Retry says that the same request may
	// succeed later: Retry-After is sent.
	Fault bool
	Retry bool

	// Reserved marks a code that nothing of this version answers with. Its name,
	// its status and its meaning are taken for what comes next.
	Reserved bool

	Meaning string // what happened
	Remedy  string // what the developer or the operator does
}

// JSON-RPC 2.0, Section 5.1, and MCP 2026-07-28.
const (
	RPCParse              = -32700
	RPCInvalidRequest     = -32600
	RPCMethodNotFound     = -32601
	RPCInvalidParams      = -32602
	RPCInternal           = -32603
	RPCHeaderMismatch     = -32020
	RPCUnsupportedVersion = -32022
)

const (
	invalidRequest = "invalid_request"
	invalidClient  = "invalid_client"
	invalidProof   = "invalid_dpop_proof"
	invalidToken   = "invalid_token"

	// insufficientDetails says that no token would do that does not let this very
	// call through (RFC 9396).
	insufficientDetails = "insufficient_authorization_details"
)

// wires is the one table of refusals and faults. docs/errors.md is generated
// from it.
var wires = []Wire{
	{Code: PayloadMalformed, Status: 400, TokenStatus: 400, OAuth: invalidRequest, JSONRPC: RPCInvalidRequest,
		Meaning: "The body is not the strict JSON that is asked for: duplicate or unknown names, invalid UTF-8, lone surrogates, numbers that do not survive RFC 8785, trailing bytes or too deep.",
		Remedy:  "Send one JSON value (RFC 7493) with the members that the method knows; send integers beyond ±(2^53−1) as strings."},
	{Code: HeaderMismatch, Status: 400, JSONRPC: RPCHeaderMismatch,
		Meaning: "An MCP header is missing or does not say what the body says.",
		Remedy:  "Send MCP-Protocol-Version, Mcp-Method and Mcp-Name with the values of the body."},
	{Code: RequestMalformed, Status: 400, TokenStatus: 400, OAuth: invalidRequest, Challenge: invalidRequest,
		Meaning: "The request is not well formed: a parameter or header is missing, twice there, or of the wrong kind.",
		Remedy:  "Read the detail; it names the parameter."},
	{Code: PasskeyRefused, Status: 400,
		Meaning: "A passkey's answer did not verify.",
		Remedy:  "Start the ceremony again and use the passkey that is enrolled here."},
	{Code: EnrolmentRefused, Status: 400,
		Meaning: "The enrolment code is unknown, used, expired, or for someone else. Which of these is in the ledger only.",
		Remedy:  "Ask an administrator for a new code: counterfoil agent enroll-code NAME."},
	{Code: KeyInUse, Status: 409, TokenStatus: 400, OAuth: invalidProof,
		Meaning: "The key belongs, or once belonged, to another agent or another instance.",
		Remedy:  "Make a new key: counterfoil enroll makes one. Keys are never shared and never reused."},
	{Code: ScopeInvalid, Status: 400, TokenStatus: 400, OAuth: "invalid_scope",
		Meaning: "The scope names a tool that the agent is not granted at this resource, or is not a list of tool names.",
		Remedy:  "Ask for tools that a grant of the agent lists, or leave scope out to get all of them."},
	{Code: TargetInvalid, Status: 400, TokenStatus: 400, OAuth: "invalid_target",
		Meaning: "The resource parameter is missing, twice there, unknown, or not open to this agent.",
		Remedy:  "Send one resource parameter: the resource's URL as its metadata says it."},
	{Code: GrantUnsupported, Status: 400, TokenStatus: 400, OAuth: "unsupported_grant_type",
		Meaning: "The grant type is not offered.",
		Remedy:  "Use a grant type out of grant_types_supported in the issuer's metadata."},
	{Code: DetailsInvalid, Status: 400, TokenStatus: 400, OAuth: "invalid_authorization_details",
		Meaning: "authorization_details has an unknown type or member, a member of the wrong type, or names what is not granted.",
		Remedy:  "Send an array of objects of type " + DetailType + " in the standing form."},
	{Code: SubjectInvalid, Status: 400, Reserved: true, TokenStatus: 400, OAuth: invalidRequest,
		Meaning: "The subject token or the actor token is not acceptable.",
		Remedy:  "Exchange a live token of this issuer."},

	{Code: ClientRefused, Status: 401, TokenStatus: 401, OAuth: invalidClient,
		Meaning: "The agent, its key or the signature is not known here. The answer is the same for all of these; the ledger counts which in its refused.aggregate entries, as nobody was authenticated.",
		Remedy:  "Check the agent's name, that its key is enrolled (counterfoil agent instances NAME) and that it was not offboarded."},
	{Code: AssertionMalformed, Status: 401, TokenStatus: 401, OAuth: invalidClient,
		Meaning: "The client assertion is not a JWT of the form asked for (RFC 7523, Section 3).",
		Remedy:  "Sign iss, sub, aud, iat, exp and jti with the registered key; iss and sub are the agent's name."},
	{Code: AssertionAudience, Status: 401, TokenStatus: 401, OAuth: invalidClient,
		Meaning: "The assertion's audience is not this issuer alone.",
		Remedy:  "Set aud to the issuer's identifier, exactly as in its metadata, and to nothing else."},
	{Code: AssertionExpired, Status: 401, TokenStatus: 401, OAuth: invalidClient,
		Meaning: "The assertion is past, dated ahead, or longer-lived than 120 seconds.",
		Remedy:  "Make a new assertion for each request, valid for 60 seconds; check the clock."},
	{Code: AssertionReplayed, Status: 401, TokenStatus: 401, OAuth: invalidClient,
		Meaning: "The assertion was used before.",
		Remedy:  "Make a new assertion, with a new jti, for each request, retries included."},
	{Code: AgentSuspended, Status: 401, TokenStatus: 401, OAuth: invalidClient, Challenge: invalidToken,
		Meaning: "The agent is suspended, or this instance of it is quarantined because its key was seen in two places.",
		Remedy:  "An administrator decides: counterfoil agent resume NAME ends a suspension, with --release INSTANCE a quarantine. If the key may have been copied, enrol a new one instead."},
	{Code: TokenMalformed, Status: 401, Challenge: invalidToken,
		Meaning: "The token is not an access token of this issuer (RFC 9068), or its signature does not verify.",
		Remedy:  "Get a token at the token endpoint; send it as it came."},
	{Code: TokenExpired, Status: 401, Challenge: invalidToken,
		Meaning: "The token is past its life, or not yet valid.",
		Remedy:  "Get a new token."},
	{Code: TokenAudience, Status: 401, Challenge: invalidToken,
		Meaning: "The token is for another resource.",
		Remedy:  "Ask for a token with this resource's identifier as the resource parameter."},
	{Code: TokenIssuer, Status: 401, Challenge: invalidToken,
		Meaning: "The token is of another issuer.",
		Remedy:  "Get the token from the authorization server that this resource's metadata names."},
	{Code: TokenRevoked, Status: 401, Challenge: invalidToken,
		Meaning: "The token, its key, its instance or its agent was revoked.",
		Remedy:  "Get a new token; if that is refused, ask the agent's owner."},
	{Code: BearerRefused, Status: 401, Challenge: invalidToken,
		Meaning: "A bearer token where a bound one is required, or a bound token sent as bearer.",
		Remedy:  "Send Authorization: DPoP with a proof, or go through counterfoil connect."},
	{Code: SessionRequired, Status: 401,
		Meaning: "Nobody is logged in.",
		Remedy:  "Log in with a passkey."},
	{Code: TaskClosed, Status: 401, TokenStatus: 400, OAuth: "invalid_grant", Challenge: invalidToken,
		Meaning: "The task is completed, cancelled, expired or unknown.",
		Remedy:  "Open a new task."},
	{Code: ProofMissing, Status: 401, TokenStatus: 400, OAuth: invalidProof, Challenge: "",
		Meaning: "There is no DPoP proof, or no credential at all.",
		Remedy:  "Send exactly one DPoP header with a proof made for this request (RFC 9449, Section 4)."},
	{Code: ProofMalformed, Status: 401, TokenStatus: 400, OAuth: invalidProof, Challenge: invalidProof,
		Meaning: "The proof is not a DPoP proof of the form asked for, or its signature does not verify.",
		Remedy:  "Make it as RFC 9449, Section 4.2 says, with typ dpop+jwt and the public key in jwk."},
	{Code: ProofTarget, Status: 401, TokenStatus: 400, OAuth: invalidProof, Challenge: invalidProof,
		Meaning: "The proof is for another method, another URL or another token.",
		Remedy:  "Set htm, htu and, at a resource, ath for this very request; htu is the public URL."},
	{Code: ProofStale, Status: 401, TokenStatus: 400, OAuth: invalidProof, Challenge: invalidProof,
		Meaning: "The proof is older than 60 seconds or dated ahead by more than 10.",
		Remedy:  "Make a new proof for each request; check the clock."},
	{Code: ProofReplayed, Status: 401, TokenStatus: 400, OAuth: invalidProof, Challenge: invalidProof,
		Meaning: "The proof was used before.",
		Remedy:  "Make a new proof, with a new jti, for each request, retries included."},
	{Code: ProofKeyMismatch, Status: 401, TokenStatus: 400, OAuth: invalidProof, Challenge: invalidToken,
		Meaning: "The proof is by another key than the one that the token is bound to or that is registered.",
		Remedy:  "Sign the proof with the instance's own key."},
	{Code: NonceRequired, Status: 401, TokenStatus: 400, OAuth: "use_dpop_nonce", Challenge: "use_dpop_nonce",
		Meaning: "The proof must hold a nonce of this server.",
		Remedy:  "Repeat the request once with a new proof that holds the DPoP-Nonce of the answer."},

	{Code: ToolNotGranted, Status: 403, Challenge: "insufficient_scope",
		Meaning: "No grant of the agent, or not this token's scope, covers the tool.",
		Remedy:  "Ask for a token with the tool in its scope; if none of the agent's grants lists it, ask its owner."},
	{Code: ToolChanged, Status: 403,
		Meaning: "The upstream's definition of the tool is not the one that was pinned.",
		Remedy:  "An administrator looks at what changed and applies the manifest again to pin it."},
	{Code: ClassForbidden, Status: 403,
		Meaning: "The tool's class is forbidden: it never runs.",
		Remedy:  "Nothing; use another tool."},
	{Code: OutsideEnvironment, Status: 403,
		Meaning: "Agent and resource are of different environments, or the call comes from a network outside the grant.",
		Remedy:  "Run the agent where its grant allows."},
	{Code: OutsideTask, Status: 403,
		Meaning: "The task that the token is for does not include the tool.",
		Remedy:  "Open a task that names the tool."},
	{Code: PolicyForbids, Status: 403,
		Meaning: "A policy forbids the call, no grant's condition holds for its arguments, or a rule in its scope could not be evaluated.",
		Remedy:  "Read the detail, which names the rule; check the arguments' types."},
	{Code: LimitExceeded, Status: 403,
		Meaning: "A limit of the class is reached, or the field that it sums is absent, negative or not a decimal.",
		Remedy:  "Wait for the window to pass, or ask for less."},
	{Code: ApprovalRequired, Status: 403, TokenStatus: 400, OAuth: "access_denied", Challenge: insufficientDetails,
		Meaning: "The class needs a person's countersignature, and people are asked for it now. Nothing ran. At the token endpoint: nobody in front of that resource would ask, so no token is given.",
		Remedy:  "Wait and look at the approval's status; when it is approved, repeat the identical call. People approve with their passkeys, and nothing that an agent, a model or a chat says does."},
	{Code: ApprovalPending, Status: 403, Challenge: insufficientDetails,
		Meaning: "An equal call is being asked about already, and people have not decided yet. Nothing ran.",
		Remedy:  "Wait as interval says, then repeat the identical call."},
	{Code: ApprovalDenied, Status: 403,
		Meaning: "A person said no. Where they gave a reason, the approval has it.",
		Remedy:  "Do not repeat the call: until the approval expires the answer stays the same."},
	{Code: ApprovalExpired, Status: 403,
		Meaning: "The approval's time to be decided, or to be used once it was approved, is over.",
		Remedy:  "Repeat the call without naming the approval to ask again."},
	{Code: ApprovalSuperseded, Status: 403,
		Meaning: "What was approved is not what would run now: class, rule, template or tool changed.",
		Remedy:  "People are asked again under the new rule where the answer has an approval that is pending: wait for that one. Otherwise repeat the call."},
	{Code: ApprovalSpent, Status: 403,
		Meaning: "The call was made already. The approval says how it ended and which entry decided it; it was not made again.",
		Remedy:  "Look at the outcome. With the same Idempotency-Key, or the held call's id, the answer itself comes back. To make an equal call once more, send another Idempotency-Key; people are asked anew."},
	{Code: ApprovalMismatch, Status: 403,
		Meaning: "The call is not the one of the approval that it names, or there is no such approval of this agent and task.",
		Remedy:  "Send exactly what was approved, from the same agent and task; or do not name an approval, to ask for one."},
	{Code: ApprovalCancelled, Status: 403,
		Meaning: "The approval was taken back, by the agent or by an administrator.",
		Remedy:  "Repeat the call without naming the approval to ask again."},
	{Code: ApprovalRevoked, Status: 403,
		Meaning: "The approval is void: its agent, instance or task, or somebody who signed it, was revoked.",
		Remedy:  "Repeat the call without naming the approval to ask again; if the agent was revoked, ask its owner."},
	{Code: ApproverNotEligible, Status: 403,
		Meaning: "This person may not decide this approval.",
		Remedy:  "Somebody of the approval's groups decides, never the agent's owner, whom it acts for or who asked."},
	{Code: ApproverNotDistinct, Status: 403,
		Meaning: "This person, this mailbox or this passkey signed already.",
		Remedy:  "A second person signs, with a passkey of their own."},
	{Code: RoleRequired, Status: 403, Meaning: "The role that this needs is missing.", Remedy: "Ask an administrator."},
	{Code: OriginForbidden, Status: 403, Meaning: "The request comes from a web page of another origin.", Remedy: "Open the page at the server's own address."},

	{Code: ToolUnknown, Status: 404, JSONRPC: RPCMethodNotFound,
		Meaning: "There is no such resource, tool or method, or no manifest classifies it.",
		Remedy:  "Check the name; an operator adds the tool to the resource's manifest with a class."},
	{Code: MethodForbidden, Status: 405, TokenStatus: 405, OAuth: invalidRequest,
		Meaning: "The HTTP method is not taken here.",
		Remedy:  "Use a method out of the Allow header."},
	{Code: IdempotencyMismatch, Status: 409, Meaning: "The agent used this Idempotency-Key for another call.", Remedy: "Use a new key for a new call, and the same key to repeat one."},
	{Code: PayloadTooLarge, Status: 413, TokenStatus: 413, OAuth: invalidRequest, Meaning: "The body, a token or a header is larger than the limit.", Remedy: "Send less; the detail names the limit."},
	{Code: RateLimited, Status: 429, TokenStatus: 429, OAuth: invalidRequest, Retry: true, Meaning: "Too many requests.", Remedy: "Wait as Retry-After says."},
	{Code: TooManyPending, Status: 429, Retry: true, Meaning: "As many approvals of this agent are pending as may be. Nobody was asked about this call.", Remedy: "Wait for some to be decided, or take them back, then repeat the call."},

	{Code: LedgerUnavailable, Status: 503, TokenStatus: 503, OAuth: "temporarily_unavailable", Fault: true, Retry: true,
		Meaning: "The decision could not be recorded, so nothing was done.",
		Remedy:  "Repeat later. Operator: free disk space, see /readyz and the log."},
	{Code: RevocationStale, Status: 503, TokenStatus: 503, OAuth: "temporarily_unavailable", Fault: true, Retry: true,
		Meaning: "What is revoked is not known freshly enough, so nothing was done.",
		Remedy:  "Repeat later. Operator: see the log of the node that answered."},
	{Code: StoreUnavailable, Status: 503, TokenStatus: 503, OAuth: "temporarily_unavailable", Fault: true, Retry: true,
		Meaning: "The store cannot be read, so nothing was done.",
		Remedy:  "Repeat later. Operator: see /readyz and the log."},
	{Code: UpstreamUnavailable, Status: 502, Fault: true,
		Meaning: "The upstream could not be reached, refused the gateway's credential, or did not answer in its protocol; or its credential could not be got. The log says which.",
		Remedy:  "Operator: check the resource's upstream and its credential's file."},
	{Code: OutcomeUnknown, Status: 504, Fault: true,
		Meaning: "The call was sent, and no answer came that tells whether it was done: it may or may not have happened.",
		Remedy:  "Look at the upstream before repeating."},
	{Code: Internal, Status: 500, TokenStatus: 500, OAuth: "server_error", Fault: true,
		Meaning: "A fault of the server. Nothing more was done.",
		Remedy:  "Report it with the request id; the operator's log has the cause."},

	{Code: KeyUnknown, Status: 401, TokenStatus: 401, OAuth: invalidClient,
		Meaning: "In the ledger only: the agent has no such key. On the wire it is client_refused.",
		Remedy:  "As for client_refused."},
}

var wireOf = func() map[Code]*Wire {
	m := make(map[Code]*Wire, len(wires))
	for i := range wires {
		m[wires[i].Code] = &wires[i]
	}
	return m
}()

// Wire returns how the code is answered. An unknown code is answered as an
// internal fault.
func (c Code) Wire() Wire {
	if w := wireOf[c]; w != nil {
		return *w
	}
	return *wireOf[Internal]
}

// Title is a short human title: the code with spaces.
func (c Code) Title() string { return strings.ReplaceAll(string(c), "_", " ") }

// Title is the title of the row's code.
func (w Wire) Title() string { return w.Code.Title() }

// AtToken returns status and error member at the token endpoint. What has no
// row there is a fault of ours.
func (w Wire) AtToken() (status int, oauth string) {
	if w.TokenStatus == 0 {
		return http.StatusInternalServerError, "server_error"
	}
	return w.TokenStatus, w.OAuth
}

// Wires returns the table in its order.
func Wires() []Wire { return slices.Clone(wires) }
