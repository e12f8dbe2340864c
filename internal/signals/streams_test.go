package signals_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/signals"
	"github.com/counterfoil/counterfoil/ledger"
)

const pushURL = "https://watch.example/events"

func pushing(w *world, urls ...string) {
	w.declare(func(r *counterfoil.Registry) { r.Agents["watch"].Signals = &counterfoil.Signals{Push: urls} })
}

func TestCreate(t *testing.T) {
	t.Parallel()
	secret := func(s string) counterfoil.Secret { return counterfoil.NewSecret(s) }
	for _, c := range []struct {
		name string
		who  string
		wish signals.Wish
		code counterfoil.Code
	}{
		{"poll, when nothing is said", "watch", signals.Wish{}, ""},
		{"poll", "watch", signals.Wish{Method: counterfoil.DeliveryPoll, Endpoint: "https://ignored.example"}, ""},
		{"push", "watch", signals.Wish{Method: counterfoil.DeliveryPush, Endpoint: pushURL, Authorization: secret("Bearer x")}, ""},
		{"an agent without signals", "payroll", signals.Wish{}, counterfoil.PolicyForbids},
		{"an agent that is not there", "ghost", signals.Wish{}, counterfoil.PolicyForbids},
		{"push to where the manifest does not say", "watch", signals.Wish{Method: counterfoil.DeliveryPush, Endpoint: pushURL + "/x"}, counterfoil.PolicyForbids},
		{"push to the metadata service", "watch", signals.Wish{Method: counterfoil.DeliveryPush, Endpoint: "http://169.254.169.254/"}, counterfoil.PolicyForbids},
		{"push to nowhere", "watch", signals.Wish{Method: counterfoil.DeliveryPush}, counterfoil.PolicyForbids},
		{"another method", "watch", signals.Wish{Method: "urn:ietf:rfc:9999"}, counterfoil.RequestMalformed},
		{"a secret for polling", "watch", signals.Wish{Authorization: secret("x")}, counterfoil.RequestMalformed},
		{"a secret with a line break", "watch", signals.Wish{Method: counterfoil.DeliveryPush, Endpoint: pushURL, Authorization: secret("a\r\nX: y")}, counterfoil.RequestMalformed},
		{"a secret of 2000 bytes", "watch", signals.Wish{Method: counterfoil.DeliveryPush, Endpoint: pushURL, Authorization: secret(strings.Repeat("x", 2000))}, counterfoil.RequestMalformed},
		{"a long description", "watch", signals.Wish{Describe: strings.Repeat("x", 256)}, counterfoil.RequestMalformed},
		{"an event without a name", "watch", signals.Wish{Request: []string{""}}, counterfoil.RequestMalformed},
		{"33 events", "watch", signals.Wish{Request: make([]string, 33)}, counterfoil.RequestMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			pushing(w, pushURL)
			_, err := w.Create(t.Context(), counterfoil.Caller{Agent: c.who}, c.wish)
			wantCode(t, c.name, err, c.code)
			if all, _ := w.Streams(t.Context()); (len(all) == 1) != (c.code == "") || len(w.of(ledger.StreamChanged)) != len(all) {
				t.Errorf("%d streams, %d entries", len(all), len(w.of(ledger.StreamChanged)))
			}
		})
	}
}

