-- Topics, with their settings as JSON.
CREATE TABLE topics (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    settings TEXT NOT NULL,
    created_at INTEGER NOT NULL  -- milliseconds since the epoch
);

-- The partitions of topics. Offsets from low up to, but without, next are in the table of batches.
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY,  -- at most 2^20 - 1: the upper bits of the positions of its batches
    topic INTEGER NOT NULL REFERENCES topics (id),
    number INTEGER NOT NULL,
    low INTEGER NOT NULL DEFAULT 0,
    next INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    newest_at INTEGER NOT NULL DEFAULT 0,  -- milliseconds since the epoch; never goes back
    UNIQUE (topic, number)
);

-- Offsets that no record has, although later ones may have: a restore of a backup passes over those
-- that may have been used since. They go from first_offset up to, but without, end_offset.
CREATE TABLE offset_gaps (
    partition INTEGER NOT NULL REFERENCES partitions (id),
    first_offset INTEGER NOT NULL,
    end_offset INTEGER NOT NULL,
    PRIMARY KEY (partition, first_offset)
) WITHOUT ROWID;

-- Partitions of topics that were deleted, while their batches are being removed.
CREATE TABLE deleted_partitions (
    id INTEGER PRIMARY KEY
);

-- Batches of records. A position is the partition's id * 2^43 + the offset of the first record:
-- one key of one table keeps batches small and retention quick.
CREATE TABLE batches (
    position INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    appended_at INTEGER NOT NULL,  -- milliseconds since the epoch
    body BLOB NOT NULL
);

-- The newest batches of idempotent producers, so that a repeated one gets its first offset.
CREATE TABLE producer_batches (
    partition INTEGER NOT NULL REFERENCES partitions (id),
    producer TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    base INTEGER NOT NULL,
    PRIMARY KEY (partition, producer, sequence)
) WITHOUT ROWID;

-- The newest records of topics that drop repeated ones: their hashes, by partition and offset.
CREATE TABLE contents (
    partition INTEGER NOT NULL REFERENCES partitions (id),
    base INTEGER NOT NULL,
    appended_at INTEGER NOT NULL,  -- milliseconds since the epoch
    hash BLOB NOT NULL,
    PRIMARY KEY (partition, base)
) WITHOUT ROWID;

CREATE UNIQUE INDEX contents_hash ON contents (partition, hash);

-- Of topics that compact: the last batch of each key, by the hash of the key. A passing one is also
-- dropped when it is old. These tables name no partition that could be deleted before their rows.
CREATE TABLE newest_of_keys (
    partition INTEGER NOT NULL,
    hash BLOB NOT NULL,
    base INTEGER NOT NULL,
    passing INTEGER NOT NULL,
    PRIMARY KEY (partition, hash)
) WITHOUT ROWID;

CREATE INDEX newest_of_keys_base ON newest_of_keys (partition, passing, base);

-- The positions of batches that later ones have replaced, and that are not dropped yet.
CREATE TABLE replaced_batches (
    position INTEGER PRIMARY KEY
);

-- Batches that are appended later. Ids are never used twice, so that one cannot be cancelled
-- instead of another.
CREATE TABLE delayed_batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    due INTEGER NOT NULL,  -- milliseconds since the epoch
    partition INTEGER NOT NULL REFERENCES partitions (id),
    count INTEGER NOT NULL,
    body BLOB NOT NULL,
    hash BLOB,  -- of the key, in topics that compact; and whether it is passing
    passing INTEGER
);

CREATE INDEX delayed_batches_due ON delayed_batches (due);

-- Consumer groups. A generation is never used twice.
CREATE TABLE topic_groups (
    name TEXT PRIMARY KEY,
    generation INTEGER NOT NULL
) WITHOUT ROWID;

-- The offset that a group reads next in a partition.
CREATE TABLE group_positions (
    group_name TEXT NOT NULL,
    partition INTEGER NOT NULL REFERENCES partitions (id),
    next INTEGER NOT NULL,
    PRIMARY KEY (group_name, partition)
) WITHOUT ROWID;

-- Seconds that the retention clock has advanced while this file was open.
CREATE TABLE age_clock (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    seconds REAL NOT NULL
);

-- How old batches are: the newest position of a partition at a time of that clock.
CREATE TABLE ages (
    position INTEGER PRIMARY KEY,
    seconds REAL NOT NULL
);

-- Where the topics of this file were moved to; as the table of this name in a store.
CREATE TABLE migration (
    direction TEXT PRIMARY KEY,
    other TEXT NOT NULL,
    state TEXT NOT NULL,
    progress TEXT NOT NULL,
    changed_at INTEGER NOT NULL  -- seconds since the epoch
) WITHOUT ROWID;
