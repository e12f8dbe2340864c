package main

import (
	"os"
	"path/filepath"
	"strings"
)

// reported takes authority away in every way that is given a secret: reports of leaks,
// a revocation by the whole token, a rotation. None of it is written anywhere, nor what
// was no secret after all.
func (c *cage) reported() {
	c.t.Helper()
	key := filepath.Join(c.dir, "reported.key")
	ask := []string{"agent", "enroll-code", "payroll", "--data", c.data}
	code := strings.TrimSpace(c.must("", ask...))
	c.alone(ask...)
	c.secret("the code of an instance to be reported", code)
	who := []string{"--issuer", c.issuer, "--agent", "payroll", "--key", key}
	c.must(code+"\n", append([]string{"enroll"}, who...)...)
	read := func(name string) string {
		text, err := os.ReadFile(key)
		if err != nil {
			c.t.Fatal(err)
		}
		c.keyFile(name, text)
		return string(text)
	}
	read("a key before its rotation")
	c.must("", append([]string{"rotate", "--overlap", "1m"}, who...)...)
	private := read("a key after its rotation")
	token := func(name string) string {
		args := append([]string{"token", "--resource", "hashed"}, who...)
		tok := strings.TrimSpace(c.must("", args...))
		c.alone(args...)
		c.secret(name, signature(tok))
		return tok
	}
	c.must(token("a token that is revoked by the whole of it"), "revoke", "token", "-", "--reason", "found in a log", "--data", c.data)
	for _, found := range []string{token("a token that leaked"), private, code} {
		c.must(found, "leaked", "--issuer", c.issuer)
	}
	for _, found := range []string{
		c.input("a report of nothing"), `{"token":"` + c.input("a report in JSON") + `"}`, "eyJhbGciOiJub25lIn0.e30." + c.input("a report of a token that is none"),
		"cfe_" + c.input("a report of a code that is none"), "-----BEGIN PRIVATE KEY-----\n" + c.input("a report of a key that is none") + "\n-----END PRIVATE KEY-----\n",
	} {
		if _, ok := c.exec(found, "leaked", "--issuer", c.issuer); ok {
			c.t.Errorf("%q is recognised as a secret of ours", found)
		}
	}
	if _, ok := c.exec("", append([]string{"token", "--resource", "hashed"}, who...)...); ok {
		c.t.Error("the key that leaked gets tokens")
	}
	c.exec("", "leaked", "--issuer", c.issuer, c.input("a report on the command line"))
	c.exec("", "revoke", "token", c.input("a token on the command line")+".e30.x", "--reason", "x", "--data", c.data)
}
