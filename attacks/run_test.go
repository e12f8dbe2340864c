package attacks

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// An attack is one thing that is sent, and what has to come of it. The control
// is sent just before it: the same without the attack, which has to pass, so
// that a refusal for another reason does not count.
type attack struct {
	row, name string
	send      func(t *testing.T, w *world) answer
	control   func(t *testing.T, w *world) answer // nil: an honest call of a tool
	want      want
}

// A want is the answer to an attack. One without a code is a request that only
// looks like an attack and has to pass.
type want struct {
	status    int
	oauth     string           // the error of RFC 6749, at the token endpoint
	code      counterfoil.Code // empty: it passes
	jsonrpc   int              // the code of the JSON-RPC error; 0: there is none
	challenge string           // the error of WWW-Authenticate; empty: not looked at
}

// An answer is what came back.
type answer struct {
	status    int
	header    http.Header
	body      []byte
	code      counterfoil.Code
	oauth     string
	jsonrpc   int
	requestID string
}

var challengeError = regexp.MustCompile(`error="([a-z_]+)"`)

// run sends every attack in turn, a second apart, each after its control. A
// refused one must have been refused as it says, and must have had no effect: no
// token, no instance, no call let through, nothing at the upstream. In the end the record is
// held against what happened.
func run(t *testing.T, w *world, attacks []attack) {
	t.Helper()
	for _, a := range attacks {
		t.Run(a.row+" "+a.name, func(t *testing.T) {
			defer w.in(t)()
			w.Clock.Advance(time.Second)
			control := a.control
			if control == nil {
				control = honestCall
			}
			w.renew()
			if got := control(t, w); !got.passed() {
				t.Fatalf("the request without the attack: %s", got)
			}
			from, calls := w.size(), w.Reached()
			got := a.send(t, w)
			a.want.check(t, got)
			w.wantEffects(a.want, from, calls)
		})
	}
	w.CheckLedger()
}

func (a answer) passed() bool { return a.status/100 == 2 && a.code == "" && a.jsonrpc == 0 }

func (a answer) String() string { return fmt.Sprintf("HTTP %d %v %s", a.status, a.header, a.body) }

// challenges returns the errors that WWW-Authenticate names.
func (a answer) challenges() []string {
	var errors []string
	for _, v := range a.header.Values("WWW-Authenticate") {
		for _, m := range challengeError.FindAllStringSubmatch(v, -1) {
			errors = append(errors, m[1])
		}
	}
	return errors
}

func (w want) passes() bool { return w.code == "" && w.status/100 == 2 }

func (w want) check(t *testing.T, got answer) {
	t.Helper()
	if got.status != w.status || got.oauth != w.oauth || got.code != w.code || got.jsonrpc != w.jsonrpc {
		t.Errorf("got %s\nwant %+v", got, w)
	}
	if w.passes() {
		return
	}
	if got.code != "" && got.requestID == "" {
		t.Errorf("a refusal without a request id: %s", got)
	}
	if got.code != "" && got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("a refusal may be cached: %s", got)
	}
	if w.challenge != "" && !slices.Contains(got.challenges(), w.challenge) {
		t.Errorf("the challenge is %q, want %s", got.header.Values("WWW-Authenticate"), w.challenge)
	}
	if strings.Contains(string(got.body), "access_token") {
		t.Errorf("a token in a refusal: %s", got)
	}
}

// wantEffects looks at what came of a request since the log had that size.
func (w *world) wantEffects(want want, from int64, calls int) {
	w.T.Helper()
	tokens, allowed, instances := 0, 0, 0
	for _, e := range w.since(from) {
		switch {
		case e.Kind == ledger.TokenIssued:
			tokens++
		case e.Kind == ledger.InstanceEnrolled:
			instances++
		case e.Kind == ledger.CallDecided && e.Decision == ledger.Allow:
			allowed++
		}
	}
	reached := w.Reached() - calls
	switch {
	case !want.passes() && (tokens > 0 || instances > 0 || allowed > 0 || reached > 0):
		w.T.Errorf("refused, and yet %d tokens, %d instances, %d decisions that allow, %d calls at the upstream", tokens, instances, allowed, reached)
	case want.passes() && tokens+instances+allowed != 1:
		w.T.Errorf("passed with %d tokens, %d instances and %d decisions that allow", tokens, instances, allowed)
	}
}

// in makes a part of a test what the world's failures belong to.
func (w *world) in(t *testing.T) (leave func()) {
	outer := w.T
	w.T = t
	return func() { w.T = outer }
}

// size returns the log's size.
func (w *world) size() int64 {
	w.T.Helper()
	size, _ := w.page(0, 1)
	return size
}

// since returns the log's entries from an index on.
func (w *world) since(from int64) []*ledger.Entry {
	w.T.Helper()
	var all []*ledger.Entry
	for {
		size, page := w.page(from, 1000)
		all = append(all, page...)
		if from += int64(len(page)); from >= size {
			return all
		}
		if len(page) == 0 {
			w.T.Fatalf("the log of %d entries has none at %d", size, from)
		}
	}
}

func (w *world) page(from int64, limit int) (size int64, entries []*ledger.Entry) {
	w.T.Helper()
	status, body := w.Admin(http.MethodGet, fmt.Sprintf("/api/v1/ledger/entries?from=%d&limit=%d", from, limit), nil)
	var found struct {
		Size    int64             `json:"size"`
		Entries []json.RawMessage `json:"entries"`
	}
	if err := json.Unmarshal(body, &found); err != nil || status != http.StatusOK {
		w.T.Fatalf("reading the log: HTTP %d %s %v", status, body, err)
	}
	for _, b := range found.Entries {
		e, err := ledger.Parse(b)
		if err != nil {
			w.T.Fatalf("reading an entry: %v", err)
		}
		entries = append(entries, e)
	}
	return found.Size, entries
}

// do sends a request.
func (w *world) do(r *http.Request) answer {
	w.T.Helper()
	resp, err := w.client.Do(r)
	if err != nil {
		w.T.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.T.Fatal(err)
	}
	return read(resp.StatusCode, resp.Header, body)
}

// read finds code and errors in any of the forms in which they are answered.
func read(status int, header http.Header, body []byte) answer {
	a := answer{status: status, header: header, body: body, code: counterfoiltest.CodeOf(body), requestID: header.Get("X-Request-Id")}
	var wire struct {
		OAuth json.RawMessage `json:"error"`
		ID    string          `json:"request_id"`
	}
	if json.Unmarshal(body, &wire) != nil {
		return a
	}
	var rpc struct {
		Code int `json:"code"`
		Data struct {
			Code counterfoil.Code `json:"code"`
		} `json:"data"`
	}
	switch {
	case len(wire.OAuth) > 0 && wire.OAuth[0] == '"':
		_ = json.Unmarshal(wire.OAuth, &a.oauth) // a string, as its first character says
	case len(wire.OAuth) > 0 && json.Unmarshal(wire.OAuth, &rpc) == nil:
		a.jsonrpc = rpc.Code
		if a.code == "" {
			a.code = rpc.Data.Code
		}
	}
	return a
}

// members returns the members of a JSON body; none when it is no object.
func (a answer) members() map[string]any {
	var m map[string]any
	if json.Unmarshal(a.body, &m) != nil {
		return nil
	}
	return m
}
