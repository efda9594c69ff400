"""Cosines between the vectors of several traits, or of one trait in two runs, layer by layer.

Needs no torch, so a report opens quickly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from traitlens.arrays import Float64, Floats


def trait_cosines(
    vectors: Mapping[str, Floats], angles: Mapping[str, Sequence[float | None]] | None
) -> dict[str, Any]:
    """Cosines of vectors [L+1, d_model] at each layer, with what the directions' errors allow.

    `angles` [L+1] are 95 % bounds in degrees on each direction's angle to the true one. The true
    directions then enclose the measured angle plus or minus the sum of the two (the triangle
    inequality on the sphere), so the range is wide and safe. Without `angles` there is no range.
    """
    cosine = np.clip(cosine_matrices(vectors), -1, 1)
    found = {"traits": list(vectors), "by_layer": cosine.tolist(), "interval": None}
    if angles is None:
        return found
    bounds = [[90.0 if a is None else a for a in angles[name]] for name in vectors]
    error = np.radians(bounds).T
    between = error[:, :, None] + error[:, None, :]
    angle = np.arccos(cosine)
    low, high = np.cos(np.minimum(angle + between, np.pi)), np.cos(np.maximum(angle - between, 0))
    return found | {"interval": np.stack([low, high], axis=-1).tolist()}


def cosine_matrices(vectors: Mapping[str, Floats]) -> Float64:
    """Cosines between vectors [L+1, d_model] in the mapping's order: [L+1, k, k]; 0 with zero."""
    stack = np.stack(list(vectors.values()), axis=1).astype(np.float64)
    norms = np.linalg.norm(stack, axis=2, keepdims=True)
    units = stack / np.where(norms > 0, norms, 1)
    return np.asarray(units @ units.transpose(0, 2, 1))
