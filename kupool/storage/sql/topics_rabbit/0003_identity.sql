-- Whose the streams of these topics are: the mark at the broker has this id.
CREATE TABLE log_identity (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    topics_id TEXT NOT NULL
);
