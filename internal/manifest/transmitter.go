package manifest

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
)

// maxPush is how many URLs one agent may have events pushed to.
const maxPush = 16

// transmitter reads somebody else's source of shared signals.
func (d *doc) transmitter(n *yaml.Node, m members, name string) *counterfoil.Transmitter {
	t := &counterfoil.Transmitter{Name: name}
	m["issuer"] = d.text(&t.Issuer, checkIssuer)
	m["audience"] = d.text(&t.Audience)
	m["jwks_uri"] = d.text(&t.JWKSURI, checkDeliveryURL)
	m["keys"] = d.list(func(n *yaml.Node, at string) { d.jwk(&t.Keys, n, at, eventKey) })
	m["poll"] = d.text(&t.Poll, checkDeliveryURL)
	m["token"] = d.text(&t.Token, checkSecretFile)
	what := []string{counterfoil.DisabledSuspendAgents, counterfoil.DisabledVoidApprovals}
	words := d.words(&t.Disabled, func(s string) error {
		if !slices.Contains(what, s) {
			return fmt.Errorf("%.40q is none of %s%s", s, strings.Join(what, ", "), hint(s, what))
		}
		return nil
	})
	m["disabled"] = func(n *yaml.Node, at string) {
		if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
			d.fail(n, at, "is empty; leave the member out for both, or the transmitter for nothing")
			return
		}
		words(n, at)
	}
	before := len(d.problems)
	d.object(n, "", m, "name", "issuer")
	if len(d.problems) > before {
		return t
	}
	switch {
	case t.JWKSURI == "" && len(t.Keys) == 0:
		d.fail(n, "", "neither jwks_uri nor keys is there: without a key nothing that it sends can be told from what others send in its name")
	case t.JWKSURI != "" && len(t.Keys) > 0:
		d.problem(d.pos["keys"], "%s: keys: jwks_uri is there, too; name its keys in one place", d.label)
	case t.Token != "" && t.Poll == "":
		d.problem(d.pos["token"], "%s: token: it goes with poll; a transmitter that pushes is shown no token of ours", d.label)
	}
	return t
}

// eventKey reads a key for events and writes it with its algorithm, because an RSA
// key may be for two.
func eventKey(raw []byte) (credential.PublicKey, map[string]string, error) {
	key, err := credential.ParseEventJWK(raw)
	if err != nil {
		return key, nil, err
	}
	var m map[string]string
	if err := ijson.Unmarshal(key.JWK(), &m); err != nil {
		return key, nil, err
	}
	if m["kty"] == "RSA" {
		m["alg"] = key.Alg()
	}
	return key, m, nil
}

// checkDeliveryURL takes where events or the keys to them are fetched from: over TLS,
// because who answers there speaks in the transmitter's name, except on this machine.
func checkDeliveryURL(s string) error {
	u, err := checkURL(s)
	if err != nil {
		return err
	}
	if err := checkDialled(u); err != nil {
		return err
	}
	if u.Scheme == "https" || onLoopback(u) {
		return nil
	}
	return errors.New("must be https, except to a loopback address")
}

// checkPush takes where events are pushed to. A query could hold a secret, and a
// secret has a place of its own (the stream's authorization_header).
func checkPush(s string) error {
	if err := checkDeliveryURL(s); err != nil {
		return err
	}
	u, err := checkURL(s)
	if err != nil {
		return err
	}
	if u.RawQuery != "" || u.ForceQuery {
		return errors.New("must not have a query")
	}
	if len(s) > 1024 {
		return fmt.Errorf("has %d bytes; the limit is 1024", len(s))
	}
	return nil
}

func onLoopback(u *url.URL) bool {
	a, err := netip.ParseAddr(u.Hostname())
	return err == nil && a.IsLoopback() || u.Hostname() == "localhost"
}
