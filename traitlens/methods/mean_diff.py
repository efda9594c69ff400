"""Mean difference: the mean of the positives minus the mean of the negatives.

Formula: v_l = mean_i pos[i, l] - mean_j neg[j, l], unpaired, so the sides may differ in size.
Sources: Turner et al. 2023 (arXiv 2308.10248) and Panickssery et al. 2023 (2312.06681) for the
idea; Chen et al. 2025 (persona vectors, 2507.21509) for the unpaired means over responses.

What an extraction method gives back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from traitlens.stats.sides import Activations, FloatArray, Labels, Sides, as_float32, make_sides

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
    Raises ShapeError, and NonFiniteError naming side, row and layer.
    """
    sides = make_sides(pos, neg)
    pos_mean, neg_mean = mean64(sides.pos), mean64(sides.neg)
    difference = pos_mean - neg_mean
    _refuse_non_finite(sides, difference)
    return MethodResult(
        difference.astype(np.float32),
        {"pos_mean": pos_mean.astype(np.float32), "neg_mean": neg_mean.astype(np.float32)},
    )


def mean64(rows: Activations) -> npt.NDArray[np.float64]:
    """Mean over the first axis, float64."""
    total = np.zeros(tuple(rows.shape[1:]), dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, rows.shape[0], ROWS_AT_ONCE):
            total += as_float32(rows[start : start + ROWS_AT_ONCE]).sum(axis=0)
        if not np.isfinite(total).all():  # eight finite numbers may exceed float32's largest
            total = np.zeros_like(total)
            for row in rows:
                total += as_float32(row)
    return total / int(rows.shape[0])


def _refuse_non_finite(sides: Sides, difference: npt.NDArray[np.float64]) -> None:
    # A finite float32 cannot overflow a float64 sum, so the means alone show whether to search.
    for layer in np.flatnonzero(~np.isfinite(difference).all(axis=1)):
        sides.layer(int(layer))


@dataclass(frozen=True, eq=False)
class MethodResult:
    """`vectors` float32 [L+1, d_model], raw; `details` name -> one number or an array per layer."""

    vectors: FloatArray
    details: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


class Method(Protocol):
    """A method takes the activations of both polarities and returns directions."""

    def __call__(
        self,
        pos: Activations,
        neg: Activations,
        *,
        groups: tuple[Labels, Labels] | None = None,
        seed: int = 0,
    ) -> MethodResult:
        """Activations [n, L+1, d_model] (or [n, d_model], then one row comes back).

        `groups` labels the rows of each side by the prompt they came from, for methods that hold
        rows out; `seed` feeds methods that draw numbers.
        """
        ...
