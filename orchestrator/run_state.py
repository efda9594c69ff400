"""Where a run stands and what it is doing: from its record, and from a broker when there is one."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from domain.errors import BudgetError, OrchestrateError
from domain.fleet.heartbeats import QUEUES, Heartbeat, ListedRun, WorkerKind
from domain.fleet.placement import workers_left
from orchestrator.progress import TraitCount, stage_progress, trait_progress, trait_progress_row
from storage.broker.connection import Client, connect, refusal_of_writes
from storage.broker.counts import read_counts, read_rates
from storage.broker.fleet import (
    QueueFacts,
    has_listed_run,
    listed_run,
    read_declines,
    read_listed_run,
    read_queues,
    read_workers,
)
from storage.broker.job_log import FAILED, LogLine, kept_log_lines, last_job_log_lines
from storage.broker.judge_limits import (
    LimiterKeys,
    endpoint_state,
    put_judge_meter,
    read_judge_meter,
)
from storage.broker.state import BrokerState
from storage.record.artifacts import record_key
from storage.record.attended import Attended, read_attended
from storage.record.dead_letters import Failure
from storage.record.judgements import judge_of
from storage.record.results import read_metrics
from storage.record.run import Run, read_run_schedule
from storage.record.spending import read_terms, recorded_usd

LAST_ERRORS = 5


def run_snapshot(run: Run, broker_url: str | None) -> dict[str, Any]:
    """The run now, `state` as RunState; `queues`, `workers` and what else only a broker knows are
    absent without one, and `last_errors` are then the record's."""
    if not broker_url:
        return _standing(run, run.done())
    with connect(broker_url) as client:
        # the broker's list is quick, and as good as the record's while the run is on it
        on_broker = has_listed_run(client, run.run_id)
        done = BrokerState(client, run.run_id).done() if on_broker else run.done()
        standing = _standing(run, done)
        return {
            **standing,
            **_on_broker(run, client, standing),
            "on_broker": on_broker,
            "judge": judge_facts(client, run),
        }


def _standing(run: Run, done: set[str]) -> dict[str, Any]:
    counts = trait_progress(run.plan, done)
    schedule = read_run_schedule(run.store)
    finished = all(count.is_finished for count in counts)
    attended = read_attended(run.store)
    failed = [] if finished or attended else recorded_failures(run, done=done)
    return {
        "run": run.store.url,
        "run_id": run.run_id,
        "name": run.name,
        "model": run.spec.model.model_id,
        **schedule.model_dump(),
        "state": run_state(
            None,
            finished=finished,
            paused=schedule.paused,
            attended=attended,
            recorded=failed,
        ),
        "last_errors": [asdict(line) for line in failed],
        "stages": {stage: asdict(one) for stage, one in stage_progress(counts).items()},
        "traits": [_trait(run, count) for count in counts],
    }


def recorded_failures(run: Run, *, done: Collection[str] | None = None) -> list[LogLine]:
    """How jobs that are not done failed last, as the record keeps it: the latest first, LAST_ERRORS
    at most. Each is looked for where nobody listed what is `done`."""

    def is_open(name: str) -> bool:
        try:
            job = run.plan.parse_job(name)
        except (KeyError, OrchestrateError):
            # the log may hold anything
            return False
        is_done = run.store.exists(record_key(job)) if done is None else job.key in done
        return job.judgement == run.judgement and not is_done

    latest: dict[str, LogLine] = {}
    for line in reversed(kept_log_lines(run.store)):
        if line.event in FAILED:
            latest.setdefault(line.job, line)
    still_open = (line for line in latest.values() if is_open(line.job))
    return list(itertools.islice(still_open, LAST_ERRORS))


def _trait(run: Run, count: TraitCount) -> dict[str, Any]:
    metrics = None
    if count.is_reduced:
        # one that cannot be read is about to be assembled again
        with contextlib.suppress(KeyError, OrchestrateError):
            metrics = read_metrics(run.store, count.trait)
    return trait_progress_row(count, metrics)


