-- Requests for human proof. What is looked for stands in columns, what never
-- changes and tells nothing of the call in body. What the call says stands in
-- columns of its own, which are emptied when it is erased: the digest of a call
-- too, as a text that is short can be guessed and compared with it.
CREATE TABLE approvals (
	seq         INTEGER PRIMARY KEY, -- the order of the requests
	id          TEXT NOT NULL UNIQUE,
	state       TEXT NOT NULL,
	kind        TEXT NOT NULL,
	agent       TEXT NOT NULL,    -- empty for a change
	instance    TEXT NOT NULL,    -- that asked
	task        TEXT NOT NULL,
	key         TEXT NOT NULL,    -- the Idempotency-Key; empty when there was none
	held        INTEGER NOT NULL,
	created     INTEGER NOT NULL,
	expires     INTEGER NOT NULL,
	use_until   INTEGER NOT NULL, -- 0: not approved yet
	closed      INTEGER NOT NULL, -- 0: pending or approved
	decided     INTEGER NOT NULL, -- index of the call.decided that spent it; 0: none
	reason      TEXT NOT NULL,
	body        TEXT NOT NULL,    -- JSON
	erased      INTEGER NOT NULL, -- 1: what follows is empty for ever
	call_digest TEXT NOT NULL,
	statement   BLOB,
	rendering   BLOB,
	-- From here on it may be large: what stands before is read without it.
	fields      TEXT,             -- JSON
	call        BLOB,
	result      BLOB
) STRICT;
CREATE INDEX approvals_call ON approvals (agent, task, call_digest);
CREATE INDEX approvals_key ON approvals (agent, task, key) WHERE key <> '';
CREATE INDEX approvals_state ON approvals (state, agent);
CREATE INDEX approvals_kept ON approvals (agent, state) WHERE erased = 0;

CREATE TABLE signatures (
	approval TEXT NOT NULL,
	n        INTEGER NOT NULL, -- 0 for the first
	person   TEXT NOT NULL,
	mailbox  TEXT NOT NULL,
	passkey  BLOB NOT NULL,
	decision TEXT NOT NULL,
	reason   TEXT NOT NULL,
	member   TEXT NOT NULL,    -- the groups that the person was in, JSON
	at       INTEGER NOT NULL,
	record   BLOB NOT NULL,
	digest   TEXT NOT NULL,
	PRIMARY KEY (approval, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX signatures_person ON signatures (person);
CREATE INDEX signatures_passkey ON signatures (passkey);

-- What calls took from cumulative limits, in ten-thousandths. A call takes from
-- one field once, however many limits look at it.
CREATE TABLE takings (
	class  TEXT NOT NULL,
	field  TEXT NOT NULL,
	agent  TEXT NOT NULL,
	at     INTEGER NOT NULL,
	entry  INTEGER NOT NULL, -- index of the call.decided
	amount INTEGER NOT NULL CHECK (amount >= 0),
	PRIMARY KEY (class, field, agent, at, entry)
) STRICT, WITHOUT ROWID;

-- Every passkey that ever was somebody's: neither its id nor its public key is
-- ever accepted from anybody again.
CREATE TABLE passkeys (
	id          BLOB PRIMARY KEY,
	person      TEXT NOT NULL,
	public_key  BLOB NOT NULL UNIQUE,
	handle      BLOB NOT NULL,
	aaguid      TEXT NOT NULL,
	attested    INTEGER NOT NULL,
	sign_count  INTEGER NOT NULL,
	eligible    INTEGER NOT NULL,
	backed_up   INTEGER NOT NULL,
	transports  TEXT NOT NULL,    -- JSON
	enrolled    INTEGER NOT NULL,
	usable_from INTEGER NOT NULL,
	used        INTEGER NOT NULL, -- 0: never
	how         TEXT NOT NULL,
	entry       INTEGER NOT NULL, -- index of its person.enrolled
	status      TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX passkeys_person ON passkeys (person);

-- Codes for the enrolment of a passkey that are not spent. A person has one.
CREATE TABLE person_codes (
	person  TEXT PRIMARY KEY,
	hash    BLOB NOT NULL UNIQUE,
	how     TEXT NOT NULL,
	expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Changes of the registry that wait for people, or for their time.
CREATE TABLE proposals (
	id        TEXT PRIMARY KEY,
	documents BLOB NOT NULL,
	digest    TEXT NOT NULL,
	actor     TEXT NOT NULL,
	approval  TEXT NOT NULL,
	created   INTEGER NOT NULL,
	effective INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
