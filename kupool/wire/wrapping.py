"""The base of splitters that process the messages of another splitter. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kupool.wire.splitters import Discarding, Item, Splitter


class Wrapping:
    """Returns the messages of another splitter as :meth:`_taken` changes them."""

    __slots__ = ("_inner", "corrupt")

    def __init__(self, inner: Splitter) -> None:
        self._inner = inner
        self.corrupt = False

    @property
    def max_payload(self) -> int:
        """The largest payload on the wire."""
        return self._inner.max_payload

    @max_payload.setter
    def max_payload(self, size: int) -> None:
        self._inner.max_payload = size

    @property
    def too_large(self) -> bool:
        """Whether the stream is refused."""
        return self.corrupt or self._inner.too_large

    @too_large.setter
    def too_large(self, refused: bool) -> None:
        self._inner.too_large = refused

    @property
    def on_crlf(self) -> Callable[[], object] | None:
        """The function to call if the first line ends with CR LF."""
        found: Callable[[], object] | None = getattr(self._inner, "on_crlf", None)
        return found

    @on_crlf.setter
    def on_crlf(self, call: Callable[[], object] | None) -> None:
        if hasattr(self._inner, "on_crlf"):
            self._inner.on_crlf = call

    @property
    def buffered(self) -> int:
        """Number of bytes held that do not make a message yet."""
        return int(getattr(self._inner, "buffered", 0))

    def feed(self, data: bytes) -> Sequence[Item]:
        """Take the next bytes and return the messages that they complete."""
        return self._seen(self._inner.feed(data))

    def resume(self) -> Sequence[Item]:
        """Continue after ``too_large``, unless the stream was given up."""
        return self._seen(self._inner.resume())

    def _seen(self, items: Sequence[Item]) -> list[Item]:
        self.corrupt = self.corrupt or self._inner.corrupt
        return self._taken(items)

    def _taken(self, items: Sequence[Item]) -> list[Item]:
        """Return the changed messages; may give up the stream."""
        raise NotImplementedError

    def _give_up(self) -> None:
        """Give up the stream: further bytes cannot be decoded."""
        self.corrupt = True
        self._inner = Discarding(self._inner.max_payload)


__all__ = ["Wrapping"]
