package resource_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/resource"
)

// A teller is an issuer's feed over HTTP: it answers what it is given, one answer a
// request, and remembers what it was asked.
type teller struct {
	t       *testing.T
	server  *httptest.Server
	mu      sync.Mutex
	asked   []string
	answers []func(w http.ResponseWriter)
	idle    chan struct{} // closed when there is no answer left
}

func newTeller(t *testing.T, answers ...func(w http.ResponseWriter)) *teller {
	s := &teller{t: t, answers: answers, idle: make(chan struct{})}
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.Method+" "+r.URL.String())
		var answer func(http.ResponseWriter)
		if len(s.answers) > 0 {
			answer, s.answers = s.answers[0], s.answers[1:]
		} else {
			select {
			case <-s.idle:
			default:
				close(s.idle)
			}
		}
		s.mu.Unlock()
		if answer == nil {
			<-r.Context().Done()
			return
		}
		answer(w)
	}))
	t.Cleanup(s.server.Close)
	return s
}

func (s *teller) feed(v *resource.View) *resource.Feed {
	return &resource.Feed{Issuer: s.server.URL, Client: s.server.Client(), View: v, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

func says(t *testing.T, f counterfoil.RevocationFeed) func(http.ResponseWriter) {
	t.Helper()
	b, err := ijson.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return saysText("application/json", string(b))
}

func saysText(media, body string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", media)
		io.WriteString(w, body)
	}
}

func TestFeedKeepsAViewCurrent(t *testing.T) {
	t.Parallel()
	o := newTold(t)
	first := o.all()
	o.now = o.now.Add(time.Second)
	step := o.next(nil, o.dead(counterfoil.TargetToken, "tok_1"))
	stepSeq := o.seq
	o.seq += 50
	gap := o.next(nil, o.dead(counterfoil.TargetToken, "tok_3")) // something before it is missing
	whole := o.all(o.dead(counterfoil.TargetToken, "tok_2"), o.dead(counterfoil.TargetToken, "tok_3"))
	s := newTeller(t, says(t, first), says(t, step), says(t, gap), says(t, whole), says(t, o.same()))
	f := s.feed(o.view)
	poll := func(want error) {
		t.Helper()
		if err := f.Poll(context.Background()); !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
	}
	poll(nil)
	o.wantLive(payroll())
	poll(nil)
	o.wantNot(counterfoil.TokenRevoked, payroll())
	poll(resource.ErrGap)
	other := payroll()
	other.TokenID = "tok_2"
	o.wantLive(other)
	poll(nil)
	o.wantNot(counterfoil.TokenRevoked, other)
	poll(nil)
	want := []string{
		"GET /oauth/revocations?after=-1&wait=0", "GET /oauth/revocations?after=100&wait=3",
		fmt.Sprintf("GET /oauth/revocations?after=%d&wait=3", stepSeq),
		"GET /oauth/revocations?after=-1&wait=0",
		fmt.Sprintf("GET /oauth/revocations?after=%d&wait=3", o.seq),
	}
	if got := strings.Join(s.asked, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("it asked\n%s", got)
	}
}

// TestFeedTakesNothingThatIsNotQuiteRight: an answer that another reader may read
// otherwise, or that is not whole, changes nothing.
func TestFeedTakesNothingThatIsNotQuiteRight(t *testing.T) {
	t.Parallel()
	o := newTold(t)
	good := `{"seq":100,"at":"2026-11-21T12:00:00Z","snapshot":{"seq":100,"prev":0,"at":"2026-11-21T12:00:00Z",` +
		`"agents":{"payroll":{"status":"active","epoch":1700000000000}}},"max_stale_ms":10000}`
	for name, answer := range map[string]func(http.ResponseWriter){
		"an unknown member":        saysText("application/json", strings.Replace(good, `"seq":100`, `"also":1,"seq":100`, 1)),
		"an unknown member inside": saysText("application/json", strings.Replace(good, `"epoch"`, `"but":false,"epoch"`, 1)),
		"an agent twice":           saysText("application/json", strings.Replace(good, `"agents":{`, `"agents":{"payroll":{"status":"suspended","epoch":1700000000000},`, 1)),
		"a member twice":           saysText("application/json", strings.Replace(good, `"seq":100`, `"seq":99,"seq":100`, 1)),
		"a member in another case": saysText("application/json", strings.Replace(good, `"snapshot"`, `"Snapshot"`, 1)),
		"a number as text":         saysText("application/json", strings.Replace(good, `"seq":100`, `"seq":"100"`, 1)),
		"something after it":       saysText("application/json", good+"{}"),
		"half of it":               saysText("application/json", good[:len(good)-20]),
		"nothing":                  saysText("application/json", ""),
		"null":                     saysText("application/json", "null"),
		"an empty object":          saysText("application/json", "{}"),
		"a page":                   saysText("text/html", good),
		"no UTF-8":                 saysText("application/json", strings.Replace(good, "payroll", "pay\xffroll", 1)),
		"a refusal": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(403)
			io.WriteString(w, `{"code":"tool_not_granted","detail":"no"}`)
		},
		"a refusal with a good body": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(202)
			io.WriteString(w, good)
		},
		"a redirect": func(w http.ResponseWriter) {
			w.Header().Set("Location", "/oauth/revocations")
			w.WriteHeader(302)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			view := &resource.View{Now: o.view.Now}
			s := newTeller(t, answer, saysText("application/json; charset=utf-8", good))
			f := s.feed(view)
			if err := f.Poll(t.Context()); err == nil || view.Seq() != -1 {
				t.Errorf("it was taken: %v, seq %d", err, view.Seq())
			}
			if err := view.Revoked(t.Context(), payroll()); err == nil || counterfoil.CodeOf(err) != counterfoil.RevocationStale {
				t.Errorf("then %v", err)
			}
			if err := f.Poll(t.Context()); err != nil {
				t.Errorf("the honest answer: %v", err)
			}
			if err := view.Revoked(t.Context(), payroll()); err != nil {
				t.Errorf("after the honest answer: %v", err)
			}
			if len(s.asked) != 2 {
				t.Errorf("it asked %q", s.asked)
			}
		})
	}
}

