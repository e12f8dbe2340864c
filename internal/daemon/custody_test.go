package daemon

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A credentialed is a daemon whose upstreams have credentials.
type credentialed struct {
	*Daemon
	t   *testing.T
	log *bytes.Buffer
}

func openWith(t *testing.T, data string) *credentialed {
	t.Helper()
	log := new(bytes.Buffer)
	cfg := Config{Dev: true, Data: data, Public: Listener{URL: "http://localhost:0"}, Management: Listener{URL: "http://localhost:0"}}
	d, err := Open(t.Context(), cfg, Options{Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return &credentialed{d, t, log}
}

func (d *credentialed) put(name, secret string) error {
	return d.custody.Put(d.t.Context(), name, counterfoil.NewSecret(secret), "uid:0")
}

// wantReleased wants a secret of a resource, or an error that says something.
func (d *credentialed) wantReleased(c counterfoil.UpstreamCredential, secret, says string) {
	d.t.Helper()
	c.Header = "Authorization"
	r, err := d.custody.Release(d.t.Context(), &counterfoil.Resource{Name: "crm", Credential: &c})
	switch {
	case says == "" && (err != nil || r.Secret.Reveal() != secret):
		d.t.Errorf("released is %q, %v; want %q", r.Secret.Reveal(), err, secret)
	case says != "" && (err == nil || !strings.Contains(err.Error(), says)):
		d.t.Errorf("it is released, or for another reason not: %v", err)
	}
}

const storedCanary = "canary-stored-7fb9e1"

// TestCredentialsAreSealedAtRest: neither the database nor anything beside it shows a
// stored credential, and a row opens under its own name and key-encryption key alone.
func TestCredentialsAreSealedAtRest(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	d := openWith(t, data)
	for _, name := range []string{"crm", "bank"} {
		if err := d.put(name, storedCanary+name); err != nil {
			t.Fatal(err)
		}
	}
	d.wantReleased(counterfoil.UpstreamCredential{Stored: "crm"}, storedCanary+"crm", "")
	sealed, err := d.store.SealedCredential(t.Context(), "crm")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.store.PutCredential(t.Context(), "bank", sealed, &ledger.Entry{Kind: ledger.CredentialStored}); err != nil {
		t.Fatal(err)
	}
	d.wantReleased(counterfoil.UpstreamCredential{Stored: "bank"}, "", "belongs to another row")
	var backup bytes.Buffer
	if err := d.Backup(context.WithoutCancel(t.Context()), &backup); err != nil {
		t.Fatal(err)
	}
	wants := []string{d.log.String(), backup.String()}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(data, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		wants, files = append(wants, string(b)), files+1
		return err
	})
	if err != nil || files < 5 {
		t.Fatalf("looked at %d files: %v", files, err)
	}
	for i, text := range wants {
		if strings.Contains(text, storedCanary) {
			t.Errorf("place %d of the log, the backup and the data folder has the credential as it is", i)
		}
	}
	// The next start has it still.
	d = openWith(t, data)
	d.wantReleased(counterfoil.UpstreamCredential{Stored: "crm"}, storedCanary+"crm", "")
}

// TestProvidersOfTheDaemon: its folders, its guard.
func TestProvidersOfTheDaemon(t *testing.T) {
	t.Parallel()
	d := openWith(t, filepath.Join(t.TempDir(), "data"))
	write := func(dir, name, text string, mode fs.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(d.cfg.Data, dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"providers", "secrets"} {
		if info, err := os.Stat(filepath.Join(d.cfg.Data, dir)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
	write("providers", "p", "#!/bin/sh\necho printed-token\n", 0o700)
	write("secrets", "f", "token-of-a-file\n", 0o600)
	write("secrets", "open", "token-of-a-file\n", 0o644)
	d.wantReleased(counterfoil.UpstreamCredential{Exec: "p"}, "printed-token", "")
	d.wantReleased(counterfoil.UpstreamCredential{File: "f"}, "token-of-a-file", "")
	d.wantReleased(counterfoil.UpstreamCredential{File: "open"}, "", "chmod 600")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			http.Redirect(w, r, "/", http.StatusFound)
			return
		}
		w.Write([]byte(`{"secret":"fetched-token"}`))
	}))
	defer s.Close()
	d.wantReleased(counterfoil.UpstreamCredential{URL: s.URL}, "fetched-token", "")
	d.wantReleased(counterfoil.UpstreamCredential{URL: s.URL + "/elsewhere"}, "", "status 302")
	// The metadata service of a cloud gives credentials, and never to us.
	for _, address := range []string{"https://169.254.169.254/latest/api/token", "https://[fd00:ec2::254]/", "https://[::ffff:169.254.169.254]/"} {
		d.wantReleased(counterfoil.UpstreamCredential{URL: address}, "", "asking the provider")
	}
}

// TestAskingForDefinitionsIsRecorded: a credential that is shown at apply is in the ledger
// as one that is shown for a call.
func TestAskingForDefinitionsIsRecorded(t *testing.T) {
	t.Parallel()
	d := openWith(t, filepath.Join(t.TempDir(), "data"))
	if err := d.put("bank", storedCanary); err != nil {
		t.Fatal(err)
	}
	var shown []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown = append(shown, r.Header.Get("Authorization"))
		http.Error(w, "no", http.StatusTeapot)
	}))
	res := &counterfoil.Resource{Name: "bank", Type: counterfoil.ResourceMCP, Upstream: s.URL + "/mcp",
		Credential: &counterfoil.UpstreamCredential{Header: "Authorization", Prefix: "Bearer ", Stored: "bank"}}
	_, err := d.definitions(t.Context(), res)
	s.Close()
	if err == nil || len(shown) == 0 || shown[0] != "Bearer "+storedCanary {
		t.Errorf("the upstream was shown %q (%v)", shown, err)
	}
	found, err := d.store.Find(t.Context(), ledger.Filter{Kind: ledger.UpstreamCredentialUsed, Limit: 10})
	if err != nil || len(found) != 1 || found[0].Resource != "bank" || found[0].Detail["from"] != "stored bank" {
		t.Errorf("recorded is %v, %v", found, err)
	}
}
