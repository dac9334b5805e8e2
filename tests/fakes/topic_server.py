"""A server of topics with the operations of the wire protocol, on topics in memory.

It is what clients of topics are tested against without a daemon: the router of a server, whose
handlers call topics and groups of this process.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from kupool.errors import (
    ALREADY_EXISTS,
    BAD_PARAMS,
    NOT_FOUND,
    NOT_THE_OWNER,
    OFFSET_OUT_OF_RANGE,
    STALE_GENERATION,
    TOO_LARGE,
    UNAUTHORIZED,
    UNAVAILABLE,
    ErrorText,
    RequestError,
)
from kupool.net.manager import ServerSettings
from kupool.net.observer import Observer
from kupool.net.routing.request import Request
from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.session.connection import Connection
from kupool.topics.dead_letters import DeadLetters
from kupool.topics.errors import (
    GroupInUse,
    IllegalGeneration,
    InvalidTopic,
    NotPartitionOwner,
    OffsetOutOfRange,
    RecordTooLarge,
    SequenceTooOld,
    TopicError,
    TopicExists,
    TopicsUnavailable,
    UnknownGroup,
    UnknownMember,
    UnknownPartition,
    UnknownTopic,
)
from kupool.topics.groups import ConsumerGroups, GroupLimits
from kupool.topics.lanes import DeliveredRecord
from kupool.topics.membership import GroupSubscription, MemberBeat, MemberPlace
from kupool.topics.partition import Partition
from kupool.topics.records import NewRecord, Record, Stamp
from kupool.topics.service import Topics
from kupool.topics.settings import settings_of
from tests.fakes.topics import topics_in_memory

_ROWS: dict[type[TopicError], ErrorText] = {
    UnknownTopic: NOT_FOUND,
    UnknownPartition: NOT_FOUND,
    UnknownGroup: NOT_FOUND,
    UnknownMember: NOT_FOUND,
    TopicExists: ALREADY_EXISTS,
    GroupInUse: ALREADY_EXISTS,
    SequenceTooOld: ALREADY_EXISTS,
    InvalidTopic: BAD_PARAMS,
    IllegalGeneration: STALE_GENERATION,
    NotPartitionOwner: NOT_THE_OWNER,
    RecordTooLarge: TOO_LARGE,
    TopicsUnavailable: UNAVAILABLE,
}

Params = Mapping[str, Any]
Answering = Callable[[Params], Any]


class TopicServer:
    """Topics and groups behind a server on a reactor, which may be the network in memory.

    ``answers`` may have other answers by method: a function of the params, whose result is sent.
    ``asked`` has every request, and ``password`` is that of every user.
    """

    def __init__(self, reactor: Any, topics: Topics | None = None) -> None:
        self.reactor = reactor
        self.topics = topics or topics_in_memory(reactor)
        self.groups = ConsumerGroups(self.topics.engine, reactor, GroupLimits())
        self.letters = DeadLetters(self.topics)
        self.answers: dict[str, Answering] = {}
        self.asked: list[tuple[str, Any]] = []
        self.password: str | None = None
        self.router = Router()
        self.router.add("authorize", self._authorize, dict[str, Any])
        for method, handler in self._handlers().items():
            self.router.add(method, self._handler(method, handler), dict[str, Any])
        self.server: Server | None = None

    def _handlers(self) -> dict[str, Answering]:
        return {
            "topic.list": self._list,
            "topic.create": self._create,
            "topic.change": self._change,
            "topic.delete": lambda p: self.topics.delete(p["topic"]).addCallback(lambda _: True),
            "topic.describe": self._describe,
            "log.capabilities": lambda p: self.topics.engine.capabilities._asdict(),
            "log.produce": self.produce,
            "log.fetch": self._fetch,
            "log.offsets": self._offsets,
            "log.dead": self._dead,
            "log.bury": self._bury,
            "log.redrive": lambda p: self.letters.redrive(p["topic"]).addCallback(
                lambda n: {"redriven": n}
            ),
            "log.purge": lambda p: self.letters.purge(p["topic"]).addCallback(
                lambda n: {"purged": n}
            ),
            "group.list": lambda p: self.groups.names().addCallback(lambda n: {"groups": n}),
            "group.join": self._join,
            "group.heartbeat": self._heartbeat,
            "group.leave": self._leave,
            "group.commit": self._commit,
            "group.describe": self._describe_group,
            "group.reset": self._reset,
            "group.delete": lambda p: self.groups.delete(p["group"]).addCallback(lambda _: True),
        }

    # -- serving

    async def listen(self, address: str = "127.0.0.1:8000", **settings: Any) -> int:
        """Serve at an address; returns the port."""
        self.server = Server(self.reactor, Observer(self.router), ServerSettings(**settings))
        await self.server.listen([address])
        port: int = self.server.addresses[0].port
        return port

    async def stop(self, timeout: float = 1.0) -> None:
        """End the server; topics and groups stay."""
        if self.server is not None:
            await self.server.stop(timeout=timeout)

    @property
    def router_methods(self) -> list[str]:
        """The methods that it has."""
        return [str(route.key) for route in self.router.routes]

    def restart_groups(self) -> None:
        """Forget all members, as a daemon that was restarted."""
        self.groups.close()
        self.groups = ConsumerGroups(self.topics.engine, self.reactor, GroupLimits())

    def times(self, method: str) -> int:
        """Return how often a method was called."""
        return sum(name == method for name, _ in self.asked)

    def _authorize(self, connection: Connection, request: Request) -> object:
        self.asked.append(("authorize", request.params))
        if self.password is not None and request.params.get("password") != self.password:
            return UNAUTHORIZED
        return True

    def _handler(self, method: str, handler: Answering) -> Any:
        def handle(connection: Connection, request: Request) -> Deferred[Any]:
            self.asked.append((method, request.params))
            answering = self.answers.get(method, handler)
            return maybeDeferred(answering, request.params).addErrback(_refuse)

        return handle

    # -- topics

    def _list(self, p: Params) -> Any:
        names = [name for name in self.topics.names() if name >= p.get("start", "")]
        entries = [
            {"topic": name, "partitions": self.topics.engine.topic(name).partitions}
            for name in names[:100]
        ]
        return {"topics": entries, "next": names[100] if len(names) > 100 else None}

    async def _create(self, p: Params) -> Any:
        await self.topics.create(p["topic"], settings_of(p.get("settings", {})))
        return self._set(p["topic"])

    async def _change(self, p: Params) -> Any:
        await self.topics.change(p["topic"], settings_of(p["settings"]))
        return self._set(p["topic"])

    def _set(self, topic: str) -> Any:
        return {"topic": topic, "settings": self._settings(topic)}

    def _settings(self, topic: str) -> dict[str, Any]:
        settings = self.topics.engine.topic(topic)
        return {name: getattr(settings, name) for name in settings.__struct_fields__}

    async def _describe(self, p: Params) -> Any:
        found = await self.topics.describe(p["topic"])
        partitions = [
            {"partition": number, **extent._asdict()}
            for number, extent in enumerate(found.partitions)
        ]
        return {**self._set(p["topic"]), "partitions": partitions}

    # -- records

    async def produce(self, p: Params) -> Any:
        """Answer ``log.produce``."""
        stamp = Stamp(p["producer"], p["sequence"]) if p.get("producer") else None
        written = await self.topics.produce(
            p["topic"],
            [_new_record(each) for each in p["records"]],
            partition=p.get("partition"),
            stamp=stamp,
        )
        return {"written": written}

    async def _fetch(self, p: Params) -> Any:
        place = Partition(p["topic"], p["partition"])
        fetched = await self.topics.fetch(
            place, p["offset"], max_bytes=p["max_bytes"], wait=p.get("wait_ms", 0) / 1000
        )
        extent = (await self.topics.engine.extents(p["topic"]))[p["partition"]]
        return {
            "records": [_read_body(record) for record in fetched.records],
            "next": fetched.next_offset,
            "low": extent.low,
            "high": extent.high,
        }

    async def _offsets(self, p: Params) -> Any:
        at = p.get("at", "latest")
        settings = self.topics.engine.topic(p["topic"])
        if settings is None:
            raise UnknownTopic(p["topic"])
        return {
            "offsets": [
                await self._place(at)(Partition(p["topic"], number))
                for number in range(settings.partitions)
            ]
        }

    def _place(self, at: str | int) -> Callable[[Partition], Deferred[int]]:
        if isinstance(at, int):
            return lambda place: self.topics.at_time(place, at / 1000)
        return self.topics.earliest if at == "earliest" else self.topics.latest

    # -- dead letters

    async def _dead(self, p: Params) -> Any:
        letters = await self.letters.letters(p["topic"], p.get("limit", 100))
        return {
            "dead": [
                {
                    "partition": each.partition,
                    "offset": each.offset,
                    "source": {
                        "topic": each.source.topic,
                        "partition": each.source.number,
                        "offset": each.source_offset,
                    },
                    "group": each.group,
                    "reason": each.reason,
                    "attempts": each.attempts,
                    "record": _read_body(each.record),
                }
                for each in letters
            ],
            "next": None,
        }

    async def _bury(self, p: Params) -> Any:
        place = Partition(p["topic"], p["partition"])
        fetched = await self.topics.fetch(place, p["offset"], max_bytes=1)
        delivery = DeliveredRecord(place, fetched.records[0], p["attempts"])
        await self.letters.give_away(p["group"], delivery, Failure(RuntimeError(p["reason"])))
        return True

    # -- groups

    async def _join(self, p: Params) -> Any:
        wanted = GroupSubscription(frozenset(p["topics"]), p["session_timeout_ms"] / 1000)
        return _place(await self.groups.join(p["group"], p["member"], wanted))

    def _leave(self, p: Params) -> Any:
        self.groups.leave(p["group"], p["member"])
        return True

    def _heartbeat(self, p: Params) -> Any:
        holding = p.get("holding")
        held = None if holding is None else frozenset(map(_partition, holding))
        beat = MemberBeat(p["generation"], held)
        return _place(self.groups.heartbeat(p["group"], p["member"], beat))

    async def _commit(self, p: Params) -> Any:
        positions = {_partition(each): each["offset"] for each in p["offsets"]}
        await self.groups.commit(p["group"], p["member"], p["generation"], positions)
        return True

    async def _describe_group(self, p: Params) -> Any:
        found = await self.groups.describe(p["group"])
        return {
            "group": found.name,
            "generation": found.generation,
            "members": [
                {
                    "member": name,
                    "topics": sorted(member.topics),
                    "assigned": _places(member.assigned),
                    "revoked": _places(member.revoked),
                    "session_timeout_ms": int(member.session_timeout * 1000),
                    "last_seen_ms": 0,
                }
                for name, member in found.members.items()
            ],
            "positions": [
                {"topic": place.topic, "partition": place.number, **position._asdict()}
                for place, position in found.positions.items()
            ],
        }

    async def _reset(self, p: Params) -> Any:
        before = await self.groups.committed(p["group"])
        after = await self.groups.reset(
            p["group"], p["topic"], self._place(p["at"]), dry_run=p.get("dry_run", False)
        )
        return {
            "offsets": [
                {"partition": place.number, "before": before.get(place), "after": offset}
                for place, offset in after.items()
            ]
        }


def _refuse(failure: Failure) -> ErrorText:
    error = failure.value
    if isinstance(error, RequestError):
        return error.error
    if isinstance(error, OffsetOutOfRange):
        return ErrorText(
            OFFSET_OUT_OF_RANGE.code,
            f"{OFFSET_OUT_OF_RANGE.text}: low={error.low} high={error.high}",
        )
    row = _ROWS.get(type(error))  # type: ignore[arg-type]
    if row is None:
        failure.raiseException()
        raise AssertionError
    return row.about(str(error))


def _new_record(body: Params) -> NewRecord:
    value, key = body["value"].encode(), body.get("key")
    raw_key = None if key is None else key.encode()
    if body.get("base64"):
        value = b64decode(value)
        raw_key = None if raw_key is None else b64decode(raw_key)
    return NewRecord(value, raw_key, body.get("headers", {}), body.get("timestamp"))


def _read_body(record: Record) -> dict[str, Any]:
    body: dict[str, Any] = {"offset": record.offset, "timestamp": record.timestamp}
    try:
        body["value"] = record.value.decode()
        if record.key is not None:
            body["key"] = record.key.decode()
    except UnicodeDecodeError:
        body["value"], body["base64"] = b64encode(record.value).decode(), True
        if record.key is not None:
            body["key"] = b64encode(record.key).decode()
    if record.headers:
        body["headers"] = dict(record.headers)
    return body


def _partition(entry: Params) -> Partition:
    return Partition(entry["topic"], entry["partition"])


def _places(partitions: frozenset[Partition]) -> list[dict[str, Any]]:
    return [{"topic": each.topic, "partition": each.number} for each in sorted(partitions)]


def _place(place: MemberPlace) -> dict[str, Any]:
    return {
        "member": place.member_id,
        "generation": place.generation,
        "assigned": _places(place.assigned),
        "revoked": _places(place.revoked),
    }
