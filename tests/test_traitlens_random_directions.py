"""Protects the chance that vectors are held against: random directions as spread as responses."""

from __future__ import annotations

import numpy as np
import pytest

from traitlens.assess.random_directions import covariance_matched
from traitlens.errors import ShapeError


def test_directions_have_the_covariance_of_the_rows_at_each_layer() -> None:
    rng = np.random.default_rng(0)
    spread = np.array([[5.0, 2, 1, 0.5, 0.1], [0.1, 1, 1, 1, 4]])
    mixed = np.stack([rng.standard_normal((300, 5)) * s for s in spread], axis=1)
    mixed[:, 0] = mixed[:, 0] @ np.linalg.qr(rng.standard_normal((5, 5)))[0]
    rows = (mixed - mixed.mean(axis=0)).astype(np.float32)

    drawn = covariance_matched(rows, 20_000, seed=1)

    assert drawn.shape == (20_000, 2, 5) and drawn.dtype == np.float32
    assert np.allclose(np.linalg.norm(drawn, axis=2), 1, atol=1e-5)
    for layer in range(2):
        covariance = rows[:, layer].T.astype(float) @ rows[:, layer] / 300
        direct = rng.multivariate_normal(np.zeros(5), covariance, size=20_000)
        direct /= np.linalg.norm(direct, axis=1, keepdims=True)
        ours = drawn[:, layer].astype(float)
        assert np.allclose(ours.T @ ours / 20_000, direct.T @ direct / 20_000, atol=0.02)


def test_one_seed_gives_one_set_of_directions_and_equal_rows_none() -> None:
    rows = np.random.default_rng(0).standard_normal((12, 3, 8)).astype(np.float32)
    rows[:, 1] = 0

    drawn = covariance_matched(rows, 5, seed=3)

    assert (drawn == covariance_matched(rows, 5, seed=3)).all()
    assert not np.allclose(drawn, covariance_matched(rows, 5, seed=4))
    assert not drawn[:, 1].any()
    with pytest.raises(ShapeError, match=r"want \[n, L\+1, d_model\]"):
        covariance_matched(rows[:, 0], 5)
