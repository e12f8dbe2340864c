package authz_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/counterfoil/counterfoil"
)

// check is what Envoy sends of a request without a body.
func check(resource, method, path string) *auth.CheckRequest {
	return &auth.CheckRequest{Attributes: &auth.AttributeContext{
		Source: peer("203.0.113.9"),
		Request: &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{
			Id: "1234567890", Method: method, Path: path, Host: "evil.example", Scheme: "http", Protocol: "HTTP/1.1",
			Headers: map[string]string{
				":method": method, ":path": path, ":authority": "evil.example", "authorization": "DPoP t", "dpop": "p",
				"x-forwarded-proto": "http", "x-forwarded-host": "evil.example", "x-request-id": "a",
			},
		}},
		ContextExtensions: map[string]string{"resource": resource},
	}}
}

func peer(address string) *auth.AttributeContext_Peer {
	return &auth.AttributeContext_Peer{Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
		Address: address, PortSpecifier: &core.SocketAddress_PortValue{PortValue: 40000},
	}}}}
}

func options(said []*core.HeaderValueOption) http.Header {
	out := http.Header{}
	for _, o := range said {
		out.Add(o.GetHeader().GetKey(), o.GetHeader().GetValue())
	}
	return out
}

// TestGRPCAsksAboutTheRequest: the resource is what the route says, whatever host the
// client named.
func TestGRPCAsksAboutTheRequest(t *testing.T) {
	t.Parallel()
	p := newPoint(t, loopback)
	got, err := p.client.Check(t.Context(), check("crm", "DELETE", "/crm/customers/7?a=1"))
	if err != nil {
		t.Fatal(err)
	}
	ok := got.GetOkResponse()
	if ok == nil || got.GetStatus() == nil || codes.Code(got.GetStatus().GetCode()) != codes.OK {
		t.Fatalf("got %v", got)
	}
	if h := options(ok.GetHeaders()); !reflect.DeepEqual(h, http.Header{"Authorization": {"Bearer upstream"}}) {
		t.Errorf("upstream gets %v", h)
	}
	for _, o := range ok.GetHeaders() {
		if o.GetAppendAction() != core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD || o.GetAppend().GetValue() { //nolint:staticcheck // what older versions of Envoy read
			t.Errorf("%s does not replace the client's", o.GetHeader().GetKey())
		}
	}
	if !slices.Equal(ok.GetHeadersToRemove(), []string{"cookie", "dpop"}) {
		t.Errorf("%q are removed", ok.GetHeadersToRemove())
	}
	asked := p.take()
	if len(asked) != 1 || asked[0].RequestID == "" {
		t.Fatalf("asked %+v", asked)
	}
	asked[0].RequestID = ""
	want := counterfoil.Question{
		Point: "ext_authz_grpc", Resource: "crm", Method: "DELETE", Path: "/customers/7", Query: "a=1", Source: netip.MustParseAddr("203.0.113.9"),
		Header: http.Header{"Authorization": {"DPoP t"}, "Dpop": {"p"}, "X-Forwarded-Host": {"evil.example"}, "X-Request-Id": {"a"}},
	}
	if !reflect.DeepEqual(asked[0], want) {
		t.Errorf("asked\n%+v, want\n%+v", asked[0], want)
	}
}

