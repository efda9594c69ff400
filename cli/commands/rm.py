"""`orchestrate rm`: remove runs, once it is said what goes."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass

import click
from rich.filesize import decimal

from cli.options.settings import broker_option, json_option, runs_dir_option
from cli.screens.run_in_words import state_line_in_words
from cli.screens.tables import duration
from domain.errors import UsageError
from orchestrator.run_state import State, run_snapshot
from orchestrator.runs import run_store
from storage.broker.connection import connect
from storage.broker.fleet import forget_listed_run
from storage.record.run import Run, open_run

# What a run is doing that nobody works on.
AT_REST = (
    State.FINISHED,
    State.NOT_FINISHED,
    State.NOT_RUNNING,
    State.CANCELLED,
    State.FAILED,
    State.BUDGET_REACHED,
)

# The workers of a fleet whose broker nobody named write more often than this, as a rule.
QUIET_S = 60.0


@dataclass(frozen=True)
class Goes:
    """What is removed with a run."""

    run: str
    place: str
    planned_at: str | None
    model: str
    traits: tuple[str, ...]
    files: int
    bytes: int


@click.command()
@click.argument("runs", nargs=-1, required=True)
@runs_dir_option
@broker_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def rm(
    runs: tuple[str, ...], runs_dir: str, broker_url: str | None, yes: bool, as_json: bool
) -> None:
    """Remove runs with all that they made: responses, activations, scores and vectors.

    Says what goes and asks. A run that is worked on is refused: cancel it first.

    \b
    orchestrate rm tried-out
    orchestrate rm first second --yes
    """
    found = [open_run(run_store(runs_dir, name)) for name in dict.fromkeys(runs)]
    going = [_looked_at(run, broker_url) for run in found]
    if not yes:
        for one in going:
            click.echo(
                f"{one.run}: {one.model}, {', '.join(one.traits)}; {one.files} files, "
                f"{decimal(one.bytes)} in {one.place}"
                + (f", planned {one.planned_at}" if one.planned_at else ""),
                err=True,
            )
        _ask(len(going))
    for run in found:
        run.store.remove_all(last="run.json")
        if broker_url:
            with connect(broker_url) as client:
                forget_listed_run(client, run.run_id)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in going], indent=2))
    else:
        click.echo(f"Removed {', '.join(one.run for one in going)}.")


def _looked_at(run: Run, broker_url: str | None) -> Goes:
    """What goes with the run; raises UsageError for one that is worked on."""
    state = run_snapshot(run, broker_url)["state"]
    if state.state not in AT_REST:
        by = f"interrupt process {state.attended.pid}" if state.attended else None
        raise UsageError(
            f"{run.name} is {state_line_in_words(state)}",
            advice=f"end it first: {by or f'orchestrate cancel {run.name}'}",
        )
    contents = run.store.contents()
    written = max((one.modified for one in contents.values() if one.modified), default=0.0)
    if state.state != State.FINISHED and time.time() - written < QUIET_S:
        raise UsageError(
            f"something was written to {run.name} {duration(time.time() - written)} ago",
            advice="end its command first, or try again in a minute",
        )
    return Goes(
        run.name,
        run.store.url,
        run.planned_at,
        run.spec.model.model_id,
        tuple(trait.name for trait in run.spec.traits),
        len(contents),
        sum(one.size for one in contents.values()),
    )


def _ask(n: int) -> None:
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to be asked", advice="say --yes to remove without asking")
    what = "this run" if n == 1 else f"these {n} runs"
    click.confirm(f"Remove {what} for good?", abort=True, err=True)
