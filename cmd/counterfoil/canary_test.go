package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil/credential"
)

// A canary is a value that is planted in one place and looked for in all
// others: a secret of the product's, or what somebody sends.
type canary struct {
	name  string
	value []byte
	sent  bool // an input that is no secret: its own answer may say what was wrong with it
}

// needles are the spellings in which a value is looked for: as it is, in hex,
// percent-encoded, as JSON writes it, and in base64 of either alphabet, whatever
// stands before it.
func needles(value []byte) [][]byte {
	out := [][]byte{value, []byte(hex.EncodeToString(value)), []byte(strings.ToUpper(hex.EncodeToString(value)))}
	if text := string(value); url.QueryEscape(text) != text {
		out = append(out, []byte(url.QueryEscape(text)), []byte(url.PathEscape(text)))
	}
	if b, err := json.Marshal(string(value)); err == nil && !bytes.Equal(b[1:len(b)-1], value) {
		out = append(out, b[1:len(b)-1])
	}
	for before := range 3 {
		text := base64.StdEncoding.EncodeToString(append(make([]byte, before), value...))
		// The first characters hold what stands before, the last what follows.
		text = strings.TrimRight(text, "=")[[]int{0, 2, 3}[before]:]
		text = text[:len(text)-1]
		out = append(out, []byte(text), []byte(strings.NewReplacer("+", "-", "/", "_").Replace(text)))
	}
	return out
}

// An aviary is what was planted, and what it was looked for in.
type aviary struct {
	t        *testing.T
	canaries []canary
	needles  [][][]byte // by canary
	looked   int        // places
	size     int        // bytes
}

func (v *aviary) add(name string, value []byte, sent bool) {
	v.t.Helper()
	if len(value) < 16 {
		v.t.Fatalf("%s is too short to look for: %d bytes", name, len(value))
	}
	v.canaries = append(v.canaries, canary{name, value, sent})
	v.needles = append(v.needles, needles(value))
}

// secret plants a value that is nowhere but where it belongs.
func (v *aviary) secret(name, value string) string {
	v.t.Helper()
	v.add(name, []byte(value), false)
	return value
}

// input makes a value to be sent in some place of a request.
func (v *aviary) input(name string) string {
	v.t.Helper()
	value := "cnry" + hex.EncodeToString([]byte(fmt.Sprintf("%02d", len(v.canaries)))) + strings.ToLower(strings.NewReplacer("/", "", " ", "").Replace(name)) + "xq7"
	for len(value) < 24 {
		value += "z"
	}
	v.add(name, []byte(value), true)
	return value
}

// found returns the names of the canaries in a text.
func (v *aviary) found(text []byte) map[string]bool {
	found := map[string]bool{}
	for i, c := range v.canaries {
		for _, n := range v.needles[i] {
			if bytes.Contains(text, n) {
				found[c.name] = true
			}
		}
	}
	return found
}

// wantNone fails the test for each canary in a place, but for those that may be
// there.
func (v *aviary) wantNone(place string, text []byte, may ...string) {
	v.t.Helper()
	v.looked++
	v.size += len(text)
	for _, name := range slices.Sorted(maps.Keys(v.found(text))) {
		if slices.Contains(may, name) {
			continue
		}
		v.t.Errorf("%s: %s", place, name)
	}
}

// wantFound is the control: what may be there is found there, so that looking
// finds.
func (v *aviary) wantFound(place string, text []byte, names ...string) {
	v.t.Helper()
	found := v.found(text)
	for _, name := range names {
		if !found[name] {
			v.t.Errorf("%s: %s is not there, and should be", place, name)
		}
	}
}

// wantOwn looks at the answer to a request: it may tell what was wrong with what
// was sent in it, but no secret and nothing of anybody else.
func (v *aviary) wantOwn(place string, text []byte, sent []byte) {
	v.t.Helper()
	v.looked++
	v.size += len(text)
	own := v.found(sent)
	for _, c := range v.canaries {
		if found := v.found(text)[c.name]; found && !(c.sent && own[c.name]) {
			v.t.Errorf("the answer to %s: %s\n%s", place, c.name, text)
		}
	}
}

// private returns the private scalar or seed of a key.
func private(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	switch k := key.(type) {
	case ed25519.PrivateKey:
		return k.Seed()
	case *ecdsa.PrivateKey:
		b, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return b
	case *rsa.PrivateKey:
		return k.Primes[0].Bytes()
	}
	t.Fatalf("a key of type %T", key)
	return nil
}

// keyFile plants a private key as PEM holds it and as its bytes.
func (v *aviary) keyFile(name string, text []byte) {
	v.t.Helper()
	key, err := credential.ParsePrivateKeyPEM(text)
	if err != nil {
		v.t.Fatal(err)
	}
	v.add(name, private(v.t, key), false)
	v.secret(name+" in PEM", strings.Split(string(text), "\n")[1][:40])
}
