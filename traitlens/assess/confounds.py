"""What else a trait vector might be measuring: response length, refusal, the instruction's words.

A covariate is one number per response.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traitlens.arrays import Activations, Float32, Float64
from traitlens.errors import ShapeError
from traitlens.stats.intervals import Interval
from traitlens.stats.polarities import Polarities
from traitlens.stats.separation import Prompts, auroc_over_prompts, separation_labels


@dataclass(frozen=True, eq=False)
class Confound:
    """One covariate against one trait vector.

    `auroc`: how well the covariate alone tells the polarities apart (0.5: not at all).
    `correlation` [L+1]: of the projection with the covariate within each polarity, so that the
    trait itself does not count. `cosine` [L+1]: of the vector with the covariate's own direction. A
    high AUROC together with a correlation far from 0 means that the vector may measure the
    covariate.
    """

    auroc: Interval
    correlation: Float64
    cosine: Float64


def confound(
    vectors: Float32,
    pos: Activations,
    neg: Activations,
    *,
    covariate: tuple[Float64, Float64],
    prompts: tuple[Prompts, Prompts] | None = None,
) -> Confound:
    """Test vectors [L+1, d_model] against a covariate given as ([n_pos], [n_neg]).

    Raises ShapeError when the covariate does not match the activations [n, L+1, d_model].
    """
    both = Polarities.of(pos, neg)
    n_pos, n_neg = both.counts
    if (len(covariate[0]), len(covariate[1])) != both.counts:
        raise ShapeError(f"the covariate must have one value for each of {n_pos} + {n_neg} rows")
    within = np.concatenate([np.asarray(c, float) - np.mean(c) for c in covariate])
    correlation, cosine = np.zeros(both.n_layers), np.zeros(both.n_layers)
    for layer in range(both.n_layers):
        rows = np.concatenate([r - r.mean(axis=0) for r in both.layer(layer)])
        vector = vectors[layer].astype(np.float32)
        scores = (rows @ vector).astype(np.float64)
        correlation[layer] = _cosine(scores, within)
        # least squares, up to its length
        cosine[layer] = _cosine(within.astype(np.float32) @ rows, vector)
    values = np.concatenate(covariate).astype(np.float64)[:, None]
    is_pos = np.arange(len(values)) < n_pos
    reached = auroc_over_prompts(values, is_pos, *separation_labels(prompts, n_pos, n_neg))
    return Confound(reached, correlation, cosine)


def _cosine(a: Float64 | Float32, b: Float64 | Float32) -> float:
    size = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(a @ b) / size if size > 0 else 0.0
