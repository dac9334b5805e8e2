"""W-75, W-77, issue 17, accepted 2: the SDK for JavaScript under Node, over its three transports.

The scenarios are those of scenarios.cjs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.sdk.sdk_runs import SdkCase, scenario

_HERE = Path(__file__).resolve().parent

#: Where `make test` installs what package.json names.
MODULES = _HERE.parents[1] / ".cache" / "sdk" / "node_modules"

SCENARIOS = {
    "one_breath": "Connect, subscribe, unsubscribe and close at once; publish; presence.",
    "history": "Pages of a history, its position, and a position of another epoch.",
    "rpc_that_nobody_handles": "An unknown method is 108, also when called before connect.",
    "unsubscribe_in_every_order": "Presence is exact after ten subscribes and unsubscribes.",
    "presence_after_others_were_cut": "W-12: who was cut is not there any more.",
    "connect_and_disconnect_in_a_row": "W-12: twenty connects, and sockets closed too early.",
    "unsubscribe_before_the_reply": "Unsubscribe while connecting; the next subscribe works.",
    "tokens_without_a_user": "Tokens with iat alone, and channel tokens of five channels at once.",
    "token_with_a_user": "The user and the info of a token are seen by others.",
    "channels_of_a_token": "The server subscribes to the channels of a token.",
    "joins_and_leaves": "Who comes and goes is told.",
    "recovery_after_a_cut": "W-75: what was published meanwhile comes in order, then goes live.",
    "recovery_after_an_unsubscribe": "W-75: the same after an unsubscribe.",
    "unrecoverable_position": "W-75: more was missed than is kept: not recovered, then live.",
    "restart_of_the_daemon": "W-75: a durable channel recovers from a restart, others say no.",
    "stop_of_the_daemon": "A stop is told with its own code, and clients return.",
    "hundred_subscriptions": "A hundred subscriptions of one client.",
    "a_token_that_expires": "A new token extends a connection without a break.",
    "an_expired_token": "A client with a way to get tokens gets one; another stops.",
    "a_channel_token_that_expires": "A new token extends a subscription without a break.",
    "unauthorized_in_each_place": "Refusals of connect, subscribe, publish, presence, history.",
}


class _JavaScriptCase(SdkCase):
    def setUp(self) -> None:
        if shutil.which("node") is None:
            raise SkipTest("needs Node: apt-get install nodejs npm")
        if not MODULES.is_dir():
            raise SkipTest(f"needs {MODULES}: make sdk")
        super().setUp()

    @classmethod
    def command(cls) -> Sequence[str]:
        return ["node", str(_HERE / "scenarios.cjs")]

    @classmethod
    def environment(cls) -> Mapping[str, str]:
        return {**os.environ, "NODE_PATH": str(MODULES)}


class WebSocketTests(_JavaScriptCase):
    """Issue 17, accepted 2: over WebSocket."""

    transport = "websocket"


class SseTests(_JavaScriptCase):
    """W-77, issue 17, accepted 2: over server-sent events."""

    transport = "sse"


class HttpStreamTests(_JavaScriptCase):
    """W-77, issue 17, accepted 2: over HTTP streaming."""

    transport = "http_stream"


for _case in (WebSocketTests, SseTests, HttpStreamTests):
    for _name, _about in SCENARIOS.items():
        setattr(_case, f"test_{_name}", scenario(_name, _about))
