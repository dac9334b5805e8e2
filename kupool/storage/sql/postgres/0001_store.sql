-- Timestamps have no zone and are UTC, whatever the zone of server and session.

-- Accepted submissions of each user and UTC minute. Room is left in the pages: the same
-- rows are updated again and again for a minute.
CREATE TABLE IF NOT EXISTS submissions (
    username VARCHAR(255) NOT NULL,
    timestamp TIMESTAMP NOT NULL,
    submission_count INT NOT NULL,
    PRIMARY KEY (username, timestamp)
) WITH (fillfactor = 80);
CREATE INDEX IF NOT EXISTS submissions_by_time ON submissions (timestamp);

-- The same for each worker of a user: what follows the last dot of the name.
CREATE TABLE IF NOT EXISTS worker_submissions (
    username VARCHAR(255) NOT NULL,
    worker VARCHAR(255) NOT NULL,
    timestamp TIMESTAMP NOT NULL,
    submission_count INT NOT NULL,
    PRIMARY KEY (username, worker, timestamp)
) WITH (fillfactor = 80);
CREATE INDEX IF NOT EXISTS worker_submissions_by_time ON worker_submissions (timestamp);

-- Minutes past their retention, rolled up into hours, and these into days.
CREATE TABLE IF NOT EXISTS submissions_hour (
    username VARCHAR(255) NOT NULL,
    timestamp TIMESTAMP NOT NULL,
    submission_count BIGINT NOT NULL,
    PRIMARY KEY (username, timestamp)
);
CREATE INDEX IF NOT EXISTS submissions_hour_by_time ON submissions_hour (timestamp);
CREATE TABLE IF NOT EXISTS submissions_day (
    username VARCHAR(255) NOT NULL,
    timestamp TIMESTAMP NOT NULL,
    submission_count BIGINT NOT NULL,
    PRIMARY KEY (username, timestamp)
);
CREATE INDEX IF NOT EXISTS submissions_day_by_time ON submissions_day (timestamp);
CREATE TABLE IF NOT EXISTS worker_submissions_hour (
    username VARCHAR(255) NOT NULL,
    worker VARCHAR(255) NOT NULL,
    timestamp TIMESTAMP NOT NULL,
    submission_count BIGINT NOT NULL,
    PRIMARY KEY (username, worker, timestamp)
);
CREATE INDEX IF NOT EXISTS worker_submissions_hour_by_time ON worker_submissions_hour (timestamp);
CREATE TABLE IF NOT EXISTS worker_submissions_day (
    username VARCHAR(255) NOT NULL,
    worker VARCHAR(255) NOT NULL,
    timestamp TIMESTAMP NOT NULL,
    submission_count BIGINT NOT NULL,
    PRIMARY KEY (username, worker, timestamp)
);

-- Rejected submissions, by the code of the error they were answered with.
CREATE TABLE IF NOT EXISTS rejections (
    username VARCHAR(255) NOT NULL,
    code INT NOT NULL,
    timestamp TIMESTAMP NOT NULL,
    rejection_count BIGINT NOT NULL,
    PRIMARY KEY (username, code, timestamp)
) WITH (fillfactor = 80);
CREATE INDEX IF NOT EXISTS rejections_by_time ON rejections (timestamp);

-- The newest flush of rejections of each process: tells one whose commit was not answered
-- whether it was done.
CREATE TABLE IF NOT EXISTS rejection_flushes (
    process VARCHAR(64) PRIMARY KEY,
    serial BIGINT NOT NULL,
    flushed_at TIMESTAMP NOT NULL
);

-- Batches of the log that are in the counts above, so that each counts once.
CREATE TABLE IF NOT EXISTS applied_batches (
    batch_id VARCHAR(64) PRIMARY KEY,
    digest BYTEA NOT NULL,
    minute TIMESTAMP NOT NULL,
    applied_at TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')
);
CREATE INDEX IF NOT EXISTS applied_batches_by_minute ON applied_batches (minute);

-- Jobs that may still be submitted for, and the ids that may have been given out.
CREATE TABLE IF NOT EXISTS job_history (
    job_id BIGINT PRIMARY KEY,
    server_nonce VARCHAR(128) NOT NULL,
    created_at DOUBLE PRECISION NOT NULL  -- seconds since the epoch
);
CREATE TABLE IF NOT EXISTS job_ids (
    only_row INT PRIMARY KEY CHECK (only_row = 1),
    reserved_until BIGINT NOT NULL
);

-- Before this minute, rows have been rolled up.
CREATE TABLE IF NOT EXISTS rollups (
    grain VARCHAR(8) PRIMARY KEY,
    before TIMESTAMP NOT NULL
);
