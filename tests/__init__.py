"""The tests. Nothing in them depends on how fast the machine is."""

from hypothesis import settings

settings.register_profile("kupool", deadline=None)
settings.load_profile("kupool")
