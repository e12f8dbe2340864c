package attacks

var payloadRows = []Row{
	{ID: "TP1", Sent: "a name twice: at the top, in params, in the arguments", Expected: "400 `payload_malformed`", Invariants: "I3",
		Tests: shown("attacks.TestPayloads", "attacks.TestBodiesAndQueriesOfAnAPI")},
	{ID: "TP2", Sent: "names in another case or folded to one", Expected: "400 `payload_malformed`", Invariants: "I3",
		Tests: shown("attacks.TestPayloads", "attacks.TestBodiesAndQueriesOfAnAPI")},
	{ID: "TP3", Sent: "escaped names, NUL, a byte order mark, what is no UTF-8", Expected: "400 `payload_malformed`, or canonical", Invariants: "I3",
		Tests: shown("attacks.TestPayloads", "attacks.TestBodiesAndQueriesOfAnAPI")},
	{ID: "TP4", Sent: "more after the message, comments, NaN", Expected: "400 `payload_malformed`", Invariants: "I3",
		Tests: shown("attacks.TestPayloads", "attacks.TestBodiesAndQueriesOfAnAPI")},
	{ID: "TP5", Sent: "a batch", Expected: "400 `payload_malformed`", Invariants: "I3",
		Tests: shown("attacks.TestPayloads")},
	{ID: "TP7", Sent: "Mcp-Method or Mcp-Name that is not the body's", Expected: "400 `header_mismatch`, -32020", Invariants: "I3",
		Tests: shown("attacks.TestFraming")},
	{ID: "TP8", Sent: "numbers in other spellings, beyond 2^53, beyond doubles", Expected: "canonical, or 400; judged as sent", Invariants: "I3",
		Tests: shown("attacks.TestPayloads", "attacks.TestAmounts", "attacks.TestBodiesAndQueriesOfAnAPI", "e2e.TestWhatIsDecidedOnIsWhatUpstreamsRead")},
	{ID: "TP9", Sent: "other content types, charsets and encodings", Expected: "400 `request_malformed`", Invariants: "I3",
		Tests: shown("attacks.TestFraming", "attacks.TestBodiesAndQueriesOfAnAPI")},
	{ID: "TP10", Sent: "another verb, or one in a header, the query or the body", Expected: "405, 400, or dropped", Invariants: "I3",
		Tests: shown("attacks.TestFraming", "attacks.TestSmuggling", "attacks.TestBodiesAndQueriesOfAnAPI", "attacks.TestSmugglingToAnAPI", "attacks.TestMethodsInsideAnAPICall", "internal/gateway.TestMethodOverrides", "internal/gateway.TestForms")},
	{ID: "TP11", Sent: "sixty spellings of a path", Expected: "what is not canonical is not there", Invariants: "I3",
		Tests: shown("attacks.TestPaths", "attacks.TestPathsOfAnAPI", "attacks.TestOperationsOfAnAPI", "internal/gateway.TestContested", "attacks.TestBodiesAndQueriesOfAnAPI", "e2e.TestWhatIsDecidedOnIsWhatUpstreamsRead")},
	{ID: "TP13", Sent: "two lengths, bare line feeds, folded headers, trailers, chunks", Expected: "refused, or at most one well-formed request upstream", Invariants: "I3",
		Tests: shown("attacks.TestSmuggling", "attacks.TestSmugglingToAnAPI"), Beyond: "HTTP/2 without a proxy in front"},
	{ID: "TP14", Sent: "Upgrade, CONNECT, TRACE", Expected: "400, 405", Invariants: "I3",
		Tests: shown("attacks.TestSmuggling", "attacks.TestSmugglingToAnAPI", "attacks.TestWebSockets")},
	{ID: "TP15", Sent: "a call of a tool whose definition changed", Expected: "`tool_changed` until it is pinned again", Invariants: "I3",
		Tests: shown("attacks.TestToolsThatChange")},
	{ID: "TP17", Sent: "a session or stream after its agent was revoked, or by another agent", Expected: "401", Invariants: "I7",
		Tests: shown("attacks.TestSessionsOfTheRevoked")},
	{ID: "TP18", Sent: "a read and a send that together carry something out", Expected: "shown by reach, refused by a chain rule", Invariants: "I5", Beyond: "chain rules and reach"},
	{ID: "TP19", Sent: "arguments under other names, unknown ones, of other types", Expected: "refused by the tool's schema where a rule reads them", Invariants: "I3",
		Tests: shown("attacks.TestAliases", "attacks.TestMoreThanTheArguments", "internal/gateway.TestArgumentsFitTheInputSchema", "attacks.TestBodiesAndQueriesOfAnAPI")},
}

