-- Entries that are durable here and not yet known to be in the log behind the spool.
-- A position is never used twice: who reads on from one must not pass anything over.
CREATE TABLE IF NOT EXISTS spooled (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    entry_id TEXT NOT NULL,
    appended_at INTEGER NOT NULL,  -- milliseconds since the epoch
    body BLOB NOT NULL
);
