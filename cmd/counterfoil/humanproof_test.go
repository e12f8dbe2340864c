package main

import "testing"

// TestWhatIsSparedIsBesidePeople: an entry is passed over only where no spelling of it
// could be a call that people had to allow.
func TestWhatIsSparedIsBesidePeople(t *testing.T) {
	t.Parallel()
	for entry, spared := range map[string]bool{
		`{"decision":"allow","kind":"call.decided","tier":"routine"}`: true,
		`{"kind":"call.finished","of":3}`:                             true,
		`{"kind":"token.issued"}`:                                     true,

		`{"decision":"allow","kind":"call.decided","tier":"irreversible"}`:                                       false,
		`{"decision":"allow","kind":"call.decided"}`:                                                             false,
		`{"approval":{"id":"apr_x","state":"spent"},"decision":"allow","kind":"call.decided","tier":"routine"}`:  false,
		`{"decision":"allow","detail":{"tier":"routine"},"kind":"call.decided","tier":"guarded"}`:                false,
		`{"decision":"allow","detail":{"kind":"token.issued"},"kind":"call.decided","tier":"guarded"}`:           false,
		`{"decision":"allow","detail":{"kind":"token.issued"},"k\u0069nd":"call.decided","tier":"guarded"}`:      false,
		`{"decision":"allow","detail":{"tier":"routine"},"kind":"call.decided","t\u0069er":"guarded"}`:           false,
		`{"decision":"allow","kind": "call.decided","tier":"guarded"}`:                                           false,
		`{"decision":"allow","detail":{"x":"\"kind\":\"token.issued\""},"kind":"call.decided","tier":"guarded"}`: false,
		`{"kind":"approval.signed"}`:                     false,
		`{"kind":"person.enrolled"}`:                     false,
		`{"detail":{"kind":"x"},"kind":"call.finished"}`: false,
	} {
		if got := besidePeople([]byte(entry)); got != spared {
			t.Errorf("%s: spared %v", entry, got)
		}
	}
}
