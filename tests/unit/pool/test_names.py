"""How many new names get into the statistics."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.net.transport.proxied import TrustedProxies
from kupool.pool.names import Names, NameSettings
from kupool.settings.declaration import LimitSettings
from tests.fakes.pool_fixture import PoolBench

ADDRESS = "too many new names of one address"
ALL = "too many new names"


class DefaultTests(SynchronousTestCase):
    """Issue 14: without settings it does what the table of settings says."""

    def test_defaults(self) -> None:
        limits = LimitSettings()
        declared = NameSettings(limits.new_names, 10_000, limits.new_names_per_ip, 5_000)
        self.assertEqual(NameSettings(), declared)


class NameTests(SynchronousTestCase):
    """Issue 15, build 5: names that are new have a limit, and what is accepted is counted."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.in_store: set[str] = set()
        self.asked: list[str] = []

    def counted(self, name: str) -> Deferred[bool]:
        self.asked.append(name)
        return succeed(name in self.in_store)

    def make(self, **settings: Any) -> Names:
        given = {"a_minute": 6, "at_once": 4, "a_minute_per_address": 0, **settings}
        return Names(self.clock, NameSettings(**given), self.counted)

    def admit(self, names: Names, name: str, host: str = "192.0.2.1") -> str:
        answer = names.admit(name, host)
        return answer if isinstance(answer, str) else self.successResultOf(answer)

    def test_so_many_at_once_and_so_many_a_minute(self) -> None:
        names = self.make()
        found = [self.admit(names, f"name{n}") for n in range(5)]
        self.assertEqual(found, [""] * 4 + [ALL])
        self.clock.advance(10.0)
        self.assertEqual([self.admit(names, f"more{n}") for n in range(2)], ["", ALL])

    def test_a_name_that_was_here_is_free(self) -> None:
        names = self.make()
        for _ in range(50):
            self.assertEqual(self.admit(names, "alice"), "")
        self.assertEqual(self.asked, [])

    def test_so_many_are_remembered(self) -> None:
        names = self.make(a_minute=0, at_once=2)
        for n in range(6):
            self.admit(names, f"name{n}")
        self.assertEqual(list(names._remembered), ["name2", "name3", "name4", "name5"])

    def test_who_was_here_last_is_remembered_longest(self) -> None:
        names = self.make(at_once=2)
        self.in_store = {f"old{n}" for n in range(9)}
        found = [self.admit(names, name) for name in ("one", "two", "old0", "old1", "one")]
        self.assertEqual(found, [""] * 5)
        self.clock.advance(10.0)  # allows one more
        found = [self.admit(names, name) for name in ("three", "one", "two")]
        self.assertEqual(found, ["", "", ALL])

    def test_a_name_with_counts_comes_back(self) -> None:
        """The store is only asked where new names have no more allowance."""
        names = self.make()
        self.in_store = {f"old{n}" for n in range(9)}
        for n in range(4):
            self.admit(names, f"name{n}")
        self.assertEqual(self.asked, [])
        found = [self.admit(names, f"old{n}") for n in range(5)]
        self.assertEqual(found, [""] * 4 + [ALL])  # these have a limit, too
        self.assertEqual(self.admit(names, "new"), ALL)
        self.clock.advance(15.0)  # a minute allows as many again
        found = [self.admit(names, f"old{n}") for n in range(4, 6)]
        self.assertEqual(found, ["", ""])  # one more of the old, one of the new
        self.assertEqual(self.admit(names, "old6"), ALL)

    def test_one_address_has_its_own_limit(self) -> None:
        names = self.make(a_minute=0, a_minute_per_address=6, at_once_per_address=2)
        found = [self.admit(names, f"name{n}") for n in range(3)]
        self.assertEqual(found, ["", "", ADDRESS])
        self.assertEqual(self.admit(names, "name0"), "")
        self.assertEqual(self.admit(names, "other", "192.0.2.2"), "")
        self.assertEqual(self.admit(names, "unix", ""), "")
        self.clock.advance(10.0)
        self.assertEqual([self.admit(names, f"more{n}") for n in range(2)], ["", ADDRESS])

    def test_proxies_are_not_limited_as_an_address(self) -> None:
        names = self.make(
            a_minute=0,
            a_minute_per_address=6,
            at_once_per_address=1,
            shared=TrustedProxies(("192.0.2.1",)),
        )
        self.assertEqual([self.admit(names, f"name{n}") for n in range(5)], [""] * 5)

    def test_a_store_that_is_away_or_late(self) -> None:
        names = self.make(at_once=1)
        self.admit(names, "one")
        names._counted = lambda name: fail(OSError("away"))
        self.assertEqual(self.admit(names, "two"), ALL)
        names._counted = lambda name: Deferred()
        late = [names.admit(f"name{n}", "") for n in range(101)]  # 100 are asked for at a time
        self.assertEqual(late[-1], ALL)
        self.clock.advance(4.9)
        self.assertNoResult(late[0])
        self.clock.advance(0.1)
        for answer in late[:-1]:
            assert isinstance(answer, Deferred)
            self.assertEqual(self.successResultOf(answer), ALL)
        self.assertEqual(names._lookups, 0)


class AuthorizeTests(SynchronousTestCase):
    """Issue 15, build 5: what is refused is the authorize; nothing accepted goes uncounted."""

    def setUp(self) -> None:
        self.answers: list[Deferred[bool]] = []
        self.clock = Clock()
        settings = NameSettings(60, 1, 0)
        self.bench = PoolBench(
            clock=self.clock, names=Names(self.clock, settings, self.ask), refusals_per_ip=0.1
        ).start()

    def ask(self, name: str) -> Deferred[bool]:
        self.answers.append(Deferred())
        return self.answers[-1]

    def test_refused(self) -> None:
        first = self.bench.connect().authorize("one")
        other = self.bench.connect().authorize("two")
        self.assertEqual(other.messages, [])
        self.answers[0].callback(False)
        heard = other.hear()
        self.assertEqual(
            heard[0], {"id": 1, "result": False, "error": "Temporarily unavailable", "code": 27}
        )
        self.assertEqual(
            (heard[1]["params"]["code"], heard[1]["params"]["retry_after"]), (4103, 60)
        )
        counts = self.bench.manager.refusals.counts
        self.assertEqual(counts, {"authorize, too many new names": 1})
        self.assertEqual(first.submit("n")["result"], True)
        self.assertTrue(self.bench.manager.unwanted("192.0.2.1"))  # it was its one refusal
        self.assertEqual(self.bench.pool.users, {"one": 1})

    def test_known_to_the_store(self) -> None:
        self.bench.connect().authorize("one")
        other = self.bench.connect().authorize("two")
        other.send({"id": 2, "method": "ping"})
        self.assertEqual(other.hear(), [])
        self.answers[0].callback(True)
        self.assertEqual([message["id"] for message in other.hear()], [1, None, 2])
        self.assertEqual(other.submit("n")["result"], True)

    def test_gone_before_the_store_answers(self) -> None:
        self.bench.connect().authorize("one")
        other = self.bench.connect().authorize("two")
        other.leave()
        self.answers[0].callback(True)
        self.assertEqual(self.bench.pool.users, {"one": 1})
