"""Who may do what, tried from outside: each method and each route of a real daemon by each role."""

from __future__ import annotations

import json
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.accounts.hashing import hash_token, make_token
from kupool.accounts.web_tokens import SigningKeys, WebIdentity, WebTokens
from kupool.permissions.offered import LIVE_METHODS
from kupool.topics.api.table import OPERATIONS
from tests.servers.of_class import of_class
from tests.servers.running_daemon import RunningDaemon
from tests.servers.sockets import Peer

ROLES = ("anonymous", "worker", "operator", "admin")

#: The key with which the daemon signs its tokens.
TOKEN_SECRET = "k" * 40

#: The name under which the server is asked: with a local one, reading needs no credentials.
HOST = "pool.example.com"

#: The least role of each route. A route that the daemon has and that is not here fails the test.
ROUTES = {
    ("GET", "/"): "anonymous",
    ("GET", "/dashboard"): "anonymous",
    ("GET", "/health"): "anonymous",
    ("GET", "/ready"): "anonymous",
    ("GET", "/ws"): "anonymous",
    ("POST", "/api/login"): "anonymous",
    ("POST", "/api/logout"): "anonymous",
    ("POST", "/api/refresh"): "worker",
    ("GET", "/api/me"): "anonymous",
    ("GET", "/stats"): "operator",  # by a rule; a worker's by default
    **{
        ("GET", f"/api/{name}"): "worker"
        for name in ("history", "workers", "rank", "submissions", "trace")
    },
    ("GET", "/shutdown/status"): "operator",
    ("POST", "/jobs/rotate"): "operator",
    ("POST", "/jobs/interval"): "admin",  # by a rule
    ("GET", "/bans"): "worker",  # by a rule
    ("POST", "/bans/lift"): "operator",
    # A worker sees only what is theirs: see tests/integration/test_daemon_activity.py.
    ("GET", "/api/sessions"): "worker",
    ("GET", "/api/sessions/ended"): "worker",
    ("GET", "/api/users"): "worker",
    ("GET", "/api/requests"): "operator",
    ("GET", "/api/overview"): "operator",
    ("GET", "/api/audit"): "operator",
    ("POST", "/api/sessions/close"): "operator",
    ("POST", "/api/bans/add"): "operator",
    ("POST", "/bus/publish"): "operator",
    ("GET", "/bus/publish"): "operator",
    ("OPTIONS", "/bus/publish"): "anonymous",
    ("GET", "/bus/status"): "operator",
    ("OPTIONS", "/bus/status"): "anonymous",
    ("GET", "/bus/trace"): "operator",
    ("OPTIONS", "/bus/trace"): "anonymous",
    ("GET", "/events"): "anonymous",
    ("OPTIONS", "/events"): "anonymous",
    ("POST", "/api/live/interval"): "operator",
    ("GET", "/api/live/status"): "operator",
    ("GET", "/api/limits"): "operator",
    ("GET", "/api/rooms"): "operator",
    # Without an API key; see tests/sdk/test_server_api.py.
    **{("POST", f"/api/{name}"): "admin" for name in LIVE_METHODS},
    # What clients of the Centrifuge protocol may do their tokens and the table of channels say.
    ("GET", "/connection/websocket"): "anonymous",
    **{
        (method, f"/connection/{name}"): "anonymous"
        for name in ("sse", "http_stream")
        for method in ("POST", "OPTIONS")
    },
    ("GET", "/connection/sse"): "anonymous",
    ("POST", "/emulation"): "anonymous",
    ("OPTIONS", "/emulation"): "anonymous",
    # What they do with a topic or a group needs a permission for its name: see
    # tests/unit/topics/api/test_access.py.
    **{("GET", operation.path): "anonymous" for operation in OPERATIONS if operation.reads},
    **{("POST", operation.path): "anonymous" for operation in OPERATIONS},
}

#: Routes whose answer has no end once it has begun.
ENDLESS = ("/events", "/connection/sse", "/connection/http_stream")

