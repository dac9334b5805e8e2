"""Interceptors: what looks at, changes or drops messages between codec and router."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.logger import Logger

from kupool.wire.codec import Codec, Packable, with_crlf
from kupool.wire.packets import NumberedMessage
from kupool.wire.splitters import Item, Splitter, Tlv
from kupool.wire.wrapping import Wrapping

#: Gets a message that came in, and returns it, another one, or None to drop it.
IncomingInterceptor = Callable[[Item], Item | None]

#: Gets a message that is to go out, and returns it or another one.
OutgoingInterceptor = Callable[[bytes | Tlv], bytes | Tlv]


class Intercepted:
    """A codec whose messages pass through interceptors.

    ``decode`` are called in order with every message that comes in, before any router
    sees it; ``encode`` with every message that goes out, closes of the framework
    included. Sizes are limited before ``decode`` and after ``encode``. An interceptor of
    incoming messages that raises ends its connection as malformed, and is logged; one
    of outgoing messages raises to whoever sends.
    """

    _log = Logger()

    def __init__(
        self,
        codec: Codec,
        *,
        decode: Iterable[IncomingInterceptor] = (),
        encode: Iterable[OutgoingInterceptor] = (),
    ) -> None:
        self.name = f"{codec.name}-intercepted"
        self.max_payload = codec.max_payload
        #: As :class:`~kupool.wire.codec.Limited` has it.
        self.transparent = bool(getattr(codec, "transparent", True))
        self._codec = codec
        self._decode = tuple(decode)
        self._encode = tuple(encode)

    def with_crlf(self) -> Intercepted | None:
        """Return the same around the codec for a peer that ends its lines with CR LF."""
        twin = with_crlf(self._codec)
        if twin is None:
            return None
        return Intercepted(twin, decode=self._decode, encode=self._encode)

    def pack(self, message: Packable) -> bytes:
        """Return the bytes of one message, as the codec packs what the interceptors made."""
        changed = message.item if isinstance(message, NumberedMessage) else message
        for interceptor in self._encode:
            changed = interceptor(changed)
        return self._codec.pack(changed)

    def splitter(self, max_payload: int) -> Splitter:
        """Return what cuts the bytes of one peer, and gives its messages to the interceptors."""
        inner = self._codec.splitter(max_payload)
        return InterceptingSplitter(inner, self._decode, self._log) if self._decode else inner


class InterceptingSplitter(Wrapping):
    """Hands out what interceptors make of the messages of another splitter."""

    __slots__ = ("_decode", "_log")

    def __init__(self, inner: Splitter, decode: Sequence[IncomingInterceptor], log: Logger) -> None:
        super().__init__(inner)
        self._decode = decode
        self._log = log

    def _taken(self, items: Sequence[Item]) -> list[Item]:
        out: list[Item] = []
        for item in items:
            try:
                changed = self._passed(item)
            except BaseException:  # one that wants the process to exit, too
                self._log.failure("An interceptor could not take a message")
                self._give_up()
                return out
            if changed is not None:
                out.append(changed)
        return out

    def _passed(self, item: Item) -> Item | None:
        for interceptor in self._decode:
            changed = interceptor(item)
            if changed is None:
                return None
            item = changed
        return item


__all__ = ["IncomingInterceptor", "Intercepted", "OutgoingInterceptor"]
