"""Protects the correlation within conditions: what both sides owe to a condition is not in it."""

from __future__ import annotations

import numpy as np
import pytest

from traitlens.stats.correlation import partial_correlation

N_QUESTIONS = 10


def drawn(rho: float, seed: int) -> tuple[np.ndarray, np.ndarray, list[int], list[int]]:
    """Scores and values that correlate within four conditions, between which they go the other way,
    and questions with effects on both."""
    rng = np.random.default_rng(seed)
    condition, question, _ = np.indices((4, N_QUESTIONS, 2)).reshape(3, -1)
    noise = rng.standard_normal((2, len(condition)))
    effects = 0.5 * rng.standard_normal((2, N_QUESTIONS))[:, question]
    scores = noise[0] + effects[0] + 5 * condition
    values = rho * noise[0] + np.sqrt(1 - rho**2) * noise[1] + effects[1] - 5 * condition
    return scores[:, None], values, condition.tolist(), question.tolist()


def test_it_is_that_of_what_is_left_once_the_conditions_means_are_out() -> None:
    scores, values, condition, question = drawn(0.5, 0)

    found = partial_correlation(scores, values, condition=condition, question=question)

    left = [
        [one[np.equal(condition, c)] - one[np.equal(condition, c)].mean() for c in range(4)]
        for one in (scores[:, 0], values)
    ]
    naive = np.corrcoef(np.stack([np.concatenate(one) for one in left]))[0, 1]
    assert found.value[0] == pytest.approx(naive)
    assert np.corrcoef(scores[:, 0], values)[0, 1] < -0.8


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_its_interval_covers_the_truth(rho: float) -> None:
    covered = []

    for seed in range(200):
        scores, values, condition, question = drawn(rho, seed)
        found = partial_correlation(scores, values, condition=condition, question=question)
        covered.append(found.low[0] <= rho / 1.25 <= found.high[0])

    assert 0.9 <= np.mean(covered) <= 0.99


def test_nothing_is_known_where_nothing_varies_within_conditions() -> None:
    scores, _, condition, question = drawn(0.5, 0)

    found = partial_correlation(
        scores, np.array(condition) * 0.1, condition=condition, question=question
    )

    assert np.isnan([found.value[0], found.low[0], found.high[0]]).all()
