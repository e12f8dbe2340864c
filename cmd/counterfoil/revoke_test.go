package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
)

// A socket is an admin socket of a test's own, and the app that speaks to it.
func newSocket(t *testing.T, h http.Handler) (*app, *bytes.Buffer, *bytes.Buffer) {
	t.Helper()
	dir, err := os.MkdirTemp("", "cf") // a socket's path has few characters
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ln, err := net.Listen("unix", filepath.Join(dir, "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: ln, Config: &http.Server{Handler: h}}
	srv.Start()
	t.Cleanup(srv.Close)
	var out, errs bytes.Buffer
	return &app{streams: streams{strings.NewReader(""), &out, &errs}, data: dir}, &out, &errs
}

// TestReceiptIsToldAsItComes: each enforcement point once, in the order in which it
// stopped, and whoever was not heard from by name.
func TestReceiptIsToldAsItComes(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 2, 12, 0, 0, 0, time.UTC)
	looks := []receipt{
		{Points: []point{{Name: "gateway", Kind: "gateway"}, {Name: "clerk/ins_1", Kind: "server"}, {Name: "idp", Kind: "signals"}}},
		{Points: []point{{Name: "gateway", Kind: "gateway", Stopped: at, LatencyUS: 3200, Streams: 2}, {Name: "clerk/ins_1", Kind: "server"}, {Name: "idp", Kind: "signals"}}},
		{Points: []point{{Name: "gateway", Kind: "gateway", Stopped: at, LatencyUS: 3200, Streams: 2}, {Name: "clerk/ins_1", Kind: "server", Stopped: at, LatencyUS: 412}, {Name: "idp", Kind: "signals"}}},
		{Points: []point{{Name: "gateway", Kind: "gateway", Stopped: at, LatencyUS: 3200, Streams: 2}, {Name: "clerk/ins_1", Kind: "server", Stopped: at, LatencyUS: 412}, {Name: "idp", Kind: "signals", Stopped: at, LatencyUS: 61_000_000}}},
	}
	const told = "gateway stopped accepting after 3 ms, cut 2 streams\nserver clerk/ins_1 stopped accepting after 412 µs\n"
	for _, tc := range []struct {
		name      string
		have      int // looks until nothing new comes
		wait      time.Duration
		json      bool
		out, errs string
		target    counterfoil.Target
	}{
		{name: "all of them", have: 4, wait: counterfoiltest.Timeout, out: told + "signals idp was told after 1m1s\n"},
		{name: "one is missing", have: 3, wait: 400 * time.Millisecond, out: told, errs: "not heard from yet: idp; counterfoil revoke show 7 tells later"},
		{name: "no waiting", have: 1, out: "", errs: "not heard from yet: gateway, clerk/ins_1, idp;"},
		{name: "for a program", have: 4, wait: counterfoiltest.Timeout, json: true},
		{name: "a person without agents", have: 4, wait: counterfoiltest.Timeout, target: counterfoil.Target{Kind: counterfoil.TargetPerson, ID: "bo"}, out: told + "signals idp was told after 1m1s\n"},
		{name: "a person without agents, no waiting", have: 1, target: counterfoil.Target{Kind: counterfoil.TargetPerson, ID: "bo"}, errs: "not heard from yet: gateway, clerk/ins_1, idp;"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if tc.target.Kind == "" {
				tc.target = counterfoil.Target{Kind: counterfoil.TargetAgent, ID: "payroll"}
			}
			var mu sync.Mutex
			var asked int
			var body string
			a, out, errs := newSocket(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				if r.Method == http.MethodPost && r.URL.Path == "/api/v1/revocations" {
					b, _ := io.ReadAll(r.Body)
					body = string(b)
					fmt.Fprint(w, `{"index":7,"voided":{"tokens":["tok_1"],"tasks":["tsk_1"],"codes":1}}`)
					return
				}
				if r.URL.Path != "/api/v1/revocations/7" {
					t.Errorf("asked for %s", r.URL)
				}
				look := looks[min(asked, tc.have-1)]
				look.Index, look.Target = 7, tc.target
				asked++
				b, err := ijson.Marshal(look)
				if err != nil {
					t.Error(err)
				}
				_, _ = w.Write(b)
			}))
			a.json = tc.json
			if err := a.revoke(t.Context(), tc.target, "laptop stolen", tc.wait); err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf(`{"id":%q,"kind":%q,"reason":"laptop stolen"}`, tc.target.ID, tc.target.Kind); body != want {
				t.Errorf("it sent %s", body)
			}
			if tc.json {
				if s := out.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, `"latency_us":61000000`) || !strings.Contains(s, `"index":7`) {
					t.Errorf("%s", s)
				}
				return
			}
			want := fmt.Sprintf("revoked %s, in force with entry 7\n  tokens  tok_1\n  tasks   tsk_1\n  codes   1 enrolment code that nobody had used\n", tc.target) + tc.out
			if out.String() != want {
				t.Errorf("it said\n%swant\n%s", out, want)
			}
			if !strings.HasPrefix(errs.String(), tc.errs) || tc.errs == "" && errs.Len() > 0 {
				t.Errorf("beside it: %s", errs)
			}
		})
	}
}

