"""The edge of every task: checks the message, skips what is done, records failures, hands over."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import redis
from celery import Celery
from celery.exceptions import Reject

from domain.errors import LocalError, OrchestrateError, UsageError
from domain.plan.jobs import Job
from domain.plan.readiness import is_needed
from storage.broker.connection import BROKER_AWAY, connect
from storage.broker.state import BrokerState, job_counts, note
from storage.record.artifacts import DamagedArtifactError, Record, load_record, set_aside
from storage.record.judgements import judge_of
from storage.record.run import Run, open_run
from storage.record.store import is_below, open_store
from tasks.fleet.declines import Declines
from tasks.fleet.member import WorkLog, samples_in, tokens_in
from tasks.fleet.suspects import Attempts, Isolation, PoisonJobError, give_up, record_failure
from tasks.queue.job_logging import about
from tasks.queue.message import JobMessage, MessageError, read_message
from tasks.queue.send import hand_over, run_again
from tasks.queue.settings import DeliverySettings, Permissions

log = logging.getLogger(__name__)

Stage = Callable[[Run, Job], Record]

# Begun this often and never ended, a job may be what kills its workers: it runs alone from here.
SUSPECT_FROM = 2

# A job handed back because the broker was away is not taken again in the same instant; nor is one
# of a run that this worker declines, whose queue it still listens to for half a second.
BROKER_PAUSE_S = 1.0

DECLINED_PAUSE_S = 1.0


@dataclass(frozen=True)
class Edge:
    """What every task of one worker process shares."""

    app: Celery
    broker_url: str
    delivery: DeliverySettings = field(default_factory=DeliverySettings)
    permissions: Permissions = field(default_factory=Permissions)
    isolation: Isolation = field(default_factory=Isolation)
    work: WorkLog = field(default_factory=WorkLog)
    attempts: Attempts = field(default_factory=Attempts)
    declines: Declines = field(default_factory=Declines)

    def carry(self, stage: Stage, fields: Mapping[str, object]) -> str:
        """Run one job's stage unless its artifact exists; returns a line for Flower.

        Raises Reject for a message that is none of ours, and to hand a job back to the queue.
        """
        try:
            message = read_message(fields)
        except MessageError as error:
            log.error("Refused a message: %s.", error, extra={"event": "message_refused"})
            raise Reject(f"refused: {error}", requeue=False) from error
        try:
            return self._carry_message(stage, message)
        except BROKER_AWAY as error:
            # nothing can be noted now; the message comes back, and what is stored stays stored
            log.warning(
                "The broker is away (%s): %s goes back.",
                error,
                message.job[:80],
                extra={"event": "broker_away"},
            )
            time.sleep(BROKER_PAUSE_S)
            raise Reject(str(error), requeue=True) from error

    def _carry_message(self, stage: Stage, message: JobMessage) -> str:
        self.attempts.tell()
        state = BrokerState(self._redis, message.run_id)
        if state.is_cancelled():
            return f"{message.job}: the run was cancelled"
        if self.declines.holds(message.run_id):
            raise _back_to_others("this worker declines the run")
        try:
            message.check_wire()
            run, job = open_job(message, self.permissions)
        except LocalError as error:
            with about(message.run_id, "", message.job[:80]):
                self._decline(state, message.job[:80], error)
            raise Reject(f"declined: {error}", requeue=False) from error
        # whatever it is: a job that nobody opens and nobody reports would be waited for forever
        except Exception as error:
            record_failure(state, message.job[:80], error)
            raise Reject(f"refused: {error}", requeue=False) from error
        with about(run.run_id, run.name, job.key):
            return self._carry(stage, run, job, state)

    def _carry(self, stage: Stage, run: Run, job: Job, state: BrokerState) -> str:
        started = time.monotonic()
        if run.spec.until == "converged" and not is_needed(run.plan, job, state.done()):
            state.release([job.key])
            return f"{job.key}: not needed any more, the trait has enough"
        try:
            try:
                load_record(run.store, job)
                outcome = "was done already"
            except KeyError:
                record = self._run_stage(stage, run, job, state)
                _check_still_there(run, job)
                outcome = str(record.info.get("summary", "done"))
        except DamagedArtifactError as error:
            log.warning("%s; its job runs again.", error, extra={"event": "damaged"})
            damaged = run.plan.parse_job(error.job)
            run_again(self.app, state, run, damaged=damaged, wanted_by=job)
            return f"{job.key}: waits, {error.job} was damaged and runs again"
        except UnknownJobError as error:
            log.error("Refused: %s.", error, extra={"event": "run_replaced", "job": job.key})
            raise Reject(f"refused: {error}", requeue=False) from error
        except (Reject, *BROKER_AWAY):
            # handed back to the queue: another worker takes it
            raise
        except PoisonJobError as error:
            return f"{job.key}: given up, {error}"
        except LocalError as error:
            self._decline(state, job.key, error)
            note(state.client, run.run_id, {f"failed.{job.stage}": 1})
            raise
        # the other broad catch of the task edge: whatever went wrong is recorded under the job
        except Exception as error:
            record_failure(state, job.key, error)
            note(state.client, run.run_id, {f"failed.{job.stage}": 1})
            raise
        hand_over(self.app, state, run, done=job)
        seconds = time.monotonic() - started
        log.info(
            "Finished %s in %.1f s: %s.", job.key, seconds, outcome, extra={"event": "job_done"}
        )
        return f"{job.key}: {outcome}"

    def _decline(self, state: BrokerState, job: str, error: LocalError) -> None:
        """Hand a job back that may only fail on this machine; returns once it failed on all."""
        failed_where = self.declines.decline(state, error)
        if not failed_where:
            raise _back_to_others(str(error)) from error
        record_failure(state, job, error, message=failed_where)

    def _run_stage(self, stage: Stage, run: Run, job: Job, state: BrokerState) -> Record:
        n_attempts = state.n_attempts(job.key)
        if n_attempts >= self.delivery.max_deaths:
            raise give_up(state, run, job, deaths=self.delivery.max_deaths)
        if n_attempts:
            note(state.client, run.run_id, {f"again.{job.stage}": 1})
            log.warning(
                "%s begins again: the worker that had it died or was cut off.",
                job.key,
                extra={"event": "begun_again", "job": job.key},
            )
        suspect = n_attempts >= SUSPECT_FROM
        room = self.isolation.alone() if suspect else self.isolation.shared()
        with room:
            if suspect:
                log.warning(
                    "%s was begun %d times and never ended: it runs alone.",
                    job.key,
                    n_attempts,
                    extra={"event": "suspect", "job": job.key},
                )
            log.info("Begins %s.", job.key, extra={"event": "job_begun", "job": job.key})
            started = time.monotonic()
            with self.attempts.counted(state, job.key), self.work.doing(run.name, job.key):
                record = stage(run, job)
                self.work.note(record.info)
                counts = job_counts(
                    job.stage,
                    time.monotonic() - started,
                    samples=samples_in(record.info),
                    tokens=tokens_in(record.info),
                )
                note(state.client, run.run_id, counts)
            return record

    @functools.cached_property
    def _redis(self) -> redis.Redis:
        return connect(self.broker_url)


def _back_to_others(why: str) -> Reject:
    """What gives a job of a declined run back, when this worker no longer listens for it."""
    time.sleep(DECLINED_PAUSE_S)
    return Reject(why, requeue=True)


def _check_still_there(run: Run, job: Job) -> None:
    """Take a job's artifact away again when another run has begun in its folder meanwhile."""
    try:
        now = open_run(run.store).run_id
    except UsageError as error:
        raise UnknownJobError(f"the run of {job.key} went away meanwhile: {error}") from error
    if now != run.run_id:
        set_aside(run.store, job)
        raise UnknownJobError(f"{run.store.url} has become run {now} while {job.key} was done")


