"""The bus in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from random import Random

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from kupool.bus.broker import Broker
from kupool.bus.calls import Response, Taken
from kupool.bus.inbox import Inbox
from kupool.bus.interfaces import IBus, Subscription
from kupool.bus.members import MembersTold
from kupool.bus.messages import Handler, Message, Model, Outcome, Topic
from kupool.bus.models import Models
from kupool.bus.publishing import checked_keys, make_message
from kupool.bus.settings import BusSettings
from kupool.bus.status import BusStatus, Step
from kupool.bus.topics import topic_name


@implementer(IBus)
class LocalBus(Models):
    """A bus for the handlers of this process, and for other users of its ``broker``.

    ``wall`` returns seconds since 1970. Handlers run in reactor turns of their own, never during a
    publish. By default the bus makes a ``broker`` of its own. ``name`` is the prefix of the ids of
    its subscribers.
    """

    def __init__(
        self,
        clock: IReactorTime,
        settings: BusSettings | None = None,
        *,
        wall: Callable[[], float],
        random: Random | None = None,
        broker: Broker | None = None,
        name: str = "local",
    ) -> None:
        self.broker = broker or Broker(clock, settings, wall=wall, random=random)
        self._name = name
        self._clock = clock
        self._handlers: dict[Handler, tuple[str, Inbox]] = {}
        self._watches: dict[MembersTold, dict[str, Callable[[], None]]] = {}
        self._next_id = 0

    def publish(
        self,
        model: Model,
        data: bytes,
        topic: Topic,
        *,
        timeout: float | None = None,
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Deferred[Outcome]:
        """Publish by a model with that model's arguments, as the method of the model's name
        does.
        """
        broker = self.broker
        message = make_message(
            broker.settings,
            broker.message_id(),
            model,
            topic,
            data=data,
            timeout=timeout,
            key=key,
            headers=headers,
        )
        outcome: Deferred[Outcome] = Deferred(lambda _: forget())
        forget = broker.publish(message, outcome.callback)
        return outcome

    def subscribe(
        self, topics: Iterable[Topic], handler: Handler, *, keys: Iterable[str] = ()
    ) -> Deferred[Subscription]:
        """Subscribe a handler to topics."""
        subscriber_id, inbox = self._handlers.get(handler, ("", None))
        if inbox is None:
            self._next_id += 1
            subscriber_id = f"{self._name}/{self._next_id}"
            inbox = Inbox(self._clock, self.broker.settings, handler)
        found = self.broker.subscribe(
            subscriber_id,
            topics_of(topics),
            self._deliver(subscriber_id, inbox),
            checked_keys(keys),
        )
        self._handlers[handler] = subscriber_id, inbox
        return succeed(Subscription(subscriber_id, found))

    def _deliver(self, subscriber_id: str, inbox: Inbox) -> Callable[[Message, int | None], Taken]:
        answer = self.broker.answer

        def deliver(message: Message, number: int | None) -> Taken:
            if number is None:
                return inbox.put(message, None)
            respond: Callable[[Response], object] = partial(answer, subscriber_id, number)
            return inbox.put(message, respond)

        return deliver

    def unsubscribe(
        self, handler: Handler, topics: Iterable[Topic] | None = None
    ) -> Deferred[None]:
        """End the subscription of a handler to some topics, by default to all."""
        subscriber_id, inbox = self._handlers.get(handler, ("", None))
        if inbox is not None:
            left = self.broker.unsubscribe(
                subscriber_id, None if topics is None else topics_of(topics)
            )
            if not left:
                del self._handlers[handler]
        return succeed(None)

    def watch(self, topic: Topic, told: MembersTold) -> Deferred[None]:
        """Report the subscribers of a topic to ``told``, now and at every change."""
        name = topic_name(topic)
        watches = self._watches.setdefault(told, {})
        if name not in watches:
            watches[name] = self.broker.watches.watch(name, told)
        return succeed(None)

    def unwatch(self, told: MembersTold) -> Deferred[None]:
        """End all watches of ``told``."""
        for end in self._watches.pop(told, {}).values():
            end()
        return succeed(None)

    def status(self) -> Deferred[BusStatus]:
        """Return topics, subscribers and counts."""
        return succeed(self.broker.status())

    def trace(self, message_id: str) -> Deferred[tuple[Step, ...]]:
        """Return the trace of a recent message."""
        return succeed(self.broker.trace(message_id))

    def close(self) -> Deferred[None]:
        """End all subscriptions and refuse every open call."""
        self.broker.close()
        handlers, self._handlers = self._handlers, {}
        for _, inbox in handlers.values():
            inbox.close()
        return succeed(None)


def topics_of(topics: Iterable[Topic]) -> tuple[Topic, ...]:
    """Return topics as a tuple; raises :class:`ValueError` for one topic alone."""
    if isinstance(topics, str | int):
        raise ValueError(f"topics: expected a list, not {topics!r}")
    return tuple(topics)


__all__ = ["LocalBus", "topics_of"]
