package authority

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
)

// A client is an agent's instance that authenticated.
type client struct {
	agent     *counterfoil.Agent
	state     counterfoil.AgentState
	instance  counterfoil.Instance
	assertion credential.Assertion
}

// maxTried is how many keys an assertion without a key id is tried with.
const maxTried = 8

// authenticate finds the key that an assertion claims, checks the assertion
// with it, and returns whose it is. Until the signature holds, every reason is
// the same answer, and an agent that does not exist costs what one with an ES256
// key costs.
func (a *Authority) authenticate(f tokenForm, now time.Time) (client, error) {
	u, err := credential.ParseAssertion(f.assertion)
	if err != nil {
		return client{}, err
	}
	name := u.ClaimedAgent()
	if f.clientID != "" && f.clientID != name {
		// RFC 7521, Section 4.2: client_id is unnecessary, and identifies the
		// same client as the assertion does.
		return client{}, counterfoil.Refuse(counterfoil.AssertionMalformed, "client_id is not the assertion's subject")
	}
	_, registry := a.Policy()
	agent, state := registry.Agents[name], a.cfg.Store.AgentState(name)
	keys := a.keysOf(name, u.KeyID())
	if agent == nil || len(keys) == 0 || state.Status == counterfoil.Offboarded {
		_, _ = u.Check(a.decoy, a.cfg.Issuer, now) // for its cost alone: it cannot verify
		return client{}, credential.RefuseClient(counterfoil.KeyUnknown)
	}
	var last error
	for _, k := range keys {
		assertion, err := u.Check(k.public, a.cfg.Issuer, now)
		if err != nil {
			if counterfoil.CodeOf(err) == counterfoil.ClientRefused {
				last = err
				continue // not this key's signature
			}
			return client{}, err
		}
		who := client{agent, state, k.instance, assertion}
		if state.Status != counterfoil.Active {
			return who, counterfoil.Refuse(counterfoil.AgentSuspended, "agent %s is %s", name, state.Status)
		}
		return who, nil
	}
	return client{}, last
}

// A knownKey is the key of a live instance, ready to verify with.
type knownKey struct {
	instance counterfoil.Instance
	public   credential.PublicKey
	kid      string // the kid that the JWK was registered with, if any
}

// keysOf returns the keys of an agent's live instances that an assertion may be
// signed with: the one that kid names (its thumbprint, or the kid that it was
// registered with), or without a kid the newest few.
func (a *Authority) keysOf(agent, kid string) []knownKey {
	var keys []knownKey
	for _, inst := range a.cfg.Store.Instances(agent) {
		if inst.Status != counterfoil.Active || inst.Agent != agent {
			continue
		}
		k, err := a.keys.get(inst)
		if err != nil {
			a.cfg.Log.ErrorContext(context.Background(), "a registered key does not parse", "instance", inst.ID, "jkt", inst.JKT, "err", err)
			continue
		}
		if kid == "" || kid == inst.JKT || kid == k.kid {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(x, y knownKey) int { return y.instance.Enrolled.Compare(x.instance.Enrolled) })
	return keys[:min(len(keys), maxTried)]
}

// maxKeyCache bounds the cache of parsed keys.
const maxKeyCache = 4096

// A keyCache keeps parsed public keys: parsing one costs as much as a signature
// check. It holds nothing that decides; what is live is asked of the store.
type keyCache struct {
	mu    sync.Mutex
	byJKT map[string]knownKey // guarded by mu
}

func (c *keyCache) get(inst counterfoil.Instance) (knownKey, error) {
	c.mu.Lock()
	k, ok := c.byJKT[inst.JKT]
	c.mu.Unlock()
	if !ok {
		public, err := credential.ParseJWK([]byte(inst.JWK))
		if err != nil {
			return knownKey{}, err
		}
		k = knownKey{public: public, kid: registeredKID(inst.JWK)}
		c.mu.Lock()
		if c.byJKT == nil || len(c.byJKT) >= maxKeyCache {
			c.byJKT = map[string]knownKey{}
		}
		c.byJKT[inst.JKT] = k
		c.mu.Unlock()
	}
	k.instance = inst
	return k, nil
}

// registeredKID returns the kid member of a JWK, or nothing.
func registeredKID(jwk string) string {
	var named struct {
		KID string `json:"kid"`
	}
	if ijson.UnmarshalLax([]byte(jwk), &named) != nil {
		return ""
	}
	return named.KID
}