// An agent has one stream, and its secret is in no entry, no log line, no record and no
// answer as it was given.
func TestOneStreamAndItsSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pushing(w, pushURL, pushURL+"2")
	s := w.create(signals.Wish{Method: counterfoil.DeliveryPush, Endpoint: pushURL, Authorization: counterfoil.NewSecret("Bearer s3cr3t")})
	if _, err := w.Create(t.Context(), watch, signals.Wish{}); !errors.Is(err, signals.ErrSecondStream) {
		t.Errorf("a second stream: %v", err)
	}
	w.mu.Lock()
	all := append(bytes.Join(w.entries, nil), w.logged.Bytes()...)
	all = append(all, fmt.Sprintf("%+v", w.streams)...)
	w.mu.Unlock()
	if bytes.Contains(all, []byte("s3cr3t")) {
		t.Error("the receiver's secret can be read")
	}
	change := func(edit func(w *signals.Wish, keep *bool)) counterfoil.SignalStream {
		t.Helper()
		s, err := w.Change(t.Context(), watch, s.ID, func(wish *signals.Wish, keep *bool) error { edit(wish, keep); return nil })
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if got := change(func(w *signals.Wish, keep *bool) { w.Describe, *keep = "mine", true }); string(got.Sealed) != string(s.Sealed) || got.Describe != "mine" {
		t.Errorf("after another description: %+v", got)
	}
	// A secret that was given for one place goes to no other.
	if got := change(func(w *signals.Wish, keep *bool) { w.Endpoint, *keep = pushURL+"2", true }); got.Sealed != nil {
		t.Error("another endpoint gets the secret")
	}
	_, err := w.Change(t.Context(), watch, s.ID, func(w *signals.Wish, _ *bool) error { w.Endpoint = "https://evil.example"; return nil })
	wantCode(t, "a change to where the manifest does not say", err, counterfoil.PolicyForbids)
	_, err = w.Change(t.Context(), counterfoil.Caller{Agent: "payroll"}, s.ID, func(*signals.Wish, *bool) error { return nil })
	wantCode(t, "a change by an agent without signals", err, counterfoil.PolicyForbids)
	w.declare(func(r *counterfoil.Registry) { r.Agents["payroll"].Signals = &counterfoil.Signals{} })
	for name, try := range map[string]func() error{
		"read": func() error {
			_, err := w.StreamOf(t.Context(), counterfoil.Caller{Agent: "payroll"}, s.ID)
			return err
		},
		"delete": func() error { return w.Delete(t.Context(), counterfoil.Caller{Agent: "payroll"}, s.ID) },
		"status": func() error {
			_, err := w.SetStatus(t.Context(), counterfoil.Caller{Agent: "payroll"}, s.ID, counterfoil.StreamPaused, "")
			return err
		},
		"verify": func() error { return w.Verify(t.Context(), counterfoil.Caller{Agent: "payroll"}, s.ID, nil) },
	} {
		wantCode(t, name+" by another agent", try(), counterfoil.ToolUnknown)
	}
	wantCode(t, "delete without an id", w.Delete(t.Context(), watch, ""), counterfoil.ToolUnknown)
	wantCode(t, "delete", w.Delete(t.Context(), watch, s.ID), "")
	if _, err := w.Create(t.Context(), watch, signals.Wish{}); err != nil {
		t.Errorf("after the deletion: %v", err)
	}
}

// What comes while a stream is paused is held, what comes while it is disabled is gone,
// and the stream is told of both.
func TestStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.create(signals.Wish{})
	to := func(status counterfoil.StreamStatus, reason string) {
		t.Helper()
		if _, err := w.SetStatus(t.Context(), watch, s.ID, status, reason); err != nil {
			t.Fatal(err)
		}
	}
	take := func(want string) []told {
		t.Helper()
		got := w.read(w.poll(s.ID, signals.PollRequest{}).Sets)
		if words(got) != want {
			t.Errorf("told %q, want %q", words(got), want)
		}
		w.poll(s.ID, signals.PollRequest{Ack: ids(got)})
		return got
	}
	w.happen(taskClosed("tsk_1"))
	to(counterfoil.StreamPaused, "maintenance")
	w.happen(taskClosed("tsk_2"))
	w.start()
	if got := take("stream-updated"); got[0].Payload["status"] != "paused" || got[0].Payload["reason"] != "maintenance" || got[0].Subject != `{"format":"opaque","id":"`+s.ID+`"}` {
		t.Errorf("told %+v", got)
	}
	to(counterfoil.StreamEnabled, "")
	take("session-revoked session-revoked stream-updated")

	w.happen(taskClosed("tsk_3"))
	to(counterfoil.StreamDisabled, "")
	w.happen(taskClosed("tsk_4"))
	take("stream-updated")
	wantCode(t, "verification while disabled", w.Verify(t.Context(), watch, s.ID, nil), counterfoil.RequestMalformed)
	to(counterfoil.StreamEnabled, "")
	w.happen(taskClosed("tsk_5"))
	take("stream-updated session-revoked")

	_, err := w.SetStatus(t.Context(), watch, s.ID, "off", "")
	wantCode(t, "an unknown status", err, counterfoil.RequestMalformed)
	_, err = w.SetStatus(t.Context(), watch, s.ID, counterfoil.StreamPaused, "a\nb")
	wantCode(t, "a reason of two lines", err, counterfoil.RequestMalformed)
	before := len(w.of(ledger.StreamChanged))
	to(counterfoil.StreamEnabled, "")
	if after := len(w.of(ledger.StreamChanged)); after != before {
		t.Error("a status that is there already is a change")
	}
}

