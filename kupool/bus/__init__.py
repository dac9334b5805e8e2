"""The message bus: topics, four delivery models, one outcome for every publish.

Publishers know a topic and nothing of who listens. The same interface is there in one
process (:mod:`kupool.bus.local`) and over a network (:mod:`kupool.bus.remote`). Only the
latter imports more than the standard library and Twisted.
"""

from __future__ import annotations

from kupool.bus.interfaces import IBus, Subscription
from kupool.bus.messages import (
    Answer,
    BusError,
    Handler,
    Kind,
    Message,
    Model,
    NotMine,
    Outcome,
    Refusal,
    Topic,
)
from kupool.bus.settings import BusSettings
from kupool.bus.status import BusStatus, Recent, Step, SubscriberStatus, TopicStatus

__all__ = [
    "Answer",
    "BusError",
    "BusSettings",
    "BusStatus",
    "Handler",
    "IBus",
    "Kind",
    "Message",
    "Model",
    "NotMine",
    "Outcome",
    "Recent",
    "Refusal",
    "Step",
    "SubscriberStatus",
    "Subscription",
    "Topic",
    "TopicStatus",
]
