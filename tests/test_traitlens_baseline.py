"""Protects the meaning of z and of the false-alarm rate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

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
    long_enough = [one[:10].mean(axis=0) for one in baseline.responses if len(one) >= 10]

    token_z = baseline.token_z(baseline.projections)
    response_z = baseline.response_z(np.array(long_enough), 10)

    for z in (token_z, response_z):
        np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(z.std(axis=0, ddof=1), 1, rtol=1e-6)


def test_z_does_not_depend_on_the_scale_or_the_origin_of_the_scores() -> None:
    plain, new = responses(60), responses(1, seed=9)[0]

    z = Baseline.of(plain).token_z(new)
    other = Baseline.of([100 * one - 7 for one in plain]).token_z(100 * new - 7)

    np.testing.assert_allclose(z, other, rtol=1e-3, atol=1e-3)


LENGTHS = (3, 5, 10, 20, 40)
LAG_1 = 0.42


def correlated(questions: np.ndarray, *, seed: int, k: int = 3, n_tokens: int = 40) -> np.ndarray:
    """Answers [n, tokens, k] to questions [n] with an effect of their own, each answer with a level
    of its own, and tokens with the correlation that real ones have; the first far from the rest."""
    random = np.random.default_rng(seed)
    effects = np.random.default_rng(12345).normal(size=(10_000, k))[questions]
    level = effects + 0.5 * random.normal(size=(len(questions), k))
    x: np.ndarray = random.normal(size=(n_tokens, len(questions), k))
    x[1:] *= np.sqrt(1 - LAG_1**2)
    for t in range(1, n_tokens):
        x[t] += LAG_1 * x[t - 1]
    x[0] += 8
    tokens: np.ndarray = (level + 2 * x).transpose(1, 0, 2).astype(np.float32)
    return tokens


def rates(n_questions: int, rollouts: int, *, trials: int = 30) -> dict[int, np.ndarray]:
    """Length -> the share [4] of answers to new questions over the thresholds for 5 %, by trait and
    by any of three."""
    over: dict[int, list[np.ndarray]] = {n: [] for n in LENGTHS}
    for trial in range(trials):
        asked = np.tile(np.arange(n_questions), rollouts) + 200 * trial
        baseline = Baseline.of(list(correlated(asked, seed=trial)), asked.tolist())
        new = correlated(6000 + np.arange(400), seed=1000 + trial)
        for n in LENGTHS:
            z = baseline.response_z(new[:, :n].mean(axis=1), n)
            z = np.concatenate([z, z.max(axis=1, keepdims=True)], axis=1)
            over[n].append((z > baseline.threshold(0.05, n)).mean(axis=0))
    return {n: np.mean(shares, axis=0) for n, shares in over.items()}


@pytest.mark.parametrize(("n_questions", "rollouts"), [(160, 1), (40, 5)])
def test_neutral_answers_to_new_questions_are_flagged_as_often_as_stated_at_every_length(
    n_questions: int, rollouts: int
) -> None:
    for n_tokens, shares in rates(n_questions, rollouts).items():
        assert (shares[:-1] > 0.03).all() and (shares[:-1] < 0.08).all(), (n_tokens, shares)
        assert shares[-1] < 0.07, (n_tokens, shares)


def test_a_neutral_answer_has_a_marked_token_anywhere_as_often_as_stated() -> None:
    shares = []
    for trial in range(30):
        asked = np.arange(160) + 200 * trial
        baseline = Baseline.of(list(correlated(asked, seed=trial)), asked.tolist())
        new = correlated(6000 + np.arange(400), seed=1000 + trial)
        highest = baseline.token_z(new).max(axis=1)
        over = highest.max(axis=1) > baseline.threshold(0.05, 40, "highest")[-1]
        shares.append(over.mean())

    assert 0.03 < np.mean(shares) < 0.07


def test_the_rate_of_held_out_answers_is_that_of_new_ones_with_an_exact_interval() -> None:
    asked = np.arange(160)
    baseline = Baseline.of(list(correlated(asked, seed=1)), asked.tolist())

    found = baseline.held_out_rate(0.05, 10)

    assert found.n == 160
    assert (found.share.low < 0.05).all() and (found.share.high > 0.04).all()
    flagged = round(float(found.share.value[0]) * 160)
    # Clopper and Pearson: the ends leave 2.5 % each in the binomial's tails
    tail = binom.sf(flagged - 1, 160, found.share.low[0])
    other = binom.cdf(flagged, 160, found.share.high[0])
    assert (tail, other) == (pytest.approx(0.025), pytest.approx(0.025))


def test_a_response_longer_than_enough_neutral_ones_is_held_against_nothing() -> None:
    short, long = (
        correlated(np.arange(60), seed=0, n_tokens=10),
        correlated(np.arange(60, 75), seed=0, n_tokens=40),
    )
    baseline = Baseline.of([*short, *long])

    assert baseline.longest(0.05) == 10
    assert np.isfinite(baseline.threshold(0.05, 10)).all()
    assert np.isinf(baseline.threshold(0.05, 11)).all()
    assert np.isnan(baseline.response_z(np.zeros(3), 41)).all()


def test_too_few_questions_promise_nothing_and_flag_nothing() -> None:
    baseline = Baseline.of(responses(60), [i % 15 for i in range(60)])

    assert np.isinf(baseline.threshold(0.05, 3)).all()
    assert np.isfinite(baseline.threshold(0.1, 3)).all()
    assert (baseline.longest(0.05), baseline.longest(0.1) > 0) == (0, True)


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
        Baseline.of(responses(3)).threshold(1.0, 3)
