"""Sending: puts ready jobs on their queues, once each, and hands over when a job is done."""

from __future__ import annotations

from collections.abc import Iterable

from celery import Celery
from kombu.exceptions import OperationalError

from domain.errors import BrokerError
from domain.plan.jobs import Job
from domain.plan.readiness import followers, inputs, is_ready, ready_jobs, stop_mark
from domain.plan.spec import WIRE_VERSION
from storage.broker.connection import server_time
from storage.broker.fleet import forget_run, has_run, put_run, queue_of
from storage.broker.state import BrokerState
from storage.record.artifacts import record_key, set_aside
from storage.record.run import Run
from tasks.queue.app import TASK_NAMES, run_queue
from tasks.queue.message import JobMessage

# Inputs of a reduce that are asked for at a time.
LOOK_AT = 64


def submit(app: Celery, state: BrokerState, run: Run, *, jobs: Iterable[Job]) -> int:
    """Send the jobs that are not out already; returns how many were sent."""
    sent, now = 0, server_time(state.client)
    for job in jobs:
        if state.claim(job.key):
            if sent == 0 and not has_run(state.client, run.run_id):
                put_run(state.client, run)
            send(app, run, job, at=now)
            sent += 1
    return sent


def send(app: Celery, run: Run, job: Job, *, at: float) -> None:
    """Put one job's message on its queue; what Flower shows is the job's key and the run's name.

    Raises BrokerError when the broker does not take it; the reconciler then sends it again.
    """
    task = TASK_NAMES[job.stage]
    message = JobMessage(wire=WIRE_VERSION, run_id=run.run_id, run=run.store.url, job=job.key)
    try:
        app.send_task(
            task,
            queue=run_queue(queue_of(task.partition(".")[0], run.run_id)),
            kwargs=message.model_dump(),
            argsrepr="()",
            kwargsrepr=f"{job.key} (run {run.name})",
            # the reconciler reads the first two on the queue, the exporter the time
            headers={"run_id": run.run_id, "job": job.key, "sent_at": at},
        )
    except OperationalError as error:
        raise BrokerError(f"the broker did not take the message of {job.key}: {error}") from error


def hand_over(app: Celery, state: BrokerState, run: Run, *, done: Job) -> None:
    """Note that a job is done and send whatever that makes ready."""
    state.mark_done([done.key, *_marks(run, done)])
    if done.trait is None:
        # what follows depends on what is generated already: a rejudging finds it all done
        submit(app, state, run, jobs=ready_jobs(run.plan, state.done()))
        return
    next_jobs = followers(run.plan, done)
    submit(app, state, run, jobs=[j for j in next_jobs if _is_ready(state, run, j)])
    if not next_jobs and state.is_idle():
        forget_run(state.client, run.run_id)


def _is_ready(state: BrokerState, run: Run, job: Job) -> bool:
    """orchestrator.readiness.is_ready, asking the broker for as few jobs as can be."""
    if run.spec.until == "converged":
        # which jobs are needed depends on where the trait stopped
        return is_ready(run.plan, job, state.done())
    if state.are_done([job.key]):
        return False
    needed = [one.key for one in inputs(run.plan, job)]
    # the last to be sent are the last to be done: the end of the list tells soonest
    return all(
        state.are_done(needed[max(0, end - LOOK_AT) : end])
        for end in range(len(needed), 0, -LOOK_AT)
    )


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
        # other texts may come out on a GPU, so scores of the old ones are void
        stale += followers(run.plan, damaged)
    for job in stale:
        set_aside(run.store, job)
    state.mark_undone([job.key for job in (*stale, wanted_by)])
    submit(app, state, run, jobs=[damaged])
