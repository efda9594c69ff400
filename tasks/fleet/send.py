"""Sending: puts ready jobs on their queues, once each, and hands over when a job is done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from celery import Celery
from kombu.exceptions import OperationalError

from domain.errors import BrokerError
from domain.plan.jobs import Job
from domain.plan.readiness import is_job_ready, job_inputs, jobs_readied_by, ready_jobs, stop_mark
from domain.plan.spec import WIRE_VERSION
from storage.broker.connection import server_time
from storage.broker.fleet import forget_listed_run, has_listed_run, put_listed_run, queue_of
from storage.broker.state import BrokerState
from storage.record.artifacts import record_key, set_artifact_aside
from storage.record.judgements import judgement_names
from storage.record.run import Run
from tasks.fleet.app import TASK_NAMES, run_queue
from tasks.fleet.message import JobMessage


def send_jobs(app: Celery, state: BrokerState, run: Run, *, jobs: Iterable[Job]) -> int:
    """Send the jobs that are not out already; returns how many were sent.

    Raises BrokerError when the broker does not take one; the reconciler then sends it again.
    """
    sent, now = 0, server_time(state.client)
    for job in jobs:
        if not state.claim(job.key):
            continue
        if sent == 0 and not has_listed_run(state.client, run.run_id):
            put_listed_run(state.client, run)
        task = TASK_NAMES[job.stage]
        message = JobMessage(wire=WIRE_VERSION, run_id=run.run_id, run=run.store.url, job=job.key)
        try:
            app.send_task(
                task,
                queue=run_queue(queue_of(task.partition(".")[0], run.run_id)),
                kwargs=message.model_dump(),
                # what Flower shows
                argsrepr="()",
                kwargsrepr=f"{job.key} (run {run.name})",
                # the reconciler reads the first two on the queue, the exporter the time
                headers={"run_id": run.run_id, "job": job.key, "sent_at": now},
            )
        except OperationalError as error:
            raise BrokerError(
                f"the broker did not take the message of {job.key}: {error}"
            ) from error
        sent += 1
    return sent


def hand_over(app: Celery, state: BrokerState, run: Run, *, done: Job) -> None:
    """Note that a job is done and send whatever that makes ready."""
    keys, plan = [done.key], run.plan
    coming = jobs_readied_by(plan, done) if done.trait is not None else []
    if done.stage == "converge" and done.trait is not None and done.shard is not None:
        # a look at a trait may have left a stop mark
        mark = stop_mark(run.spec.trait(done.trait), done.shard)
        keys += [mark.key] if run.store.exists(record_key(mark)) else []
    state.mark_done(keys)
    if done.trait is None:
        # what follows depends on what is generated already: a rejudging finds it all done
        send_jobs(app, state, run, jobs=ready_jobs(plan, state.done()))
        return
    if run.spec.until == "converged":
        # which jobs are needed depends on where the trait stopped
        all_done = state.done()
        ready = [job for job in coming if is_job_ready(plan, job, all_done)]
    else:
        # asking the broker for as few jobs as can be
        ready = [
            job
            for job in coming
            if not state.are_done([job.key])
            and state.are_done([one.key for one in job_inputs(plan, job)])
        ]
    send_jobs(app, state, run, jobs=ready)
    if not coming and state.is_idle():
        forget_listed_run(state.client, run.run_id)


def send_again(app: Celery, state: BrokerState, run: Run, *, damaged: Job, wanted_by: Job) -> None:
    """Set a damaged artifact aside and send its job; what was made from it goes with it."""
    stale = [damaged]
    if damaged.stage == "generate":
        # other texts may come out on a GPU, so scores of the old ones are void in every judgement
        stale += jobs_readied_by(run.plan, damaged)
        judged = run.plan.judge_job(damaged)
        stale += [replace(judged, judgement=name) for name in (None, *judgement_names(run))]
    for job in stale:
        set_artifact_aside(run.store, job)
    state.mark_undone([job.key for job in (*stale, wanted_by)])
    send_jobs(app, state, run, jobs=[damaged])
