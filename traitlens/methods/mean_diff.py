"""Mean difference: the mean of the positives minus the mean of the negatives.

Formula: v_l = mean_i pos[i, l] - mean_j neg[j, l], unpaired, so the polarities may differ in size.
Sources: Turner et al. 2023 (arXiv 2308.10248) and Panickssery et al. 2023 (2312.06681) for the
idea; Chen et al. 2025 (persona vectors, 2507.21509) for the unpaired means over responses.
"""

from __future__ import annotations

import numpy as np

from traitlens.arrays import Activations, Float64, Labels, as_float32
from traitlens.methods.fitting import Extracted, MethodResult, extract_with
from traitlens.stats.polarities import Polarities

# Summed in the input's float32 before float64 takes over: at the speed of reading the memory, with
# an error under the rounding of the float32 result. Half precision is converted in such pieces too.
ROWS_AT_ONCE = 8


def mean_diff(
    pos: Activations,
    neg: Activations,
    *,
    groups: tuple[Labels, Labels] | None = None,
    seed: int = 0,
) -> MethodResult:
    """Mean difference at every layer; long sums in float64, result raw in float32.

    Details: `pos_mean` and `neg_mean` [L+1, d_model] float32. `groups` and `seed` change nothing.
    Raises ShapeError, and NonFiniteError naming polarity, row and layer.
    """
    both = Polarities.of(pos, neg)
    pos_mean, neg_mean = _mean(both.pos), _mean(both.neg)
    difference = pos_mean - neg_mean
    # A finite float32 cannot overflow a float64 sum, so the means alone show whether to search.
    for layer in np.flatnonzero(~np.isfinite(difference).all(axis=1)):
        both.layer(int(layer))
    return MethodResult(
        difference.astype(np.float32),
        {"pos_mean": pos_mean.astype(np.float32), "neg_mean": neg_mean.astype(np.float32)},
    )


class MeanDifferenceMethod:
    """`vector = mean(pos) - mean(neg)`; see `mean_diff`."""

    def extract(self, pos_acts: Activations, neg_acts: Activations) -> Extracted:
        """`vector`, `pos_mean`, `neg_mean`, each [d_model] or [L+1, d_model] as the input was."""
        return extract_with(mean_diff, pos_acts, neg_acts)


def _mean(rows: Activations) -> Float64:
    total = np.zeros(tuple(rows.shape[1:]), dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, rows.shape[0], ROWS_AT_ONCE):
            total += as_float32(rows[start : start + ROWS_AT_ONCE]).sum(axis=0)
        if not np.isfinite(total).all():  # eight finite numbers may exceed float32's largest
            total = np.zeros_like(total)
            for row in rows:
                total += as_float32(row)
    return total / int(rows.shape[0])
