package approval

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/ledger"
)

// Every digest is SHA-256 over a prefix that says what it is of, so that no text is
// ever taken for one of another kind, and over canonical JSON (RFC 8785), which has
// one form. It is written "sha-256:" and base64url.
const (
	prefixApproval  = "counterfoil/approval/1\n"
	prefixCeremony  = "counterfoil/ceremony/1\n"
	prefixReason    = "counterfoil/reason/1\n"
	prefixSignature = "counterfoil/signature/1\n"
	digestScheme    = "sha-256:"
)

func digest(prefix string, text []byte) string {
	h := sha256.New()
	h.Write([]byte(prefix))
	h.Write(text)
	return digestScheme + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// digestOf is over the canonical JSON of a value of ours.
func digestOf(v any) (string, error) {
	b, err := ijson.Marshal(v)
	if err != nil {
		return "", err
	}
	return digest("", b), nil
}

// renderingDigest says what people were shown.
func renderingDigest(text []byte) string { return digest("", text) }

// A statement is what an approval's digest is over: everything that a signature
// means. Its canonical JSON is kept with the approval.
type statement struct {
	V               int                      `json:"v"`
	ID              string                   `json:"approval_id"`
	CallDigest      string                   `json:"call_digest"`
	Class           string                   `json:"class"`
	ClassDigest     string                   `json:"class_digest"`
	Rule            counterfoil.ApprovalRule `json:"rule"`
	TemplateDigest  string                   `json:"template_digest"`
	RenderingDigest string                   `json:"rendering_digest"`
	Created         string                   `json:"created"`
	Expires         string                   `json:"expires"`
	Nonce           string                   `json:"nonce"`
}

// state fills in an approval's statement and digest. Everything else that the
// statement names must be there.
func state(a *counterfoil.Approval, class *counterfoil.Class) (statement, error) {
	s := statement{
		V: 1, ID: a.ID, CallDigest: a.CallDigest, Class: a.Class, Rule: a.Rule,
		RenderingDigest: renderingDigest(a.Rendering),
		Created:         ledger.FormatTime(a.Created), Expires: ledger.FormatTime(a.Expires),
		Nonce: nonce(),
	}
	var err error
	if s.ClassDigest, err = digestOf(class); err != nil {
		return statement{}, fmt.Errorf("digesting the class: %w", err)
	}
	if s.TemplateDigest, err = digestOf(class.Template); err != nil {
		return statement{}, fmt.Errorf("digesting the template: %w", err)
	}
	if a.Statement, err = ijson.Marshal(s); err != nil {
		return statement{}, fmt.Errorf("writing the statement: %w", err)
	}
	a.Digest = digest(prefixApproval, a.Statement)
	return s, nil
}

// stated reads an approval's statement back and holds it against the record that it
// came with: a record of which one member was changed is none that anybody signed.
func stated(a *counterfoil.Approval) (statement, error) {
	var s statement
	if digest(prefixApproval, a.Statement) != a.Digest {
		return s, errors.New("the statement is not the one of its digest")
	}
	if err := ijson.Unmarshal(a.Statement, &s); err != nil {
		return s, fmt.Errorf("reading the statement: %w", err)
	}
	rule, err := digestOf(a.Rule)
	if err != nil {
		return s, err
	}
	signed, err := digestOf(s.Rule)
	if err != nil {
		return s, err
	}
	switch {
	case s.V != 1 || s.ID != a.ID || s.CallDigest != a.CallDigest || s.Class != a.Class || rule != signed,
		s.RenderingDigest != renderingDigest(a.Rendering),
		s.Created != ledger.FormatTime(a.Created) || s.Expires != ledger.FormatTime(a.Expires):
		return s, errors.New("the record is not what its statement says")
	}
	return s, nil
}

// A challenge is everything that one signature is over. Offline verification finds
// its members in the entry and computes it again.
type challenge struct {
	Digest       string   `json:"approval_digest"`
	Decision     string   `json:"decision"`
	ReasonDigest string   `json:"reason_digest"`
	Approver     string   `json:"approver"`
	Previous     []string `json:"previous"` // digests of the records of earlier signatures, in order
	Ceremony     string   `json:"ceremony"` // 16 random bytes of ours, for one use
}

// newChallenge makes the challenge of one person for one decision on what is there.
func newChallenge(a *counterfoil.Approval, person, decision, reason string) challenge {
	c := challenge{
		Digest: a.Digest, Decision: decision, ReasonDigest: digest(prefixReason, []byte(reason)),
		Approver: person, Previous: make([]string, 0, len(a.Signatures)), Ceremony: nonce(),
	}
	for i := range a.Signatures {
		c.Previous = append(c.Previous, a.Signatures[i].Digest)
	}
	return c
}

// bytes returns the WebAuthn challenge.
func (c *challenge) bytes() ([]byte, error) {
	b, err := ijson.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("writing the challenge: %w", err)
	}
	h := sha256.New()
	h.Write([]byte(prefixCeremony))
	h.Write(b)
	return h.Sum(nil), nil
}

// A record is a signature as it is kept: the assertion as it came and what it is
// over.
type record struct {
	Assertion recordedAssertion `json:"assertion"`
	Challenge challenge         `json:"challenge"`
}

// A recordedAssertion is an assertion's members, in base64url.
type recordedAssertion struct {
	ID                string `json:"id"`
	ClientDataJSON    string `json:"clientDataJSON"`
	AuthenticatorData string `json:"authenticatorData"`
	Signature         string `json:"signature"`
	UserHandle        string `json:"userHandle,omitzero"`
}

// write returns the record's canonical JSON and its digest, which the next
// signature's challenge covers.
func (r *record) write() (text []byte, sum string, err error) {
	text, err = ijson.Marshal(r)
	if err != nil {
		return nil, "", fmt.Errorf("writing the signature's record: %w", err)
	}
	return text, digest(prefixSignature, text), nil
}

// nonce returns 16 random bytes in base64url.
func nonce() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return encode(b[:])
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// millis is a time as the store keeps it.
func millis(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }
