package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goodConfig = `data: /var/lib/counterfoil
public:
  url: https://agents.example.com
  listen: 127.0.0.1:8420
management:
  url: https://counterfoil.example.com
  listen: 127.0.0.1:8421
kek: {file: /etc/counterfoil/kek}
trusted_proxies: [127.0.0.1/32]
checkpoints: ["file:/mnt/kept/checkpoint"]
lifetimes: {token: 2m}
notify:
  webhooks: [{url: https://hooks.example.com/x, secret_file: /etc/counterfoil/hook}]
  slack_file: /etc/counterfoil/slack
  smtp: {host: "mail.example.com:587", from: counterfoil@example.com, user: cf, password_file: /etc/counterfoil/mail}
`

func readText(t *testing.T, text string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return ReadConfig(path)
}

func TestConfigurationIsStrict(t *testing.T) {
	t.Parallel()
	if _, err := readText(t, goodConfig); err != nil {
		t.Fatalf("the control is refused: %v", err)
	}
	for _, c := range []struct{ name, from, to, says string }{
		{"an unknown key", "kek:", "colour: red\nkek:", `c.yaml:8: unknown key "colour"`},
		{"an unknown key below", "{token: 2m}", "{token: 2m, toast: 1m}", `unknown key "toast"`},
		{"a wrong type", "{token: 2m}", "{token: [2m]}", "c.yaml:11:"},
		{"a second document", "{token: 2m}\n", "{token: 2m}\n---\ndata: /elsewhere\n", "more than one YAML document"},
		{"no data", "data: /var/lib/counterfoil\n", "", "data:"},
		{"no public URL", "  url: https://agents.example.com\n", "", "public.url"},
		{"a slash at the end", "https://agents.example.com", "https://agents.example.com/", "public.url"},
		{"upper case", "https://agents.example.com", "https://Agents.example.com", "upper-case"},
		{"userinfo", "https://agents.example.com", "https://a@agents.example.com", "public.url"},
		{"plain http for others", "https://agents.example.com", "http://agents.example.com", "plain http"},
		{"plain http on every interface", "https://agents.example.com\n  listen: 127.0.0.1:8420", "http://localhost:8420\n  listen: 0.0.0.0:8420", "other machines"},
		{"https without a certificate", "https://agents.example.com\n  listen: 127.0.0.1:8420", "https://agents.example.com", "public.tls"},
		{"an address as the management host", "https://counterfoil.example.com", "https://10.0.0.1", "passkeys need a name"},
		{"client certificates", "listen: 127.0.0.1:8420", "listen: 127.0.0.1:8420\n  tls: {client_ca: ca.pem}", "client_ca"},
		{"a certificate without its key", "listen: 127.0.0.1:8420", "listen: 127.0.0.1:8420\n  tls: {cert: c.pem}", "cert and key"},
		{"everybody as a proxy", "[127.0.0.1/32]", "[10.0.0.0/8, \"::/0\"]", "trusts everybody"},
		{"a proxy that is no CIDR", "[127.0.0.1/32]", "[localhost]", "trusted_proxies"},
		{"a place that is no file", `["file:/mnt/kept/checkpoint"]`, `["s3:bucket"]`, "checkpoints"},
		{"a token for an hour", "{token: 2m}", "{token: 1h}", "lifetimes.token"},
		{"another storage", "kek:", "storage: postgres://db\nkek:", "storage"},
		{"another short-lived store", "kek:", "shortlived: redis://db\nkek:", "shortlived"},
		{"an unknown key of who is told", "slack_file:", "slack:", `c.yaml:14: unknown key "slack"`},
		{"a webhook in the clear", "https://hooks.example.com/x", "http://hooks.example.com/x", "notify.webhooks[0].url"},
		{"a webhook at a metadata address", "https://hooks.example.com/x", "https://169.254.169.254/x", "notify.webhooks[0].url"},
		{"a webhook at a private address", "https://hooks.example.com/x", "https://10.20.0.7/x", "which is not a public address; outbound.allow opens it"},
		{"a webhook on this machine", "https://hooks.example.com/x", "http://127.0.0.1:9/x", "which is this machine; outbound.allow opens it"},
		{"an opened name", "kek:", "outbound: {allow: [hooks.example.com]}\nkek:", "outbound.allow: \"hooks.example.com\" is not a CIDR"},
		{"an opened address without a length", "kek:", "outbound: {allow: [10.20.0.7]}\nkek:", "outbound.allow"},
		{"everything opened", "kek:", "outbound: {allow: [10.20.0.0/16, 0.0.0.0/0]}\nkek:", "opens everything"},
		{"everything of IPv6 opened", "kek:", "outbound: {allow: [\"::/0\"]}\nkek:", "opens everything"},
		{"a network with bits beyond its length", "kek:", "outbound: {allow: [10.20.0.7/16]}\nkek:", "10.20.0.0/16 is the network"},
		{"IPv4 in IPv6 clothes", "kek:", "outbound: {allow: [\"::ffff:10.0.0.0/104\"]}\nkek:", "write it as IPv4"},
		{"a webhook with a password", "https://hooks.example.com/x", "https://u:hunter2@hooks.example.com/x", "[user and password]"},
		{"a webhook without a secret", ", secret_file: /etc/counterfoil/hook", "", "notify.webhooks[0].secret_file"},
		{"a relay without a port", "mail.example.com:587", "mail.example.com", "notify.smtp.host"},
		{"a sender with a name", "from: counterfoil@example.com", "from: Counterfoil <counterfoil@example.com>", "notify.smtp.from"},
		{"a login without a password", ", password_file: /etc/counterfoil/mail", "", "user and password_file go together"},
		{"half the roles", "kek:", "roles: [gateway]\nkek:", "roles"},
		{"an unknown role", "kek:", "roles: [issuer, gateway, console, king]\nkek:", "king"},
		{"an odd nonce rule", "kek:", "dpop_nonce: sometimes\nkek:", "dpop_nonce"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(goodConfig, c.from, c.to, 1)
			if text == goodConfig {
				t.Fatal("nothing was changed")
			}
			_, err := readText(t, text)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("want an error with %q: %v", c.says, err)
			}
		})
	}
}

func TestConfigurationTellsAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	_, err := readText(t, "colour: red\nstorage: mysql:x\nshortlived: disk\n")
	if err == nil {
		t.Fatal("it is taken")
	}
	for _, want := range []string{"colour", "data:", "public.url", "management.url", "storage", "shortlived"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("nothing is said of %s: %v", want, err)
		}
	}
}
