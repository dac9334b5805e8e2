"""What systemd is told."""

from __future__ import annotations

import socket
import sys
import tempfile

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from kupool.daemon.notify import notify


class NotifyTests(SynchronousTestCase):
    """K-85: one datagram to the socket that systemd names, and no harm without one."""

    def listen(self, address: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(sock.close)
        sock.bind(address)
        sock.settimeout(5)
        return sock

    def test_a_socket_with_a_path(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            sock = self.listen(f"{folder}/notify")
            self.assertTrue(notify("READY=1", {"NOTIFY_SOCKET": f"{folder}/notify"}))
            self.assertEqual(sock.recv(100), b"READY=1")

    def test_a_socket_without_one(self) -> None:
        """K-85: @name is a name in the abstract namespace, which containers use."""
        if sys.platform != "linux":
            raise SkipTest("only Linux has sockets without a path")
        name = f"kupool-test-{id(self)}"
        sock = self.listen("\0" + name)
        self.assertTrue(notify("STOPPING=1", {"NOTIFY_SOCKET": "@" + name}))
        self.assertEqual(sock.recv(100), b"STOPPING=1")

    def test_nobody_to_tell(self) -> None:
        self.assertFalse(notify("READY=1", {}))
        self.assertFalse(notify("READY=1", {"NOTIFY_SOCKET": ""}))

    def test_nobody_there(self) -> None:
        """K-85: a manager that went away stops nothing."""
        self.assertFalse(notify("READY=1", {"NOTIFY_SOCKET": "/none/notify"}))
        self.assertFalse(notify("READY=1", {"NOTIFY_SOCKET": "/" + "n" * 200}))
