"""The message bus: topics, four delivery models, and exactly one outcome for every publish.

A publisher knows a topic, not its subscribers. The same interface exists in one process
(:class:`LocalBus`), over a connection to a server (:class:`RemoteBus`) and across nodes on RabbitMQ
(:class:`RabbitBus`). The latter two are imported at first use, because they need more than Twisted
and the standard library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kupool.bus.channels import Channels, ChannelSettings
from kupool.bus.interfaces import IBus, Subscription
from kupool.bus.local import LocalBus
from kupool.bus.members import SILENCE, MembersTold, TopicMember
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
from kupool.bus.permissions import Permissions, Rule, parse_rule
from kupool.bus.settings import BusSettings, PeerLimits
from kupool.bus.status import BusStatus, Recent, Step, SubscriberStatus, TopicStatus

if TYPE_CHECKING:
    from kupool.bus.rabbit.bus import RabbitBus
    from kupool.bus.remote.client import RemoteBus

#: The modules of the classes that are imported at first use.
_FORMS = {"RabbitBus": "kupool.bus.rabbit.bus", "RemoteBus": "kupool.bus.remote.client"}

__all__ = [
    "SILENCE",
    "Answer",
    "BusError",
    "BusSettings",
    "BusStatus",
    "ChannelSettings",
    "Channels",
    "Handler",
    "IBus",
    "Kind",
    "LocalBus",
    "MembersTold",
    "Message",
    "Model",
    "NotMine",
    "Outcome",
    "PeerLimits",
    "Permissions",
    "RabbitBus",
    "Recent",
    "Refusal",
    "RemoteBus",
    "Rule",
    "Step",
    "SubscriberStatus",
    "Subscription",
    "Topic",
    "TopicMember",
    "TopicStatus",
    "parse_rule",
]


def __getattr__(name: str) -> Any:
    if name not in _FORMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_FORMS[name]), name)
