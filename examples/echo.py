"""Answers every request ``echo`` with its own params, in whichever framing it comes.

Start it with ``python examples/echo.py --port 8000``, then say ``nc localhost 8000`` and
``{"id":1,"method":"echo","params":"hello"}``. Ctrl-C ends it.
"""

import argparse
from typing import Any

from kupool.net.command import run
from kupool.net.observer import Observer
from kupool.net.router import Router
from kupool.net.server import Server

router = Router()
router.add("echo", lambda connection, request: request.params, object)


def make(reactor: Any, arguments: argparse.Namespace) -> Server:
    """Return the server, which has not been started."""
    return Server(reactor, Observer(router))


if __name__ == "__main__":
    run(make, __doc__)