def _on_broker(run: Run, client: Client, standing: Mapping[str, Any]) -> dict[str, Any]:
    listed = read_listed_run(client, run.run_id) or listed_run(run, since=0.0)
    queues, workers = read_queues(client, [listed], QUEUES), read_workers(client)
    facts = read_state_on_broker(
        client, listed, queues=queues, workers=workers, judge_down_s=judge_down_s(client, run)
    )
    finished = standing["state"].state == State.FINISHED
    errors = last_job_log_lines(client, run.run_id, levels=("warning", "error"), n=LAST_ERRORS)
    return {
        "since": listed.since,
        "state": run_state(
            facts,
            finished=finished,
            paused=standing["paused"],
            attended=standing["state"].attended,
            recorded=standing["state"].recorded,
        ),
        "cancelled": facts.cancelled,
        "failures": [asdict(failure) for failure in facts.failures],
        "queues": {queue.kind: queue.waiting for queue in queues},
        "held": {queue.kind: queue.held for queue in queues},
        "oldest_s": {queue.kind: queue.oldest_s for queue in queues},
        "counts": read_counts(client, run.run_id),
        "rates": read_rates(client, run.run_id),
        "workers": [asdict(one) for one in workers],
        "refusals": decline_rows(client, [listed], workers),
        "last_errors": [asdict(line) for line in errors],
    }


def decline_rows(
    client: Client, runs: Iterable[ListedRun], workers: Sequence[Heartbeat]
) -> list[dict[str, str]]:
    """What living workers said of the runs that they cannot serve."""
    alive = {one.name for one in workers}
    return [
        {"run": run.name, "worker": one.worker, "host": one.host, "reason": one.reason}
        for run in runs
        for one in read_declines(client, run.run_id)
        if one.worker in alive
    ]


class State(StrEnum):
    """What a run is doing."""

    RUNNING = "running"
    FINISHED = "finished"
    NOT_FINISHED = "not finished"
    NOT_RUNNING = "not running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    FAILED = "failed"
    BUDGET_REACHED = "budget reached"
    LACKS_BROKER = "waiting for the broker"
    LACKS_WORKERS = "waiting for workers"
    LACKS_JUDGE = "waiting for a judge"


@dataclass(frozen=True)
class RunState:
    """What a run is doing, and what is known of why: the kind of worker that it lacks, its first
    failure and how many came after, why the broker takes nothing, how long no judge answers, the
    command that works on it with workers of its own, and the failures that its record keeps."""

    state: State
    lacks: WorkerKind | None = None
    failure: Failure | None = None
    n_more: int = 0
    cannot: str = ""
    judge_down_s: float | None = None
    attended: Attended | None = None
    recorded: Sequence[LogLine] = ()


@dataclass(frozen=True)
class OnBroker:
    """What the broker knows of a run. `waiting` and `held` are jobs by kind of worker, `kinds`
    those that a worker is there for which may do this run's, `cannot` why the broker takes nothing
    now, `judge_down_s` how long nobody has answered there."""

    is_listed: bool
    cancelled: bool = False
    failures: Sequence[Failure] = ()
    waiting: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)
    kinds: Collection[str] = ()
    cannot: str = ""
    judge_down_s: float | None = None


def read_state_on_broker(
    client: Client,
    run: ListedRun,
    *,
    queues: Iterable[QueueFacts],
    workers: Sequence[Heartbeat],
    judge_down_s: float | None = None,
) -> OnBroker:
    """A run's facts; `queues` may be those of other runs too."""
    state = BrokerState(client, run.run_id)
    ours = [queue for queue in queues if queue.run_id == run.run_id]
    declined = {one.worker for one in read_declines(client, run.run_id)}
    models: dict[WorkerKind, str] = {"gpu": run.model}
    return OnBroker(
        is_listed=has_listed_run(client, run.run_id),
        cancelled=state.is_cancelled(),
        failures=state.failures(),
        waiting={queue.kind: queue.waiting for queue in ours},
        held={queue.kind: queue.held for queue in ours},
        kinds={
            kind
            for kind in QUEUES
            if workers_left(kind, models.get(kind, ""), workers=workers, declined=declined)
        },
        cannot=refusal_of_writes(client),
        judge_down_s=judge_down_s,
    )


