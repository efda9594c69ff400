"""What a person sees of a run: its traits while it goes on, at its end which vectors are usable."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from cli.screens.tables import (
    duration,
    number_column,
    number_text,
    table_fits,
    table_of,
    text_column,
)
from cli.screens.terminal import say
from domain.verdict.record import TraitMetrics, Use, UseState
from orchestrator.progress import Pace, TraitCount, seconds_left, stage_totals, trait_row
from storage.record.run import Failure

PLAIN_EVERY_S = 10.0
NEWS_EVERY_S = 2.0
BAR_WIDTH, NARROW_BAR = 16, 4

# All columns of the verdicts in full; a narrower terminal wraps lines, which loses less than
# cutting cells.
WIDTH = 110

# Readable without colour.
MARKS = {
    "usable": "[green]✓ usable[/green]",
    "usable with a doubt": "[green]✓ usable with a doubt[/green]",
    "weak": "[yellow]~ weak[/yellow]",
    "do not use": "[red]✗ do not use[/red]",
}

MADE = {"generate": "generated", "judge": "judged"}


@dataclass(frozen=True)
class TraitTable:
    """One row a trait, with bars where there is room; names may be folded, numbers never.

    `stages` are the sums, `traits` rows as orchestrator.progress.trait_row makes them.
    """

    stages: Mapping[str, Any]
    traits: Sequence[Mapping[str, Any]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See rich."""
        table = self._table(with_bars=False)
        if table_fits(table, console, options, beside=len(self.stages) * (NARROW_BAR + 1)):
            table = self._table(with_bars=True)
        yield table
        if any(one["verdict"] is not None and not one["is_finished"] for one in self.traits):
            yield Text("* not yet checked", style="dim")

    def _table(self, *, with_bars: bool) -> Table:
        # only what may be folded is made narrower: the bars, or the names where there are none
        table = table_of(Column("trait", overflow="fold", no_wrap=with_bars))
        for stage in self.stages:
            if with_bars:
                table.add_column("", min_width=NARROW_BAR, max_width=BAR_WIDTH)
            table.add_column(stage, justify="right", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        table.add_column("contrast", justify="right", no_wrap=True)
        for one in self.traits:
            verdict = "" if one["verdict"] is None else styled_verdict(one["verdict"])
            table.add_row(
                escape(one["trait"]),
                *self._counts(one, with_bars=with_bars),
                verdict + ("*" if verdict and not one["is_finished"] else ""),
                "" if one["contrast"] is None else f"{one['contrast']:.1f}",
            )
        if len(self.traits) > 1:
            sums = self._counts(self.stages, with_bars=with_bars)
            table.add_row("all", *sums, "", "", style="bold")
        return table

    def _counts(self, found: Mapping[str, Any], *, with_bars: bool) -> Iterator[RenderableType]:
        for stage in self.stages:
            done, of = (found[stage]["done"], found[stage]["total"]) if stage in found else (0, 0)
            if with_bars:
                yield ProgressBar(of, done) if of else ""
            yield f"{done}/{of}" if of else ""


class Progress:
    """A run's progress, a view of orchestrator.driver: a live table on a terminal, a plain line now
    and then elsewhere."""

    def __init__(
        self,
        console: Console,
        *,
        read_metrics: Callable[[str], TraitMetrics],
        read_news: Callable[[], str] = str,
    ) -> None:
        """`read_news` says for whom the run waits and what it has cost, in words, or nothing."""
        self._console, self._read_metrics = console, read_metrics
        self._read_news = read_news
        self._paces: dict[str, Pace] = {}
        self._news, self._next_news = "", 0.0
        # by whether the trait was finished then: its last job writes them again
        self._metrics: dict[tuple[str, bool], TraitMetrics] = {}
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

    def update(self, counts: list[TraitCount], failures: list[Failure]) -> None:
        """See orchestrator.driver.View."""
        totals = stage_totals(counts)
        now = time.monotonic()
        rates = {
            stage: self._paces.setdefault(stage, Pace()).note(now, one.done)
            for stage, one in totals.items()
        }
        if self._live is None and time.monotonic() < self._next_line:
            return
        left = seconds_left(totals, rates)
        parts = [
            f"{MADE.get(stage, stage)} {one.done}/{one.total} ({rates.get(stage, 0.0):.1f}/s)"
            for stage, one in totals.items()
        ]
        finished = sum(count.is_finished for count in counts)
        time_left = "unknown" if left is None else duration(left) if left >= 1 else "seconds"
        parts += [f"traits {finished}/{len(counts)}", f"time left {time_left}"]
        if time.monotonic() >= self._next_news:
            self._news, self._next_news = self._read_news(), time.monotonic() + NEWS_EVERY_S
        parts += filter(None, [self._news])
        parts += [f"{len(failures)} jobs failed"] if failures else []
        line = ", ".join(parts)
        if self._live is None:
            say(self._console, line)
            self._next_line = time.monotonic() + PLAIN_EVERY_S
            return
        rows = [trait_row(count, self._known(count)) for count in counts]
        sums = {stage: vars(one) for stage, one in totals.items()}
        self._live.update(Group(TraitTable(sums, rows), Text(line)))

    def _known(self, count: TraitCount) -> TraitMetrics | None:
        if not count.is_reduced:
            return None
        key = count.trait, count.is_finished
        if key not in self._metrics:
            self._metrics[key] = self._read_metrics(count.trait)
        return self._metrics[key]


def styled_verdict(verdict: str) -> str:
    """The verdict with its mark."""
    return MARKS.get(verdict, verdict)


def print_verdicts(console: Console, metrics: Sequence[TraitMetrics]) -> None:
    """One row per trait, in full also where there is no terminal; counts are responses.

    Of each use it says whether it is shown, and at which layer: reads with the AUROC of texts under
    no instruction, steers with what the best push adds to the trait score.
    """
    counts = ("contrast", "coher.", "kept +/-", "dropped", "unscored", "of")
    words = ("trait", "verdict", "reads", "steers")
    table = table_of(*map(text_column, words), *map(number_column, counts))
    for one in metrics:
        table.add_row(
            one.trait,
            styled_verdict(one.verdict),
            *use_texts(one),
            number_text(one.contrast),
            number_text(one.coherence),
            f"{one.n_kept.positive}/{one.n_kept.negative}",
            str(sum(one.n_dropped.values())),
            str(sum(one.n_unscored.values())),
            str(one.n_generated),
        )
    console.width = max(console.width, WIDTH)
    console.print(table)


def use_texts(metrics: TraitMetrics) -> tuple[str, str]:
    """Whether the vectors read, and whether they steer: `yes 0.94 @14`, the layer behind the @."""
    auroc = rise = None
    quality, uses = metrics.quality, metrics.uses
    if quality is not None and quality.reading is not None and quality.reading.auroc is not None:
        auroc = quality.reading.auroc.value[uses.reads.layer or 0]
    if quality is not None and quality.causal is not None:
        rise = quality.causal.vector.rise.value
    return _use_text(uses.reads, auroc, ".2f"), _use_text(uses.steers, rise, "+.0f")


def _use_text(use: Use, figure: float | None, form: str) -> str:
    if use.state == UseState.UNTESTED:
        return use.state
    return f"{use.state} {number_text(figure, form)} @{use.layer}"


def remarks(metrics: Sequence[TraitMetrics]) -> list[str]:
    """A line for each trait that failed a gate, then one for each of which something should be
    known, such as a test that was not made."""
    return remark_lines((one.trait, one.reasons, one.notes) for one in metrics)


def remark_lines(named: Iterable[tuple[str, Sequence[str], Sequence[str]]]) -> list[str]:
    """The same of (trait, reasons, notes)."""
    found = list(named)
    failed = [f"{trait}: {'; '.join(reasons)}" for trait, reasons, _ in found if reasons]
    known = [f"{trait}, worth knowing: {'; '.join(notes)}" for trait, _, notes in found if notes]
    return failed + known


def where_vectors_are(metrics: Sequence[TraitMetrics], where: str) -> str:
    """The line that names the vectors' place, and the traits that have none there."""
    without = [one.trait for one in metrics if one.quality is None]
    if len(without) == len(metrics):
        return "No vectors: no trait kept responses on both sides"
    return f"Vectors: {where}" + (f" (none of {', '.join(without)})" if without else "")
