"""A session: one authorized connection of a user."""

from __future__ import annotations

import secrets
from unicodedata import category

from kupool.pool.jobs import Job
from kupool.pool.nonces import NonceScope
from kupool.timing.buckets import Bucket
from kupool.wire.messages import split_username

MAX_USERNAME = 255

#: The rule for usernames, for the error about an invalid one.
VALID_USERNAME = f"expected 1 to {MAX_USERNAME} characters, none of them a control character"

#: Control characters, line separators, and code points that are not characters.
_CONTROL = frozenset(("Cc", "Cs", "Zl", "Zp"))

#: The nonces of a job for which the scope has none yet. Nothing is ever put in.
_UNUSED = NonceScope()


class Session:
    """The user of a connection, and what the judge needs to know about it.

    ``scope`` is the key under which the session's nonces are remembered. ``suffix`` is appended to
    each server nonce that it gets; it is empty in the nonce scope ``pool``. ``role`` is the most
    that the user may do. ``peer`` is the address of the connection. Times are in seconds on the
    clock of the process, but ``since``, when it authorized, is in seconds since the epoch; 0 if
    that is not known. ``end`` says why the server closed it; empty if it did not.
    """

    __slots__ = (
        "accepted",
        "attempts",
        "end",
        "job",
        "last_accepted",
        "last_rejected",
        "nonces",
        "peer",
        "rejected",
        "role",
        "scope",
        "session_id",
        "shared",
        "since",
        "suffix",
        "user",
        "username",
    )

    def __init__(
        self,
        username: str,
        scope: str,
        suffix: str = "",
        role: str = "",
        *,
        peer: str = "",
        since: float = 0.0,
    ) -> None:
        self.session_id = secrets.token_bytes(16)
        self.username = username
        self.user = split_username(username)[0]
        self.suffix = suffix
        self.role = role
        self.peer = peer
        self.since = since
        self.end = ""
        #: Submissions that were accepted, those of open batches included, and rejected.
        self.accepted = self.rejected = 0
        self.last_accepted = self.last_rejected = float("-inf")
        #: The allowance for rejected submissions; None means a full one.
        self.attempts: Bucket | None = None
        #: The allowance for accepted submissions, shared with other sessions.
        self.shared: tuple[Bucket, ...] = ()
        #: The job of the last submission, and the nonces used for it in this scope.
        self.job: Job | None = None
        self.nonces = NonceScope()
        self.scope = scope_key(scope, username, self.session_id)

    def enter(self, job: Job) -> NonceScope:
        """Return the nonces used for another job, and make them the current ones if there are any.

        Takes no memory of the job: a rejected submission leaves nothing behind.
        """
        found = job.nonces.find(self.scope)
        if found is None:
            return _UNUSED
        self.job = job
        self.nonces = found
        return found

    def begin(self, job: Job) -> NonceScope:
        """Make another job's nonces the current ones, to add some."""
        self.job = job
        self.nonces = job.nonces.scope(self.scope)
        return self.nonces


def scope_key(scope: str, username: str, session_id: bytes = b"") -> str:
    """Return the key under which a session's nonces are remembered for a job.

    ``scope`` is ``user``, ``session`` or ``job``, whose key is the same for everyone.
    """
    if scope == "user":
        return split_username(username)[0]
    return session_id.hex() if scope == "session" else ""


def valid_username(username: str) -> bool:
    """Return whether a name has 1 to 255 characters and no control characters."""
    if not 0 < len(username) <= MAX_USERNAME:
        return False
    return username.isprintable() or not any(category(c) in _CONTROL for c in username)
