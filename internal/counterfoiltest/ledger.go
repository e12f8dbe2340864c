package counterfoiltest

import (
	"bufio"
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"

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

// CheckLedger holds the record against what happened: the chain verifies, every
// call that reached an upstream has exactly one allowing decision, every
// allowing decision of a call ended once, and no proof was used twice.
func (s *System) CheckLedger() {
	s.T.Helper()
	allowed := map[string]int{}  // by tool
	open := map[int64]string{}   // allowing decisions without an end
	proofs := map[string]int64{} // the entry that used it
	for _, e := range s.Entries() {
		if e.Proof != "" && e.Kind != ledger.CallFinished {
			if before, twice := proofs[e.Proof]; twice {
				s.T.Errorf("entries %d and %d have one proof", before, e.Index)
			}
			proofs[e.Proof] = e.Index
		}
		switch e.Kind {
		case ledger.CallDecided:
			if e.Decision == ledger.Allow {
				open[e.Index] = e.Tool
			}
		case ledger.CallFinished:
			tool, ok := open[e.Of]
			if !ok {
				s.T.Errorf("entry %d ends %d, which is no open decision", e.Index, e.Of)
			}
			delete(open, e.Of)
			if e.Outcome != "not_forwarded" && e.Outcome != ledger.OutcomeUnknown && e.Outcome != "upstream_unavailable" {
				allowed[tool]++
			}
		}
	}
	for index, tool := range open {
		s.T.Errorf("decision %d (%s) has no end", index, tool)
	}
	seen := map[string]int{}
	for _, r := range s.upstream {
		calls, _ := r.seen()
		for _, c := range calls {
			seen["bank/"+c.Tool]++
		}
	}
	for tool, n := range seen {
		if allowed[tool] != n {
			s.T.Errorf("%d calls of %s reached the upstream, %d were decided and ended", n, tool, allowed[tool])
		}
	}
}
