"""Trajectories as people get them: records, rows and summaries.

The JSON is that of the seed documents, with cosines, z-scores and facts beside it; docs/page.md
describes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from traitlens.arrays import Bools, Float32, Floats
from traitlens.dynamics.trajectory import trait_dynamics
from workers.monitor.trajectory import DIGITS, TraitScale, Trajectory, number


def trajectory_token_scores(scale: TraitScale, projections: Float32) -> dict[str, dict[str, float]]:
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
    if scale.baseline is not None:
        body["any_trait"] = any_trait(scale, trajectory)
    if trajectory.alternatives is not None:
        body["alternatives"] = trajectory.alternatives
    body["metadata"] = {**trajectory.facts, "directions": scale.about}
    return body


def trajectory_dynamics(scale: TraitScale, trajectory: Trajectory) -> dict[str, Any]:
    """The documents' measures by trait; steps are held against the baseline's, where it is long
    enough."""
    null = [None] * len(scale.traits) if scale.baseline is None else scale.baseline.steps
    columns = zip(scale.traits, trajectory.projections.T, null, strict=True)
    return {trait: trait_dynamics(scores, null=steps) for trait, scores, steps in columns}


def trajectory_summary(scale: TraitScale, trajectory: Trajectory) -> dict[str, dict[str, Any]]:
    """By trait: mean projection and cosine of the response, its z, and whether it is flagged, for
    its mean and for its highest token; that of the prompt. None is what the baseline cannot say."""
    z = scale.response_z(trajectory)
    flagged = scale.flagged(trajectory)
    is_known = z is not None and scale.thresholds(trajectory) is not None
    highest = _over_by_token(scale, trajectory) if is_known else None
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
            "flagged": trait in flagged if is_known else None,
            "token_flagged": None if highest is None else bool(highest[k]),
        }
        for k, trait in enumerate(scale.traits)
    }


def any_trait(scale: TraitScale, trajectory: Trajectory) -> dict[str, Any]:
    """The highest z of all traits, and whether the response is flagged by it."""
    z, limits = scale.response_z(trajectory), scale.thresholds(trajectory)
    if z is None or limits is None:
        return {"z": None, "flagged": None}
    return {"z": number(float(z.max())), "flagged": scale.is_flagged(trajectory)}


def _over_by_token(scale: TraitScale, trajectory: Trajectory) -> Bools:
    """Traits [k] whose highest token is over what the highest of a neutral response of the same
    length exceeds at the false-alarm rate."""
    assert scale.baseline is not None
    z = scale.baseline.token_z(trajectory.projections).max(axis=0)
    limits = scale.baseline.threshold(scale.false_alarm, len(trajectory.tokens), "highest")
    return np.asarray(z > limits[:-1])


def trajectory_row(scale: TraitScale, trajectory: Trajectory) -> dict[str, Any]:
    """One row of a table: the texts, the facts, and each trait's mean, z and flag."""
    row: dict[str, Any] = {"id": trajectory.id, "prompt": trajectory.prompt}
    row |= {"response": trajectory.response, "n_tokens": len(trajectory.tokens)}
    figures = {
        f"{trait}_{name}": value
        for trait, one in trajectory_summary(scale, trajectory).items()
        for name, value in one.items()
    }
    # a table of scores that is screened again has columns of these names, of what was measured then
    taken = {*row, *figures, "any_trait_flagged"}
    row |= {name: fact for name, fact in trajectory.facts.items() if name not in taken}
    row |= {name: value for name, value in figures.items() if value is not None}
    if scale.baseline is not None:
        row["any_trait_flagged"] = any_trait(scale, trajectory)["flagged"]
    return row


def trajectory_token_rows(scale: TraitScale, trajectory: Trajectory) -> list[dict[str, Any]]:
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


def _by_trait(scale: TraitScale, values: Floats) -> dict[str, list[float]]:
    return {trait: _rounded(values[:, k]) for k, trait in enumerate(scale.traits)}
