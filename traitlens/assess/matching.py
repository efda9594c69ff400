"""What a vector tells apart between responses that are alike in something else, such as length.

A covariate that the sides differ in cannot be taken out by correlation: a vector that saturates
in it separates perfectly and hardly goes along with it within the sides. So the sides are compared
where they overlap: each positive with one negative whose covariate is all but the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traitlens.arrays import Activations, Float32, Float64, Ints, Labels
from traitlens.stats.intervals import Interval
from traitlens.stats.polarities import Polarities
from traitlens.stats.separation import auroc_interval

# Two rows are alike within this share of the covariate's standard deviation within the sides.
CALIPER = 0.1

# With fewer pairs nothing tells the trait from the covariate.
FEWEST_PAIRS = 10


@dataclass(frozen=True, eq=False)
class Matched:
    """The AUROC of projections among matched rows, [L+1], unknown with too few pairs; and how many
    pairs there are, which is the size of the sample that is left."""

    auroc: Interval | None
    n_pairs: int


def matched_separation(
    vectors: Float32,
    pos: Activations,
    neg: Activations,
    *,
    covariate: tuple[Float64, Float64],
    prompts: tuple[Labels, Labels],
) -> Matched:
    """Vectors [L+1, d_model] on rows of both sides that are alike in a covariate, [n_pos], [n_neg].

    Rows of one prompt count once in the intervals.
    """
    pairs = matched_pairs(*covariate)
    if len(pairs) < FEWEST_PAIRS:
        return Matched(None, len(pairs))
    chosen = pairs[:, 0], pairs[:, 1]
    both = Polarities.of(pos[chosen[0]], neg[chosen[1]])
    layers = [both.stacked_layer(layer)[0] @ vector for layer, vector in enumerate(vectors)]
    scores = np.stack(layers, axis=1).astype(np.float64)
    worth = [len({side[k] for k in of}) for side, of in zip(prompts, chosen, strict=True)]
    sizes = [np.full(scores.shape[1], float(n)) for n in worth]
    return Matched(auroc_interval(scores, len(pairs), (sizes[0], sizes[1])), len(pairs))


def matched_pairs(pos: Float64, neg: Float64) -> Ints:
    """As many pairs of a positive and a negative as are alike, each used once: [m, 2]."""
    freedom = max(len(pos) + len(neg) - 2, 1)
    within = (len(pos) * np.var(pos) + len(neg) * np.var(neg)) / freedom
    caliper = CALIPER * np.sqrt(within)
    orders = np.argsort(pos, kind="stable"), np.argsort(neg, kind="stable")
    found, i, j = [], 0, 0
    while i < len(pos) and j < len(neg):
        first, second = int(orders[0][i]), int(orders[1][j])
        gap = pos[first] - neg[second]
        if abs(gap) <= caliper:
            found.append((first, second))
        i, j = i + int(gap <= caliper), j + int(gap >= -caliper)
    return np.array(found, dtype=np.int64).reshape(-1, 2)
