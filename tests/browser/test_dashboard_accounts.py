"""W-86, issue 18, acceptance 1: who logs in sees their own, and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.dashboard import View, Visit, routes, visit, with_browser
from tests.servers.demo_pool import PASSWORD, pool_with_accounts
from tests.servers.of_class import of_class
from tests.servers.running_daemon import LineClient, RunningDaemon

#: What alice and bob have submitted.
ALICE, BOB = 3, 5


@contextmanager
def pool_of_two() -> Iterator[RunningDaemon]:
    """Run a daemon with what alice's rig1 and bob's bobs-secret-rig have submitted."""
    with pool_with_accounts() as daemon:
        for username, count in (("alice.rig1", ALICE), ("bob.bobs-secret-rig", BOB)):
            with closing(LineClient(daemon)) as client:
                reply = client.request("authorize", username=username, password=PASSWORD)
                assert reply.get("result") is True, reply
                job = client.job()
                for number in range(count):
                    answer = client.submit(job, f"n{number}")
                    assert answer.get("result") is True, answer
        yield daemon


class DashboardAccountTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.browser, self.daemon = of_class(self, lambda: with_browser(pool_of_two))

    def look(self, view: View | None = None) -> Visit:
        manager = visit(self.browser, self.daemon, view)
        window = manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)
        return window

    def test_own_data_and_nobody_elses(self) -> None:
        """A user logs in by the form; no page shows them another user, nor what that one did."""
        window = self.look()
        window.go("/me")
        window.log_in("alice", PASSWORD)
        window.until(lambda: "rig1" in window.text(), "her own worker is not shown")
        for name, route in routes("bob", "bob.bobs-secret-rig").items():
            window.go(route)
            # The address and the heading say what was asked for; nothing says what is there.
            shown = window.text().replace("bob.bobs-secret-rig", "")
            self.assertNotIn("bobs-secret-rig", shown, name)
        window.go("/workers")
        self.assertNotIn("bob", window.text())
        window.go(routes("bob", "")["user"])
        window.until(
            lambda: window.page.locator(".state.refused").count() > 0, "nothing is refused"
        )
        exceptions = [text for text in window.problems if "403" not in text]
        self.assertEqual(exceptions, [])

    def test_wrong_password(self) -> None:
        """A wrong password is told, and the name stays."""
        window = self.look()
        window.go("/me")
        window.log_in("alice", "guess")
        window.until(lambda: window.page.locator(".problem:not(:empty)").count() > 0, "no problem")
        self.assertEqual(window.page.locator("main [name=username]").input_value(), "alice")

    def test_login_by_token(self) -> None:
        """Issue 18, build 8: a token is enough, and lasts as long as the tab."""
        answer = self.daemon.post("/api/login", {"username": "alice", "password": PASSWORD})
        window = self.look()
        window.go("/me")
        window.page.locator("main details summary").click()
        window.page.locator("main [name=token]").fill(answer[1]["token"])
        window.page.locator("main form[data-form=token] [type=submit]").click()
        window.until(lambda: "rig1" in window.text(), "her own worker is not shown")
        window.page.reload()
        window.until(lambda: "rig1" in window.text(), "it is not shown after a reload")

    def test_login_that_ends_in_an_action(self) -> None:
        """Issue 18, bad input: an expired login in the middle of an action asks for another one.

        What was typed is still there, and the action is made with the new login.
        """
        window = self.look()
        window.come_as("olga", PASSWORD)
        window.go("/admin")
        form = window.page.locator("form[data-form=ban]")
        form.locator("[name=address]").fill("192.0.2.77")
        form.locator("[name=seconds]").fill("4321")
        form.locator("[type=submit]").click()
        window.context.clear_cookies()
        window.context.add_cookies(
            [{"name": "kupool_token", "value": "expired", "url": self.daemon.url("/")}]
        )
        confirm = window.page.locator("dialog form:not([data-form]) [type=submit]")
        login = window.page.locator("dialog .login")
        confirm.click()
        window.until(lambda: login.count() == 1, "it asks for no login")
        window.log_in("olga", PASSWORD)
        window.until(lambda: login.count() == 0, "it still asks for a login")
        self.assertEqual(form.locator("[name=address]").input_value(), "192.0.2.77")
        self.assertEqual(form.locator("[name=seconds]").input_value(), "4321")
        confirm.click()
        window.until(lambda: "192.0.2.77" in str(self.daemon.get("/bans")), "there is no ban")
        banned = window.page.locator("[data-box=bans]")
        window.until(lambda: "192.0.2.77" in banned.inner_text(), "the ban is not shown")
        exceptions = [text for text in window.problems if "401" not in text]
        self.assertEqual(exceptions, [])
