"""The converge stage: whether a trait's direction is known well enough after a wave of samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestrator.convergence import Certainty, decide
from orchestrator.plan import Job
from orchestrator.readiness import stop_mark
from orchestrator.run_spec import TraitRef
from storage.artifacts import Record, publish
from storage.responses import load_activations
from storage.run_record import Run
from storage.trait_results import SampleResult
from tasks.reduce import sample_results
from workers.convergence import certainty


def converge(run: Run, job: Job) -> Record:
    """Measure the angle on every sample so far, and leave a stop mark when it is small enough or
    nothing is left to generate. The record says what was measured and why it goes on or stops."""
    assert job.trait is not None and job.shard is not None
    trait, wave = run.spec.trait(job.trait), job.shard
    found = _certainty(run, trait, wave)
    decision = decide(found, run.spec, is_last=wave == run.plan.n_shards(trait) - 1)
    info: dict[str, Any] = {
        "wave": wave,
        "n_kept": found.n_kept,
        "layers": found.layers,
        "degrees": found.degrees,
        "stops": decision.stops,
        "converged": decision.converged,
        "summary": decision.reason,
    }
    if decision.stops:
        publish(run.store, stop_mark(trait, wave), files={}, info=info)
    return publish(run.store, job, files={}, info=info)


def _certainty(run: Run, trait: TraitRef, wave: int) -> Certainty:
    jobs = [
        job
        for job in run.plan.shard_jobs(trait, "generate")
        if job.shard is not None and job.shard <= wave
    ]
    results = sample_results(run, jobs, run.spec.filter)
    rows = np.concatenate([load_activations(run.store, job).response_avg for job in jobs])
    sides = [_kept(results, side) for side in ("positive", "negative")]
    return certainty(
        (rows[sides[0]], rows[sides[1]]),
        prompts=(_prompts(results, sides[0]), _prompts(results, sides[1])),
    )


def _kept(results: list[SampleResult], polarity: str) -> list[int]:
    return [
        k
        for k, one in enumerate(results)
        if one.outcome.status == "kept" and one.judged.sample.polarity == polarity
    ]


def _prompts(results: list[SampleResult], rows: list[int]) -> list[tuple[int, int]]:
    samples = [results[k].judged.sample for k in rows]
    return [(sample.instruction, sample.question) for sample in samples]