// TestGRPCTakesHeadersThatAreSentRaw: with encode_raw_headers one comes beside another
// of its name.
func TestGRPCTakesHeadersThatAreSentRaw(t *testing.T) {
	t.Parallel()
	p := newPoint(t, loopback)
	r := check("crm", "GET", "/crm/x")
	h := r.GetAttributes().GetRequest().GetHttp()
	h.Headers = nil
	h.HeaderMap = &core.HeaderMap{Headers: []*core.HeaderValue{
		{Key: ":path", RawValue: []byte("/crm/x")}, {Key: "dpop", RawValue: []byte("a")}, {Key: "dpop", RawValue: []byte("b")},
		{Key: "x-latin", RawValue: []byte{'c', 'a', 'f', 0xe9}},
	}}
	if _, err := p.client.Check(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	want := http.Header{"Dpop": {"a", "b"}, "X-Latin": {"caf\xe9"}}
	if asked := p.take(); len(asked) != 1 || !reflect.DeepEqual(asked[0].Header, want) {
		t.Errorf("asked %+v", asked)
	}
}

// TestGRPCKnowsABodyThatIsWhole: as Envoy says it, byte for byte.
func TestGRPCKnowsABodyThatIsWhole(t *testing.T) {
	t.Parallel()
	p := newPoint(t, loopback)
	type http = auth.AttributeContext_HttpRequest
	for _, c := range []struct {
		name   string
		change func(*http, map[string]string)
		body   string
		known  bool
	}{
		{"nothing is said of a body", func(*http, map[string]string) {}, "", false},
		{"bytes, whole", func(h *http, _ map[string]string) {
			h.RawBody, h.Headers["x-envoy-auth-partial-body"] = []byte("{\"a\":\"\xff!\"}"), "false"
		}, "{\"a\":\"\xff!\"}", true},
		{"bytes, and nothing is said of them", func(h *http, _ map[string]string) { h.RawBody = []byte("{}") }, "", false},
		{"bytes, the beginning", func(h *http, _ map[string]string) {
			h.RawBody, h.Headers["x-envoy-auth-partial-body"] = []byte("{}"), "true"
		}, "", false},
		{"text, whole", func(h *http, _ map[string]string) {
			h.Body, h.Headers["x-envoy-auth-partial-body"] = `{"a":"é"}`, "false"
		}, `{"a":"é"}`, true},
		{"text in which something may have been replaced", func(h *http, _ map[string]string) {
			h.Body, h.Headers["x-envoy-auth-partial-body"] = `{"a":"!"}`, "false"
		}, "", false},
		{"text and bytes", func(h *http, _ map[string]string) {
			h.Body, h.RawBody, h.Headers["x-envoy-auth-partial-body"] = `{}`, []byte(`{"a":1}`), "false"
		}, "", false},
		{"an empty body, whole", func(h *http, _ map[string]string) { h.Headers["x-envoy-auth-partial-body"] = "false" }, "", true},
		{"as long as the request says", func(h *http, _ map[string]string) {
			h.RawBody, h.Headers["x-envoy-auth-partial-body"], h.Headers["content-length"] = []byte("{}"), "false", "2"
		}, "{}", true},
		{"shorter than the request says", func(h *http, _ map[string]string) {
			h.RawBody, h.Headers["x-envoy-auth-partial-body"], h.Headers["content-length"] = []byte("{}"), "false", "3"
		}, "", false},
		{"every body is sent, and there is none", func(_ *http, said map[string]string) { said["request_body"] = "sent" }, "", true},
		{"every body is sent, and the request says that there is one", func(h *http, said map[string]string) {
			said["request_body"], h.Headers["content-length"] = "sent", "2"
		}, "", false},
		{"every body is sent, of this one the beginning", func(h *http, said map[string]string) {
			said["request_body"], h.RawBody, h.Headers["x-envoy-auth-partial-body"] = "sent", []byte("{}"), "true"
		}, "", false},
	} {
		r := check("crm", "POST", "/crm/x")
		c.change(r.GetAttributes().GetRequest().GetHttp(), r.GetAttributes().GetContextExtensions())
		if _, err := p.client.Check(t.Context(), r); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		asked := p.take()
		if len(asked) != 1 || asked[0].BodyKnown != c.known || string(asked[0].Body) != c.body {
			t.Errorf("%s: asked %+v", c.name, asked)
		}
	}
}

// TestGRPCRefusesWithoutAsking: what is not about a request of a resource, and what
// the other protocols refuse.
func TestGRPCRefusesWithoutAsking(t *testing.T) {
	t.Parallel()
	p := newPoint(t, loopback)
	for _, c := range []struct {
		name   string
		change func(*auth.CheckRequest)
		status int
	}{
		{"the route names no resource", func(r *auth.CheckRequest) { r.GetAttributes().ContextExtensions = nil }, 404},
		{"the route names one that is not there", func(r *auth.CheckRequest) { r.GetAttributes().GetContextExtensions()["resource"] = "nothing" }, 404},
		{"a connection, not a request", func(r *auth.CheckRequest) { r.GetAttributes().Request = nil }, 400},
		{"nothing", func(r *auth.CheckRequest) { r.Attributes = nil }, 400},
		{"a path of another resource", func(r *auth.CheckRequest) { r.GetAttributes().GetRequest().GetHttp().Path = "/crm-2/x" }, 400},
		{"no path", func(r *auth.CheckRequest) { r.GetAttributes().GetRequest().GetHttp().Path = "" }, 400},
		{"no method", func(r *auth.CheckRequest) { r.GetAttributes().GetRequest().GetHttp().Method = "" }, 400},
		{"an upgrade", func(r *auth.CheckRequest) {
			r.GetAttributes().GetRequest().GetHttp().GetHeaders()["upgrade"] = "websocket"
		}, 400},
		{"a body that is too large", func(r *auth.CheckRequest) {
			r.GetAttributes().GetRequest().GetHttp().RawBody = make([]byte, 1<<10+1)
		}, 413},
		{"a body that is larger than gRPC takes by itself", func(r *auth.CheckRequest) {
			r.GetAttributes().GetRequest().GetHttp().RawBody = make([]byte, 8<<20)
		}, 413},
	} {
		r := check("crm", "GET", "/crm/x")
		c.change(r)
		got, err := p.client.Check(t.Context(), r)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		no := got.GetDeniedResponse()
		if asked := p.take(); len(asked) != 0 || no == nil || int(no.GetStatus().GetCode()) != c.status || codes.Code(got.GetStatus().GetCode()) != codes.PermissionDenied {
			t.Errorf("%s: got %v with %d questions", c.name, got, len(asked))
		}
	}
	if _, err := p.client.Check(t.Context(), check("crm", "GET", "/crm/x")); err != nil || len(p.take()) != 1 {
		t.Errorf("the control was not asked about: %v", err)
	}
}

// TestGRPCSaysWhereARequestComesFrom: from whom Envoy has it, unless that is a proxy
// that is trusted, too.
func TestGRPCSaysWhereARequestComesFrom(t *testing.T) {
	t.Parallel()
	p := newPoint(t, loopback, "10.0.0.0/8")
	for _, c := range []struct {
		from      *auth.AttributeContext_Peer
		forwarded string
		want      string
	}{
		{peer("203.0.113.9"), "", "203.0.113.9"},
		{peer("203.0.113.9"), "1.1.1.1", "203.0.113.9"},
		{peer("10.0.0.1"), "1.1.1.1, 203.0.113.9", "203.0.113.9"},
		{peer("10.0.0.1"), "203.0.113.9,10.0.0.1", "203.0.113.9"},
		{peer("10.0.0.1"), "", ""},
		{peer("2001:db8::1"), "", "2001:db8::1"},
		{nil, "1.1.1.1", ""},
	} {
		r := check("crm", "GET", "/crm/x")
		r.GetAttributes().Source = c.from
		if c.forwarded != "" {
			r.GetAttributes().GetRequest().GetHttp().GetHeaders()["x-forwarded-for"] = c.forwarded
		}
		if _, err := p.client.Check(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		asked := p.take()
		if len(asked) != 1 || asked[0].Source.IsValid() != (c.want != "") || c.want != "" && asked[0].Source.String() != c.want {
			t.Errorf("%v, %q: asked %+v", c.from, c.forwarded, asked)
		}
	}
}

// TestAJudgeThatPanicsHasRefused, with every protocol, and the listener goes on.
func TestAJudgeThatPanicsHasRefused(t *testing.T) {
	t.Parallel()
	p := newPoint(t, loopback)
	p.answer = func(counterfoil.Question) counterfoil.Answer { panic("of the test") }
	if got := p.send("GET", "/forward-auth/crm", "", "X-Forwarded-Method: GET", "X-Forwarded-Uri: /crm/x"); got.status != 500 || got.code(t) != counterfoil.Internal {
		t.Errorf("forward-auth: %+v", got)
	}
	if got := p.send("GET", "/ext-authz/crm/crm/x", ""); got.status != 403 || got.code(t) != counterfoil.Internal {
		t.Errorf("ext-authz: %+v", got)
	}
	got, err := p.client.Check(t.Context(), check("crm", "GET", "/crm/x"))
	if err != nil || got.GetDeniedResponse().GetStatus().GetCode() != 500 {
		t.Errorf("gRPC: %v, %v", got, err)
	}
}

// TestGRPCRefusesWhatItCannotRead: a message that is none, or has text that is no UTF-8,
// is refused by a status in the response: an error would let it through where the filter
// fails open.
func TestGRPCRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	p := newPoint(t, loopback)
	good, err := proto.Marshal(check("crm", "GET", "/crm/x"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		message []byte
		allowed bool
	}{
		"the control":           {good, true},
		"text that is no UTF-8": {bytes.Replace(good, []byte("/crm/x"), []byte("/crm/\xff"), 1), false},
		"cut off":               {good[:len(good)-1], false},
		"none":                  {[]byte{0xff}, false},
	} {
		frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(c.message)))
		res, err := p.http2().Do(p.post("/envoy.service.auth.v3.Authorization/Check", "application/grpc", append(frame, c.message...)))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != 200 || res.Trailer.Get("Grpc-Status") != "0" || len(body) < 5 {
			t.Errorf("%s: got %d with %v, %q: %v", name, res.StatusCode, res.Trailer, body, err)
			continue
		}
		var got auth.CheckResponse
		if err := proto.Unmarshal(body[5:], &got); err != nil {
			t.Fatal(err)
		}
		if asked := p.take(); (got.GetOkResponse() != nil) != c.allowed || (got.GetStatus().GetCode() == 0) != c.allowed || (len(asked) == 1) != c.allowed {
			t.Errorf("%s: got %v with %d questions", name, &got, len(asked))
		}
	}
}

