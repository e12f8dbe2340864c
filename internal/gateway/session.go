package gateway

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// A session is what the id that a client holds stands for. The upstream made
// it; the gateway keeps nothing.
type session struct {
	ID       string `json:"id"` // the upstream's
	Revision string `json:"revision"`
	Resource string `json:"resource"`
	Agent    string `json:"agent"`
	Task     string `json:"task,omitzero"`
	Elicits  bool   `json:"elicits,omitzero"` // the client sends its user to a URL
}

// maxSession bounds a session id, ours and the upstream's.
const maxSession = 2 << 10

const keySize = 32

// A sealer turns sessions into ids that only their own agent can use, and event
// ids into ids that only their own session can resume.
//
// Who has its key can make a session id for any agent, but still needs that
// agent's token and proof to use it.
type sealer struct {
	aead  cipher.AEAD
	marks cipher.AEAD // of requestState, see elicit.go
	mac   []byte
	keys  []byte // of Idempotency-Keys, see upstreamKey

	denials cipher.AEAD // see evaluate.go
}

func newSealer(key []byte) (*sealer, error) {
	if len(key) < keySize {
		return nil, fmt.Errorf("the session key has %d bytes, it needs %d", len(key), keySize)
	}
	aead, err := deriveAEAD(key, "counterfoil/session/1")
	if err != nil {
		return nil, err
	}
	marks, err := deriveAEAD(key, "counterfoil/request-state/1")
	if err != nil {
		return nil, err
	}
	mac, err := hkdf.Key(sha256.New, key, nil, "counterfoil/event/1", keySize)
	if err != nil {
		return nil, fmt.Errorf("deriving the event key: %w", err)
	}
	keys, err := hkdf.Key(sha256.New, key, nil, "counterfoil/upstream-key/1", keySize)
	if err != nil {
		return nil, fmt.Errorf("deriving the key of Idempotency-Keys: %w", err)
	}
	denials, err := deriveAEAD(key, "counterfoil/denial/1")
	if err != nil {
		return nil, err
	}
	return &sealer{aead: aead, marks: marks, mac: mac, keys: keys, denials: denials}, nil
}

// deriveAEAD makes a cipher for one purpose: what was sealed for one does not open
// for another.
func deriveAEAD(key []byte, purpose string) (cipher.AEAD, error) {
	enc, err := hkdf.Key(sha256.New, key, nil, purpose, keySize)
	if err != nil {
		return nil, fmt.Errorf("deriving the key of %s: %w", purpose, err)
	}
	block, err := aes.NewCipher(enc)
	if err != nil {
		return nil, fmt.Errorf("making the cipher of %s: %w", purpose, err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("making the cipher of %s: %w", purpose, err)
	}
	return aead, nil
}

// seal returns the id for the client: visible ASCII, as MCP 2025-11-25
// (Transports, Session Management) wants it.
func (s *sealer) seal(open session) (string, error) {
	b, err := ijson.Marshal(open)
	if err != nil {
		return "", fmt.Errorf("sealing a session: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(s.aead.Seal(nil, nil, b, nil)), nil
}

// open returns the session that an id stands for when it is this caller's at
// this resource. Anybody else's, and anything else, is answered alike: the
// client is told to initialize again and learns nothing.
func (s *sealer) open(id, resource string, caller *counterfoil.Caller) (*session, error) {
	gone := counterfoil.Refuse(counterfoil.ToolUnknown, "there is no such session: initialize again")
	if len(id) > 2*maxSession {
		return nil, gone
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(id)
	if err != nil {
		return nil, gone
	}
	b, err := s.aead.Open(nil, nil, sealed, nil)
	if err != nil {
		return nil, gone
	}
	var open session
	if err := ijson.Unmarshal(b, &open); err != nil {
		return nil, gone
	}
	if open.Resource != resource || open.Agent != caller.Agent || open.Task != caller.Task {
		return nil, gone
	}
	return &open, nil
}

// sealEvent binds an event's id to its session. MCP wants event ids to be
// unique within a session and no more, and an upstream may well replay any
// stream to whoever names it.
func (s *sealer) sealEvent(open *session, id string) string {
	return base64.RawURLEncoding.EncodeToString(s.eventMAC(open, id)) + "." + base64.RawURLEncoding.EncodeToString([]byte(id))
}

// openEvent returns the upstream's event id.
func (s *sealer) openEvent(open *session, sealed string) (string, error) {
	mac, id, _ := strings.Cut(sealed, ".")
	m, err1 := base64.RawURLEncoding.Strict().DecodeString(mac)
	b, err2 := base64.RawURLEncoding.Strict().DecodeString(id)
	if err1 != nil || err2 != nil || !hmac.Equal(m, s.eventMAC(open, string(b))) {
		return "", counterfoil.Refuse(counterfoil.ToolUnknown, "there is no such event in this session: initialize again")
	}
	return string(b), nil
}

func (s *sealer) eventMAC(open *session, id string) []byte {
	return macOf(s.mac, open.Resource, open.Agent, open.Task, open.ID, id)[:16]
}

// upstreamKey is what an upstream is told as the Idempotency-Key of an agent's call. All
// agents show it one credential, so it could not tell the keys of one from those of
// another, and would give the one the other's answer. It is the same for the same call as
// long as the gateway has its key.
func (s *sealer) upstreamKey(agent, resource, key string) string {
	return base64.RawURLEncoding.EncodeToString(macOf(s.keys, agent, resource, key))
}

// macOf covers parts with their lengths, so that no two different lists are covered alike.
func macOf(key []byte, parts ...string) []byte {
	h := hmac.New(sha256.New, key)
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return h.Sum(nil)
}

// isSessionID reports whether an upstream's session id can be taken: visible
// ASCII (MCP 2025-11-25, Transports, Session Management) and not too long.
func isSessionID(id string) bool {
	if id == "" || len(id) > maxSession {
		return false
	}
	for i := range len(id) {
		if id[i] < 0x21 || id[i] > 0x7e {
			return false
		}
	}
	return true
}

// newSessionKey is for callers that keep no key: sessions end with the process.
func newSessionKey() []byte {
	key := make([]byte, keySize)
	rand.Read(key) // never fails (crypto/rand)
	return key
}
