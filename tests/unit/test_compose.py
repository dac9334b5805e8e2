"""K-93: compose.yaml starts RabbitMQ, PostgreSQL, the daemon and a client, with health checks.

Docker is not needed: what the file says is held against what the daemon and its image know.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from kupool.settings import ENV_PREFIX, Settings, declared, shown

ROOT = Path(__file__).parents[2]


class ComposeTests(SynchronousTestCase):
    """K-93."""

    def setUp(self) -> None:
        self.services: dict[str, Any] = self.file()["services"]
        self.image = (ROOT / "Dockerfile").read_text("utf-8")

    def file(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
        return found

    def test_all_four_with_a_health_check(self) -> None:
        self.assertEqual(set(self.services), {"rabbitmq", "postgres", "kupool", "client"})
        for name, service in self.services.items():
            self.assertEqual(service["healthcheck"]["test"][0], "CMD", name)

    def test_each_waits_until_what_it_needs_is_healthy(self) -> None:
        healthy = {"condition": "service_healthy"}
        self.assertEqual(
            self.services["kupool"]["depends_on"], {"rabbitmq": healthy, "postgres": healthy}
        )
        self.assertEqual(self.services["client"]["depends_on"], {"kupool": healthy})

    def test_the_worker_is_of_the_image_that_is_built(self) -> None:
        """Of no registry: each of the two builds it, whichever comes first."""
        for name in ("kupool", "client"):
            service = self.services[name]
            self.assertEqual((service["build"], service["image"]), (".", "kupool"), name)

    def test_the_daemon_knows_its_settings(self) -> None:
        environment = self.services["kupool"]["environment"]
        in_image = dict(re.findall(r"(KUP_\w+)=(\S+)", self.image))
        self.assertTrue(in_image)
        for variable in (*environment, *in_image):
            self.assertIn(variable.removeprefix(ENV_PREFIX).lower(), declared())
        self.assertEqual((environment["KUP_MQ"], environment["KUP_STORE"]), ("rabbit", "pg"))
        self.assertIn("@rabbitmq:5672/", environment["KUP_MQ_URL"])
        self.assertIn("host=postgres ", environment["KUP_PG_DSN"])

    def test_one_account_on_both_sides(self) -> None:
        environments = {name: one.get("environment", {}) for name, one in self.services.items()}
        user = environments["rabbitmq"]["RABBITMQ_DEFAULT_USER"]
        password = environments["rabbitmq"]["RABBITMQ_DEFAULT_PASS"]
        url = environments["kupool"]["KUP_MQ_URL"]
        self.assertTrue(url.startswith(f"amqp://{user}:{password}@"), url)
        dsn = dict(part.split("=", 1) for part in environments["kupool"]["KUP_PG_DSN"].split(" "))
        self.assertEqual(dsn["user"], environments["postgres"]["POSTGRES_USER"])
        self.assertEqual(dsn["dbname"], environments["postgres"]["POSTGRES_DB"])
        self.assertEqual(dsn["password"], environments["postgres"]["POSTGRES_PASSWORD"])

    def test_the_client_may_ask_for_its_counts(self) -> None:
        """Issue 15, build 4: from another container a role is needed, and a known name."""
        daemon, client = (self.services[name]["environment"] for name in ("kupool", "client"))
        self.assertEqual(daemon["KUP_HTTP_SECRET"], client["KUP_HTTP_SECRET"])
        self.assertEqual(daemon["KUP_HTTP_HOSTS"], "kupool")
        script = self.services["client"]["healthcheck"]["test"][-1]
        compile(script, "compose.yaml", "exec")
        self.assertIn("http://kupool:8081/", script)
        self.assertIn("KUP_HTTP_SECRET", script)

    def test_only_the_pool_is_open_to_others(self) -> None:
        ports = {name: service.get("ports", []) for name, service in self.services.items()}
        self.assertEqual(ports.pop("kupool"), ["8080:8080", "127.0.0.1:8081:8081"])
        self.assertEqual(list(ports.values()), [[], [], []])
        self.assertEqual(shown(Settings())["addr"], ":8080")
        self.assertIn("KUP_HTTP=tcp:8081", self.image)

    def test_data_outlives_the_containers(self) -> None:
        kept = {
            volume.split(":")[0]: volume.split(":")[1]
            for service in self.services.values()
            for volume in service.get("volumes", [])
        }
        self.assertEqual(set(kept), set(self.file()["volumes"]))
        self.assertIn(f"KUP_DATA={kept['kupool']}", self.image)

    def test_a_stop_is_waited_for(self) -> None:
        seconds = int(self.services["kupool"]["stop_grace_period"].removesuffix("s"))
        self.assertGreater(seconds, Settings().process.shutdown_timeout)

    def test_what_is_built_gets_what_it_needs(self) -> None:
        passed = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        self.assertEqual(passed[0], "*")
        for needed in re.findall(r"!(\S+)", "\n".join(passed)):
            self.assertTrue((ROOT / needed).exists(), needed)
        for built_from in ("kupool", "setup.py", "setup.cfg", "pyproject.toml", "README.md"):
            self.assertIn(f"!{built_from}", passed)
