"""Where a run stands and what it is doing: from its record, and from a broker when there is one."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from domain.errors import BudgetError, OrchestrateError
from domain.fleet.heartbeats import QUEUES, Heartbeat, ListedRun, WorkerKind
from domain.fleet.placement import workers_left
from orchestrator.progress import TraitCount, stage_totals, trait_counts, trait_row
from storage.broker.connection import Client, connect, refusal_of_writes
from storage.broker.fleet import (
    QueueFacts,
    has_run,
    listed_run,
    read_declines,
    read_queues,
    read_run,
    read_workers,
)
from storage.broker.job_log import last_log_lines
from storage.broker.judge_limits import LimiterKeys, endpoint_state, put_meter, read_meter
from storage.broker.state import BrokerState, read_counts, read_rates
from storage.record.judgements import judge_of
from storage.record.results import read_metrics
from storage.record.run import Failure, Run, read_schedule
from storage.record.spending import read_terms, recorded_usd

LAST_ERRORS = 5
FINISHED, RUNNING = "finished", "running"
GOES_ON = "orchestrate resume goes on"


def run_snapshot(run: Run, broker_url: str | None) -> dict[str, Any]:
    """The run now; `queues`, `workers` and what else only a broker knows are absent without one."""
    if not broker_url:
        return _standing(run, run.done())
    with connect(broker_url) as client:
        # the broker's list is quick, and as good as the record's while the run is on it
        on_broker = has_run(client, run.run_id)
        done = BrokerState(client, run.run_id).done() if on_broker else run.done()
        standing = _standing(run, done)
        return {
            **standing,
            **_on_broker(run, client, standing),
            "on_broker": on_broker,
            "judge": _judge(client, run),
        }


def _standing(run: Run, done: set[str]) -> dict[str, Any]:
    counts = trait_counts(run.plan, done)
    schedule = read_schedule(run.store)
    finished = all(count.is_finished for count in counts)
    return {
        "run": run.store.url,
        "run_id": run.run_id,
        "name": run.name,
        "model": run.spec.model.model_id,
        **schedule.model_dump(),
        **run_state(None, finished=finished, paused=schedule.paused).json(),
        "stages": {stage: asdict(one) for stage, one in stage_totals(counts).items()},
        "traits": [_trait(run, count) for count in counts],
    }


def _trait(run: Run, count: TraitCount) -> dict[str, Any]:
    metrics = None
    if count.is_reduced:
        # one that cannot be read is about to be assembled again
        with contextlib.suppress(KeyError, OrchestrateError):
            metrics = read_metrics(run.store, count.trait)
    return trait_row(count, metrics)


def _on_broker(run: Run, client: Client, standing: Mapping[str, Any]) -> dict[str, Any]:
    listed = read_run(client, run.run_id) or listed_run(run, since=0.0)
    queues, workers = read_queues(client, [listed], QUEUES), read_workers(client)
    facts = read_on_broker(
        client, listed, queues=queues, workers=workers, judge_down_s=judge_down_s(client, run)
    )
    finished = standing["state"] == FINISHED
    errors = last_log_lines(client, run.run_id, levels=("warning", "error"), n=LAST_ERRORS)
    return {
        "since": listed.since,
        **run_state(facts, finished=finished, paused=standing["paused"]).json(),
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


@dataclass(frozen=True)
class RunState:
    """`word` is one of a few, for programs too; `why` is for people and may be empty."""

    word: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.word}: {self.why}" if self.why else self.word

    def json(self) -> dict[str, str]:
        """As it stands in a snapshot."""
        return {"state": self.word, "state_why": self.why}


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


def read_on_broker(
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
        is_listed=has_run(client, run.run_id),
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


def run_state(facts: OnBroker | None, *, finished: bool, paused: bool) -> RunState:
    """What the run is doing now; without a broker's facts, what the record alone tells."""
    is_out = facts is not None and (any(facts.waiting.values()) or any(facts.held.values()))
    # one that is judged again is finished, and goes on
    if finished and not (facts and facts.is_listed and is_out):
        return RunState(FINISHED)
    if facts and facts.failures:
        first = next((failure for failure in facts.failures if failure.fatal), facts.failures[0])
        # a failure that would meet every job cancels what is left
        if not is_out or (facts.cancelled and first.fatal):
            return _failed(first, len(facts.failures) - 1)
    if facts and facts.cancelled:
        return RunState("cancelled", GOES_ON)
    if paused:
        return RunState("paused", GOES_ON)
    if facts is None:
        return RunState("not finished")
    if not facts.is_listed or not is_out:
        return RunState("not running", GOES_ON)
    return doing(facts)


