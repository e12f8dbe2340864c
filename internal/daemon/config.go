package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Config is everything that a node is started with. What changes while it
// runs is a manifest. It has at most 40 leaves; nothing in it weakens a check.
type Config struct {
	Data           string     `yaml:"data"`       // folder of the node's own files, mode 0700
	Public         Listener   `yaml:"public"`     // issuer and gateway
	Management     Listener   `yaml:"management"` // console and health
	Metrics        Metrics    `yaml:"metrics"`
	Authz          Authz      `yaml:"authz"`
	Storage        string     `yaml:"storage"`       // sqlite:PATH; the default is DATA/counterfoil.db
	Shortlived     string     `yaml:"shortlived"`    // memory
	Roles          []string   `yaml:"roles"`         // issuer, gateway, console
	SecretsDir     string     `yaml:"secrets_dir"`   // the default is DATA/secrets
	ProvidersDir   string     `yaml:"providers_dir"` // of programs that print upstreams' credentials; the default is DATA/providers
	KEK            KEK        `yaml:"kek"`
	TrustedProxies []string   `yaml:"trusted_proxies"` // CIDRs whose X-Forwarded-For is believed
	Checkpoints    []string   `yaml:"checkpoints"`     // file:PATH; the default is file:DATA/checkpoint
	Lifetimes      Lifetimes  `yaml:"lifetimes"`
	Revocation     Revocation `yaml:"revocation"`
	Limits         Limits     `yaml:"limits"`
	Outbound       Outbound   `yaml:"outbound"`
	Approvals      Approvals  `yaml:"approvals"`
	DPoPNonce      string     `yaml:"dpop_nonce"` // always, or after-loss (when empty)
	Notify         Notify     `yaml:"notify"`

	// Dev makes the keys on the first start and allows plain HTTP on
	// loopback. It is a flag, never a key of the file.
	Dev bool `yaml:"-"`

	// ConfirmClock starts although the clock is before the ledger's last
	// entry. Every proof older than the start then needs a nonce.
	ConfirmClock bool `yaml:"-"`
}

// A Listener is a public address and where its server listens.
type Listener struct {
	URL    string `yaml:"url"`    // the one that clients use; identifiers are made of it
	Listen string `yaml:"listen"` // host:port, by default the URL's
	TLS    TLS    `yaml:"tls"`
}

// TLS names the files of a listener's certificate chain and key, in PEM.
type TLS struct {
	Cert     string `yaml:"cert"`
	Key      string `yaml:"key"`
	ClientCA string `yaml:"client_ca"`
}

// Metrics is where Prometheus may look without a login.
type Metrics struct {
	Listen string `yaml:"listen"` // host:port; empty: on the management listener, for loopback only
}

// KEK is the key that the signing keys are sealed with.
type KEK struct {
	File string `yaml:"file"` // 32 bytes in base64, mode 0600 or 0400; the default is DATA/kek
}

// Lifetimes bound what is issued.
type Lifetimes struct {
	Token      time.Duration `yaml:"token"`       // access tokens: 60s to 900s, by default 300s
	SigningKey time.Duration `yaml:"signing_key"` // until the next key signs, by default 720h
}

// Revocation bounds how old what an enforcement point elsewhere knows of revocations
// may be. The gateway of this node asks the store, which is never stale.
type Revocation struct {
	MaxStale time.Duration `yaml:"max_stale"` // by default 10s
}

// Approvals is what human proof needs beyond manifests.
type Approvals struct {
	AttestationRoots string `yaml:"attestation_roots"` // PEM of the roots whose attestation is believed; empty: none
}

// Limits bound what one request may cost.
type Limits struct {
	Body            int64         `yaml:"body"`             // bytes of an MCP request, by default 4 MiB
	UpstreamTimeout time.Duration `yaml:"upstream_timeout"` // until an upstream's answer begins, by default 60s
	Drain           time.Duration `yaml:"drain"`            // for requests in flight at the end, by default 10s
}

// Notify is who is told that something waits for people. It carries no authority:
// nothing is decided by it.
type Notify struct {
	Webhooks  []NotifyWebhook `yaml:"webhooks"`
	SlackFile string          `yaml:"slack_file"` // holds the URL of an incoming webhook, which is a secret
	SMTP      NotifySMTP      `yaml:"smtp"`
}

// A NotifyWebhook is a receiver of messages, signed as Standard Webhooks says.
type NotifyWebhook struct {
	URL        string `yaml:"url"`
	SecretFile string `yaml:"secret_file"` // "whsec_" and base64
}

