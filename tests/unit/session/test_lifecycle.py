"""The table of a conversation's life, event by event."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.session.lifecycle import (
    CLOSED,
    CLOSING,
    CONNECTING,
    DRAINING,
    LINGERING,
    OPEN,
    PARTING,
    SENDING,
    TRANSITIONS,
    Event,
    State,
    after,
)


class TableTests(SynchronousTestCase):
    """Issue 12, point 1: one lifecycle table, used by both ends."""

    def test_every_state_and_event(self) -> None:
        expected = {
            CONNECTING: {"connected": OPEN, "abort": CLOSING, "lost": CLOSED},
            OPEN: {
                "peer finished": DRAINING, "close": PARTING, "end": CLOSING,
                "abort": CLOSING, "lost": CLOSED,
            },
            DRAINING: {"close": PARTING, "end": CLOSING, "abort": CLOSING, "lost": CLOSED},
            PARTING: {"end": CLOSING, "abort": CLOSING, "lost": CLOSED},
            CLOSING: {"flushed": LINGERING, "abort": CLOSING, "lost": CLOSED},
            LINGERING: {"abort": CLOSING, "lost": CLOSED},
            CLOSED: {},
        }  # fmt: skip
        for state in State:
            for event in Event:
                self.assertIs(after(state, event), expected[state].get(event.value))

    def test_names(self) -> None:
        """As the table of the documentation has them."""
        names = ("connecting", "open", "draining", "parting", "closing", "lingering", "closed")
        self.assertEqual(tuple(State), names)

    def test_every_state_can_be_reached_and_left(self) -> None:
        reached = {to for row in TRANSITIONS.values() for to in row.values()}
        self.assertEqual(reached | {CONNECTING}, set(State))
        for state in set(State) - {CLOSED}:
            self.assertIs(after(state, Event.LOST), CLOSED)

    def test_nothing_is_sent_before_it_stands_or_after_the_last_word(self) -> None:
        self.assertEqual(SENDING, {OPEN, DRAINING, PARTING})
