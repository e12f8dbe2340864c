package gateway_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/gateway"
	"github.com/counterfoil/counterfoil/ledger"
)

// classify gives a tool of the bank another class.
func classify(tool, class string) func(*counterfoil.Registry) {
	return func(reg *counterfoil.Registry) {
		bank := *reg.Resources["bank"]
		bank.Tools = append([]counterfoil.Tool(nil), bank.Tools...)
		for i := range bank.Tools {
			if bank.Tools[i].Name == tool {
				bank.Tools[i].Class = class
			}
		}
		reg.Resources["bank"] = &bank
	}
}

// theirPay is the digest of what bankTools says pay is.
var theirPay = func() string {
	sum := sha256.Sum256([]byte(`{"description":"Pay","inputSchema":{"type":"object"},"name":"pay"}`))
	return "sha-256:" + base64.RawURLEncoding.EncodeToString(sum[:])
}()

// gonePins are pins that can all be gone.
type gonePins struct {
	gateway.Pins
	gone atomic.Bool
}

func (p *gonePins) Pin(resource, tool string) (string, bool) {
	if p.gone.Load() {
		return "", false
	}
	return p.Pins.Pin(resource, tool)
}

func (p *gonePins) PinHow(resource, tool string) string {
	if p.gone.Load() {
		return ""
	}
	return p.Pins.PinHow(resource, tool)
}

// onList makes the upstream do something, once, before it says what its tools
// are.
func (w *world) onList(do func()) {
	w.upstream.handle(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if do != nil && len(w.upstream.calls("tools/list")) > 0 {
			do()
			do = nil
		}
		jsonUpstream(rw, r)
	}))
}

// TestACallStaysOnTheServerItWasDecidedOn: an apply may move a resource while a
// call waits. What the old server said of its tools says nothing of the new one.
func TestACallStaysOnTheServerItWasDecidedOn(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		moved bool
	}{{"an apply that moves nothing", false}, {"an apply that moves the resource", true}} {
		for _, wait := range []string{"the body", "the list of tools"} {
			t.Run(tc.name+" during "+wait, func(t *testing.T) {
				t.Parallel()
				second := &upstream{next: http.HandlerFunc(jsonUpstream)}
				up := httptest.NewServer(second)
				t.Cleanup(up.Close)
				w, a, checked := heldWorld(t, nil)
				apply := func() {
					w.apply(func(reg *counterfoil.Registry) {
						bank := *reg.Resources["bank"]
						if tc.moved {
							bank.Upstream = up.URL + "/mcp"
						}
						reg.Resources["bank"] = &bank
					})
				}
				body := toolCall("get_balance", `{}`)
				var r reply
				if wait == "the body" {
					r = hold(a, checked, body, apply)
				} else {
					w.onList(apply)
					r = a.post(body, nil)
					<-checked
				}
				if !tc.moved {
					wantDone(t, r)
				} else {
					res := wantDenied(t, r, counterfoil.ToolChanged)
					if detail := res.Result.Meta["counterfoil/refusal"].Detail; !strings.Contains(detail, "call again") {
						t.Errorf("the refusal says %q", detail)
					}
					if first, other := len(w.upstream.calls("tools/call")), len(second.all()); first != 0 || other != 0 {
						t.Errorf("the servers saw %d and %d calls", first, other)
					}
				}
				if !tc.moved {
					return
				}
				// Whoever calls again is heard by the new server, which was asked
				// for its tools itself.
				wantDone(t, a.post(body, nil))
				if lists, calls := len(second.calls("tools/list")), len(second.calls("tools/call")); lists != 1 || calls != 1 {
					t.Errorf("the new server saw %d lists and %d calls", lists, calls)
				}
			})
		}
	}
}

