"""Directions that mean nothing and have the spread of the responses: what chance reaches.

An isotropic direction hardly touches the few directions in which activations vary, so it separates
less and moves a model less than any direction made of activations does, whatever that one means.
"""

from __future__ import annotations

import numpy as np

from traitlens.arrays import Activations, Float32, as_float32
from traitlens.errors import ShapeError

# A p-value of 5 % is then known to within 3 points.
N_DIRECTIONS = 200


def covariance_matched(
    rows: Activations, n_directions: int = N_DIRECTIONS, seed: int = 0
) -> Float32:
    """Random directions of length 1 with the covariance of centered rows [n, L+1, d_model].

    Each is a sum of the rows with normal weights, the same weights at every layer. `rows` are to
    have mean zero (within each class, where there are classes). Zero where all rows are zero.
    Holds one layer's rows beside its input and result. Returns [n_directions, L+1, d_model];
    raises ShapeError.
    """
    if rows.ndim != 3 or rows.shape[0] == 0:
        raise ShapeError(f"rows are {tuple(rows.shape)}: want [n, L+1, d_model] with n at least 1")
    n, n_layers, d_model = rows.shape
    weights = draw_weights(n, n_directions, seed)
    found = np.empty((n_directions, n_layers, d_model), dtype=np.float32)
    for layer in range(n_layers):
        drawn = weights @ as_float32(rows[:, layer])
        length = np.linalg.norm(drawn, axis=1, keepdims=True)
        found[:, layer] = drawn / np.where(length > 0, length, 1)
    return found


def draw_weights(n_rows: int, n_directions: int, seed: int) -> Float32:
    """Standard normal weights of the rows in each direction: [n_directions, n_rows]."""
    drawn = np.random.default_rng(seed).standard_normal((n_directions, n_rows), dtype=np.float32)
    return np.asarray(drawn)
