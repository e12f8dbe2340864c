package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/approval"
)

// What messages are sent with is read from files that nobody else can read.
func TestNotifySecretsAreFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"hook": "whsec_x\n", "slack": "https://chat.example/x\n", "mail": "hunter2\r\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n := Notify{
		Webhooks:  []NotifyWebhook{{URL: "https://hooks.example", SecretFile: filepath.Join(dir, "hook")}},
		SlackFile: filepath.Join(dir, "slack"),
		SMTP:      NotifySMTP{Host: "mail.example:587", From: "cf@example.com", User: "cf", PasswordFile: filepath.Join(dir, "mail")},
	}
	cfg, err := n.read()
	if err != nil || len(cfg.Webhooks) != 1 || cfg.Slack.Empty() || cfg.SMTP.Password.Reveal() != "hunter2" {
		t.Errorf("%v, %v", cfg, err)
	}
	if text := fmt.Sprintf("%+v %+v", cfg, *cfg.SMTP); strings.Contains(text, "hunter2") || strings.Contains(text, "chat.example") {
		t.Errorf("it can be printed: %s", text)
	}
	if cfg, err := (&Notify{}).read(); err != nil || cfg.SMTP != nil || len(cfg.Webhooks) > 0 || !cfg.Slack.Empty() {
		t.Errorf("nobody: %v, %v", cfg, err)
	}
	for _, name := range []string{"hook", "slack", "mail"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := n.read(); err == nil || !strings.Contains(err.Error(), "notify.") || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("%s, which others can read: %v", name, err)
		}
		if err := os.Chmod(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Mail goes to those who may decide and have an address, as the registry has it now.
func TestNoticesNameAddresses(t *testing.T) {
	t.Parallel()
	registry := counterfoil.NewRegistry()
	registry.People["bo"] = &counterfoil.Person{Name: "bo", Email: "bo@example.com"}
	registry.People["cy"] = &counterfoil.Person{Name: "cy"}
	m := message(registry, approval.Notice{Event: approval.EventRequested, Approval: "apr_1", People: []string{"bo", "cy", "gone"}})
	if m.Event != "requested" || m.Approval != "apr_1" || fmt.Sprint(m.To) != "[bo@example.com]" {
		t.Errorf("%+v", m)
	}
}
