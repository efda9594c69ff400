"""What stands at the end of a run: which trait vectors are usable, and why the others are not."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from cli.screens.progress import styled_verdict

# All columns in full; a narrower terminal wraps lines, which loses less than cutting cells.
WIDTH = 92


def print_verdicts(console: Console, metrics: list[dict[str, Any]]) -> None:
    """Print the table, in full also where there is no terminal."""
    console.width = max(console.width, WIDTH)
    console.print(verdict_table(metrics))


def verdict_table(metrics: list[dict[str, Any]]) -> Table:
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
        kept = one["n_kept"]
        table.add_row(
            one["trait"],
            styled_verdict(one["verdict"]),
            _number(one["contrast"]),
            _number(one["coherence"]),
            *tested_texts(one["quality"]),
            f"{kept['positive']}/{kept['negative']}",
            str(sum(one["n_dropped"].values())),
            str(sum(one["n_unscored"].values())),
            str(one["n_generated"]),
        )
    return table


def tested_texts(quality: dict[str, Any] | None) -> tuple[str, str]:
    """AUROC on the evaluation questions and rise by steering; a dash for what was not measured."""
    if quality is None:
        return "-", "-"
    auroc = rise = None
    if quality["evaluation"]:
        method, layer = quality["best"]["method"], quality["best"]["layer"]
        separation = quality["evaluation"]["methods"][method]["separation"]
        auroc = separation and separation["auroc"]["value"][layer]
    if quality["causal"]:
        rise = quality["causal"]["vector"]["rise"]["value"]
    return (
        "-" if auroc is None else f"{auroc:.3f}",
        "-" if rise is None else f"{rise:+.0f}",
    )


def remarks(metrics: list[dict[str, Any]]) -> list[str]:
    """A line for each trait that failed a gate, then one for each of which something should be
    known, such as a test that was not made."""
    failed = [f"{one['trait']}: {'; '.join(one['reasons'])}" for one in metrics if one["reasons"]]
    known = [
        f"{one['trait']}, worth knowing: {'; '.join(one['notes'])}"
        for one in metrics
        if one.get("notes")
    ]
    return failed + known


def where_vectors_are(metrics: list[dict[str, Any]], where: str) -> str:
    """The line that names the vectors' place, and the traits that have none there."""
    without = [one["trait"] for one in metrics if one["quality"] is None]
    if len(without) == len(metrics):
        return "No vectors: no trait kept responses on both sides"
    return f"Vectors: {where}" + (f" (none of {', '.join(without)})" if without else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
