-- The pool that the log belongs to.
CREATE TABLE IF NOT EXISTS identity (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    pool_id TEXT NOT NULL
);

-- The log's epochs, oldest first. A new one begins when the log is new or restored; the
-- positions of its entries are above begins_after.
CREATE TABLE IF NOT EXISTS epochs (
    number INTEGER PRIMARY KEY,
    epoch TEXT NOT NULL UNIQUE,
    begins_after INTEGER NOT NULL
);

-- Seconds that the retention clock has advanced while this log was open. Only these count for
-- the age of entries: the clock's own time is in the store, which may be another one tomorrow.
CREATE TABLE IF NOT EXISTS age_clock (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    seconds REAL NOT NULL
);

-- How old entries are: the newest position at a time of that clock.
CREATE TABLE IF NOT EXISTS ages (
    position INTEGER PRIMARY KEY,
    seconds REAL NOT NULL
);

-- The newest position that was dropped because of its age, or the size of the log.
CREATE TABLE IF NOT EXISTS trimmed (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    position INTEGER NOT NULL
);

-- What the release before has dropped.
INSERT OR IGNORE INTO trimmed (only_row, position)
SELECT 1, before FROM (SELECT min(position) - 1 AS before FROM entries) WHERE before > 0;