#: The least role of each method, of those who have a session.
METHODS = {
    "submit": "operator",  # by a rule; everybody's by default, as are the others
    "ping": "worker",
    "bus.publish": "worker",
    "bus.subscribe": "worker",
    "bus.unsubscribe": "worker",
    "bus.watch": "worker",
    "bus.unwatch": "worker",
    "room.create": "admin",  # by a rule
    "room.join": "worker",
    "room.leave": "worker",
    "room.send": "worker",
    "room.list": "worker",
    "match.join": "worker",
    "match.cancel": "worker",
    # These two are for users of --bus-operators, whatever their role.
    "bus.status": "",
    "bus.trace": "",
    "subscribe": "worker",
    "unsubscribe": "worker",
    "publish": "worker",
    "presence": "worker",
    "history": "worker",
    # As of the routes.
    **{operation.name: "worker" for operation in OPERATIONS},
}

RULES = (
    "@operator GET /stats",
    "@admin POST /jobs/interval",
    "@worker GET /bans",
    "@operator call submit",
    "@admin call room.create",
    "named GET /shutdown/status",
    "named call room.create",
    # For ``log.begin``, which needs any of these.
    "* log.publish a",
)


def content(body: bytes) -> Any:
    """Return the JSON of a body; the text of one that is none, such as that of a stream."""
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()


@contextmanager
def daemon_with_accounts() -> Iterator[tuple[RunningDaemon, dict[str, str]]]:
    """Run a daemon with an account of each role, and return the secrets of these."""
    secrets = {name: make_token() for name in (*ROLES[1:], "named")}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kupool-test-"))
        accounts = Path(folder) / "accounts"
        accounts.write_text(
            "".join(
                f"{name}:{hash_token(secret)}:role={name if name in ROLES else 'worker'}\n"
                for name, secret in secrets.items()
            )
        )
        accounts.chmod(0o600)
        daemon = RunningDaemon(
            "--mq=memory",
            "--store=memory",
            "--rooms=on",
            "--bus-get=on",
            "--login-delay=0",
            "--login-address-failures=0",
            "--max-errors=0",
            f"--auth=file:{accounts}",
            f"--http-hosts={HOST}",
            f"--token-secret={TOKEN_SECRET}",
            *(f"--permissions={rule}" for rule in RULES),
        )
        stack.callback(daemon.kill)
        yield daemon.start(), secrets


