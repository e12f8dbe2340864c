-- Credentials of upstreams, each sealed under the key-encryption key and its name.
CREATE TABLE credentials (
	name   TEXT PRIMARY KEY,
	sealed BLOB NOT NULL,
	stored INTEGER NOT NULL,
	actor  TEXT NOT NULL
) STRICT, WITHOUT ROWID;
