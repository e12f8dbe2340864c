package attacks

import (
	"database/sql"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/seal"
)

// A world is a whole deployment with two honest agents and what an attacker
// has: keys that nobody registered, a server that waits for visitors, and, where
// a test asks for it, the issuer's own key.
type world struct {
	*counterfoiltest.System

	payroll *actor // get_balance and pay at the bank; keys of ES256
	auditor *actor // get_balance and list_payees at the bank

	stranger *credential.Signer // a key that nobody registered
	trap     string             // URL of a server that no request of the product may reach
	visits   atomic.Int64       // of the trap

	client  *http.Client
	signing *credential.Signer // the issuer's, once it was asked for

	// The nonces that every honest proof holds, where the server asks for them:
	// the token endpoint's and the gateway's.
	tokenNonce, callNonce string
}

// An actor is an agent's instance.
type actor struct {
	name, instance string
	signer         *credential.Signer

	compact string    // its token for the bank
	got     time.Time // when it got it
}

func newWorld(t *testing.T, options ...counterfoiltest.Option) *world {
	t.Helper()
	w := &world{System: counterfoiltest.New(t, options...), client: newClient(t), stranger: counterfoiltest.NewSigner(t, credential.ES256)}
	trap := httptest.NewServer(http.HandlerFunc(func(w2 http.ResponseWriter, _ *http.Request) { w.visits.Add(1) }))
	t.Cleanup(trap.Close)
	w.trap = trap.URL
	t.Cleanup(func() {
		if n := w.visits.Load(); n > 0 {
			t.Errorf("the product asked a server of the attacker's %d times", n)
		}
	})
	w.payroll, w.auditor = w.actor("payroll"), w.actor("auditor")
	return w
}

// newClient follows no redirect: an answer is what came, not what it leads to.
func newClient(t *testing.T) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport: transport, Timeout: counterfoiltest.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// actor enrols a new instance of an agent.
func (w *world) actor(name string) *actor {
	w.T.Helper()
	return w.actorWith(name, counterfoiltest.NewSigner(w.T, credential.ES256))
}

func (w *world) actorWith(name string, signer *credential.Signer) *actor {
	w.T.Helper()
	return &actor{name: name, instance: w.AgentWith(name, signer).Instance, signer: signer}
}

// renew gets fresh tokens for the bank before the old ones end, so that no row
// gets one on the way.
func (w *world) renew() {
	w.T.Helper()
	for _, a := range []*actor{w.payroll, w.auditor} {
		w.token(a)
	}
}

// token returns the actor's token for the bank.
func (w *world) token(a *actor) string {
	w.T.Helper()
	if now := w.Clock.Now(); a.compact == "" || now.Sub(a.got) > 2*time.Minute {
		a.compact, a.got = w.tokenFor(a, w.BankURL()), now
	}
	return a.compact
}

// tokenFor gets a token for a resource.
func (w *world) tokenFor(a *actor, resource string, edits ...func(*tokenRequest)) string {
	w.T.Helper()
	q := w.tokenRequest(a)
	q.Form.Set("resource", resource)
	for _, edit := range edits {
		edit(q)
	}
	got := w.sendToken(q)
	token, ok := got.member("access_token").(string)
	if !ok {
		w.T.Fatalf("getting a token for %s: %s", a.name, got)
	}
	return token
}

type (
	jwt          = counterfoiltest.JWT
	tokenRequest = counterfoiltest.TokenRequest
)

// tokenRequest makes an honest token request for the bank.
func (w *world) tokenRequest(a *actor) *tokenRequest {
	w.T.Helper()
	q := counterfoiltest.NewTokenRequest(w.T, w.Issuer(), w.BankURL(), a.name, a.signer, w.Clock.Now())
	if w.tokenNonce != "" {
		q.Proof.Claims["nonce"] = w.tokenNonce
	}
	return q
}

func (w *world) sendToken(q *tokenRequest) answer {
	w.T.Helper()
	return w.do(q.Request(w.T, w.Issuer()+"/oauth/token"))
}

// A call is a request to the gateway before it is signed. Everything in it can
// be bent.
type call struct {
	method, url, body string
	header            http.Header

	scheme, token string // of the Authorization header; none when both are empty
	proof         jwt
	proofs        []string // instead of the one proof; empty and not nil is none
	noHash        bool     // the proof has no ath, which otherwise is the token's
	late          []func(*call)
}

const honestArguments = `{"account":"operating"}`

// call makes an honest call of get_balance.
func (w *world) call(a *actor) *call {
	w.T.Helper()
	return w.callOf(a, "get_balance", honestArguments)
}

// callOf makes an honest call of a tool of the bank, of the newest revision.
func (w *world) callOf(a *actor, tool, arguments string) *call {
	w.T.Helper()
	proof := counterfoiltest.ForgeProof(w.T, a.signer, http.MethodPost, w.BankURL(), w.Clock.Now())
	if w.callNonce != "" {
		proof.Claims["nonce"] = w.callNonce
	}
	return &call{
		method: http.MethodPost, url: w.BankURL(), body: counterfoiltest.Body(tool, arguments),
		header: http.Header{
			"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"},
			"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"tools/call"}, "Mcp-Name": {tool},
		},
		scheme: "DPoP", token: w.token(a), proof: proof,
	}
}

