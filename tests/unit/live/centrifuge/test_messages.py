"""The messages of the Centrifuge protocol, as its client libraries send and expect them (W-25,
W-75).
"""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from twisted.trial import unittest

from kupool.live.centrifuge import codes
from kupool.live.centrifuge.messages import (
    METHODS,
    BadFrame,
    CentrifugeCommand,
    ChannelRequest,
    ClientInfo,
    ConnectResult,
    EmptyResult,
    HistoryResult,
    PositionRequest,
    PresenceResult,
    PresenceStatsResult,
    PublicationMessage,
    RecoveryRequest,
    RefreshResult,
    RpcResult,
    SubscribeResult,
    decode_commands,
    encode_disconnect,
    encode_failure,
    encode_message,
    encode_publication,
    encode_push,
    encode_reply,
    encode_subscribe,
    encode_unsubscribe,
    raw_json,
)


def decoded(text: str) -> CentrifugeCommand:
    [command] = decode_commands(text.encode())
    return command


class DecodeTests(unittest.TestCase):
    """Commands are found by the name of their method, wherever it is (W-25)."""

    def test_several_in_a_frame(self) -> None:
        frame = b'{"connect":{"name":"js"},"id":1}\n{"subscribe":{"channel":"a","flag":1},"id":2}'
        for end in (b"", b"\n"):
            found = decode_commands(frame + end)
            self.assertEqual([(c.id, c.method) for c in found], [(1, "connect"), (2, "subscribe")])

    def test_the_id_first_as_python_sends_it(self) -> None:
        command = decoded(
            '{"id":5,"subscribe":{"channel":"a","recover":true,"offset":0,"epoch":""}}'
        )
        self.assertEqual((command.id, command.method), (5, "subscribe"))
        request = command.request
        assert not isinstance(request, dict | None)
        self.assertEqual((request.recover, request.offset, request.epoch), (True, 0, ""))

    def test_every_method(self) -> None:
        for method in METHODS:
            number = "" if method == "send" else '"id":1,'
            self.assertEqual(decoded(f'{{{number}"{method}":{{}}}}').method, method)

    def test_null_is_absent(self) -> None:
        command = decoded('{"id":1,"publish":{"channel":"a","data":null},"send":null}')
        self.assertEqual(command.method, "publish")
        self.assertIsNone(raw_json(command.request.data))

    def test_unknown_fields_are_ignored(self) -> None:
        command = decoded('{"id":1,"later":{},"presence":{"channel":"a","more":[1]}}')
        self.assertEqual(command.request, ChannelRequest("a"))

    def test_data_is_kept_as_it_is(self) -> None:
        command = decoded('{"id":1,"publish":{"channel":"a","data":{"n":1.10,"x":[1, 2]}}}')
        self.assertEqual(raw_json(command.request.data), b'{"n":1.10,"x":[1, 2]}')

    def test_positions(self) -> None:
        since = decoded('{"id":1,"history":{"since":{"offset":18446744073709551615}}}').request
        self.assertEqual(since.since, PositionRequest(2**64 - 1))
        connect = decoded('{"id":1,"connect":{"subs":{"a":{"recover":true},"b":null}}}').request
        self.assertEqual(connect.subs, {"a": RecoveryRequest(recover=True), "b": None})

    def test_a_pong(self) -> None:
        self.assertEqual(decoded("{}"), CentrifugeCommand(0, "", None))

    def test_what_is_no_command(self) -> None:
        for frame in (
            "",
            "\n",
            "{}\n\n{}",
            "{}\n\n",
            "no json",
            "[]",
            "1",
            '{"id":1}',
            '{"id":0,"rpc":{}}',
            '{"rpc":{}}',
            '{"id":-1,"rpc":{}}',
            '{"id":1.5,"rpc":{}}',
            '{"id":"1","rpc":{}}',
            '{"id":1,"rpc":[]}',
            '{"id":1,"send":{}}',
            '{"id":1,"rpc":{},"publish":{}}',
            '{"id":1,"subscribe":{"channel":7}}',
            '{"id":1,"subscribe":{"recover":"yes"}}',
            '{"id":1,"publish":{"data":}}',
            "[" * 100_000,
        ):
            with self.assertRaises(BadFrame, msg=frame[:80]):
                decode_commands(frame.encode())

    @given(st.binary(max_size=200))
    def test_any_bytes(self, frame: bytes) -> None:
        try:
            found = decode_commands(frame)
        except BadFrame:
            return
        self.assertTrue(found)