def doing(facts: OnBroker) -> RunState:
    """For whom a run with jobs out waits; running when somebody works on it."""
    if facts.cannot:
        return RunState("waiting for the broker", facts.cannot)
    out = [kind for kind in QUEUES if facts.waiting.get(kind) or facts.held.get(kind)]
    # what a worker held that died is held by nobody
    at_work = [kind for kind in out if facts.held.get(kind) and kind in facts.kinds]
    lacking = [kind for kind in out if kind not in facts.kinds]
    if lacking and not at_work:
        return RunState(f"waiting for {lacking[0]} workers", f"orchestrate worker {lacking[0]}")
    if facts.judge_down_s is not None and out == ["judge"]:
        return RunState("waiting for a judge", f"no answer since {facts.judge_down_s:.0f} s")
    return RunState(RUNNING, f"no {lacking[0]} worker is there" if lacking else "")


def _failed(first: Failure, n_more: int) -> RunState:
    if first.error == BudgetError.__name__:
        return RunState("budget reached", "a larger one goes on: orchestrate resume --budget")
    more = f" and {n_more} more jobs" if n_more else ""
    return RunState("failed", f"{first.job}{more}, {first.message}")


def open_meter(run: Run, broker_url: str) -> None:
    """Bring the run's cap and what its record says was spent into the broker."""
    terms = read_terms(run.store, judgement=run.judgement)
    with connect(broker_url) as client:
        put_meter(client, run.run_id, terms=terms, spent=recorded_usd(run.store))


def _judge(client: Client, run: Run) -> dict[str, Any]:
    """Money and endpoint; money is None when no price is known."""
    meter = read_meter(client, run.run_id)
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


def judge_parts(found: Mapping[str, Any]) -> list[str]:
    """What of a snapshot's judge people should know: whether it is down, its cost, rejections."""
    parts = []
    if found["down_for_s"] is not None:
        parts.append(
            f"the judge at {found['url']} is down since {found['down_for_s']:.0f} s: judging waits "
            f"and spends nothing, next look in {found['next_look_in_s']:.0f} s"
        )
    if found["money"]:
        spent, cap = found["money"]["spent"], found["money"]["cap"]
        parts.append(f"judge ${spent:.4f}" + ("" if cap is None else f" of ${cap:g}"))
    if found["rejected"]:
        parts.append(f"{found['rejected']} calls rejected by its limits")
    return parts


def news_text(run: Run, broker_url: str) -> str:
    """For whom the run waits, what the judge has cost so far and whether it is down; empty when
    that is nothing."""
    with connect(broker_url) as client:
        listed = read_run(client, run.run_id)
        parts = []
        if listed is not None:
            queues, workers = read_queues(client, [listed], QUEUES), read_workers(client)
            state = doing(read_on_broker(client, listed, queues=queues, workers=workers))
            parts = [str(state)] if state != RunState(RUNNING) else []
        if run.spec.judge.url != "embedded":
            parts += judge_parts({**_judge(client, run), "rejected": 0})
        return ", ".join(parts)


def last_step(run: Run, snapshot: Mapping[str, Any]) -> str:
    """What to do about a finished run without a report, as detached runs are; empty if nothing."""
    # it loads what reads tables: not for a status that is asked for every second
    from storage.record.tables import REPORT

    finished = all(trait["is_finished"] for trait in snapshot["traits"])
    return last_step_of(run.name) if finished and not run.store.exists(REPORT) else ""


def last_step_of(name: str) -> str:
    """The command that ends a detached run, and what for."""
    return f"For the verdicts and report.html of the finished run: orchestrate resume {name}"
