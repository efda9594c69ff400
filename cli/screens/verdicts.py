"""What stands at the end of a run: which trait vectors are usable, and why the others are not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from cli.screens.progress import styled_verdict
from domain.verdict.record import Quality, TraitMetrics

# All columns in full; a narrower terminal wraps lines, which loses less than cutting cells.
WIDTH = 92


def print_verdicts(console: Console, metrics: Sequence[TraitMetrics]) -> None:
    """Print the table, in full also where there is no terminal."""
    console.width = max(console.width, WIDTH)
    console.print(verdict_table(metrics))


def verdict_table(metrics: Sequence[TraitMetrics]) -> Table:
    """One row per trait; counts are responses. AUROC is on the evaluation questions, steers is what
    the best push adds to the trait score."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("trait", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for heading in (
        "contrast",
        "coher.",
        "AUROC",
        "steers",
        "kept +/-",
        "dropped",
        "unscored",
        "of",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in metrics:
        table.add_row(
            one.trait,
            styled_verdict(one.verdict),
            number_text(one.contrast),
            number_text(one.coherence),
            *tested_texts(one.quality),
            f"{one.n_kept.positive}/{one.n_kept.negative}",
            str(sum(one.n_dropped.values())),
            str(sum(one.n_unscored.values())),
            str(one.n_generated),
        )
    return table


def tested_texts(quality: Quality | None) -> tuple[str, str]:
    """AUROC on the evaluation questions and rise by steering; a dash for what was not measured."""
    auroc = rise = None
    if quality is not None and quality.evaluation is not None:
        separation = quality.evaluation.methods[quality.best.method].separation
        auroc = separation.auroc.value[quality.best.layer] if separation else None
    if quality is not None and quality.causal is not None:
        rise = quality.causal.vector.rise.value
    return number_text(auroc, ".3f"), number_text(rise, "+.0f")


def number_text(value: float | None, form: str = ".1f") -> str:
    """A number as the form says, a dash for what was not measured."""
    return "-" if value is None else f"{value:{form}}"


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
