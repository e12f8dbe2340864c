package attacks

var taskRows = []Row{
	{ID: "TL1", Sent: "a token request for a task that is closed, unknown, another agent's or only opened by who asks", Expected: "400 `task_closed`", Invariants: "I4",
		Tests: shown("attacks.TestTokensOfOtherTasks", "attacks.TestTasksOfOthers")},
	{ID: "TL2", Sent: "a hundred calls while their task completes", Expected: "none is allowed after the end, in the order of the log", Invariants: "I7",
		Tests: shown("attacks.TestCallsInFlightWhenATaskEnds")},
	{ID: "TL3", Sent: "completing twice, reopening, extending, by any verb, after the deadline and a restart", Expected: "409 `task_closed`, 400, 404, 405", Invariants: "I5",
		Tests: shown("attacks.TestTasksEndOnce")},
	{ID: "TL4", Sent: "a task with more tools than its agent, with its opener's, with every tool", Expected: "403 `tool_not_granted`, 400", Invariants: "I5",
		Tests: shown("attacks.TestTasksOnlyLessen")},
	{ID: "TL5", Sent: "a task for an agent that did not name the sender, below another's task", Expected: "404 as for no agent, 409 `task_closed`", Invariants: "I5",
		Tests: shown("attacks.TestTasksOnlyLessen")},
	{ID: "TL6", Sent: "a child task beyond its parent in time, calls, tools or depth", Expected: "cut to the parent's; 403 `outside_task`, `limit_exceeded`", Invariants: "I5",
		Tests: shown("attacks.TestTasksOnlyLessen")},
	{ID: "TL7", Sent: "another's task by its id; a token of one task at a sibling, at its parent", Expected: "404 as for none, 403 `outside_task`", Invariants: "I4 I13",
		Tests: shown("attacks.TestTasksOfOthers")},
	{ID: "TL8", Sent: "a hundred calls at once in a task that may make twenty; calls by its children", Expected: "twenty, else `limit_exceeded`; a child's count for all above it", Invariants: "I5",
		Tests: shown("attacks.TestCallsAreCounted")},
	{ID: "TL9", Sent: "amounts that are negative, texts, missing, too large or too fine for a task's sum", Expected: "`limit_exceeded`, and nothing is counted", Invariants: "I5",
		Tests: shown("attacks.TestSumsOfATask")},
}

var retryRows = []Row{
	{ID: "RTY-01", Sent: "a job that is killed while people are asked, and resumes with another key", Expected: "one execution, in its task, by its agent", Invariants: "I6",
		Tests: shown("attacks.TestKilledJobsResume")},
	{ID: "RTY-02", Sent: "a call with an Idempotency-Key again, at once, after a restart, by another instance, with another payload", Expected: "one execution, and its answer again; `idempotency_mismatch`", Invariants: "I2 I6",
		Tests: shown("attacks.TestLostAnswersAreGivenAgain", "internal/gateway.TestRepeatingHasThreeWays")},
	{ID: "RTY-03", Sent: "one proof by two workers", Expected: "401 `proof_replayed` for the second", Invariants: "I2",
		Tests: shown("attacks.TestWorkersShareNothing")},
	{ID: "RTY-04", Sent: "a retry after its task closed", Expected: "400 `task_closed` (invalid_grant), 401 `task_closed`", Invariants: "I4 I7",
		Tests: shown("attacks.TestLostAnswersAreGivenAgain")},
	{ID: "RTY-05", Sent: "a proof and an assertion of before a restart", Expected: "401 `proof_replayed`, `assertion_replayed`", Invariants: "I2",
		Tests: shown("attacks.TestWorkersShareNothing")},
	{ID: "RTY-06", Sent: "a token that ends while people are asked", Expected: "401 `token_expired`; with another the wait goes on, and people are asked once", Invariants: "I6",
		Tests: shown("attacks.TestTokensThatEndWhileAJobWaits")},
}

var revocationRows = []Row{
	{ID: "RV1", Sent: "every use of the authority of each kind of target after its revocation; calls all the while", Expected: "refused from the acknowledgement on, and nothing else is", Invariants: "I7",
		Tests: shown("attacks.TestRevocationMatrix", "attacks.TestNoCallAfterARevocation", "internal/counterfoiltest.TestOffboardingStopsLiveTokens", "internal/gateway.TestLastLookAtRevocation"), Beyond: nodes},
	{ID: "RV2", Sent: "calls at an enforcement point elsewhere that does not hear what is revoked", Expected: "503 `revocation_stale`", Invariants: "I9",
		Tests: shown("attacks.TestServersThatHearNothing")},
	{ID: "RV3", Sent: "a revoked key registered or rotated to, a token, task, approval, session or passkey of before a return, an old message of the feed, a restart, an old database", Expected: "stays revoked", Invariants: "I7",
		Tests: shown("attacks.TestNothingIsUnrevoked", "attacks.TestServersThatHearNothing", "internal/authority.TestUnlistedKeysEnd", "internal/counterfoiltest.TestSuspendedAgentResumesWithNewTokensOnly", "internal/counterfoiltest.TestAnOldDatabaseIsRefused")},
	{ID: "RV5", Sent: "an agent that revokes another's token, ends its task, rotates its key, asks about it, follows what is revoked", Expected: "403, 404, 401; 200 without effect; `active` is false", Invariants: "I13",
		Tests: shown("attacks.TestRevokingOthers", "attacks.TestServersThatHearNothing", "internal/web.TestMethodsAndPaths")},
	{ID: "RV6", Sent: "calls to a server that has just started, after many revocations", Expected: "refused from the first on", Invariants: "I7",
		Tests: shown("attacks.TestNothingIsUnrevoked"), Beyond: nodes},
	{ID: "RV7", Sent: "a stream that is open when its agent, or what else it hangs on, is revoked", Expected: "cut", Invariants: "I7",
		Tests: shown("attacks.TestRevocationMatrix", "attacks.TestSessionsOfTheRevoked", "internal/gateway.TestStreamsEnd", "internal/gateway.TestASilentStreamIsCutWhenTheAgentIsRevokedOrTheServerDrains")},
}

