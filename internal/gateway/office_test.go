package gateway_test

import (
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/approval"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/internal/testkit/passkey"
	"github.com/counterfoil/counterfoil/ledger"
)

// The engine is whom the gateway asks.
var _ gateway.Approvals = (*approval.Engine)(nil)

const consoleURL = "https://console.example"

// An office is a world with people in it: bo and cy may approve payouts and resets,
// ana owns the agent.
type office struct {
	*world
	engine *approval.Engine
	phones map[string]*passkey.Authenticator
}

// The tool "hidden" of the upstream is one that a single person may allow.
const resetTool = "hidden"

var theirReset = digestOf(`{"inputSchema":{"type":"object"},"name":"hidden"}`)

func newOffice(t testing.TB, h http.Handler, change func(*office, *counterfoil.Registry, *gateway.Config)) (*office, *actor) {
	t.Helper()
	o := &office{phones: map[string]*passkey.Authenticator{}}
	if h == nil {
		h = http.HandlerFunc(jsonUpstream)
	}
	o.world = newWorld(t, h, func(reg *counterfoil.Registry, cfg *gateway.Config) {
		for _, name := range []string{"bo", "cy"} {
			reg.People[name] = &counterfoil.Person{Name: name, Email: name + "@example.com", Groups: []string{"finance"}}
		}
		reg.Classes["reset"] = &counterfoil.Class{Name: "reset", Tier: counterfoil.Guarded, Approvers: [][]string{{"finance"}}}
		reg.Resources["bank"].Tools = append(reg.Resources["bank"].Tools, counterfoil.Tool{Name: resetTool, Class: "reset"})
		reg.Agents["payroll"].Grants[0].Tools = append(reg.Agents["payroll"].Grants[0].Tools, counterfoil.ToolID{Resource: "bank", Tool: resetTool})
		o.engine = engineOn(t, cfg.Recorder.(*log), cfg)
		cfg.Approvals, cfg.ManagementURL = o.engine, consoleURL
		if change != nil {
			change(o, reg, cfg)
		}
	})
	o.log.pin("pay", theirPay)
	o.log.pin(resetTool, theirReset)
	o.enrol("bo")
	o.enrol("cy")
	return o, o.clerk("payroll")
}

// clerk is an actor whose tokens are for the guarded tool as well.
func (o *office) clerk(name string) *actor {
	a := o.actor(name)
	a.scope = append(a.scope, resetTool)
	return a
}

// apply changes what is declared, for the gateway and for the engine.
func (o *office) apply(change func(*counterfoil.Registry)) {
	o.t.Helper()
	o.world.apply(change)
	o.log.apply(o.registry)
}

func (o *office) enrol(person string) {
	o.t.Helper()
	ctx := o.t.Context()
	code, _, err := o.engine.MakeCode(ctx, person, "uid:0", false)
	if err != nil {
		o.t.Fatal(err)
	}
	options, err := o.engine.EnrolmentOptions(ctx, code.Reveal())
	if err != nil {
		o.t.Fatal(err)
	}
	phone := passkey.New("console.example", consoleURL)
	if _, err := o.engine.Enrol(ctx, code.Reveal(), phone.Create(options)); err != nil {
		o.t.Fatal(err)
	}
	o.phones[person] = phone
}

// decide has a person sign.
func (o *office) decide(id, person, decision, reason string) counterfoil.ApprovalState {
	o.t.Helper()
	ctx := o.t.Context()
	options, err := o.engine.Challenge(ctx, id, person, decision, reason)
	if err != nil {
		o.t.Fatal(err)
	}
	state, err := o.engine.Sign(ctx, id, person, decision, reason, o.phones[person].Get(options))
	if err != nil {
		o.t.Fatal(err)
	}
	return state
}

// approve has as many people say yes as it takes.
func (o *office) approve(id string) {
	o.t.Helper()
	if o.decide(id, "bo", counterfoil.DecisionApprove, "") == counterfoil.StateApproved {
		return
	}
	if state := o.decide(id, "cy", counterfoil.DecisionApprove, ""); state != counterfoil.StateApproved {
		o.t.Fatalf("two people said yes and it is %s", state)
	}
}

// state reads an approval as it is kept.
func (o *office) state(id string) counterfoil.Approval {
	o.t.Helper()
	a, ok, err := o.log.Approval(o.t.Context(), id)
	if err != nil || !ok {
		o.t.Fatalf("approval %s: %v, %v", id, ok, err)
	}
	return a
}

