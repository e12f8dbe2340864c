package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil/examples/legacy/legacyserver"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// crm is a legacy API with one static token; %s is its URL.
const crm = `kind: Class
name: credential-reset
tier: guarded
approvers: [finance-approvers]
---
kind: Resource
name: crm
type: http
environment: prod
upstream: %s
credential: {header: Authorization, prefix: "Bearer ", file: crm-token}
tools:
  - {name: get_customer, method: GET, path: "/customers/{id}", class: read}
  - {name: customer_events, method: GET, path: "/customers/{id}/events", class: read}
  - {name: get_client, method: GET, path: "/clients/{id}", class: read}
  - {name: get_report, method: GET, path: /report, class: read}
  - {name: reset_password, method: POST, path: "/customers/{id}/password", class: credential-reset}
---
kind: Agent
name: helpdesk
owner: ana
purpose: answers what customers ask
environment: prod
grants:
  - tools: [crm/get_customer, crm/customer_events, crm/get_client, crm/reset_password]
`

// TestUnmodifiedProgramUsesALegacyAPI: a program that knows nothing of tokens and an
// API that knows nothing of keys; between them the connector and the gateway. A call
// that needs people is held until they signed, and the API's token reaches nobody.
func TestUnmodifiedProgramUsesALegacyAPI(t *testing.T) {
	t.Parallel()
	const token = "crm-2f6d0c9b71e84a55"
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	api := legacyserver.New(token)
	secrets := filepath.Join(sys.Dir, "secrets")
	if err := os.MkdirAll(secrets, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(secrets, "crm-token"), []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	sys.Apply(fmt.Sprintf(crm, sys.Upstream(api.Handler())))
	at := connect(t, sys, "helpdesk", enroll(t, sys, "helpdesk", "Ed25519"), "crm", "--wait", "50s")
	program := &http.Client{} // follows redirects, as programs do
	var seen strings.Builder
	do := func(method, path string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, at+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Cookie", "session=1") // which stays here
		res, err := program.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(bufio.NewReader(res.Body))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&seen, res.Status, res.Header, string(body))
		return res.StatusCode, string(body)
	}
	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"customers/7":        {200, "Ada Lovelace"},
		"customers/9":        {404, "no such customer"},
		"customers/8/events": {200, "data: opened\n\n"},
		"clients/8":          {200, "Grace Hopper"}, // which redirects to /customers/8
		"report":             {403, "tool_not_granted"},
		"nothing":            {404, "tool_unknown"},
		"customers/../7":     {400, "request_malformed"},
	} {
		if status, body := do(http.MethodGet, path); status != want.status || !strings.Contains(body, want.body) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	signing := signAll(t, sys)
	if status, body := do(http.MethodPost, "customers/8/password"); status != http.StatusOK || !strings.Contains(body, `"mailed_to":"grace@example.com"`) {
		t.Errorf("the call that needs people: %d %s", status, body)
	}
	signing()
	if got := api.Resets(); !slices.Equal(got, []string{"8"}) {
		t.Errorf("passwords that were reset: %q", got)
	}
	if strings.Contains(seen.String(), token) || strings.Contains(seen.String(), "session=1") {
		t.Errorf("the program, or the API, saw what is not theirs:\n%s", seen.String())
	}
	used := 0
	for _, e := range sys.Entries() {
		if e.Kind == ledger.UpstreamCredentialUsed {
			used++
		}
	}
	if used != api.Calls() || used == 0 {
		t.Errorf("%d uses of the token are in the ledger, the API saw %d", used, api.Calls())
	}
	if strings.Contains(sys.Log.String(), token) {
		t.Error("the token is in the log")
	}
	sys.CheckLedger()
}
