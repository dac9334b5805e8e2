"""The example of a bus, as processes of their own."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.programs import python


class RpcBusTests(SynchronousTestCase):
    """A-02, A-18: a service and its callers know a topic, and not each other."""

    def test_a_bank_and_who_asks_it(self) -> None:
        with python("rpc_bus.py", "--port", "0") as bus:
            port = str(bus.port())
            with python("rpc_bus.py", "ask", port, "alice") as early:
                self.assertEqual(early.end(), (0, "alice: no subscriber\n"))
            with (
                python("rpc_bus.py", "bank", port) as one,
                python("rpc_bus.py", "bank", port) as two,
            ):
                for bank in (one, two):
                    bank.line("the bank is open")
                with python("rpc_bus.py", "ask", port, *["alice", "bob", "carol"] * 10) as caller:
                    status, said = caller.end()
                self.assertEqual(status, 0)
                lines = said.splitlines()
                wanted = (
                    "alice: answered 100, says",
                    "bob: answered 7",
                    "carol: refused no account",
                )
                for line, start in zip(lines[:3], wanted, strict=True):
                    self.assertTrue(line.startswith(start), line)
                banks = {line.rpartition(" ")[2] for line in lines if "says bank" in line}
                self.assertEqual(banks, {str(one.process.pid), str(two.process.pid)})
                one.interrupt()
                self.assertEqual(one.end(), (0, ""))
                with python("rpc_bus.py", "ask", port, "bob") as caller:
                    self.assertEqual(
                        caller.end(), (0, f"bob: answered 7, says bank {two.process.pid}\n")
                    )
                bus.interrupt()
                self.assertEqual(bus.end(), (0, ""))
                with python("rpc_bus.py", "ask", port, "bob") as late:
                    status, said = late.end()
                self.assertEqual(status, 1)
                self.assertRegex(said, rf"^no bus at port {port}: .*\n$")
                two.interrupt()
                self.assertEqual(two.end()[0], 0)
