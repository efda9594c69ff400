"""`orchestrate worker`: start workers on this machine, list those of the fleet, drain them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from types import FrameType
from typing import Any, NoReturn

import click

from cli.options.settings import broker_option, json_option, option, required_broker, together
from cli.options.working_folder import keep_worker_from_folder
from cli.screens.terminal import Screen
from domain.errors import UsageError
from domain.fleet.heartbeats import WorkerKind
from orchestrator.devices import pin, visible_devices
from orchestrator.local_fleet import GPU_KEYS
from orchestrator.processes import (
    STOP_CHILDREN_TIMEOUT_S,
    Child,
    Processes,
    child_environment,
    orchestrate,
)
from storage.broker.connection import connect
from storage.broker.fleet import read_listed_runs, read_workers
from tasks.fleet.app import make_app
from tasks.fleet.remote_control import drain_workers

ANSWER_WITHIN_S = 3.0
POLL_S = 0.5


_log_options = together(
    option("--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"])),
    option(
        "--log-format",
        default="text",
        type=click.Choice(["text", "json"]),
        help="json: one object a line, with run, trait and job.",
    ),
)


@click.group()
def worker() -> None:
    """Start workers on this machine; they join the fleet at once and may leave at any time.

    \b
    export ORCHESTRATE_BROKER_URL=redis://:password@broker:6379/0
    orchestrate worker gpu            # one pinned process per visible device
    orchestrate worker judge          # needs ORCHESTRATE_JUDGE_API_KEY for a hosted judge
    orchestrate worker reduce
    orchestrate worker drain gpu1     # before maintenance: finish what is in hand, then leave
    """


@worker.command("gpu")
@broker_option
@option("--device", default="auto", help="auto, or a list: cuda:0,cuda:1; cpu,cpu for two workers.")
@click.option("--pinned", hidden=True, help="Run in this process, on the one device given.")
@option(
    "--models",
    metavar="PATTERNS",
    help="Serve these models only, comma-separated, * for anything: google/*,Qwen/Qwen2.5-7B*",
)
@_log_options
def gpu_worker(
    broker_url: str | None, device: str, pinned: str | None, models: str | None, **logging: str
) -> None:
    """Generate and capture: one process per device, restarted when it dies.

    A worker serves one model at a time and keeps it while jobs want it.
    """
    url = required_broker(broker_url)
    if pinned is not None:
        _run(
            "gpu",
            url,
            device=pinned,
            device_name=device,
            models=tuple(one.strip() for one in (models or "").split(",") if one.strip()),
            **logging,
        )
    connect(url).close()
    devices = visible_devices() if device == "auto" else [d.strip() for d in device.split(",")]
    children = []
    for name in devices:
        inside, environment = pin(
            name, child_environment(os.environ, keys=GPU_KEYS), n_here=len(devices)
        )
        environment["ORCHESTRATE_BROKER_URL"] = url
        environment["ORCHESTRATE_MODELS"] = models or ""
        command = orchestrate("worker", "gpu", "--device", name, "--pinned", inside)
        command += ["--log-level", logging["log_level"], "--log-format", logging["log_format"]]
        # a device that is broken, or that somebody else fills, does not stop those beside it
        children.append(Child(f"gpu worker on {name}", command, environment, may_fail=True))
    _tend_until_stopped(Processes(children, stop_timeout_s=STOP_CHILDREN_TIMEOUT_S))


@worker.command("judge")
@broker_option
@option(
    "--concurrency", default=256, type=click.IntRange(1), help="Judge calls in flight for a run."
)
@option("--judge-timeout", default=60.0, metavar="S", help="Give a call up after this long.")
@click.option("--no-embedded", is_flag=True, help="Do not start the embedded judge beside it.")
@_log_options
def judge_worker(
    broker_url: str | None,
    concurrency: int,
    judge_timeout: float,
    no_embedded: bool,
    **logging: str,
) -> None:
    """Ask the judge for scores; the key comes from ORCHESTRATE_JUDGE_API_KEY or OPENAI_API_KEY."""
    from cli.commands.judge_server import served_judge

    url = required_broker(broker_url)
    keep_worker_from_folder()
    with contextlib.nullcontext() if no_embedded else served_judge() as judge_url:
        _run(
            "judge",
            url,
            judge_url=judge_url,
            judge_in_flight=concurrency,
            judge_timeout_s=judge_timeout,
            **logging,
        )


@worker.command("reduce")
@broker_option
@_log_options
def reduce_worker(broker_url: str | None, **logging: str) -> None:
    """Assemble vectors once a trait's scores are in."""
    _run("reduce", required_broker(broker_url), **logging)


