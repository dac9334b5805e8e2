"""Several commands of the server API in one request, whose answers have a limited size.

A command that changes something is never done and then answered with an error: it is refused before
it begins, or its answer is given. The answer of a command that only reads is dropped if it is too
large.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, DeferredLock, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime

from kupool.live.centrifuge.api_messages import ApiAnswer
from kupool.live.centrifuge.codes import LIMIT_EXCEEDED, CentrifugeError
from kupool.timing.chunks import Breaks

#: The methods whose answers may be large, and that change nothing.
_READING = frozenset({"history", "presence", "channels"})
#: Broadcasts would take their breaks in the same turn, and large answers be in memory together.
_ONE_BY_ONE = _READING | {"broadcast"}


class BatchRun:
    """Does the commands of one batch.

    ``answer`` does one command. ``refuse`` counts a refusal of a method, and returns the answer
    that tells it. The replies have about ``most`` bytes together.
    """

    def __init__(
        self,
        clock: IReactorTime,
        answer: Callable[[str, bytes], Coroutine[Any, Any, ApiAnswer]],
        refuse: Callable[[str, CentrifugeError], ApiAnswer],
        *,
        most: int,
    ) -> None:
        self._breaks = Breaks(clock)
        self._answer = answer
        self._refuse = refuse
        self._most = most
        self._left = most
        self._one_by_one = DeferredLock()

    async def replies(
        self, calls: Sequence[tuple[str, bytes]], *, parallel: bool
    ) -> Sequence[msgspec.Raw]:
        """Return the replies in the order of the calls, each a method and its request.

        The commands begin in this order; those of a ``parallel`` batch do not wait for the others.
        """
        begun: list[Deferred[msgspec.Raw]] = []
        for method, body in calls:
            await self._breaks.take()
            reply = self._reply(method, body)
            begun.append(Deferred.fromCoroutine(reply) if parallel else succeed(await reply))
        return await gatherResults(begun, consumeErrors=True)

    async def _reply(self, method: str, body: bytes) -> msgspec.Raw:
        if self._left <= 0:
            return _shown(method, self._refuse(method, self._too_large()))
        reply = _shown(method, await self._answered(method, body))
        size = len(bytes(reply))
        if size > self._left and method in _READING:
            reply = _shown(method, self._refuse(method, self._too_large()))
        self._left -= size
        return reply

    async def _answered(self, method: str, body: bytes) -> ApiAnswer:
        if method not in _ONE_BY_ONE:
            return await self._answer(method, body)
        answer: ApiAnswer = await self._one_by_one.run(
            lambda: Deferred.fromCoroutine(self._answer(method, body))
        )
        return answer

    def _too_large(self) -> CentrifugeError:
        text = (
            f"{LIMIT_EXCEEDED.message}: the answer to the batch would have more than {self._most} "
            "bytes: send the other commands in another one"
        )
        return LIMIT_EXCEEDED._replace(message=text)


def _shown(method: str, answer: ApiAnswer) -> msgspec.Raw:
    refused = answer.error is not msgspec.UNSET
    shown = {"error": answer.error} if refused else {method: answer.result}
    return msgspec.Raw(msgspec.json.encode(shown))


__all__ = ["BatchRun"]
