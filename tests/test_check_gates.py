"""Protects the gates on a vector's tests: each decides, is named, and says what is usable."""

from __future__ import annotations

from typing import Any

import pytest

from domain.plan.spec import NO_JUDGE, JudgeSpec
from domain.verdict.gates import with_verdict
from domain.verdict.record import (
    Bounds,
    CausalFigures,
    Estimate,
    Estimates,
    Gate,
    JudgingFacts,
    LikelihoodFigures,
    PolarityCounts,
    ReadingFigures,
    Severity,
)
from domain.verdict.steering import steering_findings
from tests.quality_records import evaluated, read, separation, steered
from tests.quality_records import metrics as metrics_with
from tests.quality_records import quality as good_quality

DOUBT = "usable with a doubt"
FAILED = (Severity.FATAL, Severity.WEAK, Severity.DOUBT)
READ_NOT = [Gate.READING_NOT_SHOWN, Gate.NO_USE_SHOWN]


@pytest.mark.parametrize(
    ("tested", "causal", "name", "gate"),
    [
        ({}, steered(), "usable", None),
        # what is fatal for reading is a doubt of what surely steers, and fatal alone
        ({"held_out": (0.95, 0.45)}, steered(), DOUBT, Gate.EVALUATION_CHANCE),
        ({"held_out": (0.95, 0.45)}, None, "do not use", Gate.EVALUATION_CHANCE),
        ({"follows": (0.1, -0.2)}, steered(), DOUBT, Gate.JUDGE_NOT_FOLLOWED),
        ({"follows": (0.1, -0.2)}, None, "do not use", Gate.JUDGE_NOT_FOLLOWED),
        # scores that hardly differ within instructions cannot be followed there
        ({"follows": (0.1, -0.2), "score_within": 0.05}, None, "usable", None),
        ({"held_out": (0.69, 0.55)}, steered(), DOUBT, Gate.EVALUATION_LOW),
        # of before there were figures of all readable responses
        ({"held_out": (0.69, 0.55), "is_former": True}, None, "weak", Gate.EVALUATION_LOW),
        ({"held_out": (0.69, 0.55)}, None, "weak", Gate.EVALUATION_LOW),
        ({"held_out": (0.85, 0.7)}, steered(), "usable", None),
        # of all readable responses, whatever those reach that the vector is made from
        ({"instruction": (0.55, 0.4)}, steered(), DOUBT, Gate.INSTRUCTIONS_CHANCE),
        ({"instruction": (0.65, 0.55)}, None, "weak", Gate.INSTRUCTIONS_LOW),
        ({"too_few": True}, steered(), DOUBT, Gate.EVALUATION_FEW),
        ({}, steered(2.0, 5.0, -1.0, -2.0), DOUBT, Gate.STEERING_UNSURE),
        ({}, steered(2.0, 9.0, 3.0, -2.0), DOUBT, Gate.STEERING_RANDOM),
        ({}, steered(None, None, None, None), DOUBT, Gate.STEERING_UNREADABLE),
        ({}, steered(2.0, 50.0, None, None), DOUBT, Gate.STEERING_ONE_QUESTION),
        (None, None, "usable", None),
    ],
)
def test_each_gate_on_the_checks_decides_and_is_named(
    tested: dict[str, Any] | None, causal: CausalFigures | None, name: str, gate: Gate | None
) -> None:
    found = None if tested is None else evaluated(**tested)

    decided = with_verdict(metrics_with(quality=good_quality(evaluation=found, causal=causal)))

    failed = [one for one in decided.findings if one.severity in FAILED]
    assert decided.verdict == name
    assert [one.gate for one in failed] == [gate][: bool(gate)]
    assert len(decided.reasons) == len(failed)


IDLE = steered(2.0, 5.0, -1.0, -2.0)


@pytest.mark.parametrize(
    ("reading", "causal", "uses", "name", "gates"),
    [
        (read(), steered(), ("yes", "yes"), "usable", []),
        (read((0.65, 0.55)), None, ("doubt", "untested"), DOUBT, [Gate.READING_LOW]),
        (read((0.9, 0.45)), steered(), ("doubt", "yes"), DOUBT, [Gate.READING_LOW]),
        (read(p=0.2), steered(), ("no", "yes"), DOUBT, [Gate.READING_NOT_SHOWN]),
        (read(), IDLE, ("yes", "no"), DOUBT, [Gate.STEERING_UNSURE]),
        (None, steered(), ("untested", "yes"), "usable", []),
        (read(p=0.2), None, ("no", "untested"), "weak", READ_NOT),
        (None, IDLE, ("untested", "no"), "weak", [Gate.STEERING_UNSURE, Gate.NO_USE_SHOWN]),
        (None, None, ("untested", "untested"), "weak", [Gate.NO_USE_SHOWN]),
    ],
)
def test_a_vector_is_usable_for_what_is_shown_and_the_rest_is_named(
    reading: ReadingFigures | None,
    causal: CausalFigures | None,
    uses: tuple[str, str],
    name: str,
    gates: list[Gate],
) -> None:
    vectors = good_quality(evaluation=evaluated(), causal=causal, reading=reading)

    decided = with_verdict(metrics_with(quality=vectors))

    assert (decided.uses.reads.state, decided.uses.steers.state) == uses
    assert decided.verdict == name
    assert decided.is_usable == (name != "weak")
    assert [one.gate for one in decided.findings if one.severity in FAILED] == gates
    # the layer of a use is that of its test, else the best in context
    assert decided.uses.reads.layer == (reading.layer if reading else vectors.best.layer)


