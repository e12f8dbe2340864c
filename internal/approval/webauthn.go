package approval

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// This file is the one wrapper of go-webauthn. The library decodes authenticator
// data and keys and verifies signatures and attestation statements. What the page
// sent is read here first, and strictly: the library reads JSON in any case of its
// names, keeps the last of two equal ones, and compares origins leniently. Only what
// passed here gets there, and both must accept it.

// maxCredential is the size of the largest answer of a page, in bytes. Attestation
// with long chains of certificates is a few kilobytes.
const maxCredential = 64 << 10

// Sizes from WebAuthn Level 3: of a credential id (Section 4) and of a user handle
// (Section 5.4.3).
const (
	maxCredentialID = 1023
	maxUserHandle   = 64
)

func refusedPasskey(format string, args ...any) error {
	return counterfoil.Refuse(counterfoil.PasskeyRefused, format, args...)
}

// unbase64 reads base64url without padding, in its one spelling: the standard
// library's decoder skips line ends.
func unbase64(s string) ([]byte, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || encode(b) != s {
		return nil, false
	}
	return b, true
}

// clientData is what the browser says about a ceremony (WebAuthn Level 3, Section
// 5.8.1). It may have other members; they mean nothing.
type clientData struct {
	Type        string         `json:"type"`
	Challenge   string         `json:"challenge"`
	Origin      string         `json:"origin"`
	CrossOrigin jsontext.Value `json:"crossOrigin"`
	TopOrigin   jsontext.Value `json:"topOrigin"`
}

func parseClientData(b []byte) (clientData, error) {
	var c clientData
	if err := ijson.UnmarshalLax(b, &c); err != nil {
		return clientData{}, refusedPasskey("the client data is not strict JSON of the form of WebAuthn: %q", err)
	}
	return c, nil
}

// check is Section 7.1, steps 7 to 12, and Section 7.2, steps 10 to 15, without the
// choices that they leave: our pages are in no frame, so crossOrigin is not true and
// topOrigin is absent; and an origin is the one that our configuration has, character
// by character, because browsers write each in one way.
func (p party) check(c clientData, ceremony string, challenge []byte) error {
	if c.Type != ceremony {
		return refusedPasskey("the client data is of type %q; %s is needed", c.Type, ceremony)
	}
	if subtle.ConstantTimeCompare([]byte(c.Challenge), []byte(encode(challenge))) != 1 {
		return refusedPasskey("the challenge is not the one that was given for this")
	}
	if c.Origin != p.origin {
		return refusedPasskey("the page's origin is %q; this is %s", c.Origin, p.origin)
	}
	if c.CrossOrigin != nil && string(c.CrossOrigin) != "false" {
		return refusedPasskey("the page was in a frame of another origin: crossOrigin is not false")
	}
	if c.TopOrigin != nil {
		return refusedPasskey("the page was in a frame of another origin: there is a topOrigin")
	}
	return nil
}

// An assertion is an AuthenticationResponseJSON (Section 5.1.8.2) that was read, which
// says nothing about who made it.
type assertion struct {
	id, clientJSON, authData, signature []byte
	handle                              []byte // nil when absent
	client                              clientData
}

func parseAssertion(b []byte) (*assertion, error) {
	var in struct {
		ID       string `json:"id"`
		RawID    string `json:"rawId"`
		Type     string `json:"type"`
		Response struct {
			ClientDataJSON    string  `json:"clientDataJSON"`
			AuthenticatorData string  `json:"authenticatorData"`
			Signature         string  `json:"signature"`
			UserHandle        *string `json:"userHandle"`
		} `json:"response"`
	}
	if err := readCredential(b, &in); err != nil {
		return nil, err
	}
	r := recordedAssertion{
		ID: in.ID, ClientDataJSON: in.Response.ClientDataJSON,
		AuthenticatorData: in.Response.AuthenticatorData, Signature: in.Response.Signature,
	}
	if in.Response.UserHandle != nil {
		r.UserHandle = *in.Response.UserHandle
	}
	if in.RawID != in.ID || in.Type != "public-key" {
		return nil, refusedPasskey("the credential is not a public key, or its id and rawId differ")
	}
	return r.parse()
}

// readCredential reads what a page sent. Members that WebAuthn may still get are
// ignored, as its clients' extension outputs are: none was asked for.
func readCredential(b []byte, v any) error {
	if len(b) > maxCredential {
		return refusedPasskey("the credential has more than %d bytes", maxCredential)
	}
	if err := ijson.UnmarshalLax(b, v); err != nil {
		return refusedPasskey("the credential is not strict JSON of the form of WebAuthn: %q", err)
	}
	return nil
}

