"""Dynamics of a trait over the tokens of responses: the seed documents' formulas by name.

`analyze` gives the documents' output format. Their thresholds are absolute (0.1, 0.5) on scores
of arbitrary size; `dynamics.change_point` has versions that do not depend on it. Indices here are
as the formulas give them: acceleration i spans tokens i..i+2. `event_aligned_average` lines many
responses up at the token where something happened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from traitlens.arrays import Float32, Float64, Floats, Ints
from traitlens.dynamics.change_point import NeutralSteps, find_change_point
from traitlens.errors import NonFiniteError, ShapeError
from traitlens.stats.crossed import crossed_interval, weighted_mean

Scores = Sequence[float] | Floats | Tensor
SETTLED_BELOW = 0.1

# Median absolute deviations of a normal distribution in one standard deviation.
MAD_TO_SD = 1.4826


def analyze(
    tokens: Sequence[str],
    scores: Mapping[str, Scores],
    *,
    prompt: str = "",
    response: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Seed 003's output: prompt, response, tokens, trait_scores, and dynamics by trait.

    `scores` maps traits to one score per token; `response` defaults to the joined tokens. Raises
    ShapeError when a trait has another number of scores than there are tokens.
    """
    trait_scores = {trait: _as_scores(values) for trait, values in scores.items()}
    for trait, values in trait_scores.items():
        if len(values) != len(tokens):
            raise ShapeError(
                f"{trait}: {len(values)} scores for {len(tokens)} tokens: give one per token"
            )
    return {
        "prompt": prompt,
        "response": "".join(tokens) if response is None else response,
        "tokens": list(tokens),
        "trait_scores": {trait: values.tolist() for trait, values in trait_scores.items()},
        "dynamics": {t: trait_dynamics(values, seed=seed) for t, values in trait_scores.items()},
    }


def trait_dynamics(
    scores: Scores, *, null: NeutralSteps | None = None, seed: int = 0
) -> dict[str, Any]:
    """The documents' six measures of one trait, and `scale_free` beside them; ready for JSON.

    `null` holds neutral responses to compare steps with; simulated ones where it is None.
    Raises ShapeError and NonFiniteError.
    """
    x = _as_scores(scores)
    v, a = velocity(x), acceleration(x)
    change = find_change_point(x, null=null, seed=seed)
    return {
        "commitment_point": find_commitment_point(x),
        "peak_velocity": float(np.abs(v).max()) if len(v) else 0.0,
        "avg_velocity": float(np.abs(v).mean()) if len(v) else 0.0,
        "persistence": persistence(x),
        "velocity_profile": v.tolist(),
        "acceleration_profile": a.tolist(),
        "scale_free": {
            "commitment_point": None if change is None else change.index,
            "p_value": None if change is None else change.p_value,
            "height_sd": None if change is None else change.height_sd,
            "peak_velocity_sd": peak_velocity_sd(x),
            "half_life": half_life(x),
        },
    }


def velocity(scores: Scores) -> Float64:
    """First differences, one fewer than the tokens."""
    return np.diff(_published(scores)).astype(np.float64)


def acceleration(scores: Scores) -> Float64:
    """Second differences, two fewer than the tokens."""
    return np.diff(_published(scores), n=2).astype(np.float64)


def find_commitment_point(
    scores: Scores,
    method: Literal["acceleration", "velocity"] = "acceleration",
    *,
    threshold: float = SETTLED_BELOW,
) -> int | None:
    """First i at which |acceleration i| (or |velocity i|) is under the threshold, or None."""
    if method not in ("acceleration", "velocity"):
        raise ValueError(f'no method {method!r}: use "acceleration" or "velocity"')
    profile = acceleration(scores) if method == "acceleration" else velocity(scores)
    settled = np.flatnonzero(np.abs(profile) < threshold)
    return int(settled[0]) if len(settled) else None


def persistence(scores: Scores, fraction: float = 0.5) -> int:
    """Tokens after the peak of |score| whose |score| exceeds `fraction` of it; gaps allowed."""
    size = np.abs(_as_scores(scores))
    if len(size) == 0:
        return 0
    peak = int(np.argmax(size))
    return int((size[peak + 1 :] > fraction * size[peak]).sum())


