"""Which shards a trait's vectors are made from: all of the plan's, or those up to the wave after
which the trait had enough.

Follows from the record alone: what was generated ahead and not needed does not count.
"""

from __future__ import annotations

from typing import Any

from orchestrator.plan import Job, Stage
from orchestrator.readiness import is_needed, last_wave, stop_mark
from orchestrator.run_spec import TraitRef
from storage.artifacts import done_jobs, load_record
from storage.run_record import Run


def training_jobs(run: Run, trait: TraitRef, stage: Stage) -> list[Job]:
    """The stage's jobs whose samples count; every one of the plan while that is open."""
    jobs = run.plan.shard_jobs(trait, stage)
    if run.spec.until == "all":
        return jobs
    done = done_jobs(run.store, [trait.name], judgement=run.judgement)
    return [job for job in jobs if is_needed(run.plan, job, done)]


def stopping(run: Run, trait: TraitRef) -> dict[str, Any] | None:
    """What was measured after the wave that a trait's samples ended with, and why, in words; None
    while that is open and where everything is generated anyway."""
    if run.spec.until == "all":
        return None
    wave = last_wave(run.plan, trait, done_jobs(run.store, [trait.name], judgement=run.judgement))
    if wave is None:
        return None
    info = load_record(run.store, stop_mark(trait, wave)).info
    return {**info, "n_planned": run.plan.n_samples(trait)}
