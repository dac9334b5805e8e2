"""The tests. Nothing in them depends on how fast the machine is."""

import os
import signal
from pathlib import Path

from hypothesis import HealthCheck, settings

# Hypothesis needs some seconds to collect the constants of our code and the kinds of characters.
# One folder for all processes of both runners: most of them find there what another collected.
os.environ.setdefault(
    "HYPOTHESIS_STORAGE_DIRECTORY", str(Path(__file__).parents[1] / ".cache" / "hypothesis")
)

settings.register_profile("kupool", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kupool")

# Whoever is started in the background, or by nohup, ignores SIGINT, and so do all whom it
# starts: the daemons of the tests would not end with it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
