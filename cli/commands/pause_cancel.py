"""`orchestrate pause` and `cancel`: a run is held up, or stopped; `resume` goes on with either."""

from __future__ import annotations

import click

from cli.options.settings import broker_option, option, required_broker, run_argument
from domain.fleet.heartbeats import HIGHEST, LOWEST
from storage.broker.connection import connect
from storage.broker.fleet import has_listed_run, put_listed_run
from storage.broker.state import broker_state
from storage.record.run import Run, Schedule, read_run_schedule, write_run_schedule


@click.command()
@run_argument
@broker_option
def cancel(run: Run, broker_url: str | None) -> None:
    """Stop a run on the fleet; what is done is kept and `resume` continues it."""
    state = broker_state(required_broker(broker_url), run.run_id)
    state.cancel()
    unpause(run, priority=None)  # a paused run's jobs are dropped too
    if has_listed_run(state.client, run.run_id):
        put_listed_run(state.client, run)
    click.echo(
        f"Cancelled; workers drop what is queued. Continue with: orchestrate resume {run.name}"
    )


priority_option = option(
    "--priority",
    type=click.IntRange(LOWEST, HIGHEST),
    default=None,
    show_default=False,
    help="Runs of a higher one go first, equal ones share the workers; 0 unless given before.",
)


@click.command()
@run_argument
@broker_option
def pause(run: Run, broker_url: str | None) -> None:
    """Let a run's jobs wait, so that others have the workers; `resume` goes on.

    Jobs that workers hold are finished; nothing is taken back or lost.

    \b
    orchestrate pause demo
    orchestrate resume demo --detach
    """
    with connect(required_broker(broker_url)) as client:
        paused = read_run_schedule(run.store).model_copy(update={"paused": True})
        write_run_schedule(run.store, paused)
        if has_listed_run(client, run.run_id):
            put_listed_run(client, run)
    click.echo(f"Paused; go on with: orchestrate resume {run.name}")


def unpause(run: Run, *, priority: int | None) -> None:
    """Record that a run goes on, with another priority when one is given."""
    before = read_run_schedule(run.store)
    after = Schedule(priority=before.priority if priority is None else priority)
    if after != before:
        write_run_schedule(run.store, after)
