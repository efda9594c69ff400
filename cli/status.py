"""`orchestrate status` and `cancel`: where runs stand, from their record, from any shell."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.live import Live

from cli.described_run import run_store
from cli.last_step import last_step
from cli.pause import unpause
from cli.run_snapshot import run_snapshot
from cli.runs_table import runs_rows, runs_screen
from cli.settings import broker_option, json_option, required_broker, runs_dir_option
from cli.status_screen import screen
from cli.verdict_table import remarks
from storage.broker_state import broker_state
from storage.fleet import has_run, put_run
from storage.run_record import open_run

REFRESH_S = 1.0


@click.command()
@click.argument("run", required=False)
@runs_dir_option
@broker_option
@click.option("--watch", is_flag=True, help="Keep showing until interrupted.")
@json_option
def status(
    run: str | None, runs_dir: str, broker_url: str | None, watch: bool, as_json: bool
) -> None:
    """Show where a run stands, or all runs and the fleet when none is named.

    With a broker also rates, time left, spending, queues, workers and the latest errors.

    \b
    orchestrate status
    orchestrate status demo --watch
    orchestrate status demo --json | jq .rates
    """
    recorded = open_run(run_store(runs_dir, run)) if run else None
    if recorded is None:
        found: Callable[[], Any] = lambda: runs_rows(runs_dir, broker_url)  # noqa: E731
        shown: Callable[[Any], RenderableType] = runs_screen
    else:
        found, shown = lambda: run_snapshot(recorded, broker_url), screen
    if as_json:
        click.echo(json.dumps(found(), indent=2))
        return
    console = Console()
    if not watch:
        standing = found()
        console.print(shown(standing))
        for line in remarks(standing["traits"]) if run else []:
            console.print(line, highlight=False, soft_wrap=True, markup=False)
        if recorded and (todo := last_step(recorded, standing)):
            console.print(todo, highlight=False, soft_wrap=True)
        return
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            live.update(shown(found()), refresh=True)
            time.sleep(REFRESH_S)


@click.command()
@click.argument("run")
@runs_dir_option
@broker_option
def cancel(run: str, runs_dir: str, broker_url: str | None) -> None:
    """Stop a run on the fleet; what is done is kept and `resume` continues it."""
    recorded = open_run(run_store(runs_dir, run))
    state = broker_state(required_broker(broker_url), recorded.run_id)
    state.cancel()
    unpause(recorded, priority=None)  # a paused run's jobs are dropped too
    if has_run(state.client, recorded.run_id):
        put_run(state.client, recorded)
    click.echo(f"Cancelled; workers drop what is queued. Continue with: orchestrate resume {run}")
