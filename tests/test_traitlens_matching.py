"""Protects from what else tells the sides apart: vectors are compared at equal length."""

from __future__ import annotations

import numpy as np

from traitlens.assess.matching import FEWEST_PAIRS, Matched, matched_pairs, matched_separation

N = 200


def lengths(apart: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of both sides whose means are so many standard deviations apart."""
    rng = np.random.default_rng(seed)
    return rng.normal(100 + 20 * apart, 20, N), rng.normal(100, 20, N)


def compared(length: tuple[np.ndarray, np.ndarray], *, trait: float, seed: int = 0) -> Matched:
    """Of a vector that reads a trait, so strong, beside a saturating function of length."""
    rng = np.random.default_rng(seed)
    sides = []
    for sign, one in zip((0.5, -0.5), length, strict=True):
        reads = sign * trait + rng.standard_normal(N)
        saturates = np.tanh((one - 110) / 10) + 0.05 * rng.standard_normal(N)
        sides.append(np.stack([reads, saturates], axis=1)[:, None].astype(np.float32))
    vector = np.array([[1.0, 0.0]] if trait else [[0.0, 1.0]], dtype=np.float32)
    prompts = (list(range(N)), list(range(N)))
    return matched_separation(vector, sides[0], sides[1], covariate=length, prompts=prompts)


def test_a_function_of_length_alone_separates_nothing_at_equal_length() -> None:
    for seed in range(5):
        found = compared(lengths(1.5, seed), trait=0.0, seed=seed)

        assert found.auroc is not None and found.n_pairs >= 50
        assert found.auroc.low[0] < 0.5 and found.auroc.value[0] < 0.6


def test_a_true_direction_survives() -> None:
    found = compared(lengths(1.5), trait=2.0)

    assert found.auroc is not None
    assert found.auroc.low[0] > 0.7


def test_sides_that_do_not_overlap_tell_nothing() -> None:
    found = compared(lengths(10.0), trait=2.0)

    assert found.auroc is None and found.n_pairs < FEWEST_PAIRS


def test_pairs_are_alike_and_use_each_row_once() -> None:
    pos, neg = lengths(1.0)

    pairs = matched_pairs(pos, neg)

    assert np.abs(pos[pairs[:, 0]] - neg[pairs[:, 1]]).max() < 0.11 * 20
    assert all(len(set(column)) == len(pairs) for column in pairs.T.tolist())
    whether = (np.array([0.0, 1, 1]), np.array([1.0, 0, 0]))
    assert len(matched_pairs(*whether)) == 2
