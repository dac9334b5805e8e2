"""The ``twistd kupool`` plugin: its options, and the service that it runs."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from twisted.application.service import IService, Service
from twisted.cred import strcred
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.logger import ILogObserver, Logger

from kupool.daemon.checks import check
from kupool.daemon.observer import Level, make_observer
from kupool.daemon.service import CannotStart, Daemon
from kupool.daemon.signals import Signals, exit_with_failure
from kupool.masking import mask
from kupool.net.clock import use_monotonic
from kupool.options import SettingOptions
from kupool.printable import printable
from kupool.settings import Loaded, SettingError, load


class Options(SettingOptions, strcred.AuthOptionMixin):
    """The options of ``twistd kupool``."""

    synopsis = "[options]"
    longdesc = (
        "Hands out jobs over long-lived connections, verifies every result that comes back, "
        "and counts each accepted one exactly once. Every flag may also be given as the "
        "environment variable in brackets, or in the file named by --config; "
        "'kupool config' shows each value and where it came from."
    )
    supportedInterfaces = (IUsernamePassword,)

    def postOptions(self) -> None:
        """Load the settings; an error ends the process with one line."""
        SettingOptions.postOptions(self)
        try:
            self.loaded = self.read()
        except SettingError as error:
            raise SystemExit(f"kupool: {printable(str(error))}") from None

    def read(self) -> Loaded:
        """Read the settings, as at the start; raises :class:`SettingError`."""
        loaded = load(self.flags, os.environ)
        check(loaded)
        return loaded


def make_checkers(loaded: Loaded, reactor: Any) -> list[ICredentialsChecker]:
    """Return the checkers that ``--auth`` names; raises :class:`SettingError`."""
    checkers = []
    for description in loaded.settings.listen.auth:
        try:
            checkers.append(_make_checker(description, reactor))
        except (ValueError, LookupError, OSError, strcred.StrcredException) as error:
            raise SettingError(
                f"auth: {mask(description)!r}: {error or type(error).__name__} "
                f"(from {loaded.sources['auth']})"
            ) from None
    return checkers


def _make_checker(description: str, reactor: Any) -> ICredentialsChecker:
    kind, _, argument = description.partition(":")
    if kind == "file" and argument:
        return _file_checker(argument, reactor)
    try:
        checker: ICredentialsChecker = strcred.makeChecker(description)
    except strcred.InvalidAuthType:
        known = sorted({factory.authType for factory in strcred.findCheckerFactories()})
        raise ValueError(f"no such kind of checker, there are {', '.join(known)}") from None
    if IUsernamePassword not in checker.credentialInterfaces:
        raise ValueError("it does not check passwords")
    return checker


def _file_checker(path: str, reactor: Any) -> ICredentialsChecker:
    """Return our own checker of a file; Twisted's supports only plain text."""
    from kupool.accounts.checker import AccountChecker  # off by default
    from kupool.accounts.file import AccountFile
    from kupool.accounts.watcher import AccountWatcher

    try:
        return AccountChecker(reactor, AccountWatcher(reactor, AccountFile(path)))
    except OSError as error:
        raise ValueError(error.strerror) from None


class AlreadySaid(Exception):
    """The start failed, and the background process has already printed why."""


class _StderrOfParent:
    """Standard error of the parent of the background process.

    It does not repeat what that process has already printed.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write text, unless it was already printed."""
        if AlreadySaid.__name__ not in text:
            self._stream.write(text)

    def flush(self) -> None:
        """Write what is buffered."""
        self._stream.flush()


def pid_file_problem(twistd: Mapping[str, Any]) -> str:
    """Return why twistd could not write its pid file; empty if it could."""
    name = twistd.get("pidfile")
    if not name or twistd.get("chroot"):
        return ""
    path = os.path.abspath(os.path.join(twistd.get("rundir") or ".", name))
    folder = os.path.dirname(path)
    if os.path.isdir(path):
        reason = "this is a folder"
    elif not os.path.isdir(folder):
        reason = f"there is no folder {folder}"
    elif not os.access(path if os.path.exists(path) else folder, os.W_OK):
        reason = f"no permission to write to {path if os.path.exists(path) else folder}"
    else:
        return ""
    return (
        f"process id file {path}: {reason}; name another with 'twistd --pidfile=FILE kupool', use "
        "--pidfile= for none, or start in a folder that you may write to"
    )


