"""The routes about what clients do, without a socket."""

from __future__ import annotations

from kupool.activity.requests import RunningTotals
from tests.fakes.activity_site import ActivityCase
from tests.fakes.pool_fixture import FRAME


class ActivityRoutesTests(ActivityCase):
    """A-53, A-55, A-59: the routes, and what each role sees."""

    def test_sessions(self) -> None:
        """A-53: searched, sorted, a page at a time."""
        for name in ("alice.Rig1", "alice.rig2", "bob"):
            self.bench.connect().authorize(name).submit(name)
        found = self.get("/api/sessions?search=RIG&sort=username&limit=1").json
        self.assertEqual(found["total"], 2)
        (session,) = found["sessions"]
        self.assertEqual(
            {name: session[name] for name in ("username", "user", "worker", "accepted", "framing")},
            {
                "username": "alice.Rig1",
                "user": "alice",
                "worker": "Rig1",
                "accepted": 1,
                "framing": "line",
            },
        )
        self.assertEqual(session["since"], "2027-01-15T08:00:00.000Z")
        names = [
            each["username"]
            for each in self.get("/api/sessions?sort=username&order=desc").json["sessions"]
        ]
        self.assertEqual(names, ["bob", "alice.rig2", "alice.Rig1"])
        self.assertEqual(self.get("/api/sessions?search=192.0.2").json["total"], 3)
        self.assertEqual(self.get("/api/sessions?user=bob").json["total"], 1)

    def test_what_workers_see(self) -> None:
        """Issue 18, acceptance 1: their own data, and nobody else's."""
        for name in ("alice.rig1", "alice", "bob"):
            self.bench.connect().authorize(name)
        mine = self.get("/api/sessions?search=", "alice").json
        self.assertEqual({each["user"] for each in mine["sessions"]}, {"alice"})
        self.assertEqual(mine["total"], 2)
        self.assertEqual(self.get("/api/sessions?search=bob", "alice").json["total"], 0)
        users = self.get("/api/users?search=bob", "alice").json
        self.assertEqual([each["user"] for each in users["users"]], ["alice"])
        for path in ("/api/sessions", "/api/sessions/ended"):
            self.refused(
                self.get(f"{path}?user=bob", "alice"),
                403,
                "forbidden: alice sees the sessions of alice alone",
            )
        for path in ("/api/requests", "/api/overview", "/api/audit"):
            self.assertEqual(self.get(path, "alice").code, 403)
        for path in ("/api/sessions/close", "/api/bans/add"):
            self.assertEqual(self.post(path, {"user": "alice"}, "alice").code, 403)

    def test_users(self) -> None:
        """A-53: what all sessions of a user did, and how many users were forgotten."""
        for name in ("a", "b", "c"):
            self.bench.connect().authorize(name).leave()
        peer = self.bench.connect().authorize("alice.rig1")
        peer.submit("x")
        found = self.get("/api/users?sort=bytes").json
        self.assertEqual((found["total"], found["forgotten"]), (3, 1))
        alice = found["users"][0]
        self.assertEqual(
            alice,
            {
                "user": "alice",
                "sessions": 1,
                "workers": 1,
                "accepted": 1,
                "rejected": 0,
                "messages_in": 2,
                "messages_out": 3,
                "bytes_in": peer.connection.bytes_in,
                "bytes_out": peer.connection.bytes_out,
                "last_seen": alice["last_seen"],
            },
        )

    def test_requests(self) -> None:
        """A-55: by minute and method."""
        self.totals = RunningTotals({"submit": 5, "ping": 1}, 4, {"late": 1})
        self.requests.answered(0.25)
        self.assertEqual(
            self.get("/api/requests?minutes=1").json,
            {
                "minutes": [
                    {
                        "minute": "2027-01-15T08:00:00Z",
                        "methods": {"submit": 5, "ping": 1},
                        "accepted": 4,
                        "rejected": 1,
                        "latency_ms": {"p50": 250.0, "p99": 250.0},
                    }
                ]
            },
        )

    def test_names_with_html(self) -> None:
        """Issue 18, bad input: names are data."""
        name = "<script>alert(1)</script>.<b>"
        self.bench.connect().authorize(name)
        answer = self.get("/api/sessions")
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(answer.json["sessions"][0]["username"], name)

    def test_wrong_parameters(self) -> None:
        """Issue 18, bad input: each is named."""
        number = "must be a whole number from"
        for path, text in (
            ("sessions?limit=0", f"limit: {number} 1 to 1000"),
            ("sessions?limit=1001", f"limit: {number} 1 to 1000"),
            ("sessions?offset=-1", f"offset: {number} 0 to 10000"),
            ("sessions?order=up", "order: expected one of asc, desc"),
            (
                "sessions?sort=x",
                "sort: expected one of since, accepted, rejected, bytes, username",
            ),
            ("users?sort=x", "sort: expected one of sessions, accepted, rejected, bytes, user"),
            (
                "users?user=a",
                "user: unknown parameter, expected limit, offset, order, search, sort",
            ),
            ("requests?minutes=1441", f"minutes: {number} 1 to 1440"),
            ("requests?minutes=1&minutes=2", "minutes: given more than once"),
            ("sessions/ended?before=x", "before: must be the next of an earlier answer"),
            (
                "sessions/ended?from=2027-01-15T08:00:00Z&to=2027-01-15T08:00:00Z",
                "from: must be before to",
            ),
            ("sessions?search=%ff", "search: is not UTF-8"),
        ):
            self.refused(self.get(f"/api/{path}"), 400, text)


