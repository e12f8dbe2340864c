-- Tasks that agents opened. One that ended stays, and never opens again.
CREATE TABLE tasks (
	id        TEXT PRIMARY KEY,
	agent     TEXT NOT NULL,
	opener    TEXT NOT NULL,
	instance  TEXT NOT NULL,
	parent    TEXT NOT NULL,    -- empty: none
	purpose   TEXT NOT NULL,
	tools     TEXT NOT NULL,    -- JSON
	opened    INTEGER NOT NULL,
	deadline  INTEGER NOT NULL,
	max_calls INTEGER NOT NULL, -- 0: any number
	calls     INTEGER NOT NULL, -- made so far, those of the tasks below it too
	state     TEXT NOT NULL,
	closed    INTEGER NOT NULL, -- 0: not yet
	reason    TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tasks_agent ON tasks (agent, opened);
CREATE INDEX tasks_opener ON tasks (opener, opened) WHERE opener <> agent;
CREATE INDEX tasks_parent ON tasks (parent) WHERE parent <> '';
CREATE INDEX tasks_open ON tasks (agent) WHERE state = 'open';
CREATE INDEX tasks_open_for ON tasks (opener) WHERE state = 'open' AND opener <> agent;

-- What a task's calls of a class may come to, in ten-thousandths.
CREATE TABLE task_limits (
	task  TEXT NOT NULL,
	n     INTEGER NOT NULL,
	class TEXT NOT NULL,
	sum   TEXT NOT NULL,    -- a field; empty: the number of calls
	max   INTEGER NOT NULL CHECK (max >= 0),
	used  INTEGER NOT NULL CHECK (used BETWEEN 0 AND max),
	PRIMARY KEY (task, n)
) STRICT, WITHOUT ROWID;

-- Ids of client assertions, each until no assertion with it can be valid, and with
-- it the token that was issued on it, until that has expired. They are kept by
-- agent, so that what is taken from an agent can be listed without another index.
-- Those of before have no agent: an id is looked for among them, too, as long as
-- there are any.
ALTER TABLE assertions RENAME TO assertions_before;
DROP INDEX assertions_until;
CREATE TABLE assertions (
	agent    TEXT NOT NULL,
	id       BLOB NOT NULL,    -- SHA-256 of agent and id
	until    INTEGER NOT NULL, -- when assertion and token are both over
	token    TEXT NOT NULL,    -- empty: none
	instance TEXT NOT NULL DEFAULT '',
	task     TEXT NOT NULL,
	epoch    INTEGER NOT NULL, -- the token's
	expires  INTEGER NOT NULL, -- the token's
	PRIMARY KEY (agent, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX assertions_until ON assertions (until);
CREATE INDEX assertions_task ON assertions (task) WHERE task <> '';
INSERT INTO assertions (agent, id, until, token, instance, task, epoch, expires) SELECT '', id, until, '', '', '', 0, 0 FROM assertions_before;
DROP TABLE assertions_before;

-- What no token may use any more, each for as long as a token of before could be in
-- its time.
CREATE TABLE dead (
	kind   TEXT NOT NULL,
	id     TEXT NOT NULL,
	until  INTEGER NOT NULL,
	before INTEGER NOT NULL, -- tokens issued then or earlier; 0: all
	PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX dead_until ON dead (until);

-- People and resources from whom authority was taken, back in force or not.
CREATE TABLE standing (
	kind   TEXT NOT NULL,
	name   TEXT NOT NULL,
	status TEXT NOT NULL,
	before INTEGER NOT NULL, -- of a resource: tokens issued then or earlier are void, for ever
	PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

-- The key that an instance had before, and until when it is taken beside its own.
ALTER TABLE instances ADD COLUMN old_jkt TEXT NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN old_jwk TEXT NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN old_alg TEXT NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN old_until INTEGER NOT NULL DEFAULT 0;

-- Until when a key is taken that its instance had when it rotated; 0: no end.
ALTER TABLE keys ADD COLUMN until INTEGER NOT NULL DEFAULT 0;

CREATE INDEX codes_agent ON codes (agent);

-- How calls with an Idempotency-Key ended.
CREATE TABLE outcomes (
	entry  INTEGER PRIMARY KEY, -- index of the call.decided
	agent  TEXT NOT NULL,
	task   TEXT NOT NULL,
	key    TEXT NOT NULL,
	digest TEXT NOT NULL,
	at     INTEGER NOT NULL,
	done   INTEGER NOT NULL,    -- 1: it ended, and how is known
	result BLOB,
	UNIQUE (agent, task, key)
) STRICT;
CREATE INDEX outcomes_at ON outcomes (at);
CREATE INDEX outcomes_kept ON outcomes (agent) WHERE result IS NOT NULL;

-- Receivers of shared signals, and how far each has got.
CREATE TABLE streams (
	id     TEXT PRIMARY KEY,
	agent  TEXT NOT NULL UNIQUE,
	body   TEXT NOT NULL, -- JSON, without cursor and acked
	cursor INTEGER NOT NULL,
	acked  TEXT NOT NULL  -- JSON
) STRICT, WITHOUT ROWID;

-- Ids of shared signals that were received, each until no signal with it is taken
-- any more.
CREATE TABLE signals (
	transmitter TEXT NOT NULL,
	id          TEXT NOT NULL,
	until       INTEGER NOT NULL,
	PRIMARY KEY (transmitter, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX signals_until ON signals (until);
