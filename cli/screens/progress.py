"""What a person sees of a run while it goes on: its traits, how fast it goes, the time left."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from cli.screens.run_in_words import News
from cli.screens.tables import duration, first_table_that_fits, table_fits, table_of
from cli.screens.terminal import say
from cli.screens.verdicts import styled_verdict
from domain.verdict.record import TraitMetrics
from orchestrator.progress import (
    SAMPLED,
    Pace,
    StageCount,
    TraitCount,
    seconds_left,
    stage_progress,
    trait_progress_row,
    waiting_stages,
)
from storage.record.dead_letters import Failure

PLAIN_EVERY_S = 10.0
NEWS_EVERY_S = 2.0
BAR_WIDTH, NARROW_BAR = 16, 4

# Of all the time before, what the tests of vectors take after the last response was judged.
TESTS_SHARE = 0.15

MADE = {"generate": "generated", "judge": "judged"}


@dataclass(frozen=True)
class TraitTable:
    """One row a trait, with bars where there is room; names may be folded, numbers never.

    Where it is narrow the contrast goes, then the stages that are counted in jobs, which come last
    and take little. `stages` are the sums, `traits` rows as `trait_progress_row` makes them.
    """

    stages: Mapping[str, Any]
    traits: Sequence[Mapping[str, Any]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See rich."""
        table = self._table(with_bars=False)
        if table_fits(table, console, options, beside=len(self.stages) * (NARROW_BAR + 1)):
            yield self._table(with_bars=True)
        else:
            sampled = [stage for stage in self.stages if stage in SAMPLED]
            fewer = [self._table(with_contrast=False), self._table(sampled, with_contrast=False)]
            yield first_table_that_fits([table, *fewer], console, options)
        if any(one["verdict"] is not None and not one["is_finished"] for one in self.traits):
            yield Text("* not yet checked", style="dim")

    def _table(
        self,
        stages: Sequence[str] | None = None,
        *,
        with_bars: bool = False,
        with_contrast: bool = True,
    ) -> Table:
        shown = list(self.stages) if stages is None else stages
        # only what may be folded is made narrower: the bars, or the names where there are none
        table = table_of(Column("trait", overflow="fold", no_wrap=with_bars))
        for stage in shown:
            if with_bars:
                table.add_column("", min_width=NARROW_BAR, max_width=BAR_WIDTH)
            table.add_column(stage, justify="right", no_wrap=True)
        table.add_column("verdict", overflow="fold", no_wrap=with_contrast)
        if with_contrast:
            table.add_column("contrast", justify="right", no_wrap=True)
        for one in self.traits:
            verdict = "" if one["verdict"] is None else styled_verdict(one["verdict"])
            contrast = "" if one["contrast"] is None else f"{one['contrast']:.1f}"
            table.add_row(
                escape(one["trait"]),
                *self._counts(one, shown, with_bars=with_bars),
                verdict + ("*" if verdict and not one["is_finished"] else ""),
                *([contrast] if with_contrast else []),
            )
        if len(self.traits) > 1:
            sums = self._counts(self.stages, shown, with_bars=with_bars)
            table.add_row("all", *sums, "", *([""] if with_contrast else []), style="bold")
        return table

    def _counts(
        self, found: Mapping[str, Any], shown: Sequence[str], *, with_bars: bool
    ) -> Iterator[RenderableType]:
        for stage in shown:
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
        news_in_words: Callable[[], News] = News,
        tokens_each: float = 1.0,
    ) -> None:
        """`news_in_words` says for whom the run waits, what it has cost and how fast workers write;
        a response has about `tokens_each`, for the time before the first shard has ended."""
        self._console, self._read_metrics = console, read_metrics
        self._read_news, self._tokens_each = news_in_words, tokens_each
        self._began = time.monotonic()
        self._paces: dict[str, Pace] = {}
        self._news, self._next_news = News(), 0.0
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
        totals = stage_progress(counts)
        now = time.monotonic()
        waits = waiting_stages(counts)
        rates = {
            stage: self._paces.setdefault(stage, Pace()).note(now, one.done, waits=stage in waits)
            for stage, one in totals.items()
        }
        if self._live is None and now < self._next_line:
            return
        if now >= self._next_news:
            self._news, self._next_news = self._read_news(), time.monotonic() + NEWS_EVERY_S
        if not rates.get("generate"):
            rates["generate"] = self._news.tokens_per_s / self._tokens_each
        parts = [*self._how_it_goes(counts, totals, rates), *filter(None, [self._news.text])]
        parts += [f"{len(failures)} jobs failed"] if failures else []
        if self._live is None:
            done = [f"{_made(stage)} {one.done}/{one.total}" for stage, one in totals.items()]
            say(self._console, ", ".join([*done, *parts]))
            self._next_line = time.monotonic() + PLAIN_EVERY_S
            return
        rows = [trait_progress_row(count, self._known(count)) for count in counts]
        sums = {stage: vars(one) for stage, one in totals.items()}
        self._live.update(Group(TraitTable(sums, rows), Text(", ".join(parts))))

    def _how_it_goes(
        self,
        counts: list[TraitCount],
        totals: Mapping[str, StageCount],
        rates: Mapping[str, float],
    ) -> list[str]:
        """How fast what is under way goes, and the time left."""
        under_way = [stage for stage, one in totals.items() if one.done < one.total]
        parts = [
            f"{_made(stage)} {rates[stage]:.1f}/s"
            for stage in under_way
            if stage in SAMPLED and rates.get(stage)
        ]
        if self._news.tokens_per_s and "generate" in under_way:
            parts.append(f"{self._news.tokens_per_s:.0f} tokens/s")
        if len(counts) > 1:
            parts.append(f"traits {sum(one.is_finished for one in counts)}/{len(counts)}")
        left = seconds_left(totals, rates)
        if left is None and not any(stage in SAMPLED for stage in under_way):
            left = TESTS_SHARE * (time.monotonic() - self._began)
        if left is None:
            return [*parts, "starting"]
        return [*parts, f"time left {duration(left) if left >= 1 else 'seconds'}"]

    def _known(self, count: TraitCount) -> TraitMetrics | None:
        if not count.is_reduced:
            return None
        key = count.trait, count.is_finished
        if key not in self._metrics:
            self._metrics[key] = self._read_metrics(count.trait)
        return self._metrics[key]


def _made(stage: str) -> str:
    return MADE.get(stage, stage)
