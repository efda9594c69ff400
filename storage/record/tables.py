"""What reduce and a report read of a run: which shards its vectors are made from, their judged
samples, and what its stages say they took.

All follows from the record alone: what was generated ahead and not needed does not count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from domain.plan.jobs import Job, Stage
from domain.plan.readiness import is_job_needed, last_wave, stop_mark
from domain.plan.samples import POLARITIES
from domain.plan.spec import TraitRef
from domain.scoring.scores import METRICS, Unscored
from domain.verdict.record import Stopping
from storage.record.artifacts import Record, load_record
from storage.record.judgements import effective_scorings
from storage.record.responses import load_responses
from storage.record.results import SampleResult
from storage.record.run import Run, load_definition

NOT_JUDGED = Unscored(reason="no_judge")
REPORT = "report.html"
RUN_METRICS = "metrics.json"


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
                    question=definition.questions_of(sample.part)[sample.question],
                )
            )
    return found


def work_totals(run: Run) -> dict[str, Any]:
    """What the run's generate and judge records say they took; jobs not done count nothing."""
    generate = [r.info for r in _records(run, "generate")]
    judge = [r.info for r in _records(run, "judge")]
    return {
        "responses": sum(int(str(i.get("n_samples", 0))) for i in generate),
        "generated_tokens": sum(int(str(i.get("n_tokens", 0))) for i in generate),
        "devices": sorted({str(i.get("device")) for i in generate}),
        "verdicts": sum(int(str(i.get("n_verdicts", 0))) for i in judge),
        "judge_prompt_tokens": sum(int(str(i.get("prompt_tokens", 0))) for i in judge),
        "judge_completion_tokens": sum(int(str(i.get("completion_tokens", 0))) for i in judge),
    }


def read_recorded(run: Run) -> Mapping[str, Any]:
    """run.json as it was written, with the versions the run was planned with."""
    body: dict[str, Any] = json.loads(run.store.read("run.json"))
    return body


def _records(run: Run, stage: Stage) -> list[Record]:
    found = []
    for trait in run.spec.traits:
        for job in run.plan.part_jobs(trait, stage):
            try:
                found.append(load_record(run.store, job))
            except KeyError:
                continue
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