func TestFeedRuns(t *testing.T) {
	t.Parallel()
	o := newTold(t)
	refuse := func(w http.ResponseWriter) { w.WriteHeader(503) }
	first := o.all()
	step := o.next(nil, o.dead(counterfoil.TargetToken, "tok_1"))
	s := newTeller(t, refuse, says(t, first), refuse, says(t, step))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.feed(o.view).Run(ctx)
	}()
	<-s.idle
	o.wantNot(counterfoil.TokenRevoked, payroll())
	cancel()
	<-ended
	if err := (&resource.Feed{}).Poll(t.Context()); err == nil {
		t.Error("a feed of nothing says nothing")
	}
}

// answering is an issuer that answers everything alike.
type answering string

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(string(a))), Request: r,
	}, nil
}

// Whatever an answer is, it lets in nobody whom a View refused before, unless that is
// a newer epoch of an agent that is not offboarded.
func FuzzFeed(f *testing.F) {
	f.Add(`{"seq":107,"at":"2026-11-21T12:00:01Z","steps":[{"seq":107,"prev":100,"at":"2026-11-21T12:00:01Z","agents":{"payroll":{"status":"active","epoch":1700000000000}}}]}`)
	f.Add(`{"seq":108,"at":"2026-11-21T12:00:01Z","snapshot":{"seq":108,"prev":0,"at":"2026-11-21T12:00:01Z","agents":{}},"max_stale_ms":10000}`)
	f.Add(`{"seq":100,"at":"2026-11-21T12:00:01Z","max_stale_ms":-1}`)
	f.Add(`{"log":"x","seq":1,"at":"2026-11-21T12:00:01Z","snapshot":{"seq":1,"prev":1,"at":"2026-11-21T12:00:01Z","agents":{"payroll":{"status":"active","epoch":1699999999999}}},"max_stale_ms":10000}`)
	f.Add(`{"seq":101,"at":"2026-11-21T12:00:01Z","steps":[{"seq":101,"prev":100,"dead":[{"kind":"resource","id":"x","until":"0001-01-01T00:00:00Z"}]}]}`)
	f.Fuzz(func(t *testing.T, body string) {
		o := newTold(t)
		o.take(o.all(o.dead(counterfoil.TargetToken, "tok_dead")))
		o.now = o.now.Add(time.Second)
		before := o.view.Seq()
		feed := &resource.Feed{Issuer: issuer, Client: &http.Client{Transport: answering(body)}, View: o.view}
		if err := feed.Poll(t.Context()); err != nil && o.view.Seq() != before {
			t.Errorf("%v, and %d became %d", err, before, o.view.Seq())
		}
		if o.view.Seq() < before && o.view.Log() == "" {
			t.Errorf("%d became %d", before, o.view.Seq())
		}
		dead, old := payroll(), payroll()
		dead.TokenID, old.Epoch = "tok_dead", activeEpoch-1
		for _, c := range []counterfoil.Caller{dead, old, {}} {
			if err := o.view.Revoked(t.Context(), c); err == nil {
				t.Errorf("%q lets in %+v", body, c)
			}
		}
	})
}

