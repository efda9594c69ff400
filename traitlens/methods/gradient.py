"""Gradient: the direction with the widest soft margin between the polarities, by gradient descent.

Objective, per layer, with m the midpoint of the two means, x_i = (h_i - m) / ||h_i - m|| and D
the distance between the two means of x:

    J(w, b) = 1/2 mean_pos max(0, 1 - (w.x + b))^2 + 1/2 mean_neg max(0, 1 + (w.x + b))^2
              + decay/2 (D/2)^2 ||w||^2

the squared hinge of a linear support vector machine (Cortes & Vapnik 1995; squared: Chang, Hsieh
& Lin 2008) on L2-normalized features. Each polarity weighs one half however many rows it has, and
the weight decay is in units of the gap, so that it means the same in any width. Unlike the
objective of the seed documents, -(mean pos.v - mean neg.v)/||v||, the optimum is not the mean
difference: rows beyond the margin have no say. J is strictly convex in w, so once converged the
random start does not show.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from traitlens.arrays import Activations, Float32, Float64, Labels
from traitlens.methods.fitting import (
    Extracted,
    MethodResult,
    Minimum,
    extract_with,
    gap_scaled,
    minimize,
    working_copy,
)
from traitlens.stats.polarities import Polarities

NUM_STEPS = 100
LEARNING_RATE = 0.01

# At 1 the optimum is nearer a planted direction than mean_diff in correlated noise, and as near in
# white noise; at 0.1 it overfits when d_model approaches n.
DECAY = 1.0

# On the largest component of the slope, which at w = 0 is about D.
TOLERANCE = 1e-6
MAX_ROUNDS = 50


def gradient(
    pos: Activations,
    neg: Activations,
    *,
    groups: tuple[Labels, Labels] | None = None,
    seed: int = 0,
    num_steps: int = NUM_STEPS,
    lr: float = LEARNING_RATE,
) -> MethodResult:
    """The maximum-margin direction at every layer, with the length of the gap along it.

    From a start drawn with `seed` the first step goes down the slope at rate `lr`; L-BFGS sets the
    rates of all later ones. Rounds of `num_steps` follow one another until converged, at most
    MAX_ROUNDS. Details per layer: `loss`, `steps`, `converged`, `final_separation` (difference of
    the polarities' mean projections on the unit direction). `groups` changes nothing. Raises
    ValueError for settings that are not positive, ShapeError and NonFiniteError.
    """
    if num_steps < 1 or lr <= 0:
        raise ValueError(f"num_steps {num_steps} and lr {lr} must be positive")
    both = Polarities.of(pos, neg)
    start = np.random.default_rng(seed).standard_normal(both.d_model + 1) / both.d_model**0.5
    vectors = np.zeros((both.n_layers, both.d_model), dtype=np.float32)
    fits = []
    for layer in range(both.n_layers):
        rows = both.layer(layer)
        fit = _widest_margin(*rows, start, lr=lr, max_steps=MAX_ROUNDS * num_steps)
        vectors[layer] = gap_scaled(fit.at[:-1], *rows)
        fits.append(fit)
    return MethodResult(
        vectors,
        {
            "loss": np.array([fit.loss for fit in fits]),
            "steps": np.array([fit.steps for fit in fits]),
            "converged": np.array([fit.converged for fit in fits]),
            "final_separation": np.linalg.norm(vectors.astype(np.float64), axis=1),
        },
    )


@dataclass(frozen=True)
class GradientMethod:
    """Margin loss by gradient descent; see `gradient`."""

    num_steps: int = NUM_STEPS
    lr: float = LEARNING_RATE
    seed: int = 0

    def extract(self, pos_acts: Activations, neg_acts: Activations) -> Extracted:
        """`vector`, `loss`, `steps`, `converged`, `final_separation`."""
        method = partial(gradient, num_steps=self.num_steps, lr=self.lr)
        return extract_with(method, pos_acts, neg_acts, seed=self.seed)


def _widest_margin(
    pos: Float32, neg: Float32, start: Float64, *, lr: float, max_steps: int
) -> Minimum:
    """Minimize J; the result holds w and then b."""
    midpoint = 0.5 * (pos.mean(axis=0, dtype=np.float64) + neg.mean(axis=0, dtype=np.float64))
    unit = np.concatenate([pos, neg])
    unit -= midpoint.astype(np.float32)
    norms = np.linalg.norm(unit, axis=1, keepdims=True)
    unit /= np.where(norms > 0, norms, 1)
    rows = working_copy(unit)
    is_pos = np.arange(len(rows)) < len(pos)
    labels = np.where(is_pos, 1.0, -1.0)
    share = np.where(is_pos, 0.5 / len(pos), 0.5 / len(neg))
    gap = (2 * share * labels).astype(rows.dtype) @ rows
    penalty = DECAY * float(gap @ gap) / 4
    if penalty == 0:
        return Minimum(np.zeros_like(start), 1.0, 0, converged=True)

    def loss_and_slope(packed: Float64) -> tuple[float, Float64]:
        w, b = packed[:-1], packed[-1]
        scores = (rows @ w.astype(rows.dtype)).astype(np.float64) + b
        slack = np.maximum(0, 1 - labels * scores)
        pull = -2 * share * labels * slack
        slope = np.append(pull.astype(rows.dtype) @ rows + penalty * w, pull.sum())
        return float(share @ slack**2 + 0.5 * penalty * (w @ w)), slope

    first = start - lr * loss_and_slope(start)[1]
    return minimize(
        loss_and_slope, first, penalty=penalty, tolerance=TOLERANCE, max_steps=max_steps
    )
