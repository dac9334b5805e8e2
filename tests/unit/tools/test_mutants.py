"""Issue 14: which changes a mutant of the core may have, and what is left alone."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tools.mutants import mutants_of

SOURCE = b'''"""A module."""

__all__ = ["a"]


class ISomething(Interface):
    limit = 1


def f(a: "int | None", b=2):
    """Says what it does."""
    if a < b and not done(a):
        log.info("a", a=1)
        queue.put(a).addErrback(lambda failure: log.failure("b", failure))
    assert a == 1
    return a + b
'''


class MutantTests(SynchronousTestCase):
    def test_changes(self) -> None:
        found = mutants_of("kupool/x.py", SOURCE)
        self.assertEqual(
            [(mutant.line, mutant.change) for mutant in found],
            [
                (10, "2 -> 3"),
                (12, "a < b and not done(a) -> (a < b or not done(a))"),
                (12, "a < b -> (a <= b)"),
                (12, "a < b -> (a >= b)"),
                (12, "not done(a) -> (done(a))"),
                (14, 'queue.put(a).addErrback(lambda failure: log.failure("b", failure)) -> None'),
                (16, "a + b -> (a - b)"),
            ],
        )

    def test_one_change_alone(self) -> None:
        """The rest of the file is as it was, comments and lines included."""
        first, *_ = mutants_of("kupool/x.py", SOURCE)
        self.assertEqual(first.applied(SOURCE), SOURCE.replace(b"b=2", b"b=3"))
