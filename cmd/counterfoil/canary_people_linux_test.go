package main

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// printedCode is where a command prints a person's code.
var printedCode = regexp.MustCompile(`cfe_\w+`)

// applied puts manifests in force. The codes that it prints are for who applied.
func (c *cage) applied(manifest string) {
	c.t.Helper()
	args := []string{"apply", "--data", c.data, "-f", manifest}
	codes := printedCode.FindAllString(c.must("", args...), -1)
	c.alone(args...)
	if len(codes) == 0 {
		c.t.Error("apply printed no code for a new person")
	}
	for _, code := range codes {
		c.secret("an enrolment code that apply printed", code)
	}
}

// personCode makes a code for a person's passkey.
func (c *cage) personCode(name string) string {
	c.t.Helper()
	args := []string{"person", "enroll-code", name, "--data", c.data}
	code := printedCode.FindString(c.must("", args...))
	c.alone(args...)
	return c.secret("an enrolment code of "+name, code)
}

// asked lets a call wait for people, one of whom enrols, logs in and signs, among
// others who try what they should not.
func (c *cage) asked(key string) {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(c.data, "management.url"))
	if err != nil {
		c.t.Fatal(err)
	}
	console := strings.TrimSpace(string(b))
	code := c.personCode("bo")
	c.personCode("cy") // never used
	bo, err := newDemoPerson(c.t.Context(), console, "bo", code)
	if err != nil {
		c.t.Fatal(err)
	}
	c.session(bo)
	if err := bo.login(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	c.session(bo) // another one

	who := []string{"--issuer", c.issuer, "--agent", "payroll", "--key", key}
	call := func(argument string) string {
		args := append([]string{"call", "asked/get_balance", "--json", "--args", `{"account":"` + argument + `"}`}, who...)
		c.exec("", args...)
		c.alone(args...)
		return regexp.MustCompile(`apr_\w+`).FindString(string(c.outputs["stderr of "+strings.Join(args, " ")]))
	}
	argument := c.secret("an argument that people read", "cnryargumentread0123456789")
	id := call(argument)
	denied := call(c.secret("an argument that people denied", "cnryargumentdenied0123456789"))
	for _, bad := range []parcel{
		{name: "a code for the second time", url: "/api/v1/enrolments/options", body: `{"code":"` + code + `"}`},
		{name: "a code that nobody made", url: "/api/v1/enrolments/options", body: `{"code":"` + c.input("made-up code") + `"}`},
		{name: "a credential that is none", url: "/api/v1/sessions", body: `{"credential":{"id":"` + c.input("made-up credential") + `"}}`},
		{name: "a decision that is none", url: "/api/v1/approvals/" + id + "/challenge", body: `{"decision":"` + c.input("made-up decision") + `"}`},
		{name: "a signature that is none", url: "/api/v1/approvals/" + id + "/signatures", body: `{"decision":"approve","credential":{"id":"` + c.input("made-up signature") + `"}}`},
		{name: "an approval that is none", url: "/api/v1/approvals/" + c.input("made-up approval") + "/challenge", body: `{"decision":"approve"}`},
	} {
		bad.method, bad.url = http.MethodPost, console+bad.url
		bad.header = map[string]string{"Content-Type": "application/json", "Origin": console, "Sec-Fetch-Site": "same-origin"}
		if status, _, body := c.send(bo.client, bad); status < 400 {
			c.t.Errorf("%s: HTTP %d %s", bad.name, status, body)
		}
	}
	for id, decision := range map[string]string{id: counterfoil.DecisionApprove, denied: counterfoil.DecisionDeny} {
		if r, err := bo.decide(c.t.Context(), id, decision, ""); err != nil || r.code != allowed {
			c.t.Fatalf("bo decides %s: %+v %v", id, r, err)
		}
	}
	if id := call(argument); id != "" {
		c.t.Errorf("what bo approved was refused with %s", id)
	}
	for _, args := range [][]string{{"person", "list"}, {"person", "list", "--json"}, {"approval", "list"}, {"approval", "list", "--json"}} {
		c.must("", append(args, "--data", c.data)...)
	}
}

// session takes the cookie of a person's session for a secret.
func (c *cage) session(p *demoPerson) {
	c.t.Helper()
	u, err := url.Parse(p.console)
	if err != nil {
		c.t.Fatal(err)
	}
	cookies := p.client.Jar.Cookies(u)
	if len(cookies) == 0 {
		c.t.Fatal("the console gave no cookie")
	}
	for _, cookie := range cookies {
		c.secret("a session of the console", cookie.Value)
	}
}
