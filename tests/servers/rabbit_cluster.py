"""A private cluster of RabbitMQ nodes for tests."""

from __future__ import annotations

import contextlib
from urllib.parse import quote, urlsplit

from .own_process import ServerFailed, wait_until
from .rabbit_server import PortMapper, RabbitServer, find_programs


class RabbitCluster:
    """Some RabbitMQ nodes as one cluster, in which a minority pauses. Started on demand."""

    def __init__(self, size: int = 3, *settings: str) -> None:
        find_programs()
        names = [f"kupool{number}" for number in range(1, size + 1)]
        discovery = [
            "cluster_formation.peer_discovery_backend = classic_config",
            *(
                f"cluster_formation.classic_config.nodes.{number} = {name}@localhost"
                for number, name in enumerate(names, 1)
            ),
            "cluster_partition_handling = pause_minority",
        ]
        self._mapper = PortMapper()
        #: The nodes in order; :attr:`RabbitServer.node` is the name of each.
        self.nodes = [
            RabbitServer(*discovery, *settings, name=name, mapper=self._mapper) for name in names
        ]

    def __enter__(self) -> RabbitCluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start all nodes, and wait until every one is a member and ready."""
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_ready()
        running = [one for one in self.nodes[0].api("nodes") if one["running"]]
        if len(running) != len(self.nodes):
            raise ServerFailed(f"{len(running)} of {len(self.nodes)} nodes found each other")

    def new_vhost(self) -> list[str]:
        """Return the AMQP URLs, one of each node, of a fresh virtual host."""
        made: list[str] = []

        def make() -> bool:
            # A cluster of RabbitMQ 3.10 that has just come up sometimes never answers to this;
            # to the next one it does.
            with contextlib.suppress(TimeoutError):
                made.append(urlsplit(self.living()[0].new_vhost(timeout=10)).path[1:])
            return bool(made)

        wait_until(make, "a new virtual host")
        return [node.url(made[0]) for node in self.nodes]

    def living(self) -> list[RabbitServer]:
        """Return the nodes whose process runs."""
        return [node for node in self.nodes if node.process.alive]

    def leader_of(self, queue: str, vhost: str = "/") -> RabbitServer:
        """Return the node that leads a quorum queue or a stream, once there is one."""
        path = f"queues/{quote(vhost, '')}/{quote(queue, '')}"
        found: list[RabbitServer] = []

        def elected() -> bool:
            for asked in self.living():
                with contextlib.suppress(OSError):  # it stands aside, or is paused
                    found_there = asked.api(path, timeout=2)
                    # RabbitMQ 3.10 tells no leader of a stream; its node is the leader's.
                    stream = found_there.get("type") == "stream"
                    name = found_there.get("node" if stream else "leader")
                    found[:] = [node for node in self.living() if node.node == name]
                if found:
                    return True
            return False

        wait_until(elected, f"a leader of {queue}")
        return found[0]

    def kill(self, node: RabbitServer) -> None:
        """End a node with SIGKILL; ``node.start()`` brings it back with its data."""
        node.kill()

    def close(self) -> None:
        """End all nodes and remove their folders."""
        for node in self.nodes:
            node.close()
        self._mapper.close()