@pytest.mark.parametrize(
    ("changes", "vectors", "uses", "name"),
    [
        # its own test is passed, and yet the responses are not what they are taken for
        ({"contrast": 5.0}, {}, ("no", "no"), "do not use"),
        ({}, {"angle_upper": 90.0}, ("no", "no"), "do not use"),
        ({}, {"question": (0.55, 0.4)}, ("no", "yes"), DOUBT),
        ({}, {"question": (0.55, 0.4), "causal": IDLE}, ("no", "no"), "do not use"),
    ],
)
def test_no_use_is_shown_that_something_fatal_is_found_against(
    changes: dict[str, Any], vectors: dict[str, Any], uses: tuple[str, str], name: str
) -> None:
    found = good_quality(**{"causal": steered(), **vectors}, evaluation=evaluated())

    decided = with_verdict(metrics_with(quality=found, **changes))

    assert (decided.uses.reads.state, decided.uses.steers.state) == uses
    assert decided.verdict == name


def bounded(value: float, low: float) -> Bounds:
    """Between what a figure would be at worst, with the low end of its interval, and 100."""
    ends = (Estimate(value=v, interval=(v - low, 100.0)) for v in (value, 100.0))
    return Bounds(n=5, lowest=next(ends), highest=next(ends))


@pytest.mark.parametrize(
    ("contrast", "auroc", "rise", "of"),
    [
        (bounded(60.0, 10.0), (0.95, 0.9), bounded(30.0, 20.0), []),
        (bounded(35.0, 10.0), None, None, ["weak"]),
        (bounded(15.0, 10.0), None, None, ["do not use"]),
        (bounded(60.0, 70.0), None, None, ["do not use"]),
        (None, (0.65, 0.55), None, [DOUBT]),
        (None, None, bounded(10.0, 20.0), [DOUBT]),
        # the second makes the verdict no worse than the first does
        (bounded(35.0, 10.0), (0.65, 0.55), None, ["weak"]),
    ],
)
def test_a_verdict_that_hangs_on_unscored_responses_is_a_doubt_that_is_named(
    contrast: Bounds | None, auroc: tuple[float, float] | None, rise: Bounds | None, of: list[str]
) -> None:
    tested = evaluated()
    own = tested.methods["mean_diff"].model_copy(
        update={"with_unscored": auroc and separation(auroc)}
    )
    vectors = good_quality(
        evaluation=tested.model_copy(update={"methods": {"mean_diff": own}}),
        causal=steered().model_copy(update={"rise_bounds": rise}),
    )

    decided = with_verdict(metrics_with(quality=vectors, contrast_bounds=contrast))

    found = [one for one in decided.findings if one.gate == Gate.UNSCORED_DECIDE]
    assert [one.best for one in found] == of
    assert decided.verdict == (DOUBT if of else "usable")
    assert len(decided.reasons) == len(of)


def test_what_is_no_better_than_weak_hangs_on_nothing() -> None:
    decided = with_verdict(metrics_with(contrast=30.0, contrast_bounds=bounded(15.0, 10.0)))

    assert decided.verdict == "weak"
    assert Gate.UNSCORED_DECIDE not in {one.gate for one in decided.findings}


@pytest.mark.parametrize(
    ("reading", "name"), [(read(), DOUBT), (read(p=0.2), "weak"), (None, "weak")]
)
def test_what_nobody_judged_is_never_better_than_usable_with_a_doubt(
    reading: ReadingFigures | None, name: str
) -> None:
    nobody = JudgeSpec(model=NO_JUDGE, url=NO_JUDGE)
    judging = JudgingFacts(judgement="first", judge=nobody, mode=None)
    vectors = good_quality(evaluation=evaluated(follows=None), causal=None, reading=reading)

    decided = with_verdict(
        metrics_with(quality=vectors, judging=judging, contrast=None, contrast_interval=None)
    )

    assert decided.verdict == name
    lacks = {one.gate for one in decided.findings}
    assert Gate.NOT_JUDGED in lacks
    assert not lacks & {Gate.CONTRAST_UNKNOWN, Gate.CORRELATION_FEW}


@pytest.mark.parametrize(
    ("p", "rise", "gates"),
    [
        (0.01, (50.0, 30.0), {}),
        (0.2, (50.0, 30.0), {Gate.LIKELIHOOD_CHANCE: Severity.NOTE}),
        (
            0.2,
            (5.0, -1.0),
            {Gate.LIKELIHOOD_CHANCE: Severity.WEAK, Gate.STEERING_UNSURE: Severity.WEAK},
        ),
        (0.2, None, {Gate.LIKELIHOOD_CHANCE: Severity.WEAK}),
        (0.01, None, {}),
    ],
)
def test_a_vector_that_neither_the_judge_nor_the_likelihoods_see_steer_is_named(
    p: float, rise: tuple[float, float] | None, gates: dict[Gate, Severity]
) -> None:
    causal = None if rise is None else steered(2.0, *rise, 1.0)
    likelihood = LikelihoodFigures(
        method="mean_diff",
        layer=1,
        p=p,
        z=(None, 1.0),
        gain=Estimates(value=(0.1, 0.1), interval=((0.0, 0.2),) * 2),
        n_texts=PolarityCounts(positive=18, negative=18),
        n_questions=20,
        n_random=999,
        most_tokens=40,
    )

    found = steering_findings(good_quality(causal=causal, likelihood=likelihood))

    assert {one.gate: one.severity for one in found} == gates
