"""Workers as rows: what each serves, holds and gets done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from orchestrator.fleet import WorkerCard


def fleet_rows(cards: Sequence[WorkerCard]) -> list[dict[str, Any]]:
    """The cards as JSON."""
    return [asdict(card) for card in cards]


@dataclass(frozen=True)
class FleetTable:
    """One row a worker; where that is too wide, the job it holds longest stands in a table below.

    Names may go over two lines, numbers and headings never.
    """

    cards: Sequence[WorkerCard]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See rich."""
        whole = _workers(self.cards, with_jobs=True)
        if Measurement.get(console, options.update(max_width=1000), whole).maximum <= (
            options.max_width
        ):
            yield whole
            return
        yield _workers(self.cards, with_jobs=False)
        if any(card.jobs for card in self.cards):
            yield Text("")
            yield _longest(self.cards)


def _workers(cards: Sequence[WorkerCard], *, with_jobs: bool) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for heading in ("worker", "serves"):
        table.add_column(heading, overflow="fold")
    table.add_column("holds", justify="right", no_wrap=True)
    if with_jobs:
        _add_job_columns(table)
    for heading in ("jobs/min", "tokens/s", "busy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for card in cards:
        table.add_row(
            escape(card.name),
            escape("leaving" if card.draining else card.model),
            str(len(card.jobs)) if card.jobs else "-",
            *(_longest_of(card) if with_jobs else ()),
            f"{card.per_minute.jobs:.1f}",
            f"{card.per_minute.tokens / 60:.0f}" if card.kind == "gpu" else "",
            "" if card.busy is None else f"{card.busy:.0%}",
        )
    if not cards:
        table.add_row("none is connected")
    return table


def _longest(cards: Sequence[WorkerCard]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("worker", overflow="fold")
    _add_job_columns(table)
    for card in cards:
        if card.jobs:
            table.add_row(escape(card.name), *_longest_of(card))
    return table


def _add_job_columns(table: Table) -> None:
    table.add_column("longest job", overflow="fold")
    table.add_column("for", justify="right", no_wrap=True)


def _longest_of(card: WorkerCard) -> tuple[str, str]:
    return (escape(card.jobs[0][1]), f"{card.jobs[0][2]:.0f} s") if card.jobs else ("", "")
