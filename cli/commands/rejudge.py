"""`orchestrate rejudge`: a run's stored responses are scored again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click

from cli.commands.extract import finish_extraction, require_fleet_broker
from cli.commands.pause_cancel import unpause
from cli.options.run import asked_judge, asked_terms, own_option, terms_options
from cli.options.settings import Command, broker_option, json_option, run_argument, wait_option
from cli.options.working_folder import keep_key_from_folder
from domain.errors import UsageError
from domain.fleet.heartbeats import QUEUES
from domain.plan.spec import NO_JUDGE, JudgeSpec
from storage.broker.connection import connect
from storage.broker.fleet import queue_of
from storage.broker.state import jobs_on_queues
from storage.record.artifacts import set_artifact_aside
from storage.record.attended import read_attended
from storage.record.judgements import (
    Judgement,
    add_judgement,
    judgement_names,
    on_judgement,
    read_judgement,
)
from storage.record.run import Run, load_definition
from storage.record.spending import read_terms, write_terms

NUMBER_WORDS = ("second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")


@click.command(cls=Command)
@run_argument
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
    require_fleet_broker(values)
    if use is not None:
        # what was made of another judgement is made again
        chosen = on_judgement(run, use)
        _refuse_beside_others(chosen, values["broker_url"])
        for trait in run.spec.traits:
            set_artifact_aside(run.store, chosen.plan.trait_job("reduce", trait.name))
            set_artifact_aside(run.store, chosen.plan.trait_job("verify", trait.name))
    else:
        judge = _judge(run, values)
        keep_key_from_folder(judge.url, values)
        if not values["broker_url"]:
            # what asks the Hub is not loaded for --help
            from cli.doctor.cannot_start import refuse_judge_here

            refuse_judge_here(run, judge)
        judgement = _judgement(run, name, judge, only_unscored=only == "unscored")
        before = read_terms(run.store, judgement=judgement.name)
        if judge == run.spec.judge and not before.price:
            before = read_terms(run.store)
        terms = asked_terms(values, judge, before=before)
        _refuse_beside_others(replace(run, judgement=judgement.name), values["broker_url"])
        add_judgement(run, judgement)
        write_terms(run.store, terms, judgement=judgement.name)
        chosen = replace(run, judgement=judgement.name)
    unpause(run, priority=None)
    finish_extraction(chosen, values)


def _refuse_beside_others(run: Run, broker_url: str | None) -> None:
    """Raises UsageError while another judgement of the run is made: both would write its results,
    and what ends the one would end the other."""
    if other := read_attended(run.store):
        raise UsageError(
            f"process {other.pid} on {other.host} works on {run.name}",
            advice="wait until it has ended, or interrupt it",
        )
    if not broker_url:
        return
    queues = [queue_of(kind, run.run_id) for kind in QUEUES]
    with connect(broker_url) as client:
        jobs = jobs_on_queues(client, queues, run.run_id)
    made = {job.partition("@")[2].partition("/")[0] for job in jobs} - {"", run.judgement}
    if made:
        raise UsageError(
            f"judgement {min(made)} of {run.name} is being made",
            advice=f"wait until it has ended, or end it with `orchestrate cancel {run.name}`",
        )


def _unfinished(run: Run) -> list[str]:
    """The traits without tested vectors of the run's judgement."""
    done = run.done()
    return [trait.name for trait in run.spec.traits if run.plan.last_job(trait).key not in done]


def _judge(run: Run, values: Mapping[str, Any]) -> JudgeSpec:
    """The run's own judge with what is given instead; raises UsageError for one that cannot score
    the run's traits."""
    own = run.spec.judge
    given = {name: values[f"judge_{name}"] for name in ("model", "url", "scale", "votes")}
    traits = [load_definition(run, trait.name) for trait in run.spec.traits]
    model = run.spec.model.model_id
    if not own.scores or given["model"] == NO_JUDGE:
        # whom extract would ask
        given |= asked_judge(given["model"], given["url"], traits, model=model)
        if given["url"] == NO_JUDGE:
            raise UsageError("rejudge asks a judge: name one with --judge-model and --judge-url")
    if own.url == "embedded" and (given["model"] is None) != (given["url"] is None):
        raise UsageError("a judge other than the embedded one needs --judge-model and --judge-url")
    changed = {name: value for name, value in given.items() if value is not None}
    judge = JudgeSpec.model_validate({**own.model_dump(), **changed})
    if (judge.model, judge.url) == (own.model, own.url):
        return judge
    asked_judge(judge.model, judge.url, traits, model=model)
    return judge


def _judgement(run: Run, name: str | None, judge: JudgeSpec, *, only_unscored: bool) -> Judgement:
    if only_unscored and not run.spec.judge.scores:
        raise UsageError("nothing was judged yet: leave --only out to have everything scored")
    if only_unscored and judge != run.spec.judge:
        raise UsageError(
            "scores of two judges in one vector cannot be compared: leave --only out to have the "
            "other judge score everything"
        )
    existing = [read_judgement(run, one) for one in judgement_names(run)]
    for one in existing:
        same = one.judge == judge and one.only_unscored == only_unscored
        if name in (None, one.name) and same and _unfinished(on_judgement(run, one.name)):
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
