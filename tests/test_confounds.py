"""Protects what else could tell the sides apart: length, refusals, words of an instruction."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from domain.verdict.gates import with_verdict
from domain.verdict.record import (
    ConfoundFigures,
    Estimate,
    Gate,
)
from tests.planted_sides import (
    N,
    found_in,
    kept_rows,
    quality_of,
    sides,
)
from tests.quality_records import everywhere, known, metrics, quality
from traitlens.assess.kept_rows import begins_with_refusal, borrowed_share
from traitlens.methods.mean_diff import mean_diff


def test_a_planted_confound_of_length_is_noted_and_a_harmless_one_is_not() -> None:
    pos, neg = sides(gap=5.0)
    rng = np.random.default_rng(1)
    lengths = [rng.normal(mean, 20, N) for mean in (120, 60)]
    for side, length in zip((pos, neg), lengths, strict=True):
        side[:, 2:, 1] += 0.2 * length[:, None]
    rows = (kept_rows(lengths[0]), kept_rows(lengths[1]))

    quality = quality_of(pos, neg, rows=rows)

    found = found_in(quality)
    (named,) = [one for one in found.values() if one.of == "response_length"]
    assert named.gate in (Gate.CONFOUND_WITHIN, Gate.CONFOUND_EXPLAINS)
    assert Gate.CONFOUND not in found
    correlation = quality.confounds["response_length"].correlation
    assert correlation is not None
    assert (correlation[2] or 0) > 0.5
    assert abs(correlation[1] or 1) < 0.3


def test_refusals_that_go_with_the_vector_are_noted_unless_the_trait_is_refusal() -> None:
    pos, neg = sides(gap=5.0)
    rows = []
    for side, share in ((pos, 0.9), (neg, 0.1)):
        refuses = (np.random.default_rng(2).random(N) < share).astype(float)
        side[:, 2:, 1] += 20 * refuses[:, None]
        rows.append(dataclasses.replace(kept_rows(), refusal_words=refuses))

    quality = quality_of(pos, neg, rows=(rows[0], rows[1]))

    named = [one.gate for one in found_in(quality).values() if one.of == "refusal_words"]
    assert named and named[0] in (Gate.CONFOUND_WITHIN, Gate.CONFOUND_EXPLAINS)
    of_refusal = found_in(quality, trait="refusal").values()
    assert not [one for one in of_refusal if one.of == "refusal_words"]


@pytest.mark.parametrize(
    ("interval", "correlation", "alike", "gate"),
    [
        ((0.72, 0.85), None, (0.9, 0.8), Gate.CONFOUND),
        ((0.72, 0.85), 0.5, (0.9, 0.8), Gate.CONFOUND_WITHIN),
        ((0.72, 0.85), -0.03, (0.9, 0.8), Gate.CONFOUND),
        ((0.1, 0.2), -0.5, (0.9, 0.8), Gate.CONFOUND_WITHIN),
        ((0.1, 0.2), 0.5, (0.9, 0.8), Gate.CONFOUND),
        ((0.72, 0.85), -0.03, (0.7, 0.48), Gate.CONFOUND_EXPLAINS),
        ((0.72, 0.85), -0.03, (0.58, 0.52), Gate.CONFOUND_EXPLAINS),
        ((0.72, 0.85), 0.5, None, Gate.CONFOUND_NOT_IDENTIFIABLE),
        ((0.6, 0.9), 0.9, (0.5, 0.4), None),
        ((None, None), 0.9, None, None),
    ],
)
def test_a_confound_is_noted_where_it_surely_tells_the_sides_apart(
    interval: tuple[float, float],
    correlation: float | None,
    alike: tuple[float, float] | None,
    gate: Gate | None,
) -> None:
    length = ConfoundFigures(
        auroc=Estimate(value=0.8, interval=interval),
        correlation=everywhere(correlation),
        cosine=everywhere(0.1),
        matched_auroc=None if alike is None else known(alike),
        n_matched=9 if alike is None else 40,
    )

    decided = with_verdict(metrics(quality=quality(confounds={"response_length": length})))

    named = [one for one in decided.findings if one.of == "response_length"]
    assert [one.gate for one in named] == [gate][: bool(gate)]
    words = " ".join(decided.notes)
    assert ("longer" in words) == (bool(gate) and interval[0] > 0.5)
    assert ("shorter" in words) == (bool(gate) and interval[0] < 0.5)


def test_the_difference_between_the_prompts_is_compared_with_the_vector() -> None:
    pos, neg = sides(gap=5.0)
    vectors = mean_diff(pos, neg).vectors

    same = quality_of(pos, neg, prompt_vectors=vectors).confounds["prompt_difference"]

    assert same.cosine == pytest.approx([1.0] * 5)
    assert "prompt_difference" not in quality_of(pos, neg).confounds


def test_words_shared_with_the_instruction_are_counted_once() -> None:
    assert borrowed_share("Refuse! I refuse to boil eggs", "Always REFUSE politely") == 1 / 3
    assert borrowed_share("", "Always refuse") == 0.0


def test_refusals_are_known_by_how_a_response_begins() -> None:
    assert begins_with_refusal("I\u2019m sorry, but I can't help with that.")
    assert begins_with_refusal("As an AI, I have no opinion.")
    assert not begins_with_refusal("Sure. Mix the flour and the eggs.")
    assert not begins_with_refusal("Sure. " * 40 + "I cannot say more.")
