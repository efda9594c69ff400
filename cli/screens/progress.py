"""What a person sees while a run goes on: a live table on a terminal, a plain line elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from domain.fleet.heartbeats import RateMeter
from domain.plan.jobs import Plan
from domain.verdict.record import TraitMetrics
from orchestrator.progress import (
    StageCount,
    TraitCount,
    seconds_left,
    stages_of,
    total,
    trait_counts,
)
from storage.record.run import Failure

PLAIN_EVERY_S = 10.0

ReadMetrics = Callable[[str], TraitMetrics]


class Progress:
    """Shows a run's progress; a view of cli.drive."""

    def __init__(
        self,
        console: Console,
        plan: Plan,
        *,
        read_metrics: ReadMetrics,
        read_spent: Callable[[], str] = str,
    ) -> None:
        """`read_spent` says what the judge has cost so far, in words, or nothing."""
        self._console, self._plan, self._read_metrics = console, plan, read_metrics
        self._read_spent = read_spent
        self._meter, self._verdicts, self._finished = RateMeter(), dict[str, str](), set[str]()
        self._live: Live | None = None
        self._next_line = time.monotonic() + PLAIN_EVERY_S

    @contextlib.contextmanager
    def shown(self) -> Iterator[Progress]:
        """Show while the context is open."""
        if not self._console.is_terminal:
            yield self
            return
        with Live(console=self._console, refresh_per_second=4, transient=True) as self._live:
            yield self

    def update(self, done: set[str], failures: list[Failure]) -> None:
        """See cli.drive.View."""
        counts = trait_counts(self._plan, done)
        for count in counts:
            if count.is_finished and count.trait not in self._finished:
                self._finished.add(count.trait)
                self._verdicts.pop(count.trait, None)
            if count.is_reduced and count.trait not in self._verdicts:
                verdict = styled_verdict(self._read_metrics(count.trait).verdict)
                note = "" if count.is_finished else " (not yet checked)"
                self._verdicts[count.trait] = verdict + note
        made = {stage: total(counts, stage).done for stage in stages_of(counts)}
        rates = self._meter.note(time.monotonic(), made)
        if self._live is not None:
            self._live.update(self._table(counts, rates, failures))
        elif time.monotonic() >= self._next_line:
            line = _line(counts, rates, failures, self._read_spent())
            say(self._console, line)
            self._next_line = time.monotonic() + PLAIN_EVERY_S

    def _table(
        self, counts: list[TraitCount], rates: dict[str, float], failures: list[Failure]
    ) -> Table:
        line = _line(counts, rates, failures, self._read_spent())
        table = Table(box=None, padding=(0, 2), caption=line)
        table.caption_justify = "left"
        stages = stages_of(counts)
        for heading in ("trait", *(part for stage in stages for part in (stage, "")), "verdict"):
            table.add_column(heading)
        for count in counts:
            verdict = self._verdicts.get(count.trait, "")
            bars = [part for stage in stages for part in _bar(count.stages.get(stage))]
            table.add_row(count.trait, *bars, verdict)
        return table


def say(console: Console, text: str, *, style: str | None = None) -> None:
    """A line as it is: unbroken, nothing in it coloured or taken for markup."""
    console.print(text, style=style, highlight=False, soft_wrap=True, markup=False)


def styled_verdict(verdict: str) -> str:
    """The verdict with a mark that is readable without colour."""
    marks = {
        "usable": "[green]✓ usable[/green]",
        "weak": "[yellow]~ weak[/yellow]",
        "do not use": "[red]✗ do not use[/red]",
    }
    return marks.get(verdict, verdict)


def _bar(count: StageCount | None) -> tuple[ProgressBar | str, str]:
    if count is None:
        return "", ""
    return ProgressBar(count.total, count.done, width=20), f"{count.done}/{count.total}"


def _line(
    counts: list[TraitCount], rates: dict[str, float], failures: list[Failure], spent: str
) -> str:
    words = {"generate": "generated", "judge": "judged"}
    totals = {stage: total(counts, stage) for stage in stages_of(counts)}
    finished = sum(count.is_finished for count in counts)
    parts = [
        f"{words.get(stage, stage)} {one.done}/{one.total} ({rates.get(stage, 0.0):.1f}/s)"
        for stage, one in totals.items()
    ]
    parts += [f"traits {finished}/{len(counts)}", f"time left {_time_left(totals, rates)}"]
    if spent:
        parts.append(spent)
    if failures:
        parts.append(f"{len(failures)} jobs failed")
    return ", ".join(parts)


def _time_left(totals: dict[str, StageCount], rates: dict[str, float]) -> str:
    left = seconds_left(totals, rates)
    if left is None:
        return "unknown"
    seconds = int(left)
    if not seconds:
        return "seconds"
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
