"""What hosts make of messages and answers, and back."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from kupool.net.routing.request import Request
from kupool.net.routing.router import Router
from kupool.rooms.bodies import EnterBody, LeaveBody, MembersBody, RoomBody, SayBody
from kupool.rooms.spread.packing import BytesPacking, RequestPacking, StructPacking


class BytesPackingTests(SynchronousTestCase):
    """A-51: messages of bytes, and answers of bytes or none."""

    def test_there_and_back(self) -> None:
        packing = BytesPacking()
        self.assertEqual(packing.unpack(packing.pack(b"hello")), b"hello")
        for answer, data in ((None, b""), (b"", b"="), (b"hello", b"=hello")):
            self.assertEqual(packing.pack_result(answer), data)
            self.assertEqual(packing.unpack_result(data), answer)

    def test_anything_else(self) -> None:
        for call in (BytesPacking().pack, BytesPacking().pack_result):
            self.assertRaises(TypeError, call, "text")


class RequestPackingTests(SynchronousTestCase):
    """A-51: the requests of a router."""

    def test_methods_that_are_added_later(self) -> None:
        router = Router()
        packing = RequestPacking(router)
        for method, params in (("one", {"n": 1}), ("two", [2]), ("three", "x")):
            router.add(method, lambda connection, request: True, type(params))
            found = packing.unpack(packing.pack(Request(None, method, params, 7)))
            self.assertEqual((found.msg_id, found.params, found.id), (method, params, 7))

    def test_anything_else(self) -> None:
        router = Router()
        router.add("known", lambda connection, request: True)
        packing = RequestPacking(router)
        self.assertRaises(TypeError, packing.pack, b"text")
        self.assertRaises(ValueError, packing.unpack, b'{"id":1,"method":"unknown"}')

    def test_answers(self) -> None:
        packing = RequestPacking(Router())
        data = packing.pack_result({"n": 1})
        self.assertEqual((data, packing.unpack_result(data)), (b'{"n":1}', msgspec.Raw(data)))


class StructPackingTests(SynchronousTestCase):
    """A-51: the messages of sessions to the rooms of another host."""

    def test_there_and_back(self) -> None:
        packing = StructPacking(RoomBody)
        for body, data in (
            (
                EnterBody("tea", "ann", create=False, allowed=False),
                b'{"type":"enter","room":"tea","user":"ann","create":false,"allowed":false}',
            ),
            (SayBody(msgspec.Raw(b"[1]"), ["bob"]), b'{"type":"say","data":[1],"to":["bob"]}'),
            (LeaveBody(), b'{"type":"leave"}'),
            (MembersBody("tea", 50), b'{"type":"members","room":"tea","start":50}'),
        ):
            self.assertEqual((packing.pack(body), packing.unpack(data)), (data, body))

    def test_what_an_older_host_leaves_out(self) -> None:
        packing = StructPacking(RoomBody)
        enter = packing.unpack(b'{"type":"enter","room":"tea","user":"ann","create":true}')
        self.assertEqual(enter, EnterBody("tea", "ann", create=True, allowed=True))
        said = packing.unpack(b'{"type":"say","data":1}')
        self.assertIsNone(said.to)
