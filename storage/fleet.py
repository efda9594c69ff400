"""The cards of runs and workers on the broker's Redis; all of it is rebuilt when it is lost.

Knows nothing of Celery, nor of who takes what (orchestrator/placement.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, cast

import redis

from orchestrator.fleet import Demand, Rate, RunCard, WorkerCard, model_label
from storage.connection import server_time
from storage.refusals import refusals_key
from storage.run_record import Run
from storage.schedule import read_schedule

RUNS = "orchestrate:runs"
WORKERS = "orchestrate:workers"
# A worker writes its card every two seconds; one that is silent this long is gone.
SILENT_AFTER_S = 15.0
# What another version wrote, or somebody who is none of us: as good as no card.
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
# As long as a run's other keys stay (storage/broker_state.py).
FORGET_RUN_AFTER_S = 14 * 24 * 3600


def queue_of(kind: str, run_id: str) -> str:
    """The queue, a Redis list, of one run's jobs for one kind of worker."""
    return f"{kind}.{run_id}"


def card_of(run: Run, *, since: float) -> RunCard:
    """A run's card by its record."""
    schedule, model = read_schedule(run.store), model_label(run.spec.model)
    return RunCard(
        run_id=run.run_id,
        name=run.name,
        url=run.store.url,
        model=model,
        priority=schedule.priority,
        paused=schedule.paused,
        samples=sum(run.plan.n_worked_on(trait) for trait in run.spec.traits),
        since=since,
    )


def put_run(client: redis.Redis, run: Run) -> None:
    """Write a run's card; a run that was there keeps the time it came."""
    before = read_run(client, run.run_id)
    card = card_of(run, since=before.since if before else server_time(client))
    if card != before:
        client.hset(RUNS, run.run_id, json.dumps(asdict(card)))


def read_run(client: redis.Redis, run_id: str) -> RunCard | None:
    """The card of a run, None when the broker has none."""
    body = client.hget(RUNS, run_id)
    return None if body is None else _run_card(cast(bytes, body))


def has_run(client: redis.Redis, run_id: str) -> bool:
    """Whether the broker has the card of a run."""
    return bool(client.hexists(RUNS, run_id))


def forget_run(client: redis.Redis, run_id: str) -> None:
    """Take a run's card away: nobody listens for its jobs any more."""
    client.hdel(RUNS, run_id)


def read_runs(client: redis.Redis) -> list[RunCard]:
    """The cards of all runs, oldest first; those of two weeks ago go."""
    found = cast(Mapping[bytes, bytes], client.hgetall(RUNS))
    readable = (card for body in found.values() if (card := _run_card(body)) is not None)
    cards = sorted(readable, key=lambda card: card.since)
    if cards and cards[0].since < server_time(client) - FORGET_RUN_AFTER_S:
        forget_run(client, cards[0].run_id)
    return cards


def read_demands(client: redis.Redis, kind: str) -> list[Demand]:
    """The runs that have jobs out, how many of these wait for a kind of worker, and who refused."""
    cards = read_runs(client)
    pipe = client.pipeline(transaction=False)
    for card in cards:
        pipe.exists(f"orchestrate:{card.run_id}:outstanding")
        pipe.llen(queue_of(kind, card.run_id))
        pipe.hkeys(refusals_key(card.run_id))
    answers = iter(pipe.execute() if cards else [])
    return [
        Demand(card, int(waiting), frozenset(name.decode(errors="replace") for name in refused))
        for card, is_out, waiting, refused in zip(cards, answers, answers, answers, strict=False)
        if is_out or waiting
    ]


def put_worker(client: redis.Redis, card: WorkerCard) -> None:
    """Write a worker's card."""
    body = {**asdict(card), "at": server_time(client)}
    client.hset(WORKERS, card.name, json.dumps(body))


def forget_worker(client: redis.Redis, name: str) -> None:
    """Take a leaving worker's card away."""
    client.hdel(WORKERS, name)


def read_workers(client: redis.Redis) -> list[WorkerCard]:
    """The cards of the workers that live, by name; those of silent ones go."""
    now, alive, silent = server_time(client), [], []
    found = cast(Mapping[bytes, bytes], client.hgetall(WORKERS))
    for name, text in found.items():
        try:
            body = json.loads(text)
            if now - body.pop("at") > SILENT_AFTER_S:
                silent.append(name)
            else:
                alive.append(worker_card(body))
        except _UNREADABLE:
            silent.append(name)
    if silent:
        client.hdel(WORKERS, *silent)
    return sorted(alive, key=lambda card: card.name)


def _run_card(body: bytes) -> RunCard | None:
    try:
        return RunCard(**json.loads(body))
    except _UNREADABLE:
        return None


def worker_card(body: Mapping[str, Any]) -> WorkerCard:
    """A card from its JSON."""
    card = WorkerCard(**body)
    return replace(
        card,
        models=tuple(card.models),
        jobs=tuple((str(run), str(job), float(s)) for run, job, s in body["jobs"]),
        per_minute=Rate(**body["per_minute"]),
    )
