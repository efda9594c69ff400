"""Protects what answers to held-out questions say of a vector: within instructions, and of all."""

from __future__ import annotations

import numpy as np
import pytest

from domain.plan.samples import ANY_POLARITY, POLARITIES
from tasks.stages.checks import Answered, evaluation_figures
from traitlens.assess.reading import FoldedDirections


def answered(seed: int) -> Answered:
    """Coordinate 0 reads the instruction, coordinate 1 what the judge scores, which the instruction
    changes too."""
    rng = np.random.default_rng(seed)
    asked = [(p, (q + k) % 5, q) for k in range(2) for q in range(20) for p in ANY_POLARITY]
    sign = np.array([{"positive": 1.0, "negative": -1.0, "plain": 0.0}[p] for p, *_ in asked])
    shown = 0.66 * sign + rng.standard_normal(len(asked))
    noise = rng.standard_normal((len(asked), 2))
    states = np.stack([3 * sign + noise[:, 0], shown + noise[:, 1]], axis=1)
    return Answered(
        activations=states[:, None].astype(np.float32),
        polarity=[p for p, *_ in asked],
        is_example=np.array(20 * shown * sign > 10),
        is_readable=np.ones(len(asked), bool),
        trait=50 + 20 * shown,
        prompts=[(i, q) for _, i, q in asked],
    )


def test_a_vector_that_reads_the_instruction_alone_does_not_follow_the_judge_within_it() -> None:
    vectors = {"instruction": np.array([[1.0, 0.0]]), "trait": np.array([[0.0, 1.0]])}
    reached: dict[str, list[float]] = {"pooled": [], "within": []}

    for seed in range(20):
        tested = evaluation_figures(vectors, answered(seed)).methods
        own, follows = tested["instruction"], tested["trait"].correlation_within
        assert own.correlation and own.correlation_within and follows
        reached["pooled"].append(own.correlation.value[0] or 0)
        reached["within"].append(own.correlation_within.interval[0][0] or 0)
        assert (own.correlation.interval[0][0] or 0) > 0
        assert (follows.interval[0][0] or 0) > 0

    assert np.mean(reached["pooled"]) == pytest.approx(0.44, abs=0.05)
    # one in forty by chance
    assert (np.array(reached["within"]) > 0).sum() <= 3


def test_a_direction_of_instructions_alone_does_not_hold_for_one_that_was_left_out() -> None:
    """Beside a trait that all pairs share each pair differs along an axis of its own."""
    rng = np.random.default_rng(0)
    asked = [(p, k % 5, k) for k in range(20) for p in POLARITIES for _ in range(3)]
    sign = np.array([1.0 if p == "positive" else -1.0 for p, *_ in asked])
    instruction = np.array([i for _, i, _ in asked])
    states = 0.3 * rng.standard_normal((len(asked), 2, 6))
    states[np.arange(len(asked)), :, 1 + instruction] += 3 * sign[:, None]
    states[:, 1, 0] += sign
    rows, labels = states.astype(np.float32), instruction.tolist()
    directions = FoldedDirections(range(5), 5)
    directions.add(rows, is_pos=sign > 0, labels=labels)
    answered = Answered(
        activations=rows,
        polarity=[p for p, *_ in asked],
        is_example=np.ones(len(asked), bool),
        is_readable=np.ones(len(asked), bool),
        trait=50 + 30 * sign,
        prompts=[(i, q) for _, i, q in asked],
    )
    vectors = {"mean_diff": rows[sign > 0].mean(0) - rows[sign < 0].mean(0)}

    found = evaluation_figures(vectors, answered, without_instruction=directions)

    own, left_out = found.methods["mean_diff"].readable, found.left_out_instruction_auroc
    assert own is not None and left_out is not None
    assert min(one or 0 for one in own.auroc.value) > 0.99
    # at layer 0 there is no trait
    assert abs((left_out.value[0] or 0) - 0.5) < 0.15
    assert (left_out.interval[1][0] or 0) > 0.85


def test_the_share_of_the_scores_that_lies_within_instructions_is_known() -> None:
    vectors = {"trait": np.array([[0.0, 1.0]])}
    found = [evaluation_figures(vectors, answered(seed)).score_within or 0 for seed in range(20)]

    # of conditions 0.66 apart beside a standard deviation of 1, less what 11 means take up
    assert np.mean(found) == pytest.approx((1 - 11 / 120) / (1 + 0.66**2 * 2 / 3), abs=0.03)


def test_all_readable_responses_count_and_not_those_alone_that_the_judge_called_extreme() -> None:
    vectors = {"trait": np.array([[0.0, 1.0]])}
    reached: dict[str, list[float]] = {"examples": [], "readable": []}

    for seed in range(20):
        own = evaluation_figures(vectors, answered(seed)).methods["trait"]
        assert own.separation and own.readable
        reached["examples"].append(own.separation.auroc.value[0] or 0)
        reached["readable"].append(own.readable.auroc.value[0] or 0)

    # the truth is that of normal projections 1.32 apart with a standard deviation of 1.41
    assert np.mean(reached["readable"]) == pytest.approx(0.745, abs=0.03)
    assert np.mean(reached["examples"]) > 0.85