var rotationRows = []Row{
	{ID: "KR1", Sent: "a rotation without a good proof by the new key for this request and token; with a token that is revoked, of a task or of a resource", Expected: "401 `proof_target`, `proof_stale`, `proof_malformed`, `token_revoked`; 403 `outside_task`", Invariants: "I1",
		Tests: shown("attacks.TestKeysAreRotatedByTheirOwn")},
	{ID: "KR2", Sent: "a rotation to a key that somebody has or had, to one key twice at once", Expected: "409 `key_in_use`", Invariants: "I1",
		Tests: shown("attacks.TestKeysAreRotatedByTheirOwn")},
	{ID: "KR3", Sent: "a stolen key, and its tokens, after its rotation", Expected: "401 `client_refused`, `token_revoked`", Invariants: "I7",
		Tests: shown("attacks.TestTheOldKeyAfterARotation")},
	{ID: "KR4", Sent: "an old key in its overlap that rotates, at its end, after another rotation, after its revocation", Expected: "401 `proof_key_mismatch`, `client_refused`; its tokens end with it", Invariants: "I7",
		Tests: shown("attacks.TestTheOldKeyAfterARotation")},
}

var leakRows = []Row{
	{ID: "LK1", Sent: "reports of tokens that are cut, extended, forged, past or named by their id, of assertions, proofs and halves of codes", Expected: "202, and nothing is revoked", Invariants: "I13",
		Tests: shown("attacks.TestReportsThatProveNothing")},
	{ID: "LK2", Sent: "reports of thumbprints and public keys, with a private half that is not theirs, of keys that nobody registered", Expected: "202, and nothing is revoked", Invariants: "I13",
		Tests: shown("attacks.TestReportsThatProveNothing")},
	{ID: "LK3", Sent: "nonsense, deep or many things; reports compared with one that takes something; a flood", Expected: "the same 202; 413, 429", Invariants: "I11 I14",
		Tests: shown("attacks.TestReportsThatProveNothing")},
	{ID: "LK4", Sent: "a report of a whole token, a code or a private key", Expected: "202, and exactly that is revoked", Invariants: "I7",
		Tests: shown("attacks.TestReportsThatProveNothing")},
}

var inquiryRows = []Row{
	{ID: "IN1", Sent: "the attacks on client authentication (CA) at /oauth/introspect and /oauth/revoke; one assertion at two of the endpoints", Expected: "what the token endpoint says: 401 `invalid_client`, 400 `invalid_request`", Invariants: "I1 I2",
		Tests: shown("attacks.TestWhoAsksAboutTokens")},
	{ID: "IN2", Sent: "questions about another's token; its revocation by an agent or by a server of its resource", Expected: "`{\"active\":false}` and nothing else; 200 without effect", Invariants: "I13 I14",
		Tests: shown("attacks.TestWhatIsToldOfTokens")},
	{ID: "IN3", Sent: "tokens that are forged, past, revoked, cut; other kinds of JWT; an answer as a token", Expected: "`{\"active\":false}`; 401 `token_malformed`", Invariants: "I4",
		Tests: shown("attacks.TestWhatIsToldOfTokens")},
	{ID: "IN4", Sent: "a revocation by the token's own agent with a wrong hint, twice", Expected: "200, and the token is void", Invariants: "I7",
		Tests: shown("attacks.TestWhatIsToldOfTokens")},
}

var signalRows = []Row{
	{ID: "SE1", Sent: "events without a signature, by HS256 with the public key, by a stranger's or another transmitter's key, with a key of their own", Expected: "400 `invalid_key`, `invalid_request`", Invariants: "I1",
		Tests: shown("attacks.TestForgedEvents")},
	{ID: "SE2", Sent: "events of another issuer, for another audience, of another type, at another transmitter's place", Expected: "400 `invalid_issuer`, `invalid_audience`, `invalid_request`", Invariants: "I4",
		Tests: shown("attacks.TestForgedEvents")},
	{ID: "SE3", Sent: "events that are old, ahead, nameless, about another issuer's subject or less than a person; one event many times", Expected: "400, or no effect; one effect", Invariants: "I2 I4",
		Tests: shown("attacks.TestForgedEvents")},
	{ID: "SE4", Sent: "another agent's stream; one that pushes where the manifest does not say, or of an agent that receives nothing", Expected: "404, 403, 400", Invariants: "I12 I13",
		Tests: shown("attacks.TestStreamsOfOthers")},
}
