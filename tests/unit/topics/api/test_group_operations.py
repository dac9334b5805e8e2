"""The operations ``group.*``, on an engine in memory."""

from __future__ import annotations

from typing import Any

from kupool.topics.partition import Partition
from tests.fakes.topic_api import TopicApiCase

P0 = {"topic": "shop", "partition": 0}
P1 = {"topic": "shop", "partition": 1}


class GroupOperationsTests(TopicApiCase):
    """Q-41 to Q-46."""

    rules = ("bob log.group bob.*", "bob log.subscribe shop")

    def setUp(self) -> None:
        super().setUp()
        self.ask("topic.create", topic="shop", settings={"partitions": 2})
        for partition in (0, 0, 0, 1):
            self.ask("log.produce", topic="shop", partition=partition, value="v")

    def join(self, member: str | None = "m", **more: Any) -> Any:
        given = {} if member is None else {"member": member}
        return self.ask("group.join", group="g", topics=["shop"], **given, **more)

    def commit(self, generation: int, *offsets: dict[str, object]) -> Any:
        return self.ask(
            "group.commit", group="g", member="m", generation=generation, offsets=offsets
        )

    def test_members_share(self) -> None:
        """Q-42, Q-43: what moves is given back first."""
        one = self.join()
        self.assertEqual(
            one,
            {"member": "m", "generation": one["generation"], "assigned": [P0, P1], "revoked": []},
        )
        two = self.join(None)
        self.assertRegex(two["member"], r"^m-[0-9a-f]{16}$")
        self.assertEqual((two["assigned"], two["revoked"]), ([], []))
        beat = {"group": "g", "member": "m", "generation": one["generation"]}
        learnt = self.ask("group.heartbeat", **beat)
        self.assertEqual(learnt["generation"], two["generation"])
        (kept,), (moved,) = learnt["assigned"], learnt["revoked"]
        beat["generation"] = two["generation"]
        self.assertEqual(self.ask("group.heartbeat", **beat)["revoked"], [moved])
        self.assertEqual(self.ask("group.heartbeat", **beat, holding=[kept])["revoked"], [])
        beat["member"] = two["member"]
        self.assertEqual(self.ask("group.heartbeat", **beat)["assigned"], [moved])
        self.assertIs(self.ask("group.leave", group="g", member="m"), True)
        self.assertEqual(self.ask("group.heartbeat", **beat)["assigned"], [P0, P1])

    def test_offsets_are_saved_in_the_current_generation_alone(self) -> None:
        """Q-45, Q-46: a commit means the offset to read next."""
        generation = self.join()["generation"]
        self.assertIs(self.commit(generation, {**P0, "offset": 2}), True)
        found = self.ask("log.fetch", topic="shop", partition=0, group="g")["records"]
        self.assertEqual([each["offset"] for each in found], [2])
        self.join("n")
        code, text = self.commit(generation, {**P0, "offset": 3})
        self.assertEqual((code, text), (39, f"stale generation: current={generation + 1}"))
        self.assertEqual(self.commit(generation + 9)[0], 39)
        for offset, code in ((4, 40), (3, 0)):
            place = self.ask("group.heartbeat", group="g", member="m", generation=generation + 1)
            held = place["assigned"][0]
            high = 3 if held == P0 else 1
            found = self.commit(generation + 1, {**held, "offset": high + (offset == 4)})
            self.assertEqual(found[0] if isinstance(found, tuple) else 0, code)
        self.assertEqual(
            self.commit(generation + 1, {"topic": "shop", "partition": 9, "offset": 0})[0], 41
        )

    def test_a_member_that_is_gone(self) -> None:
        """Q-44: it has to join again."""
        generation = self.join(session_timeout_ms=2000)["generation"]
        self.clock.pump([0.5] * 5)
        beat = {"group": "g", "member": "m", "generation": generation}
        for name, more in (
            ("group.heartbeat", {"generation": generation}),
            ("group.leave", {}),
            ("group.commit", {"generation": generation, "offsets": []}),
        ):
            code, text = self.ask(name, group="g", member="m", **more)
            self.assertEqual(
                (code, text), (35, "not found: member m is not in group g: join again")
            )
        self.assertEqual(self.ask("group.heartbeat", **beat)[0], 35)

    def test_a_description(self) -> None:
        """Q-41, Q-48: members, positions and lag."""
        self.assertEqual(self.ask("group.describe", group="g")[0], 35)
        generation = self.join()["generation"]
        self.commit(generation, {**P0, "offset": 2})
        self.clock.advance(0.25)
        found = self.ask("group.describe", group="g")
        self.assertEqual((found["group"], found["generation"]), ("g", generation))
        self.assertEqual(
            found["members"],
            [
                {
                    "member": "m",
                    "topics": ["shop"],
                    "assigned": [P0, P1],
                    "revoked": [],
                    "session_timeout_ms": 10_000,
                    "last_seen_ms": 250,
                }
            ],
        )
        wanted = [
            {**P0, "committed": 2, "lag": 1, "lag_ms": 250, "owner": "m"},
            {**P1, "committed": None, "lag": 1, "lag_ms": 250, "owner": "m"},
        ]
        for shown, position in zip(found["positions"], wanted, strict=True):
            self.assertEqual({name: shown[name] for name in position}, position)

    def test_a_reset(self) -> None:
        """Q-41: to an end, a time or an offset, tried first."""
        reset = {"group": "g", "topic": "shop"}
        tried = self.ask("group.reset", **reset, at="latest", dry_run=True)
        self.assertEqual(
            tried["offsets"],
            [
                {"partition": 0, "before": None, "after": 3},
                {"partition": 1, "before": None, "after": 1},
            ],
        )
        self.assertEqual(self.ask("group.describe", group="g")[0], 35, "nothing was saved")
        self.ask("group.reset", **reset, at="latest")
        moved = self.ask("group.reset", **reset, offset=1, partition=0)
        self.assertEqual(moved["offsets"], [{"partition": 0, "before": 3, "after": 1}])
        moved = self.ask("group.reset", **reset, at=0)
        self.assertEqual([each["after"] for each in moved["offsets"]], [0, 0])
        for given, code in (
            ({}, 32),
            ({"at": "latest", "offset": 1}, 32),
            ({"at": "x"}, 32),
            ({"offset": 2}, 40),  # of the second partition
            ({"offset": 0, "partition": 2}, 35),
        ):
            self.assertEqual(self.ask("group.reset", **reset, **given)[0], code, given)
        self.assertEqual(self.ask("group.reset", group="g", topic="none", at="latest")[0], 35)
        self.assertEqual(self.ask("group.reset", group="a b", topic="shop", at="latest")[0], 32)
        self.join()
        self.assertEqual(self.ask("group.reset", **reset, at="latest")[0], 36)

    def test_a_group_is_deleted(self) -> None:
        """Q-41: once it has no members."""
        self.assertEqual(self.ask("group.delete", group="g")[0], 35)
        self.commit(self.join()["generation"], {**P0, "offset": 2})
        self.assertEqual(self.ask("group.delete", group="g")[0], 36)
        self.ask("group.leave", group="g", member="m")
        self.assertIs(self.ask("group.delete", group="g"), True)
        self.assertEqual(self.ask("group.describe", group="g")[0], 35)

    def test_lists(self) -> None:
        """Q-41: a caller sees the groups that it may use; nobody sees that of dead letters."""
        self.successResultOf(
            self.world.topics.engine.commit("dlq-passed", {Partition("shop", 0): 1})
        )
        for group in ("g", "bob.a"):
            self.ask("group.reset", group=group, topic="shop", at="latest")
        self.assertEqual(self.ask("group.list"), {"groups": ["bob.a", "g"]})
        self.assertEqual(self.ask("group.list", "bob", "worker"), {"groups": ["bob.a"]})
        self.assertEqual(self.ask("group.list", "joe", "worker"), {"groups": []})

    def test_bad_input(self) -> None:
        for given, code in (
            ({"group": "a b", "topics": ["shop"]}, 32),
            ({"group": "g", "topics": []}, 32),
            ({"group": "g", "topics": ["none"]}, 35),
            ({"group": "g", "topics": ["shop"], "member": "a/b"}, 32),
            ({"group": "g", "topics": ["shop"], "session_timeout_ms": 1}, 32),
        ):
            self.assertEqual(self.ask("group.join", **given)[0], code, given)

    def test_the_limits(self) -> None:
        """Q-42: of members and of groups; the refusals are for the log."""
        for member in "abc":
            self.join(member)
        self.assertEqual(self.join("d")[0], 34)
        for group in ("g2", "g3"):
            self.ask("group.join", group=group, topics=["shop"])
        self.assertEqual(self.ask("group.join", group="g4", topics=["shop"])[0], 34)
        self.assertEqual(self.noted, [("topics, too many", "192.0.2.1", "ann")] * 2)
