"""Fan-out of publications to many recipients: in order, and a bounded part in each turn.

All fan-outs use it: the channels of :mod:`kupool.live` and the broadcasts of a
:class:`~kupool.net.manager.ConnectionManager`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from typing import Generic, TypeVar

from twisted.logger import Logger

from kupool.session.publication import Publication, Recipient
from kupool.timing.chunks import CHUNK, ChunkQueue, Piece

#: Most publications that may be pending.
LIMIT = 1024

R = TypeVar("R", bound=Recipient)


def log_failed(recipient: object) -> None:
    """Log the current exception: a publication could not be sent to a recipient."""
    # The recipient is left out: a stored log event would keep it alive.
    Logger(__name__).failure("A publication could not be sent to a connection")


class FanOut(Generic[R]):
    """The pending publications of one source, at most ``limit`` of them, and as many urgent ones.

    Each publication reaches all of its recipients before the next one reaches any. There is
    no timer: while ``pending`` is true, the owner calls :meth:`run` with a budget in later
    turns. ``failed`` is called for a recipient that raised, while the exception is handled;
    the default logs it.

    ``dropped`` counts messages that recipients did not get: they read slowly, a newer
    message replaced it, or too many were pending.
    """

    __slots__ = ("_failed", "_latest", "_limit", "_queue", "dropped")

    def __init__(self, limit: int = LIMIT, *, failed: Callable[[R], object] = log_failed) -> None:
        self._limit = limit
        self._failed = failed
        self._queue: ChunkQueue[R] = ChunkQueue()
        #: Pending publications that may be replaced, by key.
        self._latest: dict[str, Piece[R]] | None = None
        self.dropped = 0

    @property
    def pending(self) -> bool:
        """Whether something waits for :meth:`run`."""
        return self._queue.pending

    @property
    def idle(self) -> bool:
        """Whether nothing is pending or being sent now."""
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
        """Send something to recipients; the sequence must not change afterwards.

        If nothing else is pending, up to ``budget`` of them get it at once. ``where`` is
        asked in the turn of each recipient whether it still gets the publication, unless
        ``changed`` is empty then. ``done`` is called when all recipients have it, or when
        no more of them will get it.

        With ``newest`` it replaces the last publication of its key. Recipients that have
        not got the replaced one are the first to get this one. So no recipient waits longer
        than one full round, however often a newer one comes.

        Over the limit it is dropped. If it must not be dropped, everything that is pending
        is sent first, in one long turn. Returns the number of recipients that got it at
        once.
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
            budget = 0  # the budget of this turn is used up
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
        """Return whether one more may be pending; makes room for what must not be dropped."""
        limit = self._limit * 2 if publication.urgent else self._limit
        if len(self._queue) < limit:
            return True
        if not publication.droppable:
            self._queue.run_all()
        return not publication.droppable

    def _replaced(self, key: str | None) -> Piece[R] | None:
        """Remove the pending publication of a key; it is sent no further."""
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
        """Send pending publications to up to ``budget`` recipients; returns the number of sends."""
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
