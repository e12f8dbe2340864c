package main

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/daemon"
)

// refused sends what is refused, with a canary in every place of a request.
func (c *cage) refused(signer *credential.Signer, token string) {
	c.t.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	tokenURL, bank := c.issuer+"/oauth/token", c.issuer+"/r/hashed"
	management, err := os.ReadFile(filepath.Join(c.data, "management.url"))
	if err != nil {
		c.t.Fatal(err)
	}
	admin := strings.TrimSpace(string(management))
	now := time.Now()
	forged := func(name string, j counterfoiltest.JWT) string {
		compact := j.Compact(c.t)
		c.secret(name, signature(compact))
		return compact
	}
	proof := func(name, target, claim string, value any) string {
		j := counterfoiltest.ForgeProof(c.t, signer, http.MethodPost, target, now)
		if target == bank {
			j.Claims["ath"] = credential.TokenHash(token)
		}
		j.Claims[claim] = value
		return forged("a proof with a canary in "+name, j)
	}
	assertion := func(name, claim string, value any) string {
		j := counterfoiltest.ForgeAssertion(signer, "payroll", c.issuer, now)
		j.Claims[claim] = value
		return forged("an assertion with a canary in "+name, j)
	}
	form := func(more url.Values) string {
		f := url.Values{
			"grant_type": {"client_credentials"}, "resource": {bank},
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
			"client_assertion":      {assertion("nothing "+fmt.Sprint(len(c.canaries)), "x", 1)},
		}
		maps.Copy(f, more)
		return f.Encode()
	}
	urlencoded := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	with := func(base map[string]string, more ...string) map[string]string {
		h := maps.Clone(base)
		for i := 0; i < len(more); i += 2 {
			h[more[i]] = more[i+1]
		}
		return h
	}
	rpc := map[string]string{"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "get_balance"}
	body := counterfoiltest.Body("get_balance", `{"account":"operating"}`)
	bound := func(name string) map[string]string {
		return with(rpc, "Authorization", "DPoP "+token, "DPoP", proof(name, bank, "jti", c.input("jti for "+name)))
	}
	var parcels []parcel
	add := func(name, method, url, body string, header map[string]string) {
		parcels = append(parcels, parcel{name, method, url, body, header})
	}

	// The token endpoint: every field, header and claim.
	for _, field := range []string{"client_secret", "password", "username", "assertion", "code", "refresh_token", "scope", "resource", "client_id", "task", "authorization_details", "client_assertion", "client_assertion_type", "grant_type", "unknown"} {
		add("a token request with "+field, http.MethodPost, tokenURL, form(url.Values{field: {c.input("form field " + field)}}), with(urlencoded, "DPoP", proof("jti for "+field, tokenURL, "jti", c.input("proof id for "+field))))
	}
	add("a token request with a form name", http.MethodPost, tokenURL, form(url.Values{c.input("form name"): {"1"}}), with(urlencoded, "DPoP", proof("form name", tokenURL, "x", 1)))
	for _, claim := range []string{"iss", "sub", "aud", "exp", "jti", "other"} {
		add("an assertion with "+claim, http.MethodPost, tokenURL, form(url.Values{"client_assertion": {assertion(claim, claim, c.input("claim "+claim+" of an assertion"))}}), with(urlencoded, "DPoP", proof("proof beside "+claim, tokenURL, "x", 1)))
	}
	for _, claim := range []string{"htm", "htu", "jti", "nonce", "iat", "ath", "other"} {
		add("a proof with "+claim, http.MethodPost, tokenURL, form(nil), with(urlencoded, "DPoP", proof(claim+" at the token endpoint", tokenURL, claim, c.input("claim "+claim+" of a proof"))))
	}
	add("a target of no one", http.MethodPost, tokenURL, form(url.Values{"resource": {c.issuer + "/r/" + c.input("unknown target")}}), with(urlencoded, "DPoP", proof("unknown target", tokenURL, "x", 1)))
	add("Basic", http.MethodPost, tokenURL, form(nil), with(urlencoded, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("payroll:"+c.input("basic password")))))
	add("a query at the token endpoint", http.MethodPost, tokenURL+"?client_secret="+c.input("query of a token request"), form(nil), urlencoded)
	add("JSON at the token endpoint", http.MethodPost, tokenURL, `{"client_secret":"`+c.input("json token request")+`"}`, map[string]string{"Content-Type": "application/json"})
	add("a code of no one", http.MethodPost, c.issuer+"/enroll", `{"agent":"payroll","code":"`+c.input("unknown code")+`"}`, map[string]string{"Content-Type": "application/json", "DPoP": proof("enrolment", c.issuer+"/enroll", "x", 1)})
	add("enrolment with an unknown member", http.MethodPost, c.issuer+"/enroll", `{"agent":"payroll","code":"x","`+c.input("unknown member")+`":1}`, map[string]string{"Content-Type": "application/json", "DPoP": proof("enrolment 2", c.issuer+"/enroll", "x", 1)})

	// The gateway: every header, the query, the body.
	add("a token in the query", http.MethodPost, bank+"?access_token="+c.input("query at the gateway"), body, bound("query"))
	add("a bound token as bearer", http.MethodPost, bank, body, with(rpc, "Authorization", "Bearer "+token))
	add("a foreign bearer", http.MethodPost, bank, body, with(rpc, "Authorization", "Bearer "+c.input("foreign bearer")))
	add("a scheme of its own", http.MethodPost, bank, body, with(rpc, "Authorization", c.input("authorization scheme")+" x"))
	add("a token that is none", http.MethodPost, bank, body, with(rpc, "Authorization", "DPoP "+c.input("garbled token"), "DPoP", "x.y.z"))
	for _, claim := range []string{"htm", "htu", "jti", "nonce", "ath"} {
		add("a call's proof with "+claim, http.MethodPost, bank, body, with(rpc, "Authorization", "DPoP "+token, "DPoP", proof(claim+" at the gateway", bank, claim, c.input("claim "+claim+" of a call's proof"))))
	}
	for _, header := range []string{"Cookie", "X-Api-Key", "Proxy-Authorization", "User-Agent", "Referer", "Origin", "X-Forwarded-For", "Forwarded", "X-Request-Id", "Traceparent", "Mcp-Session-Id", "Last-Event-ID", "Idempotency-Key", "Mcp-Name", "Mcp-Protocol-Version", "Content-Type", "Content-Encoding", "X-Canary", "Host"} {
		add("a call with the header "+header, http.MethodPost, bank, body, with(bound("header "+header), header, c.input("header "+header)))
	}
	for name, text := range map[string]string{
		"a duplicate member":     `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_balance","arguments":{"account":"CANARY","account":"CANARY"}}}`,
		"an unknown method":      `{"jsonrpc":"2.0","id":1,"method":"CANARY","params":{"x":"CANARY"}}`,
		"an id":                  strings.Replace(body, `"id":1`, `"id":"CANARY"`, 1),
		"a batch":                `[` + strings.Replace(body, "operating", "CANARY", 1) + `]`,
		"no JSON":                `{"CANARY`,
		"an unknown argument":    strings.Replace(body, `"account"`, `"CANARY"`, 1),
		"an argument's type":     strings.Replace(body, `"operating"`, `{"CANARY":["CANARY"]}`, 1),
		"a member of params":     strings.Replace(body, `"name":`, `"CANARY":1,"name":`, 1),
		"a member of _meta":      strings.Replace(body, `"_meta":{`, `"_meta":{"CANARY":"CANARY",`, 1),
		"a member of the top":    strings.Replace(body, `"jsonrpc"`, `"CANARY":1,"jsonrpc"`, 1),
		"a number too long":      strings.Replace(body, `"operating"`, `"CANARY",1e999`, 1),
		"another version":        strings.Replace(body, `:"2026-07-28"`, `:"CANARY"`, 1),
		"the name of its client": strings.Replace(body, `"wire"`, `"CANARY"`, 1),
	} {
		text = strings.ReplaceAll(text, "CANARY", c.input("body, "+name))
		add("a call with "+name, http.MethodPost, bank, text, bound("body "+name))
	}

	// Paths and the management listener.
	for _, base := range []string{c.issuer, admin} {
		where := map[bool]string{true: "public", false: "management"}[base == c.issuer]
		add("a path on the "+where+" listener", http.MethodGet, base+"/"+c.input("path on the "+where+" listener"), "", nil)
		add("a query on the "+where+" listener", http.MethodGet, base+"/.well-known/oauth-authorization-server?x="+c.input("query on the "+where+" listener"), "", nil)
	}
	add("a resource of no one", http.MethodPost, c.issuer+"/r/"+c.input("unknown resource"), body, bound("unknown resource"))
	add("a path below a resource", http.MethodPost, bank+"/"+c.input("path below a resource"), body, bound("path below"))
	add("the admin API without a session", http.MethodPost, admin+"/api/v1/agents/payroll/suspend", `{"reason":"`+c.input("reason without a session")+`"}`, map[string]string{"Content-Type": "application/json", "Cookie": "session=" + c.input("session cookie"), "X-Csrf-Token": c.input("csrf token")})
	for _, p := range parcels {
		c.send(client, p)
	}
}

