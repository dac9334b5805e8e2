-- The submission log. Positions are never used twice: the newest entry always stays.
CREATE TABLE IF NOT EXISTS entries (
    position INTEGER PRIMARY KEY,
    entry_id TEXT NOT NULL,
    appended_at INTEGER NOT NULL,  -- milliseconds since the epoch
    body BLOB NOT NULL
);

-- How far each consumer group has processed the log.
CREATE TABLE IF NOT EXISTS consumer_groups (
    name TEXT PRIMARY KEY,
    position INTEGER NOT NULL
);

-- What a consumer could not process, with the reason.
CREATE TABLE IF NOT EXISTS dead_letters (
    id INTEGER PRIMARY KEY,
    consumer_group TEXT NOT NULL,
    position INTEGER NOT NULL,
    entry_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    deliveries INTEGER NOT NULL,
    failed_at INTEGER NOT NULL,  -- milliseconds since the epoch
    body BLOB NOT NULL
);
