"""How jobs that kill their workers are found: attempts that did not end are counted.

Such a job takes the jobs beside it along, and they would count the death too. One that was begun
before and never ended therefore runs alone, and only it can die then. A job that a healthy worker
gives back did not kill anybody.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from celery.exceptions import Reject

from domain.errors import LocalError, OrchestrateError
from domain.plan.jobs import Job
from storage.broker.connection import BROKER_AWAY
from storage.broker.counts import note_counts
from storage.broker.state import BrokerState
from storage.record.dead_letters import Failure, write_dead_letter
from storage.record.run import Run

log = logging.getLogger(__name__)

# Begun this often and never ended, a job may be what kills its workers: it runs alone from here.
SUSPECT_FROM = 2


class PoisonJobError(OrchestrateError):
    """A job's workers died while they ran it, more often than chance: look into its prompts."""


def _give_up(state: BrokerState, run: Run, job: Job, *, deaths: int) -> PoisonJobError:
    """Put a job on the dead-letter list; returns what is said of it."""
    error = PoisonJobError(
        f"{deaths} workers died while they ran it, the last time alone; given up on "
        f"{socket.gethostname()}. Look into its prompts and the workers' logs, then: "
        "orchestrate retry RUN --dead"
    )
    failure = Failure(job.key, type(error).__name__, str(error), fatal=False)
    log.error("Gave up %s: %s", job.key, error, extra={"event": "job_dead", "job": job.key})
    write_dead_letter(run.store, failure)
    state.fail(failure)
    note_counts(state.client, run.run_id, {f"dead.{job.stage}": 1})
    return error


class SuspectIsolation:
    """Lets jobs in side by side, or one by itself."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._suspects = 0

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Come in beside others; waits while a suspect is inside or at the door."""
        with self._changed:
            self._changed.wait_for(lambda: not self._suspects)
            self._inside += 1
        try:
            yield
        finally:
            self._leave()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Come in when all others have left, and keep them out."""
        with self._changed:
            self._suspects += 1
            self._changed.wait_for(lambda: not self._inside)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._suspects -= 1
            self._leave()

    def _leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()


class DyingReject(Reject):  # type: ignore[misc]
    """Gives a job to another worker, and counts it among those that this worker may die of."""


@dataclass(frozen=True)
class Attempts:
    """The attempts at jobs of one worker process; shared by its threads."""

    isolation: SuspectIsolation = field(default_factory=SuspectIsolation)
    # jobs that went back while the broker could not be told
    _untold: deque[tuple[BrokerState, str]] = field(default_factory=deque)

    @contextlib.contextmanager
    def begun(self, state: BrokerState, run: Run, job: Job, *, max_deaths: int) -> Iterator[None]:
        """Let a job begin, alone when others died of it, and count that until it ends; not any
        more when a worker that lives on gives it back.

        Raises PoisonJobError instead when that many workers died.
        """
        n_attempts, facts = state.n_attempts(job.key), {"job": job.key}
        if n_attempts >= max_deaths:
            raise _give_up(state, run, job, deaths=max_deaths)
        if n_attempts:
            note_counts(state.client, run.run_id, {f"again.{job.stage}": 1})
            log.warning(
                "%s begins again: the worker that had it died or was cut off.",
                job.key,
                extra={"event": "begun_again", **facts},
            )
        suspect = n_attempts >= SUSPECT_FROM
        with self.isolation.alone() if suspect else self.isolation.shared():
            if suspect:
                log.warning(
                    "%s was begun %d times and never ended: it runs alone.",
                    job.key,
                    n_attempts,
                    extra={"event": "suspect", **facts},
                )
            state.begin_attempt(job.key)
            try:
                log.info("Begins %s.", job.key, extra={"event": "job_begun", **facts})
                yield
            except DyingReject:
                raise
            except (Reject, LocalError):
                state.take_attempt_back(job.key)
                raise
            except BROKER_AWAY:
                self._untold.append((state, job.key))
                raise

    def tell(self) -> None:
        """Tell the broker what went back while it was away; raises what BROKER_AWAY names."""
        with contextlib.suppress(IndexError):
            while True:
                state, job = self._untold.popleft()
                try:
                    state.take_attempt_back(job)
                except BROKER_AWAY:
                    self._untold.append((state, job))
                    raise
