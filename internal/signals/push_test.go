package signals_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/outbound"
	"github.com/counterfoil/counterfoil/internal/signals"
	"github.com/counterfoil/counterfoil/ledger"
)

// A receiver takes events that are pushed to it (RFC 8935), as one who has only the
// specifications would write it.
type receiver struct {
	*httptest.Server
	t *testing.T

	mu     sync.Mutex
	got    []told
	auth   []string
	asked  int
	answer func(w http.ResponseWriter, ev told) // nil: 202
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{t: t}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	ev, bad := readSET(string(body), publicKey(), issuer, "watch")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	if err != nil || bad != nil || req.Method != http.MethodPost || req.Header.Get("Content-Type") != "application/secevent+jwt" {
		r.t.Errorf("%s %s: %v, %v", req.Method, req.Header.Get("Content-Type"), err, bad)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.auth = append(r.auth, req.Header.Get("Authorization"))
	if r.answer != nil {
		r.answer(w, ev)
		return
	}
	r.got = append(r.got, ev)
	w.WriteHeader(http.StatusAccepted)
}

func (r *receiver) set(answer func(http.ResponseWriter, told)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (r *receiver) events() ([]told, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got), r.asked
}

func (w *world) pushTo(r *receiver, auth string) counterfoil.SignalStream {
	w.t.Helper()
	pushing(w, r.URL+"/events")
	wish := signals.Wish{Method: counterfoil.DeliveryPush, Endpoint: r.URL + "/events"}
	if auth != "" {
		wish.Authorization = counterfoil.NewSecret(auth)
	}
	return w.create(wish)
}

func TestPush(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := newReceiver(t)
	s := w.pushTo(r, "Bearer s3cr3t")
	w.happen(suspended("payroll"), taskClosed("tsk_1"))
	w.Deliver(t.Context())
	got, _ := r.events()
	if words(got) != "session-revoked session-revoked account-disabled session-revoked" {
		t.Fatalf("told: %s", words(got))
	}
	if slices.ContainsFunc(r.auth, func(a string) bool { return a != "Bearer s3cr3t" }) {
		t.Errorf("Authorization: %q", r.auth)
	}
	w.Deliver(t.Context())
	if again, _ := r.events(); len(again) != 4 {
		t.Errorf("%d events after another round", len(again))
	}
	delivered := w.of(ledger.SignalDelivered)
	if len(delivered) != 4 || delivered[3].View.Seq < 2 || delivered[0].View.Seq >= 1 {
		t.Errorf("entries: %+v", delivered)
	}
	w.start()
	w.pass(time.Second)
	w.Deliver(t.Context())
	if again, _ := r.events(); len(again) != 4 {
		t.Errorf("%d events after a restart", len(again))
	}
	// A stream that pushes is not polled.
	_, err := w.Poll(t.Context(), watch, s.ID, signals.PollRequest{ReturnImmediately: true})
	wantCode(t, "poll", err, counterfoil.RequestMalformed)
}

// What fails is tried again, later and later, for as long as it takes, and nothing is
// sent out of order meanwhile.
func TestPushAgain(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]int{"500": 500, "503": 503, "401": 401, "403": 403, "404": 404, "429": 429, "redirect": 307} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r, other := newReceiver(t), newReceiver(t)
			w.pushTo(r, "Bearer s3cr3t")
			r.set(func(rw http.ResponseWriter, _ told) {
				rw.Header().Set("Location", other.URL)
				rw.WriteHeader(code)
			})
			w.happen(taskClosed("tsk_1"), taskClosed("tsk_2"))
			asked := 0
			for _, wait := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
				w.Deliver(t.Context())
				w.pass(wait*time.Second - time.Millisecond)
				w.Deliver(t.Context()) // not due yet
				w.pass(time.Millisecond)
				asked++
				if _, n := r.events(); n != asked {
					t.Fatalf("asked %d times, want %d, before waiting %d s", n, asked, wait)
				}
			}
			if _, n := other.events(); n != 0 {
				t.Error("a redirect was followed")
			}
			if n := len(w.of(ledger.SignalDelivered)); n != 0 {
				t.Errorf("%d entries say that it arrived", n)
			}
			r.set(nil)
			w.Deliver(t.Context())
			if got, _ := r.events(); words(got) != "session-revoked session-revoked" || !strings.Contains(got[0].Subject, "tsk_1") {
				t.Errorf("at last: %+v", got)
			}
		})
	}
}

