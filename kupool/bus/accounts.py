"""Counts, recent messages and traces of a bus. Pure."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

from kupool.bus.messages import Message
from kupool.bus.settings import BusSettings
from kupool.bus.status import Recent, Step, TopicStatus

#: Bytes of each recent message's data that are kept, and steps kept of each trace.
START = 64
MAX_STEPS = 100


#: The publisher's own id of the first message of a trace, and then the values of steps, one after
#: another, :data:`STEP` values for each step. Every message records steps, and few are asked for.
TraceValues = list[Any]
STEP = 4


class Note:
    """The record of a message, until the status of its topic is asked for."""

    __slots__ = ("at", "id", "model", "outcome", "size", "start")

    def __init__(self, at: float, message: Message) -> None:
        data = message.data
        self.at = at
        self.id = message.id
        self.model = message.model
        self.size = len(data)
        self.start = data[:START]
        self.outcome = ""

    def shown(self) -> Recent:
        """Return it as a status has it."""
        return Recent(self.id, self.at, self.model.value, self.size, self.start, self.outcome)


class TopicAccount:
    """The counts of a topic by event, and its recent messages."""

    __slots__ = ("counts", "recent")

    def __init__(self, recent: int) -> None:
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.recent: deque[Note] = deque(maxlen=recent)


class Accounts:
    """The accounts of the recently used topics, and of the whole bus.

    ``wall`` returns seconds since 1970.
    """

    def __init__(self, settings: BusSettings, wall: Callable[[], float]) -> None:
        self._settings = settings
        self._most_traces = settings.max_traces
        self._wall = wall
        self.counts: defaultdict[str, int] = defaultdict(int)
        self._topics: OrderedDict[str, TopicAccount] = OrderedDict()
        self._traces: OrderedDict[str, TraceValues] = OrderedDict()

    def published(self, message: Message, known_as: str = "") -> Note:
        """Record a new message; :meth:`ended` records its outcome.

        ``known_as`` is the publisher's own id of it: its trace is found by that id, too.
        """
        note = Note(self._wall(), message)
        account = self._account(message.topic)
        account.recent.append(note)
        account.counts["published"] += 1
        self.counts["published"] += 1
        self.step(message, "published", known_as=known_as)
        return note

    def ended(self, message: Message, note: Note, outcome: str) -> None:
        """Record the outcome of a message."""
        note.outcome = outcome
        self._account(message.topic).counts[outcome] += 1
        self.counts[outcome] += 1
        self.step(message, outcome)

    def happened(self, message: Message, what: str) -> None:
        """Count an event of a message's topic, and of the whole bus."""
        self._account(message.topic).counts[what] += 1
        self.counts[what] += 1

    def _account(self, topic: str) -> TopicAccount:
        topics = self._topics
        account = topics.get(topic)
        if account is None:
            account = topics[topic] = TopicAccount(self._settings.recent)
            while len(topics) > self._settings.max_topics:
                topics.popitem(last=False)
        else:
            topics.move_to_end(topic)
        return account

    def step(
        self, message: Message, event: str, subscriber: str = "", *, known_as: str = ""
    ) -> None:
        """Record a step of a message's trace."""
        trace_id, headers = message.id, message.headers
        if headers:
            trace_id = headers.get("trace-id") or trace_id
        traces = self._traces
        values = traces.get(trace_id)
        if values is None:
            traces[trace_id] = [known_as, self._wall(), message.id, event, subscriber]
            if len(traces) > self._most_traces:
                traces.popitem(last=False)
        elif len(values) < MAX_STEPS * STEP:
            values += self._wall(), message.id, event, subscriber

    def trace(self, trace_id: str) -> tuple[Step, ...]:
        """Return the recorded steps of a message, in order."""
        values = self._traces.get(trace_id) or self._trace_known_as(trace_id)
        return tuple(Step(*values[n : n + STEP]) for n in range(1, len(values), STEP))

    def _trace_known_as(self, known_as: str) -> TraceValues:
        """Return the newest trace of a message by its publisher's own id."""
        # A search: few traces are asked for, and an index would take its time for every message.
        for trace_id, values in reversed(self._traces.items()) if known_as else ():
            if values[0] == known_as and values[2] == trace_id:
                return values
        return []

    def shown(
        self, waiting: Callable[[str], int], buffered: Callable[[str], int]
    ) -> tuple[TopicStatus, ...]:
        """Return the accounts of all topics, the most recently used topic last."""
        return tuple(
            TopicStatus(
                topic,
                dict(account.counts),
                waiting(topic),
                buffered(topic),
                tuple(note.shown() for note in account.recent),
            )
            for topic, account in self._topics.items()
        )


__all__ = ["Accounts", "Note", "TopicAccount"]
