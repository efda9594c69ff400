"""Protects what tells a vector that reads texts from one that reads instructions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from traitlens.arrays import Bools, Float32
from traitlens.assess.exchange import Exchanged, exchanged_labels, exchanged_scores
from traitlens.assess.reading import (
    FoldedDirections,
    Reading,
    Texts,
    context_and_text_parts,
    exchange_p,
    reading,
    strata,
)
from traitlens.stats.separation import auroc_over_prompts, mid_ranks

N_INSTRUCTIONS, N_QUESTIONS, N_LAYERS, D_MODEL = 5, 20, 5, 32


def design(each: int = 1, seed: int = 0) -> tuple[Bools, list[int], list[int]]:
    """A response of each polarity in `each` of a question's five cells."""
    cells = [((q + k) % N_INSTRUCTIONS, q) for q in range(N_QUESTIONS) for k in range(each)]
    is_pos = np.repeat([True, False], len(cells))
    return is_pos, [i for i, _ in cells] * 2, [q for _, q in cells] * 2


def planted(
    text: float, context: float, *, seed: int = 0, each: int = 3, noise: float = 1.0
) -> Texts:
    """Texts that differ by `text` along one axis, and instructions that add `context` along
    another; what a text adds of its own is the same in every context."""
    rng = np.random.default_rng(seed)
    is_pos, instruction, question = design(each)
    n = len(is_pos)
    sign = np.where(is_pos, 0.5, -0.5)[:, None]
    of_question = rng.standard_normal((N_QUESTIONS, N_LAYERS, D_MODEL))[question]
    base = of_question + noise * rng.standard_normal((n, N_LAYERS, D_MODEL))
    base[..., 0] += text * sign

    def within(shift: float) -> Float32:
        moved = base + 0.05 * rng.standard_normal(base.shape)
        moved[..., 1] += shift * sign
        return moved.astype(np.float32)

    return Texts(
        within(context), within(-context), base.astype(np.float32), is_pos, instruction, question
    )


def identical_texts(seed: int = 0, each: int = 3) -> Texts:
    """Every answer byte for byte the same whatever the instruction; the instructions differ."""
    rng = np.random.default_rng(seed)
    is_pos, instruction, question = design(each)
    of_question = rng.standard_normal((N_QUESTIONS, N_LAYERS, D_MODEL)).astype(np.float32)
    base = of_question[np.array(question)]
    toward = rng.standard_normal((2, N_LAYERS, D_MODEL))
    positive = (base + toward[0]).astype(np.float32)
    negative = (base + toward[1]).astype(np.float32)
    side = is_pos[:, None, None]
    own, opposite = np.where(side, positive, negative), np.where(side, negative, positive)
    return Texts(own, opposite, base, is_pos, instruction, question)


def folded_directions(*texts: Texts) -> FoldedDirections:
    directions = FoldedDirections(range(N_QUESTIONS))
    for one in texts:
        directions.add(one.own, is_pos=one.is_pos, labels=one.question)
    return directions


def read(texts: Texts) -> Reading:
    return reading(texts, folded_directions(texts))


def test_planted_shares_of_text_and_context_are_recovered_and_sum_to_one() -> None:
    texts = planted(text=3.0, context=4.0, each=5, noise=0.1)

    parts = context_and_text_parts(texts)

    assert parts.text_share == pytest.approx(9 / 25, abs=0.03)
    assert parts.text_share + parts.context_share == pytest.approx(1.0, abs=1e-12)
    difference = texts.own[texts.is_pos].mean(0) - texts.own[~texts.is_pos].mean(0)
    assert np.abs(parts.text + parts.context - difference).max() < 1e-5


def test_a_vector_of_byte_identical_texts_does_not_read() -> None:
    found = read(identical_texts())

    assert (found.auroc.value == 0.5).all()
    assert found.p == 1.0
    # and yet the instruction before them is seen by it, at every layer
    assert (found.instruction_auroc.value[1:] > 0.95).all()


def test_a_vector_of_texts_that_differ_reads_without_any_instruction() -> None:
    found = read(planted(text=3.0, context=4.0))

    layer = found.layer
    assert found.auroc.value[layer] > 0.75
    assert found.auroc.low[layer] > 0.6
    assert found.p == 1 / 1000
    assert found.cohens_d.low[layer] == found.cohens_d.low[1:-1].max()


