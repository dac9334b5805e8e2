-- Rejected submissions of each worker, beside those of the user.
CREATE TABLE IF NOT EXISTS worker_rejections (
    username VARCHAR(255) NOT NULL,
    worker VARCHAR(255) NOT NULL,
    code INT NOT NULL,
    timestamp TIMESTAMP NOT NULL,
    rejection_count INT NOT NULL,
    PRIMARY KEY (username, worker, code, timestamp)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS worker_rejections_by_time ON worker_rejections (timestamp);

-- What each user and each worker did on a UTC day. A roll-up does not change it, so that what
-- many workers did in months is read from few rows. An empty worker is what a user submitted
-- without one. last_minute is the newest with an accepted submission.
CREATE TABLE IF NOT EXISTS daily_users (
    day TIMESTAMP NOT NULL,
    username VARCHAR(255) NOT NULL,
    accepted INT NOT NULL,
    rejected INT NOT NULL,
    last_minute TIMESTAMP,
    PRIMARY KEY (day, username)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS daily_workers (
    day TIMESTAMP NOT NULL,
    username VARCHAR(255) NOT NULL,
    worker VARCHAR(255) NOT NULL,
    accepted INT NOT NULL,
    rejected INT NOT NULL,
    last_minute TIMESTAMP,
    PRIMARY KEY (day, username, worker)
) WITHOUT ROWID;

-- Hours are read by time as well.
CREATE INDEX IF NOT EXISTS submissions_hour_by_time ON submissions_hour (timestamp);
CREATE INDEX IF NOT EXISTS worker_submissions_hour_by_time
    ON worker_submissions_hour (timestamp);

-- The days of what is counted already; done again after tables were dropped.
UPDATE daily_users SET accepted = 0;
INSERT INTO daily_users (day, username, accepted, rejected, last_minute)
SELECT strftime('%Y-%m-%d 00:00:00', timestamp) AS at, username, sum(submission_count), 0,
    max(strftime('%Y-%m-%d %H:%M:%S', timestamp))
FROM (
    SELECT username, timestamp, submission_count FROM submissions
    UNION ALL SELECT username, timestamp, submission_count FROM submissions_hour
    UNION ALL SELECT username, timestamp, submission_count FROM submissions_day
) AS counts
WHERE strftime('%Y-%m-%d 00:00:00', timestamp) IS NOT NULL GROUP BY at, username
ON CONFLICT (day, username) DO UPDATE SET accepted = excluded.accepted;
UPDATE daily_workers SET accepted = 0;
INSERT INTO daily_workers (day, username, worker, accepted, rejected, last_minute)
SELECT strftime('%Y-%m-%d 00:00:00', timestamp) AS at, username, worker, sum(submission_count), 0,
    max(strftime('%Y-%m-%d %H:%M:%S', timestamp))
FROM (
    SELECT username, worker, timestamp, submission_count FROM worker_submissions
    UNION ALL SELECT username, worker, timestamp, submission_count FROM worker_submissions_hour
    UNION ALL SELECT username, worker, timestamp, submission_count FROM worker_submissions_day
) AS counts
WHERE strftime('%Y-%m-%d 00:00:00', timestamp) IS NOT NULL GROUP BY at, username, worker
ON CONFLICT (day, username, worker) DO UPDATE SET accepted = excluded.accepted;
INSERT INTO daily_workers (day, username, worker, accepted, rejected, last_minute)
SELECT day, username, '', sum(accepted), 0, max(last_minute)
FROM (
    SELECT day, username, accepted, last_minute FROM daily_users
    UNION ALL SELECT day, username, -accepted, NULL FROM daily_workers
) AS counts
WHERE true GROUP BY day, username HAVING sum(accepted) > 0
ON CONFLICT (day, username, worker) DO UPDATE SET accepted = excluded.accepted;
INSERT INTO daily_users (day, username, accepted, rejected, last_minute)
SELECT strftime('%Y-%m-%d 00:00:00', timestamp) AS at, username, 0, sum(rejection_count), NULL
FROM rejections
WHERE username <> '' AND strftime('%Y-%m-%d 00:00:00', timestamp) IS NOT NULL
GROUP BY at, username
ON CONFLICT (day, username) DO UPDATE SET rejected = max(rejected, excluded.rejected);
DELETE FROM daily_users WHERE accepted = 0 AND rejected = 0;
DELETE FROM daily_workers WHERE accepted = 0 AND rejected = 0;

-- Before this, hours have been rolled up into days.
INSERT INTO rollups (grain, before)
SELECT 'hour', before
FROM (SELECT datetime(max(timestamp), '+1 day') AS before FROM submissions_day) AS days
WHERE before IS NOT NULL
ON CONFLICT (grain) DO NOTHING;
