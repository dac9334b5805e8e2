"""``kupool migrate`` in small pieces, which ends itself with SIGKILL in the middle of a phase.

python -m tools.dying_move PHASE PIECES small migrate --from A --to B
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from types import ModuleType

from kupool import cli
from kupool.commands import migrate
from kupool.commands.migrate import TerminalBar
from kupool.migration import log_copy, postgres_store, rabbit_log, sqlite_log, sqlite_store


class Dying(TerminalBar):
    """Counts the pieces of the phase whose text begins so, and dies with the last."""

    phase = ""
    left = 0

    def begin(self, text: str, total: int) -> None:
        """A phase begins; one without pieces may be died in as well."""
        super().begin(text, total)
        self.counting = text.startswith(self.phase)
        if self.counting and not Dying.left:
            os.kill(os.getpid(), signal.SIGKILL)

    def advance(self, steps: int) -> None:
        """Some pieces are done."""
        super().advance(steps)
        if self.counting:
            Dying.left -= 1
            if Dying.left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """Run the command; returns its status where it outlives the phase."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("phase", help="how the text of its progress begins")
    parser.add_argument("pieces", type=int, help="after how many of them it dies")
    parser.add_argument("size", choices=("small", "whole"), help="of the pieces")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="migrate and its flags")
    arguments = parser.parse_args()
    Dying.phase, Dying.left = arguments.phase, arguments.pieces
    if arguments.size == "small":
        _make_pieces_small()
    migrate.TerminalBar = Dying  # type: ignore[misc]
    return cli.main(arguments.command)


def _make_pieces_small() -> None:
    sizes: dict[str, tuple[int, tuple[ModuleType, ...]]] = {}
    sizes["ENTRIES"] = (7, (log_copy, sqlite_log, rabbit_log))
    sizes["CHUNK"] = (20, (sqlite_store, postgres_store))
    for name, (size, modules) in sizes.items():
        for module in modules:
            setattr(module, name, size)


if __name__ == "__main__":
    sys.exit(main())
