-- What clients asked, by minute; see kupool/activity/requests.py. Times are in seconds since the epoch.
CREATE TABLE request_minutes (
    minute INTEGER PRIMARY KEY,
    counts TEXT NOT NULL
);
