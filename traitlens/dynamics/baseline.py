"""What projections are where nothing is asked for: the scale that makes a score mean something.

A baseline holds the projections of neutral responses, token by token. A response is compared with
as many first tokens of theirs as it has itself, because means over few tokens spread more: one
threshold for all lengths that promises 5 % flags 23 % of neutral texts of three tokens. Beyond the
lengths of the baseline nothing is compared.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from traitlens.arrays import Float32, Float64, Floats, Ints
from traitlens.dynamics.change_point import NeutralSteps
from traitlens.errors import NonFiniteError, ShapeError
from traitlens.stats.intervals import Interval, exact_share_interval

# Two responses are the least that have a spread.
FEWEST_RESPONSES = 2

# Where a question was answered more than once, one answer counts at a time, so often.
N_DRAWS = 20

# Each tenth of the questions is held against the thresholds of the others.
N_FOLDS = 10

What = Literal["mean", "highest"]
"""A response's mean projection, or that of its highest token."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """Projections [tokens, k] of neutral responses, one after the other; `lengths` [n] cuts them,
    `questions` [n] says which of them answer the same; without it each has its own.

    Raises ShapeError when lengths, questions and tokens disagree or fewer than two responses hold
    tokens, NonFiniteError for a projection that is no number.
    """

    projections: Float32
    lengths: Ints
    questions: Sequence[Hashable] | None = None

    def __post_init__(self) -> None:
        if int(self.lengths.sum()) != len(self.projections):
            raise ShapeError(
                f"lengths add up to {int(self.lengths.sum())}, there are "
                f"{len(self.projections)} tokens: give one length per response"
            )
        if self.questions is not None and len(self.questions) != len(self.lengths):
            raise ShapeError(
                f"{len(self.questions)} questions for {len(self.lengths)} responses: one each"
            )
        if int((self.lengths > 0).sum()) < FEWEST_RESPONSES:
            raise ShapeError("a baseline needs two responses or more that hold tokens: add some")
        if not np.isfinite(self.projections).all():
            raise NonFiniteError("a neutral token's projection is not finite: project it again")

    @classmethod
    def of(
        cls, responses: Sequence[Float32], questions: Sequence[Hashable] | None = None
    ) -> Baseline:
        """From the projections [tokens, k] of each response, and the question that it answers;
        empty responses are left out."""
        asked = range(len(responses)) if questions is None else questions
        held = [(one, q) for one, q in zip(responses, asked, strict=True) if len(one)]
        if not held:
            raise ShapeError("no neutral response holds a token: use another model or more of them")
        lengths = np.array([len(one) for one, _ in held], dtype=np.int64)
        return cls(np.concatenate([one for one, _ in held]), lengths, [q for _, q in held])

    @cached_property
    def responses(self) -> list[Float32]:
        """The projections of each response, [tokens, k]."""
        return np.split(self.projections, np.cumsum(self.lengths)[:-1])

    def token_z(self, projections: Floats) -> Float64:
        """Projections [..., k] of tokens in standard deviations of neutral tokens."""
        return _standardized(projections, *self._of_tokens)

    def response_z(self, means: Floats, n_tokens: int) -> Float64:
        """Means [..., k] over a response's `n_tokens` tokens, in standard deviations of the means
        over as many first tokens of neutral responses; NaN where fewer than two have so many."""
        neutral = self._first(n_tokens, "mean")[0]
        if len(neutral) < FEWEST_RESPONSES:
            return np.full(np.shape(means), np.nan)
        return _standardized(means, *_mean_and_spread(neutral))

    def threshold(self, false_alarm: float, n_tokens: int, what: What = "mean") -> Float64:
        """The z [k + 1] that at most this share of neutral responses of `n_tokens` tokens exceeds:
        of the mean in standard deviations of neutral means, or of the highest token in those of
        neutral tokens. The last one is for the highest z among all k.

        The conformal rank ceil((q + 1) (1 - share)) of q neutral responses, one a question, so a
        new neutral response of the same kind exceeds it with at most that probability, whatever the
        distribution. Infinite where q is too small to promise it, and so beyond their lengths.
        """
        key = (false_alarm, n_tokens, what)
        if key not in self._thresholds:
            values, questions = self._first(n_tokens, what)
            z = self._with_highest(values, values, what)
            self._thresholds[key] = _exceeded_by(z, questions, false_alarm)
        return self._thresholds[key]

    def longest(self, false_alarm: float) -> int:
        """The most tokens that a response may have to be held against a threshold; 0 where the
        baseline is too small for this rate."""
        by_question = np.zeros(self._question.max() + 1, dtype=np.int64)
        np.maximum.at(by_question, self._question, self.lengths)
        fewest = math.ceil(1 / false_alarm) - 1
        return int(np.sort(by_question)[-fewest]) if fewest <= len(by_question) else 0

    @cached_property
    def steps(self) -> list[NeutralSteps]:
        """What steps are held against, for each of the k directions; one response a question."""
        first = np.unique(self._question, return_index=True)[1]
        chosen = [self.responses[i].astype(np.float64) for i in first]
        return [
            NeutralSteps([one[:, k] for one in chosen]) for k in range(self.projections.shape[1])
        ]

    def held_out_rate(self, false_alarm: float, n_tokens: int, what: What = "mean") -> HeldOut:
        """The share of neutral responses, one a question, that exceed the thresholds made of the
        answers to other questions."""
        values, questions = self._first(n_tokens, what)
        asked, first = np.unique(questions, return_index=True)
        folds = np.random.default_rng(0).permutation(len(asked)) % N_FOLDS
        over = [np.zeros((0, values.shape[1] + 1), dtype=bool)]
        for fold in range(N_FOLDS):
            others = ~np.isin(questions, asked[folds == fold])
            if others.sum() >= FEWEST_RESPONSES:
                neutral, tested = values[others], values[first[folds == fold]]
                z = self._with_highest(neutral, neutral, what)
                limit = _exceeded_by(z, questions[others], false_alarm)
                over.append(self._with_highest(tested, neutral, what) > limit)
        flagged = np.concatenate(over)
        return HeldOut(len(flagged), exact_share_interval(flagged.sum(axis=0), len(flagged)))

    @cached_property
    def _of_tokens(self) -> tuple[Float64, Float64]:
        return _mean_and_spread(self.projections.astype(np.float64))

    @cached_property
    def _question(self) -> Ints:
        """The number of the question that each response answers."""
        labels = range(len(self.lengths)) if self.questions is None else self.questions
        number = {label: i for i, label in enumerate(dict.fromkeys(labels))}
        return np.array([number[label] for label in labels], dtype=np.int64)

    @cached_property
    def _thresholds(self) -> dict[tuple[float, int, What], Float64]:
        return {}

    def _first(self, n_tokens: int, what: What) -> tuple[Float64, Ints]:
        """The mean or the highest over the first tokens of the responses that have so many, [r, k],
        and the question of each, [r]."""
        n_tokens = max(1, n_tokens)
        held = np.flatnonzero(self.lengths >= n_tokens)
        values = np.empty((len(held), self.projections.shape[1]))
        for row, i in zip(values, held, strict=True):
            first = self.responses[i][:n_tokens]
            row[:] = first.mean(axis=0, dtype=np.float64) if what == "mean" else first.max(axis=0)
        return values, self._question[held]

    def _with_highest(self, values: Float64, neutral: Float64, what: What) -> Float64:
        """z of values [r, k] by the scale of neutral ones, and the highest of each: [r, k + 1]."""
        if not len(values):
            return np.zeros((0, values.shape[1] + 1))
        z = _standardized(
            values, *(self._of_tokens if what == "highest" else _mean_and_spread(neutral))
        )
        return np.concatenate([z, z.max(axis=1, keepdims=True)], axis=1)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """How many neutral responses were held against thresholds that they were no part of, and the
    share [k + 1] that exceeded them, with an exact 95 % interval; the last one by any of k."""

    n: int
    share: Interval


def _mean_and_spread(neutral: Float64) -> tuple[Float64, Float64]:
    return neutral.mean(axis=0), neutral.std(axis=0, ddof=1)


def _standardized(values: Floats, mean: Float64, spread: Float64) -> Float64:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > 0, (values - mean) / spread, 0.0)


def _exceeded_by(z: Float64, questions: Ints, share: float) -> Float64:
    """The threshold [m] of z [r, m], one response a question at a time."""
    if not 0 < share < 1:
        raise ValueError(f"a false-alarm rate of {share} is none: use one between 0 and 1")
    asked, counts = np.unique(questions, return_counts=True)
    rank = math.ceil((len(asked) + 1) * (1 - share) - 1e-9)
    if rank > len(asked):
        return np.full(z.shape[1], np.inf)
    rng = np.random.default_rng(0)
    order, starts = np.argsort(questions, kind="stable"), np.cumsum(counts) - counts
    drawn = [
        z[order[starts + rng.integers(counts)]] for _ in range(N_DRAWS if counts.max() > 1 else 1)
    ]
    return np.asarray(np.sort(np.stack(drawn), axis=1)[:, rank - 1].mean(axis=0))
