"""What the reader of a page has before the first line, and the page does not make."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs import operations_set_ups
from tests.docs.protocol_peers import protocol
from tests.servers.services import rabbit
from tests.servers.sockets import Peer

#: Opens the connection of a peer in a conversation, given its name; the port is that of the page.
Connect = Callable[["Surroundings", str], Peer]


@dataclass
class Surroundings:
    """A folder like a clone of the project, and what stands in it for what the page names."""

    folder: Path
    #: Variables of the commands' environment.
    env: dict[str, str]
    #: By what the page shows, such as a URL or a folder: what is there instead of it.
    words: dict[str, str] = field(default_factory=dict)
    #: By the port that the page shows: the port that is free here.
    ports: dict[int, int] = field(default_factory=dict)
    #: Opens a connection for a peer of a conversation; None: the page has no conversations.
    connect: Connect | None = None


def _readme(around: Surroundings, _: ExitStack) -> None:
    # What the page shows is the address that the daemon has by default.
    around.env["KUP_ADDR"] = f":{around.ports[8080]}"
    # The environment of the tests is set up, however old it is.
    around.words["make run"] = "make -o .venv/.ready run"


def _log(around: Surroundings, _: ExitStack) -> None:
    # What the page shows is the address that the API has by default.
    around.env["KUP_URL"] = f"http://127.0.0.1:{around.ports[8081]}"


def _bus(around: Surroundings, stack: ExitStack) -> None:
    """RabbitMQ; the peers of one conversation are at our server, of the other at the daemon."""
    around.words["amqp://guest:guest@localhost/"] = rabbit().new_vhost()
    around.connect = lambda here, name: Peer(here.ports[8082 if name in "SP" else 8000])


def _stream(around: Surroundings, stack: ExitStack) -> None:
    """RabbitMQ."""
    around.words["amqp://guest:guest@localhost/"] = rabbit().new_vhost()


#: By page; a page that needs nothing is not here. What is entered into the stack ends with it.
SET_UPS: dict[str, Callable[[Surroundings, ExitStack], None]] = {
    "README.md": _readme,
    "docs/backup.md": operations_set_ups.backup,
    "docs/install.md": operations_set_ups.install,
    "docs/migrate.md": operations_set_ups.migrate,
    "docs/operations.md": operations_set_ups.operations,
    "docs/protocol.md": protocol,
    "docs/store-and-log.md": operations_set_ups.store_and_log,
    "docs/log.md": _log,
    "docs/bus.md": _bus,
    "docs/stream.md": _stream,
}
