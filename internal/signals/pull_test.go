package signals_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A source is a transmitter that is polled (RFC 8936): it sends what is not
// acknowledged.
type source struct {
	*httptest.Server
	mu    sync.Mutex
	sets  map[string]string
	errs  map[string]string
	asked int
	auth  string
	down  bool
}

func newSource(t *testing.T) *source {
	t.Helper()
	s := &source{sets: map[string]string{}, errs: map[string]string{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			MaxEvents *int
			Ack       []string
			SetErrs   map[string]struct{ Err, Description string }
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked++
		s.auth = r.Header.Get("Authorization")
		if s.down || r.Method != http.MethodPost || json.NewDecoder(r.Body).Decode(&body) != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		for _, id := range body.Ack {
			delete(s.sets, id)
		}
		for id, e := range body.SetErrs {
			s.errs[id] = e.Err
			delete(s.sets, id)
		}
		out := map[string]string{}
		for id, set := range s.sets {
			if body.MaxEvents == nil || len(out) < *body.MaxEvents {
				out[id] = set
			}
		}
		if err := json.NewEncoder(w).Encode(map[string]any{"sets": out}); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *source) have() (left []string, errs map[string]string, asked int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.sets {
		left = append(left, id)
	}
	slices.Sort(left)
	return left, s.errs, s.asked
}

func TestPull(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	w := hears(t, func(tr *counterfoil.Transmitter) { tr.Poll, tr.Token = s.URL+"/poll", "idp-token" })
	s.sets["e1"] = signed(t, idpKey(), nil, event("e1"))
	s.sets["e2"] = signed(t, thief(), nil, event("e2"))
	s.sets["e3"] = signed(t, idpKey(), nil, event("e4")) // listed as another
	s.sets["e5"] = signed(t, idpKey(), nil, event("e5").with("aud", "https://other.example"))
	w.Pull(t.Context())
	left, errs, asked := s.have()
	if len(left) != 0 || errs["e2"] != "invalid_key" || errs["e3"] != "invalid_request" || errs["e5"] != "invalid_audience" || len(errs) != 3 {
		t.Errorf("left %v, errors %v", left, errs)
	}
	if len(w.revoked) != 1 || len(w.of(ledger.SignalReceived)) != 1 {
		t.Errorf("%d revocations, %d entries", len(w.revoked), len(w.of(ledger.SignalReceived)))
	}
	if s.auth != "Bearer content of idp-token" {
		t.Errorf("Authorization %q", s.auth)
	}
	w.Pull(t.Context())
	if _, _, again := s.have(); again != asked {
		t.Error("it is polled again at once")
	}
	w.pass(5 * time.Second)
	w.Pull(t.Context())
	if _, _, again := s.have(); again != asked+1 {
		t.Error("it is not polled five seconds later")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if strings.Contains(w.logged.String(), "idp-token") {
		t.Error("the log holds the token")
	}
}

// What could not be obeyed is not acknowledged, and a transmitter that is down is asked
// later and later.
func TestPullThatFails(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	w := hears(t, func(tr *counterfoil.Transmitter) { tr.Poll = s.URL })
	s.sets["e1"] = signed(t, idpKey(), nil, event("e1"))
	s.sets["e2"] = signed(t, idpKey(), nil, event("e2").that("https://example.com/x", said{}))
	w.failRev = errors.New("the disk is full")
	w.Pull(t.Context())
	if left, errs, _ := s.have(); !slices.Equal(left, []string{"e1"}) || len(errs) != 0 {
		t.Errorf("left %v, errors %v", left, errs)
	}
	w.failRev = nil
	w.pass(time.Second)
	w.Pull(t.Context())
	if left, _, _ := s.have(); len(left) != 0 || len(w.revoked) != 1 {
		t.Errorf("left %v, %d revocations", left, len(w.revoked))
	}
	s.mu.Lock()
	s.down = true
	s.mu.Unlock()
	w.pass(time.Minute)
	_, _, asked := s.have()
	for _, wait := range []time.Duration{1, 2, 4, 8} {
		w.Pull(t.Context())
		w.pass(wait*time.Second - time.Millisecond)
		w.Pull(t.Context())
		w.pass(time.Millisecond)
		asked++
		if _, _, n := s.have(); n != asked {
			t.Fatalf("asked %d times, want %d", n, asked)
		}
	}
}