var logRows = []Row{
	{ID: "AU1", Sent: "an entry changed, swapped, deleted, inserted, all made anew", Expected: "`ledger verify` fails", Invariants: "I8",
		Tests: shown("attacks.TestTamperedLog", "ledger.TestVerifyFindsTampering", "ledger.TestVerifyAnyEdit")},
	{ID: "AU2", Sent: "an old database, a fork", Expected: "the start refuses; `ledger verify --checkpoint` fails", Invariants: "I8",
		Tests: shown("attacks.TestOldAndForkedLogs", "internal/counterfoiltest.TestAnOldDatabaseIsRefused")},
	{ID: "AU3", Sent: "a disk that is full, slow or broken", Expected: "503, and nothing happens unrecorded", Invariants: "I8",
		Tests: shown("cmd/counterfoil.TestADiskThatTakesNoMore", "internal/store.TestFaults", "internal/gateway.TestWithoutLedgerNothingHappens")},
	{ID: "AU4", Sent: "requests that are refused, malformed, or for nothing", Expected: "recorded, in one aggregate before authentication", Invariants: "I8",
		Tests: shown("attacks.TestRefusalsAreRecorded", "internal/gateway.TestEveryAuthenticatedRequestIsRecorded", "internal/web.TestUnknownLooksLikeKnown")},
	{ID: "AU5", Sent: "line breaks, control characters, quotes, 1 MiB and broken UTF-8 in recorded fields", Expected: "one well-formed entry", Invariants: "I8",
		Tests: shown("attacks.TestHostileText", "ledger.TestHostileTextStaysOneRecord", "ledger.TestInvalidUTF8IsReplaced", "ledger.TestLongTextIsCut")},
	{ID: "AU7", Sent: "a thousand payloads", Expected: "what the upstream got is what is recorded", Invariants: "I3 I8",
		Tests: shown("attacks.TestRecordedPayloads", "internal/gateway.TestWhatIsForwardedIsCanonical")},
	{ID: "AU8", Sent: "no log, half of one, another one, to the verifier", Expected: "an exit code that is not 0", Invariants: "I8",
		Tests: shown("attacks.TestFilesThatAreNoLog", "ledger.TestVerifyFindsTampering")},
}

var exhaustionRows = []Row{
	{ID: "DO1", Sent: "huge tokens, headers and bodies", Expected: "413, 431, 401", Invariants: "I11",
		Tests: shown("attacks.TestLargeCredentials", "internal/web.TestTokenRequestLimits", "internal/gateway.TestBodyLimit")},
	{ID: "DO2", Sent: "JSON that is deep, has many names or many escapes", Expected: "400", Invariants: "I11",
		Tests: shown("attacks.TestLargePayloads", "ijson.TestManyNames", "ijson.TestCheck")},
	{ID: "DO3", Sent: "headers and bodies that do not come, idle connections, floods of frames", Expected: "cut off; others go on", Invariants: "I11",
		Tests: shown("internal/gateway.TestABodyIsNotWaitedForWithoutEnd", "internal/web.TestABodyThatDoesNotComeHoldsNothing", "internal/daemon.TestFloodsOfConnections")},
	{ID: "DO4", Sent: "a flood of proofs by one agent", Expected: "429 for it alone; nothing live is forgotten", Invariants: "I2 I11",
		Tests: shown("attacks.TestProofFlood", "attacks.TestTokensOfOneAgent", "internal/gateway.TestEachAgentHasItsRate", "internal/web.TestRateOfOneAgent", "resource.TestFloodForgetsNothingLive")},
	{ID: "DO5", Sent: "a flood without authentication", Expected: "429 for its address alone", Invariants: "I11",
		Tests: shown("attacks.TestTokenFlood", "internal/web.TestRateOfOneAddress")},
	{ID: "DO6", Sent: "many keys of one agent, many unknown names", Expected: "a limit; metrics do not grow", Invariants: "I11",
		Tests: shown("attacks.TestNamesAreNoMetrics", "attacks.TestKeysOfOneAgent", "internal/web.TestCountersHaveOneSeriesACode")},
	{ID: "DO8", Sent: "policies and arguments that cost much", Expected: "bounded, and refused", Invariants: "I9",
		Tests: shown("internal/policy.TestHostileArguments", "internal/policy.TestPolicyBombs")},
	{ID: "DO9", Sent: "null and the wrong type in every field", Expected: "4xx, and the process lives", Invariants: "I9",
		Tests: shown("attacks.TestEveryFieldOfEveryEndpoint", "internal/web.TestOddValuesAreNoFaults")},
}

