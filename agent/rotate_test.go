package agent_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/credential"
)

func (o *office) rotation(path string) agent.RotateConfig {
	return agent.RotateConfig{Issuer: o.w.issuer, Agent: "payroll", Path: path, HTTP: o.w.srv.Client(), Now: func() time.Time { return o.w.now() }}
}

func gone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is there: %v", path, err)
	}
}

func TestRotate(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		alg     string
		overlap time.Duration
		oldWork bool
	}{
		"at once":           {"", 0, false},
		"with an overlap":   {"", time.Minute, true},
		"another algorithm": {credential.Ed25519, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t)
			path, old := o.keyFile(t)
			kept := filepath.Join(t.TempDir(), "kept")
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(kept, before, 0o600); err != nil {
				t.Fatal(err)
			}
			if !o.works(t, path) {
				t.Fatal("the control: the key does not work")
			}
			c := o.rotation(path)
			c.Alg, c.Overlap = tc.alg, tc.overlap
			r, err := agent.Rotate(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			now, err := agent.LoadKey(path)
			if err != nil {
				t.Fatal(err)
			}
			if r.JKT != now.Public().Thumbprint() || r.Previous.JKT != old.Public().Thumbprint() || r.JKT == r.Previous.JKT || r.Instance != "ins_1" {
				t.Errorf("%+v", r)
			}
			want := tc.alg
			if want == "" {
				want = old.Public().Alg()
			}
			if now.Public().Alg() != want {
				t.Errorf("the new key is for %s", now.Public().Alg())
			}
			gone(t, agent.NewKeyPath(path))
			if !o.works(t, path) {
				t.Error("the new key does not work")
			}
			if o.works(t, kept) != tc.oldWork {
				t.Errorf("the old key works: %v", !tc.oldWork)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".cf*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestRotateSurvives: wherever it ends, one of the files works, and the same call
// again finishes.
func TestRotateSurvives(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		ends  func(o *office)
		first bool // the first call succeeds already
		taken bool // the issuer has the new key after the first call
	}{
		"control":                       {func(*office) {}, true, true},
		"the answer is lost":            {func(o *office) { o.lose = "/rotate" }, true, true}, // and asked for at once
		"a fault before it was done":    {func(o *office) { o.fault = 503 }, false, false},
		"the issuer is away afterwards": {func(o *office) { o.lose = "/rotate"; o.w.onToken = o.awayFrom(2) }, false, true},
	} {
		for _, overlap := range []time.Duration{0, time.Minute} {
			t.Run(name+", "+overlap.String(), func(t *testing.T) {
				t.Parallel()
				o := newOffice(t)
				path, old := o.keyFile(t)
				tc.ends(o)
				c := o.rotation(path)
				c.Overlap = overlap
				_, err := agent.Rotate(t.Context(), c)
				if (err == nil) != tc.first {
					t.Fatalf("the first call: %v", err)
				}
				o.w.onToken = nil
				if !o.works(t, path) && !o.works(t, agent.NewKeyPath(path)) {
					t.Fatal("no file works")
				}
				if err != nil {
					if o.works(t, agent.NewKeyPath(path)) != tc.taken {
						t.Errorf("the new key works: %v", !tc.taken)
					}
					r, err := agent.Rotate(t.Context(), c)
					if err != nil {
						t.Fatalf("the second call: %v", err)
					}
					if r.Previous.JKT != old.Public().Thumbprint() {
						t.Errorf("%+v", r)
					}
				}
				gone(t, agent.NewKeyPath(path))
				now, err := agent.LoadKey(path)
				if err != nil || now.Public().Thumbprint() == old.Public().Thumbprint() || !o.works(t, path) {
					t.Errorf("the new key is not in its place: %v", err)
				}
			})
		}
	}
}

// A key that the issuer refuses is not kept, and the old one stays.
func TestRotateRefused(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	path, old := o.keyFile(t)
	o.refuse = counterfoil.RequestMalformed
	_, err := agent.Rotate(t.Context(), o.rotation(path))
	wantCode(t, err, counterfoil.RequestMalformed)
	gone(t, agent.NewKeyPath(path))
	if now, err := agent.LoadKey(path); err != nil || now.Public().Thumbprint() != old.Public().Thumbprint() || !o.works(t, path) {
		t.Errorf("the old key: %v", err)
	}
	o.w.mu.Lock()
	delete(o.w.keys, old.Public().Thumbprint())
	o.w.mu.Unlock()
	_, err = agent.Rotate(t.Context(), o.rotation(path))
	wantCode(t, err, counterfoil.ClientRefused)
	gone(t, agent.NewKeyPath(path))
}

// Two at once end with one key, in the file and at the issuer.
func TestRotateTwiceAtOnce(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	path, _ := o.keyFile(t)
	var all sync.WaitGroup
	errs := make([]error, 2)
	for i := range errs {
		all.Go(func() { _, errs[i] = agent.Rotate(t.Context(), o.rotation(path)) })
	}
	all.Wait()
	if errs[0] != nil && errs[1] != nil {
		t.Errorf("neither went through: %v; %v", errs[0], errs[1])
	}
	if !o.works(t, path) && !o.works(t, agent.NewKeyPath(path)) {
		t.Error("no file works")
	}
}
