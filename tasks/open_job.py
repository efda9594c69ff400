"""Finds the run and job that a message names, as far as this worker may open them.

Knows nothing of what the job does.
"""

from __future__ import annotations

from orchestrator.errors import LocalError, OrchestrateError
from orchestrator.plan import Job
from storage.judgements import judge_of
from storage.run_record import Run, open_run
from storage.store import is_below, open_store
from tasks.message import JobMessage
from tasks.settings import Permissions


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
    if not permissions.only_judges_at or job.stage not in ("probe", "judge"):
        return
    url = judge_of(run, job).url
    if url not in ("embedded", *permissions.only_judges_at):
        raise PermissionRefusedError(
            f"this worker asks judges at {', '.join(permissions.only_judges_at)} only, not {url}: "
            "start it with another ORCHESTRATE_ONLY_JUDGES_AT if its key may go there"
        )
