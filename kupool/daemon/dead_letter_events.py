"""The daemon's events about dead letters of topics."""

from __future__ import annotations

from kupool.daemon.events import DEAD_LETTER, LONGEST
from kupool.topics.dead_letters import DeadRecord
from kupool.topics.events import EVENTS, EventWriter


class DeadLetterEvents:
    """Writes each record that a group gave up: where it was, why, and where it is."""

    def __init__(self, writer: EventWriter) -> None:
        self._writer = writer

    def told(self, letter: DeadRecord) -> None:
        """Take a new dead letter.

        Those of the events themselves are no events: a group that gives up each would get another
        one for it, without an end.
        """
        if letter.source.topic == EVENTS:
            return
        event = {
            "topic": letter.source.topic,
            "partition": letter.source.number,
            "offset": letter.source_offset,
            "group": letter.group,
            "reason": letter.reason[:LONGEST],
            "attempts": letter.attempts,
            "letter": f"{letter.partition}/{letter.offset}",
        }
        self._writer.tell(DEAD_LETTER, event, letter.group)


__all__ = ["DeadLetterEvents"]
