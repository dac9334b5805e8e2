"""Interceptors inspect, change or drop messages between codec and router."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.logger import Logger

from kupool.wire.codec import Codec, Packable, with_crlf
from kupool.wire.packets import NumberedMessage
from kupool.wire.splitters import Item, Splitter, Tlv
from kupool.wire.wrapping import Wrapping

#: Gets an incoming message. Returns it, another message, or None to drop it.
IncomingInterceptor = Callable[[Item], Item | None]

#: Gets an outgoing message. Returns it or another message.
OutgoingInterceptor = Callable[[bytes | Tlv], bytes | Tlv]


class Intercepted:
    """Wraps a codec and passes its messages through interceptors.

    The ``decode`` interceptors are called in order with every incoming message, before any
    router gets it. The ``encode`` interceptors are called with every outgoing message,
    including the framework's own close messages. Size limits apply before ``decode`` and
    after ``encode``. If a ``decode`` interceptor raises, the error is logged and the
    connection is closed as malformed. If an ``encode`` interceptor raises, the sender gets
    the exception.
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
        #: See :class:`~kupool.wire.codec.Limited`.
        self.transparent = bool(getattr(codec, "transparent", True))
        self._codec = codec
        self._decode = tuple(decode)
        self._encode = tuple(encode)

    def with_crlf(self) -> Intercepted | None:
        """Return the same interceptors around the CR LF variant of the codec, if it has one."""
        twin = with_crlf(self._codec)
        if twin is None:
            return None
        return Intercepted(twin, decode=self._decode, encode=self._encode)

    def pack(self, message: Packable) -> bytes:
        """Return the encoded message, after the interceptors."""
        changed = message.item if isinstance(message, NumberedMessage) else message
        for interceptor in self._encode:
            changed = interceptor(changed)
        return self._codec.pack(changed)

    def splitter(self, max_payload: int) -> Splitter:
        """Return a splitter for one peer whose messages pass through the interceptors."""
        inner = self._codec.splitter(max_payload)
        return InterceptingSplitter(inner, self._decode, self._log) if self._decode else inner


class InterceptingSplitter(Wrapping):
    """Passes the messages of another splitter through interceptors."""

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
            except BaseException:  # SystemExit and KeyboardInterrupt too
                self._log.failure("An interceptor failed on an incoming message")
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
