package web_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/testkit"
	"github.com/counterfoil/counterfoil/ledger"
)

func TestAdminKnowsWhoAsks(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	if a := s.admin("GET", "/api/v1/agents", nil); a.status != 200 {
		t.Fatalf("with an actor: %d %s", a.status, a.body)
	}
	for _, path := range []string{"/api/v1/agents", "/api/v1/ledger/export", "/api/v1/status"} {
		wantProblem(t, serve(s.handlers.Admin, httptest.NewRequest("GET", path, nil)), 403, counterfoil.RoleRequired)
		for name, value := range map[string]string{"Origin": "http://localhost:8421", "Sec-Fetch-Site": "same-origin"} {
			r := httptest.NewRequest("GET", path, nil)
			r.Header.Set(name, value)
			r = r.WithContext(context.WithValue(r.Context(), actorKey{}, "uid:0"))
			wantProblem(t, serve(s.handlers.Admin, r), 403, counterfoil.OriginForbidden)
		}
	}
}

func TestApplyIsAtomicAndIdempotent(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	taken := s.enrol("payroll").signer
	_, before := s.store.Registry()
	size, _ := s.store.Head()
	apply := func(yaml string, dryRun bool) answer {
		return s.admin("POST", "/api/v1/apply", map[string]any{"files": []map[string]string{{"name": "a.yaml", "data": yaml}}, "dry_run": dryRun})
	}
	// The same again changes nothing and records nothing.
	a := apply(world, false)
	if a.status != 200 || strings.Contains(a.body, `"create"`) || strings.Contains(a.body, `"update"`) {
		t.Errorf("again: %d %s", a.status, a.body)
	}
	// One wrong document of two: neither.
	bad := "kind: Person\nname: dee\n---\nkind: Agent\nname: new\nowner: nobody\nenvironment: prod\ngrants: [{tools: [nowhere/tool]}]\n"
	a = apply(bad, false)
	wantProblem(t, a, 400, counterfoil.PayloadMalformed)
	var told struct{ Problems []string }
	if err := json.Unmarshal([]byte(a.body), &told); err != nil || len(told.Problems) < 2 {
		t.Errorf("a wrong one: %v, %s", err, a.body)
	}
	if text := strings.Join(told.Problems, "\n"); !strings.Contains(text, "a.yaml:") || !strings.Contains(text, "nobody") || !strings.Contains(text, "nowhere") {
		t.Errorf("a wrong one: %s", text)
	}
	if !strings.Contains(a.member("detail"), "nothing was applied") {
		t.Errorf("a wrong one: %s", a.body)
	}
	// What is known of the changes is said beside a problem that is found later.
	a = apply("kind: Person\nname: dee\n---\nkind: Agent\nname: new\nowner: ana\nenvironment: prod\nkeys: ['"+string(taken.Public().JWK())+"']\n", false)
	wantProblem(t, a, 400, counterfoil.PayloadMalformed)
	if !strings.Contains(a.body, `"problems":["Agent new: keys: key 1`) || !strings.Contains(a.body, `"verb":"create"`) {
		t.Errorf("a key in use: %s", a.body)
	}
	// A dry run says what would change.
	a = apply("kind: Person\nname: dee\n", true)
	if a.status != 200 || !strings.Contains(a.body, `"create"`) {
		t.Errorf("a dry run: %d %s", a.status, a.body)
	}
	if _, after := s.store.Registry(); after != before {
		t.Errorf("the registry changed from %s to %s", before, after)
	}
	if now, _ := s.store.Head(); now != size {
		t.Errorf("%d entries were added", now-size)
	}
	// And for real.
	if a = apply("kind: Person\nname: dee\n", false); a.status != 200 {
		t.Fatalf("for real: %d %s", a.status, a.body)
	}
	e := s.entries(ledger.ConfigApplied)
	last := e[len(e)-1]
	if last.Actor != "uid:0" || !strings.Contains(fmt.Sprint(last.Detail), "dee") || !strings.Contains(fmt.Sprint(last.Detail), "sha-256:") {
		t.Errorf("entry = %+v", last)
	}
	for _, body := range []any{map[string]any{"files": nil, "force": true}, []any{}, "x"} {
		wantProblem(t, s.admin("POST", "/api/v1/apply", body), 400, counterfoil.PayloadMalformed)
	}
}

