"""The limits of a bus across nodes."""

from __future__ import annotations

from dataclasses import dataclass, field

from kupool.amqp.links import LinkSettings
from kupool.bus.members import SILENCE, STEP_DOWN


@dataclass(frozen=True)
class MeshSettings:
    """How nodes live together. Times are in seconds, sizes in bytes.

    Each says that it is there every ``beat``; one that was silent for ``silence`` counts as
    gone. A new one waits up to ``introduction`` for the others to say who they are, a
    subscription up to ``acknowledgement`` for them to have taken it.

    In a node's queue messages wait up to ``message_ttl``, and no more than
    ``max_queue_bytes`` of them; ``prefetch`` of them are under way to the node. A node puts
    up to ``max_batch`` into one message, and keeps up to ``max_unsent`` while RabbitMQ takes
    nothing. It remembers what it answered to the last ``max_remembered`` calls, in case
    they come again.

    A node that is lost is a member of topics until that silence is over, also where its queue
    is gone; one that has not heard its own beat for ``step_down`` counts itself as not heard
    any more, which is sooner.

    Unless a broker is ``required``, a node whose brokers cannot be reached at first, for
    ``patience`` seconds, is there all the same, and joins the others when they can.
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
        """Seconds without its own beat after which a node is not heard by the others."""
        return self.silence * STEP_DOWN / SILENCE

    def __post_init__(self) -> None:
        if not 0 < self.beat < self.silence:
            raise ValueError(f"silence {self.silence!r} is not longer than beat {self.beat!r}")


__all__ = ["MeshSettings"]
