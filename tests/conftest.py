"""Lets trial's TestCases run under pytest while pytest-twisted's reactor is running."""

from __future__ import annotations

from typing import Any

import pytest_twisted
from twisted.trial.unittest import TestCase

_stock_wait = TestCase._wait


def _wait(self: TestCase, deferred: Any, *args: Any, **kwargs: Any) -> Any:
    # Imported here: whoever imports the reactor first chooses which one it is.
    from twisted.internet import reactor

    if reactor.running:  # type: ignore[attr-defined]
        return pytest_twisted.blockon(deferred)
    return _stock_wait(self, deferred, *args, **kwargs)


TestCase._wait = _wait
