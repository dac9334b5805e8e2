-- Topics whose records are in streams of RabbitMQ, with their settings as JSON. A topic is ready,
-- making or deleting: while its streams are made or deleted.
CREATE TABLE log_topics (
    topic_key INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    settings TEXT NOT NULL,
    state TEXT NOT NULL,
    changed_at REAL NOT NULL  -- seconds since the epoch, by the clock of the database
);

-- Offsets below which nothing of a partition is read any more, though its stream may hold it.
CREATE TABLE log_lows (
    topic_key INTEGER NOT NULL REFERENCES log_topics (topic_key) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    low INTEGER NOT NULL,
    PRIMARY KEY (topic_key, number)
) WITHOUT ROWID;

-- The offset that a group reads next in a partition.
CREATE TABLE log_group_positions (
    group_name TEXT NOT NULL,
    topic_key INTEGER NOT NULL REFERENCES log_topics (topic_key) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    next INTEGER NOT NULL,
    PRIMARY KEY (group_name, topic_key, number)
) WITHOUT ROWID;

-- Consumer groups. A generation is never used twice.
CREATE TABLE log_groups (
    name TEXT PRIMARY KEY,
    generation INTEGER NOT NULL
) WITHOUT ROWID;

-- The node that leads a group; the term grows with each change. Unused in a file: it has one node.
CREATE TABLE log_group_leases (
    group_name TEXT PRIMARY KEY,
    node TEXT NOT NULL,
    address TEXT NOT NULL,
    term INTEGER NOT NULL,
    expires_at REAL NOT NULL  -- seconds since the epoch, by the clock of the database
) WITHOUT ROWID;

-- Batches that are published later. One that was claimed may be in its stream from claimed_from on.
CREATE TABLE log_delays (
    delay_id INTEGER PRIMARY KEY AUTOINCREMENT,
    due INTEGER NOT NULL,  -- milliseconds since the epoch
    topic_key INTEGER NOT NULL REFERENCES log_topics (topic_key) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    records INTEGER NOT NULL,
    body BLOB NOT NULL,
    claimed_from INTEGER,
    claimed_until REAL NOT NULL DEFAULT 0
);

CREATE INDEX log_delays_due ON log_delays (due);

-- Batches that are published once, by the name that says which: the mark of a producer, or the hash
-- of a content. One without a base may be in its stream from claimed_from on, as message_id.
CREATE TABLE log_once (
    topic_key INTEGER NOT NULL REFERENCES log_topics (topic_key) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    producer TEXT,
    sequence INTEGER,
    base INTEGER,
    message_id TEXT NOT NULL,
    appended_at INTEGER,  -- milliseconds since the epoch
    claimed_from INTEGER NOT NULL,
    claimed_until REAL NOT NULL,
    PRIMARY KEY (topic_key, number, name)
) WITHOUT ROWID;

CREATE INDEX log_once_producers ON log_once (topic_key, number, producer, sequence);
CREATE INDEX log_once_bases ON log_once (topic_key, number, base);
