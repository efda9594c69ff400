"""The one interval over instructions and questions: what would change if others had been asked.

Rows that share an instruction resemble one another, and so do rows that share a question, so both
count as drawn at random. The variance of any statistic is that of leaving out one instruction at a
time plus that of leaving out one question, less that of the cells (an instruction with a question),
which both contain:

    V = V_instruction + V_question - V_cell,    V_f = (F - 1) / F sum_f (theta_(f) - theta)^2,

and not below the larger of the first two. Leaving out cells also moves 1/Q of V_instruction and 1/I
of V_question; they are taken out of V_cell first, or V would be too small by them. Student's t with
Satterthwaite's degrees of freedom, V^2 / (V_instruction^2 / (I - 1) + V_question^2 / (Q - 1)),
which are min(I, Q) - 1 where one factor is all there is: those for every sample cover 0.99 and more
where instructions hardly differ. Sources: Cameron, Gelbach and Miller 2011 (Journal of Business &
Economic Statistics 29, 238) for the variance, MacKinnon, Nielsen and Webb 2024 (arXiv 2406.08880)
for its jackknife and the floor, Satterthwaite 1946 (Biometrics Bulletin 2, 110). Where a factor has
one level, or leaving a level out leaves nothing to measure, the other factor stands alone; with
neither the ends are NaN. docs/report.md has the coverages that were measured.

A row's instruction is the number of its PAIR: the positive and negative instruction of a pair leave
together, as the two sides of a question do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from traitlens.arrays import Bools, Float64, Ints, Labels
from traitlens.errors import ShapeError
from traitlens.stats.intervals import Interval

LEVEL = 0.95
Statistic = Callable[[Float64], Float64]
"""From weights [k, n] of the rows, 0 for what is left out and 1 for the rest, to values [k, ...]:
one by one, so that k may be any number. NaN where a weighting leaves nothing to measure."""

# Weights held at once: 32 MB.
AT_ONCE = 1 << 22


@dataclass(frozen=True, eq=False)
class Crossing:
    """Rows by instruction, question and cell: numbers [n] from 0 of each, and how many there are.

    Rows may be responses or sums of several, such as those of a cell's positives.
    """

    instruction: Ints
    question: Ints
    cell: Ints
    n_levels: tuple[int, int, int]

    @classmethod
    def of(cls, instruction: Labels, question: Labels) -> Crossing:
        """From one label of each per row. Raises ShapeError when they differ in number."""
        if len(instruction) != len(question):
            raise ShapeError(
                f"{len(instruction)} instructions for {len(question)} questions: one of each a row"
            )
        i, q = numbered(instruction), numbered(question)
        cell = numbered(list(zip(i.tolist(), q.tolist(), strict=True)))
        n_instructions, n_questions, n_cells = (int(f.max(initial=-1)) + 1 for f in (i, q, cell))
        return cls(i, q, cell, (n_instructions, n_questions, n_cells))

    def weights(self) -> Iterator[Float64]:
        """Weights [k, n] in batches: of all rows first, then without each instruction, question and
        cell, in their order."""
        yield np.ones((1, len(self.cell)))
        for factor, n_levels in zip(self._factors, self.n_levels, strict=True):
            size = max(1, AT_ONCE // max(len(factor), 1))
            for first in range(0, n_levels, size):
                levels = np.arange(first, min(first + size, n_levels))
                yield (factor[None] != levels[:, None]).astype(np.float64)

    def values(self, statistic: Statistic) -> Float64:
        """The statistic of every weighting: [1 + I + Q + C, ...]."""
        return np.concatenate([statistic(weights) for weights in self.weights()])

    def shifts(self, values: Float64) -> tuple[Float64, Float64, Float64]:
        """What leaving out each instruction, question and cell changes, of `values` as given by the
        method of that name, scaled so that a factor's variance is the sum of its squares."""
        n_instructions, n_questions, _ = self.n_levels
        ends = np.cumsum([1, n_instructions, n_questions])
        by_instruction, by_question, by_cell = (
            np.sqrt(max(len(part) - 1, 0) / max(len(part), 1)) * (part - values[0])
            for part in np.split(values, ends)[1:]
        )
        return by_instruction, by_question, by_cell

    def variance(self, values: Float64) -> tuple[Float64, Float64]:
        """The variance of values[0] and its degrees of freedom, both [...]; NaN where nothing was
        left out in turn."""
        n_instructions, n_questions, _ = self.n_levels
        parts = [(shift**2).sum(axis=0) for shift in self.shifts(values)]
        instructions = np.where(n_instructions > 1, parts[0], np.nan)
        questions = np.where(n_questions > 1, parts[1], np.nan)
        both = instructions + questions
        cells = self.of_cells_alone(instructions, questions, parts[2])
        variance = np.where(np.isfinite(both), both - cells, np.fmax(instructions, questions))
        with np.errstate(invalid="ignore", divide="ignore"):
            unsure = np.nansum(
                [instructions**2 / (n_instructions - 1), questions**2 / (n_questions - 1)], axis=0
            )
            freedom = variance**2 / unsure
        return variance, self._within_levels(freedom, instructions, questions)

    def of_cells_alone(self, instructions: Float64, questions: Float64, cells: Float64) -> Float64:
        """What V_cell keeps when what instructions and questions do in it is taken out: from 0 to
        the smaller of the two."""
        n_instructions, n_questions, _ = self.n_levels
        # of a design of two by two nothing is left to tell them apart
        own = 1 - 1 / max(n_instructions, 1) - 1 / max(n_questions, 1)
        if own <= 0:
            return np.zeros_like(cells)
        alone = (cells - instructions / n_questions - questions / n_instructions) / own
        return np.clip(alone, 0, np.minimum(instructions, questions))

    def _within_levels(self, freedom: Float64, *variances: Float64) -> Float64:
        """Degrees of freedom no fewer and no more than those of the factors that are known."""
        known = [
            np.where(np.isfinite(variance), levels - 1.0, np.nan)
            for variance, levels in zip(variances, self.n_levels, strict=False)
        ]
        return np.fmin(np.fmax(freedom, np.fmin(*known)), np.fmax(*known))

    @property
    def _factors(self) -> tuple[Ints, Ints, Ints]:
        return self.instruction, self.question, self.cell


