"""The first message of a connection: authorize, or leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.errors import CLOSE_UNAUTHORIZED, UNAUTHORIZED, UNAVAILABLE
from kupool.net.routing.interfaces import IRouter
from kupool.pool.credentials import Authenticator
from kupool.pool.session import VALID_USERNAME, valid_username
from kupool.session.connection import Connection
from kupool.wire.framing import OP_CLOSE, Control, Item
from kupool.wire.messages import (
    MAX_ID_BYTES,
    AuthorizeParams,
    Loose,
    RequestId,
    decode_loosely,
    describe,
    encode_error,
    request_decoder,
    request_type,
    split_username,
    valid_id,
)

#: The detail of the close after an authorize that could not be answered.
NEEDS_ID = f"authorize needs an id: an integer, or a string of at most {MAX_ID_BYTES} bytes"


@implementer(IRouter)
class Greeting:
    """Answers a connection until it is authorized.

    ``admit`` is called with the connection and the username, and makes the session;
    what follows goes to the router that it sets.
    """

    _log = Logger()

    def __init__(
        self, admit: Callable[[Connection, str], bytes], authenticator: Authenticator | None
    ) -> None:
        self._admit = admit
        self._authenticator = authenticator
        authorize = request_type("authorize", AuthorizeParams)
        self._decode: Callable[[bytes], Any] = request_decoder({"authorize": authorize}).decode

    def dispatch(self, connection: Connection, item: Item) -> bytes | None:
        """Handle the first message; anything but a valid authorize ends the connection."""
        if type(item) is not bytes:
            if isinstance(item, Control) and item.opcode == OP_CLOSE:
                connection.finished()
            else:
                self._refuse(connection, None, "the first message must be authorize")
            return None
        try:
            message = self._decode(item)
        except (ValueError, RecursionError) as error:
            loose = decode_loosely(item)
            if loose is None:
                self._refuse(connection, None, "the first message is not a JSON request")
            elif loose.method == "authorize":
                self._refuse(connection, loose.id, _wrong(loose, error))
            else:
                self._refuse(connection, loose.id)
            return None
        name: str = message.params.username
        if message.id is None or not valid_id(message.id):
            self._refuse(connection, None, NEEDS_ID)
        elif not valid_username(name):
            self._refuse(connection, message.id, f"username: {VALID_USERNAME}")
        elif self._authenticator is None:
            self._welcome(connection, message.id, name)
        else:
            connection.hold()
            checked = Deferred.fromCoroutine(
                self._authenticator.allowed(split_username(name)[0], message.params.password)
            )
            checked.addCallbacks(
                self._checked,
                self._undecided,
                callbackArgs=(connection, message.id, name),
                errbackArgs=(connection, message.id),
            ).addErrback(self._broken, connection)
        return None

    def _welcome(self, connection: Connection, message_id: RequestId, name: str) -> None:
        first = self._admit(connection, name)
        connection.reply(message_id, True)
        if first:
            connection.send(first)

    def _checked(
        self, allowed: bool, connection: Connection, message_id: RequestId, name: str
    ) -> None:
        if not connection.sends:
            return
        if allowed:
            self._welcome(connection, message_id, name)
            connection.release()
        else:
            self._refuse(connection, message_id)

    def _undecided(self, failure: Failure, connection: Connection, message_id: RequestId) -> None:
        """A checker could not tell: the client may come back."""
        self._log.failure("A password could not be checked", failure)
        connection.send(encode_error(message_id, UNAVAILABLE))
        connection.close(None)

    def _broken(self, failure: Failure, connection: Connection) -> None:
        self._log.failure("A session could not be opened", failure)
        connection.abort()

    def _refuse(self, connection: Connection, message_id: RequestId, detail: str = "") -> None:
        """Answer ``unauthorized``, and close; ``detail`` says what else was wrong, if that is
        not what the word means.
        """
        if message_id is not None:
            connection.send(encode_error(message_id, UNAUTHORIZED))
        connection.close(CLOSE_UNAUTHORIZED.about(detail))


def _wrong(message: Loose, error: Exception) -> str:
    """Say what is wrong with an ``authorize`` that does not fit."""
    if message.id is None:
        return NEEDS_ID
    name = message.params.get("username") if isinstance(message.params, dict) else None
    if not isinstance(name, str):
        return 'authorize needs params with a username, as in {"username":"alice"}'
    return f"authorize: {describe(error)}" if isinstance(error, msgspec.ValidationError) else ""
