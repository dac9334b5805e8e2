"""Worker pools (queues in front of handlers), and threads and processes for blocking calls."""
