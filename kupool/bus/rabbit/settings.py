"""The limits of a bus across nodes."""

from __future__ import annotations

from dataclasses import dataclass, field

from kupool.amqp.links import LinkSettings
from kupool.bus.members import SILENCE, STEP_DOWN


@dataclass(frozen=True)
class MeshSettings:
    """Limits and times of nodes. Times are in seconds, sizes in bytes.

    A node sends a heartbeat every ``beat``, and counts as gone after ``silence`` without one. A new
    node waits up to ``introduction`` for the state of the others. A subscription waits up to
    ``acknowledgement`` for the others to apply it.

    Messages wait in a node's queue for up to ``message_ttl``, at most ``max_queue_bytes`` of them;
    ``prefetch`` of them are on their way to the node. A node puts up to ``max_batch`` into one
    message, and keeps up to ``max_unsent`` while RabbitMQ accepts nothing. It remembers its answers
    to the last ``max_remembered`` calls, in case they are sent again.

    The subscribers of a lost node stay members of topics until its ``silence`` is over, even if its
    queue is gone. A node that has not received its own heartbeat for ``step_down`` assumes that
    others do not hear it; ``step_down`` is shorter than ``silence``.

    Unless a broker is ``required``, a node that cannot reach RabbitMQ for ``patience`` seconds
    starts anyway, and joins the others when it can.
    """

    beat: float = 1.0
    silence: float = SILENCE
    introduction: float = 1.0
    acknowledgement: float = 2.0
    message_ttl: float = 10.0
    max_queue_bytes: int = 64 * 1024 * 1024
    prefetch: int = 100
    max_batch: int = 128 * 1024
    max_unsent: int = 16 * 1024 * 1024
    max_remembered: int = 1000
    required: bool = True
    patience: float = 2.0
    link: LinkSettings = field(default_factory=LinkSettings)

    @property
    def step_down(self) -> float:
        """Seconds without its own heartbeat after which a node assumes that others do not hear
        it.
        """
        return self.silence * STEP_DOWN / SILENCE

    def __post_init__(self) -> None:
        if not 0 < self.beat < self.silence:
            raise ValueError(f"silence {self.silence!r} is not longer than beat {self.beat!r}")


__all__ = ["MeshSettings"]