// callWith makes an actor's call of get_balance at a resource with a token of the
// test's choice.
func (w *world) callWith(a *actor, token, resource string) *call {
	w.T.Helper()
	q := w.call(w.payroll)
	q.url, q.token = resource, token
	q.proof = counterfoiltest.ForgeProof(w.T, a.signer, http.MethodPost, resource, w.Clock.Now())
	return q
}

// at turns a call to another resource of the gateway, with a token for it.
func (w *world) at(q *call, resource, token string) {
	q.url, q.token = resource, token
	q.proof.Claims["htu"] = resource
}

// request signs what is not signed yet and makes the HTTP request.
func (w *world) request(q *call) *http.Request {
	w.T.Helper()
	if q.proofs == nil {
		if _, bent := q.proof.Claims["ath"]; !bent && !q.noHash {
			q.proof.Claims["ath"] = credential.TokenHash(q.token)
		}
		q.proofs = []string{q.proof.Compact(w.T)}
	}
	for _, edit := range q.late {
		edit(q)
	}
	r, err := http.NewRequestWithContext(w.T.Context(), q.method, q.url, strings.NewReader(q.body))
	if err != nil {
		w.T.Fatal(err)
	}
	for name, values := range q.header {
		r.Header[name] = values
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host // net/http takes it from there alone
	}
	if q.scheme != "" || q.token != "" {
		r.Header["Authorization"] = []string{q.scheme + " " + q.token}
	}
	if len(q.proofs) > 0 {
		r.Header["Dpop"] = q.proofs
	}
	return r
}

func (w *world) sendCall(q *call) answer {
	w.T.Helper()
	return w.do(w.request(q))
}

// honestCall is the control of attacks on calls.
func honestCall(_ *testing.T, w *world) answer { return w.sendCall(w.call(w.payroll)) }

// honestToken is the control of attacks on the token endpoint.
func honestToken(_ *testing.T, w *world) answer { return w.sendToken(w.tokenRequest(w.payroll)) }

// atToken bends payroll's token request.
func atToken(row, name string, want want, edit func(w *world, q *tokenRequest)) attack {
	return attack{row: row, name: name, want: want, control: honestToken, send: func(_ *testing.T, w *world) answer {
		q := w.tokenRequest(w.payroll)
		edit(w, q)
		return w.sendToken(q)
	}}
}

// atBank bends payroll's call of get_balance.
func atBank(row, name string, want want, edit func(w *world, q *call)) attack {
	return attack{row: row, name: name, want: want, send: func(_ *testing.T, w *world) answer {
		q := w.call(w.payroll)
		edit(w, q)
		return w.sendCall(q)
	}}
}

// issuerKey is the key that signs access tokens, as who has both the database
// and the key-encryption key has it. With it forged tokens have a good
// signature, so that what refuses them is not that.
func (w *world) issuerKey() *credential.Signer {
	w.T.Helper()
	if w.signing != nil {
		return w.signing
	}
	text, err := os.ReadFile(filepath.Join(w.Dir, "kek"))
	if err != nil {
		w.T.Fatal(err)
	}
	kek, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		w.T.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(w.Dir, "counterfoil.db")+"?mode=ro")
	if err != nil {
		w.T.Fatal(err)
	}
	defer db.Close()
	var kid string
	var sealed []byte
	if err := db.QueryRow(`SELECT kid, sealed FROM signing_keys WHERE state = 'active'`).Scan(&kid, &sealed); err != nil {
		w.T.Fatal(err)
	}
	pem, err := seal.Open(kek, "signing_keys/sealed", kid, sealed)
	if err != nil {
		w.T.Fatal(err)
	}
	private, err := credential.ParsePrivateKeyPEM(pem)
	if err != nil {
		w.T.Fatal(err)
	}
	if w.signing, err = credential.NewSigner(private); err != nil {
		w.T.Fatal(err)
	}
	return w.signing
}

// forgeToken takes payroll's token for the bank, to be bent and signed again
// with the issuer's key.
func (w *world) forgeToken() *jwt {
	w.T.Helper()
	j := counterfoiltest.ReadJWT(w.T, w.token(w.payroll))
	j.Claims["jti"] = counterfoil.NewID("tok_")
	j.Signer = w.issuerKey()
	return j
}

// member returns a member of a JSON body; nil when it has none.
func (a answer) member(name string) any { return a.members()[name] }

// Wants of the token endpoint.
func badClient(code counterfoil.Code) want {
	return want{status: 401, oauth: "invalid_client", code: code}
}
func badProof(code counterfoil.Code) want {
	return want{status: 400, oauth: "invalid_dpop_proof", code: code}
}

// Wants of both.
var (
	passes    = want{status: 200}
	malformed = want{status: 400, oauth: "invalid_request", code: counterfoil.RequestMalformed}
)

// Wants of the gateway.
func badToken(code counterfoil.Code) want {
	return want{status: 401, code: code, challenge: "invalid_token"}
}
func unproven(code counterfoil.Code) want {
	return want{status: 401, code: code, challenge: "invalid_dpop_proof"}
}
