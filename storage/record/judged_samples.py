"""Which shards a run's vectors are made from, and their samples with what the judge said.

All follows from the record alone: what was generated ahead and not needed does not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from domain.plan.jobs import Job, Stage
from domain.plan.readiness import is_job_needed, last_wave, stop_mark
from domain.plan.samples import POLARITIES, Sample
from domain.plan.spec import TraitRef
from domain.scoring.scores import METRICS, Unscored
from domain.verdict.record import Stopping
from storage.record.artifacts import load_record
from storage.record.judgements import effective_scorings
from storage.record.responses import load_activations, load_responses
from storage.record.results import SampleResult
from storage.record.run import Run, load_definition

NOT_JUDGED = Unscored(reason="no_judge")


def judged_samples(run: Run, jobs: Sequence[Job]) -> list[SampleResult]:
    """Every sample of a trait's generate jobs with its response and its scorings."""
    if not jobs:
        return []
    definition = load_definition(run, str(jobs[0].trait))
    found: list[SampleResult] = []
    for job in jobs:
        is_judged = run.plan.is_judged
        scorings = effective_scorings(run, run.plan.judge_job(job)) if is_judged else {}
        samples = {sample.key: sample for sample in run.plan.samples(job)}
        for response in load_responses(run.store, job):
            sample = samples[response.key]
            trait, coherence = (
                scorings[sample.key, metric] if is_judged else NOT_JUDGED for metric in METRICS
            )
            is_open = response.finish == "thought"
            found.append(
                SampleResult(
                    sample=sample,
                    n_tokens=len(response.measured(run.spec.measure)[1]),
                    thought_limit=run.spec.sampling.max_thought_tokens if is_open else None,
                    trait=trait,
                    coherence=coherence,
                    response=response,
                    instruction=definition.instruction_text(sample.instruction, sample.polarity),
                    question=definition.asked(sample.part, sample.question, sample.polarity),
                )
            )
    return found


def training_jobs(run: Run, trait: TraitRef, stage: Stage) -> list[Job]:
    """The stage's jobs whose samples count; every one of the plan while that is open."""
    jobs = run.plan.part_jobs(trait, stage, *POLARITIES)
    if run.spec.until == "all":
        return jobs
    done = run.done(trait.name)
    return [job for job in jobs if is_job_needed(run.plan, job, done)]


def stopping(run: Run, trait: TraitRef) -> Stopping | None:
    """What was measured after the wave that a trait's samples ended with, and why; None
    while that is open and where everything is generated anyway."""
    if run.spec.until == "all":
        return None
    wave = last_wave(run.plan, trait, run.done(trait.name))
    if wave is None:
        return None
    info = load_record(run.store, stop_mark(trait, wave)).info
    return Stopping.model_validate({**info, "n_planned": run.plan.n_samples(trait)})


def kept_training(
    run: Run, trait: TraitRef, kept: frozenset[str], position: str
) -> Iterator[tuple[list[Sample], NDArray[np.float32]]]:
    """The kept samples that vectors are made of and their activations [n, L+1, d_model] at a
    position, shard by shard."""
    for job in training_jobs(run, trait, "generate"):
        samples = [(k, s) for k, s in enumerate(run.plan.samples(job)) if s.key in kept]
        if samples:
            rows = load_activations(run.store, job).at(position)[[k for k, _ in samples]]
            yield [sample for _, sample in samples], rows
