"""`orchestrate agreement`: how well two judgements of a run agree, or a judgement and people."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from cli.options.settings import json_option, runs_dir_option
from domain.errors import UsageError
from domain.scoring.agreement import Agreement
from domain.scoring.agreement import agreement as agreement_of
from domain.scoring.scores import METRICS, Score
from orchestrator.runs import run_store
from storage.record.judgements import FIRST, effective_scorings, names, read_judgement
from storage.record.run import Run, open_run
from storage.record.tables import training_jobs

Scores = dict[tuple[str, str], float]
"""(sample key, metric) -> score 0 to 100."""


@click.command("agreement")
@click.argument("run")
@runs_dir_option
@click.option("--first", default=FIRST, show_default=True, metavar="NAME", help="A judgement.")
@click.option("--second", metavar="NAME", help="Another one.  [default: the latest]")
@click.option(
    "--labels",
    type=click.Path(dir_okay=False, path_type=Path),
    help="CSV with columns key (as in responses.parquet), score (0 to 100) and, if not trait, "
    "metric; compared instead of a second judgement.",
)
@json_option
def agreement(
    run: str, runs_dir: str, first: str, second: str | None, labels: Path | None, as_json: bool
) -> None:
    """Compare two judgements, or a judgement with human labels: Spearman, quadratic kappa over
    tens, and calibration (mean of the other side in each fifth of the scale).

    \b
    orchestrate agreement demo --second third
    orchestrate agreement demo --labels labels.csv
    """
    recorded = open_run(run_store(runs_dir, run))
    if labels is not None and second is not None:
        raise UsageError("give --second or --labels, not both")
    other = labels.name if labels else second or _latest(recorded)
    scores = _scores(recorded, first)
    others = read_labels(labels) if labels else _scores(recorded, other)
    found = compare(scores, others)
    if not found:
        raise UsageError(f"{first} and {other} have no scored response in common")
    if as_json:
        click.echo(json.dumps([{**where, **asdict(one)} for where, one in found], indent=2))
        return
    Console().print(_table(found, first, other))


def compare(first: Scores, second: Scores) -> list[tuple[dict[str, str], Agreement]]:
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
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                line += 1
                metric = row.get("metric") or "trait"
                score = float(row["score"])
                if metric not in METRICS or not 0 <= score <= 100:
                    raise ValueError(f"metric {metric!r}, score {score:g}")
                found[row["key"], metric] = score
    except OSError as error:
        raise UsageError(f"--labels {path} cannot be read: {error.strerror}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(
            f"{path} line {line}: {error}; columns key, score (0 to 100) and optionally metric "
            "(trait or coherence) are expected"
        ) from error
    return found


def _scores(run: Run, name: str) -> Scores:
    judgement = None if name == FIRST else read_judgement(run, name).name
    chosen = replace(run, judgement=judgement)
    found: Scores = {}
    for trait in run.spec.traits:
        for job in training_jobs(chosen, trait, "judge"):
            try:
                scorings = effective_scorings(chosen, job)
            except KeyError:
                continue
            found |= {asked: v.value for asked, v in scorings.items() if isinstance(v, Score)}
    return found


def _latest(run: Run) -> str:
    later = names(run)
    if not later:
        raise UsageError(
            "the run has one judgement: make another with `orchestrate rejudge`, or give --labels"
        )
    return later[-1]


def _table(found: list[tuple[dict[str, str], Agreement]], first: str, other: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.title, table.title_justify = f"{first} against {other}", "left"
    for heading in ("metric", "trait"):
        table.add_column(heading)
    for heading in ("pairs", "Spearman", "kappa", "mean difference", "calibration error"):
        table.add_column(heading, justify="right")
    for where, one in found:
        figures = (one.spearman, one.kappa, one.mean_difference, one.calibration_error)
        shown = ["-" if figure is None else f"{figure:.2f}" for figure in figures]
        table.add_row(where["metric"], where["trait"], str(one.n), *shown)
    return table
