"""Protects the dose-response: its intervals cover the truth, and what nobody can read has none."""

from __future__ import annotations

import numpy as np
import pytest

from domain.plan.samples import CONFIRMATION, Sample
from domain.plan.steering_search import (
    Cell,
)
from tasks.stages.checks import causal_figures
from traitlens.arrays import Labels
from traitlens.assess.dose_response import Answers, dose_response
from traitlens.stats.correlation import weighted_correlation
from traitlens.stats.crossed import crossed_interval, weighted_mean
from traitlens.stats.intervals import Interval


def answers(
    seed: int, *, slope: float, n_questions: int = 20, spread: float = 8.0, drop: float = 5.0
) -> Answers:
    """Scores that rise by `slope` a strength, a level and a slope of its own for each question."""
    rng = np.random.default_rng(seed)
    strength = np.repeat([0.0, 0.5, 1.0, 2.0, 3.0], n_questions)
    question = np.tile(np.arange(n_questions), 5)
    level = rng.normal(20, spread, n_questions)[question]
    steep = slope + rng.normal(0, spread / 2, n_questions)[question]
    return Answers(
        strength=strength,
        trait=level + steep * strength + rng.normal(0, spread, len(strength)),
        coherence=90 - drop * strength + rng.normal(0, 5, len(strength)),
        question=question.tolist(),
    )


@pytest.mark.parametrize("n_questions", [4, 8, 12, 20])
def test_the_intervals_of_slope_and_rise_cover_the_truth_in_200_data_sets(n_questions: int) -> None:
    slopes, rises = [], []

    for seed in range(200):
        shown = answers(seed, slope=15.0, n_questions=n_questions)
        found = dose_response(shown, floor=50.0, best=2.0)
        slopes.append(float(found.slope.low) <= 15.0 <= float(found.slope.high))
        rises.append(float(found.rise.low) <= 30.0 <= float(found.rise.high))

    assert 0.9 <= np.mean(slopes) <= 0.99
    assert 0.9 <= np.mean(rises) <= 0.99


@pytest.mark.parametrize("n_questions", [6, 8, 12, 20])
def test_the_interval_of_a_correlation_covers_the_truth_in_200_data_sets(n_questions: int) -> None:
    covered = []

    for seed in range(200):
        x, noise = np.random.default_rng(seed).standard_normal((2, n_questions))
        found = crossed_interval(
            weighted_correlation(x[:, None], 0.6 * x + 0.8 * noise),
            np.zeros(n_questions),
            range(n_questions),
        )
        covered.append(bool(np.tanh(found.low[0]) <= 0.6 <= np.tanh(found.high[0])))

    assert 0.9 <= np.mean(covered) <= 0.99


def test_the_curve_ends_where_answers_are_no_longer_readable() -> None:
    found = dose_response(answers(0, slope=15.0, drop=25.0), floor=50.0, best=3.0)

    assert found.rise_at == 1.0
    assert found.slope.value == pytest.approx(
        np.polyfit([0.0, 0.5, 1.0], found.trait.value[:3], 1)[0]
    )


def test_a_push_that_no_answer_survives_has_no_rise() -> None:
    found = dose_response(answers(0, slope=15.0, drop=200.0), floor=50.0, best=3.0)

    assert found.rise_at is None
    assert np.isnan(found.rise.value) and np.isnan(found.slope.value)


def test_answers_to_one_question_count_as_one_observation() -> None:
    level = np.random.default_rng(0).normal(0, 10, 10)
    values = np.repeat(level, 20)

    def interval(questions: Labels) -> Interval:
        return crossed_interval(lambda w: weighted_mean(values, w), np.zeros(200), questions)

    shared, alone = interval(np.repeat(range(10), 20).tolist()), interval(range(200))

    assert shared.high - shared.low > 3 * (alone.high - alone.low)


def test_an_unscored_answer_bounds_the_rise_from_both_sides() -> None:
    cells = [Cell(0, 0.0, "none"), Cell(1, 2.0, "vector"), Cell(1, 2.0, "random")]
    scored, missing = [], []
    for question in range(12):
        for k, (cell, trait) in enumerate(zip(cells, (20.0, 80.0, 20.0), strict=True)):
            sample = Sample("evil", "plain", 0, question, 0, "confirmation", k)
            missing.append(question == 0)
            scored.append((sample, cell, None if question == 0 else trait, 90.0))

    told = {"method": "mean_diff", "best": cells[1], "step": 1.0}
    found = causal_figures(scored, [], **told, is_missing=missing)  # type: ignore[arg-type]
    whole = causal_figures(scored, [], **told)  # type: ignore[arg-type]

    assert found.vector.rise.value == pytest.approx(60)
    bounds, over = found.rise_bounds, found.rise_over_random_bounds
    assert bounds is not None and over is not None and bounds.n == 3
    # 11 answers a side as they are, the twelfth at the ends
    ends = [80 * 11 / 12 - (20 * 11 + 100) / 12, (80 * 11 + 100) / 12 - 20 * 11 / 12]
    assert [bounds.lowest.value, bounds.highest.value] == pytest.approx(ends)
    assert [over.lowest.value, over.highest.value] == pytest.approx(ends)
    assert whole.rise_bounds is None


def test_intervals_of_scores_stay_where_scores_can_be() -> None:
    cells = [Cell(0, 0.0, "none"), Cell(3, 1.0, "vector"), Cell(3, 1.0, "random")]
    scored = [
        (Sample("evil", "plain", 0, question, 0, CONFIRMATION, k), cell, 100.0 * question, 90.0)
        for k, cell in enumerate(cells)
        for question in (0, 1)
    ]

    found = causal_figures(scored, [], method="mean_diff", best=cells[1], step=1.0)

    assert found.vector.trait.interval == ((0.0, 100.0),) * 2
    for low, high in (found.vector.rise.interval, found.rise_over_random.interval):
        assert low is not None and high is not None
        assert -100.0 <= low <= high <= 100.0


def test_a_question_goes_backwards_where_its_own_answers_show_less_than_without_a_push() -> None:
    cells = [Cell(3, 0.0, "none"), Cell(3, 2.0, "vector"), Cell(3, 2.0, "random")]
    without = {0: (50.0, 70.0), 1: (10.0, 10.0), 2: (80.0, 80.0), 3: (30.0, 30.0)}
    pushed = {0: (50.0, 71.0), 1: (10.0, 30.0), 2: (90.0, 60.0), 3: (90.0, None)}
    scored = [
        (Sample("evil", "plain", 0, question, rollout, CONFIRMATION, k), cell, score, 90.0)
        for k, cell in enumerate(cells)
        for question, both in (pushed if k == 1 else without).items()
        for rollout, score in enumerate(both)
    ]

    found = causal_figures(scored, [], method="mean_diff", best=cells[1], step=1.0).backwards

    low, high = found.interval
    assert found.value == 0.25
    assert low is not None and high is not None and 0 < low < 0.1 and 0.6 < high < 0.8