// parse decodes an assertion's members.
func (r *recordedAssertion) parse() (*assertion, error) {
	var a assertion
	for _, m := range []struct {
		name string
		from string
		to   *[]byte
		most int
	}{
		{"id", r.ID, &a.id, maxCredentialID},
		{"clientDataJSON", r.ClientDataJSON, &a.clientJSON, maxCredential},
		{"authenticatorData", r.AuthenticatorData, &a.authData, maxCredential},
		{"signature", r.Signature, &a.signature, maxCredential},
		{"userHandle", r.UserHandle, &a.handle, maxUserHandle},
	} {
		v, ok := unbase64(m.from)
		if !ok || len(v) > m.most || (len(v) == 0 && m.to != &a.handle) {
			return nil, refusedPasskey("the credential's %s is not base64url of 1 to %d bytes", m.name, m.most)
		}
		*m.to = v
	}
	var err error
	a.client, err = parseClientData(a.clientJSON)
	return &a, err
}

// recorded returns the assertion as it is kept.
func (a *assertion) recorded() recordedAssertion {
	return recordedAssertion{
		ID: encode(a.id), ClientDataJSON: encode(a.clientJSON),
		AuthenticatorData: encode(a.authData), Signature: encode(a.signature), UserHandle: encode(a.handle),
	}
}

// asserted is what a verified assertion says about its authenticator.
type asserted struct {
	count    uint32
	backedUp bool
}

// verify checks an assertion against the passkey that it names (WebAuthn Level 3,
// Section 7.2) and the challenge that it must be over. What it leaves to the caller is
// the sign count, which only means something at the moment of signing.
func (p party) verify(a *assertion, k *counterfoil.Passkey, challenge []byte) (asserted, error) {
	if !bytes.Equal(a.id, k.ID) {
		return asserted{}, refusedPasskey("the signature is by another passkey")
	}
	// Section 7.2, step 6: a user handle that is there must be the owner's.
	if len(a.handle) > 0 && !bytes.Equal(a.handle, k.Handle) {
		return asserted{}, refusedPasskey("the user handle is not that of the passkey's owner")
	}
	if err := p.check(a.client, "webauthn.get", challenge); err != nil {
		return asserted{}, err
	}
	parsed, err := a.decode()
	if err != nil {
		return asserted{}, err
	}
	// Section 7.2, steps 16 and 17, and 18 and 19: whether a passkey may be copied
	// never changes; whether it is may.
	data := &parsed.Response.AuthenticatorData
	hash := sha256.Sum256([]byte(p.id))
	switch {
	case !bytes.Equal(data.RPIDHash, hash[:]):
		return asserted{}, refusedPasskey("the signature is for another relying party")
	case !data.Flags.HasUserPresent():
		return asserted{}, refusedPasskey("nobody was present: the flag UP is not set")
	case !data.Flags.HasUserVerified():
		return asserted{}, refusedPasskey("the authenticator did not verify its user: the flag UV is not set")
	case data.Flags.HasBackupEligible() != k.Eligible:
		return asserted{}, refusedPasskey("the passkey says otherwise than at its enrolment whether it may be copied")
	case data.Flags.HasBackupState() && !k.Eligible:
		return asserted{}, refusedPasskey("the passkey says that it is copied and that it cannot be")
	}
	// Steps 20 and 21, and all of the above once more.
	err = parsed.Verify(encode(challenge), p.id, "", []string{p.origin}, nil, nil,
		protocol.TopOriginExplicitVerificationMode, false, true, true, k.PublicKey, protocol.SignaturePolicy{})
	if err != nil {
		return asserted{}, refusedPasskey("the signature does not verify: %q", err)
	}
	return asserted{count: data.Counter, backedUp: data.Flags.HasBackupState()}, nil
}

// decode lets the library read the authenticator data.
func (a *assertion) decode() (*protocol.ParsedCredentialAssertionData, error) {
	parsed, err := protocol.CredentialAssertionResponse{
		PublicKeyCredential: protocol.PublicKeyCredential{
			Credential: protocol.Credential{ID: encode(a.id), Type: "public-key"}, RawID: a.id,
		},
		AssertionResponse: protocol.AuthenticatorAssertionResponse{
			AuthenticatorResponse: protocol.AuthenticatorResponse{ClientDataJSON: a.clientJSON},
			AuthenticatorData:     a.authData, Signature: a.signature, UserHandle: a.handle,
		},
	}.Parse()
	if err != nil {
		return nil, refusedPasskey("the authenticator data cannot be read: %q", err)
	}
	return parsed, nil
}

// countsOn reports whether a sign count went on (Section 7.2, step 25). An
// authenticator without a counter always says zero; any other count is used once, so
// one that comes again was made by a copy of the key.
func countsOn(kept, now uint32) bool { return now > kept || (kept == 0 && now == 0) }

