"""Protects the chance that vectors are held against: random directions as spread as
responses, and shuffled labels."""

from __future__ import annotations

import numpy as np
import pytest

from traitlens.assess.chance import Chance, chance_of_difference, random_by_layer
from traitlens.assess.directions import direction_quality
from traitlens.assess.random_directions import covariance_matched
from traitlens.errors import ShapeError
from traitlens.stats.separation import auroc

Rows = np.ndarray


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


N_PAIRS, N_QUESTIONS, N_ROLLOUTS = 5, 8, 3
INSTRUCTION, QUESTION, _ = np.indices((N_PAIRS, N_QUESTIONS, N_ROLLOUTS)).reshape(3, -1).tolist()
PROMPTS = list(zip(INSTRUCTION, QUESTION, strict=True))


def sides(gap: float, *, width: int = 120, questions: float = 1.0, seed: int = 0) -> list[Rows]:
    """Both sides of a trait that is `gap` strong in one of few directions of large spread, and in
    which each question has an effect of its own."""
    rng = np.random.default_rng(seed)
    spread = 10 / np.arange(1, width + 1)
    effects = questions * rng.standard_normal((N_QUESTIONS, 1, width)) * spread
    found = []
    for sign in (0.5, -0.5):
        rows = rng.standard_normal((len(PROMPTS), 1, width)) * spread + effects[QUESTION]
        rows[:, 0, 5] += sign * gap * spread[5]
        found.append(rows.astype(np.float32))
    return found


def ranked(pos: Rows, neg: Rows) -> Chance:
    both = (PROMPTS, PROMPTS)
    return chance_of_difference(pos, neg, prompts=both, questions=(QUESTION, QUESTION))


def test_a_planted_trait_beats_what_means_nothing_and_labels_at_random_do_not() -> None:
    planted = ranked(*sides(3.0))
    nothing = [ranked(*sides(0.0, seed=seed)) for seed in range(40)]

    assert max(planted.random_p[0], planted.shuffled_p[0]) < 0.01
    by_chance = np.array([[one.random_p[0], one.shuffled_p[0]] for one in nothing])
    # exact tests: 5 % of 40 are 2, and 7 or more have probability 0.3 %
    assert (by_chance <= 0.05).sum(axis=0).max() <= 6


def test_the_ranked_auroc_is_that_of_the_left_out_questions() -> None:
    pos, neg = sides(1.0, seed=5)

    planted = ranked(pos, neg)

    drawn = direction_quality(
        pos, neg, prompts=(PROMPTS, PROMPTS), folds={"q": (QUESTION, QUESTION)}
    ).leave_one_out["q"]
    reached = random_by_layer(pos, neg)[0].auroc
    assert planted.random_p[0] == pytest.approx((1 + (reached >= drawn.value[0]).sum()) / 201)


def test_random_directions_reach_on_the_rows_they_are_drawn_from_what_fresh_ones_do() -> None:
    pos, neg = sides(2.0, width=600, questions=0.0)
    rng = np.random.default_rng(1)
    spread = 10 / np.arange(1, 601)

    ours = random_by_layer(pos, neg)[0].auroc

    fresh = (rng.standard_normal((400, 600)) * spread).astype(np.float32)
    reached = auroc((pos[:, 0] @ fresh.T).astype(float), (neg[:, 0] @ fresh.T).astype(float))
    expected = np.maximum(reached, 1 - reached)
    for quantile in (0.5, 0.95):
        assert np.quantile(ours, quantile) == pytest.approx(
            np.quantile(expected, quantile), abs=0.03
        )


def test_labels_that_can_be_dealt_in_few_ways_only_are_not_ranked() -> None:
    pos, neg = sides(3.0)
    few = [k for k, (i, q) in enumerate(PROMPTS) if i == 0 and q < 5]
    prompts, questions = [PROMPTS[k] for k in few], [QUESTION[k] for k in few]

    found = chance_of_difference(
        pos[few], neg[few], prompts=(prompts, prompts), questions=(questions, questions)
    )

    assert np.isnan(found.shuffled_p[0]) and np.isfinite(found.random_p[0])


def test_perfect_vectors_are_told_apart_by_how_far_they_separate() -> None:
    pos, neg = np.random.default_rng(0).standard_normal((2, len(PROMPTS), 1, 3)).astype(np.float32)
    pos[:, 0, 0] += 80

    found = ranked(pos, neg)

    assert found.random_auroc[0] == 1
    assert found.random_p[0] < 0.02
