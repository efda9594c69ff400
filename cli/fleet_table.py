"""Workers as rows: what each serves, holds and gets done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from orchestrator.fleet import WorkerCard


def fleet_rows(cards: Sequence[WorkerCard]) -> list[dict[str, Any]]:
    """The cards as JSON."""
    return [asdict(card) for card in cards]


def fleet_table(cards: Sequence[WorkerCard]) -> Table:
    """One row a worker."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("worker", "serves", "holds", "longest"):
        table.add_column(heading, no_wrap=heading != "serves", overflow="ellipsis")
    for heading in ("jobs/min", "tokens/s", "busy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for card in cards:
        longest = f"{card.jobs[0][1]} {card.jobs[0][2]:.0f} s" if card.jobs else ""
        table.add_row(
            escape(card.name),
            escape("leaving" if card.draining else card.model),
            str(len(card.jobs)) if card.jobs else "-",
            escape(longest),
            f"{card.per_minute.jobs:.1f}",
            f"{card.per_minute.tokens / 60:.0f}" if card.kind == "gpu" else "",
            "" if card.busy is None else f"{card.busy:.0%}",
        )
    if not cards:
        table.add_row("none is connected", "", "", "", "", "", "")
    return table