// TestThePathAloneSaysWhatIsAsked: that a client says that its request is gRPC makes no
// other question of it, and there is no yes but a judge's: gRPC answers with status 200
// whatever it says.
func TestThePathAloneSaysWhatIsAsked(t *testing.T) {
	t.Parallel()
	p := newPoint(t, loopback)
	http2 := p.http2()
	const rpc = "/envoy.service.auth.v3.Authorization/Check"
	for _, allow := range []bool{true, false} {
		p.answer = allowed
		if !allow {
			p.answer = func(counterfoil.Question) counterfoil.Answer {
				return counterfoil.Answer{Status: 401, Body: []byte("{}")}
			}
		}
		for _, media := range []string{"application/grpc", "application/grpc+proto", "application/grpc-web", "application/json", ""} {
			for path, asks := range map[string]bool{
				"/forward-auth/crm": true, "/ext-authz/crm/crm/x": true, "/ext-authz-with-body/crm/crm/x": true,
				"/ext-authz/crm/envoy.service.auth.v3.Authorization/Check": false,
				"/": false, rpc + "/": false, rpc + "?a": false, "/crm" + rpc: false, "/envoy.service.auth.v3.Authorization/Other": false,
				"/envoy.service.auth.v2.Authorization/Check": false, "/grpc.health.v1.Health/Check": false,
			} {
				res, err := http2.Do(p.post(path, media, nil))
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				asked := p.take()
				if res.ProtoMajor != 2 || (res.StatusCode/100 == 2) != (asks && allow) || (len(asked) == 1) != asks {
					t.Errorf("%s as %q: HTTP/%d, %d with %d questions", path, media, res.ProtoMajor, res.StatusCode, len(asked))
				}
			}
		}
		got, err := p.client.Check(t.Context(), check("crm", "GET", "/crm/x"))
		if err != nil || (got.GetOkResponse() != nil) != allow || len(p.take()) != 1 {
			t.Errorf("the control: %v, %v", got, err)
		}
	}
	// At its own path gRPC is a POST of HTTP/2 with its own type.
	for name, c := range map[string]struct {
		client *http.Client
		method string
		media  string
		status int
	}{
		"GET":      {http2, "GET", "application/grpc", 405},
		"HTTP/1.1": {http.DefaultClient, "POST", "application/grpc", 405},
		"its type": {http2, "POST", "application/json", 415},
	} {
		r := p.post(rpc, c.media, nil)
		r.Method = c.method
		res, err := c.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != c.status || len(p.take()) != 0 {
			t.Errorf("%s: got %d, want %d", name, res.StatusCode, c.status)
		}
	}
}
