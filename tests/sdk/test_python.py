"""W-75, issue 17, accepted 2: the SDK for Python, over WebSocket.

The scenarios are those of scenarios.py.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.sdk.sdk_runs import SdkCase, scenario

SCENARIOS = {
    "one_breath": "Connect, subscribe, unsubscribe and close at once; publish; presence.",
    "history": "Pages of a history.",
    "rpc_that_nobody_handles": "An unknown method is 108.",
    "unsubscribe_in_every_order": "Presence is exact after ten subscribes and unsubscribes.",
    "connect_and_disconnect_in_a_row": "W-12: eleven connects.",
    "tokens": "Tokens with and without a user, and those of five channels at once.",
    "channels_of_a_token": "The server subscribes to the channels of a token.",
    "joins_and_leaves": "Who comes and goes is told.",
    "recovery_after_a_cut": "W-75: what was published meanwhile comes in order, then goes live.",
    "recovery_after_an_unsubscribe": "W-75: the same after an unsubscribe.",
    "unrecoverable_position": "W-75: more was missed than is kept: not recovered, then live.",
    "restart_of_the_daemon": "W-75: a durable channel recovers from a restart, others say no.",
    "hundred_subscriptions": "A hundred subscriptions of one client.",
    "a_token_that_expires": "New tokens extend a connection and a subscription without a break.",
    "an_expired_token": "A client with a way to get tokens gets one; another stops.",
    "unauthorized_in_each_place": "Refusals of connect, subscribe, publish, presence, history.",
    "protobuf_is_refused": "A client that speaks only Protobuf is told so, and stops.",
}


class PythonTests(SdkCase):
    """Issue 17, accepted 2: the scenarios over WebSocket."""

    transport = "websocket"

    def setUp(self) -> None:
        if importlib.util.find_spec("centrifuge") is None:
            raise SkipTest("needs the Python package centrifuge-python: pip install -e '.[test]'")
        super().setUp()

    @classmethod
    def command(cls) -> Sequence[str]:
        return [sys.executable, str(Path(__file__).with_name("scenarios.py"))]


for _name, _about in SCENARIOS.items():
    setattr(PythonTests, f"test_{_name}", scenario(_name, _about))
