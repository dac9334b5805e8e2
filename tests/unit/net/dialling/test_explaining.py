"""Why a server could not be reached, in words."""

from __future__ import annotations

from errno import ENOENT

from twisted.internet import error as errors
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.trial.unittest import SynchronousTestCase

from kupool.net.dialling.explaining import explained, stranger


class OpenSslError(Exception):
    """One that looks like those of pyOpenSSL."""


OpenSslError.__module__ = "OpenSSL.SSL"


class ExplainedTests(SynchronousTestCase):
    """K-88: the cause in plain words, and no number of an error."""

    def test_each(self) -> None:
        """K-88"""
        for error, text in (
            (errors.ConnectionRefusedError(), "connection refused: nothing listens on this port"),
            (errors.DNSLookupError(), "the name of this host is not known (DNS)"),
            (errors.NoRouteError(), "no route to this host"),
            (errors.TCPTimedOutError(), "no connection in time"),
            (TimedOut(), "no connection in time"),
            (errors.ConnectError(ENOENT), "cannot connect: No such file or directory"),
            (errors.ConnectionDone(), "the server ended the connection"),
            (errors.ConnectionLost(), "the connection was lost"),
            (ValueError("what it says."), "what it says"),
            (ValueError(), "ValueError"),
        ):
            self.assertEqual(explained(error), text)

    def test_tls(self) -> None:
        """K-88: the other side speaks something else, or its certificate is not trusted."""
        for reason, text in (
            ("wrong version number", "the server does not speak TLS on this port"),
            ("certificate verify failed", "the certificate of the server is not trusted"),
            ("no shared cipher", "TLS failed: no shared cipher"),
        ):
            error = OpenSslError([("SSL routines", "", reason)])
            self.assertTrue(explained(error).startswith(text), explained(error))
        self.assertEqual(explained(OpenSslError()), "TLS failed: no reason given")


class StrangerTests(SynchronousTestCase):
    """K-88: a port that speaks something else is told by its first bytes."""

    def test_each(self) -> None:
        """K-88"""
        for framing in ("frame", "int32", "line"):
            self.assertIn("HTTP", stranger(framing, b"HTTP/1.1 400 Bad Request\r\n"))
            self.assertIn("TLS", stranger(framing, b"\x15\x03\x01\x00\x02\x02\x28"))
        self.assertIn("framing line", stranger("frame", b'{"id":1,"result":true}\n'))

    def test_what_may_be_meant(self) -> None:
        self.assertEqual(stranger("line", b'{"id":1,"result":true}\n'), "")
        self.assertEqual(stranger("frame", b"\x02\x16\0\0\0"), "")
        self.assertEqual(stranger("tlv", b"\x15\x03\x01\x00"), "")
