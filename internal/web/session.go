package web

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// How long a session lasts and how many there may be. Idle time is what a person
// who leaves the desk gives away; the whole is a working day. A person's eleventh
// session ends the one that was idle longest, and so does the first beyond all of
// them: nobody can keep others from logging in.
const (
	sessionIdle = 15 * time.Minute
	sessionMost = 12 * time.Hour

	sessionsEach = 10
	sessionsAll  = 10_000
)

// A session is a person who logged in with a passkey, at the moment of one request:
// declared still and not suspended, with the roles of this moment, the passkey not
// ended.
//
// A session reads, and it takes authority away. It never gives any: an approval
// needs an assertion over that approval's challenge, whoever is logged in.
type session struct {
	person  *counterfoil.Person
	passkey []byte    // credential id that the person logged in with
	expires time.Time // when it ends, if nothing is asked meanwhile

	// token is what every form of a page sends back: nobody knows it who does not
	// know the session's id.
	token string

	key [sha256.Size]byte
}

// isAdmin reports whether the person may suspend, offboard, cancel and reconcile.
func (s session) isAdmin() bool { return slices.Contains(s.person.Roles, counterfoil.RoleAdmin) }

// isReader reports whether the person may read what is not theirs to decide.
func (s session) isReader() bool {
	return s.isAdmin() || slices.Contains(s.person.Roles, counterfoil.RoleAuditor)
}

// Passkeys tell whether a passkey is still one. Safe for concurrent use.
type Passkeys interface {
	// PasskeyByID returns the passkey with that credential id, ended ones too.
	PasskeyByID(ctx context.Context, id []byte) (p counterfoil.Passkey, ok bool, err error)
	// AnybodyEnrolled reports whether a passkey was ever enrolled.
	AnybodyEnrolled(ctx context.Context) (bool, error)
}

// session returns who is logged in, and puts off the end of the session; nobody is
// the refusal session_required.
func (m *management) session(r *http.Request) (session, error) { return m.lookUp(r, true) }

// glance is session for what a page asks by itself: it puts nothing off, or an open
// page would keep its session for ever.
func (m *management) glance(r *http.Request) (session, error) { return m.lookUp(r, false) }

func (m *management) lookUp(r *http.Request, slide bool) (session, error) {
	var none session
	id, ok := m.sessionID(r)
	if !ok {
		return none, counterfoil.Refuse(counterfoil.SessionRequired, "nobody is logged in")
	}
	key := sha256.Sum256(id)
	kept, ok := m.sessions.get(key, m.Now(), slide)
	if !ok {
		return none, counterfoil.Refuse(counterfoil.SessionRequired, "the session is over; log in again")
	}
	_, registry := m.Authority.Policy()
	person := registry.People[kept.person]
	if person == nil || m.Approvals.Suspended(kept.person) {
		m.sessions.end(key)
		return none, counterfoil.Refuse(counterfoil.SessionRequired, "the session is over; log in again")
	}
	passkey, ok, err := m.Passkeys.PasskeyByID(r.Context(), kept.passkey)
	if err != nil {
		return none, counterfoil.NewFault(counterfoil.StoreUnavailable, err)
	}
	if !ok || passkey.Status != counterfoil.Active || passkey.Person != kept.person {
		m.sessions.end(key)
		return none, counterfoil.Refuse(counterfoil.SessionRequired, "the session is over; log in again")
	}
	return session{person: person, passkey: kept.passkey, expires: kept.ends(), token: formToken(id), key: key}, nil
}

