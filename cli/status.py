"""`orchestrate status` and `cancel`: where runs stand, from their record, from any shell."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from cli.counts import trait_counts
from cli.judge_meter import judge_snapshot, snapshot_text
from cli.pause import unpause
from cli.progress import styled_verdict
from cli.run_options import run_store
from cli.settings import broker_option, json_option, required_broker, runs_dir_option
from orchestrator.errors import UsageError
from storage.artifacts import done_jobs
from storage.broker_state import broker_state, queue_lengths
from storage.connection import connect
from storage.fleet import has_run, put_run
from storage.run_record import Run, open_run
from storage.store import open_store
from storage.trait_results import read_metrics
from tasks.app import QUEUES

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
    """Show where a run stands, or list the runs when none is named.

    \b
    orchestrate status
    orchestrate status demo --watch
    """
    if run is None:
        _list_runs(runs_dir, as_json=as_json)
        return
    recorded = open_run(run_store(runs_dir, run))
    if as_json:
        click.echo(json.dumps(_snapshot(recorded, broker_url), indent=2))
        return
    console = Console()
    if not watch:
        console.print(_table(_snapshot(recorded, broker_url)))
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(_table(_snapshot(recorded, broker_url)), refresh=True)
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


def _snapshot(run: Run, broker_url: str | None) -> dict[str, Any]:
    done = done_jobs(run.store, [trait.name for trait in run.spec.traits])
    traits = []
    for count in trait_counts(run.plan, done):
        verdict = read_metrics(run.store, count.trait)["verdict"] if count.is_reduced else None
        traits.append({**asdict(count), "verdict": verdict})
    found: dict[str, Any] = {"run": run.store.url, "run_id": run.run_id, "traits": traits}
    if broker_url:
        state = broker_state(broker_url, run.run_id)
        with connect(broker_url) as client:
            found["queues"] = queue_lengths(client, QUEUES)
        found["judge"] = judge_snapshot(run, broker_url)
        found["cancelled"] = state.is_cancelled()
        found["failures"] = [asdict(failure) for failure in state.failures()]
    return found


def _table(snapshot: dict[str, Any]) -> Table:
    caption = snapshot["run"]
    if "queues" in snapshot:
        waiting = ", ".join(f"{name} {n}" for name, n in snapshot["queues"].items())
        caption += f"\nqueued: {waiting}; failed jobs: {len(snapshot['failures'])}"
        caption += "; cancelled" if snapshot["cancelled"] else ""
        caption += f"\n{snapshot_text(snapshot['judge'])}"
    table = Table(box=None, padding=(0, 2), header_style="bold", caption=caption)
    table.caption_justify = "left"
    for heading in ("trait", "generate", "judge", "reduce", "verdict"):
        table.add_column(heading)
    for one in snapshot["traits"]:
        counts = [f"{one[s]['done']}/{one[s]['total']}" for s in ("generate", "judge")]
        reduced = "done" if one["is_reduced"] else "waits"
        table.add_row(one["trait"], *counts, reduced, styled_verdict(one["verdict"] or ""))
    return table


def _list_runs(runs_dir: str, *, as_json: bool) -> None:
    store = open_store(runs_dir)
    names = sorted({k.split("/")[0] for k in store.list("") if k.endswith("/run.json")})
    if as_json:
        click.echo(json.dumps({"runs": names}))
        return
    if not names:
        raise UsageError(f"no runs in {store.url}: start one with `orchestrate extract`")
    for name in names:
        run = open_run(store.at(name))
        counts = trait_counts(run.plan, done_jobs(run.store, [t.name for t in run.spec.traits]))
        finished = sum(count.is_reduced for count in counts)
        click.echo(f"{name}  {finished}/{len(counts)} traits  {run.spec.model.model_id}")
