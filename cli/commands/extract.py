"""`orchestrate extract`, `resume` and `retry`: plan, submit, show progress, print the verdicts."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from cli.commands.pause_cancel import priority_option, unpause
from cli.commands.plan import refuse_at_once, show_plan
from cli.commands.report import write_report
from cli.doctor.machine import machine_devices
from cli.doctor.model import bytes_on_cpu
from cli.options.run import AskedRun, asked_run, asked_terms, run_options, terms_options
from cli.options.settings import (
    Command,
    broker_option,
    json_option,
    option,
    run_argument,
    wait_option,
)
from cli.options.working_folder import keep_key_from_folder
from cli.screens.next_steps import last_step_of, next_step
from cli.screens.progress import Progress
from cli.screens.run_in_words import news_in_words
from cli.screens.terminal import Screen, say
from cli.screens.verdicts import (
    print_verdict_remarks,
    print_verdicts,
    spoken_remarks,
    where_vectors_are,
)
from cli.screens.working import working
from cli.using.estimate import (
    estimate_judgement,
    estimate_plan,
    plan_line,
    thought_tokens_expected,
    tokens_expected,
)
from cli.using.plan_remarks import plan_remarks
from domain.errors import BrokerError, OrchestrateError, StoreError
from domain.plan.readiness import is_job_needed
from orchestrator.devices import cpu_workers, usable_cores, visible_devices
from orchestrator.driver import Driver, missing_workers
from orchestrator.local_fleet import local_fleet
from orchestrator.run_state import open_meter
from orchestrator.runs import run_provenance
from storage.broker.connection import connect
from storage.broker.job_log import keep_log_lines
from storage.broker.state import broker_state
from storage.record.attended import attending, read_attended
from storage.record.dead_letters import Failure, dead_letters, revive_dead
from storage.record.judgements import judge_of
from storage.record.results import finished_metrics, read_metrics
from storage.record.run import Run, create_run, load_definition
from storage.record.spending import read_terms, recorded_usd, write_terms
from storage.record.store import LocalStore
from tasks.fleet.app import make_app

log = logging.getLogger(__name__)
NOT_USABLE = 3
PRIVATE_BROKER_PATIENCE_S = 10.0


@click.command(cls=Command)
@run_options
@terms_options
@broker_option
@wait_option
@option(
    "--detach",
    is_flag=True,
    help="Send the jobs to the fleet and return; resume ends the run when status says it is done.",
)
@priority_option
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@json_option
def extract(priority: int | None, dry_run: bool, **values: Any) -> None:
    """Extract trait vectors; the same command again continues where it stopped.

    \b
    orchestrate extract --traits all                       # demo model, nothing else needed
    orchestrate extract --traits refusal,evil \\
        --model google/gemma-2-2b-it --judge-model gpt-6-luna --runs-dir /shared/runs
    """
    asked = asked_run(values)
    # a budget that cannot be kept is told before anything is recorded
    terms = asked_terms(values, asked.spec.judge)
    if dry_run:
        show_plan(asked, terms, as_json=values["as_json"])
    refuse_at_once(asked, on_fleet=bool(values["broker_url"]))
    if dry_run:
        return
    console = Screen(to_stderr=values["as_json"])
    for warning in asked.warnings:
        say(console, warning, style="yellow", wrap=True)
    finish_extraction(begin_extraction(asked, values, priority=priority), values)


@click.command(cls=Command)
@run_argument
@terms_options
@priority_option
@broker_option
@wait_option
@option("--detach", is_flag=True, help="Send the jobs to the fleet and return.")
@json_option
def resume(run: Run, priority: int | None, **values: Any) -> None:
    """Continue a run with the settings it recorded, after a pause as well.

    \b
    orchestrate resume demo-1a2b3c4d
    orchestrate resume demo-1a2b3c4d --priority 10 --detach     # before all others
    """
    require_fleet_broker(values)
    _record_terms(run, values)
    unpause(run, priority=priority)
    finish_extraction(run, values)


@click.command(cls=Command)
@run_argument
@broker_option
@click.option("--dead", is_flag=True, help="Also the jobs that were given up for killing workers.")
@wait_option
@click.option("--detach", is_flag=True, help="Send the jobs to the fleet and return.")
@json_option
def retry(run: Run, dead: bool, **values: Any) -> None:
    """Try a run's failed jobs again and continue it; with --dead also those that were given up.

    \b
    orchestrate retry demo-1a2b3c4d --dead
    """
    require_fleet_broker(values)
    if dead:
        revived = revive_dead(run.store)
        click.echo(f"{len(revived)} jobs that were given up are tried again.", err=True)
    elif dead_letters(run.store):
        click.echo("Some jobs were given up for killing workers; --dead includes them.", err=True)
    unpause(run, priority=None)
    finish_extraction(run, values)


def begin_extraction(
    asked: AskedRun, values: Mapping[str, Any], *, priority: int | None = None
) -> Run:
    """The recorded run of the settings, new or to be continued, with its terms."""
    keep_key_from_folder(asked.spec.judge.url, values)
    require_fleet_broker(values)
    run = create_run(
        asked.store,
        asked.spec,
        run_id=uuid.uuid4().hex[:12],
        definitions=asked.definitions,
        provenance=run_provenance(),
    )
    _record_terms(run, values)
    unpause(run, priority=priority)
    return run


def require_fleet_broker(values: Mapping[str, Any]) -> None:
    """Raises BrokerError where the broker that the jobs go to does not answer, or --detach has
    none; to be asked before anything is recorded."""
    broker_url, detach = values["broker_url"], values.get("detach")
    if detach and not broker_url:
        raise BrokerError("--detach needs a fleet that stays: give --broker-url")
    if not broker_url:
        return
    try:
        connect(broker_url).close()
    except BrokerError as error:
        if detach:
            raise
        raise BrokerError(
            f"{error}; or leave it out to have a private broker started for the time of the command"
        ) from error


def _record_terms(run: Run, values: Mapping[str, Any]) -> None:
    """What was recorded, with what is given now; damaged, what is given now where that says all."""
    try:
        before = read_terms(run.store)
    except StoreError as error:
        # a cap that nobody can read is not dropped in silence
        if values["budget"] is None and run.spec.judge.url != "embedded":
            raise
        click.echo(f"Recorded anew: {error.wrong}", err=True)
        before = None
    write_terms(run.store, asked_terms(values, run.spec.judge, before=before))


def finish_extraction(run: Run, values: Mapping[str, Any]) -> None:
    """Bring a run to its end and print its verdicts; exits with the contract's codes.

    `values` are those of the options of broker, waiting, JSON and, where it has one, detaching.
    """
    if not values["broker_url"]:
        done = run.done()
        jobs = (job for trait in run.spec.traits for job in run.plan.part_jobs(trait, "judge"))
        if any(job.key not in done and is_job_needed(run.plan, job, done) for job in jobs):
            # what asks the Hub is not loaded for --help
            from cli.doctor.cannot_start import refuse_judge_here

            refuse_judge_here(run, judge_of(run))
    console = Screen(to_stderr=values["as_json"])
    _say_plan(console, run)
    failures = carry_out_extraction(console, run, values)
    if failures is not None:
        _print_result(console, run, failures, as_json=values["as_json"])


def carry_out_extraction(
    console: Console, run: Run, values: Mapping[str, Any]
) -> list[Failure] | None:
    """Do what of a run is not done yet, and show how it goes; the jobs that failed, or None where
    the jobs were only sent."""
    broker_url, detach = values["broker_url"], values.get("detach")
    # a stop by the system ends as a stop by hand does: what was started is stopped too
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        # what nohup has ignored stays so
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    with _fleet(run, broker_url) as (url, tend):
        driver = Driver(make_app(url), url, run, broker_state(url, run.run_id), tend)
        if not broker_url:
            # a private broker that dies does not come back; the same command starts another
            driver.broker_patience_s = PRIVATE_BROKER_PATIENCE_S
        if broker_url and not detach:
            _require_workers(console, driver, values["wait_for_workers"])
        driver.patiently(lambda: open_meter(run, url))
        driver.patiently(driver.start)
        if detach:
            say(console, f"Sent. Follow it with: orchestrate status {run.name}")
            say(console, last_step_of(run.name))
            return None
        try:
            return _watch(console, driver)
        finally:
            keep_extraction_log(console, driver)


@contextlib.contextmanager
def _fleet(run: Run, broker_url: str | None) -> Iterator[tuple[str, Callable[[], None]]]:
    if broker_url:
        yield broker_url, lambda: None
        return
    if other := read_attended(run.store):
        log.warning(
            "Process %d on %s works on this run too: both do the same jobs.", other.pid, other.host
        )
    logs = Path(run.store.url) / "logs" if isinstance(run.store, LocalStore) else None
    judge = judge_of(run)
    needs_server = judge.url == "embedded" if judge.scores else None
    devices = local_devices(
        run.spec.model.model_id,
        n_responses=sum(map(run.plan.n_worked_on, run.spec.traits)),
        is_judged_here=needs_server is True,
    )
    fleet = local_fleet(logs, needs_judge_server=needs_server, devices=devices)
    with attending(run.store) as stay, fleet as (url, processes):

        def tend() -> None:
            stay()
            processes.tend()

        yield url, tend


def local_devices(model_id: str, *, n_responses: int, is_judged_here: bool) -> list[str]:
    """Those of a private fleet's GPU workers: each visible one, or `cpu` once for each of the
    workers that share the cores."""
    names = visible_devices()
    if names != ["cpu"]:
        return names
    weights = bytes_on_cpu(model_id)
    if weights is None:
        return names
    n = cpu_workers(
        usable_cores(),
        weight_bytes=weights,
        free_bytes=machine_devices()[0].free_bytes,
        n_responses=n_responses,
        is_judged_here=is_judged_here,
    )
    return names * n


def _require_workers(console: Console, driver: Driver, wait_s: float) -> None:
    needed = driver.queues_to_come()
    missing = driver.patiently(lambda: missing_workers(driver.app, needed, wait_s=0))
    if missing and wait_s > 0:
        say(console, f"Waits up to {wait_s:.0f} s for {', '.join(missing)} workers.")
        missing = driver.patiently(lambda: missing_workers(driver.app, needed, wait_s=wait_s))
    if missing:
        raise BrokerError(
            f"no worker listens on {', '.join(missing)} after {wait_s:.0f} s: start one with "
            f"`orchestrate worker {missing[0]}`, or send the jobs ahead with --detach"
        )


def _watch(console: Console, driver: Driver) -> list[Failure]:
    # what reads models is not loaded for --help
    from cli.doctor.thinking import thinking_here

    run = driver.run
    thinks = thinking_here(run.spec.model.model_id)
    progress = Progress(
        console,
        read_metrics=lambda trait: read_metrics(run.store, trait),
        news_in_words=lambda: news_in_words(run, driver.broker_url),
        tokens_each=tokens_expected(run.spec) + thought_tokens_expected(run.spec, thinks),
    )
    try:
        with progress.shown():
            return driver.watch(progress)
    except KeyboardInterrupt:
        again = driver.what_goes_on
        say(console, f"\nInterrupted; what is done is kept. Continue with: {again}")
        raise


def keep_extraction_log(console: Console, driver: Driver) -> None:
    """What workers said goes into the record; a log that cannot be kept spoils no result."""
    try:
        with connect(driver.broker_url) as client:
            keep_log_lines(driver.run.store, client, driver.run.run_id)
    except (OrchestrateError, OSError) as error:
        say(console, f"What workers said was not kept with the run: {error}")


def _say_plan(console: Console, run: Run) -> None:
    # of a later judgement, whom that asks
    spec = run.spec.model_copy(update={"judge": judge_of(run)})
    definitions = {trait.name: load_definition(run, trait.name) for trait in spec.traits}
    done = run.done()
    found = estimate_plan(run.plan, definitions, done=done)
    if run.judgement is not None:
        found = estimate_judgement(run, found, done=done)
    say(console, plan_line(found), wrap=True)
    for remark in plan_remarks(definitions, spec):
        say(console, remark, style="yellow", wrap=True)
    say(console, f"Run {run.name} in {run.store.url}")
    say(console, f"Model {spec.model.model_id}")
    where = "on this machine" if spec.judge.url == "embedded" else f"at {spec.judge.url}"
    judge = f"Judge {spec.judge.model} {where}" if spec.judge.scores else "No judge"
    say(console, judge, wrap=True)
    if spec.model.trust_remote_code:
        say(
            console,
            f"Warning: --trust-remote-code lets the repository of {spec.model.model_id} run its "
            "own code on every GPU worker that allows it (ORCHESTRATE_ALLOW_REMOTE_CODE=1).",
            style="yellow",
        )


def _print_result(console: Console, run: Run, failures: list[Failure], *, as_json: bool) -> None:
    metrics = finished_metrics(run.store, [trait.name for trait in run.spec.traits])
    print_verdicts(console, metrics)
    print_verdict_remarks(console, spoken_remarks(metrics))
    for failure in failures:
        say(console, f"{failure.job} failed: {failure.error}: {failure.message}")
    if metrics:
        line = where_vectors_are(metrics, f"{run.store.url}/traits/<trait>/vectors")
        say(console, line)
    where = _write_report(console, run) if metrics else None
    if line := next_step(run.name, metrics):
        say(console, line)
    usable = all(one.is_usable for one in metrics)
    code = 1 if failures or len(metrics) < len(run.spec.traits) else 0 if usable else NOT_USABLE
    if as_json:
        result = {
            "run": run.name,
            "url": run.store.url,
            "report": where,
            "exit_code": code,
            "judge_usd": recorded_usd(run.store) if read_terms(run.store).price else None,
            "traits": [one.model_dump(mode="json") for one in metrics],
        }
        click.echo(json.dumps(result, indent=2))
    sys.exit(code)


def _write_report(console: Console, run: Run) -> str | None:
    """report.html of what is finished; a report that cannot be made spoils no verdict."""
    try:
        with working("Writing the report"):
            where = write_report(run)
    except OrchestrateError as error:
        say(console, f"No report: {error}")
        return None
    say(console, f"Report: {where}")
    return where
