"""What projections are where nothing is asked for: the scale that makes a score mean something.

A baseline holds the projections of neutral responses, token by token. Scores are then given in
its standard deviations, and a threshold is the score that few neutral responses exceed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from traitlens.arrays import Float32, Float64, Floats, Ints
from traitlens.errors import NonFiniteError, ShapeError

# Two responses are the least that have a spread.
FEWEST_RESPONSES = 2


@dataclass(frozen=True, eq=False)
class Baseline:
    """Projections [tokens, k] of neutral responses, one after the other; `lengths` [n] cuts them.

    Raises ShapeError when lengths and tokens disagree or fewer than two responses hold tokens,
    NonFiniteError for a projection that is no number.
    """

    projections: Float32
    lengths: Ints

    def __post_init__(self) -> None:
        if int(self.lengths.sum()) != len(self.projections):
            raise ShapeError(
                f"lengths add up to {int(self.lengths.sum())}, there are "
                f"{len(self.projections)} tokens: give one length per response"
            )
        if int((self.lengths > 0).sum()) < FEWEST_RESPONSES:
            raise ShapeError("a baseline needs two responses or more that hold tokens: add some")
        if not np.isfinite(self.projections).all():
            raise NonFiniteError("a neutral token's projection is not finite: project it again")

    @classmethod
    def of(cls, responses: Sequence[Float32]) -> Baseline:
        """From the projections [tokens, k] of each response; empty responses are left out."""
        held = [one for one in responses if len(one)]
        if not held:
            raise ShapeError("no neutral response holds a token: use another model or more of them")
        return cls(np.concatenate(held), np.array([len(one) for one in held], dtype=np.int64))

    @cached_property
    def responses(self) -> list[Float32]:
        """The projections of each response, [tokens, k]."""
        held = np.split(self.projections, np.cumsum(self.lengths)[:-1])
        return [one for one in held if len(one)]

    @cached_property
    def response_means(self) -> Float64:
        """Mean over each response's tokens, [n, k]."""
        return np.stack([one.mean(axis=0, dtype=np.float64) for one in self.responses])

    @cached_property
    def _of_tokens(self) -> tuple[Float64, Float64]:
        return _mean_and_spread(self.projections.astype(np.float64))

    @cached_property
    def _of_responses(self) -> tuple[Float64, Float64]:
        return _mean_and_spread(self.response_means)

    def token_z(self, projections: Floats) -> Float64:
        """Projections [..., k] of tokens in standard deviations of neutral tokens."""
        return _standardized(projections, *self._of_tokens)

    def response_z(self, means: Floats) -> Float64:
        """Means [..., k] over a response's tokens, in standard deviations of neutral responses."""
        return _standardized(means, *self._of_responses)

    def response_threshold(self, false_alarm: float) -> Float64:
        """The z of a response's mean that at most this share of neutral responses exceeds: [k].

        The conformal rank ceil((n + 1) (1 - share)) of the n neutral responses, so a new neutral
        response of the same kind exceeds it with at most that probability, whatever the
        distribution. Infinite where n is too small to promise it.
        """
        return _exceeded_by(self.response_z(self.response_means), false_alarm)

    def token_threshold(self, false_alarm: float) -> Float64:
        """The z that this share of single neutral tokens exceeds, [k]; tokens of one response
        resemble one another, so it says less about a whole response."""
        return _exceeded_by(self.token_z(self.projections), false_alarm)


def _mean_and_spread(neutral: Float64) -> tuple[Float64, Float64]:
    return neutral.mean(axis=0), neutral.std(axis=0, ddof=1)


def _standardized(values: Floats, mean: Float64, spread: Float64) -> Float64:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > 0, (values - mean) / spread, 0.0)


def _exceeded_by(z: Float64, share: float) -> Float64:
    if not 0 < share < 1:
        raise ValueError(f"a false-alarm rate of {share} is none: use one between 0 and 1")
    rank = math.ceil((len(z) + 1) * (1 - share))
    if rank > len(z):
        return np.full(z.shape[1], np.inf)
    return np.asarray(np.sort(z, axis=0)[rank - 1])
