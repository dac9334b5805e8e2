"""A small ``nc HOST PORT`` for machines without one: standard input there, and back."""

from __future__ import annotations

import socket
import sys
import threading


def main() -> None:
    """Run it; ``-N`` and ``-q SECONDS`` end the sending with the input, as those of nc do."""
    *options, host, port = sys.argv[1:]
    peer = socket.create_connection((host, int(port)))

    def send() -> None:
        while data := sys.stdin.buffer.raw.read(65536):  # type: ignore[attr-defined]
            peer.sendall(data)
        if options:
            peer.shutdown(socket.SHUT_WR)

    threading.Thread(target=send, daemon=True).start()
    while data := peer.recv(65536):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
