"""A broker on a fake clock, with subscribers that note what they are given."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import BusSettings, Kind, Message, Model, Outcome
from kupool.bus.broker import Broker
from kupool.bus.calls import CallVerdict, Response, Taken
from kupool.bus.publishing import make_message

ANSWER = Response(CallVerdict.ANSWER, b"answer")
FAILED = Response(CallVerdict.FAILED, text="broken")
NOT_MINE = Response(CallVerdict.NOT_MINE)


class Sink:
    """A subscriber that notes what it is given, and takes it as it is told to."""

    def __init__(self, broker: Broker, name: str, *topics: str, taken: Any = Taken.YES) -> None:
        self.broker = broker
        self.name = name
        self.taken = taken
        self.messages: list[Message] = []
        self.numbers: list[int] = []
        broker.subscribe(name, topics or ("t",), self.deliver)

    def deliver(self, message: Message, number: int | None) -> Taken:
        if self.taken is Taken.YES:
            self.messages.append(message)
            if number is not None:
                self.numbers.append(number)
        return self.taken  # type: ignore[no-any-return]

    def answer(self, response: Response = ANSWER) -> None:
        """Answer the first that is not answered."""
        self.broker.answer(self.name, self.numbers.pop(0), response)


class BrokerCase(SynchronousTestCase):
    """A broker on a fake clock, and the outcomes of what was published."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.outcomes: list[Outcome] = []
        self.broker = self.make()

    def make(self, **limits: Any) -> Broker:
        return Broker(self.clock, BusSettings(**limits), wall=self.clock.seconds, random=Random(17))

    def publish(
        self,
        model: Model = Model.RELIABLE_RANDOM,
        topic: str = "t",
        data: bytes = b"",
        timeout: float = 3.0,
        done: Any = None,
    ) -> Any:
        broker = self.broker
        message = make_message(
            broker.settings, broker.message_id(), model, topic, data=data, timeout=timeout
        )
        return broker.publish(message, done or self.outcomes.append)

    @property
    def kinds(self) -> list[Kind]:
        return [outcome.kind for outcome in self.outcomes]
