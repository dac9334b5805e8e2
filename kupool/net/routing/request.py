"""A request: one message together with its connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from twisted.logger import Logger

from kupool.errors import BAD_PARAMS, RequestError
from kupool.wire.messages import describe

T = TypeVar("T")


class _Later:
    """The type of :data:`LATER`."""

    def __repr__(self) -> str:
        return "LATER"


#: Returned by a handler that answers later, with ``request.reply`` or
#: ``connection.reply``.
LATER = _Later()


class Request(msgspec.Struct, eq=False):
    """The argument of handlers of methods, of handlers made with ``on``, and of ``BaseRouter``.

    - ``connection`` is the :class:`~kupool.session.connection.Connection`, or None if the
      message came from another host.
    - ``msg_id`` is the method, or the number of the message.
    - ``params`` are the params as the registered type, or the message's bytes.
    - ``id`` is the JSON id by which the peer matches the answer. It is None for notifications
      and for messages with a number.
    - ``context`` is free for the handlers; all steps of one message share it.
    - ``answered`` is whether it has been answered. A second answer is dropped and logged.
    """

    connection: Any
    msg_id: int | str
    params: Any
    id: int | str | None = None
    _reply: Callable[[Request, object], object] | None = None
    context: Any = None
    answered: bool = False

    _log = Logger()

    @property
    def data(self) -> Any:
        """The params, under the name that suits messages of bytes."""
        return self.params

    @data.setter
    def data(self, data: Any) -> None:
        self.params = data

    def param(self, name: str, kind: type[T], default: T | _Later = LATER) -> T:
        """Return one of the params of a method that is registered with the type ``dict``.

        ``kind`` is ``str``, ``int``, ``bool``, ``float``, ``dict``, ``list`` or any other
        type that msgspec converts to. Without a ``default`` the param is required. Raises
        :class:`RequestError` ``bad params``, which names the param.
        """
        params = {} if self.params is None else self.params
        if not isinstance(params, dict):
            found = type(params).__name__
            raise RequestError(BAD_PARAMS.about(f"params: expected object, got {found}"))
        if name not in params:
            if isinstance(default, _Later):
                raise RequestError(BAD_PARAMS.about(f"{name} is required"))
            return default
        try:
            return msgspec.convert(params[name], kind)
        except msgspec.ValidationError as error:
            raise RequestError(BAD_PARAMS.about(describe(error, name))) from None
        except (OverflowError, RecursionError) as error:
            raise RequestError(BAD_PARAMS.about(f"{name}: {error}")) from None

    def reply(self, result: object) -> None:
        """Answer after the handler returned ``LATER``; takes what handlers return.

        Never raises. A result that cannot be sent counts as an exception of the handler. If
        the peer has disconnected, nothing is sent.
        """
        if self._reply is not None:
            self._reply(self, result)

    def first_answer(self) -> bool:
        """Mark the request as answered; returns False, and logs it, if it already was."""
        if self.answered:
            self._log.warn("Message {route} was already answered", route=self.msg_id)
            return False
        self.answered = True
        return True


__all__ = ["LATER", "Request"]
