-- When somebody else's use of an instance's key was last recorded with nothing
-- that follows, or the instance was released. 0: never.
ALTER TABLE instances ADD COLUMN shown INTEGER NOT NULL DEFAULT 0;
