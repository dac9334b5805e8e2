"""An in-memory network with a fake clock, for tests of code that uses kupool.net.

:class:`MemoryNetwork` is both: pass it to a server and a client as their reactor. It uses
no sockets, time passes only by :meth:`MemoryNetwork.advance`, and every run is the same::

    network = MemoryNetwork()
    server = Server(network, Observer(router))
    network.run(server.listen([":8000"]))
    peer = network.connect(8000)
    assert peer.ask("echo", "hello") == {"id": 1, "result": "hello"}
"""

from __future__ import annotations

from kupool.net.testing.network import MemoryNetwork, NeverAtRest
from kupool.net.testing.peer import MemoryPeer
from kupool.net.testing.transport import MemoryTransport

__all__ = ["MemoryNetwork", "MemoryPeer", "MemoryTransport", "NeverAtRest"]