def persistence_absolute(scores: Scores, threshold: float = 0.5) -> int:
    """Seed 003's snippet: tokens from the highest score on with |score| > threshold."""
    x = _as_scores(scores)
    return 0 if len(x) == 0 else int((np.abs(x[int(np.argmax(x)) :]) > threshold).sum())


def find_decision_point(scores: Scores) -> int | None:
    """Seed 002's rule: first token i >= 3 above mean + standard deviation of the first three."""
    x = _as_scores(scores)
    if len(x) < 4:
        return None
    above = np.flatnonzero(x[3:] > x[:3].mean() + x[:3].std(ddof=1))
    return int(above[0]) + 3 if len(above) else None


def _as_scores(scores: Scores) -> Float64:
    """One score per token as float64 [n]; raises ShapeError and NonFiniteError."""
    raw = scores.detach().cpu().float().numpy() if isinstance(scores, Tensor) else scores
    x = np.asarray(raw, dtype=np.float64)
    if x.ndim != 1:
        raise ShapeError(f"scores have shape {x.shape}: give one response's, one per token")
    if not np.isfinite(x).all():
        bad = int(np.flatnonzero(~np.isfinite(x))[0])
        raise NonFiniteError(f"the score of token {bad} is not finite: project it again")
    return x


@dataclass(frozen=True, eq=False)
class AlignedAverage:
    """Mean score at each offset from the event, with a 95 % interval over responses.

    All arrays are [before + 1 + after]; `count` says how many responses reach an offset, and mean
    and interval are NaN where none does. `without_event` responses were left out.
    """

    offsets: Ints
    mean: Float64
    low: Float64
    high: Float64
    count: Ints
    without_event: int


def event_aligned_average(
    trajectories: Sequence[Sequence[float] | Floats],
    events: Sequence[int | None],
    *,
    before: int = 5,
    after: int = 20,
) -> AlignedAverage:
    """Average trajectories [n_tokens] around their events; None means the event never came.

    The interval is over responses, by Student's t. Raises ShapeError when events and
    trajectories differ in number, ValueError for an event outside its trajectory.
    """
    if len(trajectories) != len(events):
        raise ShapeError(f"{len(events)} events for {len(trajectories)} trajectories: one each")
    happened = [(x, e) for x, e in zip(trajectories, events, strict=True) if e is not None]
    lined_up = np.full((len(happened), before + 1 + after), np.nan)
    for row, (scores, event) in zip(lined_up, happened, strict=True):
        if not 0 <= event < len(scores):
            raise ValueError(f"event at token {event} of {len(scores)}: count from 0")
        first, last = max(0, event - before), min(len(scores), event + after + 1)
        row[first - event + before : last - event + before] = scores[first:last]
    one, response = np.zeros(len(happened)), range(len(happened))
    average = crossed_interval(lambda weights: weighted_mean(lined_up, weights), one, response)
    return AlignedAverage(
        offsets=np.arange(-before, after + 1),
        mean=average.value,
        low=average.low,
        high=average.high,
        count=np.isfinite(lined_up).sum(axis=0),
        without_event=len(events) - len(happened),
    )


def _published(scores: Scores) -> Float32:
    """Scores in the precision the documents' code differentiates in: a difference that is 0.1 on
    paper falls under the threshold or not by float32's rounding."""
    return _as_scores(scores).astype(np.float32)


def half_life(scores: Float64) -> int:
    """Tokens from the highest score on, it included, that stay nearer to it than to the median.

    Contiguous: it ends at the first token that does not. 0 for a flat trajectory.
    """
    if len(scores) == 0 or np.ptp(scores) == 0:
        return 0
    peak = int(np.argmax(scores))
    middle = 0.5 * (scores[peak] + np.median(scores))
    below = np.flatnonzero(scores[peak:] <= middle)
    return int(below[0]) if len(below) else len(scores) - peak


def peak_velocity_sd(scores: Float64) -> float:
    """Largest |difference| of neighbours over their robust standard deviation; 0 when flat."""
    steps = np.diff(scores)
    if len(steps) == 0:
        return 0.0
    spread = MAD_TO_SD * float(np.median(np.abs(steps - np.median(steps))))
    if spread == 0:
        spread = float(steps.std())
    return float(np.abs(steps).max() / spread) if spread > 0 else 0.0
