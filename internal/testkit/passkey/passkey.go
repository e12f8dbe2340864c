// Package passkey is an authenticator in software together with the browser
// around it: what navigator.credentials.create and .get do with the JSON forms of
// WebAuthn Level 3, with ES256 and discoverable credentials. Tests log in and sign
// with it, and lie with it: a function changes any part of a ceremony before it is
// signed.
//
//	phone := passkey.New("localhost", "http://localhost:8421")
//	credential := phone.Create(options)
//	signature := phone.Get(options)
//	forged := phone.Get(options, func(c *passkey.Ceremony) { c.UV = false })
//
// It is for tests alone: what is not of the form that it expects makes it panic.
package passkey

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/go-json-experiment/json"
)

// An Authenticator keeps passkeys. It is safe for concurrent use once its fields
// are set.
type Authenticator struct {
	RPID   string // where options name none
	Origin string // of the page that the browser shows

	// What new passkeys are like. The zero value is a device-bound passkey of an
	// unknown model without attestation.
	AAGUID     [16]byte
	BE, BS     bool
	Transports []string // ["internal"] when nil

	// Maker attests new passkeys where the options ask for that ("direct").
	// Optional.
	Maker *Maker

	// Uncounted leaves the sign count at zero, as synced passkeys do.
	Uncounted bool

	mu       sync.Mutex
	passkeys []*Passkey
}

// A Passkey is a credential in an Authenticator.
type Passkey struct {
	ID     []byte
	RPID   string
	Handle []byte // of the user
	User   string // the user's name, as the options had it
	Key    *ecdsa.PrivateKey
	Count  uint32 // of the last ceremony
	BE, BS bool
}

// A Ceremony is everything that one answer says. Create and Get fill it in as an
// honest browser and authenticator would; a test changes it before it is signed.
type Ceremony struct {
	// Client data.
	Type        string
	Challenge   string // base64url
	Origin      string
	CrossOrigin *bool  // left out when nil
	TopOrigin   string // left out when empty
	Extra       string // members that follow, such as `,"origin":"https://evil.example"`

	// Authenticator data.
	RPID           string
	UP, UV, BE, BS bool
	Count          uint32

	// The rest.
	ID         []byte            // credential id
	UserHandle []byte            // left out when nil; of Get alone
	Key        *ecdsa.PrivateKey // signs; of Create, its public half is what is enrolled
	AAGUID     [16]byte          // of Create alone
	Attested   bool              // of Create alone
	CertAAGUID [16]byte          // of Create alone: what the maker's certificate says

	// Mangle changes the answer itself, after it was signed. Optional.
	Mangle func(*Answer)
}

// An Answer is a RegistrationResponseJSON or an AuthenticationResponseJSON.
type Answer struct {
	ID         string         `json:"id"`
	RawID      string         `json:"rawId"`
	Type       string         `json:"type"`
	Attachment string         `json:"authenticatorAttachment,omitzero"`
	Extensions map[string]any `json:"clientExtensionResults"`
	Response   Response       `json:"response"`
}

// A Response is what the authenticator says in an Answer, in base64url.
type Response struct {
	ClientDataJSON    string   `json:"clientDataJSON"`
	AttestationObject string   `json:"attestationObject,omitzero"`
	AuthenticatorData string   `json:"authenticatorData,omitzero"`
	Signature         string   `json:"signature,omitzero"`
	UserHandle        string   `json:"userHandle,omitzero"`
	Transports        []string `json:"transports,omitzero"`
}

// New returns an authenticator at a page of that origin.
func New(rpID, origin string) *Authenticator {
	return &Authenticator{RPID: rpID, Origin: origin}
}

// Passkeys returns what the authenticator keeps, oldest first.
func (a *Authenticator) Passkeys() []*Passkey {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.passkeys)
}

// Copy puts a passkey of another authenticator into this one: synced, or cloned.
func (a *Authenticator) Copy(p *Passkey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := *p
	a.passkeys = append(a.passkeys, &c)
}

// NewKey returns a key as passkeys have.
func NewKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	return key
}

