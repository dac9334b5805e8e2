"""The chat, on a network in memory."""

from twisted.trial.unittest import SynchronousTestCase

import chat
from kupool.net.testing import MemoryNetwork


class ChatTests(SynchronousTestCase):
    def setUp(self):
        self.network = MemoryNetwork()
        self.server = chat.make(self.network, None)
        self.network.run(self.server.listen([":8000"]))

    def join(self, user, room="tea"):
        peer = self.network.connect(8000)
        self.assertIn(user, peer.ask("join", {"room": room, "user": user})["result"])
        return peer

    def news(self, peer):
        return [(message["method"], message["params"]["user"]) for message in peer.messages()]

    def test_everybody_else_in_the_room_hears_it(self):
        ann, bob, cid = self.join("ann"), self.join("bob"), self.join("cid", "coffee")
        self.assertTrue(bob.ask("say", {"text": "hello"})["result"])
        self.assertEqual(self.news(ann), [("joined", "bob"), ("said", "bob")])
        self.assertEqual((self.news(bob), self.news(cid)), ([], []))

    def test_only_members_speak(self):
        answer = self.network.connect(8000).ask("say", {"text": "hello?"})
        self.assertEqual(answer["error"], "forbidden")

    def test_to_another_room(self):
        ann, bob, cid = self.join("ann"), self.join("bob"), self.join("cid", "coffee")
        moved = bob.ask("join", {"room": "coffee", "user": "bob"})
        self.assertEqual(moved["result"], ["cid", "bob"])
        self.assertEqual(self.news(ann), [("joined", "bob"), ("left", "bob")])
        self.assertEqual(self.news(cid), [("joined", "bob")])

    def test_a_broken_connection_and_the_way_back(self):
        ann, bob = self.join("ann"), self.join("bob")
        bob.abort()
        self.network.advance(29)
        bob = self.join("bob")
        self.network.advance(60)
        self.assertEqual(self.news(ann), [("joined", "bob")])
        bob.close()
        self.network.advance(31)
        self.assertEqual(self.news(ann), [("left", "bob")])