// TestRevocationWithoutAReceipt: who cannot be told when has to know that it is done.
func TestRevocationWithoutAReceipt(t *testing.T) {
	t.Parallel()
	a, _, _ := newSocket(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			fmt.Fprint(w, `{"index":7,"voided":{}}`)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	err := a.revoke(t.Context(), counterfoil.Target{Kind: counterfoil.TargetKey, ID: "x"}, "y", time.Second)
	if err == nil || !strings.Contains(err.Error(), "it is revoked") || !strings.Contains(err.Error(), "revoke show 7") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.awaitReceipt(ctx, 7, time.Minute); err == nil {
		t.Error("an interrupt ends no wait")
	}
}

// TestEveryKindIsRevoked: each kind that there is has its command, with its own words.
func TestEveryKindIsRevoked(t *testing.T) {
	t.Parallel()
	for _, kind := range counterfoil.TargetKinds() {
		a, out, _ := newSocket(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			if !strings.Contains(string(b), fmt.Sprintf(`"kind":%q`, kind)) {
				t.Errorf("%s: it sent %s", kind, b)
			}
			fmt.Fprint(w, `{"index":-1,"voided":{}}`)
		}))
		var errs bytes.Buffer
		code := run(t.Context(), []string{"revoke", string(kind), "x1", "--reason", "y", "--data", a.data}, streams{strings.NewReader(""), out, &errs})
		if want := fmt.Sprintf("%s x1 was revoked before; nothing was left to take\n", kind); code != exitDone || out.String() != want {
			t.Errorf("%s: %d %s%s", kind, code, out, &errs)
		}
	}
	if len(targets) != len(counterfoil.TargetKinds()) {
		t.Errorf("%d commands for %d kinds", len(targets), len(counterfoil.TargetKinds()))
	}
}

// TestASecretIsNoArgument: what would be in a process list is not taken, nor repeated.
func TestASecretIsNoArgument(t *testing.T) {
	t.Parallel()
	const secret = "eyJhbGciOiJFUzI1NiJ9.e30.c2ln"
	for _, args := range [][]string{
		{"revoke", "token", secret, "--reason", "x"},
		{"leaked", secret, "--issuer", "http://localhost:1"},
		{"leaked", "-", secret, "--issuer", "http://localhost:1"},
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), args, streams{strings.NewReader(""), &out, &errs}); code != exitUsage || strings.Contains(out.String()+errs.String(), secret) {
			t.Errorf("%v: %d %s%s", args, code, &out, &errs)
		}
	}
}

func TestLasted(t *testing.T) {
	t.Parallel()
	for us, want := range map[int64]string{0: "0 µs", 999: "999 µs", 1000: "1 ms", 3999: "3 ms", 9_999_999: "9999 ms", 10_000_000: "10s", 61_000_000: "1m1s"} {
		if got := lasted(us); got != want {
			t.Errorf("%d: %s, want %s", us, got, want)
		}
	}
}
