-- Where the topics were moved to; as the table of this name in a store.
CREATE TABLE migration (
    direction TEXT PRIMARY KEY,
    other TEXT NOT NULL,
    state TEXT NOT NULL,
    progress TEXT NOT NULL,
    changed_at INTEGER NOT NULL  -- seconds since the epoch
) WITHOUT ROWID;
