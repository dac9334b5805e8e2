"""Encoding of messages and answers between a connection's host and a room's host."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from kupool.net.routing.request import Request
from kupool.net.routing.router import Router
from kupool.wire.messages import encode_request, request_decoder, request_type


class Packing(Protocol):
    """Encodes the messages that a router passes to a lobby, and the answers of rooms.

    ``unpack`` and the functions that it calls may raise :class:`ValueError`.
    """

    def pack(self, body: Any) -> bytes:
        """Return a message as bytes."""

    def unpack(self, data: bytes) -> Any:
        """Return the message."""

    def pack_result(self, result: Any) -> bytes:
        """Return an answer as bytes."""

    def unpack_result(self, data: bytes) -> Any:
        """Return the answer in the form that the connection's router takes."""


class BytesPacking:
    """For messages of bytes, with answers of bytes or None."""

    def pack(self, body: Any) -> bytes:
        """Return a message as bytes; raises :class:`TypeError` for anything else."""
        if not isinstance(body, bytes):
            raise TypeError(f"{type(body).__name__} is not bytes: give the lobby a packing")
        return body

    def unpack(self, data: bytes) -> Any:
        """Return the message."""
        return data

    def pack_result(self, result: Any) -> bytes:
        """Return an answer as bytes; raises :class:`TypeError` for anything else."""
        return b"" if result is None else b"=" + self.pack(result)

    def unpack_result(self, data: bytes) -> Any:
        """Return the answer."""
        return data[1:] if data else None


class RequestPacking:
    """For the requests of a :class:`~kupool.net.routing.router.Router`.

    The routers of all hosts need the same methods with the same types. It may be made before or
    after the methods are added.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        #: How many routes the decoder knows; None while there is no decoder.
        self._known: int | None = None
        self._decoder: msgspec.json.Decoder[Any]

    def pack(self, body: Any) -> bytes:
        """Return a request as JSON; raises :class:`TypeError` if it is not a request."""
        if not isinstance(body, Request):
            raise TypeError(f"{type(body).__name__} is not the request of a router")
        return encode_request(body.id, str(body.msg_id), body.params)

    def unpack(self, data: bytes) -> Any:
        """Return the request, with params of its method's type.

        It has no connection here: its connection is at another host.
        """
        routes = self._router.routes
        if len(routes) != self._known:
            types = {str(r.key): request_type(str(r.key), r.params) for r in routes}
            self._decoder = request_decoder(types)
            self._known = len(routes)
        found = self._decoder.decode(data)
        return Request(None, found.__struct_config__.tag, found.params, found.id)

    def pack_result(self, result: Any) -> bytes:
        """Return a result as JSON."""
        return msgspec.json.encode(result)

    def unpack_result(self, data: bytes) -> Any:
        """Return the result in the form for a reply."""
        return msgspec.Raw(data)


class StructPacking:
    """For messages that are msgspec structs: ``kinds`` is the union of their classes.

    Each class needs a tag of its own. Answers are anything that JSON can hold.
    """

    def __init__(self, kinds: Any) -> None:
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(kinds)

    def pack(self, body: Any) -> bytes:
        """Return a message as JSON."""
        return msgspec.json.encode(body)

    def unpack(self, data: bytes) -> Any:
        """Return the message."""
        return self._decoder.decode(data)

    def pack_result(self, result: Any) -> bytes:
        """Return a result as JSON."""
        return msgspec.json.encode(result)

    def unpack_result(self, data: bytes) -> Any:
        """Return the result in the form for a reply."""
        return msgspec.Raw(data)


__all__ = ["BytesPacking", "Packing", "RequestPacking", "StructPacking"]