def crossed_interval(
    statistic: Statistic,
    instruction: Labels,
    question: Labels,
    *,
    level: float = LEVEL,
    unseen: Float64 | float = 0.0,
) -> Interval:
    """The statistic of all rows with its interval over instructions and questions; [...] each.

    `instruction` and `question` label the rows [n] that `statistic` weighs; `unseen` is a variance
    that these do not show (see `unseen_variance`). Raises ShapeError.
    """
    from scipy.special import stdtrit

    crossing = Crossing.of(instruction, question)
    values = crossing.values(statistic)
    variance, freedom = crossing.variance(values)
    half = stdtrit(freedom, 0.5 + level / 2) * np.sqrt(variance + unseen)
    return Interval(np.asarray(values[0]), np.asarray(values[0] - half), values[0] + half)


# Points of a judge's scale: scores no farther apart are one score.
ONE_SCORE = 3.0


def unseen_variance(scores: Float64, question: Labels) -> float:
    """Of the mean of scores from 0 to 100 that are all one: what they do not show of answers to
    other questions that score the opposite.

    It is that of a share which none of n questions showed, taken for 1 in n + 2 (Laplace); 0 where
    the scores differ, or there are fewer than two questions.
    """
    known = np.isfinite(scores)
    n = len(set(np.asarray(question)[known].tolist()))
    if n < 2 or np.ptp(scores[known]) > ONE_SCORE:
        return 0.0
    share = 1 / (n + 2)
    return 100.0**2 * share * (1 - share) / n


def weighted_mean(values: Float64, weights: Float64) -> Float64:
    """The mean of values [n, ...] under each of weights [k, n]: [k, ...].

    NaN is no observation; the mean is NaN where nothing has weight.
    """
    known = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(weights @ np.where(known, values, 0.0) / (weights @ known))


def weighted_difference(values: Float64, is_pos: Bools) -> Statistic:
    """mean(pos) - mean(neg) of values [n, ...] as a statistic."""
    return lambda weights: (
        weighted_mean(values[is_pos], weights[:, is_pos])
        - weighted_mean(values[~is_pos], weights[:, ~is_pos])
    )


class Factor(StrEnum):
    """What a run can have more of."""

    INSTRUCTIONS = "instructions"
    QUESTIONS = "questions"
    ROLLOUTS = "rollouts"


@dataclass(frozen=True)
class Design:
    """How many instruction pairs, questions and rollouts of each prompt."""

    instructions: float
    questions: float
    rollouts: float

    def with_one_more(self, factor: Factor) -> Design:
        """One more of one of them."""
        more = {one.value: getattr(self, one.value) + (one == factor) for one in Factor}
        return Design(**more)


