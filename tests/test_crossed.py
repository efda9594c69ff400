"""Protects the interval over instructions and questions: what it covers, and what it is made of."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coverage import is_auroc_covered, is_rise_covered
from traitlens.errors import ShapeError
from traitlens.stats.correlation import weighted_correlation
from traitlens.stats.crossed import (
    Design,
    Factor,
    crossed_interval,
    standard_deviations,
    unseen_variance,
    weighted_difference,
    weighted_mean,
)
from traitlens.stats.separation import auroc_over_prompts

DESIGN = (5, 20, 10)


def rows_of(n_instructions: int, n_questions: int, n_rollouts: int) -> tuple[np.ndarray, ...]:
    """Instruction, question and whether positive, of every row of a design."""
    cells = np.indices((n_instructions, n_questions, n_rollouts)).reshape(3, -1)
    instruction, question = np.tile(cells[:2], 2)
    return instruction, question, np.arange(len(question)) < len(question) // 2


def scores(
    rng: np.random.Generator,
    *,
    instructions: float,
    questions: float = 8.0,
    rollouts: float = 15.0,
    gap: float = 40.0,
) -> tuple[np.ndarray, ...]:
    """Scores of a design, the sides drawn apart, with its labels."""
    instruction, question, is_pos = rows_of(*DESIGN)
    side = (~is_pos).astype(int)
    by_instruction = instructions * rng.standard_normal((2, DESIGN[0]))[side, instruction]
    by_question = questions * rng.standard_normal((2, DESIGN[1]))[side, question]
    noise = rollouts * rng.standard_normal(len(side))
    return gap * is_pos + by_instruction + by_question + noise, is_pos, instruction, question


@pytest.mark.parametrize("instructions", [0.0, 8.0])
def test_the_contrast_is_covered_whether_or_not_instructions_differ(instructions: float) -> None:
    covered = 0
    for seed in range(100):
        values, is_pos, instruction, question = scores(
            np.random.default_rng(seed), instructions=instructions
        )
        found = crossed_interval(weighted_difference(values, is_pos), instruction, question)
        covered += bool(found.low <= 40 <= found.high)

    # 90 to 99 %, less three standard errors of 100 simulations below
    assert 81 <= covered <= 100


def test_standard_deviations_are_those_that_were_drawn() -> None:
    found = []
    for seed in range(60):
        values, is_pos, instruction, question = scores(
            np.random.default_rng(seed), instructions=12.0, questions=6.0, rollouts=15.0
        )
        # the filter keeps some of either side
        kept = np.random.default_rng(seed).random(len(values)) < np.where(is_pos, 0.5, 0.2)
        one = standard_deviations(values[kept], is_pos[kept], instruction[kept], question[kept])
        found.append([one.instruction**2, one.question**2, one.combination**2, one.rollout**2])

    drawn = np.sqrt(np.mean(found, axis=0))
    # of a difference between two sides that are drawn apart, but for the rollouts of one side
    assert drawn[[0, 1, 3]] == pytest.approx([12 * 2**0.5, 6 * 2**0.5, 15], rel=0.1)
    assert drawn[2] < 5


def test_a_design_says_what_would_narrow_the_interval_most() -> None:
    values, is_pos, instruction, question = scores(
        np.random.default_rng(0), instructions=15.0, questions=0.0
    )
    found = standard_deviations(values, is_pos, instruction, question)

    now, then = found.half_width(found.design), found.half_width(Design(10, 20, 10))

    assert (found.design.instructions, found.design.questions) == (5, 20)
    assert found.design.rollouts == pytest.approx(10)
    assert found.narrows_most == Factor.INSTRUCTIONS
    assert then < 0.7 * now
    assert found.half_width(Design(5, 20, 1000)) > 0.9 * now


def test_where_a_factor_has_one_level_the_other_stands_alone() -> None:
    values = np.random.default_rng(0).standard_normal(40)
    groups, same = np.repeat(np.arange(8), 5), np.zeros(40)
    means = values.reshape(8, 5).mean(axis=1)

    by_question = crossed_interval(lambda w: weighted_mean(values, w), same, groups)
    by_instruction = crossed_interval(lambda w: weighted_mean(values, w), groups, same)
    neither = crossed_interval(lambda w: weighted_mean(values, w), same, same)

    # Student's t of eight means: 2.365 is its quantile with seven degrees of freedom
    half = 2.3646 * means.std(ddof=1) / 8**0.5
    assert by_question.high - by_question.value == pytest.approx(half, rel=1e-3)
    assert by_instruction.high == pytest.approx(by_question.high)
    assert np.isnan([neither.low, neither.high]).all()


def test_a_level_without_which_nothing_is_left_makes_its_factor_unknown() -> None:
    values, is_pos, instruction, question = scores(np.random.default_rng(0), instructions=8.0)
    kept = ~is_pos | (instruction == 2)
    statistic = weighted_difference(values[kept], is_pos[kept])

    found = crossed_interval(statistic, instruction[kept], question[kept])

    alone = crossed_interval(statistic, np.zeros(kept.sum()), question[kept])
    assert found.high == pytest.approx(alone.high)


def test_many_statistics_at_once_are_each_alone() -> None:
    values, _, instruction, question = scores(np.random.default_rng(0), instructions=8.0)
    others = np.random.default_rng(1).standard_normal((len(values), 3)) + 0.1 * values[:, None]

    every = crossed_interval(weighted_correlation(others, values), instruction, question)
    one = crossed_interval(weighted_correlation(others[:, 1:2], values), instruction, question)

    assert every.low[1] == pytest.approx(one.low[0])
    assert np.tanh(every.value) == pytest.approx(np.corrcoef(others.T, values)[-1, :3])


def test_labels_that_do_not_fit_are_refused_by_name() -> None:
    with pytest.raises(ShapeError, match="2 instructions for 1 questions"):
        crossed_interval(lambda w: w[:, 0], [0, 1], [0])


def test_answers_that_all_score_the_same_are_not_sure_of_the_next() -> None:
    nothing, questions = np.zeros(12), np.arange(12)

    # a share of 1 in 14, of which twelve questions show nothing
    assert unseen_variance(nothing, questions) == pytest.approx(1e4 * 13 / 14**2 / 12)
    assert unseen_variance(np.append(nothing, np.nan), [*questions, 99]) > 0
    assert unseen_variance(np.append(nothing, 100.0), [*questions, 12]) == 0.0
    assert unseen_variance(nothing[:1], questions[:1]) == 0.0


def test_a_rise_from_next_to_nothing_is_covered_by_few_questions() -> None:
    found = [is_rise_covered(np.random.default_rng(n), 12, shares=True) for n in range(300)]

    assert 0.9 <= np.mean(found) <= 0.99


@pytest.mark.parametrize("truth", [0.8, 0.995])
def test_the_auroc_of_a_small_design_is_covered(truth: float) -> None:
    found = [is_auroc_covered(np.random.default_rng(n), (3, 6), truth) for n in range(100)]

    # 90 %, less two standard errors
    assert np.mean(found) >= 0.84


def test_one_pair_the_wrong_way_round_of_few_prompts_is_not_taken_for_chance() -> None:
    instruction, question, is_pos = rows_of(3, 4, 1)
    values = np.random.default_rng(0).standard_normal(len(is_pos)) + 6.0 * is_pos
    values[0] = np.sort(values[~is_pos])[-1] - 0.01

    found = auroc_over_prompts(values[:, None], is_pos, instruction, question)

    assert 0.9 < found.value[0] < 1
    assert found.low[0] > 0.5
