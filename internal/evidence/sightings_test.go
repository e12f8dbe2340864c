package evidence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/counterfoil/counterfoil"
)

const window = 80 * time.Second

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// at is a sighting of an instance that many seconds after the start.
func at(seconds float64, instance, address string) counterfoil.Sighting {
	return counterfoil.Sighting{
		Entry: int64(seconds), At: start.Add(time.Duration(seconds * float64(time.Second))),
		Agent: "payroll", Instance: instance, JKT: "key-of-" + instance, Address: address,
	}
}

// foreign is a request of somebody else's with that instance's key.
func foreign(seconds float64, instance string) counterfoil.Sighting {
	s := at(seconds, instance, "192.0.2.9")
	s.Agent, s.Instance, s.Foreign = "thief", "ins_thief", true
	return s
}

func owner(jkt string) (agent, instance string, ok bool) {
	instance, ok = strings.CutPrefix(jkt, "key-of-")
	return "payroll", instance, ok && instance != "ins_ended"
}

func TestTwoPlaces(t *testing.T) {
	t.Parallel()
	const a, b = "192.0.2.1", "192.0.2.2"
	for _, c := range []struct {
		name string
		seen []counterfoil.Sighting
		want string // the times of each suspicion's two sightings
	}{
		{"one place, many times", []counterfoil.Sighting{at(0, "i", a), at(1, "i", a), at(2, "i", a), at(200, "i", a)}, ""},
		{"two places at once", []counterfoil.Sighting{at(0, "i", a), at(0, "i", b)}, "0-0"},
		{"two places, a second within the window", []counterfoil.Sighting{at(0, "i", a), at(79, "i", b)}, "0-79"},
		{"two places, just within the window", []counterfoil.Sighting{at(0, "i", a), at(79.999, "i", b)}, "0-79"},
		{"two places, the window apart", []counterfoil.Sighting{at(0, "i", a), at(80, "i", b)}, ""},
		{"and whoever else is seen meanwhile", []counterfoil.Sighting{at(-50, "j", a), at(0, "i", a), at(30, "j", a), at(80, "i", b)}, ""},
		{"two places, a second more apart", []counterfoil.Sighting{at(0, "i", a), at(81, "i", b)}, ""},
		{"a place that is stayed at is left when it was last seen", []counterfoil.Sighting{at(0, "i", a), at(60, "i", a), at(100, "i", b)}, "60-100"},
		{"and not when it was first seen", []counterfoil.Sighting{at(0, "i", a), at(20, "i", a), at(100, "i", b)}, ""},
		{"a clone in between", []counterfoil.Sighting{at(0, "i", a), at(1, "i", b), at(2, "i", a)}, "0-1 1-2"},
		{"three places", []counterfoil.Sighting{at(0, "i", a), at(1, "i", b), at(2, "i", "192.0.2.3")}, "0-1 1-2"},
		{"two instances in two places", []counterfoil.Sighting{at(0, "i", a), at(0, "j", b), at(1, "i", a), at(1, "j", b)}, ""},
		{"two instances, one of them cloned", []counterfoil.Sighting{at(0, "i", a), at(0, "j", b), at(1, "i", b), at(1, "j", b)}, "0-1"},
		{"an unknown place is none", []counterfoil.Sighting{at(0, "i", a), at(1, "i", ""), at(2, "i", "somewhere"), at(3, "i", a)}, ""},
		{"and does not hide one", []counterfoil.Sighting{at(0, "i", a), at(1, "i", ""), at(2, "i", b)}, "0-2"},
		{"two keys of one instance", []counterfoil.Sighting{at(0, "i", a), {At: start, Instance: "i", JKT: "bound", Address: b}}, "0-0"},
		{"another's key", []counterfoil.Sighting{foreign(5, "i")}, "-5"},
		{"another's key that was just seen", []counterfoil.Sighting{at(0, "i", a), foreign(5, "i")}, "0-5"},
		{"another's key that was seen long ago", []counterfoil.Sighting{at(0, "i", a), foreign(80, "i")}, "-80"},
		{"a key that opens nothing any more", []counterfoil.Sighting{foreign(5, "ins_ended")}, ""},
		{"another's key is no sighting of its instance's place", []counterfoil.Sighting{at(0, "i", a), foreign(1, "ins_ended"), at(2, "i", a)}, ""},
	} {
		w := newWatch(window, owner)
		var got []string
		for _, s := range c.seen {
			p, suspect := w.see(s)
			if !suspect {
				continue
			}
			first := ""
			if p.First.JKT != "" {
				first = fmt.Sprint(p.First.Entry)
			}
			got = append(got, fmt.Sprintf("%s-%d", first, p.Second.Entry))
			if p.Second != s || p.Agent == "thief" || p.Instance == "ins_thief" {
				t.Errorf("%s: the suspicion is %+v", c.name, p)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestPlaces(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"192.0.2.1", "::ffff:192.0.2.2", false},
		{"127.0.0.1", "::1", true},
		{"127.0.0.1", "127.0.0.2", false},
		{"::1", "127.0.0.2", false},
		{"127.0.0.1", "::ffff:127.0.0.1", true},
		{"127.0.0.1", "128.0.0.1", false},
		{"::1", "::2", false},
		{"2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"2001:db8::1", "192.0.2.1", false},
		{"fe80::1%eth0", "fe80::1", true},
		{"fe80::1", "fe80::2", false},
		{"10.0.0.1", "10.0.0.2", false},
	} {
		a, okA := placeOf(c.a)
		b, okB := placeOf(c.b)
		if !okA || !okB || (a == b) != c.same {
			t.Errorf("%s is %v, %s is %v", c.a, a, c.b, b)
		}
	}
	for _, unknown := range []string{"", "localhost", "192.0.2.1:443", "192.0.2.0/24"} {
		if p, known := placeOf(unknown); known {
			t.Errorf("%q is %v", unknown, p)
		}
	}
}

// What was seen a window ago is forgotten, whoever comes after it.
func TestWatchForgets(t *testing.T) {
	t.Parallel()
	w := newWatch(window, owner)
	most := 0
	for second := range 1000 {
		for i := range 5 { // five new instances a second
			w.see(at(float64(second), fmt.Sprintf("ins_%d_%d", second, i), "192.0.2.1"))
		}
		most = max(most, len(w.last))
	}
	if limit := 2 * 5 * int(window/time.Second); most > limit {
		t.Errorf("%d instances are remembered, at most %d were seen in two windows", most, limit)
	}
}

// scripted is a log, and an alarm that fails as often as it is told.
type scripted struct {
	seen   []counterfoil.Sighting
	lost   int         // times that it cannot be found where to begin
	broken map[int]int // times that following fails, by how many sightings were read then
	fail   int         // times that the alarm fails
	back   time.Duration
	begun  int     // times that following began anew
	judged []int64 // what it was told of
	told   []counterfoil.Suspicion
}

func (s *scripted) Begin(_ context.Context, back time.Duration) (int64, error) {
	if s.lost > 0 {
		s.lost--
		return 0, errors.New("the log cannot be read")
	}
	s.back, s.begun = back, s.begun+1
	return 0, nil
}

func (s *scripted) Judged(next int64) { s.judged = append(s.judged, next) }

func (s *scripted) Follow(ctx context.Context, from int64, fn func(counterfoil.Sighting) error) error {
	for i := range len(s.seen) + 1 {
		if s.broken[i] > 0 {
			s.broken[i]--
			return errors.New("the log cannot be read")
		}
		if i == len(s.seen) || s.seen[i].Entry < from {
			continue
		}
		if err := fn(s.seen[i]); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

func (s *scripted) ProofKey(jkt string) (string, string, bool) { return owner(jkt) }

func (s *scripted) Suspect(_ context.Context, p counterfoil.Suspicion) (bool, error) {
	if s.fail > 0 {
		s.fail--
		return false, errors.New("the ledger takes nothing")
	}
	s.told = append(s.told, p)
	return len(s.told) == 1, nil
}

// What cannot be recorded, or read, is tried again until it can, from where it
// failed and with what was seen before: however old that is by then.
func TestSightingsTryAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		lost   int
		broken map[int]int
		fail   int
		after  time.Duration
	}{
		{"all is well", 0, nil, 0, 0},
		{"the ledger is full for a while", 0, nil, 3, 3 * pause},
		{"the log cannot be read at first", 2, nil, 0, 2 * pause},
		{"the log cannot be read between the two sightings", 0, map[int]int{1: 3}, 0, 3 * pause},
		{"the log cannot be read after them", 0, map[int]int{2: 2}, 0, 2 * pause},
		{"one thing after the other", 1, map[int]int{0: 1, 1: 1, 2: 1, 3: 1}, 1, 6 * pause},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// Long after the two, an instance is seen that nobody suspects.
				log := &scripted{
					seen: []counterfoil.Sighting{at(0, "i", "192.0.2.1"), at(1, "i", "192.0.2.2"), at(10000, "j", "192.0.2.1")},
					lost: c.lost, broken: c.broken, fail: c.fail,
				}
				raised := 0
				s := NewSightings(Config{
					Log: log, Keys: log, Alarm: log, Window: window, Raised: func() { raised++ }, Logger: slog.New(slog.DiscardHandler),
				})
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan struct{})
				go func() { s.Run(ctx); close(ended) }()
				<-time.After(c.after)
				synctest.Wait()
				if len(log.told) != 1 || raised != 1 || log.told[0].First.Entry != 0 || log.told[0].Second.Entry != 1 {
					t.Errorf("told of %+v, %d were news", log.told, raised)
				}
				if log.back != 2*window || log.begun != 1 {
					t.Errorf("begun %d times, %v back", log.begun, log.back)
				}
				if !slices.Equal(log.judged, []int64{1, 2, 10001}) {
					t.Errorf("judged is what is before %v", log.judged)
				}
				stop()
				<-ended
			})
		})
	}
}

// The end does not wait for a ledger that takes nothing.
func TestSightingsEndWhileTheyTryAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &scripted{seen: []counterfoil.Sighting{foreign(0, "i")}, fail: 1 << 30}
		s := NewSightings(Config{Log: log, Keys: log, Alarm: log, Window: window, Logger: slog.New(slog.DiscardHandler)})
		ctx, stop := context.WithTimeout(t.Context(), 10*pause)
		defer stop()
		s.Run(ctx)
		if tried := 1<<30 - log.fail; tried < 9 || tried > 11 {
			t.Errorf("tried %d times in %d seconds", tried, 10)
		}
		if len(log.judged) != 0 {
			t.Errorf("what is not recorded counts as judged: %v", log.judged)
		}
	})
}
