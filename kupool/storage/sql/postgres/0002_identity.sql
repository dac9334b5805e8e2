-- The pool that the store belongs to. Counts of minutes before taken_over_before (seconds
-- since the epoch) were in the table before KuPool was: they are never compared with the
-- log, nor rewritten.
CREATE TABLE IF NOT EXISTS pool_identity (
    only_row INT PRIMARY KEY CHECK (only_row = 1),
    pool_id VARCHAR(64) NOT NULL,
    taken_over_before BIGINT NOT NULL DEFAULT 0
);

-- The epochs of the log that is counted here, oldest first, as the log has them.
CREATE TABLE IF NOT EXISTS log_epochs (
    number INT PRIMARY KEY,
    epoch VARCHAR(64) NOT NULL UNIQUE,
    begins_after BIGINT NOT NULL
);

-- Marks in the log: everything up to the newest is counted.
CREATE TABLE IF NOT EXISTS log_marks (
    position BIGINT PRIMARY KEY,
    entry_id VARCHAR(64) NOT NULL
);

-- Up to this position the ids of counted batches may have been forgotten.
CREATE TABLE IF NOT EXISTS log_forgotten (
    only_row INT PRIMARY KEY CHECK (only_row = 1),
    position BIGINT NOT NULL
);

-- Positions of the log that were lost before they were known to be counted.
CREATE TABLE IF NOT EXISTS log_gaps (
    first_position BIGINT PRIMARY KEY,
    last_position BIGINT NOT NULL,
    found_at BIGINT NOT NULL,  -- seconds since the epoch
    reason VARCHAR(255) NOT NULL
);

-- Where the batches of a minute are in the log: above one position, up to another. A log that
-- begins later does not hold the whole minute. -1: parts of the minute are in no log any more.
CREATE TABLE IF NOT EXISTS counted_minutes (
    minute BIGINT PRIMARY KEY,  -- seconds since the epoch
    after_position BIGINT NOT NULL,
    to_position BIGINT NOT NULL
);

-- Grows with each rebuild, so that two at once do not correct the same rows.
CREATE TABLE IF NOT EXISTS rebuilds (
    only_row INT PRIMARY KEY CHECK (only_row = 1),
    serial BIGINT NOT NULL
);

-- The clock that retention follows, in seconds since the epoch.
CREATE TABLE IF NOT EXISTS retention_clock (
    only_row INT PRIMARY KEY CHECK (only_row = 1),
    seconds DOUBLE PRECISION NOT NULL
);

-- Where a counted batch is in the log. With RabbitMQ, where a queue knows no positions of the
-- stream, it is the newest mark at the time: the batch itself is above it.
ALTER TABLE applied_batches ADD COLUMN IF NOT EXISTS position BIGINT;
CREATE INDEX IF NOT EXISTS applied_batches_by_position ON applied_batches (position);

-- A position that every submission of a job is above; and when the job was made, in seconds
-- since the boot of that id.
ALTER TABLE job_history ADD COLUMN IF NOT EXISTS log_position BIGINT;
ALTER TABLE job_history ADD COLUMN IF NOT EXISTS boot_id VARCHAR(64);
ALTER TABLE job_history ADD COLUMN IF NOT EXISTS boot_seconds DOUBLE PRECISION;

-- The daemon that writes here. Every write of a daemon checks that the term is its own.
CREATE TABLE IF NOT EXISTS owner (
    only_row INT PRIMARY KEY CHECK (only_row = 1),
    term BIGINT NOT NULL,
    host VARCHAR(255) NOT NULL,
    pid BIGINT NOT NULL,
    boot_id VARCHAR(64) NOT NULL,
    process_started DOUBLE PRECISION NOT NULL,  -- seconds since that boot
    since TIMESTAMP NOT NULL,
    released BOOLEAN NOT NULL  -- whether it ended in order, with its jobs saved
);

-- A move of the pool's data between engines: from where it came 'into' this store, where it
-- went 'away' to, and with which 'log' the store belongs since. No daemon starts on a store
-- with a move that is not done, nor on one whose data went away.
CREATE TABLE IF NOT EXISTS migration (
    direction VARCHAR(8) PRIMARY KEY,
    other TEXT NOT NULL,  -- the other side, as it is shown
    state VARCHAR(8) NOT NULL,  -- moving, moved or undone
    progress TEXT NOT NULL,  -- how far it has come, as JSON
    changed_at BIGINT NOT NULL  -- seconds since the epoch
);
