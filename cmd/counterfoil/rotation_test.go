package main

import (
	"context"
	"database/sql"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/internal/seal"
)

// A rotating system is one whose signing keys are rotated while agents work.
type rotating struct {
	*counterfoiltest.System
	t     *testing.T
	agent *counterfoiltest.Agent

	// moving is held while the clock moves, and shared by calls: a call is all at one
	// time, as far as minutes go.
	moving sync.RWMutex

	mu     sync.Mutex
	issued []issuedToken
	sets   []keySet

	answered, voided atomic.Int64
	void             atomic.Pointer[time.Time] // tokens issued before are void; nil: none
}

type issuedToken struct {
	kid     string
	at, exp time.Time
}

// A keySet is what was published at a time.
type keySet struct {
	at   time.Time
	kids map[string]bool
}

// TestRotationUnderLoad rotates the signing keys again and again, by order and by the
// clock, while agents use each of their tokens to its end: none of them is refused. What
// is published is such that nobody who keeps a copy of it as long as is allowed ever
// meets a key that the copy does not have. An emergency voids at once, and what a
// removed key signs is refused.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	sys := counterfoiltest.NewAt(t, counterfoiltest.WallClock())
	r := &rotating{System: sys, t: t, agent: sys.Agent("payroll")}
	r.publish()

	ctx, stop := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() { r.work(ctx) })
	}
	for range 4 {
		r.advance(authority.JWKSLife + time.Minute)
		r.rotate(false)
		// The next key is as new as this: copies do not have it.
		if status, body := r.Admin(http.MethodPost, "/api/v1/keys/rotate", map[string]any{"emergency": false}); status != http.StatusBadRequest {
			t.Errorf("rotating at once again: HTTP %d %s", status, body)
		}
	}

	// An emergency: with its answer every token of before is refused, and nobody waits.
	before := r.answered.Load()
	r.advance(time.Minute)
	r.awaitCalls(before + 20)
	held := r.token()
	r.wantCall(held, "")
	r.moving.Lock()
	now := sys.Clock.Now()
	r.rotate(true)
	r.void.Store(&now)
	r.moving.Unlock()
	r.wantCall(held, counterfoil.TokenMalformed)
	r.awaitCalls(r.answered.Load() + 20)
	if r.voided.Load() == 0 {
		t.Error("no worker met a void token")
	}
	r.advance(authority.JWKSLife)
	stop()
	workers.Wait()
	r.check()

	// What a key signs that is published is believed, even to a thief; once it is removed,
	// nothing is.
	stolen := r.steal()
	r.wantStolen(stolen, "")
	r.rotate(false)
	sys.Clock.Advance(15 * time.Minute)
	sys.Restart() // which does what is due, as the server does by itself once a minute
	r.wantStolen(stolen, "")
	sys.Clock.Advance(time.Minute)
	sys.Restart()
	r.wantStolen(stolen, counterfoil.TokenMalformed)
	t.Logf("%d calls, %d tokens, %d looks at the published keys; %d calls met a void token", r.answered.Load(), len(r.issued), len(r.sets), r.voided.Load())
	sys.CheckLedger()
}

// work calls with one token until it expires, and then with the next.
func (r *rotating) work(ctx context.Context) {
	for ctx.Err() == nil {
		r.moving.RLock()
		token, old := r.token(), r.void.Load() == nil
		r.moving.RUnlock()
		exp := unix(counterfoiltest.ReadJWT(r.t, token).Claims["exp"])
		for ctx.Err() == nil {
			r.moving.RLock()
			now := r.Clock.Now()
			if !now.Before(exp) {
				r.moving.RUnlock()
				break
			}
			code, status := r.call(token)
			void := r.void.Load() != nil
			r.moving.RUnlock()
			if old && void && code == counterfoil.TokenMalformed {
				r.voided.Add(1)
				break
			}
			if status != http.StatusOK || code != "" {
				r.t.Errorf("a token with %v to go: HTTP %d %s", exp.Sub(now), status, code)
				return
			}
			r.answered.Add(1)
		}
	}
}

// token asks for a new token, and notes it.
func (r *rotating) token() string {
	tr := r.agent.For(r.BankURL())
	tok, err := tr.Token(context.Background())
	if err != nil {
		r.t.Errorf("asking for a token: %v", err)
		return ""
	}
	j := counterfoiltest.ReadJWT(r.t, tok.Token.Reveal())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.issued = append(r.issued, issuedToken{j.Header["kid"].(string), r.Clock.Now(), unix(j.Claims["exp"])})
	return tok.Token.Reveal()
}

func (r *rotating) call(token string) (counterfoil.Code, int) {
	proof, err := credential.SignProof(r.agent.Signer, http.MethodPost, r.BankURL(), "", token, r.Clock.Now())
	if err != nil {
		r.t.Error(err)
	}
	a := r.agent.Send(counterfoiltest.Wire{Token: token, Proof: proof})
	return a.Code, a.Status
}

