package authority

import (
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

// maxTried is how many keys an assertion without a key id is tried with, of an
// agent that proves with other keys than it logs in with.
const maxTried = 8

// authenticate finds the key that an assertion claims, checks the assertion
// with it, and returns whose it is. Until the signature holds, every reason is
// the same answer, and it takes as long: one signature is verified of the
// algorithm that the assertion names, whether or not there is such an agent and
// whatever keys it has.
//
// An assertion need not say which key it is signed with. Then it is the key that
// the proof beside it claims, or else the newest one. Where an agent proves with
// any keys (proof_keys), the newest few are tried: such an agent that logs in
// without a key id can be told from one that does not exist by the time it takes.
func (a *Authority) authenticate(f tokenForm, proof []string, now time.Time) (client, error) {
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
	// The epoch comes before the document: a change that narrows an agent raises
	// its epoch in the same commit, so that no token of the new epoch is made
	// from the old document.
	state := a.cfg.Store.AgentState(name)
	_, registry, err := a.current()
	if err != nil {
		return client{}, err
	}
	agent := registry.Agents[name]
	hint := ""
	if p, err := credential.ParseProof(proof); err == nil {
		hint = p.ClaimedKey()
	}
	keys := a.keysOf(agent, u.KeyID(), hint, u.Algorithm())
	if len(keys) == 0 || state.Status == counterfoil.Offboarded {
		_, _ = u.Check(a.decoys.of(u.Algorithm()), a.cfg.Issuer, now) // for its cost alone: it cannot verify
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
		if k.instance.Status != counterfoil.Active {
			return who, counterfoil.Refuse(counterfoil.AgentSuspended, "instance %s of agent %s is %s: its key was seen in two places",
				k.instance.ID, name, k.instance.Status)
		}
		return who, nil
	}
	return client{}, last
}

// A knownKey is the key of an instance that did not end, ready to verify with.
type knownKey struct {
	instance counterfoil.Instance
	public   credential.PublicKey
}

// keysOf returns the keys of an agent's instances, quarantined ones too, that an
// assertion of an algorithm may be signed with: the one that kid names, by its
// thumbprint or by the kid that the manifest gives it, or without a kid the hinted
// one or else the newest; of an agent that proves with any keys the newest few.
func (a *Authority) keysOf(agent *counterfoil.Agent, kid, hint, alg string) []knownKey {
	if agent == nil {
		return nil
	}
	if kid != "" {
		kid = a.thumbprintOf(agent, kid)
	}
	var keys []knownKey
	for _, inst := range a.cfg.Store.Instances(agent.Name) {
		if ended(inst) || kid != "" && kid != inst.JKT {
			continue
		}
		k, err := a.keys.get(inst.JWK)
		if err != nil {
			a.cfg.Log.Error("a registered key does not parse", "instance", inst.ID, "jkt", inst.JKT, "err", err)
			continue
		}
		if k.public.Alg() == alg {
			keys = append(keys, knownKey{inst, k.public})
		}
	}
	slices.Reverse(keys) // the store has the oldest first
	slices.SortStableFunc(keys, func(x, y knownKey) int {
		switch hint {
		case x.instance.JKT:
			return -1
		case y.instance.JKT:
			return 1
		}
		return 0
	})
	most := 1
	if agent.ProofKeys == proofKeysAny {
		most = maxTried
	}
	return keys[:min(len(keys), most)]
}

// decoys are keys that nobody has the private half of, one an algorithm, made when
// they are first needed.
type decoys struct {
	mu   sync.Mutex
	keys map[string]credential.PublicKey // guarded by mu
}

func (d *decoys) of(alg string) credential.PublicKey {
	d.mu.Lock()
	defer d.mu.Unlock()
	if k, made := d.keys[alg]; made {
		return k
	}
	var public credential.PublicKey // the zero key verifies nothing, at no cost
	if private, err := credential.GenerateKey(alg); err == nil {
		if k, err := credential.NewPublicKey(private.Public()); err == nil {
			public = k
		}
	}
	if d.keys == nil {
		d.keys = map[string]credential.PublicKey{}
	}
	d.keys[alg] = public
	return public
}

// thumbprintOf returns the thumbprint of the agent's key that the manifest names
// kid, or kid itself.
func (a *Authority) thumbprintOf(agent *counterfoil.Agent, kid string) string {
	for _, jwk := range agent.Keys {
		if k, err := a.keys.get(jwk); err == nil && k.kid == kid {
			return k.public.Thumbprint()
		}
	}
	return kid
}

// maxKeyCache bounds the cache of parsed keys.
const maxKeyCache = 4096

// A keyCache keeps parsed public keys: parsing one costs as much as a signature
// check. It holds nothing that decides; what is live is asked of the store.
type keyCache struct {
	mu    sync.Mutex
	byJWK map[string]parsedKey // guarded by mu
}

type parsedKey struct {
	public credential.PublicKey
	kid    string // the one that the JWK has, if any
}

func (c *keyCache) get(jwk string) (parsedKey, error) {
	c.mu.Lock()
	k, ok := c.byJWK[jwk]
	c.mu.Unlock()
	if ok {
		return k, nil
	}
	var err error
	if k.public, err = credential.ParseJWK([]byte(jwk)); err != nil {
		return parsedKey{}, err
	}
	var named struct {
		KID string `json:"kid"`
	}
	if err := ijson.UnmarshalLax([]byte(jwk), &named); err == nil {
		k.kid = named.KID
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byJWK == nil || len(c.byJWK) >= maxKeyCache {
		c.byJWK = map[string]parsedKey{}
	}
	c.byJWK[jwk] = k
	return k, nil
}
