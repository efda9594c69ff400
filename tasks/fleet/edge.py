"""The edge of every task: checks the message, skips what is done, records failures, hands over."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import redis
from celery import Celery
from celery.exceptions import Reject
from pydantic import ValidationError

from domain.errors import LocalError, OrchestrateError, UsageError
from domain.fleet.permissions import Permissions
from domain.plan.jobs import Job
from domain.plan.readiness import is_job_needed
from domain.plan.spec import WIRE_VERSION
from domain.redaction import Redactor
from storage.broker.connection import BROKER_AWAY, connect
from storage.broker.counts import job_counts, note_counts
from storage.broker.state import BrokerState
from storage.record.artifacts import DamagedArtifactError, Record, load_record, set_artifact_aside
from storage.record.dead_letters import Failure
from storage.record.judgements import judge_of
from storage.record.run import Run, open_run, run_name
from storage.record.store import is_below, open_store
from tasks.fleet.app import DeliverySettings
from tasks.fleet.declines import Declines
from tasks.fleet.job_logging import log_context
from tasks.fleet.message import JobMessage, WireError, message_faults
from tasks.fleet.send import hand_over, send_again
from tasks.fleet.suspects import Attempts, PoisonJobError
from tasks.fleet.work_log import JobsInHand, WorkLog, samples_in, tokens_in

log = logging.getLogger(__name__)
Stage = Callable[[Run, Job], Record]

# A job handed back because the broker was away is not taken again in the same instant; nor is one
# of a run that this worker declines, whose queue it still listens to for half a second.
BROKER_PAUSE_S = 1.0

DECLINED_PAUSE_S = 1.0

# No job's key is longer; whoever can reach the broker may have written one that is.
LONGEST_KEY = 160


@dataclass(frozen=True)
class Edge:
    """What every task of one worker process shares."""

    app: Celery
    broker_url: str
    delivery: DeliverySettings = field(default_factory=DeliverySettings)
    permissions: Permissions = field(default_factory=Permissions)
    jobs: JobsInHand = field(default_factory=JobsInHand)
    work: WorkLog = field(default_factory=WorkLog)
    attempts: Attempts = field(default_factory=Attempts)
    declines: Declines = field(default_factory=Declines)

    def carry(self, stage: Stage, fields: Mapping[str, object]) -> str:
        """Run one job's stage unless its artifact exists; returns a line for Flower.

        Raises Reject for a message that is none of ours, and to hand a job back to the queue.
        """
        is_of_our_version = fields.get("wire") == WIRE_VERSION
        try:
            message = JobMessage.model_validate(
                fields, extra="forbid" if is_of_our_version else "ignore"
            )
        except ValidationError as error:
            why = message_faults(error)
            log.error("Refused a message: %s.", why, extra={"event": "message_refused"})
            raise Reject(f"refused: {why}", requeue=False) from error
        named = message.job[:LONGEST_KEY]
        try:
            self.attempts.tell()
            state = BrokerState(self._redis, message.run_id)
            if state.is_cancelled() and _is_dropped(state, message.job):
                return f"{message.job}: the run was cancelled"
            if self.declines.holds(message.run_id):
                raise _back_to_others("this worker declines the run")
            with log_context(message.run_id, run_name(message.run), named):
                return self._carry(stage, message, state)
        except BROKER_AWAY as error:
            # nothing can be noted now; the message comes back, and what is stored stays stored
            log.warning(
                "The broker is away (%s): %s goes back.",
                error,
                named,
                extra={"event": "broker_away"},
            )
            time.sleep(BROKER_PAUSE_S)
            raise Reject(str(error), requeue=True) from error

    def _carry(self, stage: Stage, message: JobMessage, state: BrokerState) -> str:
        started = time.monotonic()
        run, job = self._open(message, state)
        if run.spec.until == "converged" and not is_job_needed(run.plan, job, state.done()):
            state.release([job.key])
            return f"{job.key}: not needed any more, the trait has enough"
        try:
            try:
                load_record(run.store, job)
                outcome = "was done already"
            except KeyError:
                record = self._run_stage(stage, run, job, state)
                outcome = str(record.info.get("summary", "done"))
        except DamagedArtifactError as error:
            log.warning("%s; its job runs again.", error, extra={"event": "damaged"})
            damaged = run.plan.parse_job(error.job)
            send_again(self.app, state, run, damaged=damaged, wanted_by=job)
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
            note_counts(state.client, run.run_id, {f"failed.{job.stage}": 1})
            raise
        # the other broad catch of the task edge: whatever went wrong is recorded under the job
        except Exception as error:
            _record_failure(state, job.key, error)
            note_counts(state.client, run.run_id, {f"failed.{job.stage}": 1})
            raise
        hand_over(self.app, state, run, done=job)
        seconds = time.monotonic() - started
        log.info(
            "Finished %s in %.1f s: %s.", job.key, seconds, outcome, extra={"event": "job_done"}
        )
        return f"{job.key}: {outcome}"

    def _open(self, message: JobMessage, state: BrokerState) -> tuple[Run, Job]:
        """See open_job; what cannot be opened is declined or recorded, and raises Reject."""
        named = message.job[:LONGEST_KEY]
        try:
            return open_job(message, self.permissions)
        except LocalError as error:
            self._decline(state, named, error)
            raise Reject(f"refused: {error}", requeue=False) from error
        # whatever it is: a job that nobody opens and reports would be waited for forever
        except Exception as error:
            _record_failure(state, named, error)
            raise Reject(f"refused: {error}", requeue=False) from error

    def _decline(self, state: BrokerState, job: str, error: LocalError) -> None:
        """Hand a job back that may only fail on this machine; returns once it failed on all."""
        failed_where = self.declines.decline(state, error)
        if not failed_where:
            raise _back_to_others(str(error)) from error
        _record_failure(state, job, error, message=failed_where)

    def _run_stage(self, stage: Stage, run: Run, job: Job, state: BrokerState) -> Record:
        begun = self.attempts.begun(state, run, job, max_deaths=self.delivery.max_deaths)
        with begun, self.jobs.doing(run.run_id, run.name, job.key):
            started = time.monotonic()
            record = stage(run, job)
        self.work.note(record.info)
        counts = job_counts(
            job.stage,
            time.monotonic() - started,
            samples=samples_in(record.info),
            tokens=tokens_in(record.info),
        )
        note_counts(state.client, run.run_id, counts)
        try:
            now = open_run(run.store).run_id
        except UsageError as error:
            raise UnknownJobError(f"the run of {job.key} went away meanwhile: {error}") from error
        if now != run.run_id:
            # another run has begun in its folder meanwhile
            set_artifact_aside(run.store, job)
            raise UnknownJobError(f"{run.store.url} has become run {now} while {job.key} was done")
        return record

    @functools.cached_property
    def _redis(self) -> redis.Redis:
        return connect(self.broker_url)


def _is_dropped(state: BrokerState, job: str) -> bool:
    """Take back a cancelled run's claim on a job, for a resumption sends only what is not out.

    False where one came in between and saw it out: the job is carried after all.
    """
    state.release([job])
    if state.is_cancelled():
        return True
    state.claim(job)
    return False


def _back_to_others(why: str) -> Reject:
    """What gives a job of a declined run back, when this worker no longer listens for it."""
    time.sleep(DECLINED_PAUSE_S)
    return Reject(why, requeue=True)


def _record_failure(state: BrokerState, job: str, error: Exception, *, message: str = "") -> None:
    """Note an error; one of ours would meet every other job too and is fatal.

    `message` says it in other words than its own.
    """
    # an error may quote what it was sent; this one is kept in the record and on the broker
    redact = Redactor.from_environment(os.environ)
    message = redact(message or str(error) or repr(error))
    fatal = isinstance(error, OrchestrateError)
    # what we did not foresee is found by where it happened
    trace = None if fatal else error
    facts = {"event": "job_failed", "job": job}
    log.error("%s failed: %s", job, message, extra=facts, exc_info=trace)
    state.fail(Failure(job, type(error).__name__, message, fatal))


class PermissionRefusedError(LocalError):
    """A run asks for what this worker was not started to do."""


class UnknownJobError(OrchestrateError):
    """A message names a run or a job that is not there: nothing was done."""


class RunNotHereError(UnknownJobError, LocalError):
    """The run cannot be opened on this machine, or another one lies in its place."""


def open_job(message: JobMessage, permissions: Permissions) -> tuple[Run, Job]:
    """The run and job that a message names.

    Raises WireError for a message of another version, RunNotHereError for a run that is not there,
    UnknownJobError for a job that it does not have, PermissionRefusedError for what may not be
    opened.
    """
    if message.wire != WIRE_VERSION:
        raise WireError(
            f"this worker speaks wire version {WIRE_VERSION}, the message has {message.wire}: "
            "use the same version of orchestrate on every machine"
        )
    folder = permissions.only_runs_below
    if folder is not None and not is_below(message.run, folder):
        raise PermissionRefusedError(
            f"this worker opens runs below {folder} only, not {message.run[:200]}: start "
            "the run there, or the worker with another ORCHESTRATE_ONLY_RUNS_BELOW"
        )
    try:
        run = open_run(open_store(message.run))
    except OrchestrateError as error:
        raise RunNotHereError(str(error)) from error
    if run.run_id != message.run_id:
        raise RunNotHereError(f"{message.run[:200]} holds run {run.run_id}, not this one")
    try:
        job = run.plan.parse_job(message.job)
    except (KeyError, OrchestrateError) as error:
        raise UnknownJobError(
            f"job {message.job[:LONGEST_KEY]} is not in the plan of {message.run[:200]}"
        ) from error
    if run.spec.model.trust_remote_code and not permissions.allow_remote_code:
        raise PermissionRefusedError(
            f"the run trusts the code of {run.spec.model.model_id}, this worker does not: "
            "start it with ORCHESTRATE_ALLOW_REMOTE_CODE=1 if you do"
        )
    run = replace(run, judgement=job.judgement)
    if job.stage in ("negotiate", "judge"):
        refusal = permissions.refusal_of_judge(judge_of(run).url)
        if refusal:
            raise PermissionRefusedError(refusal)
    return run, job
