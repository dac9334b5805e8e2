"""The operations ``topic.*``."""

from __future__ import annotations

from bisect import bisect_left

from kupool.topics.api.access import (
    MANAGE,
    SUBSCRIBE,
    Caller,
    require_any,
    require_changeable,
    require_creatable,
)
from kupool.topics.api.params import (
    TopicChangeParams,
    TopicCreateParams,
    TopicListParams,
    TopicParams,
)
from kupool.topics.api.values import shown_settings
from kupool.topics.api.world import TopicWorld
from kupool.topics.errors import UnknownTopic
from kupool.topics.settings import TopicSettings, settings_of

#: The most topics in one answer.
PAGE = 100

#: What more partitions mean for those who write keys.
KEYS_MOVE = "records of a key go to another partition than before: their order across is not kept"


async def list_topics(world: TopicWorld, caller: Caller, params: TopicListParams) -> object:
    """Return the topics that the caller may read or manage, from a name on."""
    engine = world.topics.engine
    names = world.topics.names()
    shown: dict[str, int] = {}
    following = None
    for name in names[bisect_left(names, params.start) :]:
        if not (caller.may(SUBSCRIBE, name) or caller.may(MANAGE, name)):
            continue
        if len(shown) == PAGE:
            following = name
            break
        shown[name] = engine.topic(name).partitions
    dead = await world.dead.waiting(shown)
    return {
        "topics": [
            {"topic": name, "partitions": partitions, "dead_letters": dead.get(name, 0)}
            for name, partitions in shown.items()
        ],
        "next": following,
    }


async def create_topic(world: TopicWorld, caller: Caller, params: TopicCreateParams) -> object:
    """Create a topic."""
    require_creatable(caller, params.topic)
    settings = settings_of({**shown_settings(world.defaults), **params.settings})
    await world.topics.create(params.topic, settings)
    return {"topic": params.topic, "settings": shown_settings(settings)}


async def change_topic(world: TopicWorld, caller: Caller, params: TopicChangeParams) -> object:
    """Change settings of a topic."""
    name = params.topic
    require_changeable(caller, name)
    before: TopicSettings | None = world.topics.engine.topic(name)
    if before is None:
        raise UnknownTopic(name)
    after = settings_of({**shown_settings(before), **params.settings})
    await world.topics.change(name, after)
    answer = {"topic": name, "settings": shown_settings(after)}
    if after.partitions > before.partitions:
        answer["warning"] = KEYS_MOVE
    return answer


async def delete_topic(world: TopicWorld, caller: Caller, params: TopicParams) -> object:
    """Delete a topic with its records."""
    require_changeable(caller, params.topic)
    await world.topics.delete(params.topic)
    return True


async def describe_topic(world: TopicWorld, caller: Caller, params: TopicParams) -> object:
    """Return the settings of a topic, and what its partitions hold."""
    require_any(caller, params.topic, SUBSCRIBE, MANAGE)
    found = await world.topics.describe(params.topic)
    dead = await world.dead.waiting([found.name])
    return {
        "topic": found.name,
        "settings": shown_settings(found.settings),
        "partitions": [
            {"partition": number, "low": extent.low, "high": extent.high, "size": extent.size}
            for number, extent in enumerate(found.partitions)
        ],
        "dead_letters": dead.get(found.name, 0),
    }


__all__ = [
    "KEYS_MOVE",
    "PAGE",
    "change_topic",
    "create_topic",
    "delete_topic",
    "describe_topic",
    "list_topics",
]