@dataclass(frozen=True)
class StandardDeviations:
    """What a difference between the sides varies with, in the values' unit.

    `instruction` and `question`: of the difference from one instruction pair, or question, to
    another; `combination`: of what a pair does with a question beyond both; `rollout`: of one
    response under one prompt. Values of several dimensions count with their length. NaN where the
    design cannot tell.
    """

    instruction: float
    question: float
    combination: float
    rollout: float
    design: Design

    def variance(self, design: Design) -> float:
        """Of the difference of the sides' means under a design."""
        cells = design.instructions * design.questions
        known = np.nan_to_num([self.instruction, self.question, self.combination])
        parts = known**2 / [design.instructions, design.questions, cells]
        return float(parts.sum()) + 2 * self.rollout**2 / (cells * design.rollouts)

    def half_width(self, design: Design) -> float:
        """Of the 95 % interval of the difference of one-dimensional values under a design."""
        from scipy.special import stdtrit

        levels = [n for n in (design.instructions, design.questions) if n > 1]
        freedom = min(levels) - 1 if levels else np.nan
        return float(stdtrit(freedom, 0.5 + LEVEL / 2) * np.sqrt(self.variance(design)))

    @property
    def narrows_most(self) -> Factor | None:
        """What narrows the interval most by one more of it; None where nothing is known."""
        widths = {one: self.half_width(self.design.with_one_more(one)) for one in Factor}
        known = [one for one in Factor if np.isfinite(widths[one])]
        return min(known, key=lambda one: widths[one]) if known else None


def standard_deviations(
    values: Float64, is_pos: Bools, instruction: Labels, question: Labels
) -> StandardDeviations:
    """The components of mean(pos) - mean(neg) of values [n] or [n, d] by the method of moments.

    A two-way random layout of the cells that have both sides (Henderson 1953, Biometrics 9, 226:
    sums of squares equal to what they are on average, whichever cells are missing); what rollouts
    add to a cell's difference is known from how they differ within cells.
    """
    rows = values.reshape(len(values), -1).astype(np.float64)
    crossing = Crossing.of(instruction, question)
    n_cells = crossing.n_levels[2]
    counts, sums = np.zeros((2, n_cells)), np.zeros((2, n_cells, rows.shape[1]))
    side = np.where(is_pos, 0, 1)
    np.add.at(counts, (side, crossing.cell), 1.0)
    np.add.at(sums, (side, crossing.cell), rows)
    means = sums / np.maximum(counts, 1)[:, :, None]
    repeats = len(rows) - int((counts > 0).sum())
    within = float(((rows - means[side, crossing.cell]) ** 2).sum())
    rollout2 = within / repeats if repeats else 0.0
    both = (counts > 0).all(axis=0)
    per_cell = float((1 / counts[:, both]).sum(axis=0).mean()) if both.any() else np.nan
    first = np.unique(crossing.cell, return_index=True)[1][both]
    found = _components(
        (means[0] - means[1])[both],
        numbered(crossing.instruction[first]),
        numbered(crossing.question[first]),
        rollout2 * per_cell,
    )
    by_instruction, by_question, combined = (float(np.sqrt(max(one, 0.0))) for one in found)
    n_instructions, n_questions, _ = crossing.n_levels
    return StandardDeviations(
        by_instruction,
        by_question,
        combined,
        float(np.sqrt(rollout2)),
        Design(n_instructions, n_questions, 2 / per_cell),
    )


def _components(
    differences: Float64, instruction: Ints, question: Ints, noise: float
) -> tuple[float, float, float]:
    """Variances of instructions, questions and their combination, from one difference [m, d] per
    cell; `noise` is what rollouts add to one."""
    m = len(differences)
    by_factor = [np.bincount(factor).astype(np.float64) for factor in (instruction, question)]
    n_instructions, n_questions = (len(sizes) for sizes in by_factor)
    if m < 2 or max(n_instructions, n_questions) < 2:
        return np.nan, np.nan, np.nan
    centered = differences - differences.mean(axis=0)
    squares = [float((centered**2).sum())]
    for factor, sizes in zip((instruction, question), by_factor, strict=True):
        totals = np.zeros((len(sizes), centered.shape[1]))
        np.add.at(totals, factor, centered)
        squares.append(float(((totals**2).sum(axis=1) / sizes).sum()))
    if min(n_instructions, n_questions) < 2:
        # one level of the other factor: what it does with each is not told from each alone
        alone = squares[0] / (m - 1) - noise
        return (alone, np.nan, 0.0) if n_questions < 2 else (np.nan, alone, 0.0)
    a, b = (float((sizes**2).sum()) / m for sizes in by_factor)
    expected = [
        [m - a, m - b, m - 1],
        [m - a, n_instructions - b, n_instructions - 1],
        [n_questions - a, m - b, n_questions - 1],
    ]
    found = np.linalg.lstsq(np.array(expected), np.array(squares), rcond=None)[0]
    return float(found[0]), float(found[1]), float(found[2]) - noise


def numbered(labels: Iterable[object]) -> Ints:
    """A number [n] from 0 for each label, in the order that they come."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.int64)
