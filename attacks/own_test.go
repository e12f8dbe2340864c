package attacks

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// What an agent asks the server itself for: its tasks, its keys, what is revoked, and
// what a token is.

// inTask asks for a token of a task.
func inTask(id string) func(*tokenRequest) {
	return func(q *tokenRequest) {
		if id != "" {
			q.Form.Set("task", id)
		}
	}
}

// ownToken gets a token for the server itself.
func (w *world) ownToken(a *actor, edits ...func(*tokenRequest)) string {
	w.T.Helper()
	return w.tokenFor(a, w.Issuer(), edits...)
}

// own makes an honest request to the server itself.
func (w *world) own(a *actor, token, method, path, body string) *call {
	w.T.Helper()
	target, _, _ := strings.Cut(w.Issuer()+path, "?")
	q := &call{
		method: method, url: w.Issuer() + path, body: body, header: http.Header{}, scheme: "DPoP", token: token,
		proof: counterfoiltest.ForgeProof(w.T, a.signer, method, target, w.Clock.Now()),
	}
	if body != "" {
		q.header["Content-Type"] = []string{"application/json"}
	}
	return q
}

// sendOwn sends one, with a fresh token.
func (w *world) sendOwn(a *actor, method, path, body string) answer {
	w.T.Helper()
	return w.sendCall(w.own(a, w.ownToken(a), method, path, body))
}

// opened opens a task and returns it.
func (w *world) opened(a *actor, body string) map[string]any {
	w.T.Helper()
	got := w.sendOwn(a, http.MethodPost, counterfoil.TasksPath, body)
	if got.status != http.StatusCreated {
		w.T.Fatalf("opening a task: %s", got)
	}
	return got.members()
}

// open opens a task and returns its id.
func (w *world) open(a *actor, body string) string {
	w.T.Helper()
	id, _ := w.opened(a, body)["id"].(string)
	return id
}

const plainTask = `{"purpose":"a day's work"}`

// taskOf returns a task as the operator sees it.
func (w *world) taskOf(id string) map[string]any {
	w.T.Helper()
	status, body := w.Admin(http.MethodGet, "/api/v1/tasks/"+id, nil)
	var t map[string]any
	if err := json.Unmarshal(body, &t); err != nil || status != http.StatusOK {
		w.T.Fatalf("the task %s: HTTP %d %s", id, status, body)
	}
	return t
}

// rotation makes the request that gives an actor's instance another key.
func (w *world) rotation(a *actor, token string, next *credential.Signer, overlap int, edits ...func(*jwt)) *call {
	w.T.Helper()
	proof := counterfoiltest.ForgeProof(w.T, next, http.MethodPost, w.Issuer()+counterfoil.RotatePath, w.Clock.Now())
	proof.Claims["ath"] = credential.TokenHash(token)
	for _, edit := range edits {
		edit(&proof)
	}
	return w.own(a, token, http.MethodPost, counterfoil.RotatePath, fmt.Sprintf(`{"proof":%q,"overlap":%d}`, proof.Compact(w.T), overlap))
}

// rotate gives an actor's instance another key, which is its own from then on.
func (w *world) rotate(a *actor, overlap int) {
	w.T.Helper()
	next := counterfoiltest.NewSigner(w.T, credential.ES256)
	if got := w.sendCall(w.rotation(a, w.ownToken(a), next, overlap)); !got.passed() {
		w.T.Fatalf("rotating a key: %s", got)
	}
	a.signer, a.compact = next, ""
}

// inquiry makes a request of RFC 7009 or RFC 7662 about a token.
func (w *world) inquiry(a *actor, token string) *tokenRequest {
	w.T.Helper()
	return &tokenRequest{
		Method: http.MethodPost, ContentType: "application/x-www-form-urlencoded", Header: http.Header{}, Proofs: []string{},
		Form: url.Values{
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "token": {token},
		},
		Assertion: counterfoiltest.ForgeAssertion(a.signer, a.name, w.Issuer(), w.Clock.Now()),
	}
}

func (w *world) sendInquiry(path string, q *tokenRequest) answer {
	w.T.Helper()
	return w.do(q.Request(w.T, w.Issuer()+path))
}

// introspect asks about a token.
func (w *world) introspect(a *actor, token string) answer {
	w.T.Helper()
	return w.sendInquiry(counterfoil.IntrospectPath, w.inquiry(a, token))
}

// inactive is all that is said of a token that is no good, or not who asks's business.
const inactive = `{"active":false}`

// active reports whether an introspection said that the token is good.
func (w *world) active(got answer) bool {
	w.T.Helper()
	good, ok := got.member("active").(bool)
	if got.status != http.StatusOK || !ok || !good && string(got.body) != inactive {
		w.T.Errorf("an introspection: %s", got)
	}
	return good
}

// revoke takes authority from a target, as an operator does, and returns the entry's
// index.
func (w *world) revoke(kind counterfoil.TargetKind, id string) int64 {
	w.T.Helper()
	status, body := w.Admin(http.MethodPost, "/api/v1/revocations", map[string]string{"kind": string(kind), "id": id, "reason": "test"})
	var done struct {
		Index *int64 `json:"index"`
	}
	if err := json.Unmarshal(body, &done); err != nil || status != http.StatusOK || done.Index == nil {
		w.T.Fatalf("revoking %s %s: HTTP %d %s", kind, id, status, body)
	}
	return *done.Index
}

// jti returns the id of a token.
func (w *world) jti(compact string) string {
	w.T.Helper()
	id, _ := counterfoiltest.ReadJWT(w.T, compact).Claims["jti"].(string)
	return id
}

// revoked returns how many revocations were recorded since the log had that size.
func (w *world) revocations(from int64) (n int) {
	w.T.Helper()
	for _, e := range w.since(from) {
		if e.Kind == ledger.Revoked {
			n++
		}
	}
	return n
}
