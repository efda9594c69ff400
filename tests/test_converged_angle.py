"""Protects `--until converged`: it stops where the direction is known, or where more rollouts
cannot make it known."""

from __future__ import annotations

from collections import Counter

import numpy as np

from domain.plan.readiness import WaveEnd, decide_wave_end
from domain.plan.spec import JudgeSpec, ModelSpec, RunSpec, TraitRef
from tasks.stages.converge import _certainty_of_rows

LIMIT = 15.0
TRAIT = TraitRef(name="evil", fingerprint="0" * 64, n_instructions=5, n_questions=20)
SPEC = RunSpec(
    traits=(TRAIT,),
    model=ModelSpec(model_id="x"),
    judge=JudgeSpec(model="x"),
    converged_degrees=LIMIT,
)


def sides(
    spread: float, n_rollouts: int, seed: int
) -> tuple[tuple[np.ndarray, np.ndarray], list[tuple[int, int]], np.ndarray]:
    """Activations [n, 3, 48] of both sides whose instructions differ by `spread` of the length."""
    rng = np.random.default_rng(seed)
    instruction, question, _ = np.indices((5, 20, n_rollouts)).reshape(3, -1)
    truth = rng.standard_normal(48)
    truth /= np.linalg.norm(truth)
    found = []
    for sign in (1, -1):
        of_pairs, of_questions = (
            size * rng.standard_normal((n, 48)) / 96**0.5 for size, n in ((spread, 5), (0.3, 20))
        )
        rows = sign * truth / 2 + of_pairs[instruction] + of_questions[question]
        rows = rows + 2 * rng.standard_normal(rows.shape) / 48**0.5
        found.append(np.repeat(rows[:, None], 3, axis=1).astype(np.float32))
    return (
        (found[0], found[1]),
        list(zip(instruction.tolist(), question.tolist(), strict=True)),
        truth,
    )


def ended(spread: float, n_rollouts: int, seed: int) -> tuple[WaveEnd, float]:
    """How a look ends, and the true angle in degrees."""
    both, prompts, truth = sides(spread, n_rollouts, seed)
    found = _certainty_of_rows(both, prompts=(prompts, prompts))
    difference = both[0][:, 1].mean(axis=0) - both[1][:, 1].mean(axis=0)
    cosine = float(difference @ truth / np.linalg.norm(difference))
    return decide_wave_end(found, SPEC, is_last=False), float(np.degrees(np.arccos(cosine)))


def test_a_direction_that_is_called_known_is_within_the_limit() -> None:
    looks = [ended(spread, 4, seed) for seed in range(30) for spread in (0.0, 0.2, 0.3, 0.4, 0.5)]

    over = [angle > LIMIT for end, angle in looks if end == WaveEnd.ENOUGH]

    assert len(over) > 40
    assert np.mean(over) <= 0.05


def test_where_instructions_differ_more_of_them_are_asked_for_and_not_more_rollouts() -> None:
    differ = Counter(ended(0.8, 4, seed)[0] for seed in range(10))
    alike = Counter(ended(0.0, 1, seed)[0] for seed in range(10))

    assert differ[WaveEnd.MORE_INSTRUCTIONS] >= 8
    assert alike[WaveEnd.MORE_INSTRUCTIONS] == 0
