"""Authorization: the first message of a connection must be a valid ``authorize``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.accounts.login_guard import TryAgain
from kupool.accounts.logins import Logins
from kupool.errors import CLOSE_UNAUTHORIZED, TRY_AGAIN, UNAUTHORIZED, UNAVAILABLE
from kupool.net.routing.interfaces import IRouter
from kupool.permissions.roles import ANONYMOUS
from kupool.permissions.table import PermissionTable
from kupool.pool.names import Names
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

#: The detail of the close frame after an ``authorize`` whose id cannot be answered.
NEEDS_ID = f"authorize needs an id: an integer, or a string of at most {MAX_ID_BYTES} bytes"

#: Seconds after which a client may try again that was refused for its new name.
NAME_WAIT = 60.0


@implementer(IRouter)
class Greeting:
    """Handles the messages of a connection until it is authorized.

    ``admit`` is called with the connection, the username and the role. It makes the session and
    sets the router for the following messages. ``permissions`` say who may call ``authorize``,
    ``names`` limits new usernames.
    """

    _log = Logger()

    def __init__(
        self,
        admit: Callable[[Connection, str, str], bytes],
        logins: Logins | None,
        permissions: PermissionTable,
        names: Names | None = None,
    ) -> None:
        self._admit = admit
        self._logins = logins
        self._permissions = permissions
        self._names = names
        #: How often ``authorize`` was called, rightly or not.
        self.asked = 0
        authorize = request_type("authorize", AuthorizeParams)
        self._decode: Callable[[bytes], Any] = request_decoder({"authorize": authorize}).decode

    def dispatch(self, connection: Connection, item: Item) -> bytes | None:
        """Handle the first message; anything but a valid ``authorize`` closes the connection."""
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
                self.asked += 1
                self._refuse(connection, loose.id, _wrong(loose, error))
            else:
                self._refuse(connection, loose.id)
            return None
        self.asked += 1
        name: str = message.params.username
        if message.id is None or not valid_id(message.id):
            self._refuse(connection, None, NEEDS_ID)
        elif not valid_username(name):
            self._refuse(connection, message.id, f"username: {VALID_USERNAME}")
        elif self._logins is None:
            self._welcome(connection, message.id, name, ANONYMOUS)
        else:
            self._log_in(connection, message.id, name, message.params.password or "")
        return None

    def _log_in(
        self, connection: Connection, message_id: RequestId, name: str, password: str
    ) -> None:
        assert self._logins is not None
        user = split_username(name)[0]
        role = self._logins.knows(user, password)
        if role:
            self._welcome(connection, message_id, name, role)
            return
        # The check of a password has a time limit of its own. If it is late, the peer is not to
        # blame.
        connection.deadline = None
        connection.hold()
        checked = self._logins.check(user, password, connection.host)
        checked.addCallbacks(
            self._checked,
            self._undecided,
            callbackArgs=(connection, message_id, name),
            errbackArgs=(connection, message_id),
        ).addErrback(self._broken, connection)

    def _welcome(self, connection: Connection, message_id: RequestId, name: str, role: str) -> None:
        """Make the session, if that is permitted and there are not too many new names."""
        if not self._permissions.may(split_username(name)[0], role, "call", "authorize"):
            self._refuse(connection, message_id, f"authorize is not permitted to the role {role}")
            return
        names = self._names
        refused = "" if names is None else names.admit(name, connection.host)
        if isinstance(refused, str):
            self._named(refused, connection, message_id, name, role=role)
            return
        connection.deadline = None  # the store has a time limit of its own
        connection.hold()

        def told(reason: str) -> None:
            if connection.sends:
                self._named(reason, connection, message_id, name, role=role)
                connection.release()

        refused.addCallback(told).addErrback(self._broken, connection)

    def _named(
        self, refused: str, connection: Connection, message_id: RequestId, name: str, *, role: str
    ) -> None:
        if refused:
            owner = connection.around.owner
            owner.note_refusal(f"authorize, {refused}", connection.host, name)
            owner.turned_away(connection.host)
            connection.send(encode_error(message_id, UNAVAILABLE))
            connection.close(TRY_AGAIN, retry_after=NAME_WAIT)
            return
        first = self._admit(connection, name, role)
        connection.reply(message_id, True)
        if first:
            connection.send(first)

    def _checked(self, role: str, connection: Connection, message_id: RequestId, name: str) -> None:
        if not connection.sends:
            return
        if role:
            self._welcome(connection, message_id, name, role)
            connection.release()
        else:
            self._refuse(connection, message_id)

    def _undecided(self, failure: Failure, connection: Connection, message_id: RequestId) -> None:
        """Answer that the password cannot be checked now; the client may try again."""
        failure.trap(TryAgain)
        error: Any = failure.value
        wait: float = error.wait
        if wait:  # too many logins have failed
            connection.around.owner.turned_away(connection.host)
        connection.send(encode_error(message_id, UNAVAILABLE))
        connection.close(TRY_AGAIN, retry_after=wait or None)

    def _broken(self, failure: Failure, connection: Connection) -> None:
        self._log.failure("A session could not be opened", failure)
        connection.abort()

    def _refuse(self, connection: Connection, message_id: RequestId, detail: str = "") -> None:
        """Answer ``unauthorized`` and close; ``detail`` names the cause if it is another one."""
        connection.around.owner.turned_away(connection.host)
        if message_id is not None:
            connection.send(encode_error(message_id, UNAUTHORIZED))
        connection.close(CLOSE_UNAUTHORIZED.about(detail))


def _wrong(message: Loose, error: Exception) -> str:
    """Return what is wrong with an invalid ``authorize``."""
    if message.id is None:
        return NEEDS_ID
    name = message.params.get("username") if isinstance(message.params, dict) else None
    if not isinstance(name, str):
        return 'authorize needs params with a username, as in {"username":"alice"}'
    return f"authorize: {describe(error)}"
