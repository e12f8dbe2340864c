package agent

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"unicode"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
)

// What a server says of why it refused is one line of printable text, and its
// code is of the form of one.
func FuzzReadAnswered(f *testing.F) {
	f.Add([]byte(`{"code":"proof_replayed","detail":"a\u001b[2J","request_id":"req_1"}`))
	f.Add([]byte(`{"error":"use_dpop_nonce","error_description":"x"}`))
	f.Add([]byte(`{"code":"approval_required","approval":{"id":"apr_1","interval":5}}`))
	f.Add([]byte(`{"code":"A B"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		a := readAnswered(body)
		for _, s := range []string{a.Detail, a.OAuth, a.RequestID, string(a.Code)} {
			if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) || len(s) > 4*501 {
				t.Errorf("%q is passed on as %q", body, s)
			}
		}
		if err := a.err(); (err == nil) != (a.Code == "") || err != nil && counterfoil.CodeOf(err) == "" {
			t.Errorf("%q is %v", body, err)
		}
	})
}

// Metadata that is taken is the issuer's own or the resource's own, and every
// address in it that is used is one over TLS or on loopback.
func FuzzMetadata(f *testing.F) {
	const id = "https://issuer.example"
	f.Add([]byte(`{"issuer":"https://issuer.example","token_endpoint":"https://issuer.example/oauth/token","dpop_signing_alg_values_supported":["ES256"]}`))
	f.Add([]byte(`{"resource":"https://issuer.example","authorization_servers":["https://a.example"]}`))
	f.Add([]byte(`{"issuer":"https://issuer.example","token_endpoint":"http://169.254.169.254/","dpop_signing_alg_values_supported":["ES256"]}`))
	key, err := credential.GenerateKey(credential.ES256)
	if err != nil {
		f.Fatal(err)
	}
	signer, err := credential.NewSigner(key)
	if err != nil {
		f.Fatal(err)
	}
	i, err := newIssuer(id, signer, nil, nil)
	if err != nil {
		f.Fatal(err)
	}
	safe := func(t *testing.T, raw string) {
		u, err := url.Parse(raw)
		if err != nil || u.User != nil || u.Scheme != "https" && !loopbackHost(u.Hostname()) {
			t.Errorf("the address %q is taken: %v", raw, err)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var m metadata
		if ijson.UnmarshalLax(body, &m) == nil && i.check(&m) == nil {
			if m.Issuer != id {
				t.Errorf("%q is taken for %s", body, id)
			}
			safe(t, m.TokenEndpoint)
		}
		if info, err := readResourceInfo(id, body); err == nil {
			if info.Resource != id || len(info.Issuers) == 0 {
				t.Errorf("%q is read as %+v", body, info)
			}
			for _, s := range info.Issuers {
				safe(t, s)
			}
		}
	})
}

// The lines of a client are its lines without outer blanks, in order.
func FuzzReadLines(f *testing.F) {
	f.Add([]byte("{}\n\n {\"a\":1}\r\nlast"))
	f.Fuzz(func(t *testing.T, in []byte) {
		lines := make(chan line)
		go readLines(t.Context(), bytes.NewReader(in), lines)
		var want [][]byte
		for l := range bytes.SplitSeq(in, []byte("\n")) {
			if l = bytes.TrimSpace(l); len(l) > 0 {
				want = append(want, l)
			}
		}
		for l := range lines {
			if l.err != nil || l.tooLong || len(want) == 0 || !bytes.Equal(l.text, want[0]) {
				t.Fatalf("%q has the line %q, %v", in, l.text, l.err)
			}
			want = want[1:]
		}
		if len(want) > 0 {
			t.Fatalf("of %q the lines %q are missing", in, want)
		}
	})
}

// A reply of any form is read without harm, and answers only the call whose id
// it has.
func FuzzParseReply(f *testing.F) {
	f.Add([]byte(`{"jsonrpc":"2.0","id":7,"result":{}}`))
	f.Add([]byte(`{"id":"7","error":{"code":1},"error":2}`))
	f.Add([]byte("{\"id\":7.0,\"result\":\"\xff\"}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseReply(b)
		if err != nil {
			return
		}
		other := message{id: []byte(`"another"`), method: "ping"}
		if r.answers(&other) && key(r.ID) != key(other.id) {
			t.Errorf("%q answers %s", b, other.id)
		}
	})
}

// Whatever the definitions and the arguments of a tool are, what is mirrored
// goes into one header line and is read back as the argument.
func FuzzMirrors(f *testing.F) {
	f.Add([]byte(`{"properties":{"region":{"type":"string","x-mcp-header":"Region"}}}`), []byte(`{"region":"eu\nwest"}`))
	f.Add([]byte(`{"properties":{"a":{"properties":{"b":{"x-mcp-header":"B"}}}}}`), []byte(`{"a":{"b":1e2}}`))
	f.Add([]byte(`{"properties":{"a":{"x-mcp-header":"B C"}}}`), []byte(`{"a":true}`))
	f.Fuzz(func(t *testing.T, schema, arguments []byte) {
		for _, m := range mirrorsOf(nil, nil, schema) {
			v, ok := m.value(arguments)
			if !ok {
				continue
			}
			h := headerValue(v)
			if strings.ContainsFunc(m.header+h, func(r rune) bool { return r < ' ' || r > '~' }) || strings.ContainsAny(m.header, " :,") {
				t.Fatalf("%s has the header %q: %q", arguments, m.header, h)
			}
			if text, encoded := strings.CutPrefix(h, "=?base64?"); encoded {
				b, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(text, "?="))
				if h = string(b); err != nil {
					t.Fatal(err)
				}
			}
			if h != v {
				t.Fatalf("%q is written as %q", v, h)
			}
		}
		if json.Valid(arguments) {
			b := &bridge{mirrors: map[string][]mirror{}}
			b.learn([]byte(`{"tools":[{"name":"t","inputSchema":` + string(arguments) + `}]}`))
		}
	})
}
