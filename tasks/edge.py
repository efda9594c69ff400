"""The edge of every task: checks the message, skips what is done, records failures, hands over.

Knows nothing of what a stage does; a stage is a function from a run and a job to its record.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import redis
from celery import Celery
from celery.exceptions import Reject

from orchestrator.errors import OrchestrateError, StoreError
from orchestrator.plan import Job
from orchestrator.run_spec import WIRE_VERSION
from storage.artifacts import DamagedArtifactError, Record, load_record
from storage.broker_state import BrokerState, Failure
from storage.connection import connect
from storage.run_record import Run, open_run
from storage.store import open_store
from tasks.hand_over import hand_over, run_again

log = logging.getLogger(__name__)

Stage = Callable[[Run, Job], Record]


@dataclass(frozen=True)
class Edge:
    """What every task of one worker process shares."""

    app: Celery
    broker_url: str

    def carry(self, stage: Stage, *, wire: int, run_url: str, job_key: str) -> str:
        """Run one job's stage unless its artifact exists; returns a line for Flower."""
        if wire != WIRE_VERSION:
            raise StoreError(
                f"this worker speaks wire version {WIRE_VERSION}, the message has {wire}: "
                "use the same version of orchestrate on every machine"
            )
        run = open_run(open_store(run_url))
        try:
            job = run.plan.parse_job(job_key)
        except KeyError as error:
            raise StoreError(f"job {job_key} is not in the plan of {run_url}") from error
        state = BrokerState(self._redis, run.run_id)
        if state.is_cancelled():
            return f"{job.key}: the run was cancelled"
        return self._carry(stage, run, job, state)

    def _carry(self, stage: Stage, run: Run, job: Job, state: BrokerState) -> str:
        started = time.monotonic()
        try:
            try:
                load_record(run.store, job)
                outcome = "was done already"
            except KeyError:
                record = stage(run, job)
                outcome = str(record.info.get("summary", "done"))
        except DamagedArtifactError as error:
            log.warning("%s; its job runs again.", error, extra={"event": "damaged"})
            damaged = run.plan.parse_job(error.job)
            run_again(self.app, state, run, damaged=damaged, wanted_by=job)
            return f"{job.key}: waits, {error.job} was damaged and runs again"
        except Reject:
            # handed back to the queue: another worker takes it
            raise
        # the one broad catch of the task edge: whatever went wrong is recorded under the job
        except Exception as error:
            _record_failure(state, job, error)
            raise
        hand_over(self.app, state, run, done=job)
        seconds = time.monotonic() - started
        log.info(
            "Finished %s in %.1f s: %s.", job.key, seconds, outcome, extra={"event": "job_done"}
        )
        return f"{job.key}: {outcome}"

    @functools.cached_property
    def _redis(self) -> redis.Redis:
        return connect(self.broker_url)


def _record_failure(state: BrokerState, job: Job, error: Exception) -> None:
    message = str(error) or repr(error)
    log.error("%s failed: %s", job.key, message, extra={"event": "job_failed", "job": job.key})
    fatal = isinstance(error, OrchestrateError)
    state.fail(Failure(job.key, type(error).__name__, message, fatal))
