"""The bench of the bus: that it measures, and that what it found is told."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bench.bus import MODELS, Form, Node, fan_out
from tests.servers.running_daemon import ROOT


class BenchTests(SynchronousTestCase):
    """A-39: every model over each form is measured, message by message, and none is lost."""

    def node(self, *arguments: str) -> Node:
        node = Node(*arguments)
        self.addCleanup(node.close)
        return node

    def check(self, form: Form, *others: str) -> None:
        for model in MODELS:
            found = form.measure(model, 0.1)
            self.assertGreater(found.rate, 0, model)
            self.assertEqual(found.lost, 0, model)
            self.assertEqual(list(found.costs), ["publisher", *others])
            self.assertGreater(found.cost, 0)
        self.assertEqual(list(form.nobodys(0.1)["kinds"]), ["no subscriber"])

    def test_in_process(self) -> None:
        alone = self.node("local", "--subscribe", "4")
        self.check(Form("in-process", alone, alone, {}))

    def test_networked(self) -> None:
        server = self.node("server")
        workers = self.node("networked", str(server.port), "--subscribe", "4")
        publisher = self.node("networked", str(server.port))
        others = {"server": [server.process]}
        self.check(Form("networked", publisher, workers, others), "subscribers", "server")

    def test_one_to_many(self) -> None:
        """A-39: what a publisher to many costs a daemon is measured, with all that arrives."""
        found = fan_out(0.3, audience=3, rate=50)
        self.assertGreater(found.published, 5)
        self.assertEqual(found.arrived, found.published * 3)

    def test_the_figures_are_published(self) -> None:
        """A-39: for each model and form, and what a Python process cannot do."""
        speed = (ROOT / "docs" / "bus.md").read_text("utf-8").partition("## Speed")[2]
        for model in MODELS:
            self.assertIn(f"| `{model}`", speed)
        for form in ("in one process", "over a network", "across nodes"):
            self.assertEqual(speed.count(f"| {form} |"), len(MODELS), form)
        self.assertIn("A Python process cannot match that", speed)
