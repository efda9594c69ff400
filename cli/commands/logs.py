"""`orchestrate logs`: what workers on all machines said about a run's jobs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from fnmatch import fnmatchcase

import click
from rich.text import Text

from cli.options.settings import broker_option, json_option, option, run_argument
from cli.screens.terminal import Screen
from domain.errors import UsageError
from domain.plan.jobs import Plan
from storage.broker.connection import BROKER_AWAY, TRYING, connect
from storage.broker.job_log import LogLine, kept_log_lines, read_log_lines
from storage.record.judgements import judgement_names
from storage.record.run import Run

POLL_S = 0.5
LEVELS = ("info", "warning", "error")
STYLES = {"warning": "yellow", "error": "red"}


@click.command()
@run_argument
@click.argument("job", required=False)
@broker_option
@click.option("--follow", "-f", is_flag=True, help="Go on as lines come, until interrupted.")
@option("--level", default="info", type=click.Choice(LEVELS), help="This and what is worse.")
@json_option
def logs(
    run: Run, job: str | None, broker_url: str | None, follow: bool, level: str, as_json: bool
) -> None:
    """Show what workers on all machines said about a run's jobs, oldest first.

    JOB is a job as `status` names it, a part of it, or a pattern. The broker keeps the last ten
    thousand lines of a run, and the run's record those of when `extract` or `resume` ended.

    \b
    orchestrate logs gemma --level warning
    orchestrate logs gemma refusal/generate/positive-003
    orchestrate logs gemma 'refusal/judge/*' --follow
    """
    if follow and not broker_url:
        raise UsageError("--follow needs the fleet's broker: give --broker-url")
    if job is not None and not _is_planned(run, job):
        raise UsageError(
            f"no job of {run.name} is like {job!r}: jobs are named as "
            "refusal/generate/positive-003, or by a pattern as 'refusal/judge/*'"
        )
    console = Screen(highlight=False, wrap=False)
    wanted = LEVELS[LEVELS.index(level) :]
    n_shown = 0
    for line in _lines(run, broker_url, follow=follow):
        if line.level in wanted and (job is None or _fits(line.job, job)):
            n_shown += 1
            if as_json:
                click.echo(json.dumps(asdict(line)))
            else:
                console.print(_shown(line))
    if not n_shown:
        click.echo(f"Nobody said that yet; see {run.store.url}/logs too.", err=True)


def _lines(run: Run, broker_url: str | None, *, follow: bool) -> Iterator[LogLine]:
    """What the record keeps, then what the broker has beyond it, also after it was away."""
    kept = kept_log_lines(run.store)
    yield from kept
    if not broker_url:
        return
    seen, position, is_away = set(kept), "-", False
    while True:
        try:
            with connect(broker_url) as client:
                while True:
                    for here, line in read_log_lines(client, run.run_id, after=position):
                        position = here
                        if line not in seen:
                            yield line
                    if not follow:
                        return
                    is_away = False
                    time.sleep(POLL_S)
        except BROKER_AWAY as error:
            if not follow:
                raise
            if not is_away:
                click.echo(f"{TRYING}: {error}", err=True)
            is_away = True
        time.sleep(POLL_S)


def _is_planned(run: Run, asked: str) -> bool:
    """Whether a job of the run, of any of its judgements, is so called."""
    judgements = [None, *judgement_names(run)]
    return any(_fits(job.key, asked) for name in judgements for job in Plan(run.spec, name).jobs())


def _fits(job: str, asked: str) -> bool:
    return asked in job or fnmatchcase(job, asked)


def _shown(line: LogLine) -> Text:
    when = time.strftime("%m-%d %H:%M:%S", time.localtime(line.at))
    text = Text(f"{when}  {line.worker}  ", style="dim")
    text.append(line.text, style=STYLES.get(line.level, "default"))
    if line.trace:
        text.append(f"\n{line.trace}", style="dim")
    return text