// An event that its receiver says is wrong is given up after some times, and the next
// one follows; the log says so.
func TestPushRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := newReceiver(t)
	w.pushTo(r, "")
	r.set(func(rw http.ResponseWriter, ev told) {
		if strings.Contains(ev.Subject, "tsk_1") {
			rw.Header().Set("Content-Type", "application/json")
			rw.WriteHeader(http.StatusBadRequest)
			io.WriteString(rw, `{"err":"invalid_key","description":"x"}`)
			return
		}
		r.got = append(r.got, ev)
		rw.WriteHeader(http.StatusAccepted)
	})
	w.happen(taskClosed("tsk_1"), taskClosed("tsk_2"))
	for range 3 {
		if got, _ := r.events(); len(got) != 0 {
			t.Fatalf("before the first is given up: %+v", got)
		}
		w.Deliver(t.Context())
		w.pass(time.Minute)
	}
	got, asked := r.events()
	delivered := w.of(ledger.SignalDelivered)
	if words(got) != "session-revoked" || asked != 4 || len(delivered) != 2 || !strings.Contains(delivered[0].Reason+string(must(ledger.Encode(delivered[0]))), `"refused":{"`) {
		t.Errorf("%d requests, told %s, entries %+v", asked, words(got), delivered)
	}
	if strings.Contains(string(must(ledger.Encode(delivered[1]))), "refused") || !strings.Contains(string(must(ledger.Encode(delivered[0]))), "invalid_key") {
		t.Error("what was refused is not what the log says")
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// Nothing is pushed once the manifest or the agent's state says so, and it goes on when
// they say otherwise.
func TestPushStops(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ stop, resume func(w *world, r *receiver) }{
		"the URL is no longer listed": {
			func(w *world, r *receiver) { pushing(w, "https://other.example/") },
			func(w *world, r *receiver) { pushing(w, r.URL+"/events") },
		},
		"the signals are taken back": {
			func(w *world, _ *receiver) {
				w.declare(func(r *counterfoil.Registry) { r.Agents["watch"].Signals = nil })
			},
			func(w *world, r *receiver) { pushing(w, r.URL+"/events") },
		},
		"the agent is suspended": {
			func(w *world, _ *receiver) { w.set("watch", counterfoil.Suspended) },
			func(w *world, _ *receiver) { w.set("watch", counterfoil.Active) },
		},
		"the agent's state is unknown": {
			func(w *world, _ *receiver) { w.set("watch", "") },
			func(w *world, _ *receiver) { w.set("watch", counterfoil.Active) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := newReceiver(t)
			w.pushTo(r, "")
			w.happen(taskClosed("tsk_1"))
			c.stop(w, r)
			w.Deliver(t.Context())
			if _, asked := r.events(); asked != 0 {
				t.Error("an event was pushed")
			}
			c.resume(w, r)
			w.pass(time.Second)
			w.Deliver(t.Context())
			if got, _ := r.events(); len(got) != 1 {
				t.Errorf("control: %d events", len(got))
			}
		})
	}
}

// A crash between a push and its entry sends the event again, under the same id.
func TestPushThatIsNotRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := newReceiver(t)
	w.pushTo(r, "")
	w.happen(taskClosed("tsk_1"))
	w.mu.Lock()
	w.fail = errors.New("the disk is full")
	w.mu.Unlock()
	w.Deliver(t.Context())
	w.mu.Lock()
	w.fail = nil
	w.mu.Unlock()
	w.start()
	w.Deliver(t.Context())
	got, _ := r.events()
	if len(got) != 2 || got[0].ID != got[1].ID {
		t.Errorf("told %+v", got)
	}
	w.pass(time.Minute)
	w.Deliver(t.Context())
	if got, _ := r.events(); len(got) != 2 {
		t.Errorf("%d events", len(got))
	}
}

// Where a receiver may be is the guard's to say: the same one is told with a list that
// names its address, and not without.
func TestWhereReceiversAre(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		guard *outbound.Guard
		told  int
	}{
		"on the list": {outbound.New([]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}), 2},
		"no list":     {nil, 0},
		"another one": {outbound.New([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.cfg.Guard = c.guard
			w.start()
			r := newReceiver(t)
			w.pushTo(r, "")
			w.happen(suspended("payroll"))
			w.Deliver(t.Context())
			if got, asked := r.events(); (len(got) > 0) != (c.told > 0) || asked != len(got) {
				t.Errorf("%d events, asked %d times", len(got), asked)
			}
		})
	}
}
