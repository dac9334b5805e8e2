"""Players who are in a room while they seek: they are moved, or they are told."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import RequestError
from kupool.rooms import Left, Lobby, MatchRequest, RoomSettings
from kupool.session.connection import Connection
from tests.fakes.rooms_hall import Hall


class MatchedMembersCase(SynchronousTestCase):
    """A lobby whose hook does what docs/rooms.md does."""

    settings = RoomSettings()

    def setUp(self) -> None:
        self.hall = Hall(self.settings)
        self.lobby = self.hall.lobby
        self.hall.hooks.matched = self.matched
        self.heard: dict[str, list[bool]] = {}

    def matched(self, lobby: Lobby, outcome: Any) -> None:
        for request in outcome.players:
            self.heard.setdefault(request.player, []).append(outcome.matched)
        if outcome.matched:
            lobby.gather("duel", outcome)

    def seek(self, player: str, connection: Connection | None = None) -> Connection:
        connection = connection or self.hall.connect()[0]
        self.assertTrue(self.lobby.match(connection, MatchRequest(player, "duel", 2, 10)))
        return connection

    def players(self) -> list[str]:
        self.hall.settle()
        return sorted(self.lobby.get("duel").members)


class MovedTests(MatchedMembersCase):
    """A-50, issue 13: whoever is matched is in the room of the match."""

    def test_who_sits_in_a_room_is_moved(self) -> None:
        self.lobby.create("tea")
        ann, _ = self.hall.member("tea", "ann")
        tea = self.lobby.members.get("ann")
        self.seek("ann", ann)
        bob = self.seek("bob")
        self.assertEqual(self.players(), ["ann", "bob"])
        self.assertIn(Left(tea, "moved"), self.hall.hooks.log)
        self.assertEqual(self.lobby.members.of(ann), self.lobby.members.get("ann"))
        self.assertEqual(self.lobby.members.of(bob), self.lobby.members.get("bob"))
        self.assertIsNone(self.lobby.find("tea"))

    def test_another_tab_comes_along(self) -> None:
        self.lobby.create("tea")
        tab, _ = self.hall.member("tea", "ann")
        ann = self.seek("ann")
        self.seek("bob")
        self.assertEqual(self.players(), ["ann", "bob"])
        self.assertEqual(set(self.lobby.members.get("ann").connections), {tab, ann})

    def test_who_is_renamed_while_they_wait(self) -> None:
        self.lobby.create("tea")
        ann, _ = self.hall.member("tea", "ann")
        self.seek("ann", ann)
        self.lobby.members.rename("ann", "anna")
        self.seek("bob")
        self.assertEqual(self.players(), ["anna", "bob"])

    def test_who_has_gone_is_left_out_and_hears_nothing(self) -> None:
        self.lobby.create("tea")
        ann, _ = self.hall.member("tea", "ann")
        self.seek("ann", ann)
        ann.close(None)
        self.seek("bob")
        self.assertEqual(self.players(), ["bob"])
        self.assertEqual(self.heard, {"ann": [True], "bob": [True]})


class ToldTests(MatchedMembersCase):
    """A-50, issue 13: who cannot be let in is told, in one more outcome."""

    settings = RoomSettings(max_members=1, max_rooms=2)

    def test_a_room_that_is_full(self) -> None:
        self.lobby.create("tea")
        bob, _ = self.hall.member("tea", "bob")
        self.seek("ann")
        self.seek("bob", bob)
        self.assertEqual(self.players(), ["ann"])
        self.assertEqual(self.heard, {"ann": [True], "bob": [True, False]})
        self.assertEqual(self.lobby.members.get("bob").room.code, "tea")

    def test_no_room_at_all(self) -> None:
        self.lobby.create("tea")
        self.lobby.create("coffee")
        self.seek("ann")
        self.seek("bob")
        self.hall.settle()
        self.assertEqual(self.heard, {"ann": [True, False], "bob": [True, False]})
        self.assertEqual([e[1].type.__mro__[1] for e in self.hall.hooks.errors], [RequestError])

    def test_who_seeks_again_at_once_waits(self) -> None:
        """What is still to be told of the last match ends no new one."""
        for code in ("tea", "coffee"):
            self.lobby.create(code)
        ann = self.seek("ann")
        bob = self.seek("bob")
        self.seek("ann", ann)
        self.hall.settle()
        self.assertIn("ann", self.lobby.matchmaker)
        ann.lost(self.hall.done)
        bob.lost(self.hall.done)
        self.assertEqual(len(self.lobby.matchmaker), 0)
