"""Drives a run to its end: reconciles, watches, and says when nothing more can happen."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from celery import Celery
from kombu.exceptions import OperationalError

from domain.errors import (
    BrokerError,
    BudgetError,
    JudgeError,
    JudgeNotHereError,
    ModelError,
    ModelNotHereError,
    OrchestrateError,
    StoppedError,
    StoreError,
    StoreNotHereError,
)
from domain.fleet.heartbeats import QUEUES
from domain.plan.readiness import ready_jobs
from orchestrator.progress import TraitCount, trait_progress
from storage.broker.connection import BROKER_AWAY, connect, require_writes
from storage.broker.fleet import forget_listed_run, put_listed_run, queue_of
from storage.broker.judge_limits import read_judge_meter
from storage.broker.state import BrokerState, jobs_on_queues
from storage.record.artifacts import (
    DamagedArtifactError,
    load_record,
    record_key,
    set_artifact_aside,
)
from storage.record.dead_letters import Failure, dead_letters
from storage.record.judgements import FIRST
from storage.record.results import damaged_results, has_manifest, read_metrics
from storage.record.run import Run
from tasks.fleet.app import TASK_NAMES, delivery_settings
from tasks.fleet.send import send_jobs

log = logging.getLogger(__name__)
T = TypeVar("T")
POLL_S = 0.5

# A judge's call that hangs is given up after a minute.
CALLS_END_WITHIN_S = 65.0

BROKER_PAUSE_S = 1.0

# Those that a failure may have been, by the names that are recorded.
ERRORS: dict[str, type[OrchestrateError]] = {
    error.__name__: error
    for error in (
        *(ModelError, JudgeError, BudgetError, StoreError, BrokerError),
        *(ModelNotHereError, JudgeNotHereError, StoreNotHereError),
    )
}


class View(Protocol):
    """What shows progress."""

    def update(self, counts: list[TraitCount], failures: list[Failure]) -> None:
        """Where each trait stands, and the jobs that failed."""


@dataclass
class Driver:
    """One orchestrator of a run; several on one run do not harm each other."""

    app: Celery
    broker_url: str
    run: Run
    state: BrokerState
    tend: Callable[[], None]
    # how long a broker may be away before the command ends; the run can be resumed after
    broker_patience_s: float = 600.0
    # three looks within the time that a dead worker's job waits for another
    reconcile_every_s: float = field(
        default_factory=lambda: delivery_settings().visibility_timeout_s / 3
    )
    # a message that a busy worker has read and not noted yet is on no list for a while
    lost_after_s: float = field(default_factory=lambda: delivery_settings().visibility_timeout_s)
    # job -> since when it has been on no list
    _missing: dict[str, float] = field(default_factory=dict)
    # job -> since when it has been marked done without a record
    _unrecorded: dict[str, float] = field(default_factory=dict)
    # why it waits for the broker, as people were told
    _told: set[str] = field(default_factory=set)

    @property
    def what_goes_on(self) -> str:
        """The command to go on with; resume goes on with the run's own judgement alone."""
        own = self.run.judgement is None
        return f"orchestrate resume {self.run.name}" if own else "the same command"

    def start(self) -> None:
        """Clear what earlier attempts left and send every ready job.

        Messages that are still out stay out, so a second orchestrator sends nothing twice.
        """
        self.state.start_over()
        ours = {job.key for job in self.run.plan.jobs()}
        for failure in dead_letters(self.run.store):
            # what was given up in another judgement is not missing in this one
            if failure.job in ours:
                self.state.fail(failure)
        self._set_broken_results_aside()
        # artifacts that were taken away since are not done any more
        self.state.mark_undone(self.state.done() - self.run.done())
        self.reconcile()

    def reconcile(self) -> set[str]:
        """Compare plan and artifacts, and send what is ready and not out; returns the done jobs."""
        require_writes(self.state.client)
        put_listed_run(self.state.client, self.run)
        said = self.state.done()
        done = self.run.done()
        self._take_marks_back(said - done)
        self.state.mark_done(done)
        failed = {failure.job for failure in self.state.failures()}
        jobs = [job for job in ready_jobs(self.run.plan, done) if job.key not in failed]
        send_jobs(self.app, self.state, self.run, jobs=jobs)
        return done

    def _take_marks_back(self, unrecorded: set[str]) -> None:
        """Have jobs done that are marked so on the broker and are not in the record, after longer
        than another machine's file may take to be seen here."""
        now = time.monotonic()
        self._unrecorded = {job: self._unrecorded.get(job, now) for job in unrecorded}
        wrong = {j for j, since in self._unrecorded.items() if now - since >= 2 * self.lost_after_s}
        if wrong:
            log.warning("%d jobs are marked done and are not recorded; they run.", len(wrong))
            self.state.mark_undone(wrong)

    def watch(self, view: View) -> list[Failure]:
        """Block until the run is finished or stuck; returns the failures of single jobs.

        Raises the error of a failure that every other job would meet too, StoppedError when
        somebody cancelled the run, and BrokerError when the broker stays away longer than our
        patience.
        """
        next_reconcile = time.monotonic() + self.reconcile_every_s
        answered = time.monotonic()
        while True:
            self.tend()
            try:
                ended = self._look(view)
                if ended is not None:
                    forget_listed_run(self.state.client, self.run.run_id)
                    return ended
                if time.monotonic() >= next_reconcile:
                    self._release_lost()
                    self.reconcile()
                    next_reconcile = time.monotonic() + self.reconcile_every_s
                answered = self._broker_is_back()
            except BROKER_AWAY as error:
                self._wait_for_broker(error, since=answered)
                next_reconcile = 0.0  # it may have forgotten everything
            time.sleep(POLL_S)

    def patiently(self, step: Callable[[], T]) -> T:
        """Do a step until the broker is there for it; raises BrokerError when it stays away."""
        since = time.monotonic()
        while True:
            try:
                done = step()
            except BROKER_AWAY as error:
                self._wait_for_broker(error, since=since)
            else:
                self._broker_is_back()
                return done

    def _wait_for_broker(self, error: Exception, *, since: float) -> None:
        away = time.monotonic() - since
        if away > self.broker_patience_s:
            raise BrokerError(
                f"the broker has not answered for {away:.0f} s ({error}): when it is back, "
                "run the same command again, what is done is kept"
            ) from error
        if str(error) not in self._told:
            self._told.add(str(error))
            log.warning("Waits for the broker: %s.", error)
        self._missing = {}
        time.sleep(BROKER_PAUSE_S)

    def _broker_is_back(self) -> float:
        """The time now; people are told when they were told that the broker was away."""
        if self._told:
            self._told = set()
            log.warning("The broker is back.")
        return time.monotonic()

    def _look(self, view: View) -> list[Failure] | None:
        """Show where the run stands; its failures once it has ended, None before."""
        done, failures = self.state.done(), self.state.failures()
        view.update(trait_progress(self.run.plan, done), failures)
        for failure in failures:
            if failure.fatal:
                self.state.cancel()
                self._let_calls_end()
                raise ERRORS.get(failure.error, OrchestrateError)(failure.message)
        last = [self.run.plan.last_job(trait) for trait in self.run.spec.traits]
        # the broker may say anything; what is done is what is recorded
        if all(job.key in done and self.run.store.exists(record_key(job)) for job in last):
            return failures
        if self.state.is_cancelled():
            raise StoppedError(f"the run was cancelled: {self.what_goes_on} goes on")
        return failures if failures and not self.state.outstanding() else None

    def _set_broken_results_aside(self) -> None:
        """Have a trait assembled again whose results are not what was written, or are another
        judgement's, and tested again what is assembled again; and the judge asked again how it
        wants to be asked, where the answer is damaged."""
        plan, done, store = self.run.plan, self.run.done(), self.run.store
        for trait in self.run.spec.traits:
            folder = f"traits/{trait.name}"
            ends = plan.trait_job("reduce", trait.name), plan.trait_job("verify", trait.name)
            found = damaged_results(store, folder)
            is_ended = plan.last_job(trait).key in done
            # what is being written has none either, but then the trait is not done
            if is_ended and not has_manifest(store, folder):
                found = [f"{folder} without its checksums"]
            # a finished run may have been given those of a later judgement
            is_to_be_ours = self.run.judgement is not None or not is_ended
            if is_to_be_ours and ends[0].key in done and not self._holds_ours(trait.name):
                found = [f"{folder} of another judgement"]
            if found:
                log.warning("%s: not what was written; assembled again.", ", ".join(found))
            if found or ends[0].key not in done:
                for job in ends:
                    if job.key in done:
                        set_artifact_aside(store, job)
        try:
            if plan.negotiate_job.key in done:
                load_record(store, plan.negotiate_job)
        except DamagedArtifactError as error:
            log.warning("%s; asked again.", error)
            set_artifact_aside(store, plan.negotiate_job)

    def _holds_ours(self, trait: str) -> bool:
        """Whether a trait's results are those of the judgement worked on."""
        try:
            judging = read_metrics(self.run.store, trait).judging
        except (KeyError, StoreError):
            return False
        return (judging.judgement if judging else FIRST) == (self.run.judgement or FIRST)

    def queues_to_come(self) -> list[str]:
        """The queues of what is still to be done: a rejudging, say, needs no GPU worker."""
        done = self.run.done()
        stages = {job.stage for job in self.run.plan.jobs() if job.key not in done}
        wanted = {TASK_NAMES[stage].partition(".")[0] for stage in stages}
        return [name for name in QUEUES if name in wanted]

    def _release_lost(self) -> None:
        """Take back claims on jobs that have been on no list for long: the broker lost them."""
        with connect(self.broker_url) as client:
            queues = [queue_of(kind, self.run.run_id) for kind in QUEUES]
            out = jobs_on_queues(client, queues, self.run.run_id)
        missing, now = self.state.outstanding() - out, time.monotonic()
        self._missing = {job: self._missing.get(job, now) for job in missing}
        lost = {job for job, since in self._missing.items() if now - since >= self.lost_after_s}
        if lost:
            log.warning("The broker lost %d messages; they are sent again.", len(lost))
            self.state.release(lost)

    def _let_calls_end(self) -> None:
        """Wait until what the judge was asked already is answered, paid and written down."""
        deadline, is_told = time.monotonic() + CALLS_END_WITHIN_S, False
        while time.monotonic() < deadline:
            self.tend()
            with connect(self.broker_url) as client:
                meter = read_judge_meter(client, self.run.run_id)
            if meter is None or meter.reserved < 1e-9:
                return
            if not is_told:
                log.warning("Waits for the judge's answers to what it was asked already.")
                is_told = True
            time.sleep(POLL_S)


def missing_workers(app: Celery, needed: Collection[str], *, wait_s: float) -> list[str]:
    """Which of the needed queues no worker listens on, after waiting up to wait_s seconds.

    Raises BrokerError when the broker goes away meanwhile.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            answered = app.control.inspect(timeout=2.0).active_queues() or {}
        except OperationalError as error:
            raise BrokerError(
                f"the broker did not take a question to its workers: {error}"
            ) from error
        listening = {queue["name"] for queues in answered.values() for queue in queues}
        missing: list[str] = [name for name in needed if name not in listening]
        if not missing or time.monotonic() >= deadline:
            return missing