class PermissionTests(SynchronousTestCase):
    """Issue 15, acceptance 4: each cell of method and route by role is allowed or refused."""

    def setUp(self) -> None:
        self.daemon, self.secrets = of_class(self, daemon_with_accounts)

    # -- routes

    def ask(self, method: str, path: str, bearer: str = "") -> tuple[int, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.daemon.http_port}{path}", method=method
        )
        request.add_header("Host", HOST)
        if method == "POST":
            request.data = b"{}"
            request.add_header("Content-Type", "application/json")
        if bearer:
            request.add_header("Authorization", f"Bearer {bearer}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, "" if path in ENDLESS else content(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, content(error.read())

    def signed(self, role: str, seconds: float) -> str:
        tokens = WebTokens(SigningKeys.of_secret(TOKEN_SECRET, time.time), time.time)
        return tokens.sign(WebIdentity(role, role), seconds)

    def test_every_route_is_in_the_table(self) -> None:
        routes = self.ask("GET", "/")[1]["routes"]
        found = {
            (method, route["path"])
            for route in routes
            for method in route["methods"]
            if method != "HEAD"
        }
        self.assertEqual(found | {("GET", "/")}, set(ROUTES))

    def test_routes(self) -> None:
        for (method, path), least in ROUTES.items():
            for role in ROLES:
                allowed = ROLES.index(role) >= ROLES.index(least)
                refusal = 401 if role == "anonymous" else 403
                bearers = [""]
                if role != "anonymous":
                    bearers = [self.secrets[role], self.signed(role, 60)]
                for bearer in bearers:
                    self.check(method, path, bearer, allowed, refusal)

    def test_routes_with_tokens_that_are_not_good(self) -> None:
        """Who sends one is told so, also where nobody would need one; what is open stays open."""
        good = self.signed("admin", 60)
        head, body, signature = good.split(".")
        opened = ("/", "/dashboard", "/health", "/ready", "/ws", "/api/login", "/api/logout")
        for (method, path), _ in ROUTES.items():
            of_centrifuge = path.startswith(("/connection/", "/emulation"))
            is_open = path in opened or method == "OPTIONS" or of_centrifuge
            for bearer in (
                "bad",
                make_token(),
                f"{head}.{body}.{signature[::-1]}",
                self.signed("admin", -60),
            ):
                self.check(method, path, bearer, is_open, 401)

    def check(self, method: str, path: str, bearer: str, allowed: bool, refusal: int) -> None:
        code, answer = self.ask(method, path, bearer)
        if allowed:
            self.assertTrue(
                code not in (401, 403) or answer == {"error": "unauthorized: log in again"},
                (method, path, bearer, code, answer),
            )
        else:
            self.assertEqual(code, refusal, (method, path, bearer, answer))

    def test_a_rule_for_a_user(self) -> None:
        """It is for this user alone, and adds to what the role may."""
        for path, code in (("/shutdown/status", 200), ("/bans", 200), ("/bus/status", 403)):
            self.assertEqual(self.ask("GET", path, self.secrets["named"])[0], code, path)

    # -- methods

    def call(self, peer: Peer, method: str, params: dict[str, Any]) -> dict[str, Any]:
        request = {"id": 7, "method": method, "params": params}
        peer.send(json.dumps(request).encode() + b"\n")
        while True:
            found: dict[str, Any] = json.loads(peer.line())
            if "method" not in found or found["method"] == "close":
                return found

    def session(self, user: str, secret: str) -> tuple[Peer, dict[str, Any]]:
        peer = Peer(self.daemon.port)
        self.addCleanup(peer.close)
        return peer, self.call(peer, "authorize", {"username": user, "password": secret})

    def test_methods(self) -> None:
        for role in (*ROLES[1:], "named"):
            peer, answer = self.session(role, self.secrets[role])
            self.assertIs(answer.get("result"), True, answer)
            for method, least in METHODS.items():
                allowed = (
                    role in ROLES[ROLES.index(least) :]
                    if least and role in ROLES
                    else (bool(least) and least != "operator")
                )
                code = self.call(peer, method, self.params(method)).get("code")
                self.assertEqual(code != 33, allowed, (role, method, code))

    def params(self, method: str) -> dict[str, Any]:
        """Params that a method takes, so that nothing but the permission refuses it."""
        return {
            "submit": {"job_id": 1, "client_nonce": "a", "result": "b"},
            "bus.publish": {"topic": "a", "model": "unreliable-all"},
            "bus.subscribe": {"topics": ["a"]},
            "bus.watch": {"topic": "a"},
            "bus.unwatch": {"topic": "a"},
            "bus.trace": {"message": "x"},
            "room.create": {"room": "r"},
            "room.join": {"room": "r"},
            "room.send": {"data": 1},
            "match.join": {"mode": "m", "needed": 2},
        }.get(method, {})

    def test_methods_without_a_session(self) -> None:
        """Nobody, a bad token, or one that has expired: the session is closed."""
        for method in METHODS:
            with Peer(self.daemon.port) as peer:
                found = self.call(peer, method, self.params(method))
                self.assertEqual(found.get("error", "unauthorized"), "unauthorized", method)
                self.assertTrue(peer.rest() or "method" in found, method)
        for secret in (
            "",
            "bad",
            make_token(),
            self.signed("admin", -60),
            self.signed("admin", 60),
        ):
            answer = self.session("admin", secret)[1]
            self.assertEqual(answer.get("error"), "unauthorized", secret)

    def test_every_method_is_in_the_table(self) -> None:
        """As tests/unit/permissions/test_offered.py says of the program's own table."""
        from kupool.permissions.offered import METHODS as OFFERED_METHODS

        names = {offered.name for offered in OFFERED_METHODS}
        self.assertEqual(names, {*METHODS, "authorize"})
