"""`orchestrate plan`: counts, tokens, money and what already exists; spends nothing."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from cli.options.run import AskedRun, asked_run, asked_terms, run_options, terms_options
from cli.options.settings import Command, broker_option, json_option
from cli.screens.tables import first_table_that_fits, number_column, table_of, text_column
from cli.screens.terminal import Screen, say
from cli.using.estimate import (
    WITHOUT_LOGPROBS,
    TraitEstimate,
    estimate_plan,
    plan_cost,
    plan_usd,
    thought_tokens_expected,
)
from cli.using.plan_remarks import plan_remarks
from domain.plan.jobs import Plan
from domain.plan.spec import RunSpec, settings_differences
from orchestrator.runs import run_store
from storage.record.artifacts import jobs_with_artifacts
from storage.record.run import Run, open_run
from storage.record.spending import Terms

if TYPE_CHECKING:
    from cli.using.precision import Precision


@click.command(cls=Command)
@run_options
@terms_options
@broker_option
@json_option
@click.option(
    "--pilot",
    metavar="RUN",
    help="A finished run of these traits: say how precise contrast and direction will be.",
)
def plan(as_json: bool, broker_url: str | None, pilot: str | None, **values: Any) -> None:
    """Show what a run would do, without spending anything (the same as extract --dry-run).

    It ends with an error where the run could not begin: without a broker where this machine could
    not run it, and where --measure has to be said.

    \b
    orchestrate plan --traits refusal,evil --model google/gemma-2-2b-it --judge-model gpt-6-luna
    """
    asked = asked_run(values)
    run = open_run(run_store(values["runs_dir"], pilot)) if pilot else None
    show_plan(asked, asked_terms(values, asked.spec.judge), as_json=as_json, pilot=run)
    refuse_at_once(asked, on_fleet=bool(broker_url))


def refuse_at_once(asked: AskedRun, *, on_fleet: bool) -> None:
    """Raises what would end a run before its first response, or has to be said before it."""
    # what asks the Hub is not loaded for --help
    from cli.doctor.cannot_start import refuse_what_cannot_start

    refuse_what_cannot_start(
        asked.spec,
        asked.definitions.values(),
        # what a run has recorded was said, or was so before it had to be
        says_measure=asked.says_measure or asked.store.exists("run.json"),
        on_fleet=on_fleet,
    )


def show_plan(asked: AskedRun, terms: Terms, *, as_json: bool, pilot: Run | None = None) -> None:
    """Print the plan of the settings, and what precision a pilot lets expect."""
    spec, store = asked.spec, asked.store
    name = store.url.rpartition("/")[2]
    exists = store.exists("run.json")
    differences = settings_differences(open_run(store).spec, spec) if exists else ()
    done = jobs_with_artifacts(store, asked.definitions) if exists else set()
    # what reads models is not loaded for --help
    from cli.doctor.thinking import thinking_here, thinking_remark

    thinks = thinking_here(spec.model.model_id)
    thought = thought_tokens_expected(spec, thinks)
    found = estimate_plan(Plan(spec), asked.definitions, done=done, thought_tokens=thought)
    expected = _expected(pilot, spec) if pilot is not None else []
    remarks = [*asked.warnings, *plan_remarks(asked.definitions, spec)]
    if as_json:
        body = {
            "run": name,
            "url": store.url,
            **_plan_json(spec, terms, found),
            "remarks": remarks,
            "differences": list(differences),
            "precision": [asdict(one) for one in expected],
            "thoughts": thinks and str(thinks.case),
        }
        click.echo(json.dumps(body, indent=2))
        return
    console = Screen()
    console.print(PlanTable(found))
    if spec.until == "converged":
        say(console, "At most: a trait stops when its direction is known well enough.", wrap=True)
    say(console, f"Run {name} in {store.url}{' (continues)' if exists else ''}.")
    judge, cost = spec.judge, plan_cost(spec, found, terms)
    at = f" at {judge.url}" if judge.scores else ""
    say(console, f"Judge: {judge.model}{at}; {cost}.", wrap=True)
    say(console, _causal_test_line(found), wrap=True)
    for one in expected:
        say(console, one.text, wrap=True)
    say(console, thinking_remark(thinks, spec), wrap=True)
    for remark in remarks:
        say(console, remark, style="yellow", wrap=True)
    for difference in differences:
        text = f"Not the recorded run's settings: {difference}."
        say(console, text, style="red", wrap=True)


def _plan_json(spec: RunSpec, terms: Terms, found: list[TraitEstimate]) -> dict[str, Any]:
    """What the estimates come to, in counts and money."""
    return {
        "judge": spec.judge.model_dump(),
        "usd": plan_usd(spec, found, terms),
        "usd_without_logprobs": plan_usd(spec, found, terms, WITHOUT_LOGPROBS),
        "price": terms.price.model_dump() if terms.price else None,
        "budget": terms.cap_usd,
        "traits": [asdict(one) for one in found],
        "n_samples": sum(one.n_samples for one in found),
        "n_judge_calls": sum(one.n_judge_calls for one in found),
    }


def _expected(pilot: Run, spec: RunSpec) -> list[Precision]:
    # what loads numbers is not loaded for --help
    from cli.using.precision import precisions

    return precisions(pilot, spec)


# Of the plan's columns, in the order in which a narrow terminal loses them.
LESS_WANTED = ("read\nagain", "of them\ntests", "judge tokens\n(est.)")


@dataclass(frozen=True)
class PlanTable:
    """One row per trait and a total; tokens are estimates from the prompts' characters."""

    found: Sequence[TraitEstimate]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See rich."""
        tables = [self._table(LESS_WANTED[:n]) for n in range(len(LESS_WANTED) + 1)]
        yield first_table_that_fits(tables, console, options)

    def _table(self, without: Collection[str]) -> Table:
        found = self.found
        counts = {
            "responses": [e.n_samples for e in found],
            "of them\ntests": [e.n_checked for e in found],
            "read\nagain": [2 * e.n_contexts for e in found],
            "to\ngenerate": [e.n_to_generate for e in found],
            "judge\ncalls": [e.n_judge_calls for e in found],
            "judge tokens\n(est.)": [e.judge_prompt_tokens for e in found],
        }
        shown = {name: values for name, values in counts.items() if name not in without}
        table = table_of(text_column("trait", fold=True), *map(number_column, shown))
        for one, *row in zip(found, *shown.values(), strict=True):
            table.add_row(one.trait, *(f"{value:,}" for value in row))
        table.add_row("total", *(f"{sum(values):,}" for values in shown.values()), style="bold")
        return table


def _causal_test_line(found: list[TraitEstimate]) -> str:
    """What the causal test without a judge reads, beside what is generated."""
    read, generated = (sum(getattr(e, n) for e in found) for n in ("test_tokens", "tokens"))
    if not read:
        return "No causal test without a judge: --contexts over 0 makes it."
    text = f"The causal test without a judge reads about {read:,} tokens"
    if not generated:
        return f"{text}, and none are generated."
    return f"{text}, {read / generated:.0%} of the about {generated:,} that are generated."
