"""Where a run stands, as one JSON value: from the record, and from the broker when there is one.

Knows nothing of how it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cli.counts import TraitCount, stages_of, total, trait_counts
from cli.fleet_table import fleet_rows
from cli.judge_meter import judge_snapshot
from cli.refusal_lines import refusal_rows
from cli.run_state import FINISHED, by_record, read_on_broker, run_state, state_json
from orchestrator.errors import OrchestrateError
from orchestrator.fleet import QUEUES
from storage.artifacts import done_jobs
from storage.broker_state import BrokerState
from storage.connection import Client, connect
from storage.fleet import card_of, has_run, read_run, read_workers
from storage.job_log import last_lines
from storage.metrics_file import read_metrics
from storage.queues import read_queues
from storage.run_counts import read_counts, read_rates
from storage.run_record import Run
from storage.schedule import read_schedule

LAST_ERRORS = 5


def run_snapshot(run: Run, broker_url: str | None) -> dict[str, Any]:
    """The run now; `queues`, `workers` and what else only a broker knows are absent without one."""
    if not broker_url:
        return _standing(run, _done_by_record(run))
    with connect(broker_url) as client:
        state = BrokerState(client, run.run_id)
        # the broker's list is quick, and as good as the record's while the run is on it
        on_broker = has_run(client, run.run_id)
        done = state.done() if on_broker else _done_by_record(run)
        standing = _standing(run, done)
        return {
            **standing,
            **_on_broker(run, client, standing),
            "on_broker": on_broker,
            "judge": judge_snapshot(run, broker_url),
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
        **state_json(by_record(finished=finished, paused=schedule.paused)),
        "stages": {stage: asdict(total(counts, stage)) for stage in stages_of(counts)},
        "traits": [_trait(run, count) for count in counts],
    }


def _trait(run: Run, count: TraitCount) -> dict[str, Any]:
    metrics = _metrics(run, count)
    return {
        "trait": count.trait,
        **{stage: asdict(one) for stage, one in count.stages.items()},
        "is_reduced": count.is_reduced,
        "is_finished": count.is_finished,
        "verdict": metrics.get("verdict"),
        "contrast": metrics.get("contrast"),
        "reasons": metrics.get("reasons", []),
        "notes": metrics.get("notes", []),
    }


def _metrics(run: Run, count: TraitCount) -> dict[str, Any]:
    if not count.is_reduced:
        return {}
    try:
        return read_metrics(run.store, count.trait)
    except (KeyError, OrchestrateError):
        # about to be assembled again
        return {}


def _done_by_record(run: Run) -> set[str]:
    return done_jobs(run.store, [trait.name for trait in run.spec.traits], judgement=run.judgement)


def _on_broker(run: Run, client: Client, standing: Mapping[str, Any]) -> dict[str, Any]:
    card = read_run(client, run.run_id) or card_of(run, since=0.0)
    queues, workers = read_queues(client, [card], QUEUES), read_workers(client)
    facts = read_on_broker(client, run, queues=queues, workers=workers)
    finished = standing["state"] == FINISHED
    return {
        "since": card.since,
        **state_json(run_state(facts, finished=finished, paused=standing["paused"])),
        "cancelled": facts.cancelled,
        "failures": [asdict(failure) for failure in facts.failures],
        "queues": {queue.kind: queue.waiting for queue in queues},
        "held": {queue.kind: queue.held for queue in queues},
        "oldest_s": {queue.kind: queue.oldest_s for queue in queues},
        "counts": read_counts(client, run.run_id),
        "rates": read_rates(client, run.run_id),
        "workers": fleet_rows(workers),
        "refusals": refusal_rows(client, [card], workers),
        "last_errors": [
            asdict(line)
            for line in last_lines(client, run.run_id, levels=("warning", "error"), n=LAST_ERRORS)
        ],
    }
