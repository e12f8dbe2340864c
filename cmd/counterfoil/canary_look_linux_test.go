package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/counterfoil/counterfoil/internal/daemon"
)

// askedFor are the inputs that the ledger is about: the tool, the method and the
// resource that somebody asked for. They are in its entries and nowhere else.
var askedFor = []string{"form field scope", "body, an unknown method", "unknown target"}

// lookEverywhere ends the server with a dump of its goroutines and looks for
// every canary in everything that came out. Where one may be is said here, and
// nowhere else.
func (c *cage) lookEverywhere(answers [][]byte) {
	t := c.t
	t.Helper()
	management, err := os.ReadFile(filepath.Join(c.data, "management.url"))
	if err != nil {
		t.Fatal(err)
	}
	get := func(target string) []byte {
		resp, err := http.Get(target)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return append(fmt.Appendf(nil, "%v\n", resp.Header), b...)
	}
	admin := strings.TrimSpace(string(management))
	for _, target := range []string{
		admin + "/metrics", admin + "/healthz", admin + "/readyz", c.issuer + "/oauth/jwks", c.issuer + "/.well-known/oauth-authorization-server",
		c.issuer + "/.well-known/oauth-protected-resource/r/hashed", c.issuer + "/ledger/checkpoint",
	} {
		c.wantNone(target, get(target))
	}
	export := filepath.Join(c.dir, "ledger.export")
	c.must("", "ledger", "export", "--data", c.data, "-o", export)
	entries, err := os.ReadFile(export)
	if err != nil {
		t.Fatal(err)
	}
	c.must("", "ledger", "verify", export, "--key", filepath.Join(c.data, daemon.LedgerKeyName))
	for _, args := range [][]string{
		{"agent", "list"}, {"agent", "show", "payroll"}, {"agent", "instances", "payroll"}, {"get", "Agent", "payroll", "-o", "yaml"},
		{"get", "Resource", "hashed", "-o", "yaml"}, {"get", "Class", "--json"}, {"ledger", "tail", "-n", "1000"}, {"ledger", "tail", "-n", "1000", "--json"}, {"ledger", "receipt", "1"},
	} {
		c.must("", append(args, "--data", c.data)...)
	}
	last := bytes.Count(entries, []byte(`"kind":"call.decided"`))
	if last < 10 {
		t.Errorf("only %d decisions", last)
	}

	c.seen("serve", c.server.Process.Pid)
	if err := c.server.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	c.server.Wait()
	if !strings.Contains(c.log.String(), "goroutine ") {
		t.Error("the server's goroutines were not dumped")
	}

	c.wantNone("the server's standard output", []byte(c.out.String()))
	c.wantNone("the server's log", []byte(c.log.String()))
	c.wantNone("the ledger's export", entries, askedFor...)
	for _, name := range slices.Sorted(maps.Keys(c.outputs)) {
		// What a person wrote on this very command line or into this very file may
		// be said to them; secrets are in neither.
		may := c.sentAs(name)
		if strings.Contains(name, " of ledger tail ") {
			may = append(may, askedFor...)
		}
		c.wantNone(name, c.outputs[name], may...)
	}
	for _, name := range slices.Sorted(maps.Keys(c.cmdlines)) {
		c.wantNone(name, c.cmdlines[name], "environment", "foreign environment")
	}
	c.lookAtFiles()

	// The controls: what belongs somewhere is there, so looking finds.
	c.bank.mu.Lock()
	defer c.bank.mu.Unlock()
	arguments := []string{"an argument of a counted class", "an argument of a hashed class", "an argument of a kept class", "an argument in a session", "an argument over stdio"}
	c.wantFound("what the bank heard", c.bank.heard.Bytes(), append([]string{"the bank's credential"}, arguments...)...)
	c.wantNone("what the bank heard", c.bank.heard.Bytes(), c.mayReachTheBank()...)
	c.wantFound("what the caller was told", bytes.Join(answers, nil), arguments[:3]...)
	c.wantNone("what the caller was told", bytes.Join(answers, nil), arguments...)
	c.wantFound("the environment", c.cmdlines["environment of serve"], "environment")
}

// sentAs returns the inputs that are named on a command's own line.
func (c *cage) sentAs(name string) []string {
	var own []string
	found := c.found([]byte(name))
	for _, k := range c.canaries {
		if k.sent && found[k.name] {
			own = append(own, k.name)
		}
	}
	return own
}

// mayReachTheBank are the arguments, which are for it, its own credential and its
// own session ids, and what of a message it is given.
func (c *cage) mayReachTheBank() []string {
	var names []string
	for _, k := range c.canaries {
		if strings.Contains(k.name, "argument") || strings.HasPrefix(k.name, "the bank's ") || strings.HasPrefix(k.name, "body, ") || k.name == "client name" {
			names = append(names, k.name)
		}
	}
	return names
}

// readByPeople are the arguments of calls that people were asked about: the database
// has what they read until its approval's deadline, and no other place does.
var readByPeople = []string{"an argument that people read", "an argument that people denied"}

// comparedByTheServer is what repeated calls are known by: the database has it as long
// as a repeat may come.
const comparedByTheServer = "header Idempotency-Key"

// lookAtFiles reads every file of the server's. In the database is nothing but
// the arguments of the class that keeps them and of the calls that people were asked
// about; the two files that hold a secret are the operator's own.
func (c *cage) lookAtFiles() {
	t := c.t
	t.Helper()
	kept, read := false, false
	err := filepath.WalkDir(c.data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(c.data, path)
		if err != nil {
			return err
		}
		switch name {
		case "kek":
			c.wantFound(name, b, "the key-encryption key")
			c.wantNone(name, b, "the key-encryption key")
		case "secrets/bank-token":
			c.wantFound(name, b, "the bank's credential")
			c.wantNone(name, b, "the bank's credential")
		default:
			kept = kept || c.found(b)["an argument of a kept class"]
			may := append(slices.Clone(askedFor), "an argument of a kept class")
			if strings.HasPrefix(name, "counterfoil.db") {
				may = append(append(may, readByPeople...), comparedByTheServer)
				read = read || c.found(b)[readByPeople[0]]
			}
			c.wantNone("the file "+name, b, may...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !kept {
		t.Error("no file has the argument of the class that keeps it")
	}
	if !read {
		t.Error("no file has the argument that people read")
	}
}