// TestFeedAfterARestoration: it asks with the log that it knows, and of another one for
// everything.
func TestFeedAfterARestoration(t *testing.T) {
	t.Parallel()
	o := newTold(t)
	first := of("issuer.example/ledger", o.all())
	o.seq, o.now = 30, o.now.Add(time.Second)
	const restored = "issuer.example/ledger/restored-1"
	steps := of(restored, o.next(nil)) // of an issuer that does not look at the log that it is asked with
	whole := of(restored, o.all(o.dead(counterfoil.TargetToken, "tok_1")))
	s := newTeller(t, says(t, first), says(t, steps), says(t, whole), says(t, of(restored, o.same())))
	f := s.feed(o.view)
	for i, want := range []error{nil, resource.ErrGap, nil, nil} {
		if err := f.Poll(t.Context()); !errors.Is(err, want) {
			t.Fatalf("poll %d: %v, want %v", i, err, want)
		}
		o.now = o.now.Add(time.Millisecond)
	}
	o.wantNot(counterfoil.TokenRevoked, payroll())
	want := []string{
		"GET /oauth/revocations?after=-1&wait=0",
		"GET /oauth/revocations?after=100&wait=3&log=issuer.example%2Fledger",
		"GET /oauth/revocations?after=-1&wait=0&log=issuer.example%2Fledger",
		fmt.Sprintf("GET /oauth/revocations?after=%d&wait=3&log=issuer.example%%2Fledger%%2Frestored-1", o.seq),
	}
	if got := strings.Join(s.asked, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("it asked\n%s", got)
	}
}

// TestFeedWaitsNoLongerThanItMay: a bound of any length asks for a wait that is answered.
func TestFeedWaitsNoLongerThanItMay(t *testing.T) {
	t.Parallel()
	for bound, want := range map[time.Duration]string{
		60 * time.Second: "20", 75 * time.Second: "25", 76 * time.Second: "25", 78 * time.Second: "25", time.Hour: "25",
	} {
		o := newTold(t)
		first := o.all()
		first.MaxStale = bound.Milliseconds()
		same := o.same()
		same.MaxStale = first.MaxStale
		s := newTeller(t, says(t, first), says(t, same))
		f := s.feed(o.view)
		for range 2 {
			if err := f.Poll(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := s.asked[len(s.asked)-1]; got != "GET /oauth/revocations?after=100&wait="+want {
			t.Errorf("with %v it asks %s", bound, got)
		}
	}
}
