package e2e

import (
	"bufio"
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/e2e/peers"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/counterfoiltest"
	"github.com/counterfoil/counterfoil/ledger"
)

const differentialManifest = `kind: Class
name: kept
tier: routine
payload: full
---
kind: Resource
name: %[1]s
type: http
environment: prod
upstream: %[2]s
tools:
  - {name: get, method: GET, path: "/things/{id}/{part}", class: kept}
  - {name: post, method: POST, path: "/things/{id}/{part}", class: kept}
---
kind: Agent
name: asker
owner: ana
environment: prod
grants:
  - tools: ["go/*", "node/*", "python/*"]
`

// understood is what an upstream read in a request.
type understood struct {
	Method string              `json:"method"`
	Path   []string            `json:"path"`
	Query  map[string][]string `json:"query"`
	Body   json.RawMessage     `json:"body"`
}

// TestWhatIsDecidedOnIsWhatUpstreamsRead: of random requests, written in every odd way
// that there is, those that pass are read by servers in Go, Node and Python as policy
// read them. COUNTERFOIL_SEED repeats a run.
func TestWhatIsDecidedOnIsWhatUpstreamsRead(t *testing.T) {
	t.Parallel()
	p := peers.Need(t)
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("COUNTERFOIL_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("COUNTERFOIL_SEED=%d", seed)
	upstreams := map[string]string{"go": goAPI(t), "node": p.NodeAPI(t), "python": p.PythonAPI(t)}
	sys := counterfoiltest.New(t)
	var manifest []string
	for name, at := range upstreams {
		text := fmt.Sprintf(differentialManifest, name, at)
		parts := strings.Split(text, "---\n")
		manifest = append(manifest, parts[1])
		if len(manifest) == 1 {
			manifest = append(manifest, parts[0], parts[2])
		}
	}
	sys.Apply(strings.Join(manifest, "---\n"))
	signer := counterfoiltest.NewSigner(t, credential.ES256)
	sys.AgentWith("asker", signer)

	random := rand.New(rand.NewPCG(seed, 1))
	const rounds = 400
	answers := map[string]understood{} // by request id
	refused := 0
	for _, name := range slices.Sorted(maps.Keys(upstreams)) {
		resource := sys.Issuer() + "/r/" + name
		token := tokenOf(t, sys, signer, resource)
		for i := range rounds {
			sys.Clock.Advance(50 * time.Millisecond)
			if i%100 == 99 {
				token = tokenOf(t, sys, signer, resource)
			}
			method, target, body := randomRequest(random)
			status, id, answer := sendOdd(t, sys, signer, resource, token, method, target, body)
			switch {
			case status == http.StatusOK:
				var u understood
				if err := json.Unmarshal(answer, &u); err != nil {
					t.Fatalf("%s %q: the upstream answered %q: %v", method, target, answer, err)
				}
				answers[id] = u
			case status/100 == 4:
				refused++
			default:
				t.Errorf("%s: %s %q %q: HTTP %d %s", name, method, target, body, status, answer)
			}
		}
	}
	t.Logf("%d requests passed and %d were refused", len(answers), refused)
	if len(answers) < rounds/2 || refused < rounds/10 {
		t.Errorf("%d passed and %d were refused: one side is hardly tried", len(answers), refused)
	}
	checkUnderstood(t, sys, answers)
	sys.CheckLedger()
}

// checkUnderstood holds what the upstreams read against the payloads that were decided
// on.
func checkUnderstood(t *testing.T, sys *counterfoiltest.System, answers map[string]understood) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(sys.Dir, "counterfoil.db")+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	found := 0
	for _, e := range sys.Entries() {
		u, ok := answers[e.RequestID]
		if !ok || e.Kind != ledger.CallDecided {
			continue
		}
		found++
		var payload []byte
		if err := db.QueryRow(`SELECT payload FROM payloads WHERE entry = ?`, e.Index).Scan(&payload); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{"path": map[string]any{"id": u.Path[1], "part": u.Path[2]}}
		if len(u.Path) != 3 || u.Path[0] != "things" {
			t.Fatalf("entry %d: the upstream read the path %q", e.Index, u.Path)
		}
		if len(u.Query) > 0 {
			query := map[string]any{}
			for name, values := range u.Query {
				query[name] = values[0]
				if len(values) != 1 {
					t.Errorf("entry %d: the upstream read %q as %q", e.Index, name, values)
				}
			}
			want["query"] = query
		}
		if string(u.Body) != "null" && len(u.Body) > 0 {
			want["body"] = u.Body
		}
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		canonical, err := ijson.Canonical(text)
		if err != nil {
			t.Fatalf("entry %d: %v: %s", e.Index, err, text)
		}
		if !bytes.Equal(canonical, payload) {
			t.Errorf("entry %d (%s): decided on %s, read as %s", e.Index, e.Tool, payload, canonical)
		}
	}
	if found != len(answers) {
		t.Errorf("%d of %d calls are in the log", found, len(answers))
	}
}