// Nothing of the time while a stream was disabled is told, also to a receiver that did
// not ask meanwhile.
func TestDisabledHoldsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.create(signals.Wish{})
	w.happen(taskClosed("tsk_1"))
	for _, status := range []counterfoil.StreamStatus{counterfoil.StreamDisabled, counterfoil.StreamEnabled} {
		if _, err := w.SetStatus(t.Context(), watch, s.ID, status, ""); err != nil {
			t.Fatal(err)
		}
		w.happen(taskClosed("tsk_" + string(status)))
	}
	got := w.read(w.poll(s.ID, signals.PollRequest{}).Sets)
	if words(got) != "stream-updated session-revoked" || got[0].Payload["status"] != "enabled" || !strings.Contains(got[1].Subject, "tsk_enabled") {
		t.Errorf("told %+v", got)
	}
}

// What a stream is told about itself no other one is told.
func TestOneStreamsOwnEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.declare(func(r *counterfoil.Registry) { r.Agents["payroll"].Signals = &counterfoil.Signals{} })
	mine := w.create(signals.Wish{})
	other := counterfoil.Caller{Agent: "payroll"}
	theirs, err := w.Create(t.Context(), other, signals.Wish{})
	if err != nil {
		t.Fatal(err)
	}
	state := "a state of theirs"
	wantCode(t, "verification", w.Verify(t.Context(), other, theirs.ID, &state), "")
	if got := w.poll(mine.ID, signals.PollRequest{}); len(got.Sets) != 0 {
		t.Errorf("told %+v", w.read(got.Sets))
	}
	got, err := w.Poll(t.Context(), other, theirs.ID, signals.PollRequest{ReturnImmediately: true})
	if err != nil || len(got.Sets) != 1 {
		t.Errorf("control: %d events, %v", len(got.Sets), err)
	}
}

func TestVerification(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.create(signals.Wish{})
	state := "VGhpcw"
	wantCode(t, "control", w.Verify(t.Context(), watch, s.ID, &state), "")
	wantCode(t, "again at once", w.Verify(t.Context(), watch, s.ID, &state), counterfoil.RateLimited)
	long := strings.Repeat("x", 257)
	w.pass(signals.MinVerification)
	wantCode(t, "a long state", w.Verify(t.Context(), watch, s.ID, &long), counterfoil.RequestMalformed)
	wantCode(t, "without a state", w.Verify(t.Context(), watch, s.ID, nil), "")
	got := w.read(w.poll(s.ID, signals.PollRequest{}).Sets)
	if words(got) != "verification verification" || got[0].Payload["state"] != state {
		t.Fatalf("told %+v", got)
	}
	if _, has := got[1].Payload["state"]; has {
		t.Error("a state that nobody gave")
	}
}

// The stream of an agent that is offboarded ends with it.
func TestOffboardedAgentsStreamEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.create(signals.Wish{})
	w.Deliver(t.Context())
	if all, _ := w.Streams(t.Context()); len(all) != 1 {
		t.Fatal("control: the stream is gone")
	}
	w.set("watch", counterfoil.Offboarded)
	w.declare(func(r *counterfoil.Registry) { delete(r.Agents, "watch") })
	w.Deliver(t.Context())
	changes := w.of(ledger.StreamChanged)
	if all, _ := w.Streams(t.Context()); len(all) != 0 || changes[len(changes)-1].Detail["change"] != "deleted" || changes[len(changes)-1].Detail["stream"] != s.ID {
		t.Errorf("%d streams; %+v", len(all), changes)
	}
}
