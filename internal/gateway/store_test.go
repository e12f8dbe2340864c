package gateway_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/internal/store"
	"github.com/counterfoil/counterfoil/ledger"
	"github.com/counterfoil/counterfoil/resource"
)

// The store is what the gateway writes to.
var (
	_ gateway.Recorder    = (*store.Store)(nil)
	_ resource.Revocation = (*store.Store)(nil)
	_ gateway.Pins        = (*store.Store)(nil)
	_ gateway.Tasks       = (*store.Store)(nil)
	_ gateway.Feed        = (*store.Store)(nil)
)

// TestAgainstTheStore reads the whole log as an auditor does: it verifies with
// the public key alone, and offboarding stopped a live token at once.
func TestAgainstTheStore(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w, a := bankWorld(t)
	a.scope = []string{"get_balance", "region"}
	token := a.token(nil)
	call := func(body string) reply {
		return a.post(body, func(r *http.Request) { use(a, r, token) })
	}
	wantDone(t, call(toolCall("get_balance", `{"account":"a"}`)))
	wantDenied(t, call(toolCall("pay", `{}`)), counterfoil.ToolNotGranted)
	wantDone(t, call(`{"jsonrpc":"2.0","id":1,"method":"tools/list"}`))
	w.log.revoke("payroll")
	wantHTTP(t, call(toolCall("get_balance", `{}`)), http.StatusUnauthorized, counterfoil.TokenRevoked)
	if got := len(w.upstream.calls("tools/call")); got != 1 {
		t.Errorf("the upstream saw %d calls", got)
	}

	text, err := w.log.Checkpoint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	checkpoint, err := ledger.OpenCheckpoint(text, w.verifier)
	if err != nil {
		t.Fatal(err)
	}
	var export bytes.Buffer
	err = ledger.WriteExport(&export, checkpoint, func(put func([]byte) error) error {
		return w.log.Entries(ctx, 0, checkpoint.Size, func(_ int64, b []byte) error { return put(b) })
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.VerifyExport(&export, ledger.VerifyOptions{Verifier: w.verifier}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range w.log.all() {
		got = append(got, strings.Join(strings.Fields(string(e.Kind)+" "+e.Tool+" "+e.Decision+e.Outcome), " "))
	}
	want := []string{
		"tool.pinned bank/get_balance", "call.decided bank/get_balance allow", "call.finished bank/get_balance succeeded",
		"call.decided bank/pay refuse",
		"call.decided bank/tools/list allow",
		"tool.pinned bank/list_payees", "tool.pinned bank/region", "tool.pinned bank/typed", "call.finished bank/tools/list succeeded",
		"call.decided refuse",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the log is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
