"""``twistd kupool``: the options, and the service that they make."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from twisted.application.service import IService, Service
from twisted.cred import strcred
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.error import CannotListenError
from twisted.logger import ILogObserver, Logger

from kupool.daemon.observer import Level, make_observer
from kupool.daemon.parts import check
from kupool.daemon.service import Daemon, explain
from kupool.daemon.signals import Signals, exit_with_failure
from kupool.options import SettingOptions
from kupool.settings import Loaded, SettingError, load
from kupool.storage.folder import FolderError


class Options(SettingOptions, strcred.AuthOptionMixin):
    """What may follow ``twistd kupool``."""

    synopsis = "[options]"
    longdesc = (
        "Hands out jobs over long-lived connections, verifies every result that comes back, "
        "and counts each accepted one exactly once. Every flag may also be given as the "
        "environment variable in brackets, or in the file named by --config; "
        "'kupool config' shows each value and where it came from."
    )
    supportedInterfaces = (IUsernamePassword,)

    def postOptions(self) -> None:
        """Load the settings; a wrong one ends the process with one line."""
        SettingOptions.postOptions(self)
        try:
            self.loaded = self.read()
            self.checkers = make_checkers(self.loaded)
        except SettingError as error:
            raise SystemExit(f"kupool: {error}") from None

    def read(self) -> Loaded:
        """Read the settings, as at the start; raises :class:`SettingError`."""
        loaded = load(self.flags, os.environ)
        check(loaded)
        return loaded


def make_checkers(loaded: Loaded) -> list[ICredentialsChecker]:
    """Return the checkers that ``--auth`` names; raises :class:`SettingError`."""
    checkers = []
    for description in loaded.settings.auth:
        try:
            checker = strcred.makeChecker(description)
        except (ValueError, LookupError, OSError, strcred.StrcredException) as error:
            raise SettingError(
                f"auth: {description!r}: {error or type(error).__name__} "
                f"(from {loaded.sources['auth']})"
            ) from None
        if IUsernamePassword not in checker.credentialInterfaces:
            raise SettingError(f"auth: {description!r} does not check passwords")
        checkers.append(checker)
    return checkers


class Process(Service):
    """The daemon as a process: its log, its signals and its exit status.

    ``twistd`` are the options before the command.
    """

    _log = Logger()

    def __init__(self, reactor: Any, options: Options, twistd: Mapping[str, Any]) -> None:
        self._reactor = reactor
        self._twistd = twistd
        settings = options.loaded.settings
        self._format = settings.log_format
        self._level = Level(settings.log_level)
        self.daemon = Daemon(
            reactor,
            options.loaded,
            checkers=options.checkers,
            failed=self._failed,
            level=self._level.set,
            read=options.read,
        )
        self._signals = Signals(reactor, self.daemon.reload)

    def setServiceParent(self, parent: Any) -> None:
        """Join the application, and be what it logs with."""
        Service.setServiceParent(self, parent)
        observer = make_observer(self._format, self._level, self._twistd)
        if observer is not None:
            parent.setComponent(ILogObserver, observer)

    def startService(self) -> None:
        """Start the daemon; a failure is one line on stderr, and status 1."""
        Service.startService(self)
        # Jobs and timeouts must not follow a clock that is set: Twisted's own is
        # time.time.
        self._reactor.seconds = time.monotonic
        self._signals.install()
        try:
            self.daemon.prepare()
        except (FolderError, CannotListenError) as error:
            if not self._twistd.get("nodaemon"):
                raise SystemError(explain(error)) from None  # twistd's parent prints it
            self._failed(explain(error))
        else:
            self.daemon.start()

    def stopService(self) -> Any:
        """Stop the daemon in order; fires when all of it has stopped."""
        Service.stopService(self)
        return self.daemon.stop()

    def _failed(self, reason: str) -> None:
        self._log.error("Cannot start: {reason}", reason=reason)
        print(f"kupool: {reason}", file=sys.__stderr__, flush=True)
        atexit.register(exit_with_failure)
        self._reactor.callWhenRunning(self._reactor.stop)


def makeService(options: Options) -> IService:
    """Return the service of ``twistd kupool``."""
    from twisted.internet import reactor

    twistd: Mapping[str, Any] = getattr(options, "parent", None) or {}
    return Process(reactor, options, twistd)


__all__ = ["Options", "Process", "makeService"]
