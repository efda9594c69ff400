"""A response with the projections of its own tokens, and the forms in which people get it.

The JSON is that of the seed documents, with cosines, z-scores and facts beside it; docs/page.md
describes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from domain.errors import ModelError
from traitlens.arrays import Bools, Float32, Float64, Floats
from traitlens.dynamics.baseline import Baseline
from traitlens.dynamics.trajectory import trait_dynamics
from traitlens.errors import NonFiniteError, ShapeError
from workers.monitor.vectors import LayerVector

# Digits that float32 holds; more would only be long.
DIGITS = 7


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Projections h.v / ||v|| [tokens, k] of a response's and its prompt's tokens, each at the
    token itself, and the norms of h there; `prompt_sinks` [prompt tokens, k] says which of the
    prompt's are attention sinks at the direction's layer."""

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

    def response_z(self, trajectory: Trajectory) -> Float64 | None:
        """z of the response's mean by trait; None without a baseline or without tokens."""
        if self.baseline is None or not len(trajectory.projections):
            return None
        return self.baseline.response_z(trajectory.mean)

    def flagged(self, trajectory: Trajectory) -> list[str]:
        """Traits whose response z exceeds the threshold at the false-alarm rate."""
        z = self.response_z(trajectory)
        if self.baseline is None or z is None:
            return []
        over = z > self.baseline.response_threshold(self.false_alarm)
        return [trait for trait, is_over in zip(self.traits, over, strict=True) if is_over]


def trait_scale_of(
    vectors: Sequence[LayerVector], neutral: Sequence[Float32] | None, *, false_alarm: float
) -> TraitScale:
    """The scale of these vectors, with the projections [tokens, k] of each neutral response.

    Raises ModelError where the neutral responses cannot be a baseline.
    """
    about = {one.trait: one.about for one in vectors}
    try:
        baseline = None if neutral is None else Baseline.of(neutral)
    except (ShapeError, NonFiniteError) as error:
        raise ModelError(f"the run's neutral responses give no baseline: {error}") from error
    return TraitScale(tuple(about), about, baseline, false_alarm)


def token_scores(scale: TraitScale, projections: Float32) -> dict[str, dict[str, float]]:
    """The scores of one token, projections [k], as a `token` event holds them."""
    scores = {"trait_scores": dict(zip(scale.traits, _rounded(projections), strict=True))}
    if scale.baseline is not None:
        z = _rounded(scale.baseline.token_z(projections))
        scores["trait_zscores"] = dict(zip(scale.traits, z, strict=True))
    return scores


def trajectory_record(
    scale: TraitScale, trajectory: Trajectory, *, dynamics: bool = True
) -> dict[str, Any]:
    """The seeds' JSON of one response, ready to be written."""
    body: dict[str, Any] = {
        "prompt": trajectory.prompt,
        "response": trajectory.response,
        "tokens": list(trajectory.tokens),
        "trait_scores": _by_trait(scale, trajectory.projections),
        "trait_cosines": _by_trait(scale, trajectory.cosines),
    }
    if scale.baseline is not None:
        body["trait_zscores"] = _by_trait(scale, scale.baseline.token_z(trajectory.projections))
    if dynamics:
        body["dynamics"] = trajectory_dynamics(scale, trajectory)
    body["prompt_scores"] = _by_trait(scale, trajectory.prompt_projections)
    sinks = zip(scale.traits, trajectory.prompt_sinks.T, strict=True)
    body["prompt_sinks"] = {trait: np.flatnonzero(one).tolist() for trait, one in sinks}
    body["summary"] = trajectory_summary(scale, trajectory)
    body["metadata"] = {**trajectory.facts, "directions": scale.about}
    return body


def trajectory_dynamics(scale: TraitScale, trajectory: Trajectory) -> dict[str, Any]:
    """The documents' measures by trait."""
    columns = zip(scale.traits, trajectory.projections.T, strict=True)
    return {trait: trait_dynamics(scores) for trait, scores in columns}


def trajectory_summary(scale: TraitScale, trajectory: Trajectory) -> dict[str, dict[str, Any]]:
    """By trait: mean projection and cosine of the response, its z, and whether it is flagged."""
    z = scale.response_z(trajectory)
    flagged = scale.flagged(trajectory)
    has_tokens = len(trajectory.tokens) > 0
    means = trajectory.mean
    cosines = trajectory.cosines.mean(axis=0) if has_tokens else means
    prompt_means = trajectory.prompt_mean
    return {
        trait: {
            "mean": number(means[k]),
            "mean_cosine": number(cosines[k]),
            "prompt_mean": number(prompt_means[k]),
            "z": None if z is None else number(z[k]),
            "flagged": None if z is None else trait in flagged,
        }
        for k, trait in enumerate(scale.traits)
    }


def response_row(scale: TraitScale, trajectory: Trajectory) -> dict[str, Any]:
    """One row of a table: the texts, the facts, and each trait's mean, z and flag."""
    row: dict[str, Any] = {"id": trajectory.id, "prompt": trajectory.prompt}
    row |= {"response": trajectory.response, "n_tokens": len(trajectory.tokens)}
    row |= {name: fact for name, fact in trajectory.facts.items() if name not in row}
    for trait, one in trajectory_summary(scale, trajectory).items():
        row |= {f"{trait}_{name}": value for name, value in one.items() if value is not None}
    return row


def token_rows(scale: TraitScale, trajectory: Trajectory) -> list[dict[str, Any]]:
    """One row per response token and trait, for a table."""
    z = None if scale.baseline is None else scale.baseline.token_z(trajectory.projections)
    cosines = trajectory.cosines
    return [
        {
            "id": trajectory.id,
            "token_index": t,
            "token_id": trajectory.token_ids[t],
            "token": text,
            "trait": trait,
            "layer": scale.about[trait]["layer"],
            "projection": float(trajectory.projections[t, k]),
            "cosine": float(cosines[t, k]),
            "z": None if z is None else float(z[t, k]),
        }
        for t, text in enumerate(trajectory.tokens)
        for k, trait in enumerate(scale.traits)
    ]


def _rounded(values: Floats | Sequence[float]) -> list[float]:
    """Plain numbers of as many digits as float32 holds."""
    return [float(f"{value:.{DIGITS}g}") for value in values]


def number(value: float) -> float | None:
    """A plain number, None for what is not finite."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _by_trait(scale: TraitScale, values: Floats) -> dict[str, list[float]]:
    return {trait: _rounded(values[:, k]) for k, trait in enumerate(scale.traits)}
