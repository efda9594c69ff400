"""Protects what is said of how alike two traits are: cosines that other instructions and questions
would give lie in the interval, and it is made of plain mean differences."""

from __future__ import annotations

import numpy as np
import pytest

from traitlens.assess.cosines import (
    LeftOut,
    cosine_matrices,
    interval_of_two_runs,
    interval_of_two_traits,
)

N_INSTRUCTIONS, N_QUESTIONS, D_MODEL = 5, 20, 64
CELLS = np.indices((N_INSTRUCTIONS, N_QUESTIONS)).reshape(2, -1)
PROMPTS = list(zip(*CELLS.tolist(), strict=True)) * 2
IS_POS = np.arange(len(PROMPTS)) < len(PROMPTS) // 2


def responses(
    rng: np.random.Generator, truth: np.ndarray, spread: float, *, noise: float = 2.0
) -> np.ndarray:
    """One a prompt and polarity, of a direction of length 1 from which instructions lead off."""
    instruction, question = CELLS
    sides = [
        sign * truth / 2
        + spread
        / np.sqrt(2 * D_MODEL)
        * rng.standard_normal((N_INSTRUCTIONS, D_MODEL))[instruction]
        + 0.3 / np.sqrt(2 * D_MODEL) * rng.standard_normal((N_QUESTIONS, D_MODEL))[question]
        + noise / np.sqrt(D_MODEL) * rng.standard_normal((len(question), D_MODEL))
        for sign in (1, -1)
    ]
    return np.concatenate(sides)[:, None].astype(np.float32)


def left_out(rows: np.ndarray) -> LeftOut:
    halves = np.arange(len(rows)) % 2 == 0
    return LeftOut.of(
        (rows[half], IS_POS[half], [one for one, is_in in zip(PROMPTS, half, strict=True) if is_in])
        for half in (halves, ~halves)
    )


@pytest.mark.parametrize("cosine", [0.0, 0.7])
@pytest.mark.parametrize("spread", [0.0, 0.4, 0.8])
def test_the_cosine_of_two_true_directions_is_covered(cosine: float, spread: float) -> None:
    covered = 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        basis = np.linalg.qr(rng.standard_normal((D_MODEL, 2)))[0].T
        second = cosine * basis[0] + np.sqrt(1 - cosine**2) * basis[1]
        both = [left_out(responses(rng, one, spread)) for one in (basis[0], second)]
        full = [one.vectors[0] for one in both]
        ((low, high),) = interval_of_two_traits([one.beside(full) for one in both], 0, 1)
        covered += bool(low <= cosine <= high)
        assert high - low < 1.2

    # 90 %, less two standard errors
    assert covered >= 20


@pytest.mark.parametrize("cosine", [0.9, 1.0])
def test_runs_that_each_instruction_led_off_elsewhere_may_be_of_one_direction(
    cosine: float,
) -> None:
    """What the instructions did to both directions makes their measured cosine smaller."""
    covered = 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        first, across = np.eye(D_MODEL)[:2]
        second = cosine * first + np.sqrt(1 - cosine**2) * across
        both = [left_out(responses(rng, one, 1.6, noise=0.5)) for one in (first, second)]
        ((low, high),) = interval_of_two_runs(*both)
        covered += bool(low <= cosine <= high)
        assert high - low < 1.2

    assert covered >= 20


def test_what_is_left_out_is_a_plain_mean_difference_of_the_rest() -> None:
    rows = responses(np.random.default_rng(0), np.eye(D_MODEL)[0], 0.4)

    found = left_out(rows)

    without = np.array([prompt[0] != 2 for prompt in PROMPTS])
    for k, kept in ((0, np.ones(len(rows), bool)), (3, without)):
        plain = rows[kept & IS_POS].mean(axis=0) - rows[kept & ~IS_POS].mean(axis=0)
        assert np.abs(found.vectors[k] - plain).max() < 1e-6
    assert len(found.vectors) == 1 + N_INSTRUCTIONS + N_QUESTIONS + len(CELLS[0])


def test_two_runs_of_the_same_prompts_are_surer_than_two_traits() -> None:
    rng = np.random.default_rng(1)
    truth = np.eye(D_MODEL)[0]
    first = responses(rng, truth, 0.8)
    again = first + (0.5 / np.sqrt(D_MODEL) * rng.standard_normal(first.shape)).astype(np.float32)
    both = [left_out(first), left_out(again)]
    full = [one.vectors[0] for one in both]

    ((low, high),) = interval_of_two_runs(*both)
    apart = interval_of_two_traits([one.beside(full) for one in both], 0, 1)[0]
    same = interval_of_two_runs(both[0], both[0])[0]

    measured = cosine_matrices(dict(zip("ab", full, strict=True)))[0, 0, 1]
    assert low <= measured <= high
    assert high - low < apart[1] - apart[0]
    assert same == pytest.approx([1.0, 1.0], abs=1e-4)
