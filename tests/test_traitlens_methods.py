"""Protects the four methods: a planted direction comes back, whatever the sides look like."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from traitlens.errors import NonFiniteError, ShapeError
from traitlens.methods import METHODS, GradientMethod, ICAMethod, MeanDifferenceMethod, ProbeMethod
from traitlens.methods.gradient import gradient
from traitlens.methods.ica import ica
from traitlens.methods.mean_diff import mean_diff
from traitlens.methods.probe import fit_logistic, probe

FLOOR = {"mean_diff": 0.99, "probe": 0.95, "gradient": 0.95, "ica": 0.9}


def planted(
    n_pos: int, n_neg: int, *, layers: int = 3, width: int = 64, gap: float = 6.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sides that differ by `gap` along unit directions [layers, width], around a far-off mean."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((layers, width))
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    mean = 5 * rng.standard_normal((layers, width))
    sides = [
        (mean + rng.standard_normal((n, layers, width)) + sign * truth * gap / 2).astype(np.float32)
        for n, sign in ((n_pos, 1), (n_neg, -1))
    ]
    return sides[0], sides[1], truth


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    cosines: np.ndarray = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return cosines


@pytest.mark.parametrize("name", METHODS)
def test_a_method_recovers_a_planted_direction_at_every_layer(name: str) -> None:
    pos, neg, truth = planted(400, 300)

    result = METHODS[name](pos, neg)

    assert cosine(result.vectors, truth).min() > FLOOR[name]
    assert result.vectors.dtype == np.float32


@pytest.mark.parametrize("name", METHODS)
def test_the_length_of_a_vector_is_the_gap_between_the_sides(name: str) -> None:
    pos, neg, _ = planted(400, 300, gap=6.0)

    norms = np.linalg.norm(METHODS[name](pos, neg).vectors, axis=1)

    assert norms == pytest.approx(6.0, rel=0.1)


@pytest.mark.parametrize("name", METHODS)
def test_swapping_the_sides_turns_the_vector_round(name: str) -> None:
    pos, neg, _ = planted(80, 80)

    forth, back = METHODS[name](pos, neg).vectors, METHODS[name](neg, pos).vectors

    assert cosine(forth, -back).min() > 0.99


@pytest.mark.parametrize("name", METHODS)
def test_two_positives_and_five_negatives_are_enough_to_point_the_right_way(name: str) -> None:
    pos, neg, truth = planted(2, 5, width=16, gap=12.0)

    vectors = METHODS[name](pos, neg).vectors

    assert cosine(vectors, truth).min() > 0.5


@pytest.mark.parametrize("name", METHODS)
def test_equal_rows_give_a_zero_vector(name: str) -> None:
    rows = np.full((6, 2, 8), 3.0, dtype=np.float32)

    vectors = METHODS[name](rows, rows[:4]).vectors

    assert (vectors == 0).all()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_non_finite_activation_is_refused_by_side_row_and_layer(name: str, bad: float) -> None:
    pos, neg, _ = planted(6, 6, width=8)
    neg[4, 2, 7] = bad

    with pytest.raises(NonFiniteError, match=r"negative row 4, layer 2 \(after block 1\)"):
        METHODS[name](pos, neg)


@pytest.mark.parametrize("name", METHODS)
def test_sides_of_different_models_are_refused(name: str) -> None:
    with pytest.raises(ShapeError, match="one model"):
        METHODS[name](np.ones((3, 2, 8)), np.ones((3, 2, 9)))


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_tensors_give_the_vector_of_their_float32_copies(name: str) -> None:
    pos, neg, _ = planted(60, 50, width=32)
    half = [torch.from_numpy(side).to(torch.bfloat16) for side in (pos, neg)]

    vectors = METHODS[name](half[0], half[1]).vectors

    copies = METHODS[name](half[0].float().numpy(), half[1].float().numpy()).vectors
    assert np.allclose(vectors, copies, atol=1e-5)


def test_mean_difference_of_the_largest_finite_numbers_is_finite() -> None:
    rows = np.full((20, 1, 2), 3e38, dtype=np.float32)

    assert mean_diff(rows, rows / 3).vectors == pytest.approx(2e38)


def test_mean_difference_sums_beyond_float32() -> None:
    rows = np.full((4000, 1, 1), 16_777.217, dtype=np.float32)

    difference = mean_diff(rows, np.zeros((1, 1, 1), dtype=np.float32)).vectors

    assert difference[0, 0] == np.float32(16_777.217)


@pytest.mark.parametrize("c", [1e-3, 1.0])
def test_a_probe_reaches_the_optimum_of_scikit_learns_objective(c: float) -> None:
    pos, neg, _ = planted(150, 150, layers=1, width=100, gap=3.0)
    rows = np.concatenate([pos, neg])[:, 0]
    standard = ((rows - rows.mean(0)) / rows.std(0)).astype(np.float64)
    is_pos = np.arange(300) < 150

    fit = fit_logistic(standard, is_pos, c=c)

    best = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(standard, is_pos)
    assert cosine(fit.weights, best.coef_[0]) > 0.999_999
    assert fit.offset == pytest.approx(best.intercept_[0], abs=1e-4)


def test_a_probe_chooses_more_penalty_for_noise_than_its_weakest() -> None:
    pos, neg, truth = planted(100, 100, layers=1, width=200, gap=3.0)

    chosen, weakest = probe(pos, neg), probe(pos, neg, c=1.0)

    assert chosen.details["c"][0] < 1.0
    assert cosine(chosen.vectors, truth)[0] > cosine(weakest.vectors, truth)[0]


def test_held_out_accuracy_of_a_probe_is_chance_where_nothing_is_planted() -> None:
    pos, neg, _ = planted(60, 60, layers=1, width=200, gap=0.0)

    details = probe(pos, neg).details

    assert details["train_acc"][0] > 0.9
    assert 0.3 < details["held_out_acc"][0] < 0.7


def test_held_out_accuracy_does_not_profit_from_rollouts_of_one_prompt() -> None:
    rng = np.random.default_rng(0)
    prompts = rng.standard_normal((2, 12, 1, 1, 60))  # nothing but prompts to remember
    sides = (prompts + 0.01 * rng.standard_normal((2, 12, 10, 1, 60))).astype(np.float32)
    pos, neg = sides.reshape(2, 120, 1, 60)
    labels = np.repeat(np.arange(12), 10)

    grouped = probe(pos, neg, groups=(labels, labels + 12)).details["held_out_acc"][0]

    assert probe(pos, neg).details["held_out_acc"][0] > 0.95
    assert grouped < 0.75


def test_a_probe_of_sides_without_spread_is_the_mean_difference() -> None:
    pos, neg, _ = planted(1, 1, layers=1)
    many = [np.repeat(side, 6, axis=0) for side in (pos, neg)]

    for sides in ((pos, neg), many):
        assert cosine(probe(*sides).vectors, mean_diff(pos, neg).vectors) == pytest.approx(1.0)


def test_a_probe_sees_a_coordinate_that_separates_without_an_exception() -> None:
    pos, neg, _ = planted(60, 60, layers=1, gap=0.0)
    pos[:, :, 7], neg[:, :, 7] = 1.0, 0.0

    vector = probe(pos, neg).vectors[0]

    assert vector[7] > 0.9 * np.linalg.norm(vector)


def test_the_bias_of_a_probe_belongs_to_its_vector() -> None:
    pos, neg, _ = planted(100, 100, layers=1)

    result = probe(pos, neg)

    says_positive = [rows[:, 0] @ result.vectors[0] + result.details["bias"][0] > 0
                     for rows in (pos, neg)]  # fmt: skip
    accuracy = 0.5 * (says_positive[0].mean() + 1 - says_positive[1].mean())
    assert accuracy == pytest.approx(result.details["train_acc"][0])


def test_ica_chooses_the_component_that_separates_best() -> None:
    pos, neg, _ = planted(300, 300)

    details = ica(pos, neg, n_components=8).details

    chosen = details["component_idx"]
    assert (details["separation_scores"].argmax(axis=1) == chosen).all()
    assert details["all_components"].shape == (3, 8, 64)


def test_gradient_forgets_its_random_start() -> None:
    pos, neg, _ = planted(100, 80, width=128)

    first, second = gradient(pos, neg, seed=1), gradient(pos, neg, seed=2)

    assert first.details["converged"].all()
    assert cosine(first.vectors, second.vectors).min() > 0.9999


def test_gradient_is_not_mean_difference_again() -> None:
    rng = np.random.default_rng(0)
    pos, neg, truth = planted(300, 300, layers=1, width=8)
    far = np.zeros(8)
    far[0] = 200.0  # some positives are far beyond the margin, off to one side
    pos[:30, 0] += (far + 20 * truth[0] + rng.standard_normal((30, 8))).astype(np.float32)

    widest, difference = gradient(pos, neg).vectors, mean_diff(pos, neg).vectors

    assert cosine(difference, truth)[0] < 0.5
    assert cosine(widest, truth)[0] > 0.8


@pytest.mark.parametrize(
    "method",
    [MeanDifferenceMethod(), ProbeMethod(), ICAMethod(n_components=10), GradientMethod(lr=0.1)],
    ids=lambda method: type(method).__name__,
)
def test_the_classes_take_one_layer_or_all_and_give_tensors_of_that_shape(method) -> None:  # type: ignore[no-untyped-def]
    pos, neg, _ = planted(30, 20, width=16)

    one, every = method.extract(pos[:, 1], torch.from_numpy(neg[:, 1])), method.extract(pos, neg)

    assert one["vector"].shape == (16,)
    assert every["vector"].shape == (3, 16)
    assert torch.allclose(one["vector"], every["vector"][1], atol=1e-4)


def test_held_out_accuracy_of_a_probe_is_chance_on_noise_that_is_wide_and_of_few_prompts() -> None:
    pos, neg, _ = planted(10, 10, layers=8, width=2304, gap=0.0)

    held_out = probe(pos, neg).details["held_out_acc"]

    assert 0.3 < held_out.mean() < 0.6


def test_a_probe_that_can_hold_out_nothing_says_so() -> None:
    pos, neg, truth = planted(40, 40)

    # without the only group of the positives nothing is left to fit on
    found = probe(pos, neg, groups=(["a"] * 40, ["a", "b"] * 20))

    assert np.isnan(found.details["held_out_acc"]).all()
    assert (cosine(found.vectors, truth) > 0.5).all()


def test_every_fold_of_a_probe_holds_both_polarities_where_few_groups_have_both() -> None:
    rng = np.random.default_rng(0)
    pos, neg = (rng.standard_normal((5 * n, 3, 8)) + shift for n, shift in ((2, 3.0), (3, 0.0)))
    groups = (np.repeat(["both", "alone"], 5), np.repeat(["both", "one", "two"], 5))

    held_out = probe(pos, neg, groups=groups).details["held_out_acc"]

    assert (held_out > 0.9).all()
