"""Cosines between the vectors of several traits, or of one trait in two runs, layer by layer.

Needs no torch, so a report opens quickly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.floating[Any]]


def trait_cosines(
    vectors: Mapping[str, Vectors], angles: Mapping[str, Sequence[float | None]] | None
) -> dict[str, Any]:
    """Cosines of vectors [L+1, d_model] at each layer, with what the directions' errors allow.

    `angles` [L+1] are 95 % bounds in degrees on each direction's angle to the true one. The true
    directions then enclose the measured angle plus or minus the sum of the two (the triangle
    inequality on the sphere), so the range is wide and safe. Without `angles` there is no range.
    """
    names = list(vectors)
    units = np.stack([_units(vectors[name]) for name in names], axis=1)
    cosine = np.clip(units @ units.transpose(0, 2, 1), -1, 1)
    return {
        "traits": names,
        "by_layer": cosine.tolist(),
        "interval": None if angles is None else _ranges(cosine, [angles[n] for n in names]),
    }


def _ranges(cosine: NDArray[np.float64], angles: list[Sequence[float | None]]) -> Any:
    error = np.radians([[90.0 if a is None else a for a in one] for one in angles]).T
    between = error[:, :, None] + error[:, None, :]
    angle = np.arccos(cosine)
    low, high = np.cos(np.minimum(angle + between, np.pi)), np.cos(np.maximum(angle - between, 0))
    return np.stack([low, high], axis=-1).tolist()


def _units(vectors: Vectors) -> NDArray[np.float64]:
    values = vectors.astype(np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(norms > 0, norms, 1))
