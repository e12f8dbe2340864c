-- When an instance's key was last taken for cloned, or released from that: what
-- was seen before counts no more. 0: never.
ALTER TABLE instances ADD COLUMN suspected INTEGER NOT NULL DEFAULT 0;
