-- The pool whose entries are in the spool.
CREATE TABLE IF NOT EXISTS pool_identity (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    pool_id TEXT NOT NULL
);
