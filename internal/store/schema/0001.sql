-- Times are milliseconds since 1970, UTC, except in entries, which are text of
-- their own. Thumbprints, names and ids are as on the wire.

CREATE TABLE meta (
	name  TEXT PRIMARY KEY,
	value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The log. One row holds a run of entries that were committed together, so
-- that a busy log writes one row, not hundreds, for each commit. The hashes
-- stand before the data: reading them does not read the data.
CREATE TABLE segments (
	first  INTEGER PRIMARY KEY, -- index of the first entry
	count  INTEGER NOT NULL,
	hashes BLOB NOT NULL,       -- for each entry, those that tlog.StoredHashes names, 32 bytes each
	data   BLOB NOT NULL        -- for each entry, its exact bytes and a line feed
) STRICT;

-- Payloads stand beside the tree, so that one can be erased without breaking
-- the log: its entry has a commitment only.
CREATE TABLE payloads (
	entry   INTEGER PRIMARY KEY,
	salt    BLOB NOT NULL,
	payload BLOB NOT NULL
) STRICT;

CREATE TABLE documents (
	kind TEXT NOT NULL,
	name TEXT NOT NULL,
	body TEXT NOT NULL, -- JSON of the noun
	PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

-- Life cycles stay when an agent is offboarded: its name never returns.
CREATE TABLE agents (
	name   TEXT PRIMARY KEY,
	status TEXT NOT NULL,
	epoch  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE instances (
	id       TEXT PRIMARY KEY,
	agent    TEXT NOT NULL,
	jkt      TEXT NOT NULL,
	jwk      TEXT NOT NULL,
	alg      TEXT NOT NULL,
	status   TEXT NOT NULL,
	enrolled INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX instances_agent ON instances (agent);

-- Every thumbprint that ever was somebody's: none is ever accepted from
-- anybody else.
CREATE TABLE keys (
	jkt        TEXT PRIMARY KEY,
	agent      TEXT NOT NULL,
	instance   TEXT NOT NULL,
	registered INTEGER NOT NULL, -- 1: the instance's own key; 0: a proof key that it bound
	live       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_instance ON keys (instance);
CREATE INDEX keys_agent ON keys (agent);

-- Ids of client assertions, each until no assertion with it can be valid.
CREATE TABLE assertions (
	id    BLOB PRIMARY KEY, -- SHA-256 of agent and id
	until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX assertions_until ON assertions (until);

-- Enrolment codes that are not spent.
CREATE TABLE codes (
	hash    BLOB PRIMARY KEY,
	agent   TEXT NOT NULL,
	expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE signing_keys (
	kid     TEXT PRIMARY KEY,
	purpose TEXT NOT NULL,
	alg     TEXT NOT NULL,
	state   TEXT NOT NULL,
	jwk     BLOB NOT NULL,
	sealed  BLOB,
	created INTEGER NOT NULL,
	active  INTEGER NOT NULL, -- 0: never yet
	retired INTEGER NOT NULL  -- 0: not yet
) STRICT, WITHOUT ROWID;

CREATE TABLE pins (
	resource TEXT NOT NULL,
	tool     TEXT NOT NULL,
	digest   TEXT NOT NULL,
	how      TEXT NOT NULL,
	PRIMARY KEY (resource, tool)
) STRICT, WITHOUT ROWID;

-- Room that a probe fills and frees, to see whether the disk takes writes.
CREATE TABLE probe (
	id   INTEGER PRIMARY KEY,
	room BLOB NOT NULL
) STRICT;