class SessionControlTests(ActivityCase):
    """Issue 18, build 7: operators end sessions and ban addresses, and each change is noted."""

    def test_close(self) -> None:
        peers = [
            self.bench.connect(FRAME).authorize(name) for name in ("alice.1", "alice.2", "bob")
        ]
        session = peers[2].connection.context.session_id.hex()
        answer = self.post("/api/sessions/close", {"session": session, "reason": "too loud"})
        self.assertEqual((answer.code, answer.json), (200, {"closed": 1}))
        self.assertEqual([peer.closed for peer in peers], [False, False, True])
        peers[2].hear()
        self.assertEqual(peers[2].details, ["closed by an operator: too loud"])
        answer = self.post("/api/sessions/close", {"user": "alice"})
        self.assertEqual(answer.json, {"closed": 2})
        self.assertEqual(self.post("/api/sessions/close", {"user": "alice"}).json, {"closed": 0})
        self.refused(
            self.post("/api/sessions/close", {"session": "0" * 32}),
            404,
            f"not found: there is no session {'0' * 32}",
        )

    def test_ban(self) -> None:
        """Issue 18, build 7: the address is refused, and its sessions end."""
        peers = [
            self.bench.connect(FRAME, host).authorize("a")
            for host in ("192.0.2.7", "2001:db8::1", "2001:db8::2")
        ]
        answer = self.post("/api/bans/add", {"address": "192.0.2.7", "seconds": 60})
        self.assertEqual(answer.json, {"address": "192.0.2.7", "seconds": 60, "closed": 1})
        answer = self.post("/api/bans/add", {"address": "2001:db8::9", "seconds": 1.5})
        self.assertEqual(
            answer.json, {"address": "2001:0db8:0000:0000::/64", "seconds": 1.5, "closed": 2}
        )
        self.assertEqual([peer.closed for peer in peers], [True] * 3)
        self.assertEqual(set(self.bench.manager.bans), {"192.0.2.7", "2001:0db8:0000:0000::/64"})
        self.assertIsNotNone(self.bench.manager.refusal("192.0.2.7"))

    def test_wrong_bodies(self) -> None:
        for path, body, text in (
            ("sessions/close", {}, "session or user: expected one of them, as a text"),
            (
                "sessions/close",
                {"session": "0" * 32, "user": "a"},
                "session or user: expected one of them, as a text",
            ),
            (
                "sessions/close",
                {"session": "x"},
                "session: must be the id of a session, 32 digits of 0-9 and a-f",
            ),
            (
                "sessions/close",
                {"user": 5},
                'user: must be the name of a user as text, such as "alice"',
            ),
            (
                "sessions/close",
                {"user": "a", "reason": "x" * 201},
                "reason: must be a text of 1 to 200 characters",
            ),
            (
                "sessions/close",
                {"user": "a", "reason": "a\nb"},
                "reason: must have no control characters",
            ),
            (
                "bans/add",
                {"address": "here", "seconds": 5},
                'address: must be an IP address as text, such as "192.0.2.7"',
            ),
            ("bans/add", {"address": "192.0.2.1"}, "seconds: must be a number"),
            ("bans/add", {"address": "192.0.2.1", "seconds": True}, "seconds: must be a number"),
            (
                "bans/add",
                {"address": "192.0.2.1", "seconds": 0.5},
                "seconds: must be from 1 to 2592000",
            ),
            (
                "bans/add",
                {"address": "192.0.2.99", "seconds": 5},
                "address: 192.0.2.99 is a trusted proxy, which others come through",
            ),
        ):
            self.refused(self.post(f"/api/{path}", body), 400, text)
        self.assertEqual(self.bench.manager.bans, {})
