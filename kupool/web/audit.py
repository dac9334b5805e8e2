"""The audit trail: who changed what by HTTP, from where, and whether it worked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request

from kupool.web.answers import ApiError, Handler, JsonAnswer

#: The largest parameters that an entry repeats, in bytes of JSON, and the longest error, in
#: characters.
LARGEST = 2000
LONGEST = 500

#: Seconds that an answer waits until its entry is written.
PATIENCE = 2.0


class Change(NamedTuple):
    """A change that somebody asks for: the name of the action, by whom, and from which address."""

    action: str
    by: str
    peer: str


class AuditTrail:
    """Writes an entry for each change, before it is answered.

    ``write`` writes one; None if there is no place for them. If an entry cannot be written, the
    change is answered nevertheless: whoever frees a full disk must be able to act. Each entry is in
    the log of the process, too.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        write: Callable[[Mapping[str, object]], Deferred[None]] | None,
    ) -> None:
        self._clock = clock
        self._write = write
        #: Entries that could not be written.
        self.lost = 0

    async def run(self, change: Change, handler: Handler, request: Request) -> object:
        """Call the handler of a change, and return its result once the entry is written.

        Raises what the handler raises.
        """
        what = _asked(request)
        try:
            result = await handler(request)
        except Exception as error:
            text = error.text if isinstance(error, ApiError) else "internal error"
            await self._enter(change, what, text)
            raise
        failed = isinstance(result, JsonAnswer) and result.code >= 400
        await self._enter(change, what, "refused" if failed else "")
        return result

    async def _enter(self, change: Change, what: object, error: str) -> None:
        entry = {**change._asdict(), "what": what, "ok": not error}
        if error:
            entry["error"] = error[:LONGEST]
        self._log.info(
            "{action} by {username}: {outcome}",
            action=change.action,
            username=change.by,
            outcome=error[:LONGEST] or "done",
            remote=change.peer,
            what=msgspec.json.encode(what).decode(),
        )
        if self._write is None:
            return
        try:
            await self._write(entry).addTimeout(PATIENCE, self._clock)
        except Exception as problem:
            self.lost += 1
            self._log.warn(
                "The entry about {action} by {username} is not in the audit trail: {reason}",
                action=change.action,
                username=change.by,
                reason=str(problem) or f"it was not written within {PATIENCE:g} s",
            )


def _asked(request: Request) -> object:
    """Return the parameters in the body, which stays to be read."""
    content: Any = request.content
    text: bytes = content.read()
    content.seek(0)
    if len(text) > LARGEST:
        return {"bytes": len(text)}
    try:
        return msgspec.json.decode(text, type=dict[str, object]) if text.strip() else {}
    except (ValueError, RecursionError):
        return {"bytes": len(text)}


__all__ = ["LARGEST", "PATIENCE", "AuditTrail", "Change"]
