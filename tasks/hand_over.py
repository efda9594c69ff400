"""Sending: puts ready jobs on their queues, once each, and hands over when a job is done."""

from __future__ import annotations

from collections.abc import Iterable

from celery import Celery
from kombu.exceptions import OperationalError

from orchestrator.errors import BrokerError
from orchestrator.plan import Job
from orchestrator.readiness import followers, is_ready, stop_mark
from storage.artifacts import record_key, set_aside
from storage.broker_state import BrokerState
from storage.run_record import Run
from tasks.app import TASK_NAMES
from tasks.message import JobMessage


def submit(app: Celery, state: BrokerState, run: Run, *, jobs: Iterable[Job]) -> int:
    """Send the jobs that are not out already; returns how many were sent."""
    sent = 0
    for job in jobs:
        if state.claim(job.key):
            send(app, run, job)
            sent += 1
    return sent


def send(app: Celery, run: Run, job: Job) -> None:
    """Put one job's message on its queue; what Flower shows is the job's key and the run's name.

    Raises BrokerError when the broker does not take it; the reconciler then sends it again.
    """
    name = run.store.url.rstrip("/").rpartition("/")[2]
    try:
        app.send_task(
            TASK_NAMES[job.stage],
            kwargs=JobMessage(run.run_id, run.store.url, job.key).to_fields(),
            argsrepr="()",
            kwargsrepr=f"{job.key} (run {name})",
            # the reconciler reads these on the queue
            headers={"run_id": run.run_id, "job": job.key},
        )
    except OperationalError as error:
        raise BrokerError(f"the broker did not take the message of {job.key}: {error}") from error


def hand_over(app: Celery, state: BrokerState, run: Run, *, done: Job) -> None:
    """Note that a job is done and send whatever that makes ready."""
    state.mark_done([done.key, *_marks(run, done)])
    # what follows a probe depends on what is generated already, which a rejudging finds all done
    next_jobs = followers(run.plan, done) if done.trait is not None else list(run.plan.jobs())
    if next_jobs:
        known = state.done()
        submit(app, state, run, jobs=[j for j in next_jobs if is_ready(run.plan, j, known)])


def _marks(run: Run, done: Job) -> list[str]:
    """The stop mark that a look at a trait may have left."""
    if done.stage != "converge" or done.trait is None or done.shard is None:
        return []
    mark = stop_mark(run.spec.trait(done.trait), done.shard)
    return [mark.key] if run.store.exists(record_key(mark)) else []


def run_again(app: Celery, state: BrokerState, run: Run, *, damaged: Job, wanted_by: Job) -> None:
    """Set a damaged artifact aside and send its job; what was made from it goes with it."""
    stale = [damaged]
    if damaged.stage == "generate":
        # other texts may come out on a GPU, so verdicts on the old ones are void
        stale += followers(run.plan, damaged)
    for job in stale:
        set_aside(run.store, job)
    state.mark_undone([job.key for job in (*stale, wanted_by)])
    submit(app, state, run, jobs=[damaged])
