"""`orchestrate doctor`: what is missing on this machine, and how to mend it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

import click
from click.core import ParameterSource

from cli.doctor.machine import Check, Finding, run_checks
from cli.options.run import setting_option
from cli.options.settings import broker_option, json_option, runs_dir_option

TIMEOUT_S = 40.0

# Workers answer from their main loop, at once unless the machine is overloaded.
WORKERS_WAIT_S = 2.0

COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@broker_option
@runs_dir_option
@setting_option("model", help="The model a run would use.")
@setting_option("judge-url", help="The judge's endpoint, as in extract.")
@setting_option("judge-model", help="The judge's name; it is asked one question.")
@json_option
@click.pass_context
def doctor(
    context: click.Context,
    broker_url: str | None,
    runs_dir: str,
    model: str,
    judge_url: str | None,
    judge_model: str | None,
    as_json: bool,
) -> None:
    """Check this machine for a run: broker, workers, storage, devices, model and judge.

    Give it what the run will be given. It sends no job, writes small files for a moment in the
    folder of runs and has workers write beside them, and asks the judge one question when one is
    named. Ends with 0 when nothing failed, else with 1.

    \b
    orchestrate doctor
    orchestrate doctor --model google/gemma-2-2b-it --judge-model gpt-6-luna \\
        --runs-dir /shared/runs
    """
    shown = context.get_parameter_source("broker_url") == ParameterSource.COMMANDLINE
    checks: dict[str, Check] = {
        "packages": lambda: _machine(broker_url, password_shown=shown),
        "broker": lambda: _broker(broker_url),
        "storage": lambda: _storage(runs_dir, is_shared=bool(broker_url)),
        "workers": lambda: _workers(broker_url, runs_dir),
        "model": lambda: _model(model),
        "judge": lambda: _judge(judge_url, judge_model, model),
    }
    findings = run_checks(checks, timeout_s=TIMEOUT_S)
    n_failed = sum(one.state == "fail" for one in findings)
    if as_json:
        click.echo(json.dumps({"ok": not n_failed, "findings": [asdict(f) for f in findings]}))
    else:
        _print(findings, n_failed)
    sys.exit(1 if n_failed else 0)


def _machine(broker_url: str | None, *, password_shown: bool) -> Iterator[Finding]:
    from cli.doctor.machine import packages, redis_binary

    yield from packages()
    yield from redis_binary(needed=not broker_url)
    if password_shown and broker_url and "@" in broker_url:
        advice = "put it in ORCHESTRATE_BROKER_URL or .env"
        found = "--broker-url shows the password to every user of this machine"
        yield Finding("password", "warn", found, advice)


def _broker(broker_url: str | None) -> Iterator[Finding]:
    from cli.doctor.broker import broker_findings

    if not broker_url:
        found = "none set: `orchestrate extract` starts a private one for its own time"
        yield Finding("broker", "ok", found)
        return
    yield from broker_findings(broker_url)


def _storage(runs_dir: str, *, is_shared: bool) -> Iterator[Finding]:
    from cli.doctor.services import storage_findings

    yield from storage_findings(runs_dir, is_shared=is_shared)


def _workers(broker_url: str | None, runs_dir: str) -> Iterator[Finding]:
    """Asks all workers once: who are you, do you see the file that I just wrote, and can you write
    beside it?"""
    if not broker_url:
        return
    from cli.doctor.broker import Fleet, queue_findings, shared_storage, worker_findings
    from cli.doctor.services import is_missing, token_file
    from domain.errors import BrokerError
    from storage.broker.connection import connect
    from storage.record.store import open_store
    from tasks.fleet.about import ask_workers
    from tasks.queue.app import make_app

    try:
        connect(broker_url).close()
    except BrokerError:
        # the broker's own line says so
        return
    app, store = make_app(broker_url), open_store(runs_dir)
    has_place = not is_missing(store)
    if has_place:
        with token_file(store) as (key, token):
            answers = ask_workers(app, wait_s=WORKERS_WAIT_S, store=store.url, key=key, token=token)
    else:
        # the storage's own line says so
        answers = ask_workers(app, wait_s=WORKERS_WAIT_S)
    fleet = Fleet(answers)
    yield from queue_findings(broker_url, fleet)
    yield from worker_findings(fleet)
    if has_place:
        yield shared_storage(fleet, store.url)


def _model(model: str) -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        # the slim image of judge workers and Flower
        yield Finding("model", "ok", "no torch here, so this machine runs no model")
        return
    from cli.doctor.machine import device_findings, devices, driver_findings
    from cli.doctor.model import model_findings

    found = devices()
    yield from device_findings(found)
    yield from driver_findings(found)
    yield from model_findings(model, found)


def _judge(url: str | None, judge_model: str | None, model: str) -> Iterator[Finding]:
    from cli.doctor.services import judge_findings

    yield from judge_findings(url, judge_model, demo=model == "demo")


def _print(findings: list[Finding], n_failed: int) -> None:
    width = max(len(one.check) for one in findings)
    for one in findings:
        state = click.style(f"{one.state:4}", fg=COLORS[one.state])
        click.echo(f"{state}  {one.check:{width}}  {one.found}")
        if one.advice:
            click.echo(f"{'':4}  {'':{width}}  -> {one.advice}")
    n_warned = sum(one.state == "warn" for one in findings)
    click.echo(f"{n_failed} failed, {n_warned} to look at, {len(findings)} checked.")
