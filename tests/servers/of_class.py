"""What all tests of a class share, under pytest and under trial.

trial knows neither ``setUpClass`` nor its opposite.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar
from unittest import TestCase

T = TypeVar("T")

_NAME = "_shared_by_the_class"


def of_class(case: TestCase, make: Callable[[], AbstractContextManager[T]]) -> T:
    """Return what the first test of the class of ``case`` has made, and entered.

    It is left after the last test of the class, or under trial when the process ends.
    """
    kind = type(case)
    if _NAME not in vars(kind):
        stack = ExitStack()
        setattr(kind, _NAME, stack.enter_context(make()))
        kind.addClassCleanup(stack.close)
        atexit.register(stack.close)
    shared: T = vars(kind)[_NAME]
    return shared
