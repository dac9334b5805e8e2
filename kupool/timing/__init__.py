"""When things happen: how often, in which turn of the reactor, at what time, after what else."""
