"""One message together with the connection it came on."""

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


#: What a handler returns that answers by itself, with ``request.reply`` or
#: ``connection.reply``.
LATER = _Later()


class Request(msgspec.Struct, eq=False):
    """What handlers of methods, handlers made with ``on`` and every ``BaseRouter`` get.

    ``connection`` is the :class:`~kupool.session.connection.Connection`; it is None where the
    message has come from another host. ``msg_id`` is the number of the message, or the name
    of its method; ``params`` are its params as the registered type, or its bytes. ``id`` is
    what a peer's answer is matched by in JSON: None in a notification and for messages with a
    number. ``context`` is the handlers' own: all steps of one message share it. ``answered``
    says whether there is an answer: a second one is dropped, and logged.
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
        """The params by the name that suits messages of bytes."""
        return self.params

    @data.setter
    def data(self, data: Any) -> None:
        self.params = data

    def param(self, name: str, kind: type[T], default: T | _Later = LATER) -> T:
        """Return one of the params: of a method that is registered with the type ``dict``.

        ``kind`` is ``str``, ``int``, ``bool``, ``float``, ``dict``, ``list`` or whatever
        else msgspec converts to. Without a ``default`` the param has to be there. Raises
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
        """Answer later, where the handler returned ``LATER``; takes what handlers return.

        Never raises: what cannot be sent is an exception of the handler, and a peer that
        has gone gets nothing.
        """
        if self._reply is not None:
            self._reply(self, result)

    def first_answer(self) -> bool:
        """Take note of an answer; False, and a line in the log, where there is one already."""
        if self.answered:
            self._log.warn("Message {route} was answered already", route=self.msg_id)
            return False
        self.answered = True
        return True


__all__ = ["LATER", "Request"]