// NotifySMTP is a relay that takes mail for the people who may decide.
type NotifySMTP struct {
	Host         string `yaml:"host"` // host:port
	From         string `yaml:"from"`
	User         string `yaml:"user"`
	PasswordFile string `yaml:"password_file"`
}

// Addresses of a node that is started without a file.
const (
	DefaultPublicURL     = "http://localhost:8420"
	DefaultManagementURL = "http://localhost:8421"
)

// Problems are everything that is wrong with a configuration, one a line.
type Problems []string

// Error joins the problems with line breaks.
func (p Problems) Error() string { return strings.Join(p, "\n") }

// ReadConfig reads a configuration file. Its error holds every unknown key,
// wrong type and bad value at once, with file and line where there is one.
func ReadConfig(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	return parseConfig(path, data)
}

func parseConfig(path string, data []byte) (Config, error) {
	var c Config
	var problems Problems
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		problems = append(problems, yamlProblems(path, err)...)
	} else if err == nil {
		var more yaml.Node
		if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
			problems = append(problems, path+": more than one YAML document")
		}
	}
	for _, p := range c.check() {
		problems = append(problems, path+": "+p)
	}
	if len(problems) > 0 {
		return Config{}, problems
	}
	return c, nil
}

var unknownKey = regexp.MustCompile(`^line (\d+): field (\S+) not found in type .*$`)

func yamlProblems(path string, err error) Problems {
	var te *yaml.TypeError
	if !errors.As(err, &te) {
		return Problems{path + ": " + strings.TrimPrefix(err.Error(), "yaml: ")}
	}
	var p Problems
	for _, e := range te.Errors {
		if m := unknownKey.FindStringSubmatch(e); m != nil {
			p = append(p, fmt.Sprintf("%s:%s: unknown key %q", path, m[1], m[2]))
			continue
		}
		if line, rest, ok := strings.Cut(strings.TrimPrefix(e, "line "), ": "); ok {
			p = append(p, fmt.Sprintf("%s:%s: %s", path, line, rest))
			continue
		}
		p = append(p, path+": "+e)
	}
	return p
}

// shown writes an address for an error without the password that somebody may
// have written into it.
func shown(address string) string {
	before, after, found := strings.Cut(address, "://")
	if at := strings.LastIndexByte(after, '@'); found && at >= 0 {
		return before + "://[user and password]" + after[at:]
	}
	return address
}

// check returns everything that is wrong with the values.
func (c *Config) check() Problems {
	var p Problems
	bad := func(format string, args ...any) { p = append(p, fmt.Sprintf(format, args...)) }
	if c.Data == "" {
		bad("data: a folder is needed")
	}
	c.Public.check("public", c.Dev, bad)
	c.Management.check("management", c.Dev, bad)
	if u, err := url.Parse(c.Management.URL); err == nil && c.Management.URL != "" {
		if _, err := netip.ParseAddr(u.Hostname()); err == nil {
			bad("management.url: %q has an IP address; passkeys need a name (WebAuthn Level 3, rpId)", shown(c.Management.URL))
		}
	}
	if c.Storage != "" && (!strings.HasPrefix(c.Storage, "sqlite:") || c.Storage == "sqlite:") {
		bad("storage: %q is not sqlite:PATH, the storage of this version", shown(c.Storage))
	}
	if c.Shortlived != "" && c.Shortlived != "memory" {
		bad("shortlived: %q is not memory, the short-lived store of this version", shown(c.Shortlived))
	}
	all := []string{"issuer", "gateway", "console"}
	for _, r := range c.Roles {
		if !slices.Contains(all, r) {
			bad("roles: %q is none of issuer, gateway, console", r)
		}
	}
	if len(c.Roles) > 0 {
		for _, r := range all {
			if !slices.Contains(c.Roles, r) {
				bad("roles: %q is missing; with sqlite storage there is one node, and it has every role", r)
			}
		}
	}
	for _, cidr := range c.TrustedProxies {
		p, err := netip.ParsePrefix(cidr)
		switch {
		case err != nil:
			bad("trusted_proxies: %q is not a CIDR", cidr)
		case p.Bits() == 0:
			// Everybody would say for themselves where they are and which host they
			// mean: networks of grants, the alarm for cloned keys and the guard
			// against DNS rebinding would be off.
			bad("trusted_proxies: %q trusts everybody; name the proxies", cidr)
		}
	}
	for _, place := range c.Checkpoints {
		if !strings.HasPrefix(place, "file:") || place == "file:" {
			bad("checkpoints: %q is not file:PATH, the place of this version", shown(place))
		}
	}
	if c.Metrics.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Metrics.Listen); err != nil {
			bad("metrics.listen: %q is not host:port", c.Metrics.Listen)
		}
	}
	if d := c.Lifetimes.Token; d != 0 && (d < time.Minute || d > 15*time.Minute) {
		bad("lifetimes.token: %s is not between 60s and 900s", d)
	}
	if d := c.Lifetimes.SigningKey; d != 0 && d < time.Hour {
		bad("lifetimes.signing_key: %s is less than an hour", d)
	}
	if d := c.Revocation.MaxStale; d < 0 {
		bad("revocation.max_stale: %s is negative", d)
	}
	if n := c.Limits.Body; n != 0 && (n < 1<<10 || n > 64<<20) {
		bad("limits.body: %d is not between 1 KiB and 64 MiB", n)
	}
	if c.Limits.UpstreamTimeout < 0 || c.Limits.Drain < 0 {
		bad("limits: a duration is negative")
	}
	if c.DPoPNonce != "" && c.DPoPNonce != "always" && c.DPoPNonce != "after-loss" {
		bad("dpop_nonce: %q is neither always nor after-loss", c.DPoPNonce)
	}
	c.Notify.check(c.guard(), bad)
	c.Outbound.check(bad)
	c.Authz.check(c, bad)
	return p
}

