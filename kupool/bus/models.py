"""The four models as methods, for every form of the bus."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred

from kupool.bus.messages import Model, Outcome, Topic


class Models:
    """What :class:`~kupool.bus.IBus` says of publishing, by way of one method."""

    def publish_reliable_random(
        self,
        data: bytes,
        topic: Topic,
        timeout: float | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Deferred[Outcome]:
        """Have one subscriber, chosen at random, answer; another, where it does not."""
        return self.publish(Model.RELIABLE_RANDOM, data, topic, timeout=timeout, headers=headers)

    def publish_reliable_specific(
        self,
        data: bytes,
        topic: Topic,
        timeout: float | None = None,
        *,
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Deferred[Outcome]:
        """Have the one subscriber answer that can: all get it, the first answer counts."""
        return self.publish(
            Model.RELIABLE_SPECIFIC, data, topic, timeout=timeout, key=key, headers=headers
        )

    def publish_unreliable_all(
        self, data: bytes, topic: Topic, *, headers: Mapping[str, str] | None = None
    ) -> Deferred[Outcome]:
        """Send to every subscriber there is, or to the first that comes in time."""
        return self.publish(Model.UNRELIABLE_ALL, data, topic, headers=headers)

    def publish_unreliable_random(
        self, data: bytes, topic: Topic, *, headers: Mapping[str, str] | None = None
    ) -> Deferred[Outcome]:
        """Send to one subscriber, chosen at random, or to the first that comes in time."""
        return self.publish(Model.UNRELIABLE_RANDOM, data, topic, headers=headers)

    def publish(
        self,
        model: Model,
        data: bytes,
        topic: Topic,
        *,
        timeout: float | None = None,
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Deferred[Outcome]:
        """Publish by a model, with what that takes; as the method of its name does."""
        raise NotImplementedError


__all__ = ["Models"]
