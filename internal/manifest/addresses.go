package manifest

import (
	"fmt"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/outbound"
)

// Addresses reports the URLs of documents that a server with that guard would not connect
// to. An upstream may be private, and so may who gives its credential; wherever else a
// manifest sends the server has to be public, or on the operator's list. What a name
// resolves to is judged when it is dialled.
func Addresses(docs []Document, guard *outbound.Guard) []Problem {
	var problems []Problem
	for i := range docs {
		d := &docs[i]
		judge := func(trust outbound.Trust, at, url string) {
			if url == "" {
				return
			}
			if err := guard.CheckURL(trust, url); err != nil {
				problems = append(problems, d.place(finding{kind: d.Kind, name: d.Name, at: at, text: err.Error()}))
			}
		}
		switch n := d.Noun.(type) {
		case *counterfoil.Resource:
			judge(outbound.Upstream, "upstream", n.Upstream)
			if c := n.Credential; c != nil {
				judge(outbound.Upstream, "credential.url", c.URL)
				if c.OAuth != nil {
					judge(outbound.Upstream, "credential.oauth.token_url", c.OAuth.TokenURL)
				}
			}
			for i, b := range n.Bearers {
				judge(outbound.Elsewhere, fmt.Sprintf("bearers[%d].jwks_uri", i), b.JWKSURI)
			}
		case *counterfoil.Agent:
			for i, w := range n.Workloads {
				judge(outbound.Upstream, fmt.Sprintf("workloads[%d].issuer", i), w.Issuer) // a cluster's own platform
			}
			if n.Signals != nil {
				for i, push := range n.Signals.Push {
					judge(outbound.Elsewhere, fmt.Sprintf("signals.push[%d]", i), push)
				}
			}
		case *counterfoil.Transmitter:
			judge(outbound.Elsewhere, "jwks_uri", n.JWKSURI)
			judge(outbound.Elsewhere, "poll", n.Poll)
		}
	}
	return problems
}
