"""`orchestrate retry`: jobs that were given up get another chance."""

from __future__ import annotations

import click

from cli.described_run import run_store
from cli.extract import finish
from cli.settings import broker_option, json_option, option, runs_dir_option
from storage.dead_letters import dead_letters, revive
from storage.run_record import open_run


@click.command()
@click.argument("run")
@runs_dir_option
@broker_option
@click.option("--dead", is_flag=True, help="Also the jobs that were given up for killing workers.")
@option(
    "--wait-for-workers", default=60.0, metavar="S", help="How long to wait for workers to join."
)
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
