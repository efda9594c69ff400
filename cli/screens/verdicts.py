"""What a person reads at the end of a run: which vectors are usable, why not, and what is next."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from cli.screens.tables import (
    first_table_that_fits,
    number_column,
    number_text,
    table_of,
    text_column,
)
from cli.screens.terminal import say
from domain.verdict.record import TraitMetrics, Use, UseState
from domain.verdict.sentences import check_text

# All columns of the verdicts in full, where there is no terminal to fit.
WIDTH = 110

# What remarks may fill of a terminal; the report has them all.
MOST_REMARK_LINES = 10

MOST_NAMES = 3
FIGURE = re.compile(r"\d+(?:\.\d+)?")

# Readable without colour.
MARKS = {
    "usable": "[green]✓ usable[/green]",
    "usable with a doubt": "[green]✓ usable with a doubt[/green]",
    "weak": "[yellow]~ weak[/yellow]",
    "do not use": "[red]✗ do not use[/red]",
}

# In the order in which a narrow terminal loses them.
COUNTS = ("of", "unscored", "dropped", "coher.", "kept +/-", "contrast")


def styled_verdict(verdict: str) -> str:
    """The verdict with its mark."""
    return MARKS.get(verdict, verdict)


def told_verdict(metrics: TraitMetrics) -> str:
    """A trait's verdict with its mark, and whether its tests are still to come."""
    return f"{styled_verdict(metrics.verdict)}{check_text(metrics)}"


@dataclass(frozen=True)
class VerdictTable:
    """One row a trait; counts are responses, and those that do not fit are left out.

    Of each use it says whether it is shown, and at which layer: reads with the AUROC of texts under
    no instruction, steers with what the best push adds to the trait score.
    """

    metrics: Sequence[TraitMetrics]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See rich."""
        tables = [self._table(COUNTS[n:]) for n in range(len(COUNTS) + 1)]
        yield first_table_that_fits(tables, console, options)

    def _table(self, counts: Sequence[str]) -> Table:
        shown = [name for name in reversed(COUNTS) if name in counts]
        words = [text_column(word, fold=True) for word in ("trait", "verdict")]
        uses = map(text_column, ("reads", "steers"))
        table = table_of(*words, *uses, *map(number_column, shown))
        for one in self.metrics:
            figures = _counts(one)
            table.add_row(
                one.trait,
                told_verdict(one),
                *verdict_use_texts(one),
                *(figures[name] for name in shown),
            )
        return table


def print_verdicts(console: Console, metrics: Sequence[TraitMetrics]) -> None:
    """The verdicts, in full where there is no terminal."""
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    console.print(VerdictTable(metrics))


def _counts(one: TraitMetrics) -> Mapping[str, str]:
    return {
        "contrast": number_text(one.contrast),
        "coher.": number_text(one.coherence),
        "kept +/-": f"{one.n_kept.positive}/{one.n_kept.negative}",
        "dropped": str(sum(one.n_dropped.values())),
        "unscored": str(sum(one.n_unscored.values())),
        "of": str(one.n_generated),
    }


def verdict_use_texts(metrics: TraitMetrics) -> tuple[str, str]:
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


def print_verdict_remarks(
    console: Console,
    named: Iterable[tuple[str, Sequence[str], Sequence[str]]],
    *,
    rest_in: str = "the report",
) -> None:
    """What (trait, reasons, notes) say, as many as a terminal should have to show."""
    n_lines, remarks = 0, verdict_remark_lines(named)
    for k, remark in enumerate(remarks):
        n_lines += len(Text(remark).wrap(console, console.width))
        if console.is_terminal and k and n_lines > MOST_REMARK_LINES:
            say(console, f"{len(remarks) - k} more in {rest_in}", style="dim")
            return
        say(console, remark, wrap=True)


def verdict_remark_lines(named: Iterable[tuple[str, Sequence[str], Sequence[str]]]) -> list[str]:
    """Why traits failed a gate, then what else should be known, such as a test that was not made.

    Of (trait, reasons, notes). What several traits have in common is said once, with the figures of
    the first, and of each trait the weightiest before the next of any.
    """
    traits: dict[tuple[bool, str], list[str]] = {}
    said: dict[tuple[bool, str], tuple[int, str]] = {}
    differ: set[tuple[bool, str]] = set()
    for trait, reasons, notes in named:
        for is_note, sentences in ((False, reasons), (True, notes)):
            for k, sentence in enumerate(sentences):
                key = is_note, FIGURE.sub("", sentence)
                traits.setdefault(key, []).append(trait)
                first = said.setdefault(key, (k, sentence))
                if first[1] != sentence:
                    differ.add(key)
    return [
        f"{_names(traits[key])}{', worth knowing' if key[0] else ''}: {said[key][1]}"
        + (f" (the figures of {traits[key][0]})" if key in differ else "")
        for key in sorted(traits, key=lambda key: (key[0], said[key][0]))
    ]


def _names(traits: Sequence[str]) -> str:
    if len(traits) <= MOST_NAMES + 1:
        return ", ".join(traits)
    return f"{', '.join(traits[:MOST_NAMES])} and {len(traits) - MOST_NAMES} more"


def spoken_remarks(
    metrics: Iterable[TraitMetrics],
) -> list[tuple[str, Sequence[str], Sequence[str]]]:
    """The remarks of traits as print_verdict_remarks takes them."""
    return [(one.trait, one.reasons, one.notes) for one in metrics]


def where_vectors_are(metrics: Sequence[TraitMetrics], where: str) -> str:
    """The line that names the vectors' place, and the traits that have none there."""
    without = [one.trait for one in metrics if one.quality is None]
    if len(without) == len(metrics):
        return "No vectors: no trait kept responses on both sides"
    return f"Vectors: {where}" + (f" (none of {', '.join(without)})" if without else "")