// formToken derives a session's token from its id.
func formToken(id []byte) string {
	mac := hmac.New(sha256.New, id)
	mac.Write([]byte("counterfoil/form/1"))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// checkForm refuses a form that was not made for the session.
func (s session) checkForm(token string) error {
	if !hmac.Equal([]byte(token), []byte(s.token)) {
		return counterfoil.Refuse(counterfoil.OriginForbidden, "the form is not one of this session's: load the page again")
	}
	return nil
}

// cookieName is the name of the session's cookie. The prefix makes browsers take it
// from this very host alone, over TLS (RFC 6265bis, Section 4.1.3.2), so that no
// neighbour's page sets one.
func (m *management) cookieName() string {
	if m.overTLS() {
		return "__Host-counterfoil_session"
	}
	return "counterfoil_session"
}

// sessionID returns the id of the request's session, a handle, which may be nobody's. A
// request with two such cookies has none: somebody else set one of them.
func (m *management) sessionID(r *http.Request) (id []byte, ok bool) {
	cookies := r.CookiesNamed(m.cookieName())
	if len(cookies) != 1 {
		return nil, false
	}
	if !counterfoil.CheckHandle(counterfoil.HandleSession, cookies[0].Value) {
		return nil, false
	}
	return []byte(cookies[0].Value), true
}

// openSession begins a session of a person whose login is recorded, and sets its
// cookie. The session that the browser had before ends: its id is never taken over.
func (m *management) openSession(w http.ResponseWriter, r *http.Request, person string, passkey []byte) time.Time {
	if id, ok := m.sessionID(r); ok {
		m.sessions.end(sha256.Sum256(id))
	}
	id := counterfoil.NewHandle(counterfoil.HandleSession).Reveal()
	now := m.Now()
	kept := keptSession{person: person, passkey: passkey, opened: now, used: now}
	m.sessions.put(sha256.Sum256([]byte(id)), kept)
	m.setCookie(w, id, int(sessionMost.Seconds()))
	return kept.ends()
}

// closeSession ends a session and records it. It ends in any case: an entry that
// cannot be written is a fault that keeps nobody logged in.
func (m *management) closeSession(w http.ResponseWriter, r *http.Request, s session) error {
	m.sessions.end(s.key)
	m.setCookie(w, "", -1)
	e := &ledger.Entry{
		Kind: ledger.SessionClosed, RequestID: RequestID(r.Context()), Actor: s.person.Name, Source: sourceOf(m.Source(r)),
		Detail: map[string]any{"person": s.person.Name},
	}
	if err := m.Recorder.Append(context.WithoutCancel(r.Context()), e); err != nil {
		return counterfoil.NewFault(counterfoil.LedgerUnavailable, err)
	}
	return nil
}

// setCookie sets the session's cookie, or with a negative age takes it back.
func (m *management) setCookie(w http.ResponseWriter, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: m.cookieName(), Value: value, Path: "/", MaxAge: maxAge,
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: m.overTLS() || !m.Dev,
	})
}

// sessions are kept in memory: a restart logs everybody out. An id is kept as its
// hash, so that a dump of the memory opens nothing.
type sessions struct {
	mu    sync.Mutex
	byKey map[[sha256.Size]byte]keptSession // guarded by mu
}

type keptSession struct {
	person  string
	passkey []byte
	opened  time.Time
	used    time.Time // last
}

// ends is when the session is over if it is not used again.
func (k keptSession) ends() time.Time {
	idle, most := k.used.Add(sessionIdle), k.opened.Add(sessionMost)
	if most.Before(idle) {
		return most
	}
	return idle
}

func newSessions() *sessions { return &sessions{byKey: map[[sha256.Size]byte]keptSession{}} }

// get returns a session that is not over; slide counts this as a use.
func (s *sessions) get(key [sha256.Size]byte, now time.Time, slide bool) (keptSession, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.byKey[key]
	if !ok {
		return keptSession{}, false
	}
	if !now.Before(k.ends()) {
		delete(s.byKey, key)
		return keptSession{}, false
	}
	if slide && now.After(k.used) {
		k.used = now
		s.byKey[key] = k
	}
	return k, true
}

// put keeps a new session, in place of those that are over and, where there would be
// too many, of the one that was idle longest.
func (s *sessions) put(key [sha256.Size]byte, k keptSession) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.byKey) >= sessionsAll {
		for key, old := range s.byKey {
			if !k.opened.Before(old.ends()) {
				delete(s.byKey, key)
			}
		}
	}
	s.makeRoom(sessionsEach, func(old keptSession) bool { return old.person == k.person })
	s.makeRoom(sessionsAll, func(keptSession) bool { return true })
	s.byKey[key] = k
}

// makeRoom ends the session that was idle longest of those that count, where there
// are as many as there may be.
func (s *sessions) makeRoom(most int, counts func(keptSession) bool) {
	var oldest [sha256.Size]byte
	n := 0
	for key, k := range s.byKey {
		if !counts(k) {
			continue
		}
		if n++; n == 1 || k.used.Before(s.byKey[oldest].used) {
			oldest = key
		}
	}
	if n >= most {
		delete(s.byKey, oldest)
	}
}

func (s *sessions) end(key [sha256.Size]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byKey, key)
}
