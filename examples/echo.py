"""Answers every request ``echo`` with its own params, in whichever framing it comes.

Start it with ``python examples/echo.py --port 8000``, then say ``nc localhost 8000`` and
``{"id":1,"method":"echo","params":"hello"}``. Ctrl-C ends it.
"""

import argparse
from typing import Any

from twisted.internet import defer, task

from kupool.net import observer, router, server

methods = router.Router()
methods.add("echo", lambda connection, request: request.params, object)


async def main(reactor: Any, port: int) -> None:
    """Serve until the process is told to stop."""
    echo = server.Server(reactor, observer.Observer(methods), addresses=[f"127.0.0.1:{port}"])
    echo.after_start(lambda started: print(f"listening on {started.port}", flush=True))
    reactor.addSystemEventTrigger("before", "shutdown", lambda: defer.ensureDeferred(echo.stop()))
    await echo.serve()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="where to listen; 0: any")
    task.react(main, [parser.parse_args().port])
