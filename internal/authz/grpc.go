package authz

import (
	"context"
	"maps"
	"math"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/counterfoil/counterfoil"
)

// Keys of the context extensions: what the proxy's configuration says of a route.
const (
	extensionResource = "resource"

	// extensionBody is "sent" where the filter has with_request_body on the route:
	// what then comes without a body has none.
	extensionBody = "request_body"
	bodySent      = "sent"
)

// newServer makes the gRPC side. Connections are the HTTP server's. A message may be as
// large as any proxy can make one, which its own configuration bounds: one that was
// refused here would be a failure to the proxy, where in [authorization.judge] it is a no.
func newServer(h *Handler) *grpc.Server {
	s := grpc.NewServer(grpc.MaxRecvMsgSize(math.MaxInt32), grpc.ForceServerCodecV2(lenient{encoding.GetCodecV2(grpcproto.Name)}))
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: auth.Authorization_ServiceDesc.ServiceName,
		HandlerType: auth.Authorization_ServiceDesc.HandlerType,
		Metadata:    auth.Authorization_ServiceDesc.Metadata,
		Methods:     []grpc.MethodDesc{{MethodName: "Check", Handler: check}},
	}, authorization{h: h})
	return s
}

// An incoming is a question, or why it cannot be read.
type incoming struct {
	auth.CheckRequest
	err error
}

// lenient reads an incoming without an error, which gRPC would answer with a status of
// its own: a failure to the proxy, and no refusal.
type lenient struct{ encoding.CodecV2 }

func (l lenient) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(*incoming)
	if !ok {
		return l.CodecV2.Unmarshal(data, v)
	}
	in.err = l.CodecV2.Unmarshal(data, &in.CheckRequest)
	return nil
}

// check reads one question and has it answered.
func check(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // the order is gRPC's
	s, in := srv.(authorization), new(incoming)
	if err := decode(in); err != nil {
		return nil, err // the connection's
	}
	if in.err != nil {
		id := counterfoil.NewID("req_")
		return denied(id, s.h.refused(id, counterfoil.Refuse(counterfoil.RequestMalformed, "the question cannot be read"))), nil
	}
	return s.Check(ctx, &in.CheckRequest)
}

// An authorization answers Envoy's filter where it has a grpc_service.
type authorization struct {
	auth.UnimplementedAuthorizationServer
	h *Handler
}

// Check answers one question. It returns no error: Envoy takes one for a failure of
// ours, and a filter that says failure_mode_allow then lets the request through.
func (s authorization) Check(ctx context.Context, r *auth.CheckRequest) (*auth.CheckResponse, error) {
	id := counterfoil.NewID("req_")
	a := s.h.judged(id, func() (counterfoil.Answer, error) { return s.judge(ctx, id, r.GetAttributes()) })
	if !a.Allow {
		return denied(id, a), nil
	}
	ok := &auth.OkHttpResponse{HeadersToRemove: removed(a)}
	for _, name := range sorted(a.Set) {
		ok.Headers = append(ok.Headers, option(name, a.Set[name]))
	}
	return &auth.CheckResponse{
		Status:       status.New(codes.OK, "").Proto(),
		HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: ok},
	}, nil
}

func (s authorization) judge(ctx context.Context, id string, about *auth.AttributeContext) (counterfoil.Answer, error) {
	r := about.GetRequest().GetHttp()
	if r == nil {
		return counterfoil.Answer{}, counterfoil.Refuse(counterfoil.RequestMalformed, "the question is not about an HTTP request")
	}
	said := about.GetContextExtensions()
	header := headersOf(r)
	q, err := s.h.question(id, pointExtAuthzGRPC, said[extensionResource], r.GetMethod(), r.GetPath(), header, s.source(about, header))
	if err != nil {
		return counterfoil.Answer{}, err
	}
	body, exact := bodyOf(r)
	if int64(len(body)) > s.h.cfg.MaxBody {
		return counterfoil.Answer{}, counterfoil.Refuse(counterfoil.PayloadTooLarge, "the body is larger than %d bytes", s.h.cfg.MaxBody)
	}
	if exact && isWhole(header[partialBody], len(body) > 0, said[extensionBody] == bodySent) && isLong(header["Content-Length"], len(body)) {
		q.Body, q.BodyKnown = body, true
	}
	return s.h.ask(ctx, q), nil
}

// headersOf returns the request's headers. Envoy has joined those of one name with
// commas, unless it sends them raw.
func headersOf(r *auth.AttributeContext_HttpRequest) http.Header {
	out := http.Header{}
	add := func(name, value string) {
		if !strings.HasPrefix(name, ":") { // RFC 9113, Section 8.3: not a header
			out.Add(name, value)
		}
	}
	for name, value := range r.GetHeaders() {
		add(name, value)
	}
	for _, v := range r.GetHeaderMap().GetHeaders() {
		if raw := v.GetRawValue(); raw != nil {
			add(v.GetKey(), string(raw))
			continue
		}
		add(v.GetKey(), v.GetValue())
	}
	return out
}

// bodyOf returns the body, and whether it is what was sent, byte for byte: text has
// got "!" for what is no UTF-8, and the request goes upstream without that.
func bodyOf(r *auth.AttributeContext_HttpRequest) (body []byte, exact bool) {
	if raw := r.GetRawBody(); len(raw) > 0 {
		return raw, r.GetBody() == ""
	}
	return []byte(r.GetBody()), !strings.Contains(r.GetBody(), "!")
}

// isLong reports whether a body is as long as the request says that it is, if it says
// so.
func isLong(said []string, n int) bool {
	return len(said) == 0 || len(said) == 1 && said[0] == strconv.Itoa(n)
}

// source says where the request comes from: from whom the proxy has it, or, where that
// is a trusted proxy too, as X-Forwarded-For says.
func (s authorization) source(about *auth.AttributeContext, header http.Header) netip.Addr {
	at := about.GetSource().GetAddress().GetSocketAddress()
	if at == nil {
		return netip.Addr{}
	}
	return s.h.cfg.Source(&http.Request{
		RemoteAddr: net.JoinHostPort(at.GetAddress(), strconv.FormatUint(uint64(at.GetPortValue()), 10)),
		Header:     http.Header{"X-Forwarded-For": header["X-Forwarded-For"]},
	})
}

// denied is a no. A response without a status is a yes to Envoy.
func denied(id string, a counterfoil.Answer) *auth.CheckResponse {
	wire := a.Status
	if _, known := typev3.StatusCode_name[int32(wire)]; !known || wire < 400 {
		wire = http.StatusForbidden
	}
	code := codes.PermissionDenied
	if wire == http.StatusUnauthorized {
		code = codes.Unauthenticated
	}
	headers := explained(a)
	headers.Set("Cache-Control", "no-store")
	headers.Set("X-Request-Id", id)
	no := &auth.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode(wire)}}
	for _, name := range sorted(headers) {
		no.Headers = append(no.Headers, option(name, headers[name]))
	}
	if utf8.Valid(a.Body) {
		no.Body = string(a.Body)
	}
	return &auth.CheckResponse{
		Status:       status.New(code, "").Proto(),
		HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: no},
	}
}

// option is a header that replaces the one of its name. Several values, such as
// challenges, are one list (RFC 9110, Section 5.3). Envoy's default here is to replace,
// by one of two fields; the other says the same.
func option(name string, values []string) *core.HeaderValueOption {
	return &core.HeaderValueOption{
		Header:       &core.HeaderValue{Key: strings.ToLower(name), Value: strings.Join(values, ", ")},
		AppendAction: core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

func sorted(h http.Header) []string { return slices.Sorted(maps.Keys(h)) }