class EncodeTests(unittest.TestCase):
    """What is zero, false or empty is left out, but for what libraries need (W-25, W-75)."""

    command = CentrifugeCommand(7, "subscribe", None)

    def same(self, data: bytes, text: str) -> None:
        self.assertEqual(json.loads(data), json.loads(text))
        self.assertNotIn(b"\n", data)

    def test_connect(self) -> None:
        connect = CentrifugeCommand(1, "connect", None)
        self.same(
            encode_reply(connect, ConnectResult("caa2", "0.0.0", ping=2, pong=True)),
            '{"id":1,"connect":{"client":"caa2","version":"0.0.0","ping":2,"pong":true}}',
        )
        self.same(
            encode_reply(connect, ConnectResult("", "", expires=True, ttl=0)),
            '{"id":1,"connect":{"client":"","version":"","expires":true,"ttl":0}}',
        )
        subs = {"a": SubscribeResult()}
        self.same(
            encode_reply(connect, ConnectResult("c", "v", subs=subs, session="s", node="n")),
            '{"id":1,"connect":{"client":"c","version":"v","subs":{"a":{}},"session":"s","node":"n"}}',
        )

    def test_subscribe(self) -> None:
        self.same(encode_reply(self.command, SubscribeResult()), '{"id":7,"subscribe":{}}')
        missed = [PublicationMessage(Raw(b"2"), offset=2, tags={"t": "1"})]
        result = SubscribeResult(
            recoverable=True,
            epoch="lLCK",
            publications=missed,
            recovered=True,
            offset=1,
            positioned=True,
            was_recovering=True,
        )
        self.same(
            encode_reply(self.command, result),
            '{"id":7,"subscribe":{"recoverable":true,"epoch":"lLCK","positioned":true,"publications":'
            '[{"data":2,"offset":2,"tags":{"t":"1"}}],"recovered":true,"offset":1,'
            '"was_recovering":true}}',
        )

    def test_results_with_fields_that_are_always_there(self) -> None:
        def reply(method: str, result: object) -> object:
            return json.loads(encode_reply(CentrifugeCommand(1, method, None), result))[method]  # type: ignore[arg-type]

        self.assertEqual(
            reply("history", HistoryResult([], "", 0)),
            {"publications": [], "epoch": "", "offset": 0},
        )
        self.assertEqual(reply("presence", PresenceResult({})), {"presence": {}})
        info = ClientInfo("", "c", conn_info=Raw(b'{"n":1}'))
        self.assertEqual(
            reply("presence", PresenceResult({"c": info})),
            {"presence": {"c": {"user": "", "client": "c", "conn_info": {"n": 1}}}},
        )
        self.assertEqual(
            reply("presence_stats", PresenceStatsResult(0, 0)), {"num_clients": 0, "num_users": 0}
        )
        self.assertEqual(reply("publish", EmptyResult()), {})
        self.assertEqual(reply("rpc", RpcResult(Raw(b"null"))), {"data": None})
        self.assertEqual(
            reply("refresh", RefreshResult(expires=True, ttl=0)), {"expires": True, "ttl": 0}
        )

    def test_failures(self) -> None:
        self.same(
            encode_failure(self.command, codes.PERMISSION_DENIED),
            '{"id":7,"error":{"code":103,"message":"permission denied"}}',
        )
        self.same(
            encode_failure(self.command, codes.INTERNAL),
            '{"id":7,"error":{"code":100,"message":"internal server error","temporary":true}}',
        )

    def test_pushes(self) -> None:
        publication = PublicationMessage(Raw(b"1"), ClientInfo("", "caa2"), 1)
        self.same(
            encode_publication("a", publication),
            '{"push":{"channel":"a","pub":{"data":1,"info":{"user":"","client":"caa2"},"offset":1}}}',
        )
        self.same(
            encode_push("a", "join", {"info": ClientInfo("u", "c")}),
            '{"push":{"channel":"a","join":{"info":{"user":"u","client":"c"}}}}',
        )
        self.same(
            encode_unsubscribe("a", codes.POSITION_LOST),
            '{"push":{"channel":"a","unsubscribe":{"code":2500,"reason":"insufficient state"}}}',
        )
        self.same(
            encode_disconnect(codes.SHUTDOWN),
            '{"push":{"disconnect":{"code":3001,"reason":"shutdown"}}}',
        )
        self.same(
            encode_subscribe("a", SubscribeResult(recoverable=True, epoch="e", positioned=True)),
            '{"push":{"channel":"a","subscribe":{"recoverable":true,"epoch":"e","positioned":true}}}',
        )
        self.same(encode_message(b'{"a":1}'), '{"push":{"message":{"data":{"a":1}}}}')


class CodeTests(unittest.TestCase):
    """The codes decide what a client does."""

    def test_each_code_is_there_once(self) -> None:
        for rows in (codes.CENTRIFUGE_ERRORS, codes.DISCONNECTS):
            numbers = [row.code for row in rows]  # type: ignore[attr-defined]
            self.assertEqual(numbers, sorted(set(numbers)))

    def test_temporary_errors(self) -> None:
        temporary = {row.code for row in codes.CENTRIFUGE_ERRORS if row.temporary}
        self.assertEqual(temporary, {100, 111})

    def test_who_reconnects(self) -> None:
        self.assertTrue(codes.SHUTDOWN.reconnects)
        self.assertFalse(codes.INVALID_TOKEN.reconnects)
        self.assertTrue(codes.Disconnect(4499, "ours").reconnects)
        self.assertFalse(codes.Disconnect(4500, "ours").reconnects)

    def test_who_resubscribes(self) -> None:
        self.assertFalse(codes.UNSUBSCRIBED.resubscribes)
        self.assertTrue(codes.POSITION_LOST.resubscribes)
