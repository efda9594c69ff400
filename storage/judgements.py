"""Judgements of a run: its own, and later ones of the same responses, all kept side by side.

A later judgement asks everything again, or only what has no score in the judgement it is based
on. Knows nothing of how a judge is asked.
"""

from __future__ import annotations

import re

from orchestrator.errors import StoreError, UsageError
from orchestrator.plan import Job
from orchestrator.run_spec import Frozen, JudgeSpec
from storage.checked_json import decode_checked, encode_checked
from storage.run_record import Run

FIRST = "first"
"""What people call the run's own judgement."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,40}")


class Judgement(Frozen):
    """A later judging: who is asked, and whether only what was unscored in `based_on`.

    `number` counts a run's judgements, its own being 1.
    """

    name: str
    number: int
    judge: JudgeSpec
    only_unscored: bool = False
    based_on: str | None = None


def add_judgement(run: Run, judgement: Judgement) -> None:
    """Record a judgement; raises UsageError for a name that is no name or means another one."""
    if not _NAME.fullmatch(judgement.name) or judgement.name == FIRST:
        raise UsageError(
            f"--name {judgement.name!r} cannot name a judgement: use lower-case letters and digits"
        )
    run.store.create(_key(judgement.name), encode_checked(judgement.model_dump(mode="json")))
    if read_judgement(run, judgement.name) != judgement:
        raise UsageError(
            f"judgement {judgement.name} of {run.store.url} was made with other settings: choose "
            "another --name"
        )


def read_judgement(run: Run, name: str) -> Judgement:
    """A recorded judgement; raises UsageError when there is none of that name."""
    try:
        return Judgement.model_validate(decode_checked(run.store.read(_key(name))))
    except KeyError as error:
        raise UsageError(f"{run.store.url} has no judgement {name!r}") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(
            f"{run.store.url}/{_key(name)} is not what was written ({error}): restore it from a "
            "copy, or judge again under another --name"
        ) from error


def names(run: Run) -> list[str]:
    """The names of a run's later judgements, the oldest first."""
    keys = run.store.list("judgements")
    found = [k.removeprefix("judgements/").removesuffix(".json") for k in keys]
    return sorted(found, key=lambda name: read_judgement(run, name).number)


def judge_of(run: Run, job: Job) -> JudgeSpec:
    """Who is asked in a job."""
    return run.spec.judge if job.judgement is None else read_judgement(run, job.judgement).judge


def base_job(job: Job, judgement: Judgement) -> Job:
    """The same shard's job in the judgement that this one is based on."""
    return Job("judge", job.trait, job.part, job.shard, judgement.based_on)


def _key(name: str) -> str:
    return f"judgements/{name}.json"