// TestThePinIsOfTheMomentAfterTheListOfTools: while the upstream takes its time
// to say what its tools are, a person may pin one, or a resource's pins may go.
func TestThePinIsOfTheMomentAfterTheListOfTools(t *testing.T) {
	t.Parallel()
	seen, other := bankWorld(t)
	wantDone(t, other.post(toolCall("get_balance", `{}`), nil))
	same, gone := pinned(seen, "get_balance"), "(gone)"
	for _, tc := range []struct {
		name, tool, before, after string
		want                      counterfoil.Code // empty: it is done
		changes                   int              // that are recorded
	}{
		{"nothing happened", "get_balance", same, "", "", 0},
		{"another definition", "get_balance", "sha-256:x", "", counterfoil.ToolChanged, 1},
		{"this definition was pinned", "get_balance", "sha-256:x", same, "", 0},
		{"another definition was pinned", "get_balance", same, "sha-256:x", counterfoil.ToolChanged, 0},
		{"it was pinned for the first time", "get_balance", "", "sha-256:x", counterfoil.ToolChanged, 0},
		{"above routine, nothing happened", "pay", theirPay, "", counterfoil.ApprovalRequired, 0},
		{"above routine, another definition", "pay", "sha-256:x", "", counterfoil.ToolChanged, 1},
		{"above routine, this definition was pinned", "pay", "sha-256:x", theirPay, counterfoil.ApprovalRequired, 0},
		{"above routine, the pin went", "pay", theirPay, gone, counterfoil.ToolChanged, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var pins gonePins
			w := newWorld(t, http.HandlerFunc(jsonUpstream), func(_ *counterfoil.Registry, cfg *gateway.Config) {
				pins.Pins = cfg.Pins
				cfg.Pins = &pins
			})
			a := w.actor("payroll")
			pin := func(digest string) {
				switch digest {
				case "":
				case gone:
					pins.gone.Store(true)
				default:
					w.log.pin(tc.tool, digest)
				}
			}
			pin(tc.before)
			w.onList(func() { pin(tc.after) })
			r := a.post(toolCall(tc.tool, `{}`), nil)
			if tc.want == "" {
				wantDone(t, r)
			} else {
				wantDenied(t, r, tc.want)
			}
			if got := w.log.of(ledger.ToolChanged); len(got) != tc.changes {
				t.Errorf("recorded are %+v", got)
			}
		})
	}
}

// TestAFirstSightVouchesForRoutineAlone: a tool whose class is raised may have
// been pinned by whoever saw it first. Above routine that is no pin.
func TestAFirstSightVouchesForRoutineAlone(t *testing.T) {
	t.Parallel()
	for how, want := range map[string]counterfoil.Code{
		counterfoil.PinFirstSight: counterfoil.ToolChanged,
		"apply":                   counterfoil.ApprovalRequired,
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w, a := bankWorld(t)
			e := &ledger.Entry{Kind: ledger.ToolPinned, Resource: "bank", Tool: "bank/pay", ToolDigest: theirPay}
			if err := w.log.PinTool(t.Context(), "bank", "pay", theirPay, how, e); err != nil {
				t.Fatal(err)
			}
			wantDenied(t, a.post(toolCall("pay", `{}`), nil), want)
			if got := w.log.of(ledger.ToolChanged); len(got) != 0 {
				t.Errorf("recorded are %+v", got)
			}
		})
	}
	t.Run("a class that is raised meanwhile", func(t *testing.T) {
		t.Parallel()
		w, a := bankWorld(t)
		w.onList(func() { w.apply(classify("get_balance", "payout")) })
		for range 2 {
			wantDenied(t, a.post(toolCall("get_balance", `{}`), nil), counterfoil.ToolChanged)
		}
		digest := pinned(w, "get_balance")
		if how := w.log.PinHow("bank", "get_balance"); how != counterfoil.PinFirstSight {
			t.Fatalf("it is pinned by %q", how)
		}
		w.log.pin("get_balance", digest)
		wantDenied(t, a.post(toolCall("get_balance", `{}`), nil), counterfoil.ApprovalRequired)
		w.apply(classify("get_balance", "read"))
		wantDone(t, a.post(toolCall("get_balance", `{}`), nil))
	})
}