// A change of grants counts with the answer, for the next token.
func TestApplyCountsAtOnce(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("other")
	if a := s.token(k, field("scope", "get_balance")); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	s.apply("kind: Agent\nname: other\nowner: ana\nenvironment: prod\ngrants: [{tools: [bank/list_payees]}]\n")
	wantStatus(t, s.token(k, field("scope", "get_balance")), 400, "invalid_scope", counterfoil.ScopeInvalid)
	if a := s.token(k); a.member("scope") != "list_payees" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestDocumentsAreShown(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.enrol("payroll")
	for plural, want := range map[string]int{"people": 3, "classes": 2, "resources": 5, "agents": 5, "policies": 0} {
		var list struct {
			Documents []struct{ Kind, Name, Manifest string }
		}
		a := s.admin("GET", "/api/v1/"+plural, nil)
		if err := json.Unmarshal([]byte(a.body), &list); err != nil || len(list.Documents) != want {
			t.Errorf("%s: %d documents, %v, %s", plural, len(list.Documents), err, a.body)
		}
		for _, d := range list.Documents {
			one := s.admin("GET", "/api/v1/"+plural+"/"+d.Name, nil)
			if one.status != 200 || one.member("manifest") != d.Manifest {
				t.Errorf("%s %s: %d %s", plural, d.Name, one.status, one.body)
			}
			// What is shown is what apply takes.
			if a := s.admin("POST", "/api/v1/apply", map[string]any{"files": []any{map[string]any{"name": "x", "data": d.Manifest}}, "dry_run": true}); a.status != 200 || !strings.Contains(a.body, `"unchanged"`) {
				t.Errorf("%s %s applied again: %d %s", plural, d.Name, a.status, a.body)
			}
		}
	}
	if a := s.admin("GET", "/api/v1/agents/payroll", nil); a.member("status") != "active" || a.member("instances") != "1" {
		t.Errorf("%s", a.body)
	}
	for _, path := range []string{"/api/v1/agents/nobody", "/api/v1/things", "/api/v1/agents/nobody/instances", "/api/v1"} {
		wantProblem(t, s.admin("GET", path, nil), 404, counterfoil.ToolUnknown)
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	token := s.token(k).member("access_token")
	for _, path := range []string{"/api/v1/people/ana", "/api/v1/classes/read", "/api/v1/resources/bank"} {
		wantProblem(t, s.admin("DELETE", path, nil), 400, counterfoil.RequestMalformed)
	}
	if a := s.admin("DELETE", "/api/v1/people/cy", nil); a.status != 200 {
		t.Errorf("a person that nothing needs: %d %s", a.status, a.body)
	}
	wantProblem(t, s.admin("DELETE", "/api/v1/people/cy", nil), 404, counterfoil.ToolUnknown)
	if _, err := s.verify(k, token, "bank"); err != nil {
		t.Fatal(err)
	}
	a := s.admin("DELETE", "/api/v1/agents/payroll", nil)
	if a.status != 200 || !strings.Contains(a.body, k.instance) || !strings.Contains(a.body, k.signer.Public().Thumbprint()) {
		t.Fatalf("offboarding: %d %s", a.status, a.body)
	}
	if _, err := s.verify(k, token, "bank"); counterfoil.CodeOf(err) != counterfoil.TokenRevoked {
		t.Errorf("a live token of an offboarded agent: %v", err)
	}
	wantProblem(t, s.admin("POST", "/api/v1/agents/payroll/enroll-code", nil), 404, counterfoil.ToolUnknown)
	// Neither its name nor its key ever returns.
	body := map[string]any{"files": []any{map[string]any{"name": "x", "data": world}}}
	if a := s.admin("POST", "/api/v1/apply", body); a.status != 400 || !strings.Contains(a.body, "offboarded") {
		t.Errorf("the name again: %d %s", a.status, a.body)
	}
	keyed := fmt.Sprintf("kind: Agent\nname: other\nowner: ana\nenvironment: prod\nkeys: [%s]\n", k.signer.Public().JWK())
	body = map[string]any{"files": []any{map[string]any{"name": "x", "data": keyed}}}
	if a := s.admin("POST", "/api/v1/apply", body); a.status != 400 || !strings.Contains(a.body, "never reused") {
		t.Errorf("the key again: %d %s", a.status, a.body)
	}
	if e := s.entries(ledger.AgentOffboarded); len(e) != 1 || e[0].Agent != "payroll" || e[0].Owner != "ana" || e[0].Actor != "uid:0" {
		t.Errorf("entry = %+v", e)
	}
}

// Weak and wrong keys are refused where they would be registered.
func TestKeysAtRegistration(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	apply := func(jwk string) answer {
		data := "kind: Agent\nname: keyed\nowner: ana\nenvironment: prod\nkeys:\n  - '" + jwk + "'\n"
		return s.admin("POST", "/api/v1/apply", map[string]any{"files": []any{map[string]any{"name": "x", "data": data}}, "dry_run": true})
	}
	if a := apply(string(testkit.Signer(t, "ES384").Public().JWK())); a.status != 200 {
		t.Fatalf("a good key: %d %s", a.status, a.body)
	}
	modulus := strings.Repeat("_", 171) // 1024 bits
	for name, jwk := range map[string]string{
		"RSA of 1024 bits":  `{"kty":"RSA","e":"AQAB","n":"` + modulus + `"}`,
		"RSA with e=1":      `{"kty":"RSA","e":"AQ","n":"` + strings.Repeat("_", 342) + `"}`,
		"RSA of 16384 bits": `{"kty":"RSA","e":"AQAB","n":"` + strings.Repeat("_", 2731) + `"}`,
		"P-521":             `{"kty":"EC","crv":"P-521","x":"AA","y":"AA"}`,
		"symmetric":         `{"kty":"oct","k":"AAAA"}`,
		"private":           strings.Replace(string(testkit.Signer(t, "ES256").Public().JWK()), "{", `{"d":"AAAA",`, 1),
		"no JSON":           "key",
	} {
		if a := apply(jwk); a.status != 400 || !strings.Contains(a.body, "problems") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

func TestLedgerIsReadByAdministrators(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	s.token(k)
	s.token(k, field("scope", "nothing"))
	type page struct {
		Size    int64
		Entries []*ledger.Entry
	}
	find := func(query string) page {
		t.Helper()
		a := s.admin("GET", "/api/v1/ledger/entries"+query, nil)
		var p page
		if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.status != 200 {
			t.Fatalf("%s: %d %s", query, a.status, a.body)
		}
		return p
	}
	if p := find("?kind=token.refused&agent=payroll"); len(p.Entries) != 1 || p.Entries[0].Code != counterfoil.ScopeInvalid || p.Entries[0].Reason == "" {
		t.Errorf("found %+v", p.Entries)
	}
	if p := find("?code=scope_invalid&limit=5"); len(p.Entries) != 1 {
		t.Errorf("found %+v", p.Entries)
	}
	size, _ := s.store.Head()
	if p := find("?from=2&limit=3"); p.Size != size || len(p.Entries) != 3 || p.Entries[0].Index != 2 || p.Entries[2].Index != 4 {
		t.Errorf("found %+v", p)
	}
	if p := find(fmt.Sprintf("?from=%d", size)); len(p.Entries) != 0 {
		t.Errorf("found %+v", p)
	}
	for _, query := range []string{"?from=x", "?from=-1", "?limit=x", "?from=1&kind=x", "?since=yesterday", "?who=payroll", "?kind=a&kind=b", "?%zz"} {
		wantProblem(t, s.admin("GET", "/api/v1/ledger/entries"+query, nil), 400, counterfoil.RequestMalformed)
	}

	want, err := s.store.Entry(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if a := s.admin("GET", "/api/v1/ledger/entries/1", nil); strings.TrimSpace(a.body) != string(want) {
		t.Errorf("entry 1 is shown as %s, it is %s", a.body, want)
	}
	a := s.admin("GET", "/api/v1/ledger/receipts/1", nil)
	receipt, err := ledger.ParseReceipt([]byte(a.body))
	if err != nil {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	if e, err := receipt.Verify(s.opened.opt.Verifier); err != nil || e.Index != 1 {
		t.Errorf("the receipt: %v, %v", e, err)
	}
	for _, path := range []string{"entries/999999", "entries/-1", "entries/x", "receipts/999999"} {
		wantProblem(t, s.admin("GET", "/api/v1/ledger/"+path, nil), 404, counterfoil.ToolUnknown)
	}
	export := s.admin("GET", "/api/v1/ledger/export", nil)
	report, err := ledger.VerifyExport(strings.NewReader(export.body), ledger.VerifyOptions{Verifier: s.opened.opt.Verifier})
	if err != nil || report.Size != size {
		t.Errorf("the export: %+v, %v", report, err)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	a := s.admin("GET", "/api/v1/status", nil)
	if a.status != 200 || a.member("issuer") != s.issuer || a.member("ready") != "true" || a.member("agents") != "5" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if strings.Contains(a.body, "sealed") || strings.Contains(a.body, "PRIVATE") {
		t.Errorf("the status tells a secret: %s", a.body)
	}
}

// Rotation with overlap: what was signed before stays good, whoever keeps the
// key set for as long as it says never meets a key that it has not.
func TestRotation(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	k := s.enrol("payroll")
	kids := func() map[string]bool {
		var set struct{ Keys []struct{ KID string } }
		if err := json.Unmarshal([]byte(s.get("/oauth/jwks").body), &set); err != nil {
			t.Fatal(err)
		}
		out := map[string]bool{}
		for _, key := range set.Keys {
			out[key.KID] = true
		}
		return out
	}
	rotate := func(emergency bool) answer {
		return s.admin("POST", "/api/v1/keys/rotate", map[string]any{"emergency": emergency})
	}
	// The next key was published just now: caches may not have it.
	wantProblem(t, rotate(false), 400, counterfoil.RequestMalformed)

	cached, cachedAt := kids(), s.clock.Now()
	first := s.keys.Signer().Public().Thumbprint()
	old := ""
	for minute := range 60 {
		s.clock.Advance(time.Minute)
		if s.clock.Now().Sub(cachedAt) >= 10*time.Minute {
			cached, cachedAt = kids(), s.clock.Now()
		}
		if minute == 15 {
			old = s.token(k).member("access_token")
			if a := rotate(false); a.status != 200 {
				t.Fatalf("rotate: %d %s", a.status, a.body)
			}
			if s.keys.Signer().Public().Thumbprint() == first {
				t.Fatal("the old key still signs")
			}
		}
		if err := s.keys.Advance(t.Context()); err != nil {
			t.Fatal(err)
		}
		a := s.token(k)
		if _, err := s.verify(k, a.member("access_token"), "bank"); err != nil {
			t.Fatalf("minute %d: %v", minute, err)
		}
		if !cached[s.keys.Signer().Public().Thumbprint()] {
			t.Fatalf("minute %d: a key signs that a cached set does not have", minute)
		}
		if minute >= 15 && minute < 19 {
			if _, err := s.verify(k, old, "bank"); err != nil {
				t.Fatalf("minute %d: a live token of the retired key: %v", minute, err)
			}
		}
		if minute == 15+15 && !kids()[first] {
			t.Error("the retired key is not published for the longest life of a token")
		}
		if minute == 15+17 && kids()[first] {
			t.Error("the retired key is still published")
		}
	}

	before := s.token(k).member("access_token")
	if a := rotate(true); a.status != 200 {
		t.Fatalf("emergency: %d %s", a.status, a.body)
	}
	if _, err := s.verify(k, before, "bank"); counterfoil.CodeOf(err) != counterfoil.TokenMalformed {
		t.Errorf("a token of the compromised key: %v", err)
	}
	if _, err := s.verify(k, s.token(k).member("access_token"), "bank"); err != nil {
		t.Errorf("after the emergency: %v", err)
	}
	reasons := []string{}
	for _, e := range s.entries(ledger.KeyRotated) {
		reasons = append(reasons, e.Reason)
	}
	if got := strings.Join(reasons, ", "); got != "first start, ordered, expired, emergency" {
		t.Errorf("entries of rotations: %s", got)
	}
}
