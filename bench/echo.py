"""A bare echo on stock Twisted, which everything else is compared with.

It sends back what it receives, so it moves the same bytes as the pool's clients do. The load
generator accepts an answer only if it contains ``"result":true``, so the echo overwrites the
method's name with that, in the same number of bytes. ``bench/run.py`` measures the cost of this and
subtracts it.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import protocol, reactor

_JOB = (
    b'{"id":null,"method":"job","params":'
    b'{"job_id":1,"server_nonce":"0123456789abcdef0123456789abcdef"}}'
)
JOB_FRAME = b"\x02" + len(_JOB).to_bytes(4, "little") + _JOB

AUTHORIZE = (b'"method":"authorize"', b'"result":true       ')
SUBMIT = (b'"method":"submit"', b'"result":true    ')


class Echo(protocol.Protocol):
    """Sends back what it receives, after a first message that gets a job too."""

    def connectionMade(self) -> None:
        """Send small answers at once, as the pool does."""
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        """Answer the first message and hand out the only job."""
        self.transport.write(data.replace(*AUTHORIZE) + JOB_FRAME)  # type: ignore[union-attr]
        self.dataReceived = self.echo  # type: ignore[method-assign]

    def echo(self, data: bytes) -> None:
        """Send back what came."""
        self.transport.write(data.replace(*SUBMIT))  # type: ignore[union-attr]


def main() -> None:
    """Listen on the port given as the first argument."""
    factory: Any = protocol.Factory.forProtocol(Echo)
    reactor.listenTCP(int(sys.argv[1]), factory, backlog=1024, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main()
