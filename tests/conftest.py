"""Lets trial's TestCases run under pytest while pytest-twisted's reactor is running."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

_stock_wait = TestCase._wait


def _wait(self: TestCase, deferred: Any, *args: Any, **kwargs: Any) -> Any:
    # Imported here: whoever imports the reactor first chooses which one it is.
    from twisted.internet import reactor

    if reactor.running:  # type: ignore[attr-defined]
        # What comes after the test iterates the reactor. It must not do so from within the
        # call that fired this, a call from a thread above all: that would be made again.
        later: Any = Deferred()
        deferred.addBoth(lambda result: reactor.callLater(0, later.callback, result))  # type: ignore[attr-defined]
        return pytest_twisted.blockon(later)
    return _stock_wait(self, deferred, *args, **kwargs)


TestCase._wait = _wait


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under trial, what a test leaves behind is not in the checkout."""
    monkeypatch.chdir(tmp_path)