// paid is how many payments and resets reached the upstream.
func (o *office) paid() int {
	n := 0
	for _, r := range o.upstream.calls(`"method":"tools/call"`) {
		if strings.Contains(r.body, `"name":"pay"`) || strings.Contains(r.body, `"name":"hidden"`) {
			n++
		}
	}
	return n
}

// An answer is a result of tools/call as these tests read it.
type answer struct {
	Result struct {
		Meta struct {
			Refusal *struct {
				Code     counterfoil.Code            `json:"code"`
				Detail   string                      `json:"detail"`
				Approval *counterfoil.ApprovalStatus `json:"approval"`
			} `json:"counterfoil/refusal"`
		} `json:"_meta"`
		ResultType string `json:"resultType"`
		IsError    bool   `json:"isError"`
		Content    []struct {
			Text string `json:"text"`
		} `json:"content"`

		// A task.
		TaskID        string         `json:"taskId"`
		Status        string         `json:"status"`
		StatusMessage string         `json:"statusMessage"`
		CreatedAt     string         `json:"createdAt"`
		LastUpdatedAt string         `json:"lastUpdatedAt"`
		TTLMs         int64          `json:"ttlMs"`
		Poll          int64          `json:"pollIntervalMs"`
		Inner         jsontext.Value `json:"result"`
		Failure       *rpcError      `json:"error"`

		// A request for input.
		Inputs map[string]struct {
			Method string            `json:"method"`
			Params map[string]string `json:"params"`
		} `json:"inputRequests"`
		State string `json:"requestState"`
	} `json:"result"`
	Error *rpcError `json:"error"`
}

func read(t testing.TB, r reply) answer {
	t.Helper()
	var a answer
	if err := json.Unmarshal([]byte(r.body), &a); err != nil || r.status != http.StatusOK {
		t.Fatalf("got %d %s, %v", r.status, r.body, err)
	}
	return a
}

// wantHeld checks a refusal that people have a part in and returns its approval.
func wantHeld(t testing.TB, r reply, code counterfoil.Code) *counterfoil.ApprovalStatus {
	t.Helper()
	wantDenied(t, r, code)
	a := read(t, r).Result.Meta.Refusal.Approval
	if a == nil || a.ID == "" || a.Interval != 5 || !strings.HasPrefix(a.Digest, "sha-256:") || !strings.HasSuffix(a.StatusEndpoint, "/approvals/"+a.ID) {
		t.Fatalf("the approval is %+v in %s", a, r.body)
	}
	return a
}

// naming is a change of a request that names an approval, or nothing.
func naming(id string) func(*http.Request) {
	return func(r *http.Request) {
		if id != "" {
			r.Header.Set("Counterfoil-Approval", id)
		}
	}
}

func keyed(key string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Idempotency-Key", key) }
}

// checkProof checks that every payment that went upstream has its own decision on an
// approval that was spent for it, with two signers.
func (o *office) checkProof(t testing.TB) {
	t.Helper()
	spent := map[string]int{}
	for _, e := range o.log.of(ledger.CallDecided) {
		if e.Decision != ledger.Allow || e.Tool != "bank/pay" && e.Tool != "bank/"+resetTool {
			continue
		}
		spent[e.Approval.ID]++
		if e.Approval.State != "spent" || len(e.Approval.Signers) == 0 || e.Tool == "bank/pay" && !slices.Equal(e.Approval.Signers, []string{"bo", "cy"}) {
			t.Errorf("entry %d of %s says %+v", e.Index, e.Tool, e.Approval)
		}
	}
	for id, n := range spent {
		if n != 1 {
			t.Errorf("approval %s was spent %d times", id, n)
		}
	}
	if paid := o.paid(); paid > len(spent) {
		t.Errorf("%d payments on %d approvals", paid, len(spent))
	}
}

// engineOn is an engine on a store of the test's own.
func engineOn(t testing.TB, s approval.Store, cfg *gateway.Config) *approval.Engine {
	t.Helper()
	e, err := approval.New(approval.Config{Store: s, Issuer: cfg.PublicURL, Origin: consoleURL, Now: cfg.Now, Log: cfg.Log})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func digestOf(definition string) string {
	sum := sha256.Sum256([]byte(definition))
	return "sha-256:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// replacing is the upstream with a text of its answers replaced.
func replacing(old, new string) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		jsonUpstream(rec, r)
		rw.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
		rw.WriteHeader(rec.Code)
		io.WriteString(rw, strings.Replace(rec.Body.String(), old, new, 1))
	})
}
