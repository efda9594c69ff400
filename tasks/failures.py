"""Notes under a job what went wrong with it, in the log, on the broker and in the record.

Knows nothing of what the job does.
"""

from __future__ import annotations

import logging
import socket

from orchestrator.errors import OrchestrateError
from orchestrator.plan import Job
from storage.broker_state import BrokerState, Failure
from storage.dead_letters import bury
from storage.run_counts import note
from storage.run_record import Run

log = logging.getLogger(__name__)


class PoisonJobError(OrchestrateError):
    """A job's workers died while they ran it, more often than chance: look into its prompts."""


def record_failure(state: BrokerState, job: str, error: Exception, *, message: str = "") -> None:
    """Note an error; one of ours would meet every other job too and is fatal.

    `message` says it in other words than its own.
    """
    message = message or str(error) or repr(error)
    fatal = isinstance(error, OrchestrateError)
    # what we did not foresee is found by where it happened
    trace = None if fatal else error
    facts = {"event": "job_failed", "job": job}
    log.error("%s failed: %s", job, message, extra=facts, exc_info=trace)
    state.fail(Failure(job, type(error).__name__, message, fatal))


def give_up(state: BrokerState, run: Run, job: Job, *, deaths: int) -> PoisonJobError:
    """Put a job on the dead-letter list; returns what is said of it."""
    error = PoisonJobError(
        f"{deaths} workers died while they ran it, the last time alone; given up on "
        f"{socket.gethostname()}. Look into its prompts and the workers' logs, then: "
        "orchestrate retry RUN --dead"
    )
    failure = Failure(job.key, type(error).__name__, str(error), fatal=False)
    log.error("Gave up %s: %s", job.key, error, extra={"event": "job_dead", "job": job.key})
    bury(run.store, failure)
    state.fail(failure)
    note(state.client, run.run_id, {f"dead.{job.stage}": 1})
    return error
