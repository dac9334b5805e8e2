"""A past for a pool: a daemon and its workers live through hours in a few minutes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.servers.crew import Crew
from tests.servers.demo_pool import PASSWORD, pool_with_accounts
from tools.torture_clock import SEEN, Clock, forget


def live_through(
    data: Path, usernames: Sequence[str], hours: float, *, step: float = 1800, pause: float = 0.05
) -> None:
    """Leave a data folder as a daemon leaves it that has run for the last ``hours``.

    Its workers submit at each step of ``step`` seconds. Real time goes by: about 2 s a step.
    Raises SkipTest without libfaketime.
    """
    with tempfile.TemporaryDirectory(prefix="kupool-test-") as folder:
        clock = Clock(Path(folder))
        clock.set(-int(hours * 3600))
        with pool_with_accounts(data=data, env=clock.environment) as daemon:
            try:
                with Crew(daemon, usernames, password=PASSWORD, pause=pause, wrong_every=23):
                    while clock.offset < -step:
                        time.sleep(SEEN)
                        clock.step(int(step))
                    time.sleep(SEEN)
                assert daemon.stop() == 0, daemon.output
            finally:
                forget(daemon.pid)
