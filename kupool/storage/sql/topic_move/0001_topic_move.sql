-- A move of topics from one engine to another, in the data folder of the new one; as the table of
-- this name in a store.
CREATE TABLE migration (
    direction TEXT PRIMARY KEY,
    other TEXT NOT NULL,
    state TEXT NOT NULL,
    progress TEXT NOT NULL,
    changed_at INTEGER NOT NULL  -- seconds since the epoch
) WITHOUT ROWID;

-- Topics that are copied, and which topic of that name each is in the source.
CREATE TABLE copied_topics (
    topic TEXT PRIMARY KEY,
    identity TEXT NOT NULL
) WITHOUT ROWID;

-- How far each partition is copied, and how far the copy was read again. The offsets are those
-- that come next.
CREATE TABLE copied_partitions (
    topic TEXT NOT NULL,
    number INTEGER NOT NULL,
    source_next INTEGER NOT NULL,
    target_next INTEGER NOT NULL,
    batches INTEGER NOT NULL,
    records INTEGER NOT NULL,
    size INTEGER NOT NULL,
    checksum BLOB NOT NULL,
    read_next INTEGER NOT NULL,
    read_batches INTEGER NOT NULL,
    read_records INTEGER NOT NULL,
    read_size INTEGER NOT NULL,
    read_checksum BLOB NOT NULL,
    PRIMARY KEY (topic, number)
) WITHOUT ROWID;

-- Batches of which it is known where they are on both sides: the offsets of their first records.
CREATE TABLE copied_marks (
    topic TEXT NOT NULL,
    number INTEGER NOT NULL,
    source_base INTEGER NOT NULL,
    target_base INTEGER NOT NULL,
    PRIMARY KEY (topic, number, source_base)
) WITHOUT ROWID;