func (r *rotating) wantCall(token string, want counterfoil.Code) {
	r.t.Helper()
	if code, status := r.call(token); code != want || (want == "") != (status == http.StatusOK) {
		r.t.Errorf("the call: HTTP %d %q, want %q", status, code, want)
	}
}

func unix(v any) time.Time {
	var n int64
	if _, err := fmt.Sscan(fmt.Sprint(v), &n); err != nil {
		return time.Time{}
	}
	return time.Unix(n, 0)
}

// advance moves the clock in steps, with a look at the published keys and some calls
// after each.
func (r *rotating) advance(d time.Duration) {
	r.t.Helper()
	const step = 30 * time.Second
	for ; d > 0; d -= step {
		r.moving.Lock()
		r.Clock.Advance(min(d, step))
		r.moving.Unlock()
		r.publish()
		r.awaitCalls(r.answered.Load() + 8)
	}
}

// awaitCalls waits until so many calls were answered.
func (r *rotating) awaitCalls(n int64) {
	r.t.Helper()
	for deadline := time.Now().Add(counterfoiltest.Timeout); r.answered.Load() < n && !r.t.Failed(); {
		if time.Now().After(deadline) {
			r.t.Fatalf("%d calls were answered, %d were waited for", r.answered.Load(), n)
		}
		<-time.After(time.Millisecond) // the workers are on their way, and tell nobody
	}
}

func (r *rotating) rotate(emergency bool) {
	r.t.Helper()
	if status, body := r.Admin(http.MethodPost, "/api/v1/keys/rotate", map[string]any{"emergency": emergency}); status != http.StatusOK {
		r.t.Fatalf("rotating: HTTP %d %s", status, body)
	}
	r.publish()
}

// publish notes which keys are published.
func (r *rotating) publish() {
	r.t.Helper()
	at := r.Clock.Now()
	resp, err := http.Get(r.Issuer() + "/oauth/jwks")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	var set struct {
		Keys []struct {
			KID string `json:"kid"`
		} `json:"keys"`
	}
	if err := ijson.UnmarshalLax(b, &set); err != nil || len(set.Keys) == 0 {
		r.t.Fatalf("the published keys: HTTP %d %s", resp.StatusCode, b)
	}
	s := keySet{at, map[string]bool{}}
	for _, k := range set.Keys {
		s.kids[k.KID] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sets = append(r.sets, s)
}

// check holds every token against every copy of the published keys that somebody may
// have had in the token's time.
func (r *rotating) check() {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	void, kids, compared := *r.void.Load(), map[string]bool{}, 0
	for _, tok := range r.issued {
		kids[tok.kid] = true
		for _, set := range r.sets {
			if set.at.After(void) != tok.at.After(void) { // what was before the emergency is void
				continue
			}
			if set.at.Before(tok.at.Add(-authority.JWKSLife)) || set.at.After(tok.exp) {
				continue
			}
			compared++
			if !set.kids[tok.kid] {
				r.t.Fatalf("a token from %v to %v is signed by %s; what was published at %v does not have it", tok.at, tok.exp, tok.kid, set.at)
			}
		}
	}
	if len(kids) < 5 || compared < 50 {
		r.t.Errorf("%d keys signed, %d comparisons: too few to show anything", len(kids), compared)
	}
}

// steal takes the private key that signs out of the database, as somebody who has that
// and the key-encryption key can.
func (r *rotating) steal() *credential.Signer {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.Dir, "kek"))
	if err != nil {
		r.t.Fatal(err)
	}
	kek, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		r.t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(r.Dir, "counterfoil.db")+"?_pragma=query_only(1)")
	if err != nil {
		r.t.Fatal(err)
	}
	defer db.Close()
	var kid string
	var sealed []byte
	if err := db.QueryRow(`SELECT kid, sealed FROM signing_keys WHERE state = 'active' AND purpose = 'access-token'`).Scan(&kid, &sealed); err != nil {
		r.t.Fatal(err)
	}
	pem, err := seal.Open(kek, "signing_keys/sealed", kid, sealed)
	if err != nil {
		r.t.Fatal(err)
	}
	key, err := credential.ParsePrivateKeyPEM(pem)
	if err != nil {
		r.t.Fatal(err)
	}
	signer, err := credential.NewSigner(key)
	if err != nil {
		r.t.Fatal(err)
	}
	return signer
}

// wantStolen calls with a token of now that a thief made with the key.
func (r *rotating) wantStolen(key *credential.Signer, want counterfoil.Code) {
	r.t.Helper()
	j := counterfoiltest.ReadJWT(r.t, r.token())
	now := r.Clock.Now().Unix()
	j.Header["kid"] = key.Public().Thumbprint()
	j.Claims["iat"], j.Claims["exp"], j.Claims["jti"] = now, now+60, counterfoil.NewID("tok_")
	if _, has := j.Claims["nbf"]; has {
		j.Claims["nbf"] = now
	}
	j.Signer = key
	r.wantCall(j.Compact(r.t), want)
}
