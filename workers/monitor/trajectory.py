"""A response with the projections of its own tokens, and the scale on which they are judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from domain.errors import ModelError
from traitlens.arrays import Bools, Float32, Float64
from traitlens.dynamics.baseline import Baseline, What
from traitlens.errors import NonFiniteError, ShapeError
from workers.monitor.layer_vectors import LayerVector

# Digits that float32 holds; more would only be long.
DIGITS = 7


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Projections h.v / ||v|| [tokens, k] of a response's and its prompt's tokens, each at the
    token itself, and the norms of h there; `prompt_sinks` [prompt tokens, k] says which of the
    prompt's are attention sinks at the direction's layer. `alternatives` are the likeliest texts in
    each token's place with their probabilities, None where they were not asked for.

    Of a response with a thought `response` and the tokens are what is measured; `all_ids` are all
    that were generated, the answer's from `answer_start` on.
    """

    id: int
    prompt: str
    response: str
    tokens: tuple[str, ...]
    token_ids: tuple[int, ...]
    projections: Float32
    norms: Float32
    prompt_projections: Float32
    prompt_sinks: Bools
    facts: dict[str, Any] = field(default_factory=dict)
    alternatives: tuple[tuple[tuple[str, float], ...], ...] | None = None
    all_ids: tuple[int, ...] = ()
    answer_start: int = 0

    @property
    def cosines(self) -> Float32:
        """The projection over the norm of the state, [tokens, k]; 0 where the state is 0."""
        zeros = np.zeros_like(self.projections)
        return np.divide(self.projections, self.norms, out=zeros, where=self.norms > 0)

    @property
    def mean(self) -> Float64:
        """Mean projection over the response's tokens, [k]; NaN for an empty response."""
        if not len(self.projections):
            return np.full(self.projections.shape[-1], np.nan)
        return np.asarray(self.projections.mean(axis=0, dtype=np.float64))

    @property
    def prompt_mean(self) -> Float64:
        """Mean projection over the prompt's tokens that are no sinks, [k]."""
        scores, stay = self.prompt_projections.astype(np.float64), ~self.prompt_sinks
        return np.asarray((scores * stay).sum(axis=0) / stay.sum(axis=0))


@dataclass(frozen=True, eq=False)
class TraitScale:
    """The traits by column, what is known of each direction, and the baseline, if there is one."""

    traits: tuple[str, ...]
    about: dict[str, dict[str, object]]
    baseline: Baseline | None = None
    false_alarm: float = 0.05

    def is_beyond(self, trajectory: Trajectory) -> bool:
        """Whether a response is longer than the baseline can judge at the false-alarm rate."""
        if self.baseline is None:
            return False
        return len(trajectory.tokens) > self.baseline.longest(self.false_alarm)

    def response_z(self, trajectory: Trajectory) -> Float64 | None:
        """z of the response's mean by trait, on the scale of its length; None without a baseline,
        without tokens, and beyond the baseline's lengths."""
        n_tokens = len(trajectory.tokens)
        if self.baseline is None or not n_tokens:
            return None
        z = self.baseline.response_z(trajectory.mean, n_tokens)
        return None if np.isnan(z).any() else z

    def thresholds(self, trajectory: Trajectory) -> Float64 | None:
        """The z that flags a response of this length by trait, and by any: [k + 1]; None without a
        baseline, without tokens, and beyond the baseline's lengths."""
        if self.baseline is None or not trajectory.tokens or self.is_beyond(trajectory):
            return None
        return self.baseline.threshold(self.false_alarm, len(trajectory.tokens))

    def flagged(self, trajectory: Trajectory) -> list[str]:
        """Traits whose response z exceeds the threshold at the false-alarm rate."""
        z, limits = self.response_z(trajectory), self.thresholds(trajectory)
        if z is None or limits is None:
            return []
        over = z > limits[:-1]
        return [trait for trait, is_over in zip(self.traits, over, strict=True) if is_over]

    def is_flagged(self, trajectory: Trajectory) -> bool:
        """Whether the highest z of all traits exceeds what the highest of a neutral response does
        at the false-alarm rate: one alarm a response, however many traits are watched."""
        z, limits = self.response_z(trajectory), self.thresholds(trajectory)
        return z is not None and limits is not None and bool(z.max() > limits[-1])


def trait_scale_of(
    vectors: Sequence[LayerVector],
    neutral: Sequence[Float32] | None,
    *,
    questions: Sequence[str] | None = None,
    false_alarm: float,
) -> TraitScale:
    """The scale of these vectors, with the projections [tokens, k] of each neutral response and
    the question that it answers.

    Raises ModelError where the neutral responses cannot be a baseline.
    """
    about = {one.trait: one.about for one in vectors}
    try:
        baseline = None if neutral is None else Baseline.of(neutral, questions)
    except (ShapeError, NonFiniteError) as error:
        raise ModelError(f"the run's neutral responses give no baseline: {error}") from error
    return TraitScale(tuple(about), about, baseline, false_alarm)


# The share that is promised where nothing else is asked for, and where it is looked up.
USUAL_RATE = 0.05
RATED_LENGTHS = (3, 5, 10, 20, 40, 80, 160, 320, 640)


def held_out_rates(scale: TraitScale) -> list[dict[str, Any]]:
    """What share of held-out neutral responses is flagged, by length, for their mean and for their
    highest token, by trait and by any; with exact 95 % intervals, ready for JSON."""
    baseline, found = scale.baseline, []
    whats: tuple[What, ...] = ("mean", "highest")
    for n_tokens in RATED_LENGTHS:
        if baseline is None or n_tokens > baseline.longest(USUAL_RATE):
            break
        for what in whats:
            tested = baseline.held_out_rate(USUAL_RATE, n_tokens, what)
            shares = zip(tested.share.value, tested.share.low, tested.share.high, strict=True)
            by_name = {
                name: {"share": number(value), "interval": [number(low), number(high)]}
                for name, (value, low, high) in zip(
                    (*scale.traits, "any_trait"), shares, strict=True
                )
            }
            row = {"nominal": USUAL_RATE, "n_tokens": n_tokens, "of": what, "n": tested.n}
            found.append({**row, "flagged": by_name})
    return found


def number(value: float) -> float | None:
    """A plain number, None for what is not finite."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
