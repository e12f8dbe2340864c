package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/agent"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/examples/legacy/legacyserver"
	"github.com/counterfoil/counterfoil/internal/evidence"
)

// contained is what a step expects where a secret was looked for and not found.
const contained counterfoil.Code = "contained"

// legacyManifest takes the API's URL, the digest of its static token and the binding
// mode of the resource that still takes that token.
const legacyManifest = `kind: Class
name: credential-reset         # one person must say yes
tier: guarded
approvers: [finance]
template: "Reset the password of customer {{.customer}}"
---
kind: Resource
name: crm                      # a legacy API that knows one static token
type: http
environment: demo
upstream: %[1]s
credential: {header: Authorization, prefix: "Bearer ", file: crm-token}
tools:
  - {name: get_customer, method: GET, path: "/customers/{id}", class: read}
  - {name: customer_events, method: GET, path: "/customers/{id}/events", class: read}
  - {name: get_client, method: GET, path: "/clients/{id}", class: read}
  - {name: get_report, method: GET, path: /report, class: read}
  - {name: reset_password, method: POST, path: "/customers/{id}/password", class: credential-reset, fields: {customer: /path/id}}
---
kind: Agent
name: helpdesk
owner: ana
purpose: answers what customers ask
environment: demo
grants:
  - tools: [crm/get_customer, crm/customer_events, crm/get_client, crm/get_report, crm/reset_password]
`

const ladderManifest = `kind: Resource
name: crm-old                  # the same API, for a job that still sends the static token
type: http
environment: demo
upstream: %[1]s
credential: {header: Authorization, prefix: "Bearer ", file: crm-token}
binding: %[3]s
bearers:
  - {agent: nightly, key: "%[2]s"}
tools:
  - {name: get_customer, method: GET, path: "/customers/{id}", class: read}
---
kind: Agent
name: nightly
owner: ana
purpose: copies customers at night
environment: demo
grants:
  - tools: [crm-old/get_customer]
`

// A legacy is the demo's API with one static token, and the agent that uses it.
type legacy struct {
	api    *legacyserver.API
	url    string
	secret string
	signer *credential.Signer
	agent  *agent.Transport

	seen bytes.Buffer // everything that agents were answered
}

