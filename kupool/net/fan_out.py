"""Publications on their way to many: in order, and a bounded part of them in each turn.

It is what every fan-out stands on: the channels of :mod:`kupool.live`, the broadcasts of a
:class:`~kupool.net.manager.ConnectionManager`, and whatever counts its work by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from typing import Generic, TypeVar

from twisted.logger import Logger

from kupool.session.publication import Publication, Recipient
from kupool.timing.chunks import CHUNK, ChunkQueue, Piece

#: Publications that may wait.
LIMIT = 1024

R = TypeVar("R", bound=Recipient)


def log_failed(recipient: object) -> None:
    """Log the exception that is handled: something could not be sent to somebody."""
    # Without the recipient: an event that is kept would keep it.
    Logger(__name__).failure("A publication could not be sent to a connection")


class FanOut(Generic[R]):
    """The publications of one source, at most ``limit`` of them on their way.

    Each reaches all of its recipients before the next one reaches any. There is no timer:
    while something is ``pending``, whoever holds it calls :meth:`run` with a budget, in turns
    to come. ``failed`` is called for a recipient that could not be sent something, while the
    exception is handled; by default it is logged. ``dropped`` counts what recipients did not
    get: they read slowly, a newer one took its place on the way, or too many waited.
    """

    __slots__ = ("_failed", "_latest", "_limit", "_queue", "dropped")

    def __init__(self, limit: int = LIMIT, *, failed: Callable[[R], object] = log_failed) -> None:
        self._limit = limit
        self._failed = failed
        self._queue: ChunkQueue[R] = ChunkQueue()
        #: By its key, what is on its way and may be replaced.
        self._latest: dict[str, Piece[R]] | None = None
        self.dropped = 0

    @property
    def pending(self) -> bool:
        """Whether something waits for :meth:`run`."""
        return self._queue.pending

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way, nor being sent at this moment."""
        return self._queue.idle

    def send(
        self,
        publication: Publication,
        recipients: Sequence[R],
        *,
        budget: int = CHUNK,
        newest: bool = False,
        where: Callable[[R], bool] | None = None,
        changed: Sized = (True,),
        done: Callable[[], object] | None = None,
    ) -> int:
        """Send something to those of this moment; the sequence must not change any more.

        If nothing else is on its way, up to ``budget`` of them get it at once. ``where`` is
        asked in the turn of each whether it is still to have it, unless ``changed`` is empty
        then. ``done`` is called when all have it, or when it is clear that no more of them will.

        With ``newest`` it takes the place of the last one of its key. Those that the last one
        has not come to never get that, and are the first to get this: however often there is
        a newer one, nobody waits for longer than it takes to reach all.

        Over the limit it is dropped, or, if it must not be, all that is on its way is sent
        first, in one long turn. Returns to how many it was sent at once.
        """
        if len(recipients) <= budget and self._queue.begin():
            try:
                self.dropped += publication.send_all(
                    recipients, where=where, changed=changed, failed=self._failed
                )
            finally:
                self._queue.end()
            if done is not None:
                done()
            return len(recipients)

        def work(part: Sequence[R]) -> None:
            self.dropped += publication.send_all(
                part, where=where, changed=changed, failed=self._failed
            )

        replaced = self._replaced(publication.key) if newest else None
        if replaced is not None:
            recipients = self._those_left_first(replaced, recipients)
            budget = 0  # this turn has had its part
        elif recipients and not self._has_room(publication):
            self.dropped += len(recipients)
            recipients = ()
        sent = 0
        if recipients:
            piece = self._piece(publication.key, recipients, work, done)
            if newest and publication.key is not None:
                self._latest = {} if self._latest is None else self._latest
                self._latest[publication.key] = piece
            sent = self._queue.add(piece, budget)
        elif done is not None:
            done()
        if replaced is not None:
            replaced.finish()
        return sent

    def _has_room(self, publication: Publication) -> bool:
        """Say whether one more may wait; room is made for what must not be dropped."""
        if len(self._queue) < self._limit:
            return True
        if not publication.droppable:
            self._queue.run_all()
        return not publication.droppable

    def _replaced(self, key: str | None) -> Piece[R] | None:
        """Take out what is on its way under a key; it goes no further."""
        if self._latest is None or key is None:
            return None
        piece = self._latest.get(key)
        if piece is not None:
            self._queue.withdraw(piece)
        return piece

    def _those_left_first(self, replaced: Piece[R], recipients: Sequence[R]) -> Sequence[R]:
        others = set(recipients)
        first = [each for each in replaced.cut() if each in others]
        self.dropped += len(first)
        others.difference_update(first)
        return [*first, *(each for each in recipients if each in others)]

    def run(self, budget: int) -> int:
        """Send what is on its way to up to ``budget`` recipients; returns how many it were."""
        return self._queue.run(budget)

    def _piece(
        self,
        key: str | None,
        recipients: Sequence[R],
        work: Callable[[Sequence[R]], object],
        done: Callable[[], object] | None,
    ) -> Piece[R]:
        def ended() -> None:
            if key is not None and self._latest is not None and self._latest.get(key) is piece:
                del self._latest[key]
                self._latest = self._latest or None
            if done is not None:
                done()

        piece = Piece(recipients, work, ended)
        return piece


__all__ = ["LIMIT", "FanOut", "log_failed"]