// offered are the algorithms of passkeys that we take, best first (RFC 9053, RFC
// 8812): ES256 is every authenticator's, RS256 is Windows Hello's on old machines.
var offered = []protocol.CredentialParameter{
	{Type: "public-key", Algorithm: webauthncose.AlgES256},
	{Type: "public-key", Algorithm: webauthncose.AlgEdDSA},
	{Type: "public-key", Algorithm: webauthncose.AlgES384},
	{Type: "public-key", Algorithm: webauthncose.AlgES512},
	{Type: "public-key", Algorithm: webauthncose.AlgRS256},
}

// A registration is a RegistrationResponseJSON (Section 5.1.8.1) that was read.
type registration struct {
	id, clientJSON, object []byte
	transports             []string
	client                 clientData
}

func parseRegistration(b []byte) (*registration, error) {
	var in struct {
		ID       string `json:"id"`
		RawID    string `json:"rawId"`
		Type     string `json:"type"`
		Response struct {
			ClientDataJSON    string   `json:"clientDataJSON"`
			AttestationObject string   `json:"attestationObject"`
			Transports        []string `json:"transports"`
		} `json:"response"`
	}
	if err := readCredential(b, &in); err != nil {
		return nil, err
	}
	id, ok := unbase64(in.ID)
	if !ok || len(id) == 0 || len(id) > maxCredentialID || in.RawID != in.ID || in.Type != "public-key" {
		return nil, refusedPasskey("the credential is not a public key with an id of 1 to %d bytes, or its id and rawId differ", maxCredentialID)
	}
	client, ok := unbase64(in.Response.ClientDataJSON)
	if !ok {
		return nil, refusedPasskey("the credential's clientDataJSON is not base64url")
	}
	object, ok := unbase64(in.Response.AttestationObject)
	if !ok {
		return nil, refusedPasskey("the credential's attestationObject is not base64url")
	}
	r := &registration{id: id, clientJSON: client, object: object}
	for _, t := range in.Response.Transports {
		if len(r.transports) < 8 && len(t) <= 32 { // a hint for browsers and nothing else
			r.transports = append(r.transports, t)
		}
	}
	var err error
	r.client, err = parseClientData(client)
	return r, err
}

// register checks a registration (WebAuthn Level 3, Section 7.1) and returns the
// passkey that it makes, without what our own records say about it. Its model is
// believed where a certificate of one of the roots vouches for it.
func (p party) register(r *registration, challenge []byte, roots *x509.CertPool, now time.Time) (counterfoil.Passkey, error) {
	var none counterfoil.Passkey
	if err := p.check(r.client, "webauthn.create", challenge); err != nil {
		return none, err
	}
	parsed, err := r.decode()
	if err != nil {
		return none, err
	}
	if roots == nil {
		unattested(&parsed.Response.AttestationObject)
	}
	_, err = parsed.Verify(encode(challenge), p.id, []string{p.origin}, nil, nil,
		protocol.TopOriginExplicitVerificationMode, false, true, true, nil, offered,
		protocol.AttestationPolicy{}, protocol.SignaturePolicy{})
	if err != nil {
		return none, refusedPasskey("the new passkey does not verify: %q", err)
	}
	data := parsed.Response.AttestationObject.AuthData
	if data.Flags.HasBackupState() && !data.Flags.HasBackupEligible() {
		return none, refusedPasskey("the passkey says that it is copied and that it cannot be")
	}
	return counterfoil.Passkey{
		ID: r.id, PublicKey: data.AttData.CredentialPublicKey, AAGUID: formatAAGUID(data.AttData.AAGUID),
		Attested:  vouched(&parsed.Response.AttestationObject, roots, now),
		SignCount: data.Counter, Eligible: data.Flags.HasBackupEligible(), BackedUp: data.Flags.HasBackupState(),
		Transports: r.transports,
	}, nil
}

// decode lets the library read the attestation object.
func (r *registration) decode() (*protocol.ParsedCredentialCreationData, error) {
	parsed, err := protocol.CredentialCreationResponse{
		PublicKeyCredential: protocol.PublicKeyCredential{
			Credential: protocol.Credential{ID: encode(r.id), Type: "public-key"}, RawID: r.id,
		},
		AttestationResponse: protocol.AuthenticatorAttestationResponse{
			AuthenticatorResponse: protocol.AuthenticatorResponse{ClientDataJSON: r.clientJSON},
			AttestationObject:     r.object,
		},
	}.Parse()
	if err != nil {
		return nil, refusedPasskey("the attestation object cannot be read: %q", err)
	}
	return parsed, nil
}

// unattested drops an attestation statement. Where nobody is believed none was asked
// for, and what came all the same is not read: it may be of any kind, under any root.
func unattested(o *protocol.AttestationObject) {
	o.Format, o.AttStatement, o.SubStatements = string(protocol.AttestationFormatNone), nil, nil
}