type options struct {
	Challenge string `json:"challenge"`
	RPID      string `json:"rpId"`
	RP        struct {
		ID string `json:"id"`
	} `json:"rp"`
	User struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"user"`
	Attestation string `json:"attestation"`
	Allow       []struct {
		ID string `json:"id"`
	} `json:"allowCredentials"`
}

// parse reads options, bare or as the member publicKey.
func parse(b []byte) options {
	var wrapped struct {
		PublicKey *options `json:"publicKey"`
	}
	must(json.Unmarshal(b, &wrapped))
	if wrapped.PublicKey != nil {
		return *wrapped.PublicKey
	}
	var o options
	must(json.Unmarshal(b, &o))
	if o.Challenge == "" {
		panic(fmt.Sprintf("passkey: options without a challenge: %.200s", b))
	}
	return o
}

// Create makes a passkey and answers as navigator.credentials.create does. It does
// not look at excludeCredentials.
func (a *Authenticator) Create(optionsJSON []byte, changes ...func(*Ceremony)) []byte {
	o := parse(optionsJSON)
	c := &Ceremony{
		Type: "webauthn.create", Challenge: o.Challenge, Origin: a.Origin, CrossOrigin: new(bool),
		RPID: orElse(o.RP.ID, a.RPID), UP: true, UV: true, BE: a.BE, BS: a.BS,
		ID: random(32), Key: NewKey(), AAGUID: a.AAGUID, CertAAGUID: a.AAGUID,
		Attested: a.Maker != nil && o.Attestation == "direct",
	}
	if !c.Attested {
		c.AAGUID = [16]byte{} // what browsers do to it unless attestation was asked for
	}
	for _, change := range changes {
		change(c)
	}
	clientData := c.clientData()
	authData := c.authenticatorData(true)
	hash := sha256.Sum256(clientData)
	statement, format := cborMap(), "none"
	if c.Attested {
		statement, format = a.Maker.statement(slices.Concat(authData, hash[:]), c.CertAAGUID), "packed"
	}
	object := cborMap(
		cborPair{cborText("fmt"), cborText(format)},
		cborPair{cborText("attStmt"), statement},
		cborPair{cborText("authData"), cborBytes(authData)},
	)
	transports := a.Transports
	if transports == nil {
		transports = []string{"internal"}
	}
	a.mu.Lock()
	a.passkeys = append(a.passkeys, &Passkey{
		ID: c.ID, RPID: c.RPID, Handle: decode(o.User.ID), User: o.User.Name, Key: c.Key, Count: c.Count, BE: c.BE, BS: c.BS,
	})
	a.mu.Unlock()
	return c.answer(Response{
		ClientDataJSON:    encode(clientData),
		AttestationObject: encode(object),
		Transports:        transports,
	})
}

// Get signs with a passkey and answers as navigator.credentials.get does: with one
// that the options allow, or, where they name none, with the newest of the relying
// party.
func (a *Authenticator) Get(optionsJSON []byte, changes ...func(*Ceremony)) []byte {
	o := parse(optionsJSON)
	rp := orElse(o.RPID, a.RPID)
	a.mu.Lock()
	p := a.choose(o, rp)
	if p == nil {
		a.mu.Unlock()
		panic(fmt.Sprintf("passkey: no passkey for %s that the options allow", rp))
	}
	if !a.Uncounted {
		p.Count++
	}
	c := &Ceremony{
		Type: "webauthn.get", Challenge: o.Challenge, Origin: a.Origin, CrossOrigin: new(bool),
		RPID: rp, UP: true, UV: true, BE: p.BE, BS: p.BS, Count: p.Count,
		ID: p.ID, UserHandle: p.Handle, Key: p.Key,
	}
	a.mu.Unlock()
	for _, change := range changes {
		change(c)
	}
	clientData := c.clientData()
	authData := c.authenticatorData(false)
	hash := sha256.Sum256(clientData)
	r := Response{
		ClientDataJSON:    encode(clientData),
		AuthenticatorData: encode(authData),
		Signature:         encode(sign(c.Key, slices.Concat(authData, hash[:]))),
	}
	if c.UserHandle != nil {
		r.UserHandle = encode(c.UserHandle)
	}
	return c.answer(r)
}

func (a *Authenticator) choose(o options, rp string) *Passkey {
	for _, p := range slices.Backward(a.passkeys) {
		if p.RPID != rp {
			continue
		}
		if len(o.Allow) == 0 {
			return p
		}
		for _, allowed := range o.Allow {
			if allowed.ID == encode(p.ID) {
				return p
			}
		}
	}
	return nil
}

// clientData serialises as WebAuthn Level 3, Section 5.8.1.1 does.
func (c *Ceremony) clientData() []byte {
	b := fmt.Appendf(nil, `{"type":%s,"challenge":%s,"origin":%s`, quote(c.Type), quote(c.Challenge), quote(c.Origin))
	if c.CrossOrigin != nil {
		b = fmt.Appendf(b, `,"crossOrigin":%t`, *c.CrossOrigin)
	}
	if c.TopOrigin != "" {
		b = fmt.Appendf(b, `,"topOrigin":%s`, quote(c.TopOrigin))
	}
	return append(b, c.Extra+"}"...)
}

// authenticatorData is of WebAuthn Level 3, Section 6.1.
func (c *Ceremony) authenticatorData(create bool) []byte {
	hash := sha256.Sum256([]byte(c.RPID))
	flags := byte(0)
	for i, on := range []bool{c.UP, false, c.UV, c.BE, c.BS, false, create} {
		if on {
			flags |= 1 << i
		}
	}
	b := binary.BigEndian.AppendUint32(append(hash[:], flags), c.Count)
	if !create {
		return b
	}
	b = binary.BigEndian.AppendUint16(append(b, c.AAGUID[:]...), uint16(len(c.ID)))
	return append(append(b, c.ID...), PublicKey(c.Key)...)
}

func (c *Ceremony) answer(r Response) []byte {
	a := &Answer{
		ID: encode(c.ID), RawID: encode(c.ID), Type: "public-key", Attachment: "platform",
		Extensions: map[string]any{}, Response: r,
	}
	if c.Mangle != nil {
		c.Mangle(a)
	}
	b, err := json.Marshal(a)
	must(err)
	return b
}

// PublicKey returns the public half in COSE form (RFC 9053, Section 7.1.1).
func PublicKey(key *ecdsa.PrivateKey) []byte {
	point, err := key.PublicKey.Bytes() // 4, x, y
	must(err)
	return cborMap(
		cborPair{cborInt(1), cborInt(2)},  // kty: EC2
		cborPair{cborInt(3), cborInt(-7)}, // alg: ES256
		cborPair{cborInt(-1), cborInt(1)}, // crv: P-256
		cborPair{cborInt(-2), cborBytes(point[1:33])},
		cborPair{cborInt(-3), cborBytes(point[33:])},
	)
}

func sign(key *ecdsa.PrivateKey, data []byte) []byte {
	digest := sha256.Sum256(data)
	sig, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	must(err)
	return sig
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func decode(s string) []byte {
	b, err := base64.RawURLEncoding.DecodeString(s)
	must(err)
	return b
}

func quote(s string) string {
	b, err := json.Marshal(s)
	must(err)
	return string(b)
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("passkey: %v", err))
	}
}