def run_state(
    facts: OnBroker | None,
    *,
    finished: bool,
    paused: bool,
    attended: Attended | None = None,
    recorded: Sequence[LogLine] = (),
) -> RunState:
    """What the run is doing now; without a broker's facts, what the record alone tells, with the
    `recorded` failures of jobs that are not done."""
    if attended is not None and not (facts and facts.is_listed):
        return RunState(State.RUNNING, attended=attended)
    is_out = facts is not None and (any(facts.waiting.values()) or any(facts.held.values()))
    # one that is judged again is finished, and goes on
    if finished and not (facts and facts.is_listed and is_out):
        return RunState(State.FINISHED)
    if facts and facts.failures:
        first = next((failure for failure in facts.failures if failure.fatal), facts.failures[0])
        # a failure that would meet every job cancels what is left
        if not is_out or (facts.cancelled and first.fatal):
            is_of_money = first.error == BudgetError.__name__
            ended = State.BUDGET_REACHED if is_of_money else State.FAILED
            return RunState(ended, failure=first, n_more=len(facts.failures) - 1)
    if facts and facts.cancelled:
        return RunState(State.CANCELLED)
    if paused:
        return RunState(State.PAUSED)
    if facts is None:
        return RunState(State.NOT_FINISHED, recorded=recorded)
    if not facts.is_listed or not is_out:
        return RunState(State.NOT_RUNNING, recorded=recorded)
    return state_of_open_jobs(facts)


def state_of_open_jobs(facts: OnBroker) -> RunState:
    """For whom a run with jobs out waits; running when somebody works on it."""
    if facts.cannot:
        return RunState(State.LACKS_BROKER, cannot=facts.cannot)
    out: list[WorkerKind] = [
        kind for kind in QUEUES if facts.waiting.get(kind) or facts.held.get(kind)
    ]
    # what a worker held that died is held by nobody
    at_work = [kind for kind in out if facts.held.get(kind) and kind in facts.kinds]
    lacks = next((kind for kind in out if kind not in facts.kinds), None)
    if lacks and not at_work:
        return RunState(State.LACKS_WORKERS, lacks)
    if facts.judge_down_s is not None and out == ["judge"]:
        return RunState(State.LACKS_JUDGE, judge_down_s=facts.judge_down_s)
    return RunState(State.RUNNING, lacks)


def open_meter(run: Run, broker_url: str) -> None:
    """Bring the run's cap and what its record says was spent into the broker."""
    terms = read_terms(run.store, judgement=run.judgement)
    with connect(broker_url) as client:
        put_judge_meter(client, run.run_id, terms=terms, spent=recorded_usd(run.store))


def judge_facts(client: Client, run: Run) -> dict[str, Any]:
    """Money and endpoint; money is None when no price is known."""
    meter = read_judge_meter(client, run.run_id)
    is_priced = read_terms(run.store, judgement=run.judgement).price is not None
    return {**_endpoint(client, run), "money": asdict(meter) if meter and is_priced else None}


def _endpoint(client: Client, run: Run) -> dict[str, Any]:
    """The judge's model and endpoint, and since when it is down."""
    spec = judge_of(run)
    keys = LimiterKeys.of(run.run_id, url=spec.url, model=spec.model)
    return {"model": spec.model, "url": spec.url, **endpoint_state(client, keys)}


def judge_down_s(client: Client, run: Run) -> float | None:
    """How long the run's judge has not answered; None while it does."""
    found: float | None = _endpoint(client, run)["down_for_s"]
    return found
