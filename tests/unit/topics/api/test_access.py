"""Who may do what with topics and groups: each operation by role, and by rule."""

from __future__ import annotations

from typing import Any

from kupool.permissions.offered import LOG_GROUP, LOG_TOPIC
from kupool.permissions.roles import ADMIN, ANONYMOUS, OPERATOR, ORDER, WORKER
from kupool.topics.api.access import GROUP, TOPIC_ACTIONS
from kupool.topics.api.table import OPERATIONS
from tests.fakes.topic_api import TopicApiCase

#: Params with which each operation is about topic ``shop`` and group ``crew``.
PARAMS: dict[str, dict[str, Any]] = {
    "topic.list": {},
    "topic.create": {"topic": "shop"},
    "topic.change": {"topic": "shop", "settings": {}},
    "topic.delete": {"topic": "shop"},
    "topic.describe": {"topic": "shop"},
    "log.capabilities": {},
    "log.produce": {"topic": "shop", "value": "a"},
    "log.fetch": {"topic": "shop", "partition": 0, "offset": 0},
    "log.offsets": {"topic": "shop"},
    "log.delay": {"topic": "shop", "value": "a", "after_ms": 60_000},
    "log.delayed": {"topic": "shop"},
    "log.cancel": {"topic": "shop", "id": 1},
    "log.begin": {},
    "log.commit": {"transaction": "1-a"},
    "log.abort": {"transaction": "1-a"},
    "log.dead": {"topic": "shop"},
    "log.bury": {
        "group": "crew",
        "member": "m",
        "generation": 1,
        "topic": "shop",
        "partition": 0,
        "offset": 0,
        "reason": "",
        "attempts": 1,
    },
    "log.redrive": {"topic": "shop"},
    "log.purge": {"topic": "shop"},
    "group.list": {},
    "group.join": {"group": "crew", "topics": ["shop"]},
    "group.heartbeat": {"group": "crew", "member": "m", "generation": 1},
    "group.leave": {"group": "crew", "member": "m"},
    "group.commit": {"group": "crew", "member": "m", "generation": 1, "offsets": []},
    "group.describe": {"group": "crew"},
    "group.reset": {"group": "crew", "topic": "shop", "at": "latest"},
    "group.delete": {"group": "crew"},
}

#: The operations that are about nothing with a name: a list has what one may use, and the id of a
#: transaction belongs to its user.
NAMELESS = {"topic.list", "log.capabilities", "group.list", "log.commit", "log.abort"}

#: The rules that are needed together; of several sets each is enough.
NEEDED: dict[str, tuple[tuple[str, ...], ...]] = {
    "topic.create": (("log.manage shop",),),
    "topic.change": (("log.manage shop",),),
    "topic.delete": (("log.manage shop",),),
    "topic.describe": (("log.manage shop",), ("log.subscribe shop",)),
    "log.produce": (("log.publish shop",),),
    "log.fetch": (("log.subscribe shop",),),
    "log.offsets": (("log.subscribe shop",),),
    "log.delay": (("log.publish shop",),),
    "log.delayed": (("log.subscribe shop",),),
    "log.cancel": (("log.publish shop",),),
    "log.begin": (("log.publish other",),),
    "log.dead": (("log.manage shop",), ("log.subscribe shop.dlq",)),
    "log.bury": (("log.group crew", "log.subscribe shop"),),
    "log.redrive": (("log.manage shop",),),
    "log.purge": (("log.manage shop",),),
    "group.join": (("log.group crew", "log.subscribe shop"),),
    "group.heartbeat": (("log.group crew",),),
    "group.leave": (("log.group crew",),),
    "group.commit": (("log.group crew",),),
    "group.describe": (("log.group crew",),),
    "group.reset": (("log.group crew", "log.manage shop"),),
    "group.delete": (("log.group crew",),),
}

#: All rules that any operation asks about.
EVERYTHING = sorted({rule for ways in NEEDED.values() for way in ways for rule in way})


class AccessCase(TopicApiCase):
    def forbids(self, name: str, user: str, role: str, **given: Any) -> bool:
        found = self.ask(name, user, role, **{**PARAMS[name], **given})
        return isinstance(found, tuple) and found[0] == 33


