"""The four publish methods, for every form of the bus."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred

from kupool.bus.messages import Model, Outcome, Topic


class Models:
    """The publish methods of :class:`~kupool.bus.IBus`, by way of one method."""

    def publish_reliable_random(
        self,
        data: bytes,
        topic: Topic,
        timeout: float | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Deferred[Outcome]:
        """Ask one random subscriber for an answer, and another one if it does not answer."""
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
        """Ask all subscribers; the first answer is the outcome."""
        return self.publish(
            Model.RELIABLE_SPECIFIC, data, topic, timeout=timeout, key=key, headers=headers
        )

    def publish_unreliable_all(
        self, data: bytes, topic: Topic, *, headers: Mapping[str, str] | None = None
    ) -> Deferred[Outcome]:
        """Send to all subscribers; without any, to the first that subscribes in time."""
        return self.publish(Model.UNRELIABLE_ALL, data, topic, headers=headers)

    def publish_unreliable_random(
        self, data: bytes, topic: Topic, *, headers: Mapping[str, str] | None = None
    ) -> Deferred[Outcome]:
        """Send to one random subscriber; without any, to the first that subscribes in time."""
        return self.publish(Model.UNRELIABLE_RANDOM, data, topic, headers=headers)

    def publish(
        self,
        model: Model,
        data: bytes,
        topic: Topic,
        *,
        timeout: float | None = None,
        key: str = ...,  # each form of the bus has a default
        headers: Mapping[str, str] | None = None,
    ) -> Deferred[Outcome]:
        """Publish by a model with that model's arguments, as the method of the model's name
        does.
        """
        raise NotImplementedError


__all__ = ["Models"]
