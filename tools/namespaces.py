"""Network namespaces of Linux for a test: a server, and others who reach it from addresses of
their own. Needs root, and ``ip`` of iproute2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress

#: The first two bytes of the addresses; the third one says whose link it is.
_NETWORK = "10.231"


class NoNamespaces(Exception):
    """This machine has no network namespaces for us; says why."""


class Namespaces:
    """A namespace for the server, and one for each of the others, linked to the server's.

    A context manager, which removes them again. Entering raises :class:`NoNamespaces`.
    """

    def __init__(self, others: tuple[str, ...]) -> None:
        self._mark = f"kp{os.getpid()}"
        self._others = others

    def __enter__(self) -> Namespaces:
        if shutil.which("ip") is None:
            raise NoNamespaces("there is no command 'ip' (iproute2)")
        if os.geteuid() != 0:
            raise NoNamespaces("only root makes them")
        try:
            self._make()
        except subprocess.CalledProcessError as error:
            self.__exit__()
            raise NoNamespaces(error.stderr.strip() or str(error)) from None
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("server", *self._others):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", self._name(name))

    def prefix(self, name: str) -> tuple[str, ...]:
        """Return what a command line begins with to run in a namespace."""
        return ("ip", "netns", "exec", self._name(name))

    def address(self, name: str) -> str:
        """Return the address of one of the others."""
        return f"{_NETWORK}.{self._others.index(name) + 1}.2"

    def server_address(self, name: str) -> str:
        """Return the address at which one of the others reaches the server."""
        return f"{_NETWORK}.{self._others.index(name) + 1}.1"

    def _name(self, name: str) -> str:
        return f"{self._mark}-{name}"

    def _make(self) -> None:
        server = self._name("server")
        _ip("netns", "add", server)
        _ip("-n", server, "link", "set", "lo", "up")
        # As wide as the others' connections together.
        self._sysctl("server", "net.core.somaxconn=4096", "net.ipv4.tcp_max_syn_backlog=8192")
        for number, name in enumerate(self._others):
            space, near, far = self._name(name), f"{self._mark}s{number}", f"{self._mark}o{number}"
            _ip("netns", "add", space)
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("link", "add", near, "netns", server, "type", "veth", "peer", "name", far,
                "netns", space)  # fmt: skip
            for owner, device, address in (
                (server, near, self.server_address(name)),
                (space, far, self.address(name)),
            ):
                _ip("-n", owner, "address", "add", f"{address}/24", "dev", device)
                _ip("-n", owner, "link", "set", device, "up")
            self._sysctl(name, "net.ipv4.ip_local_port_range=1024 65000", "net.ipv4.tcp_tw_reuse=1")

    def _sysctl(self, name: str, *values: str) -> None:
        command = [*self.prefix(name), "sysctl", "--quiet", "--write", *values]
        subprocess.run(command, check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


__all__ = ["Namespaces", "NoNamespaces"]