// startLegacy serves the API and puts its token where the server keeps secrets. What it
// returns ends it.
func (d *demo) startLegacy() (func(), error) {
	secret := "crm-" + rand.Text()
	d.legacy.api, d.legacy.secret = legacyserver.New(secret), secret
	secrets := filepath.Join(d.app.data, "secrets")
	if err := os.MkdirAll(secrets, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of secrets: %w", err)
	}
	if err := os.WriteFile(filepath.Join(secrets, "crm-token"), []byte(secret+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("writing the secret: %w", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for the API: %w", err)
	}
	server := &http.Server{Handler: d.legacy.api.Handler(), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(ln) }() // ends with server.Close
	d.legacy.url = "http://" + ln.Addr().String()
	return func() { _ = server.Close() }, nil
}

// applyText applies a manifest of the demo's own.
func (d *demo) applyText(text string) error {
	file := filepath.Join(d.dir, "more.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return fmt.Errorf("writing the manifest: %w", err)
	}
	_, err := d.quiet().submit(d.ctx, []string{file}, false)
	return err
}

// enrolled gives an agent a key and returns what signs its requests to a resource.
func (d *demo) enrolled(name, resource string) (*agent.Transport, *credential.Signer, error) {
	quiet := d.quiet()
	code, _, err := quiet.makeCode(d.ctx, name)
	if err != nil {
		return nil, nil, err
	}
	id := identity{issuer: d.daemon.PublicURL(), agent: name, key: filepath.Join(d.dir, name+".key")}
	if err := quiet.enroll(d.ctx, id, code, "Ed25519"); err != nil {
		return nil, nil, err
	}
	signer, err := agent.LoadKey(id.key)
	if err != nil {
		return nil, nil, err
	}
	t, _, err := quiet.transport(&id, resource, nil)
	return t, signer, err
}

// fetch makes one request, keeps the whole answer in what was seen, and says how it
// ended.
func (d *demo) fetch(client *http.Client, method, at string, header map[string]string) (reply, error) {
	req, err := http.NewRequestWithContext(d.ctx, method, at, nil)
	if err != nil {
		return reply{}, fmt.Errorf("making the request: %w", err)
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		return reply{}, fmt.Errorf("sending the request: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return reply{}, fmt.Errorf("reading the answer: %w", err)
	}
	fmt.Fprintf(&d.legacy.seen, "%s\n", resp.Status)
	_ = resp.Header.Write(&d.legacy.seen) // to memory
	fmt.Fprintf(&d.legacy.seen, "\n%s\n", body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if refusal, refused := counterfoil.AsRefusal(refusedCall(resp)); refused {
		r := reply{code: refusal.Code, text: fmt.Sprintf("HTTP %d, %s", resp.StatusCode, refusal.Detail)}
		if refusal.Approval != nil {
			r.approval = refusal.Approval.ID
		}
		return r, nil
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return reply{code: counterfoil.Code(strconv.Itoa(resp.StatusCode)), text: "HTTP " + resp.Status}, nil
	}
	return reply{code: allowed, text: fmt.Sprintf("HTTP 200, %.76s…", body)}, nil
}

func (d *demo) crmURL(path string) string {
	return d.daemon.PublicURL() + counterfoil.ResourcePath + "crm" + path
}

// legacyCall lets an agent that has a key of its own call an API that knows a static
// token.
func (d *demo) legacyCall() error {
	sum := digestOf(d.legacy.secret)
	if err := d.applyText(fmt.Sprintf(legacyManifest, d.legacy.url) + "---\n" + fmt.Sprintf(ladderManifest, d.legacy.url, sum, counterfoil.BindingObserve)); err != nil {
		return err
	}
	var err error
	if d.legacy.agent, d.legacy.signer, err = d.enrolled("helpdesk", "crm"); err != nil {
		return err
	}
	r, err := d.fetch(d.legacy.agent.Client(), http.MethodGet, d.crmURL("/customers/7"), nil)
	if err != nil {
		return err
	}
	if d.legacy.api.Calls() != 1 {
		r.code = "not forwarded"
	}
	d.tell("An API that knows nothing but a static token", outcome{
		tried: "GET /r/crm/customers/7 by the agent helpdesk, with a token that is bound to its key", want: allowed, got: r.code, answered: r.text,
		why: "the gateway decided, recorded that it did, and only then showed the API the static token, which is in a file of the server's and nowhere else",
	})
	return nil
}

// legacyContained looks for the static token in everything that the API answers.
func (d *demo) legacyContained() error {
	var ends []string
	for _, path := range []string{"/customers/7", "/customers/7/events", "/customers/9", "/clients/7", "/report"} {
		r, err := d.fetch(d.legacy.agent.Client(), http.MethodGet, d.crmURL(path), nil)
		if err != nil {
			return err
		}
		ends = append(ends, fmt.Sprintf("%s %s", path, r.code))
	}
	stars := len(regexp.MustCompile(`\*{8,}`).FindAll(d.legacy.seen.Bytes(), -1))
	o := outcome{
		tried: "a customer, a stream, an error of the client's, a redirect and an error of the server's, each of which repeats every header that the API got, plain, escaped and in base64",
		want:  contained, got: contained,
		answered: fmt.Sprintf("%s; in %d bytes the token was at %d places, and is at none", strings.Join(ends, ", "), d.legacy.seen.Len(), stars),
		why:      "the token is masked in every answer, in whatever form it comes back, and the ledger has that it was",
	}
	if stars == 0 {
		o.got = "not repeated"
	}
	if found := finds(d.legacy.secret, d.legacy.seen.Bytes()); found != "" {
		o.got, o.answered = "leaked", found
	}
	d.tell("Its token is in nothing that the agent sees", o)
	return nil
}

// legacyStolen shows the agent's token for the API with somebody else's key.
func (d *demo) legacyStolen() error {
	tok, err := d.legacy.agent.Token(d.ctx)
	if err != nil {
		return err
	}
	private, err := credential.GenerateKey("ES256")
	if err != nil {
		return err
	}
	thief, err := credential.NewSigner(private)
	if err != nil {
		return err
	}
	at := d.crmURL("/customers/7")
	proof, err := credential.SignProof(thief, http.MethodGet, at, "", tok.Token.Reveal(), time.Now())
	if err != nil {
		return fmt.Errorf("signing a proof: %w", err)
	}
	before := d.legacy.api.Calls()
	r, err := d.fetch(http.DefaultClient, http.MethodGet, at, map[string]string{"Authorization": "DPoP " + tok.Token.Reveal(), "DPoP": proof})
	if err != nil {
		return err
	}
	if d.legacy.api.Calls() != before {
		r.code = "forwarded"
	}
	d.tell("The agent's token for it, stolen", outcome{
		tried: "GET /r/crm/customers/7 with the agent's token and a proof by the thief's own key", want: counterfoil.ProofKeyMismatch, got: r.code, answered: r.text,
		why: "whoever had stolen the static token would have had everything; this one is worth nothing, and the API saw no request",
	})
	return nil
}

// legacyReset resets a customer's password, which one person has to allow.
func (d *demo) legacyReset() error {
	at := d.crmURL("/customers/8/password")
	asked, err := d.fetch(d.legacy.agent.Client(), http.MethodPost, at, nil)
	if err != nil {
		return err
	}
	title, tried := "What cannot be taken back waits there too", "POST /r/crm/customers/8/password"
	if asked.code != counterfoil.ApprovalRequired || len(d.legacy.api.Resets()) > 0 {
		d.tell(title, outcome{tried: tried, want: counterfoil.ApprovalRequired, got: asked.code, answered: asked.text, why: "class credential-reset is guarded"})
		return nil
	}
	if err := d.yes("bo", asked.approval); err != nil {
		return err
	}
	r, err := d.fetch(d.legacy.agent.Client(), http.MethodPost, at, nil)
	if err != nil {
		return err
	}
	if !slices.Equal(d.legacy.api.Resets(), []string{"8"}) {
		r.code = "not reset"
	}
	d.tell(title, outcome{
		tried: tried + ", refused with approval_required; bo says yes with a passkey; the same request again", want: allowed, got: r.code, answered: r.text,
		why: "the API has no idea of approvals; the gateway has, and the password was reset once",
	})
	return nil
}

// oldRequest is what a job sends that has the API's static token.
func (d *demo) oldRequest() (reply, error) {
	return d.fetch(http.DefaultClient, http.MethodGet, d.daemon.PublicURL()+counterfoil.ResourcePath+"crm-old/customers/8", map[string]string{"Authorization": "Bearer " + d.legacy.secret})
}

// observed is the first rung of the ladder: bearer credentials are taken, and known.
func (d *demo) observed() error {
	r, err := d.oldRequest()
	if err != nil {
		return err
	}
	var report evidence.BearerReport
	if err := d.quiet().admin(d.ctx, http.MethodGet, "/api/v1/bearer?resource=crm-old&since="+url.QueryEscape(time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)), nil, &report); err != nil {
		return err
	}
	said := "nothing"
	for _, res := range report.Resources {
		for i := range res.Credentials {
			c := &res.Credentials[i]
			var opens []string
			for _, o := range c.Opens {
				opens = append(opens, o.Tool)
			}
			said = fmt.Sprintf("%s is on %s: %s sent %.24s… %s; a thief of it could call %s; require is not safe yet", res.Name, res.Binding, c.Agent, c.Bearer, counted(c.Calls, "time", "times"), strings.Join(opens, " and "))
			if c.Calls != 1 || res.Safe {
				r.code = "not seen"
			}
		}
	}
	if said == "nothing" {
		r.code = "not seen"
	}
	d.tell("Who still sends the static token", outcome{
		tried: "a nightly job sends the API's static token to the gateway, as it always did; counterfoil bearer crm-old", want: allowed, got: r.code, answered: said,
		why: "binding: observe takes it for what its agent may do, and records what would be refused; only what a manifest declares by its digest is taken",
	})
	return nil
}

// required is the last rung.
func (d *demo) required() error {
	if err := d.applyText(fmt.Sprintf(ladderManifest, d.legacy.url, digestOf(d.legacy.secret), counterfoil.BindingRequire)); err != nil {
		return err
	}
	r, err := d.oldRequest()
	if err != nil {
		return err
	}
	signs, _, err := d.enrolled("nightly", "crm-old")
	if err != nil {
		return err
	}
	bound, err := d.fetch(signs.Client(), http.MethodGet, signs.Resource()+"/customers/8", nil)
	if err != nil {
		return err
	}
	if bound.code != allowed {
		r = bound
	}
	d.tell("The static token is not taken any more", outcome{
		tried: "apply with binding: require; the job sends the static token; the job, enrolled, calls with its own key", want: counterfoil.BearerRefused, got: r.code,
		answered: r.text + "; with its own key it was allowed",
		why:      "from here on the static token opens nothing at the gateway; the API's own door is for its network to close",
	})
	return nil
}

// nowhere looks for the static token in the log and in the ledger's export.
func (d *demo) nowhere() error {
	export, err := os.ReadFile(d.exportFile())
	if err != nil {
		return fmt.Errorf("reading the export: %w", err)
	}
	log := d.log.bytes()
	used, struck := bytes.Count(export, []byte(`"upstream.credential_used"`)), bytes.Count(export, []byte(`"answer.scrubbed"`))
	o := outcome{
		tried: "look for the API's token in the whole ledger and in every line that the server logged, in whatever form",
		want:  contained, got: contained,
		answered: fmt.Sprintf("not in %d bytes of the ledger, nor in %d of the log; the ledger has %s of it and %s that repeated it", len(export), len(log), counted(used, "use", "uses"), counted(struck, "answer", "answers")),
		why:      "each use is an entry, \"binding ends here\", with the decision that it belongs to; the secret itself is written nowhere",
	}
	if used != d.legacy.api.Calls() || struck == 0 || len(log) == 0 {
		o.got = "incomplete"
	}
	for _, where := range [][]byte{export, log} {
		if found := finds(d.legacy.secret, where); found != "" {
			o.got, o.answered = "leaked", found
		}
	}
	d.tell("Nor in the log, nor in the ledger", o)
	return nil
}

var (
	escapedChar = regexp.MustCompile(`\\u00([0-9a-fA-F]{2})|%([0-9a-fA-F]{2})`)
	base64Run   = regexp.MustCompile(`[A-Za-z0-9+/_-]{16,}`)
)

// finds says in which form a secret, or half of it, is in what was seen, or nothing.
func finds(secret string, seen []byte) string {
	halves := [][]byte{[]byte(secret[:len(secret)/2]), []byte(secret[len(secret)/2:])}
	has := func(b []byte) bool { return bytes.Contains(b, halves[0]) || bytes.Contains(b, halves[1]) }
	if has(seen) {
		return "it is there as it is"
	}
	if has(escapedChar.ReplaceAllFunc(seen, func(m []byte) []byte {
		n, err := strconv.ParseUint(string(m[len(m)-2:]), 16, 8)
		if err != nil {
			return m
		}
		return []byte{byte(n)}
	})) {
		return "it is there, escaped"
	}
	for _, run := range base64Run.FindAll(seen, -1) {
		run = []byte(strings.NewReplacer("+", "-", "/", "_").Replace(string(run)))
		for at := range 4 {
			part := run[at:]
			plain := make([]byte, len(part))
			n, _ := base64.RawURLEncoding.Decode(plain, part[:len(part)-len(part)%4])
			if has(plain[:n]) {
				return "it is there, in base64"
			}
		}
	}
	return ""
}

// A kept is a log that is looked through at the end.
type kept struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

// Write keeps a line.
func (k *kept) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.b.Write(p)
}

func (k *kept) bytes() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return bytes.Clone(k.b.Bytes())
}
