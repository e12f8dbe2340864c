package daemon

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestACertificateIsReadBeforeReady: a node that opens can serve, so a program
// that prints "ready" after Open says what is true.
func TestACertificateIsReadBeforeReady(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		public Listener
		says   string
	}{
		{"none is needed", Listener{URL: "http://localhost:0"}, ""},
		{"it is missing", Listener{URL: "https://localhost:0", TLS: TLS{Cert: "missing.pem", Key: "missing.key"}}, "reading the certificate of public"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := Config{Dev: true, Data: filepath.Join(t.TempDir(), "data"), Public: c.public, Management: Listener{URL: "http://localhost:0"}}
			d, err := Open(t.Context(), cfg, Options{Log: slog.New(slog.DiscardHandler)})
			if err == nil {
				if cerr := d.Close(); cerr != nil {
					t.Errorf("closing: %v", cerr)
				}
			}
			switch {
			case c.says == "" && err != nil:
				t.Errorf("it does not open: %v", err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
				t.Errorf("want an error with %q: %v", c.says, err)
			}
		})
	}
}

// TestAFirstStartThatFailedBeginsAtTheNext: the key is made before the log. A
// start that got no further leaves a folder that has had no log, and the log's
// first entry makes it one that has.
func TestAFirstStartThatFailedBeginsAtTheNext(t *testing.T) {
	t.Parallel()
	data, elsewhere := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "elsewhere")
	local := Listener{URL: "http://localhost:0"}
	cfg := Config{Dev: true, Data: data, Public: local, Management: local, Storage: "sqlite:" + filepath.Join(elsewhere, "s.db")}
	start := func() error {
		d, err := Open(t.Context(), cfg, Options{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		return d.Close()
	}
	if err := start(); err == nil || !strings.Contains(err.Error(), "make it first") {
		t.Fatalf("without a folder for the database: %v", err)
	}
	if err := os.Mkdir(elsewhere, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := start(); err != nil {
		t.Fatalf("with it: %v", err)
	}
	if _, err := os.Stat(filepath.Join(data, newLogKey)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the log has entries, and its key says that it has none: %v", err)
	}
	if err := os.RemoveAll(elsewhere); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(elsewhere, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(data, "checkpoint")); err != nil {
		t.Fatal(err)
	}
	if err := start(); err == nil || !strings.Contains(err.Error(), "the ledger is gone") {
		t.Errorf("without the database and its checkpoint: %v", err)
	}
}

// TestMetricsOfTheLedger: an operator sees what the ledger takes and what it
// does not.
func TestMetricsOfTheLedger(t *testing.T) {
	t.Parallel()
	local := Listener{URL: "http://localhost:0"}
	cfg := Config{Dev: true, Data: filepath.Join(t.TempDir(), "data"), Public: local, Management: local,
		Checkpoints: []string{"file:" + filepath.Join(t.TempDir(), "missing", "checkpoint")}}
	d, err := Open(t.Context(), cfg, Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+d.cfg.Metrics.Listen+"/metrics", nil)
	d.handlers.Metrics.ServeHTTP(w, r)
	for _, line := range []string{
		"counterfoil_ledger_entries 2", "counterfoil_ledger_decisions_total 2", "counterfoil_ledger_batches_total 2",
		"counterfoil_ledger_failures_total 0", "counterfoil_checkpoint_failures_total ", "counterfoil_sightings_overflows_total 0",
	} {
		if !strings.Contains(w.Body.String(), "\n"+line) {
			t.Errorf("no line %q", line)
		}
	}
	if t.Failed() {
		t.Log(w.Body.String())
	}
}