@worker.command("list")
@broker_option
@json_option
def list_workers(broker_url: str | None, as_json: bool) -> None:
    """Show the workers on the broker: what each serves, holds and gets done."""
    from cli.screens.status import FleetTable, decline_lines
    from orchestrator.run_state import decline_rows

    with connect(required_broker(broker_url)) as client:
        workers = read_workers(client)
        declines = decline_rows(client, read_listed_runs(client), workers)
    if as_json:
        rows = [asdict(one) for one in workers]
        click.echo(json.dumps({"workers": rows, "refusals": declines}, indent=2))
        return
    Screen().print(FleetTable(workers), *decline_lines(declines, run=""), sep="\n")


@worker.command("drain")
@click.argument("who", metavar="WHO...", nargs=-1, required=True)
@broker_option
@click.option("--wait", default=600.0, metavar="S", help="How long to wait for them to leave.")
def drain_command(who: tuple[str, ...], broker_url: str | None, wait: float) -> None:
    """Have workers finish what they hold, take nothing more, and leave.

    WHO is a host, a worker's name, or a pattern of either; see `orchestrate worker list`.

    \b
    orchestrate worker drain gpu1
    orchestrate worker drain 'gpu-cuda:0-*@gpu2'
    """
    drain_and_wait(required_broker(broker_url), who, wait_s=wait)


def _run(kind: WorkerKind, url: str, **settings: Any) -> NoReturn:
    """Work in this process until told to stop; `settings` as in WorkerSettings."""
    from tasks.fleet.worker import WorkerSettings, default_worker_name, run_worker

    connect(url).close()
    name = default_worker_name(kind, settings.get("device_name", ""))
    raise SystemExit(run_worker(WorkerSettings(kind, url, name, **settings)))


def _tend_until_stopped(processes: Processes) -> None:
    stopped = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, stop)
    with processes.running():
        while not stopped and not processes.all_left():
            processes.tend()
            time.sleep(0.2)
    # Python gives signals back while it ends: a stop that comes then is no failure
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, signal.SIG_IGN)


def drain_and_wait(broker_url: str, who: Sequence[str], *, wait_s: float) -> None:
    """Ask the workers meant to drain; returns when they left.

    Raises UsageError when nobody is meant, or somebody is still there after wait_s seconds.
    """
    with connect(broker_url) as client:
        workers = read_workers(client)
        names = [
            worker.name
            for worker in workers
            if any(fnmatchcase(worker.name, one) or fnmatchcase(worker.host, one) for one in who)
        ]
        if not names:
            there = ", ".join(worker.name for worker in workers) or "none"
            raise UsageError(f"no worker fits {' '.join(who)}; there are: {there}")
        asked = drain_workers(make_app(broker_url), names, wait_s=ANSWER_WITHIN_S)
        for name, holds in asked.items():
            click.echo(f"{name} finishes {holds} job{'' if holds == 1 else 's'} and leaves")
        deadline = time.monotonic() + wait_s
        while still := sorted({worker.name for worker in read_workers(client)} & set(names)):
            if time.monotonic() > deadline:
                raise UsageError(
                    f"{', '.join(still)} still there after {wait_s:.0f} s: wait longer with "
                    "--wait, or stop the process; what it holds then goes to others"
                )
            time.sleep(POLL_S)
    click.echo(f"Gone: {', '.join(names)}")
