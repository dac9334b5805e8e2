"""The outgoing messages of a node, gathered and sent once in each reactor turn."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from kupool.bus.messages import Message
from kupool.bus.rabbit.carrier import EVERYBODY, ICarrier
from kupool.bus.rabbit.items import NodeItem, Tell, TellAll, encode, pack
from kupool.bus.rabbit.settings import MeshSettings
from kupool.timing.chunks import Chunks

#: Bytes that a message and the name of a subscriber count as, besides the data.
_OVERHEAD = 200
_NAME = 40


class _Box:
    """The encoded items for one address, and how long they are of use."""

    __slots__ = ("life", "pieces")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.life = 0.0


class _Telling:
    """An unreliable message, with the nodes and subscribers to send it to by address."""

    __slots__ = ("message", "targets")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.targets: dict[str, tuple[str, list[str]]] = {}


class Outgoing:
    """Packs outgoing items into few messages, in the right order for each node.

    ``nodes`` returns the number of other nodes. While the carrier accepts nothing, :meth:`full`
    limits the calls and unreliable messages that wait. If everything else grows too large as well,
    the connection is closed.
    """

    def __init__(
        self,
        clock: IReactorTime,
        carrier: ICarrier,
        settings: MeshSettings,
        nodes: Callable[[], int],
    ) -> None:
        self._carrier = carrier
        self._settings = settings
        self._nodes = nodes
        #: Boxes by address, in rounds; in each round the items for all nodes are sent first.
        self._rounds: list[dict[str, _Box]] = [{}]
        self._telling: list[_Telling] = []
        self._chunks = Chunks(clock, self._turn)
        #: Bytes that wait.
        self.size = 0

    def full(self, size: int) -> bool:
        """Return whether there is no room for a message of this many bytes."""
        return self.size + size > self._settings.max_unsent

    def add(self, address: str, item: NodeItem, life: float = 0.0) -> None:
        """Send an item, which expires after ``life`` seconds; 0 means as late as possible."""
        if self._telling:
            self._put_telling()
        self._add(address, encode(item), life or self._settings.message_ttl)
        self._chunks.wake()

    def tell(self, address: str, node: str, subscriber: str, message: Message) -> None:
        """Send an unreliable message to one more subscriber of a node."""
        telling = self._telling[-1] if self._telling else None
        if telling is None or telling.message is not message:
            telling = _Telling(message)
            self._telling.append(telling)
            self.size += len(message.data) + _OVERHEAD
        target = telling.targets.get(address)
        if target is None:
            target = telling.targets[address] = (node, [])
        target[1].append(subscriber)
        self.size += _NAME
        self._chunks.wake()

    def flush(self) -> None:
        """Send everything that waits, unless the carrier accepts nothing now."""
        if not self._carrier.writable:
            if self.size > 2 * self._settings.max_unsent:
                self.clear()
                self._carrier.drop("RabbitMQ accepts no data on this connection")
            return
        self._put_telling()
        rounds, self._rounds = self._rounds, [{}]
        self.size = 0
        for boxes in rounds:
            for address, box in boxes.items():
                self._send(address, box)

    def clear(self) -> None:
        """Discard everything that waits."""
        self._rounds = [{}]
        self._telling.clear()
        self.size = 0

    def _add(self, address: str, piece: bytes, life: float) -> None:
        boxes = self._rounds[-1]
        if address == EVERYBODY and any(other != EVERYBODY for other in boxes):
            boxes = {}
            self._rounds.append(boxes)
        box = boxes.get(address)
        if box is None:
            box = boxes[address] = _Box()
        box.pieces.append(piece)
        box.life = max(box.life, life)
        self.size += len(piece)

    def _turn(self) -> bool:
        self.flush()
        return False

    def _put_telling(self) -> None:
        """Send the unreliable messages, by fanout if more than half of the nodes have
        subscribers.
        """
        telling, self._telling = self._telling, []
        life, half = self._settings.message_ttl, self._nodes() / 2
        if any(len(t.targets) > max(1, half) for t in telling):
            for told in telling:
                item = TellAll(told.message, dict(told.targets.values()))
                self._add(EVERYBODY, encode(item), life)
            return
        for told in telling:
            for address, (_, subscribers) in told.targets.items():
                self._add(address, encode(Tell(told.message, subscribers)), life)

    def _send(self, address: str, box: _Box) -> None:
        batch: list[bytes] = []
        size = 0
        for piece in box.pieces:
            if batch and size + len(piece) > self._settings.max_batch:
                self._carrier.send(address, pack(batch), box.life)
                batch, size = [], 0
            batch.append(piece)
            size += len(piece)
        self._carrier.send(address, pack(batch), box.life)


__all__ = ["Outgoing"]
