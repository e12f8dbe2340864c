package counterfoiltest

import (
	"bufio"
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/counterfoil/counterfoil/internal/approval"
	"github.com/counterfoil/counterfoil/internal/daemon"
	"github.com/counterfoil/counterfoil/ledger"
)

// Export returns the whole log as an export.
func (s *System) Export() []byte {
	s.T.Helper()
	return s.must(http.MethodGet, "/api/v1/ledger/export", nil)
}

// Entries returns every entry, verified with the public key alone.
func (s *System) Entries() []*ledger.Entry {
	s.T.Helper()
	export := s.Export()
	key, err := os.ReadFile(filepath.Join(s.Dir, daemon.LedgerKeyName))
	if err != nil {
		s.T.Fatal(err)
	}
	verifier, err := ledger.ParseVerifier(strings.TrimSpace(string(key)))
	if err != nil {
		s.T.Fatal(err)
	}
	report, err := ledger.VerifyExport(bytes.NewReader(export), ledger.VerifyOptions{Verifier: verifier})
	if err != nil {
		s.T.Fatalf("the chain does not verify: %v", err)
	}
	var entries []*ledger.Entry
	scan := bufio.NewScanner(bytes.NewReader(export))
	scan.Buffer(nil, ledger.MaxEntry+1024)
	for scan.Scan() {
		line := scan.Bytes()
		if bytes.HasPrefix(line, []byte(`{"tree":`)) || bytes.HasPrefix(line, []byte(`{"checkpoint":`)) || bytes.HasPrefix(line, []byte(`{"format":`)) {
			continue
		}
		e, err := ledger.Parse(line)
		if err != nil {
			s.T.Fatalf("reading an entry: %v", err)
		}
		entries = append(entries, e)
	}
	if err := scan.Err(); err != nil || int64(len(entries)) != report.Size {
		s.T.Fatalf("the export has %d entries, its checkpoint %d (%v)", len(entries), report.Size, err)
	}
	return entries
}

// CheckLedger drains and restarts the system and holds the record against what
// happened: the chain verifies, and so does what people signed, every call that
// reached an upstream has exactly one allowing decision, every allowing decision
// ended once, none of them in the dark, and no proof was used twice.
func (s *System) CheckLedger() {
	s.T.Helper()
	s.CheckLedgerBut(0)
}

// CheckLedgerBut is CheckLedger where the test has made that many calls end in the
// dark.
func (s *System) CheckLedgerBut(unknown int) {
	s.T.Helper()
	s.Restart()                   // an answer that is a stream is recorded after its end
	decided := map[int64]string{} // allowing decisions without an end, by index
	forwarded := map[string]int{} // calls that were decided and sent, by tool
	proofs := map[string]int64{}  // by proof, the entry that used it
	var people approval.Offline
	for _, e := range s.Entries() {
		if err := people.Add(e); err != nil {
			s.T.Errorf("what people signed does not verify: %v", err)
		}
		if e.Proof != "" && e.Kind != ledger.CallFinished {
			if before, twice := proofs[e.Proof]; twice {
				s.T.Errorf("entries %d and %d have one proof", before, e.Index)
			}
			proofs[e.Proof] = e.Index
		}
		switch {
		case e.Kind == ledger.CallDecided && e.Decision == ledger.Allow:
			decided[e.Index] = e.Tool
		case e.Kind == ledger.CallFinished:
			tool, open := decided[e.Of]
			if !open {
				s.T.Errorf("entry %d ends %d, which is no open decision", e.Index, e.Of)
			}
			delete(decided, e.Of)
			if e.Outcome == ledger.OutcomeUnknown {
				if unknown--; unknown < 0 {
					s.T.Errorf("nobody knows how %d (%s) ended", e.Of, tool)
				}
			}
			switch e.Outcome {
			case "not_forwarded", "upstream_unavailable", "repeated": // which reached no upstream
			default:
				_, name, _ := strings.Cut(tool, "/") // two resources may have one upstream
				forwarded[name]++
			}
		}
	}
	if unknown > 0 {
		s.T.Errorf("of %d calls more nobody should know how they ended", unknown)
	}
	for index, tool := range decided {
		s.T.Errorf("decision %d (%s) has no end", index, tool)
	}
	seen := map[string]int{}
	for _, r := range s.upstream {
		calls, _ := r.Seen()
		for _, c := range calls {
			seen[c.Tool]++
		}
	}
	for tool, n := range seen {
		if forwarded[tool] != n {
			s.T.Errorf("%d calls of %s reached the upstream, %d were decided and ended", n, tool, forwarded[tool])
		}
	}
}
