"""`orchestrate status`: where a run stands, or all runs and the fleet."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from cli.options.settings import Moment, broker_option, json_option, runs_dir_option
from cli.screens.next_steps import last_step
from cli.screens.run_in_words import run_in_words
from cli.screens.status import FolderStatus, run_status_screen, runs_status_screen
from cli.screens.terminal import Screen, say
from cli.screens.verdicts import print_verdict_remarks
from domain.errors import BrokerError, UsageError
from orchestrator.runs import run_store
from storage.broker.connection import BROKER_AWAY, TRYING
from storage.record.run import open_run

REFRESH_S = 1.0


Found = dict[str, Any]
Look = Callable[[str | None], Found]
"""What can be seen with a broker, or by the record alone."""

Shown = Callable[[Found], RenderableType]


@click.command()
@click.argument("run", required=False)
@runs_dir_option
@broker_option
@click.option("--since", type=Moment(), help="Only runs planned since then: 2026-11-20, 3d, 12h.")
@click.option("--watch", is_flag=True, help="Keep showing until interrupted.")
@json_option
def status(
    run: str | None,
    runs_dir: str,
    broker_url: str | None,
    since: datetime | None,
    watch: bool,
    as_json: bool,
) -> None:
    """Show where a run stands, or all runs and the fleet when none is named.

    Runs stand with the last planned first: when, which model, how many responses, the verdicts, and
    why one failed.

    With a broker also rates, time left, spending, queues, workers and the latest errors. While
    it does not answer, what the run's record says is shown; the exit code is 5 then.

    \b
    orchestrate status --since 7d
    orchestrate status demo --watch
    orchestrate status demo --json | jq .rates
    """
    if run and since:
        raise UsageError("--since chooses among runs, and one is named", advice="leave one out")
    recorded = open_run(run_store(runs_dir, run)) if run else None
    look: Look
    shown: Shown
    if recorded is None:
        look, shown = FolderStatus(runs_dir, since=since).look, runs_status_screen
    else:
        look, shown = functools.partial(run_in_words, recorded), run_status_screen
    if watch and not as_json:
        _watch(look, shown, broker_url)
    found, away = _seen(look, broker_url)
    if not broker_url and found.get("runs") == []:
        since_then = f" since {since:%Y-%m-%d %H:%M} UTC" if since else ""
        raise UsageError(
            f"no runs in {found['place']}{since_then}: start one with `orchestrate extract`"
        )
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        console = Screen()
        console.print(shown(found))
        if recorded is not None:
            said = [(one["trait"], one["reasons"], one["notes"]) for one in found["traits"]]
            print_verdict_remarks(console, said, rest_in="traits/<trait>/metrics.json")
            if line := last_step(recorded, found):
                say(console, line)
    if away is not None:
        raise BrokerError(f"only the record is shown: {away}") from away


def _watch(look: Look, shown: Shown, broker_url: str | None) -> None:
    """Show until interrupted, also while the broker is away."""
    console = Screen()
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            found, away = _seen(look, broker_url)
            note = [Text(""), Text(f"{TRYING}: {away}", style="yellow")] if away else []
            live.update(Group(shown(found), *note), refresh=True)
            time.sleep(REFRESH_S)


def _seen(look: Look, broker_url: str | None) -> tuple[Found, Exception | None]:
    """What is known now, and the broker's error when only the record could be asked."""
    try:
        return look(broker_url), None
    except BROKER_AWAY as error:
        return look(None), error