class RoleTests(AccessCase):
    """Issue 16, build 2: without rules every cell but those of an admin is refused."""

    def test_every_operation_by_every_role(self) -> None:
        self.assertEqual(set(PARAMS), {operation.name for operation in OPERATIONS})
        self.assertEqual(set(NEEDED) | NAMELESS, set(PARAMS))
        for operation in OPERATIONS:
            name = operation.name
            for role in ORDER:
                allowed = role == ADMIN or name in NAMELESS
                self.assertEqual(self.forbids(name, "ann", role), not allowed, (name, role))

    def test_what_operators_read(self) -> None:
        """Issue 16, build 2: submissions and events, and no more than that."""
        for topic in ("submissions", "events"):
            for role in ORDER:
                allowed = role in (OPERATOR, ADMIN)
                found = self.forbids("log.fetch", "ann", role, topic=topic)
                self.assertEqual(found, not allowed, (topic, role))
            for name in ("log.produce", "topic.delete", "topic.change", "topic.create"):
                self.assertTrue(self.forbids(name, "ann", OPERATOR, topic=topic), (topic, name))

    def test_the_actions_are_those_of_the_rules(self) -> None:
        self.assertEqual(LOG_TOPIC.actions, TOPIC_ACTIONS)
        self.assertEqual(LOG_GROUP.actions, (GROUP,))


class DaemonsOwnTests(AccessCase):
    """Issue 16, build 2: what the daemon alone does, whoever asks."""

    rules = ("* log.manage >", "* log.publish >", "* log.subscribe >", "* log.group >")

    def test_its_topics(self) -> None:
        """Q-26: nobody writes to them, changes or deletes them."""
        for topic in ("submissions", "events"):
            for name in (
                "topic.create",
                "topic.change",
                "topic.delete",
                "log.produce",
                "log.delay",
                "log.cancel",
                "log.redrive",
            ):
                self.assertTrue(self.forbids(name, "ann", ADMIN, topic=topic), (topic, name))
            for name in ("topic.describe", "log.fetch", "log.offsets", "log.dead", "log.purge"):
                self.assertFalse(self.forbids(name, "ann", ADMIN, topic=topic), (topic, name))

    def test_topics_of_dead_letters(self) -> None:
        """Q-51: they make themselves, and may be deleted."""
        for name in ("topic.create", "log.produce", "log.delay", "log.cancel"):
            self.assertTrue(self.forbids(name, "ann", ADMIN, topic="shop.dlq"), name)
        for name in ("topic.delete", "topic.change", "topic.describe", "log.fetch"):
            self.assertFalse(self.forbids(name, "ann", ADMIN, topic="shop.dlq"), name)

    def test_the_group_of_dead_letters(self) -> None:
        """Q-51: who could move it could hide dead letters."""
        for group in ("dlq-passed", "dlq-passed/shop/0/1"):
            for operation in OPERATIONS:
                if "group" in PARAMS[operation.name]:
                    self.assertTrue(self.forbids(operation.name, "ann", ADMIN, group=group))
            self.assertTrue(self.forbids("log.fetch", "ann", ADMIN, offset=None, group=group))


class RuleTests(AccessCase):
    """Issue 16, build 2: a rule permits what it says, and nothing else."""

    rules = tuple(
        f"user-{name}-{number} {rule}"
        for name, ways in NEEDED.items()
        for number, way in enumerate(ways)
        for rule in way
    ) + tuple(
        f"but-{name}-{missing} {rule}"
        for name, ways in NEEDED.items()
        for missing, rule_left_out in enumerate(ways[0])
        for rule in EVERYTHING
        if rule not in (rule_left_out, *(other for way in ways[1:] for other in way))
        # Any right to publish is enough to begin.
        and not (name == "log.begin" and rule.startswith("log.publish"))
    )

    def test_what_is_needed_is_enough(self) -> None:
        for name, ways in NEEDED.items():
            for number in range(len(ways)):
                found = self.forbids(name, f"user-{name}-{number}", WORKER)
                self.assertFalse(found, (name, number))

    def test_everything_else_is_not(self) -> None:
        for name, ways in NEEDED.items():
            for missing in range(len(ways[0])):
                found = self.forbids(name, f"but-{name}-{missing}", WORKER)
                self.assertTrue(found, (name, missing))

    def test_a_fetch_of_a_group(self) -> None:
        """Q-40: where a group is may be known to those who may use the group."""
        user = "user-log.fetch-0"
        self.assertFalse(self.forbids("log.fetch", user, WORKER))
        self.assertTrue(self.forbids("log.fetch", user, WORKER, offset=None, group="crew"))

    def test_refusals_are_for_the_log(self) -> None:
        self.forbids("log.fetch", "joe", ANONYMOUS)
        self.assertEqual(self.noted, [("topics, not permitted", "192.0.2.1", "joe")])

    def test_whether_there_is_such_a_topic_is_not_told(self) -> None:
        self.ask("topic.create", topic="shop")
        self.assertEqual(
            self.ask("topic.describe", "joe", WORKER, topic="shop"),
            (33, "forbidden: log.subscribe or log.manage shop"),
        )
        self.assertTrue(self.forbids("topic.describe", "joe", WORKER, topic="none"))
