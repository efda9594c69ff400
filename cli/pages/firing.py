"""Which vector fires on which trait's answers: what a monitor of all traits would say of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from domain.plan.samples import EVALUATION
from domain.plan.spec import TraitRef
from domain.scoring.thresholds import outcomes
from domain.verdict.record import TraitMetrics
from domain.verdict.uses import use_layers
from storage.record.judged_samples import judged_samples
from storage.record.judgements import on_judgement_of
from storage.record.responses import load_activations
from storage.record.results import read_response_vectors
from storage.record.run import Run
from traitlens.arrays import Float32, Float64
from traitlens.dynamics.baseline import Baseline

NOMINAL = 0.05


def fired(run: Run, metrics: Sequence[TraitMetrics]) -> dict[str, Any] | None:
    """The share of each trait's kept positive answers to evaluation questions that is over each
    vector's threshold, at the vector's reading layer; None without such answers of two traits.

    The threshold is what 5 % of the answers without an instruction exceed, of all traits and one a
    question. `share` is [answers of trait, vector of trait and any of them]; `neutral` what of the
    answers without an instruction exceeds thresholds made of other questions.
    """
    made = {m.trait: m.quality for m in metrics if m.quality and m.quality.evaluation}
    units = _Units(
        [use_layers(q, q.best.method)[0] for q in made.values()],
        [read_response_vectors(run.store, t, q.best.method) for t, q in made.items()],
    )
    answers = {
        one.trait: _answers(on_judgement_of(run, one), run.spec.trait(one.trait), units)
        for one in metrics
        if one.trait in made
    }
    plain = [(row, question) for one in answers.values() for row, question in one[1]]
    if len(made) < 2 or not plain:
        return None
    # a whole answer's mean stands for one token: there is one length
    baseline = Baseline.of([row[None] for row, _ in plain], [question for _, question in plain])
    limits = baseline.threshold(NOMINAL, 1)
    if not np.isfinite(limits).all():
        return None
    neutral = baseline.held_out_rate(NOMINAL, 1)
    return {
        "traits": list(made),
        "layers": units.layers,
        "n": [len(kept) for kept, _ in answers.values()],
        "share": [_shares(baseline, kept, limits) for kept, _ in answers.values()],
        "n_neutral": neutral.n,
        "neutral": [round(float(share), 4) for share in neutral.share.value],
    }


class _Units:
    """Directions of length 1, each at a layer of its own; zero, which never fires, stays zero."""

    def __init__(self, layers: list[int], vectors: Sequence[Float32]) -> None:
        self.layers = layers
        rows = [v[layer].astype(np.float64) for layer, v in zip(layers, vectors, strict=True)]
        self._units = [row / (np.linalg.norm(row) or 1.0) for row in rows]

    def project(self, activations: Float32) -> Float32:
        """Projections [n, k] of activations [n, L+1, d_model]."""
        pairs = zip(self.layers, self._units, strict=True)
        return np.stack([activations[:, layer] @ u for layer, u in pairs], 1).astype(np.float32)


def _answers(
    run: Run, trait: TraitRef, units: _Units
) -> tuple[list[Float32], list[tuple[Float32, str]]]:
    """Projections [k] of the kept positive answers to the evaluation questions, and of those
    without an instruction, each with its question."""
    jobs = run.plan.part_jobs(trait, "generate", EVALUATION)
    if not jobs:
        return [], []
    results = outcomes(judged_samples(run, jobs), run.spec.filter)
    stored = [load_activations(run.store, job).response_avg for job in jobs]
    rows = units.project(np.concatenate(stored))
    kept, plain = [], []
    for row, (one, outcome) in zip(rows, results, strict=True):
        if one.sample.polarity == "positive" and outcome.fall is None:
            kept.append(row)
        if one.sample.polarity == "plain" and one.n_tokens:
            plain.append((row, one.question))
    return kept, plain


def _shares(baseline: Baseline, kept: list[Float32], limits: Float64) -> list[float | None]:
    """The share [k + 1] of projections over the thresholds; None without answers."""
    if not kept:
        return [None] * len(limits)
    z = baseline.response_z(np.stack(kept), 1)
    over = np.concatenate([z, z.max(axis=1, keepdims=True)], axis=1) > limits
    return [round(float(share), 4) for share in over.mean(axis=0)]
