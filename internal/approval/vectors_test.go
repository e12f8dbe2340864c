package approval

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/go-webauthn/webauthn/protocol"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/testkit/passkey"
)

// hexBytes is text in hexadecimal, as the vectors have it.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

type webauthnVector struct {
	Title        string `json:"title"`
	ID           string `json:"id"`
	Registration struct {
		Challenge  hexBytes `json:"challenge"`
		ID         hexBytes `json:"credential_id"`
		ClientData hexBytes `json:"clientDataJSON"`
		Object     hexBytes `json:"attestationObject"`
	} `json:"registration"`
	Authentication struct {
		Challenge  hexBytes `json:"challenge"`
		AuthData   hexBytes `json:"authenticatorData"`
		ClientData hexBytes `json:"clientDataJSON"`
		Signature  hexBytes `json:"signature"`
	} `json:"authentication"`
}

// vectorsParty is the relying party of the vectors.
var vectorsParty = party{id: "example.org", origin: "https://example.org"}

// The test vectors of WebAuthn Level 3, Section 16: every one that we take verifies
// through our reading of it, and none does with one byte changed. Some of them are in a
// frame of another origin or without user verification, which the specification leaves
// to the relying party and we refuse: those must be refused for that alone.
func TestVectorsOfTheSpecification(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("COUNTERFOIL_VECTORS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "vectors")
	}
	data, err := os.ReadFile(filepath.Join(dir, "webauthn-l3.json"))
	if os.IsNotExist(err) {
		t.Skipf("other projects' vectors are not here: %v (set COUNTERFOIL_VECTORS)", err)
	}
	wantDone(t, err)
	var vectors []webauthnVector
	wantDone(t, json.Unmarshal(data, &vectors))
	if len(vectors) != 15 {
		t.Errorf("%d vectors, want 15", len(vectors))
	}
	ours := 0
	for i := range vectors {
		v := &vectors[i]
		t.Run(v.ID, func(t *testing.T) {
			key, err := v.registered()
			if v.ID == "sctn-test-vectors-packed-ed448" {
				if err == nil {
					t.Error("Ed448 is not offered and was taken")
				}
				return
			}
			wantDone(t, err)
			if v.check(key) {
				ours++
			}
			wantDone(t, v.asserted(key))
			for name, part := range map[string]*hexBytes{
				"clientDataJSON": &v.Authentication.ClientData, "authenticatorData": &v.Authentication.AuthData, "signature": &v.Authentication.Signature,
			} {
				whole := slices.Clone(*part)
				for at := range whole {
					(*part)[at] ^= 1
					if v.asserted(key) == nil {
						t.Errorf("byte %d of %s is another, and it verifies", at, name)
					}
					if err := v.strict(key); err == nil {
						t.Errorf("byte %d of %s is another, and we take it", at, name)
					}
					copy(*part, whole)
				}
			}
		})
	}
	if ours == 0 {
		t.Error("no vector is as we want it: the strict path was not shown to take any")
	}
}

func (v *webauthnVector) registration() *registration {
	r := &registration{id: v.Registration.ID, clientJSON: v.Registration.ClientData, object: v.Registration.Object}
	r.client, _ = parseClientData(r.clientJSON)
	return r
}

// registered reads the passkey of a vector with what the specification leaves open left
// open.
func (v *webauthnVector) registered() (*counterfoil.Passkey, error) {
	parsed, err := v.registration().decode()
	if err != nil {
		return nil, err
	}
	// The library takes these under their makers' own roots alone, which the vectors'
	// are not.
	switch o := &parsed.Response.AttestationObject; o.Format {
	case "tpm", "android-key", "apple":
		unattested(o)
	}
	client := &parsed.Response.CollectedClientData
	_, err = parsed.Verify(encode(v.Registration.Challenge), vectorsParty.id, []string{vectorsParty.origin}, nil, []string{client.TopOrigin},
		protocol.TopOriginExplicitVerificationMode, true, false, false, nil, offered, protocol.AttestationPolicy{}, protocol.SignaturePolicy{})
	if err != nil {
		return nil, err
	}
	d := parsed.Response.AttestationObject.AuthData
	return &counterfoil.Passkey{ID: v.Registration.ID, PublicKey: d.AttData.CredentialPublicKey, Eligible: d.Flags.HasBackupEligible()}, nil
}

func (v *webauthnVector) assertion() (*assertion, error) {
	a := v.Authentication
	r := recordedAssertion{
		ID: encode(v.Registration.ID), ClientDataJSON: encode(a.ClientData), AuthenticatorData: encode(a.AuthData), Signature: encode(a.Signature),
	}
	return r.parse()
}

// asserted verifies a vector's assertion with what the specification leaves open left
// open.
func (v *webauthnVector) asserted(key *counterfoil.Passkey) error {
	a, err := v.assertion()
	if err != nil {
		return err
	}
	parsed, err := a.decode()
	if err != nil {
		return err
	}
	return parsed.Verify(encode(v.Authentication.Challenge), vectorsParty.id, "", []string{vectorsParty.origin}, nil,
		[]string{parsed.Response.CollectedClientData.TopOrigin}, protocol.TopOriginExplicitVerificationMode, true, false, true, key.PublicKey, protocol.SignaturePolicy{})
}

// strict verifies it as the product does.
func (v *webauthnVector) strict(key *counterfoil.Passkey) error {
	a, err := v.assertion()
	if err != nil {
		return err
	}
	_, err = vectorsParty.verify(a, key, v.Authentication.Challenge)
	return err
}

// check holds the strict path against what the vector says of itself.
func (v *webauthnVector) check(key *counterfoil.Passkey) bool {
	a, err := v.assertion()
	if err != nil {
		return false
	}
	verified := v.Authentication.AuthData[32]&4 != 0
	framed := string(a.client.CrossOrigin) == "true" || a.client.TopOrigin != nil
	return (v.strict(key) == nil) == (verified && !framed) && verified && !framed
}

// FuzzCredential reads what pages send: nothing crashes, and nothing that was not
// signed verifies.
func FuzzCredential(f *testing.F) {
	phone := passkey.New(testRP, testOrigin)
	p := party{testRP, testOrigin}
	challenge := []byte("0123456789abcdef0123456789abcdef")
	creation, err := p.create("bo", []byte("handle"), challenge, nil, false)
	if err != nil {
		f.Fatal(err)
	}
	made := phone.Create(creation)
	request, err := p.request(challenge, nil)
	if err != nil {
		f.Fatal(err)
	}
	got := phone.Get(request)
	f.Add(made)
	f.Add(got)
	f.Add([]byte(`{"id":"AA","rawId":"AA","type":"public-key","response":{"clientDataJSON":"e30","authenticatorData":"AA","signature":"AA","userHandle":null}}`))
	f.Add([]byte(`{}`))
	in, err := parseRegistration(made)
	if err != nil {
		f.Fatal(err)
	}
	key, err := p.register(in, challenge, nil, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	key.Handle = []byte("handle")
	signed, err := parseAssertion(got)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if in, err := parseRegistration(b); err == nil {
			if _, err := p.register(in, []byte("another challenge"), nil, time.Now()); err == nil {
				t.Errorf("a passkey for another challenge: %q", b)
			}
		} else if counterfoil.CodeOf(err) != counterfoil.PasskeyRefused {
			t.Errorf("refused with %v", err)
		}
		a, err := parseAssertion(b)
		if err != nil {
			return
		}
		if _, err := p.verify(a, &key, challenge); err == nil && string(a.signature) != string(signed.signature) {
			t.Errorf("a signature that nobody made: %q", b)
		}
	})
}
