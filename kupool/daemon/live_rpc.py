"""The methods that clients of the Centrifuge protocol call by ``rpc``: the operations of topics."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, fail, succeed

from kupool.errors import BAD_PARAMS, RequestError
from kupool.live.centrifuge.world import CallerDetails, RpcFailed
from kupool.permissions.table import PermissionTable
from kupool.topics.api.access import Caller
from kupool.topics.api.table import OPERATIONS, TopicApi
from kupool.wire.messages import describe

#: What is added to a code of the table of errors: codes of the protocol's own are below 400.
CODES_FROM = 400


class TopicCalls:
    """Calls the operations of topics for clients, who may what the ``table`` permits."""

    def __init__(self, api: TopicApi | None, table: PermissionTable) -> None:
        self._api = api
        self._table = table
        self._operations = {operation.name: operation for operation in OPERATIONS}

    def call(self, who: CallerDetails, method: str, data: bytes) -> Deferred[bytes | None]:
        """Call an operation with its params as JSON; fires with its result as JSON.

        Fires with None if there is no such operation, and fails with :class:`RpcFailed` if it
        fails.
        """
        operation = self._operations.get(method)
        if operation is None or self._api is None:
            return succeed(None)
        if not self._table.may(who.user, who.role, "call", method):
            return fail(RpcFailed(CODES_FROM + 33, f"forbidden: method {method}"))
        kind: Any = operation.params
        try:
            params = msgspec.json.decode(data or b"{}", type=kind)
        except (ValueError, RecursionError) as error:
            row = BAD_PARAMS.about(describe(error))
            return fail(RpcFailed(CODES_FROM + row.code, row.text))
        caller = Caller(
            who.user,
            "",
            partial(self._table.may, who.user, who.role),
            partial(self._table.may_some, who.user, who.role),
        )
        called = self._api.call(operation, caller, params)
        return called.addCallbacks(msgspec.json.encode, _failed)


def _failed(failure: Any) -> Any:
    error = failure.value
    if isinstance(error, RequestError):
        raise RpcFailed(CODES_FROM + error.error.code, error.error.text) from None
    return failure


__all__ = ["CODES_FROM", "TopicCalls"]
