"""Drives a run to its end: reconciles, watches, and says when nothing more can happen.

Knows nothing of how progress is shown: a view is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from celery import Celery

from orchestrator.errors import BrokerError, JudgeError, ModelError, OrchestrateError, StoreError
from orchestrator.readiness import is_finished, ready_jobs
from storage.artifacts import done_jobs
from storage.broker_state import BrokerState, Failure, n_unacknowledged, queue_lengths
from storage.connection import connect
from storage.run_record import Run
from tasks.app import QUEUES
from tasks.hand_over import submit

POLL_S = 0.5
RECONCILE_EVERY_S = 10.0


class View(Protocol):
    """What shows progress."""

    def update(self, done: set[str], failures: list[Failure]) -> None:
        """The jobs done so far and those that failed."""


@dataclass
class Driver:
    """One orchestrator of a run; several on one run do not harm each other."""

    app: Celery
    broker_url: str
    run: Run
    state: BrokerState
    tend: Callable[[], None]

    def start(self) -> None:
        """Clear what earlier attempts left and send every ready job."""
        self.state.uncancel()
        self.state.clear_failures()
        self.state.forget_outstanding()
        self.reconcile()

    def reconcile(self) -> set[str]:
        """Compare plan and artifacts, and send what is ready and not out; returns the done jobs."""
        done = done_jobs(self.run.store, [t.name for t in self.run.spec.traits])
        self.state.mark_done(done)
        failed = {failure.job for failure in self.state.failures()}
        jobs = [job for job in ready_jobs(self.run.plan, done) if job.key not in failed]
        submit(self.app, self.state, self.run, jobs=jobs)
        return done

    def watch(self, view: View) -> list[Failure]:
        """Block until the run is finished or stuck; returns the failures of single jobs.

        Raises the error of a failure that every other job would meet too.
        """
        next_reconcile = time.monotonic() + RECONCILE_EVERY_S
        idle_rounds = 0
        while True:
            self.tend()
            done, failures = self.state.done(), self.state.failures()
            view.update(done, failures)
            self._raise_fatal(failures)
            if all(is_finished(self.run.plan, t, done) for t in self.run.spec.traits):
                return failures
            if failures and not self.state.outstanding():
                return failures
            if time.monotonic() >= next_reconcile:
                self.reconcile()
                idle_rounds = idle_rounds + 1 if self._queues_are_empty() else 0
                if idle_rounds >= 3:
                    # sent, not done, and on no queue: the broker lost them
                    self.state.forget_outstanding()
                    idle_rounds = 0
                next_reconcile = time.monotonic() + RECONCILE_EVERY_S
            time.sleep(POLL_S)

    def _queues_are_empty(self) -> bool:
        with connect(self.broker_url) as client:
            return not n_unacknowledged(client) and not any(queue_lengths(client, QUEUES).values())

    def _raise_fatal(self, failures: list[Failure]) -> None:
        for failure in failures:
            if failure.fatal:
                self.state.cancel()
                raise _ERRORS.get(failure.error, OrchestrateError)(failure.message)


_ERRORS: dict[str, type[OrchestrateError]] = {
    error.__name__: error for error in (ModelError, JudgeError, StoreError, BrokerError)
}


def missing_workers(app: Celery, *, wait_s: float) -> list[str]:
    """Queues that no worker listens on, after waiting for one up to wait_s seconds."""
    deadline = time.monotonic() + wait_s
    while True:
        answered = app.control.inspect(timeout=2.0).active_queues() or {}
        listening = {queue["name"] for queues in answered.values() for queue in queues}
        missing: list[str] = [name for name in QUEUES if name not in listening]
        if not missing or time.monotonic() >= deadline:
            return missing
