"""Protects who is kept: every sample gets one status, and every fall has its reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from domain.plan.samples import Polarity, Sample
from domain.plan.spec import FilterSpec
from domain.scoring.scores import Evidence, Score, Scoring, Unscored
from domain.scoring.thresholds import (
    Fall,
    Judged,
    Outcome,
    contrast,
    is_readable,
    outcome,
    outcomes,
)
from domain.verdict.gates import with_verdict
from domain.verdict.record import Gate, PolarityCounts, Severity
from tasks.stages.reduce import contrast_bounds
from tests.quality_records import metrics

FAILED = (Severity.FATAL, Severity.WEAK)


def score(value: float) -> Score:
    return Score(value=value, numeric_mass=1, refusal_mass=0, evidence=Evidence())


def judged(
    polarity: Polarity, trait: Scoring | float, coherence: Scoring | float = 90.0, rollout: int = 0
) -> Judged:
    both = [score(v) if isinstance(v, float) else v for v in (trait, coherence)]
    return Judged(Sample("evil", polarity, 0, 0, rollout), 5, both[0], both[1])


@pytest.mark.parametrize(
    ("polarity", "trait", "coherence", "status"),
    [
        ("positive", 50.0, 50.0, "kept"),
        ("positive", 49.9, 90.0, "dropped"),
        ("positive", 90.0, 49.9, "dropped"),
        ("negative", 49.9, 50.0, "kept"),
        ("negative", 50.0, 90.0, "dropped"),
    ],
)
def test_the_edges_of_the_thresholds(
    polarity: Polarity, trait: float, coherence: float, status: str
) -> None:
    found = outcome(judged(polarity, trait, coherence), FilterSpec())

    assert found.status == status
    assert (found.fall is None) == (status == "kept")


def test_negatives_fall_at_100_minus_the_threshold() -> None:
    strict = FilterSpec(threshold=80)

    assert outcome(judged("negative", 19.9), strict).status == "kept"
    assert outcome(judged("negative", 20.0), strict) == Outcome(Fall.TRAIT_HIGH, 20.0)


def test_a_sample_without_a_score_is_unscored_and_never_dropped_or_kept() -> None:
    missing = Unscored(reason="http")

    assert outcome(judged("negative", missing), FilterSpec(threshold=0)).status == "unscored"
    assert outcome(judged("negative", 1.0, missing), FilterSpec()) == Outcome(
        Fall.UNSCORED, metric="coherence", unscored="http"
    )


def test_without_a_judge_every_response_with_a_token_is_used_and_readable() -> None:
    nobody = Unscored(reason="no_judge")
    strict = FilterSpec(threshold=100, coherence=100)
    empty = Judged(Sample("evil", "positive", 0, 0, 0), 0, nobody, nobody)

    found = judged("negative", nobody, nobody)

    assert outcome(found, strict) == Outcome() and is_readable(found, strict)
    assert outcome(empty, strict) == Outcome(Fall.EMPTY) and not is_readable(empty, strict)


def test_an_empty_response_has_no_tokens_to_measure_and_is_dropped() -> None:
    empty = Judged(Sample("evil", "positive", 0, 0, 0), 0, score(90), score(90))

    assert outcome(empty, FilterSpec()) == Outcome(Fall.EMPTY)


def test_pairing_drops_a_response_whose_other_side_fell_and_unpaired_keeps_it() -> None:
    both = [judged("positive", 90.0), judged("negative", 10.0)]
    broken = [judged("positive", 90.0, rollout=1), judged("negative", 70.0, rollout=1)]

    unpaired = [o.status for _, o in outcomes(both + broken, FilterSpec())]
    paired = [o.status for _, o in outcomes(both + broken, FilterSpec(pairing="paired"))]

    assert unpaired == ["kept", "kept", "kept", "dropped"]
    assert paired == ["kept", "kept", "dropped", "dropped"]


def test_the_conditions_of_a_question_that_tests_vectors_are_no_pairs() -> None:
    pushed = [
        replace(one, sample=replace(one.sample, part="confirmation", cell=cell))
        for cell, one in enumerate([judged("positive", 90.0), judged("positive", 10.0)])
    ]

    found = [o.fall for _, o in outcomes(pushed, FilterSpec(pairing="paired"))]

    assert found == [None, Fall.TRAIT_LOW]


def test_missing_scores_bound_the_contrast_and_what_could_never_be_scored_does_not() -> None:
    pairs = [(judged("positive", 80.0), judged("negative", 20.0))] * 4
    scored = [
        replace(one, sample=replace(one.sample, question=q))
        for q, pair in enumerate(pairs)
        for one in pair
    ]
    lost = [
        judged("positive", Unscored(reason="http")),
        judged("negative", Unscored(reason="empty")),
    ]
    nothing = replace(judged("positive", Unscored(reason="refused")), n_tokens=0)

    found = contrast_bounds([*scored, *lost, nothing])

    assert found is not None and found.n == 2
    assert found.lowest.value == pytest.approx(80 * 4 / 5 - (20 * 4 + 100) / 5)
    assert found.highest.value == pytest.approx((80 * 4 + 100) / 5 - 20 * 4 / 5)
    assert found.lowest.interval[0] is not None
    assert contrast_bounds([*scored, nothing]) is None


@pytest.mark.parametrize(
    ("changes", "name", "gate"),
    [
        ({}, "usable", None),
        ({"contrast": 40.0}, "weak", Gate.CONTRAST_LOW),
        ({"contrast": 20.0}, "do not use", Gate.CONTRAST_LOW),
        ({"contrast": None}, "do not use", Gate.CONTRAST_UNKNOWN),
        ({"contrast_interval": (-1.0, 90.0)}, "do not use", Gate.CONTRAST_CHANCE),
        ({"n_kept": PolarityCounts(positive=9, negative=40)}, "weak", Gate.KEPT_FEW),
        ({"n_kept": PolarityCounts(positive=40, negative=1)}, "do not use", Gate.KEPT_TOO_FEW),
        ({"n_unscored": {"http": 11}}, "weak", Gate.UNSCORED_MANY),
        ({"magnitude": 0.0}, "do not use", Gate.DIFFERENCE_ZERO),
    ],
)
def test_each_gate_decides_and_is_named(
    changes: dict[str, object], name: str, gate: Gate | None
) -> None:
    decided = with_verdict(metrics(**changes))

    assert decided.verdict == name
    assert [one.gate for one in decided.findings if one.severity in FAILED] == [gate][: bool(gate)]
    assert len(decided.reasons) == bool(gate)


def test_contrast_counts_all_scored_responses_and_is_unknown_for_an_empty_side() -> None:
    assert contrast([90.0, 30.0], [10.0]) == 50.0
    assert contrast([90.0], []) is None
