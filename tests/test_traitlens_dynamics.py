"""Protects dynamics: the seeds' formulas as written naively, and scale-free ones that mean it."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traitlens.dynamics.change_point import (
    NeutralSteps,
    find_change_point,
)
from traitlens.dynamics.trajectory import (
    acceleration,
    analyze,
    event_aligned_average,
    find_commitment_point,
    find_decision_point,
    half_life,
    peak_velocity_sd,
    persistence,
    persistence_absolute,
    velocity,
)
from traitlens.errors import NonFiniteError, ShapeError

# Quarters are exact in float32, so a naive formula and ours cannot differ by rounding.
SCORES = st.lists(st.integers(-40, 40).map(lambda i: i / 4), min_size=1, max_size=30)


@given(SCORES)
def test_velocity_and_acceleration_are_naive_differences(scores: list[float]) -> None:
    steps = [b - a for a, b in itertools.pairwise(scores)]

    assert velocity(scores).tolist() == steps
    assert acceleration(scores).tolist() == [b - a for a, b in itertools.pairwise(steps)]


@given(SCORES)
def test_the_commitment_point_is_the_first_small_acceleration(scores: list[float]) -> None:
    found = None
    for i in range(len(scores) - 2):
        if found is None and abs(scores[i + 2] - 2 * scores[i + 1] + scores[i]) < 0.1:
            found = i

    assert find_commitment_point(scores) == found


@given(SCORES)
def test_persistence_counts_tokens_after_the_peak_above_half_of_it(scores: list[float]) -> None:
    sizes = [abs(s) for s in scores]
    peak = sizes.index(max(sizes))

    assert persistence(scores) == sum(s > 0.5 * sizes[peak] for s in sizes[peak + 1 :])


@given(SCORES)
def test_the_snippets_persistence_starts_at_the_highest_score(scores: list[float]) -> None:
    peak = scores.index(max(scores))

    assert persistence_absolute(scores) == sum(abs(s) > 0.5 for s in scores[peak:])


def test_the_decision_point_rises_above_the_first_three() -> None:
    assert find_decision_point([1.0, 2.0, 3.0, 2.9, 3.1, 0.0]) == 4
    assert find_decision_point([1.0, 2.0, 3.0, 2.0]) is None
    assert find_decision_point([9.0, 9.0]) is None


def test_analyze_gives_the_documents_format_and_survives_json() -> None:
    tokens = ["The", " capital", " of", " France", " is", " Paris", "."]

    result = json.loads(json.dumps(analyze(tokens, {"retrieval": range(7)}, prompt="Where?")))

    assert list(result) == ["prompt", "response", "tokens", "trait_scores", "dynamics"]
    assert result["response"] == "The capital of France is Paris."
    dynamics = result["dynamics"]["retrieval"]
    assert list(dynamics)[:6] == [
        "commitment_point", "peak_velocity", "avg_velocity",
        "persistence", "velocity_profile", "acceleration_profile",
    ]  # fmt: skip
    assert (len(dynamics["velocity_profile"]), len(dynamics["acceleration_profile"])) == (6, 5)


@pytest.mark.parametrize("n_tokens", [0, 1, 2, 5])
def test_short_responses_are_analyzed_without_complaint(n_tokens: int) -> None:
    scores = [0.5] * n_tokens

    dynamics = analyze(["x"] * n_tokens, {"t": scores})["dynamics"]["t"]

    assert dynamics["peak_velocity"] == 0
    assert dynamics["scale_free"]["commitment_point"] is None


def test_scores_that_do_not_match_the_tokens_are_refused() -> None:
    with pytest.raises(ShapeError, match="evil: 2 scores for 3 tokens"):
        analyze(["a", "b", "c"], {"evil": [1.0, 2.0]})
    with pytest.raises(NonFiniteError, match="token 1"):
        analyze(["a", "b"], {"evil": [1.0, float("nan")]})


@given(st.floats(1e-3, 1e3), st.floats(-100, 100))
@settings(max_examples=30)
def test_scale_free_measures_ignore_scale_and_shift(scale: float, shift: float) -> None:
    scores = np.random.default_rng(0).standard_normal(40)
    scores[25:] += 4

    plain, other = (find_change_point(x) for x in (scores, scale * scores + shift))

    assert plain is not None
    assert other is not None
    assert (other.index, other.p_value) == (plain.index, plain.p_value)
    assert other.height_sd == pytest.approx(plain.height_sd, rel=1e-6)
    assert half_life(scale * scores + shift) == half_life(scores)
    assert peak_velocity_sd(scale * scores + shift) == pytest.approx(
        peak_velocity_sd(scores), rel=1e-6
    )


def correlated(n: int, correlation: float, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(n)
    noise[1:] *= np.sqrt(1 - correlation**2)
    for t in range(1, n):
        noise[t] += correlation * noise[t - 1]
    return noise


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_a_step_is_found_where_it_is_and_noise_is_not_called_one(correlation: float) -> None:
    rng = np.random.default_rng(0)
    noise = [correlated(60, correlation, rng) for _ in range(150)]

    false_alarms = np.mean([find_change_point(x).p_value <= 0.05 for x in noise])  # type: ignore[union-attr]
    stepped = [find_change_point(x + 4.0 * (np.arange(60) >= 37)) for x in noise]

    assert false_alarms < 0.1
    assert np.mean([c.p_value <= 0.05 for c in stepped]) > 0.9  # type: ignore[union-attr]
    assert np.median([abs(c.index - 37) for c in stepped]) == 0  # type: ignore[union-attr]


def neutral_like(n: int, *, seed: int, n_tokens: int = 40) -> list[np.ndarray]:
    """Responses whose scores drift, rise along the response, and begin with a token far from the
    rest, farther in some than in others."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        x = correlated(n_tokens, 0.42, rng) + np.linspace(0, 1.5, n_tokens)
        x += 0.05 * np.cumsum(rng.standard_normal(n_tokens))
        x[0] += 12 + 3 * rng.standard_normal()
        made.append(x)
    return made


