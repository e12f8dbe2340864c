package counterfoil_test

import (
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
)

func TestMayForward(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"X-Tenant", "Api-Version", "X-Request-Id", "Range", "Accept", "If-Match"} {
		if !counterfoil.MayForward(name) || !counterfoil.MayForward(strings.ToLower(name)) {
			t.Errorf("%s may not be forwarded", name)
		}
	}
	for _, name := range []string{
		"Authorization", "DPoP", "Cookie", "Signature", "Signature-Input", "Repr-Digest", "X-Host", "X-Original-Host", "X-Original-URL", "X-Rewrite-URL", "Idempotency-Key",
		"X-HTTP-Method-Override", "X_HTTP_Method_Override", "X-HTTP_Method-Override", "X-Forwarded-For", "X_Forwarded_For", "X-Envoy-Original-Path", "Proxy-Connection",
		"Sec-WebSocket-Key", "Counterfoil-Approval", "Request-Range", "Te", "",
	} {
		if counterfoil.MayForward(name) || counterfoil.MayForward(strings.ToLower(name)) {
			t.Errorf("%s may be forwarded", name)
		}
	}
}
