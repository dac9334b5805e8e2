"""How commands show their progress, and numbers of things."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kupool.commands.console import make_console

#: Shows what is being done, and how much of it is done, from 0 to 1.
ShownProgress = Callable[[str, float], None]


@contextmanager
def shown_progress() -> Iterator[ShownProgress]:
    """Show a progress bar with an estimate on a terminal; yields a function to call."""
    # Here, since most commands show no bar.
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = make_console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task, now = bar.add_task("", total=1.0), ""

    def tell(what: str, part: float) -> None:
        nonlocal now
        if what != now:
            now = what
            bar.reset(task, description=what, total=1.0)
        bar.update(task, completed=part)

    with bar:
        yield tell


def counted(count: int, one: str, many: str = "") -> str:
    """Return a number of things, as ``1 row`` or ``1,000 rows``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


__all__ = ["ShownProgress", "counted", "shown_progress"]
