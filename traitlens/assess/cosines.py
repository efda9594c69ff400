"""Cosines between the vectors of several traits, or of one trait in two runs, layer by layer.

Needs no torch, so a report opens quickly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from traitlens.arrays import Bools, Float32, Float64, Floats, Ints
from traitlens.assess.kept_rows import Group
from traitlens.stats.crossed import LEVEL, Crossing

Batch = tuple[Float32, Bools, Sequence[Group]]
"""Activations [n, L+1, d_model], which of them are positive, and the prompt of each."""


@dataclass(frozen=True, eq=False)
class LeftOut:
    """A mean difference of all rows and without each instruction, question and cell, in the order
    of `crossing`, whose cells are the `prompts` [C, 2]: [1 + I + Q + C, L+1, d_model]."""

    vectors: Float32
    crossing: Crossing
    prompts: Ints

    @classmethod
    def of(cls, batches: Iterable[Batch]) -> Self:
        """From rows that come in batches; raises ValueError without any."""
        sums: dict[Group, Float64] = {}
        counts: dict[Group, Float64] = {}
        for rows, is_pos, prompts in batches:
            for row, side, prompt in zip(rows, (~is_pos).astype(int), prompts, strict=True):
                if prompt not in sums:
                    sums[prompt], counts[prompt] = np.zeros((2, *row.shape)), np.zeros(2)
                sums[prompt][side] += row
                counts[prompt][side] += 1
        cells = sorted(sums)
        crossing = Crossing.of([i for i, _ in cells], [q for _, q in cells])
        of_side = np.stack([sums[cell] for cell in cells], axis=1)
        n = np.stack([counts[cell] for cell in cells], axis=1)

        def difference(weights: Float64) -> Float64:
            with np.errstate(invalid="ignore", divide="ignore"):
                positive, negative = (
                    np.tensordot(weights, total, 1) / (weights @ count)[:, None, None]
                    for total, count in zip(of_side, n, strict=True)
                )
            return np.asarray(positive - negative)

        vectors = crossing.values(difference)
        return cls(vectors.astype(np.float32), crossing, np.array(cells, dtype=np.int64))

    def beside(self, others: Sequence[Floats]) -> Moved:
        """What its cosines with other vectors do: [L+1, d_model] each, or as many as there are of
        its own, which leave out the same."""
        return Moved(
            np.stack([_cosines(self.vectors, other) for other in others], axis=-1),
            self._reliability(),
            self.crossing,
        )

    def is_of_same_prompts(self, other: LeftOut) -> bool:
        """Whether leaving out the nth of one leaves out the nth of the other."""
        return np.array_equal(self.prompts, other.prompts)

    def shared_error(self, other: LeftOut) -> Float64:
        """The inner product of the errors of two, of the same prompts, as a share of their lengths'
        product: [L+1]. Of one with itself it is the share of its squared length that is error."""
        both = [self.vectors.astype(np.float64), other.vectors.astype(np.float64)]
        parts = [
            (a * b).sum(axis=(0, 2))
            for a, b in zip(*(self.crossing.shifts(one) for one in both), strict=True)
        ]
        known = [part if np.isfinite(part).all() else np.zeros_like(part) for part in parts]
        error = known[0] + known[1] - self.crossing.of_cells_alone(*known)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(
                error / np.prod([np.linalg.norm(one[0], axis=1) for one in both], axis=0)
            )

    def _reliability(self) -> Float64:
        return np.asarray(np.sqrt(np.clip(1 - self.shared_error(self), 0.0, 1.0)))


@dataclass(frozen=True, eq=False)
class Moved:
    """Cosines [1 + I + Q + C, L+1, k] of a mean difference with k others, in the order of
    `crossing`; `reliability` [L+1] is the cosine of its angle to the direction of other
    instructions and questions."""

    cosines: Float64
    reliability: Float64
    crossing: Crossing

    def variance(self, k: int) -> tuple[Float64, Float64]:
        """Of the cosine with the kth, and its degrees of freedom, [L+1] each."""
        return self.crossing.variance(self.cosines[..., k])


def interval_of_two_traits(moved: Sequence[Moved], first: int, second: int) -> Float64:
    """[low, high] of the cosine of two among traits that were each put beside all of them, of which
    each has instructions and questions of its own: see `_interval`."""
    (a, of_a), (b, of_b) = moved[first].variance(second), moved[second].variance(first)
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = (a + b) ** 2 / (a**2 / of_a + b**2 / of_b)
    reliable = moved[first].reliability * moved[second].reliability
    return _interval(moved[first].cosines[0, :, second], (a + b, freedom), reliable)


def interval_of_two_runs(first: LeftOut, second: LeftOut) -> Float64:
    """[low, high] of the cosine of one trait's mean differences in two runs, of the same prompts
    or not: see `_interval`."""
    if not first.is_of_same_prompts(second):
        both = [first.vectors[0], second.vectors[0]]
        return interval_of_two_traits([first.beside(both), second.beside(both)], 0, 1)
    one, other = first.beside([second.vectors]), second.beside([first.vectors])
    return _interval(
        one.cosines[0, :, 0],
        one.variance(0),
        one.reliability * other.reliability,
        shared=first.shared_error(second),
    )


def _interval(
    value: Float64,
    spread: tuple[Float64, Float64],
    reliable: Float64,
    *,
    shared: Float64 | float = 0.0,
) -> Float64:
    """Of the cosine between the directions of other instructions and questions: [L+1, 2]; NaN where
    nothing tells.

    Errors of two directions are across one another but for what they share, so that the measured
    cosine is nearer to 0 by the reliabilities of both (Spearman 1904, American Journal of
    Psychology 15, 72) and farther by `shared`; the interval is of the cosine without that, and
    holds the measured one too.
    """
    from scipy.special import stdtrit

    variance, freedom = spread
    with np.errstate(invalid="ignore", divide="ignore"):
        half = stdtrit(freedom, 0.5 + LEVEL / 2) * np.sqrt(variance) / reliable
        half = np.where(variance == 0, 0.0, half)
        true = np.clip((value - shared) / reliable, -1, 1)
    ends = np.minimum(true - half, value), np.maximum(true + half, value)
    return np.asarray(np.clip(np.stack(ends, axis=-1), -1, 1))


def cosine_matrices(vectors: Mapping[str, Floats]) -> Float64:
    """Cosines between vectors [L+1, d_model] in the mapping's order: [L+1, k, k]; 0 with zero."""
    stack = np.stack(list(vectors.values()), axis=1).astype(np.float64)
    norms = np.linalg.norm(stack, axis=2, keepdims=True)
    units = stack / np.where(norms > 0, norms, 1)
    return np.asarray(units @ units.transpose(0, 2, 1))


def _cosines(first: Floats, second: Floats) -> Float64:
    """Of vectors [..., d_model], one by one; NaN with zero."""
    products = np.einsum("...d,...d->...", first, second, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(
            products / (np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1))
        )
