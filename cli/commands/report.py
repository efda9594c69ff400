"""`orchestrate report` and `compare`: a run, or two, as one page that opens in any browser."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.table import Column, Table

from cli.options.settings import json_option, run_argument, runs_dir_option
from cli.pages.build import report_page
from cli.pages.firing import fired
from cli.pages.report_data import compare_data, report_data, reported_cosines, reported_metrics
from cli.screens.tables import number_text, table_of
from cli.screens.terminal import Screen, say
from cli.screens.verdicts import told_verdict, verdict_use_texts
from cli.screens.working import working
from domain.verdict.record import TraitMetrics
from orchestrator.runs import run_store
from storage.record.json_bytes import json_bytes
from storage.record.run import REPORT, RUN_METRICS, Run, open_run


@click.command()
@run_argument
@json_option
def report(run: Run, as_json: bool) -> None:
    """Write a run's report.html: one file, no network needed to open it.

    \b
    orchestrate report demo
    """
    with working("Writing the report"):
        where = write_report(run)
    click.echo(json.dumps({"run": run.name, "report": where}) if as_json else where)


@click.command()
@click.argument("first")
@click.argument("second")
@runs_dir_option
@json_option
def compare(first: str, second: str, runs_dir: str, as_json: bool) -> None:
    """Set two runs side by side: settings, verdicts, quality, and how alike the vectors are.

    Writes compare-SECOND.html into the first run's folder, and the cosines that only it shows into
    compare-SECOND.json.

    \b
    orchestrate compare demo demo-other-judge
    """
    runs = [open_run(run_store(runs_dir, name)) for name in (first, second)]
    with working("Comparing"):
        data = compare_data(*runs)
    key = f"compare-{runs[1].name}"
    cosines = {one["trait"]: one["cosine"] for one in data["traits"]}
    runs[0].store.write(f"{key}.json", json_bytes({"cosine": cosines}))
    runs[0].store.write(f"{key}.html", report_page(f"{first} and {second} compared", data))
    where = f"{runs[0].store.url}/{key}.html"
    if as_json:
        click.echo(json.dumps({"compare": where, **data}, indent=2))
        return
    console = Screen()
    console.print(_comparison_table(data))
    for line in data["differences"]:
        say(console, line)
    say(console, where)


def write_report(run: Run) -> str:
    """Write report.html and the run's metrics.json; returns where the page lies."""
    data = reported(run)
    found = {name: data[name] for name in ("cosine_between_traits", "vectors_that_fire")}
    run.store.write(RUN_METRICS, json_bytes(found))
    run.store.write(REPORT, report_page(f"{run.name}: trait vectors", data))
    return f"{run.store.url}/{REPORT}"


def reported(run: Run) -> dict[str, Any]:
    """Everything that the run's page holds; raises UsageError while no trait is finished."""
    metrics = reported_metrics(run)
    cosines = reported_cosines(run, metrics)
    return {**report_data(run, metrics, cosines), "vectors_that_fire": fired(run, metrics)}


def _comparison_table(data: dict[str, Any]) -> Table:
    headings = ("trait", *data["names"], "contrast", "reads", "steers", "cosine")
    table = table_of(*map(Column, headings))
    for one in data["traits"]:
        both = [TraitMetrics.model_validate(m) for m in one["metrics"]]
        cosine, quality = "-", both[0].quality
        if one["cosine"] and quality is not None:
            cosine = number_text(one["cosine"]["value"][quality.best.layer], ".3f")
        contrasts = [number_text(m.contrast) for m in both]
        uses = zip(*map(verdict_use_texts, both), strict=True)
        pairs = [" ".join(contrasts), *(", ".join(pair) for pair in uses)]
        verdicts = [told_verdict(m) for m in both]
        table.add_row(one["trait"], *verdicts, *pairs, cosine)
    return table
