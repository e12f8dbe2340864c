package attacks

var outwardRows = []Row{
	{ID: "SS1", Sent: "addresses of this machine and its network, and metadata services, in every spelling", Expected: "refused in manifests and configuration, and when connecting", Invariants: "I12",
		Tests: shown("attacks.TestWhereManifestsPoint", "attacks.TestKeysOfOthersAreFetchedCarefully", "attacks.TestReceiversOutside", "attacks.TestKeysOfOutsideIssuersAreFetchedCarefully",
			"attacks.TestProvidersAreAskedCarefully", "internal/outbound.TestAddresses", "internal/outbound.TestURLs",
			"internal/outbound.TestNothingIsDialled", "internal/gateway.TestUpstreamsAreNotLinkLocal")},
	{ID: "SS2", Sent: "a name that leads to a private address, or does from the second lookup on", Expected: "no connection", Invariants: "I12",
		Tests: shown("attacks.TestKeysOfOthersAreFetchedCarefully", "attacks.TestReceiversOutside", "attacks.TestKeysOfOutsideIssuersAreFetchedCarefully", "attacks.TestProvidersAreAskedCarefully", "internal/outbound.TestRebinding")},
	{ID: "SS3", Sent: "redirects, user information, other schemes, hosts that two readers read differently", Expected: "refused, not followed", Invariants: "I12",
		Tests: shown("attacks.TestWhereManifestsPoint", "attacks.TestKeysOfOthersAreFetchedCarefully", "attacks.TestKeysOfOutsideIssuersAreFetchedCarefully", "attacks.TestProvidersAreAskedCarefully",
			"internal/outbound.TestRedirects", "internal/custody.TestAddressesOfProviders", "internal/gateway.TestHowCallsEnd")},
	{ID: "SS4", Sent: "an answer that is slow, huge, compressed or endless", Expected: "cut off after 5 s or 64 KiB", Invariants: "I11",
		Tests: shown("attacks.TestKeysOfOthersAreFetchedCarefully", "attacks.TestKeysOfOutsideIssuersAreFetchedCarefully", "internal/outbound.TestAnswersThatDoNotEnd", "internal/gateway.TestHowCallsEnd", "internal/gateway.TestAnUpstreamThatStalls")},
	{ID: "SS6", Sent: "a client's metadata document that is another's", Expected: "401", Invariants: "I4", Beyond: "metadata documents of clients"},
}