class PermissionRefusedError(LocalError):
    """A run asks for what this worker was not started to do."""


class UnknownJobError(OrchestrateError):
    """A message names a run or a job that is not there: nothing was done."""


class RunNotHereError(UnknownJobError, LocalError):
    """The run cannot be opened on this machine, or another one lies in its place."""


def open_job(message: JobMessage, permissions: Permissions) -> tuple[Run, Job]:
    """The run and job that a message names.

    Raises RunNotHereError for a run that is not there, UnknownJobError for a job that it does not
    have, PermissionRefusedError for what may not be opened.
    """
    folder = permissions.only_runs_below
    if folder is not None and not is_below(message.run_url, folder):
        raise PermissionRefusedError(
            f"this worker opens runs below {folder} only, not {message.run_url[:200]}: start "
            "the run there, or the worker with another ORCHESTRATE_ONLY_RUNS_BELOW"
        )
    try:
        run = open_run(open_store(message.run_url))
    except OrchestrateError as error:
        raise RunNotHereError(str(error)) from error
    if run.run_id != message.run_id:
        raise RunNotHereError(f"{message.run_url[:200]} holds run {run.run_id}, not this one")
    try:
        job = run.plan.parse_job(message.job)
    except (KeyError, OrchestrateError) as error:
        raise UnknownJobError(
            f"job {message.job[:80]} is not in the plan of {message.run_url[:200]}"
        ) from error
    if run.spec.model.trust_remote_code and not permissions.allow_remote_code:
        raise PermissionRefusedError(
            f"the run trusts the code of {run.spec.model.model_id}, this worker does not: "
            "start it with ORCHESTRATE_ALLOW_REMOTE_CODE=1 if you do"
        )
    _check_judge(run.of(job), job, permissions)
    return run.of(job), job


def _check_judge(run: Run, job: Job, permissions: Permissions) -> None:
    if not permissions.only_judges_at or job.stage not in ("negotiate", "judge"):
        return
    url = judge_of(run, job).url
    if url not in ("embedded", *permissions.only_judges_at):
        raise PermissionRefusedError(
            f"this worker asks judges at {', '.join(permissions.only_judges_at)} only, not {url}: "
            "start it with another ORCHESTRATE_ONLY_JUDGES_AT if its key may go there"
        )
