"""Batches of the server API: their order, how large the answer may be, and the time they take."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from kupool.live.centrifuge.api_batch import BatchRun
from kupool.live.centrifuge.api_messages import ApiAnswer, ApiRefusal
from kupool.live.centrifuge.codes import CentrifugeError
from kupool.timing.chunks import SHARE
from tests.fakes.peers import TurnClock

#: More than what is left of the answer in :class:`BatchRunTests`.
LARGE = "x" * 1000


class BatchRunTests(SynchronousTestCase):
    """Issue 17, build 3; W-74, W-87: what a batch does, and when it stops."""

    def setUp(self) -> None:
        self.clock = TurnClock()
        #: The methods in the order in which they began, and those that were refused.
        self.begun: list[str] = []
        self.refused: list[str] = []
        self.waits: dict[str, Deferred[None]] = {}
        self.seconds = 0.0

    async def do(self, method: str, body: bytes) -> ApiAnswer:
        self.begun.append(method)
        self.clock.advance(self.seconds)
        await self.waits.get(body.decode(), succeed(None))
        return ApiAnswer(body.decode())

    def refuse(self, method: str, error: CentrifugeError) -> ApiAnswer:
        self.refused.append(method)
        return ApiAnswer(error=ApiRefusal(error.code, error.message))

    def run_batch(self, *calls: tuple[str, str], parallel: bool = False) -> Deferred[Any]:
        batch = BatchRun(self.clock, self.do, self.refuse, most=500)
        given = [(method, body.encode()) for method, body in calls]
        done = Deferred.fromCoroutine(batch.replies(given, parallel=parallel))
        return done.addCallback(lambda replies: [json.loads(bytes(each)) for each in replies])

    def test_one_after_the_other(self) -> None:
        self.waits["1"] = Deferred()
        done = self.run_batch(("publish", "1"), ("info", "2"))
        self.assertEqual(self.begun, ["publish"])
        self.waits["1"].callback(None)
        self.assertEqual(self.successResultOf(done), [{"publish": "1"}, {"info": "2"}])

    def test_in_parallel(self) -> None:
        """The answers are in the order of the commands, whichever ends first."""
        self.waits["1"] = Deferred()
        done = self.run_batch(("publish", "1"), ("info", "2"), parallel=True)
        self.assertEqual(self.begun, ["publish", "info"])
        self.waits["1"].callback(None)
        self.assertEqual(self.successResultOf(done), [{"publish": "1"}, {"info": "2"}])

    def test_large_commands_in_parallel(self) -> None:
        """Together they would leave no time for others, or fill the memory."""
        for method in ("broadcast", "history", "presence", "channels"):
            self.begun, self.waits["1"] = [], Deferred()
            done = self.run_batch((method, "1"), (method, "2"), ("info", "3"), parallel=True)
            self.assertEqual(self.begun, [method, "info"])
            self.waits["1"].callback(None)
            self.assertEqual(len(self.successResultOf(done)), 3)

    def test_breaks(self) -> None:
        """W-87: nobody else waits for its end."""
        for parallel in (False, True):
            self.begun, self.seconds = [], SHARE
            done = self.run_batch(*[("info", "1")] * 3, parallel=parallel)
            for begun in (1, 2, 3):
                self.assertEqual(len(self.begun), begun)
                self.clock.turn()
            self.successResultOf(done)

    def test_an_answer_that_is_too_large(self) -> None:
        """What comes behind it is refused, and not done."""
        for parallel in (False, True):
            self.begun, self.refused = [], []
            calls = [("publish", "1"), ("history", LARGE), ("publish", "2")]
            first, *others = self.successResultOf(self.run_batch(*calls, parallel=parallel))
            self.assertEqual(first, {"publish": "1"})
            self.assertEqual([each["error"]["code"] for each in others], [106, 106])
            self.assertIn("500 bytes", others[0]["error"]["message"])
            self.assertEqual(self.begun, ["publish", "history"])
            self.assertEqual(self.refused, ["history", "publish"])

    def test_what_was_done_is_told(self) -> None:
        """However large the answer: after an error the application would do it again."""
        calls = [("broadcast", LARGE), ("broadcast", "2")]
        first, second = self.successResultOf(self.run_batch(*calls))
        self.assertEqual(first, {"broadcast": LARGE})
        self.assertEqual(second["error"]["code"], 106)
        self.assertEqual(self.refused, ["broadcast"])
