"""Print the records of a topic as a member of a consumer group, with nothing but HTTP.

``python examples/http_consumer.py TOPIC GROUP``; Ctrl-C ends it. KUP_TOKEN is a token, or the
secret of the daemon's machine; KUP_URL says where the HTTP API is. Started several times, the
members share the partitions. A record is committed after it was printed: none is missed when a
member or the daemon restarts, and one may be printed twice. docs/log.md describes the operations.
"""

import base64
import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

URL = os.environ.get("KUP_URL", "http://127.0.0.1:8081")
SESSION = 10.0  # seconds without a heartbeat after which others get our partitions
NOT_FOUND, STALE_GENERATION, OUT_OF_RANGE, NOT_OWNER = 35, 39, 40, 41


class Refused(Exception):
    """The daemon answered with an error; ``code`` is that of the error table."""

    def __init__(self, status: int, answer: dict[str, Any]) -> None:
        super().__init__(answer.get("error", f"status {status}"))
        self.status = status
        self.code = answer.get("code")


def call(operation: str, **params: object) -> Any:
    """Call an operation and return its result; raises Refused, or OSError without an answer."""
    token = os.environ["KUP_TOKEN"]
    request = urllib.request.Request(
        f"{URL}/api/{operation.replace('.', '/')}",
        data=json.dumps(params).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            raise Refused(error.code, json.load(error)) from None


class Member:
    """A member of a group that reads one topic."""

    def __init__(self, topic: str, group: str) -> None:
        self.topic = topic
        self.group = group
        self.us: dict[str, object] = {}  # our name and generation, as operations take them
        self.assigned: list[dict[str, Any]] = []
        self.beaten = 0.0  # when the group heard from us, in seconds of time.monotonic()
        self.next: dict[int, int] = {}  # by partition: the offset to read next

    def join(self) -> None:
        """Join the group; it decides who reads which partitions."""
        timeout = int(SESSION * 1000)
        topics = [self.topic]
        us = {"member": self.us["member"]} if self.us else {}
        params = {"topics": topics, "session_timeout_ms": timeout, **us}
        self.take(call("group.join", group=self.group, **params))
        print(f"joined as {self.us['member']}", file=sys.stderr, flush=True)

    def beat(self) -> None:
        """Stay a member, learn what is ours now, and give back what is not any more."""
        params = {"group": self.group, "holding": self.assigned, **self.us}
        self.take(call("group.heartbeat", **params))

    def leave(self) -> None:
        """Leave the group, so that the others need not wait for the session to end."""
        call("group.leave", group=self.group, member=self.us["member"])

    def take(self, place: dict[str, Any]) -> None:
        if place["generation"] != self.us.get("generation"):
            self.next.clear()  # another member may have read on
        self.us = {"member": place["member"], "generation": place["generation"]}
        self.assigned, self.beaten = place["assigned"], time.monotonic()

    def work(self) -> None:
        """Read from each of our partitions once."""
        if time.monotonic() - self.beaten > SESSION / 4:
            self.beat()
        if not self.assigned:
            time.sleep(0.5)
        for place in self.assigned:
            self.read(place["partition"])

    def read(self, partition: int) -> None:
        """Print some records of a partition, and commit them; waits a little for new ones."""
        place = {"topic": self.topic, "partition": partition}
        if partition in self.next:
            start: dict[str, object] = {"offset": self.next[partition]}
        else:
            start = {"group": self.group}  # where the group reads next
        try:
            found = call("log.fetch", **place, **start, wait_ms=500)
        except Refused as error:
            if error.code != OUT_OF_RANGE:
                raise
            found = call("log.fetch", **place, at="earliest")  # older records were dropped
        for record in found["records"]:
            text: str = record["value"]
            if record.get("base64"):
                text = base64.b64decode(text).decode(errors="replace")
            print(f"{partition}/{record['offset']} {text}", flush=True)
        if found["records"]:
            offsets = [{**place, "offset": found["next"]}]
            call("group.commit", group=self.group, offsets=offsets, **self.us)
        self.next[partition] = found["next"]


def work(member: Member) -> None:
    """Print records until the daemon refuses for good."""
    wait, joined = 1.0, False
    while True:
        try:
            if not joined:
                member.join()
                joined = True
            member.work()
            wait = 1.0
            continue
        except Refused as error:
            if error.code in (STALE_GENERATION, NOT_OWNER):
                member.beaten = 0.0  # the group has changed: a heartbeat tells how
                continue
            if error.code == NOT_FOUND and joined:
                joined = False  # the daemon was restarted, or did not hear from us in time
                continue
            if error.status not in (429, 503):
                sys.exit(f"refused: {error}")
        except OSError as error:
            print(f"no answer: {error}", file=sys.stderr, flush=True)
        time.sleep(wait)
        wait = min(2 * wait, 30.0)


def main(topic: str, group: str) -> None:
    """Print records until Ctrl-C."""
    member = Member(topic, group)
    try:
        work(member)
    except KeyboardInterrupt:
        if member.us:
            member.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
