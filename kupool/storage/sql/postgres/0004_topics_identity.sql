-- Whose the streams of the topics in RabbitMQ are: the mark at the broker has this id.
CREATE TABLE IF NOT EXISTS log_identity (
    only_row INT PRIMARY KEY CHECK (only_row = 1),
    topics_id VARCHAR(64) NOT NULL
);
