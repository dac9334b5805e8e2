"""Old names of :mod:`kupool.net.workers.executor`; each use warns."""

from __future__ import annotations

from kupool.moved import moved_names

MOVED = {
    "BlockingCall": "kupool.net.workers.executor.BlockingCall",
    "Crew": "kupool.net.workers.executor.Executor",
    "Hand": "kupool.net.workers.executor.ExecutorWorker",
}

__getattr__ = moved_names(__name__, MOVED)
