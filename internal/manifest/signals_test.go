package manifest

import (
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
)

// What comes beside the controls: who serves a resource, who opens tasks, who is told
// and who tells.
var signalControls = sync.OnceValue(func() string {
	return `kind: Resource
name: own
type: direct
environment: prod
public_url: https://own.example/api
servers: [watch]
---
kind: Agent
name: watch
owner: ana
environment: prod
tasks: {orchestrators: [payroll]}
signals: {push: ["https://watch.example/events", "http://127.0.0.1:9/e"]}
---
kind: Transmitter
name: idp
issuer: https://idp.example
jwks_uri: https://idp.example/keys
poll: https://idp.example/poll
token: idp-token
disabled: [suspend-agents]
---
kind: Transmitter
name: hr
issuer: https://hr.example
audience: counterfoil
keys: [` + rsaJWK() + `]
---
`
})

var rsaJWK = sync.OnceValue(func() string {
	key, err := credential.GenerateKey(credential.RS256)
	if err != nil {
		panic(err)
	}
	s, err := credential.NewSignerFor(credential.RS256, key)
	if err != nil {
		panic(err)
	}
	return strings.Replace(string(s.Public().JWK()), "{", `{"kid":"hr-1","use":"sig",`, 1)
})

func TestSignalProblems(t *testing.T) {
	t.Parallel()
	key := rsaJWK()
	for _, tt := range []struct{ old, new, want string }{
		{"", "", ""},
		{"servers: [watch]", "servers: [wotch]", `m.yaml:6: Resource own: servers[0]: there is no Agent "wotch"; did you mean "watch"?`},
		{"servers: [watch]", "servers: [watch, watch]", `m.yaml:6: Resource own: servers[1]: "watch" is there twice`},
		{"servers: [watch]", "servers: watch", `m.yaml:6: Resource own: servers: must be a list, not one value`},
		{"orchestrators: [payroll]", "orchestrators: [payrol]", `m.yaml:12: Agent watch: tasks.orchestrators[0]: there is no Agent "payrol"; did you mean "payroll"?`},
		{"orchestrators: [payroll]", "orchestrators: [watch]", `m.yaml:12: Agent watch: tasks.orchestrators[0]: an agent opens its own tasks without being named here`},
		{"orchestrators: [payroll]", "orchestrator: [payroll]", `m.yaml:12: Agent watch: tasks: member "orchestrator" is unknown; did you mean "orchestrators"?; known are max_calls, max_duration, orchestrators, required`},
		{"https://watch.example/events", "http://watch.example/events", `m.yaml:13: Agent watch: signals.push[0]: must be https, except to a loopback address`},
		{"https://watch.example/events", "https://224.0.0.1/e", `m.yaml:13: Agent watch: signals.push[0]: leads to 224.0.0.1, which is no address to connect to`},
		{"https://watch.example/events", "https://metadata.google.internal/e", `m.yaml:13: Agent watch: signals.push[0]: is a cloud's metadata service`},
		{"https://watch.example/events", "https://watch.example/events?token=x", `m.yaml:13: Agent watch: signals.push[0]: must not have a query`},
		{"https://watch.example/events", "https://a:b@watch.example/", `m.yaml:13: Agent watch: signals.push[0]: must not have a user or a password; secrets are files under secrets_dir (credential)`},
		{"https://watch.example/events", "http://127.0.0.1:9/e", `m.yaml:13: Agent watch: signals.push[1]: "http://127.0.0.1:9/e" is there twice`},
		{`"http://127.0.0.1:9/e"`, manyURLs(), `m.yaml:13: Agent watch: signals: push has 17 URLs; the limit is 16`},
		{"signals: {push:", "signals: {pull:", `m.yaml:13: Agent watch: signals: member "pull" is unknown; known are push`},
		{`signals: {push: ["https://watch.example/events", "http://127.0.0.1:9/e"]}`, "signals: {}", ""},
		{`signals: {push: ["https://watch.example/events", "http://127.0.0.1:9/e"]}`, "signals: true", `m.yaml:13: Agent watch: signals: must be a mapping (name: value), not one value`},
		{"issuer: https://idp.example\n", "", `m.yaml:15: Transmitter idp: member "issuer" is missing`},
		{"issuer: https://idp.example\n", "issuer: https://hr.example\n", `m.yaml:17: Transmitter idp: issuer: Transmitter hr has the same issuer; what its events do is said in one place`},
		{"jwks_uri: https://idp.example/keys\n", "", `m.yaml:15: Transmitter idp: neither jwks_uri nor keys is there: without a key nothing that it sends can be told from what others send in its name`},
		{"jwks_uri: https://idp.example/keys", "jwks_uri: http://idp.example/keys", `m.yaml:18: Transmitter idp: jwks_uri: must be https, except to a loopback address`},
		{"audience: counterfoil", "jwks_uri: https://hr.example/keys", `m.yaml:27: Transmitter hr: keys: jwks_uri is there, too; name its keys in one place`},
		{"poll: https://idp.example/poll\n", "", `m.yaml:19: Transmitter idp: token: it goes with poll; a transmitter that pushes is shown no token of ours`},
		{"token: idp-token", "token: ../idp-token", `m.yaml:20: Transmitter idp: token: "../idp-token" is not a plain file name under secrets_dir: letters, digits, _ - and ., without a slash and without two dots in a row`},
		{"disabled: [suspend-agents]", "disabled: [suspend-agent]", `m.yaml:21: Transmitter idp: disabled[0]: "suspend-agent" is none of suspend-agents, void-approvals; did you mean "suspend-agents"?`},
		{"disabled: [suspend-agents]", "disabled: []", `m.yaml:21: Transmitter idp: disabled: is empty; leave the member out for both, or the transmitter for nothing`},
		{"disabled: [suspend-agents]", "restores: [people]", `m.yaml:21: Transmitter idp: member "restores" is unknown; known are audience, disabled, issuer, jwks_uri, keys, kind, name, poll, token`},
		{key, `{"kty":"oct","k":"AAAA"}`, `m.yaml:27: Transmitter hr: keys[0]: is not a public key that is taken here: the JWK holds private or symmetric key material`},
		{key, key + "," + key, fmt.Sprintf(`m.yaml:27: Transmitter hr: keys[1]: the key %s is there twice`, thumbprint(t, key))},
	} {
		t.Run(tt.new, func(t *testing.T) {
			t.Parallel()
			text := signalControls()
			if strings.Count(text, tt.old) == 0 {
				t.Fatalf("%q is not in the controls", tt.old)
			}
			if got := strings.Join(apply(strings.Replace(text, tt.old, tt.new, 1)+controls), "\n"); got != tt.want {
				t.Errorf("\ngot  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func manyURLs() string {
	var urls []string
	for i := range 16 {
		urls = append(urls, fmt.Sprintf("https://watch.example/%d", i))
	}
	return strings.Join(urls, ", ")
}

func thumbprint(t *testing.T, jwk string) string {
	t.Helper()
	k, err := credential.ParseEventJWK([]byte(jwk))
	if err != nil {
		t.Fatal(err)
	}
	return k.Thumbprint()
}

// A key of a transmitter keeps its algorithm and its name; the same key is none that
// an agent may have with that algorithm.
func TestTransmitterKeys(t *testing.T) {
	t.Parallel()
	reg, _ := merged(t, nil, signalControls()+controls)
	keys := reg.Transmitters["hr"].Keys
	if len(keys) != 1 || !strings.Contains(keys[0], `"alg":"RS256"`) || !strings.Contains(keys[0], `"kid":"hr-1"`) || strings.Contains(keys[0], `"use"`) {
		t.Fatalf("keys = %q", keys)
	}
	if k, err := credential.ParseEventJWK([]byte(keys[0])); err != nil || k.Alg() != credential.RS256 {
		t.Errorf("%v, %v", k.Alg(), err)
	}
	b, err := Format(reg.Transmitters["hr"])
	if err != nil {
		t.Fatal(err)
	}
	again, _ := merged(t, reg, string(b))
	if again.Transmitters["hr"].Keys[0] != keys[0] {
		t.Errorf("formatted and read again:\n%s", again.Transmitters["hr"].Keys[0])
	}
	agent := strings.Replace(controls, "proof_keys: any", "proof_keys: any\nkeys: ["+keys[0]+"]", 1)
	if got := strings.Join(apply(agent), "\n"); !strings.Contains(got, "Agent payroll: keys[0]: is not a public key that is taken here: the JWK's alg") {
		t.Errorf("as an agent's key: %s", got)
	}
	if _, err := base64.RawURLEncoding.DecodeString(thumbprint(t, keys[0])); err != nil {
		t.Error(err)
	}
}

// To be told nothing and to be told by polling are two things, although the second
// has no member.
func TestEmptySignalsAreAChange(t *testing.T) {
	t.Parallel()
	docs := func(signals string) []Document {
		docs, problems := Parse([]File{{"m.yaml", []byte(strings.Replace(controls, "proof_keys: any", "proof_keys: any"+signals, 1))}})
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		return docs
	}
	reg, _, _ := Merge(nil, docs(""))
	verb := func(changes []Change) string {
		for _, c := range changes {
			if c.Name == "payroll" {
				return c.Verb + fmt.Sprint(c.Fields)
			}
		}
		return ""
	}
	if _, changes, _ := Merge(reg, docs("")); verb(changes) != "unchanged[]" {
		t.Errorf("control: %s", verb(changes))
	}
	with, changes, _ := Merge(reg, docs("\nsignals: {}"))
	if verb(changes) != "update[signals]" || with.Agents["payroll"].Signals == nil {
		t.Errorf("given: %s", verb(changes))
	}
	without, changes, _ := Merge(with, docs(""))
	if verb(changes) != "update[signals]" || without.Agents["payroll"].Signals != nil {
		t.Errorf("taken: %s", verb(changes))
	}
}

func TestSignalWarnings(t *testing.T) {
	t.Parallel()
	reg, _ := merged(t, nil, signalControls()+controls)
	if w := strings.Join(Warnings(reg, testNow), "\n"); strings.Contains(w, "transmitter") || strings.Contains(w, "orchestrators") {
		t.Errorf("control: %s", w)
	}
	text := strings.Replace(signalControls()+controls, "email: ana@example.com\n", "", 1)
	text = strings.Replace(text, "name: watch\nowner: ana\nenvironment: prod", "name: watch\nowner: ana\nenvironment: test", 1)
	reg, _ = merged(t, nil, text)
	w := strings.Join(Warnings(reg, testNow), "\n")
	for _, want := range []string{
		"Person ana: has no email, so no transmitter's event about this person has an effect",
		"Agent watch: tasks.orchestrators: Agent payroll is of environment prod and may open tasks here, in test",
	} {
		if !strings.Contains(w, want) {
			t.Errorf("no warning %q in:\n%s", want, w)
		}
	}
	if len(Check(reg)) != 0 || counterfoil.KindTransmitter != KindTransmitter {
		t.Error("the registry has problems")
	}
}
