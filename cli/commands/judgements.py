"""`orchestrate rejudge` scores stored responses again; `agreement` compares two judgements, or one
with people."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich.table import Column, Table

from cli.commands.extract import finish_extraction
from cli.options.folder import hold_back_key
from cli.options.run import own_option, resolve_terms, terms_options
from cli.options.settings import broker_option, json_option, recorded_run, wait_option
from cli.screens.run import number_text, table_of
from cli.screens.terminal import Screen
from domain.errors import UsageError
from domain.plan.spec import JudgeSpec
from domain.scoring.agreement import Agreement
from domain.scoring.agreement import agreement as agreement_of
from domain.scoring.scores import METRICS, Score
from storage.record.artifacts import set_artifact_aside
from storage.record.judgements import (
    FIRST,
    Judgement,
    add_judgement,
    effective_scorings,
    judgement_names,
    read_judgement,
)
from storage.record.run import Run
from storage.record.spending import read_terms, write_terms
from storage.record.tables import training_jobs

NUMBER_WORDS = ("second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
Scores = dict[tuple[str, str], float]
"""(sample key, metric) -> score 0 to 100."""


@click.command()
@recorded_run
@click.option("--only", type=click.Choice(["unscored"]), help="Ask only what has no score yet.")
@own_option("judge-model", help="Another judge.")
@own_option("judge-url", help="Its endpoint.")
@own_option("judge-scale")
@own_option("judge-votes", help="Answers per score.")
@click.option("--name", metavar="NAME", help="Name of the judgement.  [default: second, third ...]")
@click.option("--use", metavar="NAME", help="Ask nothing: make the vectors from this judgement.")
@terms_options
@broker_option
@wait_option
@json_option
def rejudge(run: Run, only: str | None, name: str | None, use: str | None, **values: Any) -> None:
    """Score a run's stored responses again, and make its vectors from the new scores.

    Both sets of scores are kept: compare them with `orchestrate agreement`, go back to the first
    with --use first. The same command again continues an interrupted judgement.

    \b
    orchestrate rejudge demo --only unscored
    orchestrate rejudge demo --judge-model gpt-6-luna --judge-url https://api.openai.com/v1
    """
    unfinished = _unfinished(run)
    if unfinished:
        raise UsageError(
            f"{unfinished[0]} is not generated and judged to its end: finish the run with "
            "`orchestrate resume` first"
        )
    if use is not None:
        # what was made of another judgement is made again
        chosen = _on(run, use)
        for trait in run.spec.traits:
            set_artifact_aside(run.store, chosen.plan.trait_job("reduce", trait.name))
            set_artifact_aside(run.store, chosen.plan.trait_job("verify", trait.name))
    else:
        judge = _judge(run.spec.judge, values)
        hold_back_key(judge.url, values)
        judgement = _judgement(run, name, judge, only_unscored=only == "unscored")
        before = read_terms(run.store, judgement=judgement.name)
        if judge == run.spec.judge and not before.price:
            before = read_terms(run.store)
        terms = resolve_terms(values, judge, before=before)
        add_judgement(run, judgement)
        write_terms(run.store, terms, judgement=judgement.name)
        chosen = replace(run, judgement=judgement.name)
    finish_extraction(chosen, values)


def _unfinished(run: Run) -> list[str]:
    """The traits without tested vectors of the run's judgement."""
    done = run.done()
    return [trait.name for trait in run.spec.traits if run.plan.last_job(trait).key not in done]


def _on(run: Run, name: str) -> Run:
    """The run on an existing judgement."""
    return replace(run, judgement=None if name == FIRST else read_judgement(run, name).name)


def _judge(own: JudgeSpec, values: Mapping[str, Any]) -> JudgeSpec:
    """The run's own judge with what is given instead."""
    given = {name: values[f"judge_{name}"] for name in ("model", "url", "scale", "votes")}
    if own.url == "embedded" and (given["model"] is None) != (given["url"] is None):
        raise UsageError("a judge other than the embedded one needs --judge-model and --judge-url")
    changed = {name: value for name, value in given.items() if value is not None}
    return JudgeSpec.model_validate({**own.model_dump(), **changed})


def _judgement(run: Run, name: str | None, judge: JudgeSpec, *, only_unscored: bool) -> Judgement:
    if only_unscored and judge != run.spec.judge:
        raise UsageError(
            "scores of two judges in one vector cannot be compared: leave --only out to have the "
            "other judge score everything"
        )
    existing = [read_judgement(run, one) for one in judgement_names(run)]
    for one in existing:
        same = one.judge == judge and one.only_unscored == only_unscored
        if name in (None, one.name) and same and _unfinished(_on(run, one.name)):
            return one
    # a chain of --only unscored judgements of this judge is gone on from
    chain = [one.name for one in existing if one.judge == judge and one.only_unscored]
    taken = {one.name for one in existing}
    unused = (word for word in NUMBER_WORDS if word not in taken)
    return Judgement(
        name=name or next(unused, f"judgement-{len(taken) + 2}"),
        number=len(existing) + 2,
        judge=judge,
        only_unscored=only_unscored,
        based_on=chain[-1] if only_unscored and chain else None,
    )


@click.command()
@recorded_run
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
    if not (labels or second or later):
        raise UsageError(
            "the run has one judgement: make another with `orchestrate rejudge`, or give --labels"
        )
    other = labels.name if labels else second or later[-1]
    scores = _scores(run, first)
    found = compare_judgements(scores, read_labels(labels) if labels else _scores(run, other))
    if not found:
        raise UsageError(f"{first} and {other} have no scored response in common")
    if as_json:
        click.echo(json.dumps([{**where, **asdict(one)} for where, one in found], indent=2))
        return
    Screen().print(_table(found, first, other))


def compare_judgements(first: Scores, second: Scores) -> list[tuple[dict[str, str], Agreement]]:
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


def _scores(run: Run, judgement: str) -> Scores:
    chosen = _on(run, judgement)
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
