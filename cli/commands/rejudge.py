"""`orchestrate rejudge` scores stored responses again; `retry` gives failed jobs another chance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from cli.commands.extract import finish
from cli.options.run import own_option, resolve_terms, terms_options
from cli.options.settings import (
    broker_option,
    json_option,
    runs_dir_option,
    wait_option,
)
from domain.errors import UsageError
from domain.plan.spec import JudgeSpec
from orchestrator.runs import run_store
from storage.record.artifacts import set_aside
from storage.record.judgements import FIRST, Judgement, add_judgement, names, read_judgement
from storage.record.run import Run, dead_letters, open_run, revive
from storage.record.spending import read_terms, write_terms


@click.command()
@click.argument("run")
@runs_dir_option
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
def rejudge(
    run: str,
    runs_dir: str,
    only: str | None,
    judge_model: str | None,
    judge_url: str | None,
    judge_scale: str | None,
    judge_votes: int | None,
    name: str | None,
    use: str | None,
    broker_url: str | None,
    wait_for_workers: float,
    as_json: bool,
    **values: Any,
) -> None:
    """Score a run's stored responses again, and make its vectors from the new scores.

    Both sets of scores are kept: compare them with `orchestrate agreement`, go back to the first
    with --use first. The same command again continues an interrupted judgement.

    \b
    orchestrate rejudge demo --only unscored
    orchestrate rejudge demo --judge-model gpt-6-luna --judge-url https://api.openai.com/v1
    """
    recorded = open_run(run_store(runs_dir, run))
    _require_generated(recorded)
    if use is not None:
        chosen = _use(recorded, use)
    else:
        judge = _judge(recorded, judge_model, judge_url, judge_scale, judge_votes)
        judgement = _judgement(recorded, name, judge, only_unscored=only == "unscored")
        before = read_terms(recorded.store, judgement=judgement.name)
        if judge == recorded.spec.judge:
            before = before if before.price else read_terms(recorded.store)
        terms = resolve_terms(values, judge, before=before)
        add_judgement(recorded, judgement)
        write_terms(recorded.store, terms, judgement=judgement.name)
        chosen = replace(recorded, judgement=judgement.name)
    finish(chosen, broker_url, wait_s=wait_for_workers, detach=False, as_json=as_json)


def _require_generated(run: Run) -> None:
    done = run.done()
    for trait in run.spec.traits:
        if run.plan.last_job(trait).key not in done:
            raise UsageError(
                f"{trait.name} is not generated and judged to its end: finish the run with "
                "`orchestrate resume` first"
            )


def _use(run: Run, name: str) -> Run:
    """The run on an existing judgement, its vectors to be made again."""
    judgement = None if name == FIRST else read_judgement(run, name).name
    chosen = replace(run, judgement=judgement)
    for trait in run.spec.traits:
        set_aside(run.store, chosen.plan.trait_job("reduce", trait.name))
        set_aside(run.store, chosen.plan.trait_job("verify", trait.name))
    return chosen


def _judge(
    run: Run, model: str | None, url: str | None, scale: str | None, votes: int | None
) -> JudgeSpec:
    own = run.spec.judge
    given = {"model": model, "url": url, "scale": scale, "votes": votes}
    changed = {name: value for name, value in given.items() if value is not None}
    if own.url == "embedded" and (model is None) != (url is None):
        raise UsageError("a judge other than the embedded one needs --judge-model and --judge-url")
    return JudgeSpec.model_validate({**own.model_dump(), **changed})


def _judgement(run: Run, name: str | None, judge: JudgeSpec, *, only_unscored: bool) -> Judgement:
    if only_unscored and judge != run.spec.judge:
        raise UsageError(
            "scores of two judges in one vector cannot be compared: leave --only out to have the "
            "other judge score everything"
        )
    existing = [read_judgement(run, one) for one in names(run)]
    for one in existing:
        same = one.judge == judge and one.only_unscored == only_unscored
        if name in (None, one.name) and same and not _is_finished(run, one):
            return one
    base = _latest_of(existing, judge) if only_unscored else None
    return Judgement(
        name=name or _next_name(existing),
        number=len(existing) + 2,
        judge=judge,
        only_unscored=only_unscored,
        based_on=base,
    )


def _is_finished(run: Run, judgement: Judgement) -> bool:
    judged = replace(run, judgement=judgement.name)
    done = judged.done()
    return all(judged.plan.last_job(trait).key in done for trait in run.spec.traits)


def _latest_of(existing: list[Judgement], judge: JudgeSpec) -> str | None:
    """The last chain of --only unscored judgements of this judge, to go on from."""
    own = [one.name for one in existing if one.judge == judge and one.only_unscored]
    return own[-1] if own else None


def _next_name(existing: list[Judgement]) -> str:
    words = ("second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
    taken = {one.name for one in existing}
    return next((w for w in words if w not in taken), f"judgement-{len(taken) + 2}")


@click.command()
@click.argument("run")
@runs_dir_option
@broker_option
@click.option("--dead", is_flag=True, help="Also the jobs that were given up for killing workers.")
@wait_option
@click.option("--detach", is_flag=True, help="Send the jobs to the fleet and return.")
@json_option
def retry(
    run: str,
    runs_dir: str,
    broker_url: str | None,
    dead: bool,
    wait_for_workers: float,
    detach: bool,
    as_json: bool,
) -> None:
    """Try a run's failed jobs again and continue it; with --dead also those that were given up.

    \b
    orchestrate retry demo-1a2b3c4d --dead
    """
    store = run_store(runs_dir, run)
    recorded = open_run(store)
    if dead:
        revived = revive(store)
        click.echo(f"{len(revived)} jobs that were given up are tried again.", err=True)
    elif dead_letters(store):
        click.echo("Some jobs were given up for killing workers; --dead includes them.", err=True)
    finish(recorded, broker_url, wait_s=wait_for_workers, detach=detach, as_json=as_json)