// goAPI answers with what Go reads in a request.
func goAPI(t *testing.T) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u := understood{Method: r.Method, Query: r.URL.Query()}
		for s := range strings.SplitSeq(r.URL.EscapedPath()[1:], "/") {
			plain, err := url.PathUnescape(s)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			u.Path = append(u.Path, plain)
		}
		body, err := io.ReadAll(r.Body)
		var value any
		if err == nil && len(body) > 0 {
			err = json.Unmarshal(body, &value)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if len(body) > 0 {
			u.Body, _ = json.Marshal(value)
		}
		w.Header().Set("Content-Type", "application/json")
		text, _ := json.Marshal(u)
		w.Write(text)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func tokenOf(t *testing.T, sys *counterfoiltest.System, signer *credential.Signer, resource string) string {
	t.Helper()
	q := counterfoiltest.NewTokenRequest(t, sys.Issuer(), resource, "asker", signer, sys.Clock.Now())
	resp, err := http.DefaultClient.Do(q.Request(t, sys.Issuer()+"/oauth/token"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got struct {
		Token string `json:"access_token"`
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &got); err != nil || got.Token == "" {
		t.Fatalf("a token: HTTP %d %s", resp.StatusCode, body)
	}
	return got.Token
}

// sendOdd sends a request whose target no client library would write, with a proof for
// that very target.
func sendOdd(t *testing.T, sys *counterfoiltest.System, signer *credential.Signer, resource, token, method, target, body string) (status int, id string, answer []byte) {
	t.Helper()
	path, _, _ := strings.Cut(target, "?")
	proof := counterfoiltest.ForgeProof(t, signer, method, resource+path, sys.Clock.Now())
	proof.Claims["ath"] = credential.TokenHash(token)
	host := strings.TrimPrefix(sys.Issuer(), "http://")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(counterfoiltest.Timeout)); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nAuthorization: DPoP %s\r\nDPoP: %s\r\n", method, strings.TrimPrefix(resource, sys.Issuer()), target, host, token, proof.Compact(t))
	if body != "" {
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	if _, err := io.WriteString(conn, b.String()+"\r\n"+body); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%s %q: %v", method, target, err)
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("X-Request-Id"), answer
}

// randomRequest writes a request for /things/{id}/{part} in some way.
func randomRequest(r *rand.Rand) (method, target, body string) {
	method = "GET"
	target = "/things/" + randomText(r, segmentPieces) + "/" + randomText(r, segmentPieces)
	if n := r.IntN(4); n > 0 {
		var parameters []string
		for i := range n {
			parameter := fmt.Sprintf("%c", 'a'+i) + randomText(r, queryPieces)
			if r.IntN(5) > 0 {
				parameter += "=" + randomText(r, queryPieces)
			}
			if r.IntN(60) == 0 {
				parameter += "&" + parameter
			}
			parameters = append(parameters, parameter)
		}
		target += "?" + strings.Join(parameters, []string{"&", "&", "&", "&", "&", "&&", ";"}[r.IntN(7)])
	}
	if r.IntN(2) == 0 {
		method, body = "POST", randomBody(r, 3)
	}
	return method, target, body
}

func randomText(r *rand.Rand, pieces []string) string {
	var b strings.Builder
	for range 1 + r.IntN(5) {
		if r.IntN(4) > 0 {
			b.WriteByte("abcdefgxyz0123456789-_~"[r.IntN(23)])
		} else {
			b.WriteString(pieces[r.IntN(len(pieces))])
		}
	}
	return b.String()
}

var segmentPieces = []string{
	"%20", "%C3%A9", "%E2%82%AC", "%F0%9F%98%80", "+", "%2B", ":", "%3A", "@", "%40", "!", "$", "'", "(", ")", "*", ",", "=", "%3D", "&", "%26", ".", "%22", "%3C", "%5B", "%7B", "%7C", "%60",
	"%2f", "%2F", "%5C", "%00", "%2e", "%25", "%3B", ";", "//", "/../", "%c3%a9", "%C3", "%zz", "%", "%23", "%3F",
}

var queryPieces = []string{
	"%20", "+", "%2B", "%C3%A9", "%F0%9F%98%80", "%26", "%3D", "%25", "%23", "%3F", "/", "%2F", ":", "@", "!", "$", "'", "(", ")", "*", ",", "%22", "%5B%5D", "[]", "%7B", "%0A", "%3B", "=", "?",
	"%00", "%C3", "%zz", "%", "\"", "|", "%EF%BB%BF", "%E2%80%A8",
}

// randomBody writes a JSON value; now and then one that is none, or two.
func randomBody(r *rand.Rand, depth int) string {
	space := []string{"", "", " ", "\n"}[r.IntN(4)]
	switch n := r.IntN(24); {
	case n < 4 && depth < 3:
		return []string{"true", "false", "0", "-0", "1.50", "1e2", "9007199254740991", "-1.5E-3", "1e300", "123456789.125"}[r.IntN(10)]
	case n < 8 && depth < 3:
		return `"` + []string{"a", `\u0061`, `\/`, "é", `\u00e9`, `\ud83d\ude00`, "\u2028", `\n`, `\u0000`, `\"`}[r.IntN(10)] + `b"`
	case n < 10 && depth < 3:
		return []string{"null", "[]", "{}", `""`}[r.IntN(4)]
	case n == 10:
		return []string{`{"a":1,"a":2}`, `{"a":9007199254740993}`, `{"a":"\ud800"}`, `{"a":1}{}`, `{"a":1,}`, `{"a":01}`, `{'a':1}`, `{"a":NaN}`, "{\"a\":\"\xff\"}", `{"a":1,"A":2}`, "\ufeff{}"}[r.IntN(11)]
	case depth == 0:
		return "7"
	}
	var members []string
	for i := range r.IntN(4) {
		members = append(members, fmt.Sprintf("%s%q%s:%s", space, fmt.Sprintf("%c%d", 'a'+r.IntN(26), i), space, randomBody(r, depth-1)))
	}
	return "{" + strings.Join(members, ",") + space + "}"
}
