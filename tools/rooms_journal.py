"""What hosts of rooms write down of their rooms, and whether it can all be so.

Each host writes a line of JSON for whatever a room does, at once, so that a host that is killed
has written it. ``at`` is in seconds of the machine's monotonic clock, the same for all
processes. A *life* is one room object: a room that moves, or is made anew, begins another one.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from kupool.rooms.events import Closing, TakenOver
from kupool.rooms.room import Room
from kupool.rooms.spread.hooks import SpreadHooks
from kupool.session.connection import Connection

#: What was said: who, on which of their connections, and the number that it has there.
Said = tuple[str, int, int]

#: Seconds after a host stood still, or lost the bus, in which its rooms may end.
RECOVERY = 3.0

#: Seconds after a host was killed until the others know it, and send it nothing more.
UNNOTICED = 5.0


@dataclass
class RoomState:
    """A room's data: which life it is, and all that was said in the room."""

    life: str
    said: list[Said] = field(default_factory=list)


class JournaledHooks(SpreadHooks):
    """Takes down what members say, and hands it over with the room.

    A message may have ``room`` and ``user``, which lets its sender in; ``say`` is passed on to
    the other members, ``leave`` ends the membership. Each is answered with the life and how much
    was said.
    """

    def __init__(self, path: Path, host: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._host = host
        self._lives = (f"{host}/{os.getpid()}/{number}" for number in count(1))

    def _note(self, event: str, room: Room, **more: object) -> None:
        line = {"at": time.monotonic(), "event": event, "room": room.code, "life": room.data.life}
        os.write(self._file, json.dumps({**line, **more}).encode() + b"\n")

    def on_parse_user(self, connection: Connection, body: Any) -> object:
        params = body.params
        return (params["room"], params["user"]) if "room" in params else None

    def on_create_room(self, room: Room) -> None:
        room.data = RoomState(next(self._lives))
        self._note("begun", room)

    def on_dispatch_message(self, room: Room, incoming: Any) -> object:
        params, state = incoming.body.params, room.data
        if "say" in params:
            state.said.append(tuple(params["say"]))
            self._note("said", room, said=params["say"])
            room.notify("said", params["say"], without=[incoming.member])
        if params.get("leave"):
            incoming.member.leave()
        return [state.life, len(state.said)]

    def on_dispatch_system_message(self, room: Room, event: object) -> None:
        match event:
            case TakenOver(state):
                # Nothing may have been said before; what was would be seen as lost.
                room.data.said = [tuple(said) for said in json.loads(state or b"[]")]
                self._note("taken", room, said=room.data.said)
            case Closing(reason):
                self._note("ended", room, reason=reason)

    def on_hand_over(self, room: Room) -> bytes:
        self._note("handed", room, said=room.data.said)
        return json.dumps(room.data.said).encode()


@dataclass(frozen=True)
class Trouble:
    """What was done to hosts, by process, from ``begun`` to ``ended``; ``settled`` is when all
    hosts had found each other again.
    """

    kind: str
    pids: frozenset[int]
    begun: float
    ended: float
    settled: float

    def may_lose(self, first: float, last: float) -> bool:
        """Say whether what was on its way from one host to another may be lost by it."""
        if self.kind == "stop":
            return False
        until = self.ended + UNNOTICED if self.kind == "kill" else self.settled
        return self.begun <= last and first <= until


@dataclass
class Life:
    """One room object of a host, as the journals have it."""

    room: str
    name: str
    pid: int
    begun: float
    last: float
    said: list[tuple[float, Said]] = field(default_factory=list)
    taken: list[Said] | None = None
    handed: list[Said] | None = None
    reason: str = ""
    over: bool = False

    @property
    def all_said(self) -> list[Said]:
        """What the room should know at its end."""
        return [*(self.taken or ()), *(said for _, said in self.said)]


def read_journals(paths: Iterable[Path]) -> list[Life]:
    """Return the lives of all rooms, in the order in which they began."""
    lives: dict[str, Life] = {}
    for line in _lines(paths):
        at, event, name = line["at"], line["event"], line["life"]
        life = lives.get(name)
        if life is None:
            life = lives[name] = Life(line["room"], name, int(name.split("/")[1]), at, at)
        life.last = max(life.last, at)
        said: Any = line.get("said")
        if event == "said":
            life.said.append((at, _said(said)))
        elif event == "taken":
            life.taken = [_said(each) for each in said]
        elif event == "handed":
            life.handed, life.over = [_said(each) for each in said], True
        elif event == "ended":
            life.reason, life.over = line["reason"], True
    return sorted(lives.values(), key=lambda life: life.begun)


def _lines(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        for line in path.read_bytes().splitlines():
            try:
                yield json.loads(line)
            except ValueError:  # the end of a host that was killed
                continue


def _said(value: Any) -> Said:
    user, connection, number = value
    return user, connection, number


class Judge:
    """Looks through the lives of all rooms for what must not be.

    ``ends`` is when each process ended. ``answered`` are the messages that were answered, each
    with the life whose answer it was.
    """

    def __init__(
        self,
        lives: list[Life],
        troubles: Iterable[Trouble],
        ends: Mapping[int, float],
        answered: Mapping[Said, str],
    ) -> None:
        self._lives = lives
        self._troubles = tuple(troubles)
        self._ends = ends
        self._answered = answered
        self.problems: list[str] = []
        self.excused: Counter[str] = Counter()

    def judge(self) -> None:
        """Look for everything."""
        self._nothing_twice()
        self._answers()
        rooms: dict[str, list[Life]] = {}
        for life in self._lives:
            rooms.setdefault(life.room, []).append(life)
        for lives in rooms.values():
            self._order(lives)
            self._one_place(lives)
            self._state(lives)

    def _nothing_twice(self) -> None:
        handled = Counter(said for life in self._lives for _, said in life.said)
        for said, times in handled.items():
            if times > 1:
                where = [life.name for life in self._lives for _, s in life.said if s == said]
                self.problems.append(f"{said} was handled {times} times: {where}")

    def _answers(self) -> None:
        lives = {life.name: {said for _, said in life.said} for life in self._lives}
        for said, name in self._answered.items():
            if said not in lives.get(name, ()):
                self.problems.append(f"{said} was answered by {name}, which did not handle it")

    def _order(self, lives: list[Life]) -> None:
        newest: dict[tuple[str, int], int] = {}
        for _, (user, connection, number) in sorted(each for life in lives for each in life.said):
            if number < newest.get((user, connection), 0):
                self.problems.append(f"{user}/{connection} was heard with {number} too late")
            newest[user, connection] = number

    def _end(self, life: Life) -> float:
        return life.last if life.over else self._ends.get(life.pid, life.last)

    def _one_place(self, lives: list[Life]) -> None:
        for n, life in enumerate(lives):
            for other in lives[n + 1 :]:
                first, last = other.begun, min(self._end(life), self._end(other))
                if other.pid == life.pid or first >= last:
                    continue
                # A process that stood still, and goes on, learns only then that it was missed.
                frozen = (
                    trouble
                    for trouble in self._troubles
                    if trouble.kind.startswith("freeze") and trouble.pids & {life.pid, other.pid}
                )
                if any(t.begun <= first and last <= t.ended + RECOVERY for t in frozen):
                    self.excused["in two places for a process that stood still"] += 1
                else:
                    self.problems.append(
                        f"room {life.room} was in two places for {last - first:.3f} s: "
                        f"{life.name} and {other.name}"
                    )

    def _state(self, lives: list[Life]) -> None:
        for n, life in enumerate(lives):
            if life.handed is None:
                if life.reason == "moved" and not self._may_lose(life.last, self._end(life)):
                    self.problems.append(f"{life.name} of room {life.room} was not handed over")
                continue
            if life.handed != life.all_said:
                self.problems.append(f"{life.name} did not hand over all that was said")
            following = next((each for each in lives[n + 1 :] if each.begun >= life.last), None)
            if following is not None and following.taken == life.handed:
                continue
            if following is None and not life.handed:
                continue
            until = life.last if following is None else following.begun
            if self._may_lose(life.last, until):
                self.excused["a state lost in a kill, a freeze or a loss of the bus"] += 1
            else:
                self.problems.append(
                    f"room {life.room}: {life.name} handed over {len(life.handed)} at "
                    f"{life.last:.2f}, but then it was {_shown(following)}"
                )

    def _may_lose(self, first: float, last: float) -> bool:
        return any(trouble.may_lose(first, last) for trouble in self._troubles)


def _shown(life: Life | None) -> str:
    if life is None:
        return "nowhere"
    taken = "nothing" if life.taken is None else len(life.taken)
    return f"{life.name}, from {life.begun:.2f} on, which was given {taken}"


__all__ = ["JournaledHooks", "Judge", "Life", "Said", "Trouble", "read_journals"]
