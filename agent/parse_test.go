package agent

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseChallenges(t *testing.T) {
	t.Parallel()
	type params = map[string]string
	for in, want := range map[string][]challenge{
		``:                            nil,
		`, ,`:                         nil,
		`DPoP`:                        {{"dpop", params{}}},
		`Bearer, DPoP algs="ES256"`:   {{"bearer", params{}}, {"dpop", params{"algs": "ES256"}}},
		`DPoP algs="a b", error="e"`:  {{"dpop", params{"algs": "a b", "error": "e"}}},
		`DPoP error = e ,realm="a,b"`: {{"dpop", params{"error": "e", "realm": "a,b"}}},
		`Basic realm="x", DPoP ERROR=e, Bearer error=f`: {{"basic", params{"realm": "x"}}, {"dpop", params{"error": "e"}}, {"bearer", params{"error": "f"}}},
		`DPoP error="a\"b\\c"`:                          {{"dpop", params{"error": `a"b\c`}}},
		`DPoP error=first, error=last`:                  {{"dpop", params{"error": "first"}}},
		`Negotiate abc==, DPoP error=e`:                 {{"negotiate", params{"abc": ""}}, {"dpop", params{"error": "e"}}},
		`error="use_dpop_nonce"`:                        nil, // of no scheme
		`DPoP error="unterminated`:                      {{"dpop", params{"error": ""}}},
		"DPoP \x00, DPoP error=e":                       {{"dpop", params{}}, {"dpop", params{"error": "e"}}},
	} {
		if got := parseChallenges(in); !reflect.DeepEqual(got, want) {
			t.Errorf("%q\n got %v\nwant %v", in, got, want)
		}
	}
	if got := challengeParam([]string{`Bearer error="invalid_token"`, `DPoP error="use_dpop_nonce"`}, "dpop", "error"); got != useNonce {
		t.Errorf("error %q", got)
	}
	if got := challengeParam([]string{`Bearer error="use_dpop_nonce"`}, "dpop", "error"); got != "" {
		t.Errorf("the error of another scheme counts: %q", got)
	}
}

func FuzzParseChallenges(f *testing.F) {
	f.Add(`Bearer, DPoP algs="ES256", error="use_dpop_nonce"`)
	f.Add(`DPoP error="\"`)
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range parseChallenges(s) {
			if c.scheme == "" || c.params == nil {
				t.Errorf("%q has an empty challenge", s)
			}
		}
	})
}

