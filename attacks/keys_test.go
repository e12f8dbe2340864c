package attacks

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

// Keys that are replaced: KR1 to KR4.

// TestKeysAreRotatedByTheirOwn is KR1 and KR2: whoever gives an instance another key has the
// present one and the new one, for this request and this token.
func TestKeysAreRotatedByTheirOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	fresh := func() *credential.Signer { return counterfoiltest.NewSigner(t, credential.ES256) }
	other := w.actor("payroll")
	dead := w.actor("payroll")
	w.revoke(counterfoil.TargetInstance, dead.instance)
	w.rotate(w.payroll, 0) // the control
	claim := func(name string, value any) func(*jwt) { return func(j *jwt) { j.Claims[name] = value } }
	drop := func(name string) func(*jwt) { return func(j *jwt) { delete(j.Claims, name) } }
	stranger := credential.TokenHash(w.ownToken(w.auditor))
	for _, tc := range []struct {
		row, name string
		next      *credential.Signer
		edit      func(*jwt)
		status    int
		code      counterfoil.Code
	}{
		{"KR1", "a proof for another URL", fresh(), claim("htu", w.Issuer()+counterfoil.TasksPath), 401, counterfoil.ProofTarget},
		{"KR1", "a proof for the token endpoint", fresh(), claim("htu", w.Issuer()+counterfoil.TokenPath), 401, counterfoil.ProofTarget},
		{"KR1", "a proof for another method", fresh(), claim("htm", "GET"), 401, counterfoil.ProofTarget},
		{"KR1", "a proof for another token", fresh(), claim("ath", stranger), 401, counterfoil.ProofTarget},
		{"KR1", "a proof for no token", fresh(), drop("ath"), 401, counterfoil.ProofTarget},
		{"KR1", "an old proof", fresh(), claim("iat", w.Clock.Now().Unix()-3600), 401, counterfoil.ProofStale},
		{"KR1", "a proof of another type", fresh(), func(j *jwt) { j.Header["typ"] = "JWT" }, 401, counterfoil.ProofMalformed},
		{"KR1", "an unsigned proof", fresh(), func(j *jwt) { j.Header["alg"], j.Sign = "none", unsigned }, 401, counterfoil.ProofMalformed},
		{"KR1", "a proof by another key than it names", fresh(), func(j *jwt) { j.Header["jwk"] = counterfoiltest.PublicJWK(t, w.stranger) }, 401, counterfoil.ProofMalformed},
		{"KR1", "no proof", fresh(), func(j *jwt) { j.Text = " " }, 401, counterfoil.ProofMalformed},
		{"KR2", "another instance's key", other.signer, nil, 409, counterfoil.KeyInUse},
		{"KR2", "another agent's key", w.auditor.signer, nil, 409, counterfoil.KeyInUse},
		{"KR2", "a key that is dead", dead.signer, nil, 409, counterfoil.KeyInUse},
		{"KR2", "its own key", w.payroll.signer, nil, 409, counterfoil.KeyInUse},
	} {
		t.Run(tc.row+" "+tc.name, func(t *testing.T) {
			defer w.in(t)()
			w.Clock.Advance(time.Second)
			if tc.name == "an old proof" {
				tc.edit = claim("iat", w.Clock.Now().Unix()-3600)
			}
			edits := []func(*jwt){func(*jwt) {}}
			if tc.edit != nil {
				edits[0] = tc.edit
			}
			from := w.size()
			got := w.sendCall(w.rotation(w.payroll, w.ownToken(w.payroll), tc.next, 0, edits...))
			if got.status != tc.status || got.code != tc.code {
				t.Errorf("got %s\nwant %d %s", got, tc.status, tc.code)
			}
			for _, e := range w.since(from) {
				if e.Kind == ledger.KeyRotated {
					t.Errorf("refused, and yet %+v", e)
				}
			}
		})
	}
	// One key for two instances at once: one has it.
	one := fresh()
	first, second := w.rotation(w.payroll, w.ownToken(w.payroll), one, 0), w.rotation(other, w.ownToken(other), one, 0)
	passed := 0
	for _, got := range w.atOnce([]*http.Request{w.request(first), w.request(second)}) {
		if got.passed() {
			passed++
		} else {
			w.says("KR2: one key for two", got, 409, counterfoil.KeyInUse)
		}
	}
	if passed != 1 {
		t.Errorf("KR2: %d instances have one key", passed)
	}
	// Whose token or key is void rotates nothing, and neither does a token of a task.
	third := w.actor("payroll")
	token := w.ownToken(third)
	w.revoke(counterfoil.TargetToken, w.jti(token))
	w.says("KR1: a revoked token", w.sendCall(w.rotation(third, token, fresh(), 0)), 401, counterfoil.TokenRevoked)
	w.says("KR1: a token of a task", w.sendCall(w.rotation(third, w.ownToken(third, inTask(w.open(third, plainTask))), fresh(), 0)), 403, counterfoil.OutsideTask)
	w.says("KR1: a token of a resource", w.sendCall(w.rotation(third, w.tokenFor(third, w.BankURL()), fresh(), 0)), 401, counterfoil.TokenAudience)
	for _, overlap := range []string{"-1", "86401", `"60"`, "1.5", "null", "1e99"} {
		q := w.rotation(third, w.ownToken(third), fresh(), 0)
		q.body = strings.Replace(q.body, `"overlap":0`, `"overlap":`+overlap, 1)
		if got := w.sendCall(q); got.status != 400 {
			t.Errorf("KR1: an overlap of %s: %s", overlap, got)
		}
	}
	listed := counterfoiltest.NewSigner(t, credential.ES256)
	w.Apply(fmt.Sprintf("kind: Agent\nname: listed\nowner: ana\nenvironment: prod\nkeys: ['%s']\ngrants: [{tools: [bank/get_balance]}]\n", listed.Public().JWK()))
	declared := &actor{name: "listed", signer: listed}
	w.says("KR1: a key of the manifest", w.sendCall(w.rotation(declared, w.ownToken(declared), fresh(), 0)), 400, counterfoil.RequestMalformed)
	w.works("the control: the honest one goes on", w.sendCall(w.rotation(third, w.ownToken(third), fresh(), 0)))
	w.CheckLedger()
}

