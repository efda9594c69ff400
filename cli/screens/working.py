"""Says what goes on while a command would be silent, how far it is and how long it takes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cli.screens.tables import duration
from cli.screens.terminal import Screen, say

# Nobody wonders before; what is done by then is not spoken of where there is no terminal.
SILENT_S = 2.0
LINE_AFTER_S, LINE_EVERY_S = 10.0, 60.0

Note = Callable[[int], None]


@contextlib.contextmanager
def working(what: str, *, total: int | None = None) -> Iterator[Note]:
    """Show on stderr that `what` goes on while the context is open: a line that moves on a
    terminal and leaves nothing behind, a plain line now and then elsewhere.

    What is yielded notes how many of `total` are done.
    """
    console = Screen(to_stderr=True)
    if not console.is_terminal:
        with _plainly(console, what, total) as note:
            yield note
        return
    counted: list[ProgressColumn] = [BarColumn(bar_width=16), MofNCompleteColumn()]
    columns = [SpinnerColumn(), TextColumn("{task.description}"), *(counted if total else [])]
    columns.append(TimeRemainingColumn() if total else TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


@contextlib.contextmanager
def _plainly(console: Screen, what: str, total: int | None) -> Iterator[Note]:
    began, counted, ended = time.monotonic(), [0], threading.Event()

    def tell() -> None:
        wait = SILENT_S
        while not ended.wait(wait):
            passed = time.monotonic() - began
            # soon, then seldomer
            wait = min(LINE_EVERY_S, max(LINE_AFTER_S, passed))
            far = f" {counted[0]}/{total}," if total else ""
            say(console, f"{what}:{far} {duration(passed)} so far")

    def note(done: int) -> None:
        counted[0] = done

    teller = threading.Thread(target=tell, name="working", daemon=True)
    teller.start()
    try:
        yield note
    finally:
        ended.set()
        teller.join()
