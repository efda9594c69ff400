"""The converge stage: whether a trait's direction is known well enough after a wave of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from domain.plan.jobs import Job
from domain.plan.readiness import Certainty, WaveEnd, decide_wave_end, stop_mark
from domain.plan.samples import POLARITIES
from domain.plan.spec import TraitRef
from domain.scoring.thresholds import outcomes
from domain.verdict.sentences import wave_text
from storage.record.artifacts import Record, publish_artifact
from storage.record.judged_samples import judged_samples
from storage.record.responses import load_activations
from storage.record.run import Run
from traitlens.assess.angles import direction_angles
from traitlens.assess.directions import vector_separation
from traitlens.assess.kept_rows import Array, Group
from traitlens.layers import candidate_layers
from traitlens.methods.mean_diff import mean_diff
from traitlens.stats.crossed import Factor

# A direction needs some prompts on each side before its spread means anything.
FEWEST_PROMPTS = 5


def converge(run: Run, job: Job) -> Record:
    """Measure the angle on every sample so far, and leave a stop mark when it is small enough or
    nothing is left to generate. The record says what was measured and why it goes on or stops."""
    assert job.trait is not None and job.shard is not None
    trait, wave = run.spec.trait(job.trait), job.shard
    found = _certainty(run, trait, wave)
    end = decide_wave_end(found, run.spec, is_last=wave == run.plan.n_shards(trait) - 1)
    info: dict[str, Any] = {
        "wave": wave,
        "n_kept": found.n_kept,
        "layers": found.layers,
        "degrees": found.degrees,
        "end": end,
        "stops": end != WaveEnd.GOES_ON,
        "converged": end == WaveEnd.ENOUGH,
        "summary": wave_text(end, found),
    }
    if end != WaveEnd.GOES_ON:
        publish_artifact(run.store, stop_mark(trait, wave), files={}, info=info)
    return publish_artifact(run.store, job, files={}, info=info)


def _certainty(run: Run, trait: TraitRef, wave: int) -> Certainty:
    jobs = [
        job
        for job in run.plan.part_jobs(trait, "generate", *POLARITIES)
        if job.shard is not None and job.shard <= wave
    ]
    results = outcomes(judged_samples(run, jobs), run.spec.filter)
    activations = np.concatenate([load_activations(run.store, job).response_avg for job in jobs])
    rows, prompts = [], []
    for polarity in POLARITIES:
        kept = [
            (k, one.sample)
            for k, (one, outcome) in enumerate(results)
            if outcome.fall is None and one.sample.polarity == polarity
        ]
        rows.append(activations[[k for k, _ in kept]])
        prompts.append([(sample.instruction, sample.question) for _, sample in kept])
    return _certainty_of_rows((rows[0], rows[1]), prompts=(prompts[0], prompts[1]))


def _certainty_of_rows(
    sides: tuple[Array, Array], *, prompts: tuple[Sequence[Group], Sequence[Group]]
) -> Certainty:
    """From kept activations [n, L+1, d_model] of both sides and the prompt of each row.

    The layers that matter are the one with the largest Cohen's d and its neighbors.
    """
    n_kept = {"positive": len(sides[0]), "negative": len(sides[1])}
    if min(len(set(one)) for one in prompts) < FEWEST_PROMPTS:
        return Certainty(n_kept, [], [])
    vectors = mean_diff(*sides).vectors
    separated = vector_separation(vectors, *sides, prompts=prompts)
    usable = candidate_layers(vectors.shape[0])
    best = max(usable, key=lambda layer: np.nan_to_num(separated.cohens_d.value[layer], nan=-1.0))
    layers = [layer for layer in (best - 1, best, best + 1) if layer in usable]
    angles = direction_angles(sides[0][:, layers], sides[1][:, layers], prompts=prompts)
    widest = max(angles, key=lambda angle: angle.upper)
    by_instructions = widest.limited_by == Factor.INSTRUCTIONS
    return Certainty(
        n_kept,
        layers,
        [angle.upper for angle in angles],
        least_degrees=widest.least_upper if by_instructions else 0.0,
    )
