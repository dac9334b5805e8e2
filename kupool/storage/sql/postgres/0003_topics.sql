-- Topics whose records are in streams of RabbitMQ, with their settings as JSON. A topic is ready,
-- making or deleting: while its streams are made or deleted.
CREATE TABLE IF NOT EXISTS log_topics (
    topic_key BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    settings TEXT NOT NULL,
    state TEXT NOT NULL,
    changed_at DOUBLE PRECISION NOT NULL  -- seconds since the epoch, by the clock of the database
);

-- Offsets below which nothing of a partition is read any more, though its stream may hold it.
CREATE TABLE IF NOT EXISTS log_lows (
    topic_key BIGINT NOT NULL REFERENCES log_topics (topic_key) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    low BIGINT NOT NULL,
    PRIMARY KEY (topic_key, number)
);

-- The offset that a group reads next in a partition.
CREATE TABLE IF NOT EXISTS log_group_positions (
    group_name TEXT NOT NULL,
    topic_key BIGINT NOT NULL REFERENCES log_topics (topic_key) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    next BIGINT NOT NULL,
    PRIMARY KEY (group_name, topic_key, number)
);

-- Consumer groups. A generation is never used twice.
CREATE TABLE IF NOT EXISTS log_groups (
    name TEXT PRIMARY KEY,
    generation BIGINT NOT NULL
);

-- The node that leads a group; the term grows with each change.
CREATE TABLE IF NOT EXISTS log_group_leases (
    group_name TEXT PRIMARY KEY,
    node TEXT NOT NULL,
    address TEXT NOT NULL,
    term BIGINT NOT NULL,
    expires_at DOUBLE PRECISION NOT NULL  -- seconds since the epoch, by the clock of the database
);

-- Batches that are published later. One that was claimed may be in its stream from claimed_from on.
CREATE TABLE IF NOT EXISTS log_delays (
    delay_id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    due BIGINT NOT NULL,  -- milliseconds since the epoch
    topic_key BIGINT NOT NULL REFERENCES log_topics (topic_key) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    records BIGINT NOT NULL,
    body BYTEA NOT NULL,
    claimed_from BIGINT,
    claimed_until DOUBLE PRECISION NOT NULL DEFAULT 0
);

CREATE INDEX IF NOT EXISTS log_delays_due ON log_delays (due);

-- Batches that are published once, by the name that says which: the mark of a producer, or the hash
-- of a content. One without a base may be in its stream from claimed_from on, as message_id.
CREATE TABLE IF NOT EXISTS log_once (
    topic_key BIGINT NOT NULL REFERENCES log_topics (topic_key) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    name TEXT NOT NULL,
    producer TEXT,
    sequence BIGINT,
    base BIGINT,
    message_id TEXT NOT NULL,
    appended_at BIGINT,  -- milliseconds since the epoch
    claimed_from BIGINT NOT NULL,
    claimed_until DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (topic_key, number, name)
);

CREATE INDEX IF NOT EXISTS log_once_producers ON log_once (topic_key, number, producer, sequence);
CREATE INDEX IF NOT EXISTS log_once_bases ON log_once (topic_key, number, base);
