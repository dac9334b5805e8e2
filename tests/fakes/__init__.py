"""Stand-ins in memory, on a fake clock: peers, logs, brokers, whole pools."""
