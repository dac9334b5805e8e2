"""``kupool migrate`` in small pieces, which ends itself with SIGKILL in the middle of a phase.

python -m tools.dying_move PHASE PIECES migrate --from A --to B
"""

from __future__ import annotations

import os
import signal
import sys

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
    Dying.phase, Dying.left = sys.argv[1], int(sys.argv[2])
    if sys.argv[3] == "small":
        _make_pieces_small()
    migrate.TerminalBar = Dying  # type: ignore[misc]
    return cli.main(sys.argv[4:])


def _make_pieces_small() -> None:
    log_copy.ENTRIES = sqlite_log.ENTRIES = rabbit_log.ENTRIES = 7
    sqlite_store.CHUNK = postgres_store.CHUNK = 20


if __name__ == "__main__":
    sys.exit(main())
