"""How far a mean difference may be from the true direction, were other instructions and questions
asked.

A mean difference D = T + e of any subset of cells is a combination of the cells' sums, so its
errors follow from K [C, C], the inner products of the sums, without a pass over the activations.
With e' the part of e across T the angle is asin(|e'| / |D|). The variance V of e' is that of
`stats.crossed`, a sum over the directions that it is spread over; |e'|^2 / V then follows an F
distribution whose degrees of freedom count those directions: for the error as many as it is spread
over, for V times the levels left out less one (Box 1954, Annals of Mathematical Statistics 25,
290). How many those are is estimated from the same few instructions; taking fewer than found keeps
the bound on the safe side of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from traitlens.arrays import Activations, Float32, Float64
from traitlens.stats.cells import Cells, prompt_cells
from traitlens.stats.crossed import LEVEL, Crossing, Factor
from traitlens.stats.polarities import Polarities
from traitlens.stats.separation import Prompts, separation_labels

# Of the directions that the error is found to be spread over, and of the degrees of freedom of its
# variance that follow from them: few instructions often show half as many again, and the bound is
# then too narrow where they truly differ in two or three.
SPREAD_COUNTED, FREEDOM_COUNTED = 2 / 3, 1 / 2

# More than any model's width tells apart, so that a division stays finite.
MOST_DIRECTIONS = 1e4

# One-sided, of what instructions and questions alone do: below it rollouts might be to blame.
SURELY = 1.645

UNKNOWN = 90.0


@dataclass(frozen=True)
class Angle:
    """Degrees between the estimated direction and the true one: the likely angle; the one that it
    stays under in 95 % of cases (90 when the difference is no longer than its noise); and what
    that bound surely stays over however many rollouts there are, with what is too few for less."""

    degrees: float
    upper: float
    least_upper: float
    limited_by: Factor


def direction_angles(
    pos: Activations, neg: Activations, *, prompts: tuple[Prompts, Prompts] | None = None
) -> list[Angle]:
    """The angle of mean(pos) - mean(neg) at every layer of activations [n, L+1, d_model].

    `prompts` gives of each row its instruction pair and its question; without them every row is a
    question of its own. Raises ShapeError and NonFiniteError.
    """
    both = Polarities.of(pos, neg)
    instruction, question = separation_labels(prompts, *both.counts)
    cells = prompt_cells(instruction, question, both.counts[0])
    of_cell = np.zeros((2, len(cells.counts)), dtype=np.int64)
    of_cell[:, cells.of_row] = instruction, question
    crossing = Crossing.of(*of_cell)
    contrasts = crossing.values(cells.contrast)
    return [
        _angle((sums @ sums.T).astype(np.float64), contrasts, crossing)
        for sums in _every_sum(both, cells)
    ]


def _every_sum(both: Polarities, cells: Cells) -> Iterator[Float32]:
    """The sums of the rows by cell, from the mean of all rows, layer by layer: [C, d_model]."""
    for layer in range(both.n_layers):
        yield cells.sums(both.centered_layer(layer))


@dataclass(frozen=True)
class _Scatter:
    """What leaving out the levels of a factor does across the direction: `variance`, the trace of
    its covariance; `square`, the trace of the covariance's square; `freedom`, its levels less one.
    All 0 of a factor that cannot be left out."""

    variance: float
    square: float
    freedom: int

    @classmethod
    def of(cls, gram: Float64) -> _Scatter:
        """From inner products [F, F] of shifts; the square is freed of what few levels add."""
        n, variance = len(gram) - 1, float(np.trace(gram))
        if n < 1 or not np.isfinite(variance):
            return cls(0.0, 0.0, 0)
        square = float((gram**2).sum())
        if n > 1:
            square = n * n / ((n - 1) * (n + 2)) * (square - variance**2 / n)
        return cls(variance, max(square, variance**2 / MOST_DIRECTIONS), n)

    @property
    def error(self) -> float:
        """The variance of `variance`."""
        return 2 * self.square / self.freedom if self.freedom else 0.0


def _angle(products: Float64, contrasts: Float64, crossing: Crossing) -> Angle:
    """From K [C, C] and the contrast of each weighting [1 + I + Q + C, C] as coefficients."""
    from scipy.special import fdtri

    along = products @ contrasts[0]
    length2 = float(contrasts[0] @ along)
    if length2 <= 0:
        return _UNKNOWN
    shifts = crossing.shifts(contrasts)

    def gram(a: Float64, b: Float64) -> Float64:
        return np.asarray(a @ products @ b.T - np.outer(a @ along, b @ along) / length2)

    by_instruction, by_question, by_cell = (_Scatter.of(gram(one, one)) for one in shifts)
    both = by_instruction.variance + by_question.variance
    if not both > 0:
        return _UNKNOWN
    shared, cells = 0.0, min(both, by_cell.variance)
    if by_instruction.freedom and by_question.freedom:
        shared = float((gram(shifts[0], shifts[1]) ** 2).sum())
        parts = [np.array(one.variance) for one in (by_instruction, by_question, by_cell)]
        cells = float(crossing.of_cells_alone(*parts))
    one_factor = not (by_instruction.freedom and by_question.freedom)
    variance = both if one_factor else both - cells
    spread = both**2 / (by_instruction.square + by_question.square + 2 * shared)
    freedom = 2 * variance**2 / (by_instruction.error + by_question.error)
    # the quantile of an F distribution, above which a share of it lies
    numerator = max(SPREAD_COUNTED * spread, 1.0)
    quantiles = fdtri(numerator, max(FREEDOM_COUNTED * freedom, 1.0), [0.5, LEVEL])
    likely, upper = (_degrees(q * variance, length2) for q in quantiles)
    surely = [
        max(one.variance - cells - SURELY * float(np.sqrt(one.error + by_cell.error)), 0.0)
        for one in (by_instruction, by_question)
    ]
    # without rollouts' noise the difference is shorter too
    without = length2 - variance + sum(surely)
    least = _degrees(quantiles[1] * sum(surely), without) if without > 0 else 0.0
    more = Factor.INSTRUCTIONS if surely[0] >= surely[1] else Factor.QUESTIONS
    return Angle(likely, upper, least, more)


_UNKNOWN = Angle(UNKNOWN, UNKNOWN, 0.0, Factor.INSTRUCTIONS)


def _degrees(error2: float, length2: float) -> float:
    """The angle at which an error of that square stands across a difference of that square."""
    return float(np.degrees(np.arcsin(np.sqrt(min(error2 / length2, 1.0)))))
