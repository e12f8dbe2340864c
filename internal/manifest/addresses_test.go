package manifest

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/outbound"
)

// Every member that sends the server somewhere is judged: an upstream and who gives its
// credential may be private, the others need the operator's list, and nothing is at a metadata service without it.
func TestWhereManifestsSendTheServer(t *testing.T) {
	t.Parallel()
	docs := func(host string) []Document {
		u := "https://" + host + "/x"
		at := func(kind, name string, noun any) Document {
			return Document{Kind: kind, Name: name, Noun: noun, Pos: map[string]Position{"": {"m.yaml", 1}}}
		}
		return []Document{
			at(KindResource, "crm", &counterfoil.Resource{
				Name: "crm", Upstream: u, Bearers: []counterfoil.Bearer{{Agent: "a", Key: "sha-256:x"}, {Agent: "a", Issuer: "https://10.9.9.9", JWKSURI: u}},
				Credential: &counterfoil.UpstreamCredential{URL: u, OAuth: &counterfoil.OAuthProvider{TokenURL: u}},
			}),
			at(KindAgent, "payroll", &counterfoil.Agent{Name: "payroll", Workloads: []counterfoil.Workload{{Issuer: u}}, Signals: &counterfoil.Signals{Push: []string{"https://watch.example/x", u}}}),
			at(KindTransmitter, "idp", &counterfoil.Transmitter{Name: "idp", JWKSURI: u, Poll: u}),
			at(KindAgent, "bare", &counterfoil.Agent{Name: "bare"}),
			at(KindResource, "direct", &counterfoil.Resource{Name: "direct"}),
			at(KindTransmitter, "pushes", &counterfoil.Transmitter{Name: "pushes"}),
		}
	}
	operators := []string{
		"Resource crm: upstream: ", "Resource crm: credential.url: ", "Resource crm: credential.oauth.token_url: ", "Agent payroll: workloads[0].issuer: ",
	}
	others := []string{
		"Resource crm: bearers[1].jwks_uri: ",
		"Agent payroll: signals.push[1]: ", "Transmitter idp: jwks_uri: ", "Transmitter idp: poll: ",
	}
	list := func(cidr string) *outbound.Guard {
		return outbound.New([]netip.Prefix{netip.MustParsePrefix(cidr)})
	}
	for _, c := range []struct {
		host  string
		guard *outbound.Guard
		want  []string
	}{
		{"crm.example", nil, nil},
		{"8.8.8.8", nil, nil},
		{"10.0.0.7", nil, others},
		{"127.0.0.1", nil, others},
		{"[64:ff9b::a00:7]", nil, others},
		{"10.0.0.7", list("10.0.0.0/24"), nil},
		{"10.0.1.7", list("10.0.0.0/24"), others},
		{"169.254.169.254", nil, slices.Concat(operators, others)},
		{"169.254.169.254", list("169.254.169.254/32"), nil},
		{"metadata.google.internal", list("169.254.169.254/32"), slices.Concat(operators, others)},
	} {
		var got []string
		for _, p := range Addresses(docs(c.host), c.guard) {
			got = append(got, p.String())
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: %d problems:\n%s", c.host, len(got), strings.Join(got, "\n"))
			continue
		}
		for _, want := range c.want {
			if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "m.yaml:1: "+want) }) {
				t.Errorf("%s: nothing of %s:\n%s", c.host, want, strings.Join(got, "\n"))
			}
		}
	}
}
