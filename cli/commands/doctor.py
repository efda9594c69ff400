"""`orchestrate doctor`: what is missing on this machine, and how to mend it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

import click
from click.core import ParameterSource
from rich.text import Text

from cli.doctor.machine import (
    Check,
    Checked,
    check_devices,
    check_driver,
    check_packages,
    check_redis_binary,
    machine_devices,
    run_checks,
)
from cli.options.run import setting_option
from cli.options.settings import broker_option, json_option, runs_dir_option
from cli.options.working_folder import OPENAI_URL, keep_key_from_folder
from cli.screens.terminal import Screen
from domain.errors import UsageError
from domain.plan.spec import DEMO_MODEL

TIMEOUT_S = 40.0
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
    # the broker's client is slow to load for --help
    from cli.doctor import services

    shown = context.get_parameter_source("broker_url") == ParameterSource.COMMANDLINE
    # here: the checks run in threads, which do not know where a setting came from
    held_back = _held_back(judge_url, broker_url)
    checks: dict[str, Check] = {
        "packages": lambda: _machine(broker_url, password_shown=shown),
        "broker": lambda: services.check_broker(broker_url),
        "storage": lambda: services.check_storage(runs_dir, is_shared=bool(broker_url)),
        "workers": lambda: services.check_fleet(broker_url, runs_dir),
        "model": lambda: _model(model),
        "judge": held_back
        or (lambda: services.check_judge(judge_url, judge_model, demo=model == DEMO_MODEL)),
    }
    findings = run_checks(checks, timeout_s=TIMEOUT_S)
    n_failed = sum(one.state == "fail" for one in findings)
    if as_json:
        click.echo(json.dumps({"ok": not n_failed, "findings": [asdict(f) for f in findings]}))
    else:
        _print(findings, n_failed)
    sys.exit(1 if n_failed else 0)


def _held_back(judge_url: str | None, broker_url: str | None) -> Check | None:
    """In place of asking a judge that may not be sent the key; None where it may."""
    try:
        keep_key_from_folder(judge_url or OPENAI_URL, {"broker_url": broker_url})
    except UsageError as error:
        found = Checked("judge", "fail", error.wrong, error.advice)
        return lambda: iter([found])
    return None


def _machine(broker_url: str | None, *, password_shown: bool) -> Iterator[Checked]:
    yield from check_packages()
    yield from check_redis_binary(needed=not broker_url)
    if password_shown and broker_url and "@" in broker_url:
        advice = "put it in ORCHESTRATE_BROKER_URL or .env"
        found = "--broker-url shows the password to every user of this machine"
        yield Checked("password", "warn", found, advice)


def _model(model: str) -> Iterator[Checked]:
    if importlib.util.find_spec("torch") is None:
        # the slim image of judge workers and Flower
        yield Checked("model", "ok", "no torch here, so this machine runs no model")
        return
    from cli.doctor.model import check_model_fits
    from cli.doctor.thinking import check_thoughts

    found = machine_devices()
    yield from check_devices(found)
    yield from check_driver(found)
    yield from check_model_fits(model, found)
    yield from check_thoughts(model)


def _print(findings: list[Checked], n_failed: int) -> None:
    width = max(len(one.check) for one in findings)
    screen = Screen(highlight=False, wrap=False)
    for one in findings:
        state = (f"{one.state:4}", COLORS[one.state])
        screen.print(Text.assemble(state, f"  {one.check:{width}}  {one.found}"))
        if one.advice:
            click.echo(f"{'':4}  {'':{width}}  -> {one.advice}")
    n_warned = sum(one.state == "warn" for one in findings)
    click.echo(f"{n_failed} failed, {n_warned} to look at, {len(findings)} checked.")
