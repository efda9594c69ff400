"""`orchestrate pause`: a run's jobs wait until `resume`; what is in hand is finished."""

from __future__ import annotations

import click

from cli.described_run import run_store
from cli.settings import broker_option, option, required_broker, runs_dir_option
from orchestrator.fleet import HIGHEST, LOWEST
from storage.connection import connect
from storage.fleet import has_run, put_run
from storage.run_record import Run, open_run
from storage.schedule import Schedule, read_schedule, write_schedule

priority_option = option(
    "--priority",
    type=click.IntRange(LOWEST, HIGHEST),
    default=None,
    show_default=False,
    help="Runs of a higher one go first, equal ones share the workers; 0 unless given before.",
)


@click.command()
@click.argument("run")
@runs_dir_option
@broker_option
def pause(run: str, runs_dir: str, broker_url: str | None) -> None:
    """Let a run's jobs wait, so that others have the workers; `resume` goes on.

    Jobs that workers hold are finished; nothing is taken back or lost.

    \b
    orchestrate pause demo
    orchestrate resume demo --detach
    """
    recorded = open_run(run_store(runs_dir, run))
    write_schedule(
        recorded.store, read_schedule(recorded.store).model_copy(update={"paused": True})
    )
    with connect(required_broker(broker_url)) as client:
        if has_run(client, recorded.run_id):
            put_run(client, recorded)
    click.echo(f"Paused; go on with: orchestrate resume {run}")


def unpause(run: Run, *, priority: int | None) -> None:
    """Record that a run goes on, with another priority when one is given."""
    before = read_schedule(run.store)
    after = Schedule(priority=before.priority if priority is None else priority)
    if after != before:
        write_schedule(run.store, after)
