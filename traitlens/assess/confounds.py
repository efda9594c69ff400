"""What else a trait vector might be measuring: response length, refusal, the instruction's words.

A covariate is one number per response.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from traitlens.errors import ShapeError
from traitlens.stats.cells import Float64, make_cells
from traitlens.stats.intervals import Interval
from traitlens.stats.separation import auroc_interval
from traitlens.stats.sides import Activations, FloatArray, Labels, make_sides


@dataclass(frozen=True, eq=False)
class Confound:
    """One covariate against one trait vector.

    `auroc`: how well the covariate alone tells the sides apart (0.5: not at all). `correlation`
    [L+1]: of the projection with the covariate within the sides, so that the trait itself does not
    count. `cosine` [L+1]: of the vector with the covariate's own direction. A high AUROC together
    with a correlation far from 0 means that the vector may measure the covariate.
    """

    auroc: Interval
    correlation: Float64
    cosine: Float64


def confound(
    vectors: FloatArray,
    pos: Activations,
    neg: Activations,
    *,
    covariate: tuple[Float64, Float64],
    groups: tuple[Labels, Labels] | None = None,
) -> Confound:
    """Test vectors [L+1, d_model] against a covariate given as ([n_pos], [n_neg])."""
    sides = make_sides(pos, neg)
    n_pos, n_neg = int(pos.shape[0]), int(neg.shape[0])
    if (len(covariate[0]), len(covariate[1])) != (n_pos, n_neg):
        raise ShapeError(f"the covariate must have one value for each of {n_pos} + {n_neg} rows")
    values = np.concatenate(covariate).astype(np.float64)
    within = np.concatenate([np.asarray(c, float) - np.mean(c) for c in covariate])
    correlation, cosine = np.zeros(sides.n_layers), np.zeros(sides.n_layers)
    for layer in range(sides.n_layers):
        rows = np.concatenate([r - r.mean(axis=0) for r in sides.layer(layer)])
        vector = vectors[layer].astype(np.float32)
        scores = (rows @ vector).astype(np.float64)
        correlation[layer] = _share(scores @ within, scores, within)
        direction = within.astype(np.float32) @ rows  # least squares, up to its length
        cosine[layer] = _share(float(direction @ vector), direction, vector)
    layer_auroc = auroc_interval(values[:, None], make_cells(groups, n_pos, n_neg))
    return Confound(layer_auroc, correlation, cosine)


def cosine_matrices(vectors: Mapping[str, FloatArray]) -> Float64:
    """Cosines between vectors [L+1, d_model] in the mapping's order: [L+1, k, k]."""
    stack = np.stack(list(vectors.values()), axis=1).astype(np.float64)
    norms = np.linalg.norm(stack, axis=2, keepdims=True)
    units = stack / np.where(norms > 0, norms, 1)
    return np.asarray(units @ units.transpose(0, 2, 1))


def _share(product: float, a: Float64 | FloatArray, b: Float64 | FloatArray) -> float:
    size = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(product) / size if size > 0 else 0.0
