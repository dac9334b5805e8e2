"""What hosts say to each other, as bytes, also where one of them is of another version."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from kupool.rooms.spread.entries import Enter, Handed, RoomReply, Say, decode, encode, policy_of
from kupool.session.outbox import EventPolicy


class EntriesTests(SynchronousTestCase):
    """A-51: hosts of two versions stand side by side while one is replaced."""

    def test_what_an_older_host_leaves_out(self) -> None:
        for sent, entry in (
            (["Say", 7, "tea", "ann", 3, b"x", True], Say(7, "tea", "ann", 3, b"x", True, "")),
            (["Enter", 7, "tea", "ann"], Enter(7, "tea", "ann", "")),
            (["Reply", 7, 3, b"x"], RoomReply(7, 3, b"x", 0, "")),
            (["Handed", "tea", None], Handed("tea", None, "", "", [], "")),
        ):
            self.assertEqual(decode(msgspec.msgpack.encode(sent)), entry)

    def test_what_a_newer_host_adds(self) -> None:
        for entry in (Enter(7, "tea", "ann", "192.0.2.1"), RoomReply(7, 3, b"", 24, "no")):
            sent: list[Any] = msgspec.msgpack.decode(encode(entry))
            self.assertEqual(decode(msgspec.msgpack.encode([*sent, "more"])), entry)

    def test_the_names_of_policies(self) -> None:
        self.assertIsNone(policy_of(None))
        self.assertIs(policy_of("drop-oldest"), EventPolicy.DROP_OLDEST)
        self.assertRaises(ValueError, policy_of, "other")
