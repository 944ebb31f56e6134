"""A bar with the time left, for work that takes longer than one likes to wait in silence."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.errors import LiveError
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from interaction_train.game.batch import GameBatch
from interaction_train.game.masked import MaskedGame

_PATIENCE = 3.0  # seconds


@contextmanager
def reported(
    game: MaskedGame | GameBatch, title: str, evaluations: int, shown: bool | None
) -> Iterator[None]:
    """Show a bar on the standard error stream while coalitions of a game are evaluated.

    Args:
        game: one, or a batch of games.
        title: what is under way.
        evaluations: coalitions, each of all samples; of a batch of games rows.
        shown: at once or never; None: on a terminal or in a notebook, from the third second on.
    """
    total = evaluations if isinstance(game, GameBatch) else evaluations * len(game.present)
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

    game.progress = advance
    try:
        yield
        bar.update(task, completed=total)
    finally:
        game.progress = None
        if running:
            bar.stop()
