"""The steering of a request: a trait's direction, or a random one of the same length.

Knows nothing of how layer and strength were chosen.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from workers.generation import Push, Steering


def steering_along(vector: NDArray[np.float32], layer: int) -> Steering:
    """Add the vector [d_model] to every token at the layer."""
    return Steering((Push(layer, vector, 1.0),))


def random_like(vector: NDArray[np.float32], *, name: str) -> NDArray[np.float32]:
    """A direction drawn at random, as long as the vector; the same for the same name."""
    digest = hashlib.sha256(name.encode()).digest()
    drawn = np.random.default_rng(int.from_bytes(digest[:8], "big")).standard_normal(len(vector))
    return np.asarray(drawn * (np.linalg.norm(vector) / np.linalg.norm(drawn)), dtype=np.float32)