func (l *Listener) check(name string, dev bool, bad func(string, ...any)) {
	if l.URL == "" {
		if !dev {
			bad("%s.url: the address that clients use is needed", name)
		}
		return
	}
	u, err := url.Parse(l.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		bad("%s.url: %q is not an http or https URL", name, shown(l.URL))
		return
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(u.Path, "/") || u.Path != "" && u.Path != u.EscapedPath() {
		bad("%s.url: %q has more than scheme, host, port and a plain path without a slash at its end", name, shown(l.URL))
	}
	if u.Host != strings.ToLower(u.Host) {
		bad("%s.url: %q has upper-case letters in its host; identifiers are compared as they are written", name, shown(l.URL))
	}
	loopback := isLoopbackHost(u.Hostname())
	if u.Scheme == "http" && !loopback {
		bad("%s.url: plain http is for loopback; use https, with tls here or behind a proxy that has it", name)
	}
	if dev && !loopback {
		bad("%s.url: --dev is for loopback, %q is not", name, u.Hostname())
	}
	if (l.TLS.Cert == "") != (l.TLS.Key == "") {
		bad("%s.tls: cert and key go together", name)
	}
	if l.TLS.ClientCA != "" {
		bad("%s.tls.client_ca: client certificates are not taken by this version", name)
	}
	if u.Scheme == "https" && l.TLS.Cert == "" && l.Listen == "" {
		bad("%s.tls: an https address needs cert and key, or listen behind a proxy that has them", name)
	}
	if l.Listen != "" {
		host, _, err := net.SplitHostPort(l.Listen)
		switch {
		case err != nil:
			bad("%s.listen: %q is not host:port", name, l.Listen)
		case u.Scheme == "http" && !isLoopbackHost(host):
			bad("%s.listen: %q takes plain http from other machines; %s.url is http, which is for loopback", name, l.Listen, name)
		}
	}
}

func isLoopbackHost(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// fill puts the defaults in place of what is not said.
func (c *Config) fill() {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&c.Storage, "sqlite:"+filepath.Join(c.Data, "counterfoil.db"))
	def(&c.SecretsDir, filepath.Join(c.Data, "secrets"))
	def(&c.ProvidersDir, filepath.Join(c.Data, "providers"))
	def(&c.KEK.File, filepath.Join(c.Data, "kek"))
	def(&c.DPoPNonce, "after-loss")
	if len(c.Checkpoints) == 0 {
		c.Checkpoints = []string{"file:" + filepath.Join(c.Data, "checkpoint")}
	}
	dur := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	dur(&c.Lifetimes.Token, 5*time.Minute)
	dur(&c.Lifetimes.SigningKey, 30*24*time.Hour)
	dur(&c.Limits.UpstreamTimeout, time.Minute)
	dur(&c.Limits.Drain, 10*time.Second)
	dur(&c.Revocation.MaxStale, 10*time.Second)
	if c.Limits.Body == 0 {
		c.Limits.Body = 4 << 20
	}
}

func (c *Config) proxies() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range c.TrustedProxies {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}
