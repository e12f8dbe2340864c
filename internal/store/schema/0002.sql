-- How an instance came to be: by a manifest that lists its key, or with a code.
-- Of the instances that are there already nobody wrote it down; they end when a
-- manifest no longer lists their key, as they did.
ALTER TABLE instances ADD COLUMN how TEXT NOT NULL DEFAULT 'manifest';
