"""Protects the intervals of contrasts, angles and cosines: they cover the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.stages.quality import vector_quality
from tests.planted_sides import (
    quality_of,
)
from traitlens.assess.kept_rows import KeptRows
from traitlens.assess.quality import contrast_interval


def test_the_contrast_s_interval_moves_whole_questions_or_else_whole_prompts() -> None:
    prompts = [(i, q) for i in range(4) for q in range(5) for _ in range(10)]
    by_question = np.random.default_rng(0).normal(0, 20, 5)
    positive = [50 + by_question[q] for _, q in prompts]
    negative = [0.0] * 200

    shared = contrast_interval(positive, negative, prompts=(prompts, prompts))
    alone = [(0, k) for k in range(200)]
    ignoring = contrast_interval(positive, negative, prompts=(alone, alone))
    one_question = [(i, 0) for i, _ in prompts]
    by_prompt = contrast_interval(positive, negative, prompts=(one_question, one_question))

    assert shared and ignoring and by_prompt
    assert shared[0] < 50 + by_question.mean() < shared[1]
    assert shared[1] - shared[0] > 5 * (ignoring[1] - ignoring[0])
    one = [(0, 0)]
    assert contrast_interval([1.0, 2.0], [0.0], prompts=(one * 2, one)) is None


@pytest.mark.parametrize("n_questions", [4, 8, 12])
@pytest.mark.parametrize("question_effect", [0.0, 15.0])
def test_the_contrast_s_interval_covers_the_truth_in_200_data_sets(
    n_questions: int, question_effect: float
) -> None:
    prompts = [(i, q) for i in range(4) for q in range(n_questions) for _ in range(2)]
    covered = []

    for seed in range(200):
        rng = np.random.default_rng(seed)
        sides = []
        for center in (70.0, 20.0):
            question = np.repeat(np.tile(rng.normal(0, question_effect, n_questions), 4), 2)
            prompt = np.repeat(rng.normal(0, 15, 4 * n_questions), 2)
            noise = rng.normal(0, 10, len(prompts))
            sides.append((center + question + prompt + noise).tolist())
        found = contrast_interval(sides[0], sides[1], prompts=(prompts, prompts))
        assert found
        covered.append(found[0] <= 50.0 <= found[1])

    assert 0.9 <= np.mean(covered) <= 0.995


def test_the_angles_bound_holds_where_questions_have_effects_of_their_own() -> None:
    n_instructions, n_questions, width = 4, 12, 48
    labels = np.indices((n_instructions, n_questions)).reshape(2, -1)
    side = KeptRows(list(labels[0]), list(labels[1]), np.ones(48), np.zeros(48), np.zeros(48))
    inside = []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        truth = np.eye(width)[0] * 3.0
        rows = []
        for sign in (0.5, -0.5):
            effects = 0.8 * rng.standard_normal((1, n_questions, 3, width))
            noise = rng.standard_normal((n_instructions, n_questions, 3, width))
            rows.append((sign * truth + effects + noise).reshape(-1, 3, width).astype(np.float32))
        found = rows[0].mean(axis=0) - rows[1].mean(axis=0)
        angle = np.degrees(np.arccos(found[1] @ truth / 3.0 / np.linalg.norm(found[1])))
        difference = {"mean_diff": found}
        quality = vector_quality(difference, rows[0], rows[1], rows=(side, side))
        inside.append(angle <= (quality.mean_difference.angle_upper_degrees[1] or 90))

    assert np.mean(inside) >= 0.9


@pytest.mark.slow
def test_intervals_cover_the_truth_where_questions_have_effects_of_their_own() -> None:
    n_instructions, n_questions, n_rollouts, gap, effect = 4, 20, 2, 1.5, 0.6
    labels = np.indices((n_instructions, n_questions)).reshape(2, -1).repeat(n_rollouts, axis=1)
    instruction, question = labels.tolist()
    apart = gap / math.hypot(1, effect)
    truth = {
        "cohens_d": apart,
        "auroc": 0.5 * (1 + math.erf(apart / 2)),
        "accuracy": 0.5 * (1 + math.erf(apart / math.sqrt(8))),
    }
    covered: dict[str, list[bool]] = {name: [] for name in (*truth, "length")}

    for seed in range(200):
        rng = np.random.default_rng(seed)
        found, rows = [], []
        for sign in (0.5, -0.5):
            # of one coordinate, so that every direction is the true one; and of a covariate
            effects = effect * rng.standard_normal((n_questions, 2))[question]
            drawn = sign * gap + effects + rng.standard_normal((len(question), 2))
            found.append(drawn[:, :1, None].astype(np.float32))
            nothing = np.zeros(len(question))
            rows.append(KeptRows(instruction, question, drawn[:, 1], nothing, nothing))
        quality = quality_of(found[0], found[1], rows=(rows[0], rows[1]), seed=seed)
        half = quality.methods["mean_diff"].held_out_half
        length = quality.confounds["response_length"]
        assert half is not None and length.auroc is not None
        ends = {name: getattr(half, name).interval[0] for name in truth}
        ends["length"] = length.auroc.interval
        for name, (low, high) in ends.items():
            covered[name].append(low <= truth.get(name, truth["auroc"]) <= high)

    shares = {name: float(np.mean(one)) for name, one in covered.items()}
    # the accuracy of few rows takes few values
    assert all(0.9 <= share <= 0.995 for share in shares.values()), shares