// misused gives the commands what they refuse.
func (c *cage) misused() {
	c.t.Helper()
	write := func(name, text string) string {
		path := filepath.Join(c.dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			c.t.Fatal(err)
		}
		return path
	}
	refuse := func(args ...string) {
		if _, ok := c.exec("", args...); ok {
			c.t.Errorf("counterfoil %s was taken", strings.Join(args, " "))
		}
	}
	// A manifest and a configuration into which somebody wrote a secret.
	refuse("apply", "--data", c.data, "-f", write("secret.yaml", `{kind: Resource, name: bank2, type: mcp, environment: prod, upstream: "http://user:`+c.input("password in an upstream")+`@127.0.0.1:9/mcp", credential: {header: Authorization, value: "`+c.input("credential in a manifest")+`"}, tools: [{name: x, class: hashed}]}`))
	refuse("serve", "--config", write("config.yaml", `data: `+filepath.Join(c.dir, "other")+`
public: {url: "https://user:`+c.input("password in the public URL")+`@agents.example.com"}
management: {url: "https://user:`+c.input("password in the management URL")+`@console.example.com"}
storage: "postgres://user:`+c.input("password of the storage")+`@db/counterfoil"
shortlived: "redis://:`+c.input("password of the short-lived store")+`@cache"
kek: {value: "`+c.input("kek in the configuration")+`"}
checkpoints: ["https://user:`+c.input("password of a checkpoint place")+`@keep"]
`))
	refuse("serve", "--config", write("broken.yaml", "data: x\nkek: {file: [\""+c.input("secret of the wrong type")+"\"]}\n"))
	refuse("serve", "--dev", "--data", filepath.Join(c.dir, "dev"), "--public", "https://user:"+c.input("password of --public")+"@example.com")
	refuse("token", "--issuer", "https://user:"+c.input("password of --issuer")+"@localhost:1", "--agent", "payroll", "--key", filepath.Join(c.dir, "payroll.key"), "--resource", "hashed")
	for _, kek := range []string{c.input("kek of the wrong form"), base64.StdEncoding.EncodeToString([]byte(c.input("kek of the wrong length") + "0"))} {
		data := filepath.Join(c.dir, "wrongkek")
		if err := os.MkdirAll(data, 0o700); err != nil {
			c.t.Fatal(err)
		}
		write("wrongkek/kek", kek+"\n")
		refuse("serve", "--dev", "--data", data)
	}
	refuse("ledger", "verify", write("not.export", c.input("in a broken export")+"\n"), "--key", filepath.Join(c.data, daemon.LedgerKeyName))
	refuse("ledger", "verify", filepath.Join(c.data, "checkpoint"), "--key", write("private.key", "PRIVATE+KEY+log+00000000+"+c.input("in a private log key")))
	for _, args := range [][]string{{"-h"}, {"serve", "-h"}, {"connect", "-h"}, {"enroll", "-h"}, {"token", "-h"}, {"call", "-h"}, {"apply", "-h"}, {"version"}, {"completion", "bash"}} {
		c.must("", args...)
	}
}