// TestTheOldKeyAfterARotation is KR3 and KR4: who stole the old key has nothing after
// the rotation, and in an overlap nothing beyond it, whatever its thief does.
func TestTheOldKeyAfterARotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	look := func(a *actor, token string) answer {
		return w.sendCall(w.callBy(a, token, w.BankURL(), "get_balance", honestArguments))
	}
	a := w.actor("payroll")
	thief := &actor{name: a.name, instance: a.instance, signer: a.signer}
	stolen, own := w.tokenFor(thief, w.BankURL()), w.ownToken(thief)
	task := w.open(a, plainTask)
	w.works("the control: the key before", look(thief, stolen))
	w.rotate(a, 0)
	w.says("KR3: the old key's token", look(thief, stolen), 401, counterfoil.TokenRevoked)
	w.says("KR3: the old key's assertion", w.tokenIn(thief, "", w.BankURL()), 401, counterfoil.ClientRefused)
	w.says("KR3: the old key rotates", w.sendCall(w.rotation(thief, own, counterfoiltest.NewSigner(t, credential.ES256), 0)), 401, counterfoil.TokenRevoked)
	if w.active(w.introspect(a, stolen)) {
		t.Error("KR3: the old key's token is good")
	}
	w.works("the control: the new key", look(a, w.tokenFor(a, w.BankURL())))
	w.works("the control: its task goes on", w.tokenIn(a, task, w.BankURL()))

	// An overlap ends by the clock, after a restart too.
	thief = &actor{name: a.name, instance: a.instance, signer: a.signer}
	w.rotate(a, 120)
	w.works("the control: the old key in its overlap", look(thief, w.tokenFor(thief, w.BankURL())))
	stolen, own = w.tokenFor(thief, w.BankURL()), w.ownToken(thief)
	w.says("KR4: the old key rotates in its overlap", w.sendCall(w.rotation(thief, own, counterfoiltest.NewSigner(t, credential.ES256), 0)), 401, counterfoil.ProofKeyMismatch)
	w.Clock.Advance(119 * time.Second)
	w.works("the control: a moment before its end", look(thief, stolen))
	w.Clock.Advance(2 * time.Second)
	w.says("KR4: after the overlap, with which its tokens end", look(thief, stolen), 401, counterfoil.TokenExpired)
	w.says("KR4: an assertion after the overlap", w.tokenIn(thief, "", w.BankURL()), 401, counterfoil.ClientRefused)
	w.Restart()
	w.says("KR4: after a restart", w.tokenIn(thief, "", w.BankURL()), 401, counterfoil.ClientRefused)
	long := counterfoiltest.ReadJWT(t, stolen)
	long.Claims["exp"], long.Signer = w.Clock.Now().Unix()+60, w.issuerKey()
	w.says("KR4: a token of the old key that goes on", look(thief, long.Compact(t)), 401, counterfoil.TokenRevoked)
	w.works("the control: the new key", look(a, w.tokenFor(a, w.BankURL())))

	// Another rotation in an overlap ends the older key at once, and so does its
	// revocation, which is not that of the instance.
	oldest := &actor{name: a.name, instance: a.instance, signer: a.signer}
	w.rotate(a, 3600)
	older := &actor{name: a.name, instance: a.instance, signer: a.signer}
	w.rotate(a, 3600)
	w.says("KR4: the older of two old keys", w.tokenIn(oldest, "", w.BankURL()), 401, counterfoil.ClientRefused)
	w.works("the control: the old key", w.tokenIn(older, "", w.BankURL()))
	w.revoke(counterfoil.TargetKey, older.signer.Public().Thumbprint())
	w.says("KR4: the old key, revoked", w.tokenIn(older, "", w.BankURL()), 401, counterfoil.ClientRefused)
	w.works("the control: the instance goes on", look(a, w.tokenFor(a, w.BankURL())))
	w.CheckLedger()
}