var headerRows = []Row{
	{ID: "HI1", Sent: "line breaks and NUL in what is answered back", Expected: "400, and no new header", Invariants: "I3",
		Tests: shown("attacks.TestReflectedText", "attacks.TestHostileText", "internal/web.TestOddValuesAreNoFaults")},
	{ID: "HI3", Sent: "Host, Forwarded and X-Forwarded-* of the sender's choice", Expected: "issuer, links and htu are what they are", Invariants: "I4",
		Tests: shown("attacks.TestForwardedHeaders", "internal/web.TestOnlyItsOwnHost", "internal/web.TestSource", "attacks.TestForwardedHeadersToAnAPI")},
}

var secretRows = []Row{
	{ID: "LC1", Sent: "an upstream that answers with the credential it got", Expected: "scrubbed", Invariants: "I10",
		Tests: shown("internal/gateway.TestCredentialsStayOnTheirSides", "attacks.TestAnUpstreamThatEchoes", "attacks.TestAnUpstreamThatEchoesInParts")},
	{ID: "LC3", Sent: "an agent's token and proof", Expected: "never upstream", Invariants: "I10",
		Tests: shown("internal/counterfoiltest.TestNothingOfTheAgentGoesUpstream", "internal/gateway.TestCredentialsStayOnTheirSides", "attacks.TestACredentialStaysWithItsHost")},
	{ID: "LC4", Sent: "a call that would take an upstream's credential elsewhere", Expected: "redirects are not followed, a call stays on its server", Invariants: "I10",
		Tests: shown("internal/gateway.TestHowCallsEnd", "internal/gateway.TestACallStaysOnTheServerItWasDecidedOn", "attacks.TestACredentialStaysWithItsHost")},
	{ID: "LC5", Sent: "marked secrets in every input", Expected: "in no log, entry, metric, answer or crash", Invariants: "I10",
		Tests: shown("attacks.TestReportsThatProveNothing", "cmd/counterfoil.TestNoSecretLeaks", "internal/counterfoiltest.TestWhatIsMissingIsWarnedOf")},
	{ID: "LC6", Sent: "a look at flags, environment, configuration and help", Expected: "no secret", Invariants: "I10",
		Tests: shown("cmd/counterfoil.TestNoSecretLeaks", "TestSecretIsUnprintable", "agent.TestNothingPrintsASecret")},
	{ID: "LC7", Sent: "the database, or a backup, without the key-encryption key", Expected: "no signing key and no upstream's credential", Invariants: "I10",
		Tests: shown("internal/authority.TestKeysAreSealedAtRest", "internal/daemon.TestCredentialsAreSealedAtRest", "cmd/counterfoil.TestNoSecretLeaks")},
}

var cloneRows = []Row{
	{ID: "CK1", Sent: "one key from two places", Expected: "an alarm, and the instance is quarantined", Invariants: "I1",
		Tests: shown("attacks.TestOneKeyInTwoPlaces", "attacks.TestPlacesAndTimes", "attacks.TestClonesThatAreOnlyRecorded", "attacks.TestRestartHidesNoClone", "attacks.TestPeersAreInPlaces")},
}
