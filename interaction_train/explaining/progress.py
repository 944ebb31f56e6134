"""A bar with the time left, for work that takes longer than one likes to wait in silence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.errors import LiveError
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

_PATIENCE = 3.0  # seconds


@contextmanager
def progress_bar(
    title: str, total: int, shown: bool | None = None
) -> Iterator[Callable[[int], None]]:
    """A bar on the standard error stream, advanced by calling what this yields.

    Args:
        title: what is under way.
        total: how many steps there are.
        shown: at once or never; None: on a terminal or in a notebook, from the third second on.
    """
    console = Console(stderr=True)
    columns = TextColumn(title), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=console)
    task = bar.add_task(title, total=total)
    wanted = (console.is_terminal or console.is_jupyter) if shown is None else shown
    patience = _PATIENCE if shown is None else 0
    begin, running = time.monotonic(), False

    def advance(steps: int) -> None:
        nonlocal running
        bar.advance(task, steps)
        if wanted and not running and time.monotonic() - begin >= patience:
            running = True
            with suppress(LiveError):  # another bar is up, such as that of a training run
                bar.start()

    try:
        yield advance
        bar.update(task, completed=total)
    finally:
        if running:
            bar.stop()
