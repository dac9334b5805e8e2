"""Operations of topics by ``rpc``: who may call them, and how their errors look."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from kupool.live.centrifuge.world import RpcFailed
from tests.fakes.daemon_case import DaemonCase


class Who(NamedTuple):
    client_id: str = "c"
    user: str = "alice"
    role: str = "worker"


class RpcTests(DaemonCase):
    """Issue 17, build 2: clients of the Centrifuge protocol call our methods."""

    settings = {"permissions": ["alice log.manage a", "alice log.subscribe a"]}

    def call(self, method: str, data: bytes = b"", **who: str) -> Any:
        live = self.daemon.parts.live
        assert live is not None
        return live.centrifuge.world.call(Who(**who), method, data)

    def failure(self, *arguments: Any, **who: str) -> tuple[int, str]:
        error = self.failureResultOf(self.call(*arguments, **who), RpcFailed).value
        return error.code, str(error)

    def test_calls(self) -> None:
        """X-08: with the permissions of the user."""
        made = self.successResultOf(self.call("topic.create", b'{"topic":"a"}'))
        self.assertEqual(json.loads(made)["topic"], "a")
        found = self.successResultOf(self.call("log.offsets", b'{"topic":"a"}'))
        self.assertEqual(json.loads(found), {"offsets": [0]})
        code, text = self.failure("log.offsets", b'{"topic":"a"}', user="bob")
        self.assertEqual((code, text), (433, "forbidden: log.subscribe a"))

    def test_what_is_wrong(self) -> None:
        self.assertIsNone(self.successResultOf(self.call("none")))
        self.assertIsNone(self.successResultOf(self.call("submit")))
        for data in (b"{", b"[]", b'{"topic":1}', b"{}"):
            self.assertEqual(self.failure("log.offsets", data)[0], 432, data)
        self.assertEqual(self.failure("topic.describe", b'{"topic":"b"}')[0], 433)
