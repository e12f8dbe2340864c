package daemon

import (
	"log/slog"
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
