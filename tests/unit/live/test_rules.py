"""Which rule a channel has."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.live.failures import InvalidChannelName
from kupool.live.rules import (
    QUEUE_PROFILES,
    ChannelKind,
    ChannelRule,
    ChannelRules,
    QueuePolicy,
    check_channel,
    covers_channel,
    namespace_of,
)


class NameTests(SynchronousTestCase):
    """W-72: names of channels, whatever is in them."""

    def test_names(self) -> None:
        for name in ("a", "users.bob", "recovery:x", "a b", "$x", "*", "a..b", ":", "x" * 255):
            self.assertEqual(check_channel(name), name)
        for wrong in ("", "x" * 256, "ü", "a\nb", "a\x00", None, 7, b"a"):
            with self.assertRaisesRegex(InvalidChannelName, "is no name of a channel"):
                check_channel(wrong)

    def test_namespaces(self) -> None:
        self.assertEqual([namespace_of(n) for n in ("a", "n:a", ":a", "n:a:b")], ["", "n", "", "n"])

    def test_patterns(self) -> None:
        """W-68: wildcards stand for levels; those of a name are only text."""
        for pattern, name, covered in (
            ("a", "a", True),
            ("*", "a", True),
            ("*", "a.b", False),
            (">", "a.b", True),
            (">", "n:a", False),
            ("n:*", "n:a", True),
            ("n:*", "n:a.b", False),
            ("n:>", "n:a.b", True),
            ("n:*", "a", False),
            ("users.*", "users.*", True),
            ("users.bob", "users.*", False),
            ("workers.alice.>", "workers.alice.w.1", True),
            ("workers.alice.>", "workers.alice", False),
            ("workers.alice.>", "workers.bob.w", False),
        ):
            self.assertIs(covers_channel(pattern, name), covered, (pattern, name))
            rule = ChannelRules([ChannelRule(pattern=pattern)]).of(name)
            self.assertIs(rule is not None, covered, (pattern, name))


class RuleTests(SynchronousTestCase):
    """W-72: a channel has the first rule that covers it, or none."""

    def test_the_first_one_counts(self) -> None:
        rules = ChannelRules(
            [ChannelRule(pattern="a", history_size=1), ChannelRule(pattern="*", history_size=2)]
        )
        sizes = [rule and rule.history_size for rule in map(rules.of, ("a", "b", "a.b", "n:a"))]
        self.assertEqual(sizes, [1, 2, None, None])

    def test_policies_of_kinds(self) -> None:
        """W-20: what is kept is replayed."""
        for fields, policy in (
            ({}, QueuePolicy.DROP_OLDEST),
            ({"history_size": 1}, QueuePolicy.REPLAY),
            ({"kind": ChannelKind.LATEST}, QueuePolicy.LATEST),
            ({"kind": ChannelKind.DURABLE, "topic": "t"}, QueuePolicy.REPLAY),
            ({"history_size": 1, "policy": QueuePolicy.WAIT}, QueuePolicy.WAIT),
        ):
            rule = ChannelRule(pattern="a", **fields)  # type: ignore[arg-type]
            self.assertIs(rule.default_policy, policy)

    def test_wrong_rules(self) -> None:
        wrong: tuple[tuple[str, dict[str, Any]], ...] = (
            ("no name of a channel", {"pattern": ""}),
            ("last level", {"pattern": "a.>.b"}),
            ("one of low, normal, high", {"queue": "fast"}),
            ("a durable channel needs one", {"kind": ChannelKind.DURABLE}),
            ("others have none", {"topic": "t"}),
            ("one channel", {"pattern": "a.*", "kind": ChannelKind.DURABLE, "topic": "t"}),
            ("cannot replay", {"policy": QueuePolicy.REPLAY}),
            ("below 0", {"history_size": -1}),
            ("below 0", {"history_time": float("nan")}),
        )
        for text, fields in wrong:
            with self.assertRaisesRegex(ValueError, text):
                ChannelRules([ChannelRule(**{"pattern": "a", **fields})])

    def test_profiles(self) -> None:
        """W-18: 10, 100 and 1,000 messages, and a limit of bytes."""
        sizes = {name: limits.messages for name, limits in QUEUE_PROFILES.items()}
        self.assertEqual(sizes, {"low": 10, "normal": 100, "high": 1000})
        self.assertTrue(all(limits.size > 0 for limits in QUEUE_PROFILES.values()))
