"""What a client does after each close: the policy, its readers, and the wait."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import (
    BANNED,
    CLOSE_REASONS,
    GOING_DOWN,
    LONGEST_WAIT,
    RESTARTING,
    SLOW_READER,
    Announced,
    CloseReason,
    after_close,
    announced_by_text,
    close_text,
)
from kupool.net.dialling.backoff import SPREAD, Backoff
from kupool.wire.framing import FRAME, FRAMINGS, Framing
from kupool.wire.incoming import decode_incoming, read_close, read_websocket_close
from kupool.wire.messages import close_message
from kupool.wire.websocket import WEBSOCKET

KICKED = CloseReason(4900, "kicked", reconnect=False)


def heard(
    framing: Framing, reason: CloseReason, retry_after: float | None = None
) -> Announced | None:
    """Return the close that a client reads from what a server says."""
    data = close_message(framing, reason, retry_after)
    if framing is WEBSOCKET:
        return read_websocket_close(data[2:])
    item = framing.splitter(65536).feed(data)[0]
    return read_close(decode_incoming(item) if isinstance(item, bytes) else item)


class ReadingTests(SynchronousTestCase):
    """Issue 12: one place reads an announced close, in any framing."""

    def test_every_reason_in_every_framing(self) -> None:
        """Protocol 6: text alone says as much as code and text do."""
        for reason in CLOSE_REASONS:
            for framing in (*FRAMINGS.values(), WEBSOCKET):
                close = heard(framing, reason)
                assert close is not None
                self.assertEqual(close.reason, reason.reason)
                if framing is not WEBSOCKET or reason.code >= 4000:
                    self.assertEqual(close.code, reason.code, framing.name)

    def test_seconds_in_every_framing(self) -> None:
        """Protocol 6: ``banned: 60 s`` where there is nothing but the text."""
        self.assertEqual(close_message(FRAME, BANNED, 60)[5:], b"banned: 60 s")
        self.assertEqual(close_message(FRAME, SLOW_READER, 60)[5:], b"slow reader")
        for framing in FRAMINGS.values():
            close = heard(framing, BANNED, 60.0)
            assert close is not None
            self.assertEqual(close[:2], ("banned", 4503))
            self.assertEqual(close.retry_after, 60.0)
        # WebSocket has a code for its reason, and as ever no more than that.
        self.assertEqual(heard(WEBSOCKET, BANNED, 60.0), Announced("banned", 4503, False))
        self.assertEqual(close_text(BANNED, 0.2), "banned: 1 s")
        self.assertEqual(announced_by_text("banned: 60 s"), Announced("banned", 4503, False, 60.0))

    def test_a_reason_of_ones_own(self) -> None:
        """P-63: with ``reconnect`` false nobody comes back, in ``frame`` as elsewhere."""
        for framing in FRAMINGS.values():
            close = heard(framing, KICKED)
            self.assertEqual(close, Announced("kicked", 4900, False), framing.name)
            self.assertFalse(after_close(close).returns)

    def test_what_is_no_close(self) -> None:
        for message in (
            {"id": 1, "method": "close", "params": {"reason": "x"}},
            {"method": "close"},
            {"method": "close", "params": 7},
            {"method": "close", "params": {"retry_after": "x"}},
            {"method": "job", "params": {"reason": "x"}},
            {"id": 1, "result": True},
        ):
            self.assertIsNone(read_close(decode_incoming(json.dumps(message).encode())), message)

    @given(st.binary(max_size=60))
    def test_any_bytes(self, payload: bytes) -> None:
        """What a server says in its close never raises, and always has a text."""
        self.assertTrue(announced_by_text(payload.decode(errors="replace")).reason)
        self.assertTrue(read_websocket_close(payload).reason)


class PolicyTests(SynchronousTestCase):
    """Protocol 6, issue 12: the one function beside the table."""

    def test_the_table(self) -> None:
        for reason in CLOSE_REASONS:
            what = after_close(Announced(reason.reason, reason.code, reason.reconnect))
            self.assertEqual(what.returns, reason.reconnect, reason)
            self.assertEqual(what.at_once, reason.immediate, reason)
            self.assertEqual(what.elsewhere, reason is not RESTARTING, reason)
            self.assertEqual(what.wait, 0.0)

    def test_ranges(self) -> None:
        """The code counts more than what else is said; other codes are as 41xx."""
        for code, returns in ((4002, True), (4199, True), (4500, False), (4599, False)):
            self.assertIs(after_close(Announced("x", code, not returns)).returns, returns)
        for code in (None, 1000, 4200, 4600, 4900):
            self.assertEqual(after_close(Announced("x", code)), after_close(None))
            self.assertFalse(after_close(Announced("x", code, False)).returns)

    def test_seconds(self) -> None:
        """4503 after the seconds that it names, another 45xx never."""
        banned = Announced("banned", 4503, False)
        self.assertFalse(after_close(banned).returns)
        for asked, waited in ((60.0, 60.0), (0.0, 0.0), (1e300, LONGEST_WAIT)):
            what = after_close(banned._replace(retry_after=asked))
            self.assertEqual((what.returns, what.wait), (True, waited))
        self.assertFalse(after_close(banned._replace(retry_after=-1.0)).returns)
        self.assertFalse(after_close(Announced("x", 4501, False, 60.0)).returns)
        self.assertEqual(after_close(Announced("x", 4102, True, 5.0)).wait, 5.0)
        self.assertFalse(after_close(Announced("x", 4000, True, 5.0)).at_once)


def announced(reason: CloseReason) -> Announced:
    return announced_by_text(reason.reason)


class BackoffTests(SynchronousTestCase):
    """K-62, issue 12: how long a client stays away."""

    def backoff(self, places: int = 1, part: float = 1.0) -> Backoff:
        return Backoff(0.5, 30.0, steady=10.0, places=places, random=lambda: part)

    def test_doubles_up_to_the_most(self) -> None:
        """K-62: the ceiling of the wait doubles with each failure, up to the bound."""
        backoff = self.backoff()
        waits = [backoff.after(None) for _ in range(9)]
        self.assertEqual(waits, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0])

    def test_full_jitter(self) -> None:
        """K-62, P-63: the wait is a random part of the ceiling, from nothing on."""
        for part in (0.0, 0.25, 0.999):
            backoff = self.backoff(part=part)
            backoff.after(None)
            self.assertEqual(backoff.after(None), part * 1.0)

    def test_next_place_on_each_failure(self) -> None:
        """K-62: each failure leads to the next server, and a round doubles the wait."""
        backoff = self.backoff(places=3)
        seen = []
        for _ in range(7):
            seen.append((backoff.place, backoff.after(None)))
        self.assertEqual(
            seen, [(0, 0.5), (1, 0.5), (2, 0.5), (0, 1.0), (1, 1.0), (2, 1.0), (0, 2.0)]
        )

    def test_only_a_steady_session_starts_over(self) -> None:
        """Issue 12: 41xx with backoff that only a steady session resets."""
        for close in (None, announced(SLOW_READER)):
            backoff = self.backoff()
            for _ in range(5):
                backoff.after(close, 1.0)
            self.assertEqual(backoff.after(close, 9.9), 16.0)
            self.assertEqual(backoff.after(close, 10.0), 0.5)

    def test_at_once(self) -> None:
        """Issue 12: 4000 leads elsewhere, 4001 back, both at once with a small spread."""
        for reason, place in ((GOING_DOWN, 1), (RESTARTING, 0)):
            backoff = self.backoff(places=2, part=0.5)
            for _ in range(4):
                backoff.after(None)
            backoff.place = 0
            self.assertEqual(backoff.after(announced(reason), 60.0), 0.5 * SPREAD)
            self.assertEqual(backoff.place, place)

    def test_at_once_again_and_again(self) -> None:
        """Issue 12: with backoff when it repeats before a steady session."""
        for reason in (GOING_DOWN, RESTARTING):
            backoff = self.backoff()
            close = announced(reason)
            waits = [backoff.after(close, 0.1) for _ in range(6)]
            self.assertEqual(waits, [SPREAD, 0.5, 1.0, 2.0, 4.0, 8.0])
            self.assertEqual(backoff.after(close, 10.0), SPREAD)

    def test_never(self) -> None:
        self.assertIsNone(self.backoff().after(announced(BANNED), 60.0))

    def test_the_seconds_pass_first(self) -> None:
        """K-62: the time that the server names passes first, the jitter comes on top."""
        backoff = self.backoff(part=0.5)
        self.assertEqual(backoff.after(announced_by_text("banned: 60 s")), 60.25)

    @given(
        st.integers(1, 5),
        st.lists(
            st.tuples(
                st.sampled_from([None, *map(announced, CLOSE_REASONS)]),
                st.floats(0, 100),
                st.floats(0, 1, exclude_max=True),
            ),
            max_size=60,
        ),
    )
    def test_always_within_bounds(
        self, places: int, visits: list[tuple[Announced | None, float, float]]
    ) -> None:
        """K-62: whatever happens, the wait is from 0 to the most, the server on the list."""
        parts = iter([part for _, _, part in visits])
        backoff = Backoff(0.5, 30.0, steady=10.0, places=places, random=lambda: next(parts, 0.5))
        for close, stood, _ in visits:
            wait = backoff.after(close, stood)
            self.assertEqual(wait is None, not after_close(close).returns)
            self.assertTrue(wait is None or 0.0 <= wait <= 30.0)
            self.assertIn(backoff.place, range(places))
