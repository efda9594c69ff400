"""`orchestrate traits pilot`: a few responses with a trait's definition, and what they show."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from cli.commands.plan import refuse_at_once
from cli.options.run import (
    SETTINGS,
    AskedRun,
    asked_run,
    asked_terms,
    setting_option,
    terms_options,
)
from cli.options.settings import (
    Command,
    broker_option,
    json_option,
    runs_dir_option,
    together,
    wait_option,
)
from cli.screens.tables import number_column, number_text, table_of, text_column
from cli.screens.terminal import Screen, say
from cli.using.estimate import estimate_plan, plan_cost, plan_line
from domain.errors import UsageError
from domain.plan.jobs import Plan
from domain.plan.samples import POLARITIES
from domain.traits.definition import TraitDefinition
from orchestrator.runs import run_store
from storage.files.trait_files import read_trait
from storage.record.artifacts import jobs_with_artifacts
from storage.record.judged_samples import judged_samples

if TYPE_CHECKING:
    from cli.using.piloted import Level, Pilot

N_RESPONSES = 40
MOST_SHOWN = 44
# A pilot is of the definition, the model and the judge: it makes each response once, and tests no
# vector. All instruction pairs are asked the same questions, so that pairs and questions compare.
FIXED = {"rollouts": 1, "evaluation": 0, "causal": 0, "contexts": 0, "until": "all"}
# Of a vector and its tests.
NOT_ASKED = {*FIXED, "doses", "converged-degrees", "methods", "filter", "shard-samples"}
ASKED = [name for name in SETTINGS if name not in NOT_ASKED]


@click.command("pilot", cls=Command)
@click.argument("ref", metavar="FILE")
@together(*map(setting_option, ASKED))
@click.option(
    "--questions",
    type=click.IntRange(1),
    help="Ask so many of the file's questions.  [default: 40 responses' worth]",
)
@runs_dir_option
@terms_options
@broker_option
@wait_option
@click.option("--dry-run", is_flag=True, help="Say what it will cost, and stop.")
@json_option
def pilot_trait(ref: str, questions: int | None, dry_run: bool, **values: Any) -> None:
    """Try a trait's definition on your model with 40 responses, and say what to change.

    FILE is a trait file, a folder of scenarios or a bundled name. Each instruction pair answers a
    few of the questions, once on each side, and the judge scores the answers; then it says whether
    the sides differ, which instruction is weak, which question does not elicit the trait, and
    whether responses are incoherent, cut or refused. It is a run like any other: the same command
    continues it, and `report` shows its responses. Ends with 3 where the sides do not differ.

    \b
    orchestrate traits pilot humor.json --model google/gemma-2-2b-it --judge-model gpt-6-luna
    orchestrate traits pilot humor.json --questions 20       # every question, five times the cost
    """
    source = read_trait(ref)
    whole = source.definition()
    definition, places = _pilot_definition(whole, questions)
    asked = _asked(definition, values)
    if not asked.spec.judge.scores:
        raise UsageError(
            "a pilot says what a judge's scores show, and --judge none makes none",
            advice="name one with --judge-model (and --judge-url), or put a `measure` into the "
            "trait's file, which needs nobody",
        )
    # what trains nothing is not loaded for --help
    from cli.commands.extract import NOT_USABLE, begin_extraction, carry_out_extraction

    console = Screen(to_stderr=values["as_json"])
    terms = asked_terms(values, asked.spec.judge)
    exists = asked.store.exists("run.json")
    done = jobs_with_artifacts(asked.store, asked.definitions) if exists else set()
    found = estimate_plan(Plan(asked.spec), asked.definitions, done=done)
    say(console, plan_line(found), wrap=True)
    judge, cost = asked.spec.judge, plan_cost(asked.spec, found, terms)
    say(console, f"Judge: {judge.model} at {judge.url}; {cost}.", wrap=True)
    for warning in source.warnings():
        say(console, warning, style="yellow", wrap=True)
    refuse_at_once(asked, on_fleet=bool(values["broker_url"]))
    if dry_run:
        return
    run = begin_extraction(asked, values)
    say(console, f"Run {run.name} in {run.store.url}")
    is_done = {job.key for job in run.plan.jobs()} <= run.done()
    for failure in () if is_done else carry_out_extraction(console, run, values) or ():
        say(console, f"{failure.job} failed: {failure.error}: {failure.message}")
    (trait,) = run.spec.traits
    jobs = run.plan.part_jobs(trait, "generate", *POLARITIES)
    if not {run.plan.judge_job(job).key for job in jobs} <= run.done():
        sys.exit(1)
    from cli.using.piloted import SHOWS, piloted

    pilot = piloted(judged_samples(run, jobs), run.spec.filter, places=places)
    n_questions = len(whole.questions)
    if values["as_json"]:
        body = {"run": run.name, "url": run.store.url, **pilot.to_json()}
        click.echo(json.dumps(body, indent=2, ensure_ascii=False))
    else:
        _print(console, pilot, n_questions=n_questions)
        say(console, f"The responses: orchestrate report {run.name}")
    is_shown = pilot.remarks[0].kind in SHOWS
    sys.exit(0 if is_shown else NOT_USABLE)


def _pilot_definition(
    whole: TraitDefinition, n_questions: int | None
) -> tuple[TraitDefinition, list[int]]:
    """The definition with a few of its questions, taken evenly since neighbors are often of one
    topic, and their places in the file."""
    n = n_questions or max(1, N_RESPONSES // (2 * (len(whole.instruction) or 1)))
    n = min(n, len(whole.questions))
    places = [int(k * len(whole.questions) / n) for k in range(n)]
    facts: dict[str, object] = {"eval_questions": (), "eval_opposites": ()}
    for name in ("questions", "opposites"):
        texts = getattr(whole, name)
        facts[name] = tuple(texts[place] for place in places) if texts else ()
    return whole.model_copy(update={**facts, "n_shared": 0, "n_parted": 0}), places


def _asked(definition: TraitDefinition, values: dict[str, Any]) -> AskedRun:
    defaults = {
        name.replace("-", "_"): setting.field.get_default() for name, setting in SETTINGS.items()
    }
    own = {"questions": None, "instructions": None, "methods": "mean_diff", "run": None}
    asked = asked_run({**defaults, **values, **FIXED, **own}, [definition])
    name = f"pilot-{definition.name}-{asked.spec.digest()[:8]}"
    return replace(asked, store=run_store(values["runs_dir"], name))


def _print(console: Screen, pilot: Pilot, *, n_questions: int) -> None:
    console.print()
    if any(pair.text for pair in pilot.pairs):
        console.print(_table("instruction pair", pilot.pairs))
        console.print()
    console.print(_table("question", pilot.questions))
    console.print()
    for remark in pilot.remarks:
        say(console, f"* {remark.words}", wrap=True)
    left = n_questions - len(pilot.questions)
    if left > 0:
        say(
            console,
            f"{left} of the file's questions were not asked; --questions {n_questions} does.",
        )


def _table(heading: str, levels: tuple[Level, ...]) -> Table:
    figures = map(number_column, ("pos", "neg", "contrast"))
    table = table_of(text_column(heading), *figures, text_column("", fold=True), gap=2)
    for one in levels:
        text = shorten(one.text, MOST_SHOWN, placeholder=" …")
        scores = [number_text(score, ".0f") for score in (one.positive, one.negative, one.contrast)]
        table.add_row(escape(one.where), *scores, escape(text))
    return table
