"""Protects the meaning of z and of the false-alarm rate."""

from __future__ import annotations

import numpy as np
import pytest

from traitlens.dynamics.baseline import Baseline
from traitlens.errors import NonFiniteError, ShapeError


def responses(n: int, *, seed: int = 0, shift: float = 0.0) -> list[np.ndarray]:
    """n responses of 3 to 30 tokens on two directions, each with a level of its own."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        level = random.normal(size=2) * (1, 20)
        tokens = random.normal(size=(random.integers(3, 31), 2)) * (2, 40)
        made.append((level + tokens + shift).astype(np.float32))
    return made


def test_neutral_tokens_and_responses_have_mean_zero_and_spread_one() -> None:
    baseline = Baseline.of(responses(200))

    token_z = baseline.token_z(baseline.projections)
    response_z = baseline.response_z(baseline.response_means)

    for z in (token_z, response_z):
        np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(z.std(axis=0, ddof=1), 1, rtol=1e-6)


def test_z_does_not_depend_on_the_scale_or_the_origin_of_the_scores() -> None:
    plain, new = responses(60), responses(1, seed=9)[0]

    z = Baseline.of(plain).token_z(new)
    other = Baseline.of([100 * one - 7 for one in plain]).token_z(100 * new - 7)

    np.testing.assert_allclose(z, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_new_neutral_responses_exceed_the_threshold_no_more_often_than_stated(rate: float) -> None:
    trials = 40
    shares = []
    for seed in range(trials):
        baseline = Baseline.of(responses(200, seed=seed))
        new = Baseline.of(responses(200, seed=1000 + seed)).response_means
        over = baseline.response_z(new) > baseline.response_threshold(rate)
        shares.append(over.mean())

    # 16,000 responses: the mean share is known to about a tenth of the rate
    assert 0.6 * rate < np.mean(shares) < 1.15 * rate


def test_too_few_neutral_responses_promise_nothing_and_flag_nothing() -> None:
    baseline = Baseline.of(responses(15))

    assert np.isinf(baseline.response_threshold(0.05)).all()
    assert np.isfinite(baseline.response_threshold(0.1)).all()


def test_a_direction_without_spread_has_no_z() -> None:
    still = [np.zeros((4, 1), np.float32) for _ in range(3)]

    assert Baseline.of(still).token_z(np.ones((2, 1))).tolist() == [[0.0], [0.0]]


def test_empty_responses_are_left_out_and_one_alone_is_refused() -> None:
    empty = np.zeros((0, 2), np.float32)

    assert len(Baseline.of([empty, *responses(3), empty]).responses) == 3
    with pytest.raises(ShapeError, match="two responses or more"):
        Baseline.of([empty, *responses(1)])
    with pytest.raises(ShapeError, match="holds a token"):
        Baseline.of([empty])


def test_a_projection_that_is_no_number_and_a_rate_that_is_none_are_refused() -> None:
    broken = responses(3)
    broken[1][0, 0] = np.nan

    with pytest.raises(NonFiniteError):
        Baseline.of(broken)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Baseline.of(responses(3)).token_threshold(1.0)
