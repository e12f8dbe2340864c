package authority

import (
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

// live is what has to be live for what the client asks for.
func (c client) live() counterfoil.Live {
	return counterfoil.Live{Agent: c.agent.Name, Instance: c.instance.ID, Epoch: c.state.Epoch, Key: c.assertion.KeyThumbprint}
}

// maxTried is how many keys an assertion without a key id is tried with.
const maxTried = 8

// authenticate finds the key that an assertion claims, checks the assertion
// with it, and returns whose it is. Until the signature holds, every reason is
// the same answer, and it takes as long: so many signatures are verified of the
// algorithm that the assertion names, one when it names its key, whether or not
// there is such an agent and however many keys it has. What shows is the size of
// an RSA key other than 3072 bits.
//
// An assertion need not say which key it is signed with. Then the key that the
// proof beside it claims is tried first, because it is the same one in all but
// rare set-ups, and the newest few after it.
func (a *Authority) authenticate(f clientForm, proof []string, now time.Time) (client, error) {
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
	if u.KeyID() == "" { // the proof is read again when it is checked
		if p, err := credential.ParseProof(proof); err == nil {
			hint = p.ClaimedKey()
		}
	}
	keys := a.keysOf(agent, u.KeyID(), hint, u.Algorithm(), now)
	if state.Status == counterfoil.Offboarded {
		keys = nil
	}
	var last error = credential.RefuseClient(counterfoil.KeyUnknown)
	for _, k := range keys {
		assertion, err := u.Check(k.public, a.cfg.Issuer, now)
		if err != nil {
			if counterfoil.CodeOf(err) == counterfoil.ClientRefused {
				last = err
				continue // not this key's signature
			}
			return client{}, err
		}
		if !a.cfg.NotBefore.IsZero() && !assertion.Issued.After(a.cfg.NotBefore) {
			return client{}, counterfoil.Refuse(counterfoil.AssertionExpired, "the client assertion was made before this issuer's ledger was restored: make another")
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
	most := 1
	if u.KeyID() == "" {
		most = maxTried
	}
	for range most - len(keys) {
		_, _ = u.Check(decoy(u.Algorithm()), a.cfg.Issuer, now) // for its cost alone: it cannot verify
	}
	return client{}, last
}

// A knownKey is a key of an instance that did not end, ready to verify with.
type knownKey struct {
	instance counterfoil.Instance
	public   credential.PublicKey
}

// own reports whether a key is the instance's own, or the one that it rotated from as
// long as that is taken.
func own(inst counterfoil.Instance, jkt string, now time.Time) bool {
	return jkt == inst.JKT || inst.Old != nil && jkt == inst.Old.JKT && now.Before(inst.Old.Until)
}

// keysOf returns the keys of an agent's instances, quarantined ones too, that an
// assertion of an algorithm may be signed with: the one that kid names, by its
// thumbprint or by the kid that the manifest gives it, or without a kid the hinted
// one and the newest few. It looks at few, however many there are. The key that an
// instance rotated from is one of its keys for as long as it is taken.
func (a *Authority) keysOf(agent *counterfoil.Agent, kid, hint, alg string, now time.Time) []knownKey {
	if agent == nil {
		return nil
	}
	var keys []knownKey
	add := func(inst counterfoil.Instance, jkt string) {
		jwk, of := inst.JWK, inst.Alg
		if jkt != inst.JKT {
			if !own(inst, jkt, now) {
				return
			}
			jwk, of = inst.Old.JWK, inst.Old.Alg
		}
		if len(keys) == maxTried || inst.Agent != agent.Name || of != alg || ended(inst) {
			return
		}
		k, err := a.keys.get(jwk)
		if err != nil {
			a.cfg.Log.Error("a registered key does not parse", "instance", inst.ID, "jkt", jkt, "err", err)
			return
		}
		keys = append(keys, knownKey{inst, k.public})
	}
	if kid != "" {
		hint = a.thumbprintOf(agent, kid)
	}
	if inst, ok := a.cfg.Store.InstanceByKey(hint); ok {
		add(inst, hint)
	}
	if kid != "" {
		return keys
	}
	for _, inst := range a.cfg.Store.LatestInstances(agent.Name, 4*maxTried) {
		if inst.JKT != hint {
			add(inst, inst.JKT)
		}
		if inst.Old != nil && inst.Old.JKT != hint {
			add(inst, inst.Old.JKT)
		}
	}
	return keys
}

// Decoys are keys that nobody has the private half of, one an algorithm, made when
// they are first needed: an RSA key takes its time.
var decoys = map[string]func() credential.PublicKey{
	credential.ES256: makeDecoy(credential.ES256), credential.ES384: makeDecoy(credential.ES384),
	credential.Ed25519: makeDecoy(credential.Ed25519), credential.PS256: makeDecoy(credential.PS256),
}

func makeDecoy(alg string) func() credential.PublicKey {
	return sync.OnceValue(func() credential.PublicKey {
		private, err := credential.GenerateKey(alg)
		if err != nil {
			return credential.PublicKey{} // which verifies nothing
		}
		public, err := credential.NewPublicKey(private.Public())
		if err != nil {
			return credential.PublicKey{}
		}
		return public
	})
}

func decoy(alg string) credential.PublicKey {
	if of := decoys[alg]; of != nil {
		return of()
	}
	return credential.PublicKey{}
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
