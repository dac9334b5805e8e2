"""The tests. Nothing in them depends on how fast the machine is."""

import signal

from hypothesis import settings

settings.register_profile("kupool", deadline=None)
settings.load_profile("kupool")

# Whoever is started in the background, or by nohup, ignores SIGINT, and so do all whom it
# starts: the daemons of the tests would not end with it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
