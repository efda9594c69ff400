"""`orchestrate worker gpu|judge|reduce`: start workers on this machine."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType
from typing import Literal

import click

from cli.devices import pin, visible_devices
from cli.processes import Child, Processes, orchestrate
from cli.settings import broker_option, option, required_broker
from storage.connection import connect


@click.group()
def worker() -> None:
    """Start workers on this machine; they join the fleet at once and may leave at any time.

    \b
    export ORCHESTRATE_BROKER_URL=redis://:password@broker:6379/0
    orchestrate worker gpu            # one pinned process per visible device
    orchestrate worker judge          # needs ORCHESTRATE_JUDGE_API_KEY for a hosted judge
    orchestrate worker reduce
    """


@worker.command()
@broker_option
@option("--device", default="auto", help="auto, or a comma-separated list: cuda:0,cuda:1 or cpu.")
@click.option("--pinned", hidden=True, help="Run in this process, on the one device given.")
@option("--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]))
def gpu(broker_url: str | None, device: str, pinned: str | None, log_level: str) -> None:
    """Generate and capture: one process per device, restarted when it dies."""
    url = required_broker(broker_url)
    if pinned is not None:
        _run("gpu", url, log_level, device=pinned, name_device=device)
    connect(url).close()
    devices = visible_devices() if device == "auto" else [d.strip() for d in device.split(",")]
    children = []
    for name in devices:
        inside, environment = pin(name, dict(os.environ), n_here=len(devices))
        environment["ORCHESTRATE_BROKER_URL"] = url
        command = orchestrate("worker", "gpu", "--device", name, "--pinned", inside)
        command += ["--log-level", log_level]
        children.append(Child(f"gpu worker on {name}", command, environment))
    _tend_until_stopped(Processes(children))


@worker.command()
@broker_option
@option("--concurrency", default=256, type=click.IntRange(1), help="Judge calls in flight.")
@option("--judge-timeout", default=60.0, metavar="S", help="Give a call up after this long.")
@click.option("--no-embedded", is_flag=True, help="Do not start the embedded judge beside it.")
@option("--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]))
def judge(
    broker_url: str | None,
    concurrency: int,
    judge_timeout: float,
    no_embedded: bool,
    log_level: str,
) -> None:
    """Ask the judge for scores; the key comes from ORCHESTRATE_JUDGE_API_KEY or OPENAI_API_KEY."""
    url = required_broker(broker_url)
    if no_embedded:
        _run("judge", url, log_level, judge_in_flight=concurrency, judge_timeout_s=judge_timeout)
    from cli.judge_server import embedded_judge

    with embedded_judge() as judge_url:
        _run(
            "judge",
            url,
            log_level,
            judge_in_flight=concurrency,
            judge_url=judge_url,
            judge_timeout_s=judge_timeout,
        )


@worker.command()
@broker_option
@option("--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]))
def reduce(broker_url: str | None, log_level: str) -> None:
    """Assemble vectors once a trait's verdicts are in."""
    _run("reduce", required_broker(broker_url), log_level)


def _run(
    kind: Literal["gpu", "judge", "reduce"],
    url: str,
    log_level: str,
    *,
    device: str = "auto",
    name_device: str = "",
    judge_url: str | None = None,
    judge_in_flight: int = 256,
    judge_timeout_s: float = 60.0,
) -> None:
    from tasks.worker_process import WorkerSettings, default_name, run_worker

    connect(url).close()
    settings = WorkerSettings(
        kind=kind,
        broker_url=url,
        name=default_name(kind, name_device),
        device=device,
        judge_url=judge_url,
        judge_in_flight=judge_in_flight,
        judge_timeout_s=judge_timeout_s,
        log_level=log_level,
    )
    raise SystemExit(run_worker(settings))


def _tend_until_stopped(processes: Processes) -> None:
    stopped = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, stop)
    with processes.running():
        while not stopped:
            processes.tend()
            time.sleep(0.2)
