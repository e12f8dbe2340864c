package attacks

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// TestRecordedPayloads, AU7: of a thousand payloads, each written in some way of its
// own, the record commits to the bytes that the upstream received.
func TestRecordedPayloads(t *testing.T) {
	t.Parallel()
	w := newTapWorld(t)
	const calls, at = 1000, 8
	w.token = w.tokenFor(w.tapper, w.tapURL())
	now := w.Clock.Now()
	type sent struct{ text, request, tool string }
	results := make([]sent, calls)
	var all sync.WaitGroup
	for worker := range at {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 7))
			for i := worker; i < calls; i += at {
				tool := []string{"echo", "once"}[i%2]
				text := fmt.Sprintf(`{"n":%d,"payload":%s}`, i, randomJSON(random, 4))
				proof, err := credential.SignProof(w.tapper.signer, http.MethodPost, w.tapURL(), "", w.token, now)
				if err != nil {
					t.Error(err)
					return
				}
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.tapURL(), strings.NewReader(counterfoiltest.Body(tool, text)))
				if err != nil {
					t.Error(err)
					return
				}
				r.Header = http.Header{
					"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}, "Mcp-Protocol-Version": {"2026-07-28"},
					"Mcp-Method": {"tools/call"}, "Mcp-Name": {tool}, "Authorization": {"DPoP " + w.token}, "Dpop": {proof},
				}
				resp, err := w.client.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					t.Errorf("HTTP %d for %s", resp.StatusCode, text)
				}
				results[i] = sent{text, resp.Header.Get("X-Request-Id"), tool}
			}
		})
	}
	all.Wait()

	received := map[int]string{}
	for _, r := range w.seen() {
		var args struct {
			N int `json:"n"`
		}
		if err := ijson.UnmarshalLax([]byte(r.args), &args); err != nil {
			t.Fatal(err)
		}
		if _, twice := received[args.N]; twice {
			t.Errorf("payload %d was received twice", args.N)
		}
		received[args.N] = r.args
	}
	decided := map[string]*ledger.Entry{}
	for _, e := range w.Entries() {
		if e.Kind == ledger.CallDecided {
			decided[e.RequestID] = e
		}
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(w.Dir, "counterfoil.db")+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for i, s := range results {
		e := decided[s.request]
		got, ok := received[i]
		if e == nil || !ok {
			t.Errorf("payload %d: entry %v, received %v", i, e != nil, ok)
			continue
		}
		var salt, payload []byte
		if err := db.QueryRow(`SELECT salt, payload FROM payloads WHERE entry = ?`, e.Index).Scan(&salt, &payload); err != nil {
			t.Fatalf("payload %d: %v", i, err)
		}
		if len(salt) != 32 || ledger.Commitment(salt, []byte(got)) != e.PayloadCommitment {
			t.Errorf("payload %d was sent as %s, received as %s, and recorded as another", i, s.text, got)
		}
		// Of one class all is kept, of the other nothing but the salt.
		if want := map[string]string{"echo": got, "once": ""}[s.tool]; string(payload) != want {
			t.Errorf("payload %d of %s is kept as %q, want %q", i, s.tool, payload, want)
		}
		// And what was received is what was sent, for a reader of numbers as float64.
		if !sameJSON(t, s.text, got) {
			t.Errorf("payload %d was sent as %s and received as %s", i, s.text, got)
		}
		// The control: a byte of it changes the commitment.
		if bent := []byte(got); ledger.Commitment(salt, append(bent[:len(bent)-1], ' ', '}')) == e.PayloadCommitment {
			t.Errorf("payload %d: another text has the same commitment", i)
		}
	}
	if len(received) != calls {
		t.Errorf("%d payloads were received", len(received))
	}
	w.CheckLedger()
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	canonical := func(s string) string {
		c, err := ijson.Canonical([]byte(s))
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		return string(c)
	}
	return canonical(a) == b && canonical(b) == b
}

// randomJSON writes a value that I-JSON allows, in one of the many ways.
func randomJSON(r *rand.Rand, depth int) string {
	space := func() string { return []string{"", "", "", " ", "\n\t", "  "}[r.IntN(6)] }
	kinds := 7
	if depth == 0 {
		kinds = 5
	}
	switch r.IntN(kinds) {
	case 0:
		return []string{"true", "false", "null"}[r.IntN(3)]
	case 1:
		n := r.Int64N(1<<53) - 1<<52
		return []string{fmt.Sprint(n), fmt.Sprintf("%d.0", n), fmt.Sprintf("%de0", n), fmt.Sprintf("%d00E-2", n/1000)}[r.IntN(4)]
	case 2:
		return []string{"1e2", "-0", "0.5", "1E-7", "1.5e300", "100.00", "12.34", "-1e-7", "5e-324", "1.7976931348623157e308"}[r.IntN(10)]
	case 3, 4:
		return randomString(r)
	case 5:
		var items []string
		for range r.IntN(5) {
			items = append(items, space()+randomJSON(r, depth-1)+space())
		}
		return "[" + strings.Join(items, ",") + space() + "]"
	}
	var members []string
	for i := range r.IntN(6) {
		members = append(members, space()+strings.Replace(randomString(r), `"`, fmt.Sprintf(`"k%d`, i), 1)+space()+":"+space()+randomJSON(r, depth-1)+space())
	}
	// Names in any order: what is forwarded has one.
	r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return "{" + strings.Join(members, ",") + space() + "}"
}

func randomString(r *rand.Rand) string {
	var b strings.Builder
	b.WriteByte('"')
	for range r.IntN(12) {
		b.WriteString(pieces[r.IntN(len(pieces))])
	}
	b.WriteByte('"')
	return b.String()
}

var pieces = slices.Concat([]string{
	`\u0061`, `\/`, `/`, `\"`, `\\`, `\n`, `\u000a`, `\u001f`, `\b`, "é", `\u00e9`, "e\u0301", "\u2028", "€", "\U0001f600", `\ud83d\ude00`, "\ufb01", "ß", "<", "&", "'", "\u007f", "\ue000", "\uffff",
}, strings.Split("abcdefghijklmnopqrstuvwxyz0123456789", ""))