def test_a_vector_does_not_see_the_question_that_it_is_tested_on() -> None:
    """Each question's polarities differ along an axis of its own: nothing holds for the others."""
    is_pos, instruction, question = design(3)
    rows: Float32 = np.zeros((len(is_pos), 3, N_QUESTIONS), np.float32)
    rows[np.arange(len(is_pos)), :, question] = np.where(is_pos, 1.0, -1.0)[:, None]

    found = read(Texts(rows, rows, rows, is_pos, instruction, question))

    assert found.p > 0.05
    assert (np.abs(found.auroc.value - 0.5) < 1e-6).all()


def test_scores_of_exchanged_polarities_are_those_of_directions_that_are_made_again() -> None:
    texts = planted(text=1.0, context=2.0, each=2)
    others = planted(text=1.0, context=2.0, seed=1)
    folded = folded_directions(texts, others)
    folds, layer = folded.folds(texts.question), 2
    labels = exchanged_labels(texts.is_pos, strata(texts), 3, seed=0)
    side = texts.is_pos[:, None]
    own, opposite, plain = (
        rows[:, layer].astype(np.float64) for rows in (texts.own, texts.opposite, texts.plain)
    )
    rest = folded.without_rows(own, layer, is_pos=texts.is_pos, folds=folds)
    contexts = np.where(side, own, opposite), np.where(side, opposite, own)

    found = exchanged_scores(Exchanged(plain, *contexts, *rest), labels, folds)

    for scores, is_pos in zip(found, labels, strict=True):
        # whoever changes its polarity was measured under the other instruction
        stays = (is_pos == texts.is_pos)[:, None, None]
        moved = replace(texts, own=np.where(stays, texts.own, texts.opposite), is_pos=is_pos)
        again = folded_directions(moved, others).scores(texts.plain, texts.question)
        assert np.abs(scores - again[:, layer]).max() < 1e-6


@pytest.mark.parametrize(
    ("n_others", "n_seeds", "most"),
    # 99 % of binomial draws at 5 % stay under
    [(0, 30, 5), pytest.param(2, 200, 18, marks=pytest.mark.slow)],
)
def test_noise_reads_in_no_more_than_one_of_twenty_seeds(
    n_others: int, n_seeds: int, most: int
) -> None:
    """The directions that score a text are made of the other texts as well, or of them alone."""
    found = []
    for seed in range(n_seeds):
        texts = planted(text=0.0, context=1.0, seed=seed, each=2)
        others = [planted(text=0.0, context=1.0, seed=1000 + seed, each=3)] * n_others
        found.append(exchange_p(texts, folded_directions(texts, *others), seed=seed))

    assert sum(p <= 0.05 for p in found) <= most
    assert 0.3 < float(np.mean(found)) < 0.7


def test_the_auroc_is_that_of_a_plain_count_and_is_never_sure_beyond_its_texts() -> None:
    rng = np.random.default_rng(3)
    is_pos, instruction, question = design(2)
    scores = rng.integers(0, 6, (len(is_pos), 2)).astype(float)
    apart = np.where(is_pos, 1.0, 0.0)[:, None]

    found = auroc_over_prompts(scores, is_pos, instruction, question)
    perfect = auroc_over_prompts(apart, is_pos, instruction, question)

    for layer in range(2):
        pairs = [
            (p > n) + 0.5 * (p == n) for p in scores[is_pos, layer] for n in scores[~is_pos, layer]
        ]
        assert found.value[layer] == pytest.approx(np.mean(pairs), abs=1e-12)
    assert perfect.value[0] == 1.0
    assert perfect.low[0] < 0.99
    assert mid_ranks(np.array([[3.0], [1.0], [3.0]]))[:, 0].tolist() == [2.0, 0.5, 2.0]


def test_texts_of_which_a_polarity_has_no_direction_are_not_read() -> None:
    """A score that is NaN is sorted behind all numbers: as if it were the highest."""
    noise = planted(text=0.0, context=0.0)
    chosen = ~noise.is_pos | (np.array(noise.question) == 3)
    texts = Texts(
        *(rows[chosen] for rows in (noise.own, noise.opposite, noise.plain, noise.is_pos)),
        *(np.array(label)[chosen].tolist() for label in (noise.instruction, noise.question)),
    )

    found = read(texts)

    for one in (found.auroc, found.in_context_auroc, found.instruction_auroc):
        assert np.isnan([one.value, one.low, one.high]).all()
    assert np.isnan(found.p)