func TestReadEvents(t *testing.T) {
	t.Parallel()
	read := func(in string) (all []event, err error) {
		err = readEvents(strings.NewReader(in), func(e event) error {
			all = append(all, e)
			return nil
		})
		return all, err
	}
	for in, want := range map[string][]event{
		"":                           nil,
		"data: a\n\n":                {{name: "message", data: []byte("a")}},
		"\xef\xbb\xbfdata:a\r\n\r\n": {{name: "message", data: []byte("a")}},
		"data: a\ndata:  b\n\n":      {{name: "message", data: []byte("a\n b")}},
		": ping\ndata\n\n":           {{name: "message", data: []byte("")}},
		"event: x\nid: 7\nretry: 20\n\ndata:1\n\n":     {{name: "x", id: "7", retry: 20 * time.Millisecond}, {name: "message", data: []byte("1")}},
		"id: a\x00b\nretry: -1\nother: x\ndata: a\n\n": {{name: "message", data: []byte("a")}},
		"data: a\n\ndata: cut off":                     {{name: "message", data: []byte("a")}},
	} {
		got, err := read(in)
		if err != nil {
			t.Errorf("%q: %v", in, err)
		}
		for i := range got {
			if len(got[i].data) == 0 {
				got[i].data = nil
			}
		}
		for i := range want {
			if len(want[i].data) == 0 {
				want[i].data = nil
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q\n got %+v\nwant %+v", in, got, want)
		}
	}
	if _, err := read("data: " + strings.Repeat("x", maxMessage)); err == nil {
		t.Error("an endless line was read")
	}
	if _, err := read(strings.Repeat("data: "+strings.Repeat("x", 1<<20)+"\n", 17)); err == nil {
		t.Error("an endless event was read")
	}
	stop := errors.New("stop")
	if err := readEvents(strings.NewReader("data: a\n\n"), func(event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

func FuzzReadEvents(f *testing.F) {
	f.Add("event: x\nid: 7\nretry: 20\n\ndata:1\r\n\r\n")
	f.Fuzz(func(_ *testing.T, s string) {
		_ = readEvents(strings.NewReader(s), func(event) error { return nil })
	})
}

func TestParseMessage(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]message{
		`{"jsonrpc":"2.0","id":1,"method":"ping"}`:                  {id: []byte("1"), method: "ping"},
		`{"jsonrpc":"2.0","method":"notifications/initialized"}`:    {method: "notifications/initialized"},
		`{"jsonrpc":"2.0","id":"s","result":{}}`:                    {},
		`{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}`: {},
		`{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"pay","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`: {
			id: []byte(`"a"`), method: "tools/call", name: "pay", revision: "2026-07-28"},
		`{"id":1,"method":"resources/read","params":{"uri":"file:///ä"}}`: {id: []byte("1"), method: "resources/read", name: "file:///ä"},
		`{"id":1,"method":"tasks/get","params":{"taskId":"t"}}`:           {id: []byte("1"), method: "tasks/get", name: "t"},
		`{"method":"notifications/cancelled","params":{"requestId":"x"}}`: {method: "notifications/cancelled", refersTo: []byte(`"x"`)},
		`{"id":1,"method":"tools/call","params":{"name":5,"_meta":[]}}`:   {id: []byte("1"), method: "tools/call"},
	} {
		got, err := parseMessage([]byte(in))
		want.raw = []byte(in)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s\n got %+v, %v\nwant %+v", in, got, err, want)
		}
	}
	for _, in := range []string{
		``, `null`, `1`, `[]`, `[{"jsonrpc":"2.0","id":1,"method":"ping"}]`, `{`, `{}{}`,
		`{"id":1}`, `{"id":null,"method":"ping"}`, `{"id":true,"method":"ping"}`, `{"id":{},"result":1}`, `{"result":1}`,
		`{"id":1,"method":5}`, `{"id":1,"method":""}`, `{"id":1,"id":2,"method":"ping"}`, `{"id":1,"method":"ping","Method":"tools/call"}`,
		`{"id":9007199254740993,"method":"ping"}`, "{\"id\":1,\"method\":\"ping\",\"params\":{\"a\":\"\xff\"}}",
	} {
		if got, err := parseMessage([]byte(in)); err == nil {
			t.Errorf("%s was taken: %+v", in, got)
		}
	}
}

func FuzzParseMessage(f *testing.F) {
	f.Add([]byte(`{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"pay","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMessage(b)
		if err == nil && m.isCall() && m.method == "" {
			t.Errorf("%q is a call without a method", b)
		}
	})
}

func TestHeaderValue(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"get_balance": "get_balance", "file:///a b": "file:///a b", "": "",
		"ä": "=?base64?w6Q=?=", " a": "=?base64?IGE=?=", "a\nb": "=?base64?YQpi?=", "=?base64?x?=": "=?base64?PT9iYXNlNjQ/eD89?=",
	} {
		if got := headerValue(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	if got := printable("a\x1b[31mb\nc\u202ed"); got != "a [31mb c d" {
		t.Errorf("%q", got)
	}
	if got := []rune(printable(strings.Repeat("ä", 1000))); len(got) != 501 {
		t.Errorf("%d characters", len(got))
	}
}

func TestMetadataURL(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"https://id.example.com":        "https://id.example.com/.well-known/oauth-authorization-server",
		"https://id.example.com/":       "https://id.example.com/.well-known/oauth-authorization-server",
		"https://id.example.com:8/a/b":  "https://id.example.com:8/.well-known/oauth-authorization-server/a/b",
		"https://id.example.com/a%2Fb/": "https://id.example.com/.well-known/oauth-authorization-server/a%2Fb",
	} {
		if got := metadataURL(in, "oauth-authorization-server"); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