// vouched reports whether the attestation statement, which verified, was signed under
// a certificate of one of the roots (Section 7.1, step 22 and what follows). Without
// roots nobody is believed; self attestation vouches for nothing.
func vouched(o *protocol.AttestationObject, roots *x509.CertPool, now time.Time) bool {
	if roots == nil {
		return false
	}
	switch protocol.AttestationFormat(o.Format) {
	case protocol.AttestationFormatPacked, protocol.AttestationFormatTPM, protocol.AttestationFormatAndroidKey, protocol.AttestationFormatApple:
	default:
		return false // none, compound, or one without a model
	}
	chain, _ := o.AttStatement["x5c"].([]any)
	if len(chain) == 0 || len(chain) > 8 {
		return false
	}
	between := x509.NewCertPool()
	var leaf *x509.Certificate
	for i, raw := range chain {
		der, _ := raw.([]byte)
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return false
		}
		if i == 0 {
			leaf = cert
		} else {
			between.AddCert(cert)
		}
	}
	// A TPM's certificate has its name in a critical subjectAltName of a kind that
	// crypto/x509 does not know (WebAuthn Level 3, Section 8.3.1); the library has
	// read it.
	if protocol.AttestationFormat(o.Format) == protocol.AttestationFormatTPM {
		leaf.UnhandledCriticalExtensions = slices.DeleteFunc(leaf.UnhandledCriticalExtensions, oidSubjectAltName.Equal)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err == nil
}

var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// formatAAGUID writes an authenticator's model as registries do (RFC 9562, Section 4).
func formatAAGUID(b []byte) string {
	if len(b) != 16 {
		b = make([]byte, 16)
	}
	s := hex.EncodeToString(b)
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// Options of ceremonies, in the JSON forms of WebAuthn Level 3, Sections 5.4 and 5.5.
type (
	descriptor struct {
		Type       string   `json:"type"`
		ID         string   `json:"id"`
		Transports []string `json:"transports,omitzero"`
	}
	requestOptions struct {
		Challenge        string       `json:"challenge"`
		Timeout          int64        `json:"timeout"` // milliseconds
		RPID             string       `json:"rpId"`
		Allow            []descriptor `json:"allowCredentials,omitzero"`
		UserVerification string       `json:"userVerification"`
	}
	creationOptions struct {
		RP struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"rp"`
		User struct {
			ID          string `json:"id"`
			Name        string `json:"name"`
			DisplayName string `json:"displayName"`
		} `json:"user"`
		Challenge  string       `json:"challenge"`
		Parameters []parameter  `json:"pubKeyCredParams"`
		Timeout    int64        `json:"timeout"`
		Exclude    []descriptor `json:"excludeCredentials"`
		Selection  struct {
			ResidentKey        string `json:"residentKey"`
			RequireResidentKey bool   `json:"requireResidentKey"`
			UserVerification   string `json:"userVerification"`
		} `json:"authenticatorSelection"`
		Attestation string `json:"attestation"`
	}
	parameter struct {
		Type string `json:"type"`
		Alg  int64  `json:"alg"`
	}
)

func describe(keys []counterfoil.Passkey) []descriptor {
	out := make([]descriptor, 0, len(keys))
	for i := range keys {
		out = append(out, descriptor{Type: "public-key", ID: encode(keys[i].ID), Transports: keys[i].Transports})
	}
	return out
}

// request writes the options of an assertion. No passkeys means any that the browser
// finds.
func (p party) request(challenge []byte, keys []counterfoil.Passkey) ([]byte, error) {
	o := requestOptions{
		Challenge: encode(challenge), Timeout: ceremonyLife.Milliseconds(), RPID: p.id, UserVerification: "required",
	}
	if len(keys) > 0 {
		o.Allow = describe(keys)
	}
	return publicKey(o)
}

// create writes the options of a new passkey of a person.
func (p party) create(person string, handle, challenge []byte, keys []counterfoil.Passkey, attested bool) ([]byte, error) {
	var o creationOptions
	o.RP.ID, o.RP.Name = p.id, "Counterfoil"
	o.User.ID, o.User.Name, o.User.DisplayName = encode(handle), person, person
	o.Challenge, o.Timeout = encode(challenge), ceremonyLife.Milliseconds()
	for _, c := range offered {
		o.Parameters = append(o.Parameters, parameter{"public-key", int64(c.Algorithm)})
	}
	o.Exclude = describe(keys)
	o.Selection.ResidentKey, o.Selection.RequireResidentKey, o.Selection.UserVerification = "required", true, "required"
	o.Attestation = "none"
	if attested {
		o.Attestation = "direct"
	}
	return publicKey(o)
}

func publicKey(o any) ([]byte, error) {
	return json.Marshal(map[string]any{"publicKey": o})
}
