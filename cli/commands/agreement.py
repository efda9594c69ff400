"""`orchestrate agreement` compares two judgements of a run, or one with people."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Column, Table

from cli.options.settings import json_option, run_argument
from cli.screens.tables import number_text, table_of
from cli.screens.terminal import Screen
from domain.errors import UsageError
from domain.scoring.agreement import Agreement
from domain.scoring.agreement import agreement as agreement_of
from domain.scoring.scores import METRICS, Score
from storage.files.reading import read_text
from storage.record.judged_samples import training_jobs
from storage.record.judgements import FIRST, effective_scorings, judgement_names, on_judgement
from storage.record.run import Run

Scores = dict[tuple[str, str], float]
"""(sample key, metric) -> score 0 to 100."""


@click.command()
@run_argument
@click.option("--first", default=FIRST, show_default=True, metavar="NAME", help="A judgement.")
@click.option("--second", metavar="NAME", help="Another one.  [default: the latest]")
@click.option(
    "--labels",
    type=click.Path(dir_okay=False, path_type=Path),
    help="CSV with columns key (as in responses.parquet), score (0 to 100) and, if not trait, "
    "metric; compared instead of a second judgement.",
)
@json_option
def agreement(run: Run, first: str, second: str | None, labels: Path | None, as_json: bool) -> None:
    """Compare two judgements, or a judgement with human labels: Spearman, quadratic kappa over
    tens, and calibration (mean of the other side in each fifth of the scale).

    \b
    orchestrate agreement demo --second third
    orchestrate agreement demo --labels labels.csv
    """
    if labels is not None and second is not None:
        raise UsageError("give --second or --labels, not both")
    later = judgement_names(run)
    _require_scores(run, first)
    if not (labels or second or later):
        raise UsageError(
            "the run has one judgement: make another with `orchestrate rejudge`, or give --labels"
        )
    other = labels.name if labels else second or later[-1]
    scores = _scores(run, first)
    found = _compared(scores, read_labels(labels) if labels else _scores(run, other))
    if not found:
        raise UsageError(f"{first} and {other} have no scored response in common")
    if as_json:
        click.echo(json.dumps([{**where, **asdict(one)} for where, one in found], indent=2))
        return
    Screen().print(_table(found, first, other))


def _compared(first: Scores, second: Scores) -> list[tuple[dict[str, str], Agreement]]:
    """Per trait and metric, then over all of a metric; only what has a score on both sides."""
    groups: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for (key, metric), score in first.items():
        if (key, metric) in second:
            pair = (score, second[key, metric])
            groups.setdefault((key.partition("/")[0], metric), []).append(pair)
            groups.setdefault(("all", metric), []).append(pair)
    order = sorted(groups, key=lambda g: (METRICS.index(g[1]), g[0] == "all", g[0]))
    return [({"trait": t, "metric": m}, agreement_of(groups[t, m])) for t, m in order]


def read_labels(path: Path) -> Scores:
    """The labels of a CSV; raises UsageError naming the line that cannot be read."""
    found: Scores = {}
    line = 1
    try:
        for row in csv.DictReader(io.StringIO(read_text(path), newline="")):
            line += 1
            metric = row.get("metric") or "trait"
            score = float(row["score"])
            if metric not in METRICS or not 0 <= score <= 100:
                raise ValueError(f"metric {metric!r}, score {score:g}")
            # of two people's labels the last one would count alone
            if (row["key"], metric) in found:
                raise ValueError(f"{row['key']} has a label already: give the mean of several")
            found[row["key"], metric] = score
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise UsageError(
            f"{path} line {line}: {error}; columns key, score (0 to 100) and optionally metric "
            "(trait or coherence) are expected"
        ) from error
    return found


def _require_scores(run: Run, judgement: str) -> None:
    if not on_judgement(run, judgement).plan.is_judged:
        raise UsageError(
            f"nothing of {run.name} was judged when it was made",
            advice="`orchestrate rejudge` asks a judge; name two of its judgements with --first "
            "and --second, or one and --labels",
        )


def _scores(run: Run, judgement: str) -> Scores:
    chosen = on_judgement(run, judgement)
    found: Scores = {}
    for trait in run.spec.traits:
        for job in training_jobs(chosen, trait, "judge"):
            try:
                scorings = effective_scorings(chosen, job)
            except KeyError:
                continue
            found |= {asked: v.value for asked, v in scorings.items() if isinstance(v, Score)}
    return found


def _table(found: list[tuple[dict[str, str], Agreement]], first: str, other: str) -> Table:
    figures = ("pairs", "Spearman", "kappa", "mean difference", "calibration error")
    numbers = (Column(heading, justify="right") for heading in figures)
    table = table_of(Column("metric"), Column("trait"), *numbers, gap=2)
    table.title, table.title_justify = f"{first} against {other}", "left"
    for where, one in found:
        found_figures = (one.spearman, one.kappa, one.mean_difference, one.calibration_error)
        shown = [number_text(figure, ".2f") for figure in found_figures]
        table.add_row(where["metric"], where["trait"], str(one.n), *shown)
    return table