class Process(Service):
    """The daemon as a process: its log, its signals and its exit status.

    ``twistd`` are the options before the command. The object is made before the process
    goes into the background, and started afterwards.
    """

    _log = Logger()

    def __init__(self, reactor: Any, options: Options, twistd: Mapping[str, Any]) -> None:
        self._reactor = reactor
        self._twistd = twistd
        settings = options.loaded.settings
        self._format = settings.process.log_format
        self._level = Level(settings.process.log_level)
        self._stderr: int | None = None
        with suppress(OSError):  # it may have been closed
            self._stderr = os.dup(2)
        self.daemon = Daemon(
            reactor,
            options.loaded,
            checkers=make_checkers(options.loaded, reactor),
            failed=self._failed,
            level=self._level.set,
            read=options.read,
        )
        self._signals = Signals(reactor, self.daemon.reload)

    def setServiceParent(self, parent: Any) -> None:
        """Join the application, and become its logger."""
        Service.setServiceParent(self, parent)
        try:
            observer = make_observer(self._format, self._level, self._twistd, self._reactor)
        except OSError as error:
            name = os.path.abspath(self._twistd.get("logfile") or "twistd.log")
            raise SystemExit(
                f"kupool: log file {name}: {error.strerror}; name another with "
                "'twistd --logfile=FILE kupool', or start in a folder that you may write to"
            ) from None
        problem = pid_file_problem(self._twistd)
        if problem:
            raise SystemExit(f"kupool: {problem}")
        if not self._twistd.get("nodaemon"):
            sys.__stderr__ = _StderrOfParent(sys.__stderr__)  # type: ignore[misc, assignment]
        if observer is not None:
            parent.setComponent(ILogObserver, observer)

    def startService(self) -> None:
        """Start the daemon; a failure is one line on stderr, and exit status 1."""
        Service.startService(self)
        self._signals.install()
        try:
            self.daemon.prepare()
        except CannotStart as error:
            self._failed(str(error))
            if not self._twistd.get("nodaemon"):
                sys.excepthook = lambda *_: None  # the reason was already printed
                raise AlreadySaid from None  # gives twistd's parent its exit status
        else:
            if not self._twistd.get("nodaemon"):
                self._let_go_of_stderr()
            self.daemon.start()

    def stopService(self) -> Any:
        """Stop the daemon in order; fires when everything has stopped."""
        Service.stopService(self)
        return self.daemon.stop()

    def _failed(self, reason: str) -> None:
        self._log.error("Cannot start: {reason}", reason=reason)
        if self._stderr is not None and not self._logs_to(self._stderr):
            os.write(self._stderr, f"kupool: {printable(reason)}\n".encode())
        self._let_go_of_stderr()
        atexit.register(exit_with_failure)
        self._reactor.callWhenRunning(self._stop)

    def _logs_to(self, descriptor: int) -> bool:
        """Return whether the log goes to a descriptor, so that nothing is printed twice."""
        if not self._twistd.get("nodaemon") or self._twistd.get("logfile") not in (None, "", "-"):
            return False
        if self._twistd.get("logger") or self._twistd.get("syslog"):
            return False
        try:
            return os.path.sameopenfile(1, descriptor)
        except OSError:
            return False

    def _let_go_of_stderr(self) -> None:
        """Detach from the terminal, if there is one."""
        if self._stderr is not None:
            os.close(self._stderr)
            self._stderr = None

    def _stop(self) -> None:
        if self._reactor.running:
            self._reactor.stop()


def makeService(options: Options) -> IService:
    """Return the service of ``twistd kupool``."""
    from twisted.internet import reactor

    # Do this first: objects made later may keep a reference to the method.
    use_monotonic(reactor)
    twistd: Mapping[str, Any] = getattr(options, "parent", None) or {}
    try:
        return Process(reactor, options, twistd)
    except SettingError as error:
        raise SystemExit(f"kupool: {printable(str(error))}") from None


__all__ = ["AlreadySaid", "Options", "Process", "makeService", "pid_file_problem"]