@pytest.mark.parametrize("n_tokens", [10, 40])
def test_neutral_responses_step_as_often_as_stated_held_against_others(n_tokens: int) -> None:
    alarms, found = [], []
    for seed in range(5):
        null = NeutralSteps(neutral_like(160, seed=seed))
        new = neutral_like(200, seed=100 + seed)
        changes = [find_change_point(x[:n_tokens], null=null) for x in new]
        alarms += [change.p_value <= 0.05 for change in changes if change]
        stepped = [x + 5 * (np.arange(40) >= 20) for x in new[:20]]
        found += [find_change_point(x, null=null) for x in stepped]

    assert 0.03 < np.mean(alarms) < 0.07
    assert np.mean([change.p_value <= 0.05 for change in found if change]) > 0.9


def test_a_first_token_far_from_the_rest_is_no_step() -> None:
    rng = np.random.default_rng(0)
    noise = [correlated(40, 0.42, rng) for _ in range(150)]
    for x in noise:
        x[0] += 20

    changes = [find_change_point(x) for x in noise]

    assert np.mean([change.p_value <= 0.05 for change in changes if change]) < 0.1
    assert all(change.index > 1 for change in changes if change)


def test_too_few_neutral_responses_of_a_length_leave_the_simulated_ones() -> None:
    scores = np.random.default_rng(0).standard_normal(30)
    short = NeutralSteps(neutral_like(100, seed=0, n_tokens=20))

    assert find_change_point(scores, null=short) == find_change_point(scores)


def test_half_life_is_contiguous_and_includes_the_peak() -> None:
    assert half_life(np.array([0, 0, 0, 10, 8, 2, 9, 0, 0.0])) == 2
    assert half_life(np.array([0, 0, 10.0])) == 1
    assert half_life(np.ones(5)) == 0


def test_event_aligned_averages_line_up_events_and_count_who_is_there() -> None:
    average = event_aligned_average(
        [[0, 0, 5, 1], [0, 7], [3, 3, 3]], [2, 1, None], before=1, after=1
    )

    assert average.offsets.tolist() == [-1, 0, 1]
    assert average.mean.tolist() == [0, 6, 1]
    assert average.count.tolist() == [2, 2, 1]
    assert average.without_event == 1


def test_event_aligned_intervals_cover_the_mean_they_estimate() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(60):
        lines = rng.standard_normal((40, 9)) + np.arange(9)
        average = event_aligned_average(list(lines), [4] * 40, before=1, after=1)
        covered.append((average.low <= [3, 4, 5]) & (average.high >= [3, 4, 5]))

    assert 0.88 < np.mean(covered) < 0.99


def test_an_event_outside_its_trajectory_is_refused() -> None:
    with pytest.raises(ValueError, match="token 4 of 3"):
        event_aligned_average([[1, 2, 3]], [4])


def test_responses_without_any_event_have_an_unknown_average() -> None:
    found = event_aligned_average([[1.0, 2.0], [3.0]], [None, None], before=1, after=1)

    assert np.isnan([*found.mean, *found.low, *found.high]).all()
    assert (found.count.tolist(), found.without_event) == ([0, 0, 0], 2)
